"""The protocol of a model registry, what it records of a version, and how versions are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from trainer.errors import NotFoundError, UsageError
from trainer.job import DataRecord
from trainer.records import Time

if TYPE_CHECKING:
    from trainer.runfolder import RunFolder

# Azure ML's own rule, so that a name that works here works there.
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,253}")


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One registered version of a model.

    Attributes:
        name: The model's name.
        version: 1, 2, 3, ...; never reused after a deletion.
        sha256: Of the npz file, in lower-case hexadecimal.
        size: In bytes.
        run_id: The run that made it.
        backend: The backend it ran on.
        snapshot: Digest of the files that the run was given.
        dataset: Name of the data set it was trained on, or None.
        metrics: The last value of each metric of the run.
        versions: Versions of ``python``, ``numpy``, ``chainer`` and, on a GPU, ``cupy``.
        created: Seconds since the epoch, UTC.
        tags: The job's tags.
        data: What must be known of the data to use the model, where it was the user's own.
        network: ``FILE.py:NAME`` of the network, where it was the user's own; the file is in the run's snapshot.
    """

    name: str
    version: int
    sha256: str
    size: int
    run_id: str
    backend: str
    snapshot: str
    dataset: str | None = None
    metrics: dict[str, float | None] = {}
    versions: dict[str, str] = {}
    created: Time
    tags: dict[str, str] = {}
    data: DataRecord | None = None
    network: str | None = None

    @property
    def reference(self) -> str:
        """``name:version``, as commands take it."""
        return f"{self.name}:{self.version}"


@runtime_checkable
class ArtifactStore(Protocol):
    """A model registry.

    Every method may raise :class:`~trainer.errors.TrainerError`; a store of a remote service also ``SignInError``.
    """

    name: str
    only_archives: bool = False
    """Whether what is deleted is kept where it was, and left out of the lists."""

    def register(self, folder: RunFolder, model_name: str) -> ModelVersion:
        """Register the run's ``outputs/model.npz`` as the model's next version.

        Registering the same run under the same name again returns the version that it already has,
        so that a client killed half way can simply do it again.

        Raises:
            NotFoundError: The run has no ``outputs/model.npz``.
            IntegrityError: The file is not a safe npz.
            UsageError: The name is unusable.
        """
        ...

    def versions(self, model_name: str | None = None) -> list[ModelVersion]:
        """Return all versions, of one model or of all, by name and then rising version.

        One whose record is damaged is left out; :meth:`damaged` then names it.
        """
        ...

    def damaged(self) -> list[str]:
        """Return what the reads so far found unreadable and left out, one sentence for each; by default nothing."""
        return []

    def get(self, model_name: str, version: int | None = None) -> ModelVersion:
        """Return one version, or the latest.

        Raises:
            NotFoundError: There is none.
        """
        ...

    def download(self, model: ModelVersion, target: Path) -> None:
        """Write the version's npz to ``target``, which does not exist; the caller checks the digest."""
        ...

    def delete(self, model_name: str, version: int) -> None:
        """Remove a version; its number is never used again.

        Raises:
            NotFoundError: There is none.
        """
        ...


def check_model_name(name: str) -> str:
    """Return ``name`` if it can name a model everywhere.

    Raises:
        UsageError: It can't.
    """
    if not _MODEL_NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name[:60]!r} is not a valid model name.",
            "Use up to 254 letters, digits, '_', '-' and single '.', beginning with a letter or digit.",
        )
    return name


def parse_model_reference(reference: str) -> tuple[str, int | None]:
    """Split ``name`` or ``name:version``.

    Returns:
        The name and the version, None meaning the latest.

    Raises:
        UsageError: The name or the version is unusable.
    """
    name, colon, version = reference.partition(":")
    check_model_name(name)
    if not colon or version == "latest":
        return name, None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
        raise UsageError(f"{version[:20]!r} is not a model version.", f"Write it as {name}:3 or {name}:latest.")
    return name, int(version)


def find_model(store: ArtifactStore, reference: str) -> ModelVersion:
    """Return the version that ``reference`` names.

    Args:
        store: Where to look.
        reference: ``name``, ``name:version``, an unambiguous beginning of a name in place of it, or ``latest``
            for the version registered last, of any name.

    Raises:
        UsageError: The reference is unusable, or fits more than one name.
        NotFoundError: Nothing fits.
    """
    if reference == "latest":
        every = store.versions()
        if not every:
            raise NotFoundError("There are no models here.", "Train one: trainer run")
        return max(every, key=lambda model: (model.created, model.name, model.version))
    name, version = parse_model_reference(reference)
    try:
        return store.get(name, version)
    except NotFoundError:
        names = {model.name for model in store.versions()}
        fitting = sorted(known for known in names if known.startswith(name))
        if name in names or not fitting:
            raise
    if len(fitting) > 1:
        raise UsageError(f"{name!r} fits {len(fitting)} models: {', '.join(fitting[:3])}.", "Give more of the name.")
    return store.get(fitting[0], version)
