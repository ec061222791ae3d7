"""The job's working directory: made from the snapshot, and its ``./outputs`` kept when it goes.

In the run's folder:

    work/            a copy of snapshot/, the job's working directory while it runs
    work/outputs/    a real directory, so that scripts may remove and make it
    outputs          meanwhile a link to it; afterwards the directory itself
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from trainer.runfolder import RunFolder
from trainer.runtime.layout import OUTPUTS_DIR


def working_directory(folder: RunFolder) -> Path:
    """Where the run's job works."""
    return folder.path / "work"


def make(folder: RunFolder) -> Path:
    """Copy the snapshot and show its outputs in the run's folder.

    Raises:
        OSError: It can't be written.
    """
    work = working_directory(folder)
    shutil.copytree(folder.snapshot, work)
    (work / OUTPUTS_DIR).mkdir()
    folder.outputs.rmdir()
    folder.outputs.symlink_to(Path(work.name) / OUTPUTS_DIR)
    return work


def collect(folder: RunFolder) -> None:
    """Move the outputs into the run's folder and remove the rest. Again after a kill: it goes on where it was.

    Raises:
        OSError: It can't be written.
    """
    work, outputs = working_directory(folder), folder.outputs
    made = work / OUTPUTS_DIR
    if made.is_dir() and not made.is_symlink():
        _keep_link_targets(made, work)
    if outputs.is_symlink():
        outputs.unlink()
    if made.is_symlink() or made.is_file():
        # The script put something else in the directory's place.
        outputs.mkdir(exist_ok=True)
        if made.is_dir():
            shutil.copytree(made, outputs, symlinks=True, dirs_exist_ok=True)
        elif made.is_file():
            shutil.copy2(made, outputs / OUTPUTS_DIR)
    elif made.is_dir():
        made.replace(outputs)
    outputs.mkdir(exist_ok=True)
    remove(folder)


def remove(folder: RunFolder) -> None:
    """Remove the working directory, also where the script took away its own permissions."""
    work = working_directory(folder)
    if not work.exists():
        return
    for directory, _, _ in os.walk(work):
        Path(directory).chmod(0o700)
    shutil.rmtree(work)


def _keep_link_targets(outputs: Path, work: Path) -> None:
    """Links among the outputs survive the move; what they show from outside the outputs becomes a copy."""
    root = outputs.resolve()
    for path in sorted(outputs.rglob("*")):
        if not path.is_symlink():
            continue
        target = path.resolve()
        if target.is_relative_to(root):
            if path.readlink().is_absolute():
                path.unlink()
                path.symlink_to(os.path.relpath(target, path.parent.resolve()))
        elif target.is_file() and target.is_relative_to(work.resolve()):
            path.unlink()
            shutil.copy2(target, path)
