"""What a model version records of the run that made it.

Everything here was written by the run, which may be a script of anyone's, so it is bounded and checked.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec

from trainer import recordfile
from trainer.artifacts.store import ModelVersion
from trainer.errors import DamagedRecordError, IntegrityError, NotFoundError
from trainer.runfolder import RunFolder
from trainer.runtime.layout import ENVIRONMENT_FILE, MODEL_FILE

# Written by the job: {"python": "3.13.1", "numpy": "2.4.6", "chainer": "7.8.1", "cupy": "14.0.1"}.
_ENVIRONMENT_MAX = 64 << 10
_ENTRIES_MAX = 200
_METRIC_NAME_MAX = 200
_ENVIRONMENT = msgspec.json.Decoder(dict[str, object])


def model_output(folder: RunFolder) -> Path:
    """Return the run's ``outputs/model.npz``; a link to another of its outputs is followed.

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
    """Return what a store records of a version registered from a run.

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
        data=job.data,
        network=job.network,
    )


def environment_versions(folder: RunFolder) -> dict[str, str]:
    """Versions that the job wrote to ``outputs/environment.json``; what isn't a plain version is left out.

    The script owns the file, so nothing in it can make registration fail; :func:`environment_problems` names it.
    """
    try:
        found = recordfile.read(folder.outputs / ENVIRONMENT_FILE, _ENVIRONMENT, _ENVIRONMENT_MAX)
    except (FileNotFoundError, DamagedRecordError):
        return {}
    plain = {
        key: value
        for key, value in found.items()
        if isinstance(value, str)
        and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key)
        and re.fullmatch(r"[A-Za-z0-9_.+!-]{1,64}", value)
    }
    return dict(list(plain.items())[:_ENTRIES_MAX])


def environment_problems(folder: RunFolder) -> list[str]:
    """Return what is damaged in ``outputs/environment.json``, in a sentence; nothing if it is missing or whole."""
    try:
        recordfile.read(folder.outputs / ENVIRONMENT_FILE, _ENVIRONMENT, _ENVIRONMENT_MAX)
    except FileNotFoundError:
        return []
    except DamagedRecordError as error:
        return [error.message]
    return []
