"""A workspace's model registry as an artifact store, whichever SDK speaks to it.

A version's record is in the model's properties, which Azure ML never lets change; its tags are the job's. Models
that something else registered have no such record and are left alone: there is no digest to check them by.
"""

# ruff: noqa: D102  # of AnyModel, whose meaning is the SDKs'

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from backends.azure.errors import explained, retry
from trainer.artifacts import (
    ArtifactStore,
    ModelVersion,
    check_model_name,
    describe_model,
    file_sha256,
    model_output,
)
from trainer.errors import IntegrityError, NotFoundError
from trainer.modelfile import check_npz
from trainer.runtime.layout import MODEL_FILE, OUTPUTS_DIR

if TYPE_CHECKING:
    from trainer.runfolder import RunFolder

OUTPUT = f"{OUTPUTS_DIR}/{MODEL_FILE}"
"""The model among a run's files."""

IN_WORKSPACES = ("azureml", "azureml-v2")
"""The backends whose runs lie in a workspace, with their outputs."""

ARCHIVED_TAG = "trainer.archived"
"""On a version that was archived, which SDK v1 lists still."""

_PREFIX = "trainer."
_TEXT = ("sha256", "run_id", "backend", "snapshot", "dataset", "network")
# Azure ML cuts or refuses longer values of a property.
_LONGEST = 4000


