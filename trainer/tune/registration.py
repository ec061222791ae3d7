"""Registering the model of a completed run, above all of a study's best trial."""

from __future__ import annotations

from trainer.backend import Backend
from trainer.divergence import in_model
from trainer.errors import IntegrityError, UsageError
from trainer.records import ModelRef, RunStatus
from trainer.runfolder import RunFolder
from trainer.runtime.layout import MODEL_FILE


def register(folder: RunFolder, backend: Backend, name: str) -> ModelRef:
    """Register a completed run's ``outputs/model.npz``, and write so into its record. Again does no harm.

    Raises:
        UsageError: The run isn't complete.
        NotFoundError: It has no model.
        IntegrityError: Its model holds NaN, or is no sound file.
        RefusedError: Its backend has no registry.
    """
    info = folder.info()
    if info.status is not RunStatus.COMPLETED:
        raise UsageError(f"Run {folder.run_id} is {info.status}.", "Only the model of a completed run is registered.")
    spoiled = in_model(folder.outputs / MODEL_FILE) if (folder.outputs / MODEL_FILE).is_file() else None
    if spoiled:
        raise IntegrityError(spoiled, f"See: trainer show {folder.run_id}")
    model = backend.store().register(folder, name)
    reference = ModelRef(name=model.name, version=model.version, sha256=model.sha256)
    folder.update(model=reference)
    return reference
