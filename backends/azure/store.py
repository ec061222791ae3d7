"""The workspace's model registry as an artifact store.

A version's record is in the model's properties, which Azure ML never lets change; its tags are the job's. Models
that something else registered have no such record and are left alone: there is no digest to check them by.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backends.azure import submit
from backends.azure.errors import explained, retry
from backends.azure.session import sdk
from backends.azure.sync import run_name
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
    from backends.azure.sdk import Model, Workspace
    from trainer.runfolder import RunFolder

_PREFIX = "trainer."
_TEXT = ("sha256", "run_id", "backend", "snapshot", "dataset", "network")
# Azure ML cuts or refuses longer values of a property.
_LONGEST = 4000


class AzureMLStore(ArtifactStore):
    """The model registry of a workspace.

    Args:
        workspace: Opens it, on first use.
    """

    name = "azureml"

    def __init__(self, workspace: Callable[[], Workspace]) -> None:
        self._workspace = workspace

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
                    self._register(folder, source, record)
                known = self._of_run(model_name, folder.run_id)
        if known is None:
            raise NotFoundError(f"The registry doesn't list the new version of {model_name}.", "Try again in a minute.")
        return known

    def versions(self, model_name: str | None = None) -> list[ModelVersion]:
        """See :meth:`trainer.artifacts.ArtifactStore.versions`."""
        if model_name is not None:
            check_model_name(model_name)
        records = [record for model in self._list(model_name) if (record := _record(model))]
        return sorted(records, key=lambda record: (record.name, record.version))

    def get(self, model_name: str, version: int | None = None) -> ModelVersion:
        """See :meth:`trainer.artifacts.ArtifactStore.get`."""
        check_model_name(model_name)
        if version is None:
            every = self.versions(model_name)
            if every:
                return every[-1]
        else:
            record = _record(self._model(model_name, version))
            if record is not None:
                return record
        raise _missing(model_name, version)

    def download(self, model: ModelVersion, target: Path) -> None:
        """See :meth:`trainer.artifacts.ArtifactStore.download`.

        Raises:
            NotFoundError: The version is gone.
            IntegrityError: It is not the one file that was registered.
        """
        found = self._model(model.name, model.version)
        if found.unpack:
            raise IntegrityError(f"{model.reference} is an archive to unpack.", "Register its npz instead.")
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            with explained(f"download {model.reference}"):
                retry(lambda: found.download(str(temporary), exist_ok=True))
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
            retry(found.delete)

    def _of_run(self, model_name: str, run_id: str) -> ModelVersion | None:
        """Find the version that a run has registered.

        There is one, unless the answer to a registration was lost and the SDK asked again: then the first stays.
        """
        fitting = sorted(
            ((record, model) for model in self._list(model_name) if (record := _record(model))),
            key=lambda pair: pair[0].version,
        )
        fitting = [pair for pair in fitting if pair[0].run_id == run_id]
        for record, model in fitting[1:]:
            with explained(f"remove the second registration {record.reference}"):
                retry(model.delete)
        return fitting[0][0] if fitting else None

    def _register(self, folder: RunFolder, source: Path, record: ModelVersion) -> None:
        workspace, tags, properties = self._workspace(), dict(record.tags), _properties(record)
        name = f"{OUTPUTS_DIR}/{MODEL_FILE}"
        theirs = run_name(folder.info())
        run = submit.find_run(workspace, theirs) if record.backend == self.name else None
        if run is not None and name in retry(lambda: list(run.get_file_names())):
            with submit.exclusive_upload():
                run.register_model(record.name, model_path=name, tags=tags, properties=properties)
            return
        model = sdk("azureml.core").Model
        # The SDK takes a path below the working directory only.
        with submit.exclusive_upload(), contextlib.chdir(source.parent):
            model.register(workspace, model_path=source.name, model_name=record.name, tags=tags, properties=properties)

    def _list(self, model_name: str | None) -> list[Model]:
        model = sdk("azureml.core").Model
        with explained("list the models"):
            found: list[Model] = retry(lambda: model.list(self._workspace(), name=model_name, expand=False))
        return found

    def _model(self, model_name: str, version: int) -> Model:
        model = sdk("azureml.core").Model
        with explained(f"look up {model_name}:{version}"):
            try:
                found: Model = retry(lambda: model(self._workspace(), name=model_name, version=version, expand=False))
            except Exception as error:
                if "ModelNotFound" in str(error):
                    raise _missing(model_name, version) from error
                raise
        return found


def _missing(model_name: str, version: int | None) -> NotFoundError:
    what = model_name if version is None else f"{model_name}:{version}"
    return NotFoundError(f"The workspace has no model {what} of ours.", "See: trainer models --backend azureml")


def _properties(record: ModelVersion) -> dict[str, str]:
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


def _record(model: Model) -> ModelVersion | None:
    """Read our record of a model; None if there is no valid one."""
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