class AnyModel(Protocol):
    """What both SDKs' models have."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def tags(self) -> Mapping[str, str] | None: ...
    @property
    def properties(self) -> Mapping[str, str] | None: ...


_M = TypeVar("_M", bound=AnyModel)


class WorkspaceStore(ArtifactStore, Generic[_M]):
    """The model registry of a workspace; a subclass speaks to it."""

    @abstractmethod
    def _list(self, model_name: str | None) -> Sequence[_M]:
        """Return every version, or those of one name."""

    @abstractmethod
    def _find(self, model_name: str, version: int) -> _M | None:
        """Look one version up."""

    @abstractmethod
    def _send(self, folder: RunFolder, source: Path, record: ModelVersion) -> None:
        """Register the model of a run, with :func:`properties_of` its record."""

    @abstractmethod
    def _download(self, model: _M, directory: Path) -> None:
        """Bring a version's files into an empty directory.

        Raises:
            IntegrityError: It can't be one file.
        """

    @abstractmethod
    def _remove(self, model: _M) -> None:
        """Remove a version from the lists for good."""

    def register(self, folder: RunFolder, model_name: str) -> ModelVersion:
        """See :meth:`trainer.artifacts.ArtifactStore.register`.

        A run of this workspace registers the file that it uploaded, and the registry shows the run beside it; the
        output of any other run is uploaded from its folder.
        """
        check_model_name(model_name)
        source = model_output(folder)
        check_npz(source)
        with folder.locked("register"):
            known = self._of_run(model_name, folder.run_id)
            if known is None:
                record = describe_model(
                    folder, model_name, version=0, sha256=file_sha256(source), size=source.stat().st_size
                )
                with explained(f"register {model_name}"):
                    self._send(folder, source, record)
                known = self._of_run(model_name, folder.run_id)
        if known is None:
            raise NotFoundError(f"The registry doesn't list the new version of {model_name}.", "Try again in a minute.")
        return known

    def versions(self, model_name: str | None = None) -> list[ModelVersion]:
        """See :meth:`trainer.artifacts.ArtifactStore.versions`."""
        if model_name is not None:
            check_model_name(model_name)
        records = [record for model in self._list(model_name) if (record := record_of(model))]
        return sorted(records, key=lambda record: (record.name, record.version))

    def get(self, model_name: str, version: int | None = None) -> ModelVersion:
        """See :meth:`trainer.artifacts.ArtifactStore.get`."""
        check_model_name(model_name)
        if version is None:
            every = self.versions(model_name)
            if every:
                return every[-1]
        else:
            record = record_of(self._model(model_name, version))
            if record is not None:
                return record
        raise self._missing(model_name, version)

    def download(self, model: ModelVersion, target: Path) -> None:
        """See :meth:`trainer.artifacts.ArtifactStore.download`.

        Raises:
            NotFoundError: The version is gone.
            IntegrityError: It is not the one file that was registered.
        """
        found = self._model(model.name, model.version)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            with explained(f"download {model.reference}"):
                retry(lambda: self._download(found, temporary))
            files = [path for path in temporary.rglob("*") if path.is_file()]
            if len(files) != 1:
                raise IntegrityError(f"{model.reference} has {len(files)} files, not one.", "Register its npz alone.")
            files[0].rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def delete(self, model_name: str, version: int) -> None:
        """See :meth:`trainer.artifacts.ArtifactStore.delete`."""
        found = self._model(check_model_name(model_name), version)
        with explained(f"delete {model_name}:{version}"):
            retry(lambda: self._remove(found))

    def _of_run(self, model_name: str, run_id: str) -> ModelVersion | None:
        """Find the version that a run has registered.

        There is one, unless the answer to a registration was lost and the SDK asked again: then the first stays.
        """
        fitting = sorted(
            ((record, model) for model in self._list(model_name) if (record := record_of(model))),
            key=lambda pair: pair[0].version,
        )
        fitting = [pair for pair in fitting if pair[0].run_id == run_id]
        for record, model in fitting[1:]:
            with explained(f"remove the second registration {record.reference}"):
                retry(lambda model=model: self._remove(model))  # type: ignore[misc]  # mypy knows no such default
        return fitting[0][0] if fitting else None

    def _model(self, model_name: str, version: int) -> _M:
        with explained(f"look up {model_name}:{version}"):
            found = retry(lambda: self._find(model_name, version))
        if found is None:
            raise self._missing(model_name, version)
        return found

    def _missing(self, model_name: str, version: int | None) -> NotFoundError:
        what = model_name if version is None else f"{model_name}:{version}"
        return NotFoundError(
            f"The workspace has no model {what} that was registered by trainer.",
            f"See: trainer models --backend {self.name}, with the options that this command had for it.",
        )


def properties_of(record: ModelVersion) -> dict[str, str]:
    """Return a model's properties, which hold a record."""
    fields = {name: getattr(record, name) for name in _TEXT}
    fields |= {"size": record.size, "created": repr(record.created)}
    fields |= {"metrics": _truncated_json(record.metrics), "versions": _truncated_json(record.versions)}
    data = "" if record.data is None else msgspec.json.encode(record.data).decode()
    if data and len(data) <= _LONGEST:  # cut short, it would be of no use
        fields["data"] = data
    return {f"{_PREFIX}{name}": str(value) for name, value in fields.items() if value is not None}


def _truncated_json(values: Mapping[str, object]) -> str:
    """Encode as many entries as a property holds."""
    kept = dict(values)
    while len(text := msgspec.json.encode(kept).decode()) > _LONGEST:
        kept.popitem()
    return text


def record_of(model: AnyModel) -> ModelVersion | None:
    """Read our record of a model; None if there is no valid one, or if it is archived."""
    if ARCHIVED_TAG in (model.tags or {}):
        return None
    found = {
        name.removeprefix(_PREFIX): value
        for name, value in (model.properties or {}).items()
        if name.startswith(_PREFIX)
    }
    try:
        fields = {
            **{name: found.get(name) for name in _TEXT},
            "metrics": msgspec.json.decode(found["metrics"]),
            "versions": msgspec.json.decode(found["versions"]),
            "size": int(found["size"]),
            "created": float(found["created"]),
            "data": msgspec.json.decode(found["data"]) if "data" in found else None,
        }
        return msgspec.convert(
            fields | {"name": model.name, "version": int(model.version), "tags": dict(model.tags or {})}, ModelVersion
        )
    except (KeyError, ValueError, OverflowError, RecursionError):  # msgspec's errors are ValueErrors
        return None
