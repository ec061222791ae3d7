"""From what the command line says to a run that is under way.

:func:`prepare` checks the request, finds the data and freezes a job with its snapshot; :func:`resume` does the
same from an earlier run. :func:`submit` gives the result a folder and a backend.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainer.errors import IntegrityError, NotFoundError, RefusedError, SignInError, TrainerError, UsageError
from trainer.handle import Run
from trainer.job import TrainingJob
from trainer.modelfile import check_npz
from trainer.provision import ensure_chainer
from trainer.ranks import check_ranks
from trainer.records import RunFailure, RunInfo, RunStatus
from trainer.request import NO_DATASET, JobRequest, check_request, network_file
from trainer.runfolder import NEW_PREFIX, RunFolder
from trainer.runtime.attempts import OUR_RESUME
from trainer.runtime.flags import TRAINING
from trainer.runtime.layout import CHECKPOINT_FILE, ENVIRONMENT_FILE, JOB_DIR, RESUME_DIR, RESUME_DIR_VARIABLE
from trainer.scriptargs import read_arguments
from trainer.snapshot import (
    DEFAULT_SCRIPT,
    Snapshot,
    build_snapshot,
    check_limits,
    default_script,
    is_default_script,
    script_path,
)

if TYPE_CHECKING:
    from trainer.backend import Backend
    from trainer.data import ProgressDisplay, ResolvedDataset
    from trainer.home import Home

__all__ = ["JobRequest", "Prepared", "changed_arguments", "prepare", "rerun", "resume", "submit"]

# With --output_dir, what the tutorial's estimator passes.
_ALWAYS_PASSED = ("epochs", "batchsize")
# Names of what scripts continue from: Chainer's own extension writes snapshot_iter_100.
_STATE = re.compile(r"snapshot|checkpoint|resume|trainer|state|optimizer|\.(npz|h5|hdf5|pkl|ckpt)$", re.IGNORECASE)


@dataclass(frozen=True)
class Prepared:
    """A job and the files that travel with it, ready to submit."""

    job: TrainingJob
    snapshot: Snapshot
    warnings: tuple[str, ...] = ()
    """What the user should know before it is submitted."""


def prepare(
    request: JobRequest,
    home: Home,
    progress: ProgressDisplay | None = None,
    *,
    backend: Backend | None = None,
    offline: bool = False,
    batchsize: int | None = None,
) -> Prepared:
    """Check a request and freeze it.

    Args:
        request: What is wanted.
        home: Where runs are kept; what lies there never travels.
        progress: Shows a download.
        backend: Asked whether it takes the job before any data is looked for, which can take a while. With one,
            Chainer is installed if it is missing.
        offline: Ask no mirror for a data set that is not in the cache.
        batchsize: The largest that the included script will be given, where that is not said by the request.

    Raises:
        UsageError: Something in the request is unusable; nothing has been done.
        RefusedError, ConfigError: The backend would not take the job.
        TrainerError: The data can't be had.
    """
    script = request.script or default_script()
    request = request.named(script)
    check_request(request, script)
    name = script_path(script, request.source)
    # First without data: a faulty source directory must not cost a download.
    network = None if request.network is None else network_file(request.network)
    snapshot = build_snapshot(
        script, source=request.source, exclude=(home.path,), beside=() if network is None else (network[0],)
    )
    job = TrainingJob(
        script=name,
        arguments=_arguments(request, script),
        experiment=request.experiment,
        model_name=request.model_name,
        max_minutes=request.max_minutes,
        collect=request.collect,
        max_restarts=request.max_restarts,
        checkpoints=request.checkpoints,
        kernels=request.kernels,
        nodes=request.nodes,
        processes_per_node=request.processes_per_node,
        tags=dict(request.tags),
        network=None if network is None else f"{network[0].name}:{network[1]}",
    )
    check_ranks(job, snapshot, ours=is_default_script(script))
    given = read_arguments(job.arguments, script) if is_default_script(script) else None
    if backend is not None:
        ensure_chainer(progress.say if progress else lambda _: None)
        if job.ranks > 1:
            backend.check_ranks(job)
        backend.check(job)
    data = _dataset(request, script, snapshot, progress, offline=offline)
    if data is None:
        return Prepared(job, snapshot)
    job = msgspec.structs.replace(job, dataset=data.name, dataset_digest=data.digest, dataset_note=data.note)
    if is_default_script(script):
        if data.data is not None and given is not None:
            _check_batchsize(batchsize or given.batchsize, data)
        job = msgspec.structs.replace(job, data=data.data)
    return Prepared(job, snapshot.with_dataset(data.name, data.files))


def resume(run: Run, extra_args: Sequence[str] = ()) -> Prepared:
    """A job that continues an earlier run, with the very files that run was given.

    Our own script continues from ``outputs/checkpoint.npz``. Any other is given the run's outputs under
    ``_trainer_job/resume/`` and told of them by ``extra_args``. Which backend the run was on doesn't matter.

    Args:
        run: It has ended.
        extra_args: Arguments added to the run's own.

    Raises:
        UsageError: The run goes on, is complete with nothing added, or is a script's whose way to resume isn't given.
        NotFoundError: It left nothing to continue from.
        IntegrityError: Its snapshot was changed, or its checkpoint is not a safe npz.
    """
    info, job, folder = run.info(), run.job, run.folder
    if not info.status.terminal:
        raise UsageError(f"Run {run.run_id} is {info.status}.", f"Wait for it, or: trainer cancel {run.run_id}")
    snapshot = Snapshot.load(folder.snapshot)
    ours = _is_ours(snapshot, job)
    if info.status is RunStatus.COMPLETED and not extra_args:
        more = "--epochs 20" if ours else "THE SCRIPT'S ARGUMENTS"
        raise UsageError(
            f"Run {run.run_id} is complete.", f"To train on, say for how long: trainer resume {run.run_id} -- {more}"
        )
    if snapshot.digest != info.snapshot:
        raise IntegrityError(
            f"The files in {folder.snapshot} are not those that run {run.run_id} was given.", "Start a new run."
        )
    warnings: tuple[str, ...] = ()
    if ours:
        files = _our_checkpoint(run)
        arguments = (*_without_ours(job.arguments), *extra_args, *OUR_RESUME)
    else:
        files = _all_outputs(run, told=bool(extra_args) or _mentions(snapshot, RESUME_DIR_VARIABLE))
        arguments = (*job.arguments, *extra_args)
        if not _is_told(arguments, snapshot):
            warnings = (
                f"{job.script} starts over: nothing tells it of the earlier run's outputs, which lie in {RESUME_DIR}/. "
                f"To continue, give it its own argument for that, for example: -- --resume {_newest(files)}",
            )
    return Prepared(
        msgspec.structs.replace(job, arguments=arguments, resumed_from=run.run_id, study=None, trial=None),
        snapshot.with_resume(files),
        warnings,
    )


def continues(run: Run) -> bool:
    """Return whether :func:`resume` goes on where a run ended, with no word more: there is something to find."""
    if run.job.script == DEFAULT_SCRIPT:
        return (run.folder.outputs / CHECKPOINT_FILE).is_file()
    if all(name == ENVIRONMENT_FILE for name in run.files()):
        return False
    top = run.folder.snapshot
    # What the snapshot holds now; whether that is what the run was given, resume() checks.
    files = ((path.relative_to(top).as_posix(), path) for path in top.rglob("*.py") if path.is_file())
    return _any_mentions(files, RESUME_DIR_VARIABLE)


def rerun(run: Run, changes: Sequence[str] = ()) -> Prepared:
    """A job that does again what an earlier run did, with the very files that run was given.

    Args:
        run: The run; it need not have ended.
        changes: Arguments of the script. One that the run had with another value takes its place; the others are
            added.

    Raises:
        IntegrityError: Its snapshot was changed.
    """
    info, job, folder = run.info(), run.job, run.folder
    snapshot = Snapshot.load(folder.snapshot)
    if snapshot.digest != info.snapshot:
        raise IntegrityError(
            f"The files in {folder.snapshot} are not those that run {run.run_id} was given.", "Start a new run."
        )
    arguments = _without_ours(job.arguments) if _is_ours(snapshot, job) and job.resumed_from else job.arguments
    job = msgspec.structs.replace(
        job, arguments=changed_arguments(arguments, changes), resumed_from=None, study=None, trial=None
    )
    return Prepared(job, snapshot.with_resume({}))


def with_ranks(prepared: Prepared, nodes: int | None, processes_per_node: int | None) -> Prepared:
    """Return what is prepared, for another number of ranks; None leaves as it is.

    Raises:
        UsageError: The script can't be run so.
    """
    job = msgspec.structs.replace(
        prepared.job,
        nodes=nodes or prepared.job.nodes,
        processes_per_node=processes_per_node or prepared.job.processes_per_node,
    )
    check_ranks(job, prepared.snapshot, ours=_is_ours(prepared.snapshot, job))
    return replace(prepared, job=job)


def changed_arguments(arguments: Sequence[str], changes: Sequence[str]) -> tuple[str, ...]:
    """Return a command line with some options changed: ``--lr 0.1`` in the place of ``--lr 0.01``.

    Only an option with one value, given once in each, is replaced in its place. Anything else is added at the end,
    where most parsers let the later of two values count.
    """
    kept, added = list(arguments), []
    words = list(changes)
    while words:
        word = words.pop(0)
        value = words.pop(0) if word.startswith("-") and words and not words[0].startswith("-") else None
        at = kept.index(word) if kept.count(word) == 1 else -1
        if value is not None and 0 <= at < len(kept) - 1 and not kept[at + 1].startswith("-"):
            kept[at + 1] = value
        elif not (value is None and word.startswith("-") and at >= 0):
            added += [word] if value is None else [word, value]
    return (*kept, *added)


def submit(prepared: Prepared, backend: Backend, home: Home) -> Run:
    """Give a prepared job a folder and start it.

    Raises:
        RefusedError, SignInError: The backend will not take it; no run is left.
        TrainerError: It could not be started. The run's folder says why, with the status Failed.
    """
    if backend.limits is not None:
        check_limits(prepared.snapshot, backend.limits)
    if prepared.job.ranks > 1:
        backend.check_ranks(prepared.job)
    backend.check(prepared.job)
    # Locked, so that whoever looks meanwhile doesn't take a run that nobody supervises yet for a dead one.
    with RunFolder.submitting(
        home.runs, prepared.job, backend=backend.name, snapshot=prepared.snapshot.digest
    ) as folder:
        _hand_over(prepared, backend, folder, home.store)
    return Run(folder, backend)


def _hand_over(prepared: Prepared, backend: Backend, folder: RunFolder, store: Path) -> None:
    try:
        prepared.snapshot.stage(folder.snapshot, store)
        backend.submit(folder)
    except KeyboardInterrupt:
        with suppress(TrainerError):
            backend.cancel(folder)
        folder.update(lambda info: _canceled(info) if info.status is RunStatus.NOT_STARTED else info)
        raise
    except Exception as error:
        reason = error.message if isinstance(error, TrainerError) else f"{type(error).__name__}: {error}"
        if isinstance(error, RefusedError | SignInError) and folder.info().status is RunStatus.NOT_STARTED:
            # Nothing was sent, and whoever asked is told: there is no run of which to keep a record.
            # Renamed first: one that is killed on the way leaves nothing that looks like a run.
            leftover = folder.path.rename(folder.path.with_name(f"{NEW_PREFIX}{folder.run_id}"))
            shutil.rmtree(leftover, ignore_errors=True)
            raise
        # On a full disk the record stays NotStarted, and the next refresh ends a run that nobody submits any more.
        with suppress(OSError):
            folder.update(status=RunStatus.FAILED, failure=RunFailure(message=reason))
        raise


def _canceled(info: RunInfo) -> RunInfo:
    return msgspec.structs.replace(info, status=RunStatus.CANCELED)


def _arguments(request: JobRequest, script: Path) -> tuple[str, ...]:
    if not is_default_script(script):
        return request.script_args
    passed = {flag.name: flag.default for flag in TRAINING if flag.name in _ALWAYS_PASSED}
    given = {flag.name: request.training[flag.name] for flag in TRAINING if flag.name in request.training}
    flags = passed | {"output_dir": "./outputs"} | given
    if request.network is not None:
        path, name = network_file(request.network)
        flags["network"] = f"{path.name}:{name}"
    made = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return (*made, *request.script_args)


def _check_batchsize(batchsize: int, data: ResolvedDataset) -> None:
    from trainer.runtime.datasets import idx

    # Of as many dimensions as there are, with a point for a dash in its name, gzipped: all are understood.
    images = next(path for name, path in data.files.items() if name.startswith("train-images"))
    with idx.open_content(images) as content:
        count = idx.read_header(content, None).shape[0]
    if batchsize > count:
        raise UsageError(
            f"--batchsize {batchsize} is more than the {count} training examples of {data.name}.",
            f"Give a smaller one, for example: --batchsize {max(1, min(16, count // 4))}",
        )


def _dataset(
    request: JobRequest, script: Path, snapshot: Snapshot, progress: ProgressDisplay | None, *, offline: bool
) -> ResolvedDataset | None:
    wanted: str | None = request.dataset
    if wanted == "auto" and not is_default_script(script):
        wanted = _mentioned_dataset(snapshot)
    if wanted is None or wanted == NO_DATASET:
        return None
    from trainer.data import resolve

    return resolve(wanted, progress=progress, offline=offline)


# What a script asks for data with, and the data set that answers it.
_MENTIONS = (
    (
        rb"\bget_mnist\b|\bazureml\.opendatasets import [^#\n]*\bMNIST\b"
        rb"|\btrainer\.runtime import [^#\n]*\bdatasets\b",
        "auto",
    ),
    (rb"\bget_fashion_mnist\b", "fashion-mnist"),
)


def _mentioned_dataset(snapshot: Snapshot) -> str | None:
    own = JOB_DIR + "/"
    modules = [file for file in snapshot.files if file.path.endswith(".py") and not file.path.startswith(own)]
    texts = [file.source.read_bytes() for file in modules]
    return next((name for mark, name in _MENTIONS if any(re.search(mark, text) for text in texts)), None)


def _is_ours(snapshot: Snapshot, job: TrainingJob) -> bool:
    """Whether it is our own script that travelled: alone or with its network, as no other does but a copy."""
    travelled = {file.path for file in snapshot.files if not file.path.startswith(JOB_DIR + "/")}
    network = set() if job.network is None else {job.network.rpartition(":")[0]}
    return travelled - network == {DEFAULT_SCRIPT}


def _our_checkpoint(run: Run) -> dict[str, Path]:
    path = run.folder.outputs / CHECKPOINT_FILE
    if not path.is_file():
        failure = run.folder.info().failure
        why = "it ended before its first epoch did"
        if failure is not None and failure.lost and run.backend.remote:
            why = "its node was lost before a checkpoint had been uploaded, the first at the end of an epoch"
        raise NotFoundError(f"Run {run.run_id} left no checkpoint: {why}.", f"Start again: trainer rerun {run.run_id}")
    check_npz(path)
    return {CHECKPOINT_FILE: path}


def _all_outputs(run: Run, *, told: bool) -> dict[str, Path]:
    # The runtime's own file says nothing of what the script has done.
    files = {name: run.folder.outputs / name for name in run.files() if name != ENVIRONMENT_FILE}
    if not files:
        raise NotFoundError(
            f"Run {run.run_id} left no outputs to continue from.", f"Start again: trainer rerun {run.run_id}"
        )
    if not told:
        raise UsageError(
            f"Only {run.job.script} knows how it resumes.",
            f"Pass it its own arguments, for example: trainer resume {run.run_id} -- --resume {_newest(files)}",
        )
    return files


def _newest(files: Mapping[str, Path]) -> str:
    """Where the job finds the file that a script most likely continues from, as a shell reads it."""
    states = [name for name in files if _STATE.search(name.rpartition("/")[2])]
    # The name decides between files of one moment: snapshot_iter_200 comes after snapshot_iter_100.
    newest = max(states or files, key=lambda name: (files[name].stat().st_mtime, _by_number(name)))
    return shlex.quote(f"{RESUME_DIR}/{newest}")


def _by_number(name: str) -> list[tuple[str, int]]:
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d{0,18})", name)]


def _is_told(arguments: Sequence[str], snapshot: Snapshot) -> bool:
    """Whether a script's arguments, or what travels with it, say where the earlier outputs are."""
    return any(RESUME_DIR in word for word in arguments) or _mentions(snapshot, RESUME_DIR, RESUME_DIR_VARIABLE)


def _mentions(snapshot: Snapshot, *texts: str) -> bool:
    return _any_mentions(((file.path, file.source) for file in snapshot.files), *texts)


def _any_mentions(files: Iterable[tuple[str, Path]], *texts: str) -> bool:
    """Whether a module among a snapshot's files, by their names there, has one of the texts; ours don't count."""
    own = JOB_DIR + "/"
    modules = (source for name, source in files if name.endswith(".py") and not name.startswith(own))
    return any(text.encode() in source for source in (path.read_bytes() for path in modules) for text in texts)


def _without_ours(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Arguments without the words that an earlier :func:`resume` added to them."""
    kept = list(arguments)
    for at in range(len(kept) - 2, -1, -1):
        if tuple(kept[at : at + 2]) == OUR_RESUME:
            del kept[at : at + 2]
    return tuple(kept)
