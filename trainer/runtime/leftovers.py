"""What a script writes where it is not kept: in its working directory, outside ``outputs``.

Chainer's examples write to ``result/`` unless ``--out`` says otherwise. A run keeps ``outputs/`` alone, so the rest
goes with the machine or the working directory, and the run says what that was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from trainer.runtime.datasets.files import FILES
from trainer.runtime.layout import JOB_DIR, LOGS_DIR, OUTPUTS_DIR

FACT = "not_kept"
"""The name in ``environment.json`` under which a job on Azure ML reports the sentence."""

State = Mapping[str, tuple[int, int]]
"""Path below a directory to size in bytes and modification time in nanoseconds."""

# At the top: ours, and what Azure ML's own programs make in a job's working directory.
_NOT_THE_SCRIPTS = (OUTPUTS_DIR, LOGS_DIR, JOB_DIR, "azureml-logs", "user_logs", "system_logs", "azureml_compute_logs")
_CACHES = ("__pycache__", ".cache", ".ipynb_checkpoints", ".azureml", ".nv", ".cupy")
# What azureml.opendatasets downloads: Azure's tutorial has it written to data/mnist in every run.
_DATA = frozenset((*FILES, *(f"{name}.gz" for name in FILES)))
_MOST_FILES = 100_000
_NAMED = 3


def state_of(directory: Path) -> dict[str, tuple[int, int]]:
    """Return the state of the files below a directory, but for outputs, logs, caches, MNIST and what is ours."""
    found: dict[str, tuple[int, int]] = {}
    for folder, folders, files in os.walk(directory):
        top = Path(folder) == directory
        folders[:] = sorted(name for name in folders if name not in _CACHES and not (top and name in _NOT_THE_SCRIPTS))
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118  # there can be many
            if name in _DATA or name.endswith((".pyc", ".pyo")) or len(found) >= _MOST_FILES:
                continue
            with suppress(OSError):
                status = os.lstat(path)
                found[os.path.relpath(path, directory)] = (status.st_size, status.st_mtime_ns)
    return found


def sentence(before: State, after: State) -> str | None:
    """Say what was written between two states; None if nothing was.

    Args:
        before: When the script began.
        after: When it had ended.
    """
    written = {name: size for name, (size, time) in after.items() if before.get(name) != (size, time)}
    if not written:
        return None
    some = ", ".join(sorted(written)[:_NAMED]) + (", ..." if len(written) > _NAMED else "")
    many = len(written) != 1
    return (
        f"{len(written):,} file{'s' * many}, {_size(sum(written.values()))}, written outside {OUTPUTS_DIR}/ "
        f"{'were' if many else 'was'} not kept: {some}. "
        f"To keep {'them' if many else 'it'}, write below {OUTPUTS_DIR}/, for example with -- --out {OUTPUTS_DIR}"
    )


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
