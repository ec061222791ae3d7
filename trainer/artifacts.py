"""The artifact layer: one protocol, and what every store shares.

A run's outputs are collected into its folder by its backend; ``outputs/model.npz`` is registered as
the next version of a named model; any version can be fetched again. A store keeps versions; this
module checks names and digests, and reads what a version records from the run's folder.
"""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from trainer.errors import IntegrityError, NotFoundError, UsageError
from trainer.runfolder import RunFolder

MODEL_FILE = "model.npz"
# Written by the job: {"python": "3.13.1", "numpy": "2.4.6", "chainer": "7.8.1", "cupy": "14.0.1"}.
ENVIRONMENT_FILE = "environment.json"
_ENVIRONMENT_MAX = 64 << 10
_ENTRIES_MAX = 200
_METRIC_NAME_MAX = 200
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
    created: float
    tags: dict[str, str] = {}

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
        """All versions, of one model or of all, by name and then rising version."""
        ...

    def get(self, model_name: str, version: int | None = None) -> ModelVersion:
        """One version, or the latest.

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
            f"{name[:60]!r} can't name a model.",
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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_output(folder: RunFolder) -> Path:
    """The run's ``outputs/model.npz``; a link to another of its outputs is followed.

    Raises:
        NotFoundError: The run has none.
        IntegrityError: It is no file, or a link that leads out of the outputs.
    """
    path = folder.outputs / MODEL_FILE
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise NotFoundError(
            f"Run {folder.run_id} has no outputs/{MODEL_FILE}.",
            f"Let the script write it: serializers.save_npz('outputs/{MODEL_FILE}', model)",
        ) from error
    if not found.is_file() or not found.is_relative_to(folder.outputs.resolve()):
        raise IntegrityError(
            f"outputs/{MODEL_FILE} of run {folder.run_id} is not a file within the run's outputs.",
            "Let the script write a file there.",
        )
    return found


def describe_model(folder: RunFolder, model_name: str, *, version: int, sha256: str, size: int) -> ModelVersion:
    """What a store records of a version registered from a run.

    Args:
        folder: The run's folder.
        model_name: The model's name.
        version: Its version number.
        sha256: Of the file that the store keeps.
        size: Of that file, in bytes.

    Raises:
        NotFoundError: There is no such run.
        ConfigError: The run's record is damaged.
    """
    info, job = folder.info(), folder.job()
    metrics = {metric.name: metric.value for metric in folder.metrics() if len(metric.name) <= _METRIC_NAME_MAX}
    return ModelVersion(
        name=model_name,
        version=version,
        sha256=sha256,
        size=size,
        run_id=folder.run_id,
        backend=info.backend,
        snapshot=info.snapshot,
        dataset=info.dataset or job.dataset,
        metrics=dict(list(metrics.items())[:_ENTRIES_MAX]),
        versions=environment_versions(folder),
        created=time.time(),
        tags=job.tags,
    )


def environment_versions(folder: RunFolder) -> dict[str, str]:
    """Versions that the job wrote to ``outputs/environment.json``; what isn't a plain version is left out.

    The script owns the file, so nothing in it can make registration fail.
    """
    path = folder.outputs / ENVIRONMENT_FILE
    if not path.is_file():  # a pipe would be waited for
        return {}
    try:
        with path.open("rb") as stream:
            found = msgspec.json.decode(stream.read(_ENVIRONMENT_MAX), type=dict[str, object])
    except (OSError, msgspec.DecodeError, RecursionError):
        return {}
    plain = {
        key: value
        for key, value in found.items()
        if isinstance(value, str)
        and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key)
        and re.fullmatch(r"[A-Za-z0-9_.+!-]{1,64}", value)
    }
    return dict(list(plain.items())[:_ENTRIES_MAX])
