"""Every name that the client and the job share: environment variables, files and folders.

A snapshot, which becomes the job's working directory:

    <root>/                       the script and its neighbours
    <root>/_trainer_job/trainer/  ``trainer/__init__.py`` and ``trainer/runtime/``, this package
    <root>/_trainer_job/data/     one folder, named after the data set, with four IDX files
    <root>/_trainer_job/resume/   the outputs that a resumed run continues from
    <root>/_trainer_job/study/    what a trial of a study is to keep
    <root>/outputs/               what the script leaves: its model, its checkpoint, the environment

What travels to a service is laid out likewise (:mod:`trainer.deploy.preparing`), with files of its own in
``_trainer_job/``.

Everything of ours is under one name that no project uses, so a project's own ``data/`` stays its own.
This module imports the standard library alone; the command line reads it at start-up.
"""

from __future__ import annotations

import os
from pathlib import Path

# Environment variables of a job.
RUN_DIR_VARIABLE = "TRAINER_RUN_DIR"
"""The run's folder, into which a job on this machine reports metrics and progress."""
RUN_ID_VARIABLE = "TRAINER_RUN_ID"
"""The run's identifier."""
ATTEMPT_VARIABLE = "TRAINER_ATTEMPT"
"""Which attempt of the job this is, from 1; see :mod:`trainer.runtime.attempts`."""
RESUME_DIR_VARIABLE = "TRAINER_RESUME_DIR"
"""The folder of what the job continues from, laid out as its outputs were; set by the launcher where there is one."""
DECODED_DIR_VARIABLE = "TRAINER_DECODED_DIR"
"""This machine's folder of decompressed copies of data files; see :mod:`trainer.runtime.datasets.decoded`."""
RANKS_DIR_VARIABLE = "TRAINER_RANKS_DIR"
"""The folder in which the ranks of a job on this machine leave word for its supervisor; see
:mod:`trainer.runtime.ranks`."""
THREADS_VARIABLE = "TRAINER_THREADS"
"""The number of BLAS threads."""
AZURE_RUN_ID_VARIABLE = "AZUREML_RUN_ID"
"""Set by Azure ML in every process of a run of its own."""
NO_TELEMETRY_VARIABLE = "HBI_WORKSPACE_JOB"
"""Keeps ``azureml.telemetry`` from sending, whatever its file in site-packages says: Azure sets it to ``true`` where
data are sensitive, and the SDK reads it once, at import."""
STREAMED_DIR_VARIABLE = "TRAINER_STREAMED_DIR"
"""The folder of a job on Azure ML whose files are streamed; set by the job itself for its own processes."""
TRACKING_VARIABLE = "TRAINER_TRACKING"
"""``mlflow`` for a job on Azure ML that is to report by MLflow's interface, and not by SDK v1."""
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""What the common BLAS libraries take their number of threads from, first match first."""

# Files of a run's folder that the job writes.
METRICS_FILE = "metrics.jsonl"
PROGRESS_FILE = "progress.json"
LABELS_FILE = "labels.json"
WORK_DIR = "work"
"""The job's working directory on this machine, while the job runs. Files that came with the snapshot lie there too."""

# Folders and files of the job's working directory.
OUTPUTS_DIR = "outputs"
MODEL_FILE = "model.npz"
CHECKPOINT_FILE = "checkpoint.npz"
ENVIRONMENT_FILE = "environment.json"
RENAMED_OUTPUTS = "renamed_outputs"
"""The key in the environment file with the outputs that a node had to rename: old name, new name, reason."""
NOT_KEPT = "not_kept"
"""The key there with what a node did not keep of the files beside the outputs, a list of sentences."""
LOGS_DIR = "logs"
"""What a job on Azure ML writes here is streamed while it runs."""

# How much of what a script writes outside its outputs is kept; see trainer.runtime.collecting.
COLLECT_FORM = r"(?i)^(off|all|[0-9]{1,6}(\.[0-9]{1,3})? ?[kMGT]?B)$"
"""What the setting looks like, a regular expression."""
COLLECT_EXPECTED = "off, all, or a size such as 500MB"
"""What it looks like, in words."""
COLLECT_DEFAULT = "2GB"

KERNELS_VARIABLE = "TRAINER_KERNELS"
KERNELS = ("off", "torch")
"""Whose kernels a job uses where there is a choice; see trainer.runtime.kernels."""
KERNELS_EXPECTED = "torch or off"
MISSING_TORCH = "--kernels torch needs PyTorch, which isn't installed here"
TORCH_HINT = "Install PyTorch, as 'trainer docs performance' says, or leave out --kernels torch"

# Paths inside a snapshot.
JOB_DIR = "_trainer_job"
LAUNCHER = f"{JOB_DIR}/trainer/runtime/launch.py"
DATA_DIR = f"{JOB_DIR}/data"
RESUME_DIR = f"{JOB_DIR}/resume"
EARLIER_METRICS = ".metrics.jsonl"
"""In RESUME_DIR, of an attempt that a client has started: what the attempts before had logged."""
STUDY_DIR = f"{JOB_DIR}/study"
EXECUTABLES_FILE = "executables.json"
"""In JOB_DIR, where there are any: the paths of the snapshot's executable files."""
SCORE_SCRIPT_FILE = "score_script"
"""In JOB_DIR, of a service with a score script of the user's: that script's path."""
NETWORK_FILE = "network.json"
"""In JOB_DIR, of a service with a network of the user's: how it is built."""
OBJECTIVE_FILE = "objective.json"
"""In STUDY_DIR, of a study that keeps each trial's best epoch: which metric, and ``max`` or ``min``."""
SERVICE_VALUES = "--trainer-service-values"
"""A word of a job's command line: what a service appends to it are the values of a trial, flag and value in turn."""

CUPY_PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")
"""The distributions that provide CuPy; only one of them can be installed."""


def job_dir() -> Path | None:
    """Return the ``_trainer_job`` folder that this package was started from, or None outside a job."""
    folder = Path(__file__).resolve().parents[2]
    return folder if folder.name == JOB_DIR else None


def tell_resume_dir() -> None:
    """Set ``TRAINER_RESUME_DIR`` for a job that has something to continue from."""
    folder = job_dir()
    if folder is None:
        return
    # A study's warm worker runs a copy of this package that all trials share; what they resume from is their own.
    for resume in (Path.cwd() / RESUME_DIR, folder / "resume"):
        if resume.is_dir():
            os.environ[RESUME_DIR_VARIABLE] = str(resume)
            return


def rank_log(rank: int) -> tuple[str, str]:
    """Return where, in a run's folder, the output of a rank goes: folder and name. Rank 0 has the log of the run."""
    return LOGS_DIR, "std_log.txt" if rank == 0 else f"std_log_process_{rank}.txt"


def travelled_dataset() -> Path | None:
    """Return the folder of the data set that travelled with this job, or None."""
    folder = job_dir()
    if folder is None:
        return None
    found = sorted(path for path in (folder / "data").glob("*") if path.is_dir())
    return found[0] if found else None
