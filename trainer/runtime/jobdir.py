"""Where things lie inside a snapshot.

    <root>/                       the script and its neighbours; the job's working directory
    <root>/_trainer_job/trainer/  ``trainer/__init__.py`` and ``trainer/runtime/``, this package
    <root>/_trainer_job/data/     one folder, named after the data set, with four IDX files
    <root>/_trainer_job/resume/   the outputs that a resumed run continues from

Everything of ours is under one name that no project uses, so a project's own ``data/`` stays its own.
"""

from __future__ import annotations

from pathlib import Path

JOB_DIR = "_trainer_job"
LAUNCHER = f"{JOB_DIR}/trainer/runtime/launch.py"
DATA_DIR = f"{JOB_DIR}/data"
RESUME_DIR = f"{JOB_DIR}/resume"


def job_dir() -> Path | None:
    """The ``_trainer_job`` folder that this package was started from, or None outside a job."""
    folder = Path(__file__).resolve().parents[2]
    return folder if folder.name == JOB_DIR else None


def travelled_dataset() -> Path | None:
    """The folder of the data set that travelled with this job, or None."""
    folder = job_dir()
    if folder is None:
        return None
    found = sorted(path for path in (folder / "data").glob("*") if path.is_dir())
    return found[0] if found else None
