"""Runs on Azure ML whose node is taken away: noticed, recorded, and sent again where the service does not do that.

Azure's documentation says that a run whose low-priority node is taken away is restarted, and its users report that such
runs fail. Both are met here. The service's own restart is seen in the run's status and in what the new attempt streams
(:mod:`trainer.runtime.azureml_checkpoints`). A run that has failed is sent again under another name, ``<run id>-2``,
with its last checkpoint among its files.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from backends.azure.errors import explained, retry
from trainer.records import Metric, Restart, RunInfo, RunStatus
from trainer.runtime import attempts, azureml_checkpoints
from trainer.runtime.atomic import write_bytes
from trainer.runtime.azureml_checkpoints import ATTEMPT
from trainer.runtime.layout import EARLIER_METRICS, RESUME_DIR

if TYPE_CHECKING:
    from backends.azure.sdk import FollowedRun
    from trainer.job import TrainingJob
    from trainer.runfolder import RunFolder

MAX_RESTARTS = "max_restarts"
"""In RunInfo.detail: how many times the run may be sent again."""
CHECKPOINT_SECONDS = "checkpoint_seconds"
"""In RunInfo.detail: seconds between two uploads of its checkpoint, at least."""
CANCEL_ASKED = "cancel_asked"
"""In RunInfo.detail, once a cancel was asked for: ``"sent"``, or ``"unsent"`` while the service lacks the run."""
LOST = "the node was lost"
DEFAULT_LOW_PRIORITY = 3
SPENT = "spent_seconds"
"""In RunInfo.detail: how long each attempt that was sent and failed had run, by its name with the service."""
_REQUEUED = "requeued"
# Azure/MachineLearningNotebooks#1242; and what the emulator says of a dedicated node.
_LOSS = re.compile(r"PreemptionError|pre-?empted|NodeLost|node [\w ]*was lost", re.IGNORECASE)
# The service quotes what a script raised.
_OF_THE_SCRIPT = re.compile(r"User program failed|exit(ed with)? code", re.IGNORECASE)
_METRIC = msgspec.json.Decoder(Metric)


class Again(NamedTuple):
    """What is different about a run that is sent again.

    Attributes:
        snapshot: With what it goes on from.
        name: The id that the service gets for it.
        attempt: Its number.
        words: Added to its script's arguments.
    """

    snapshot: Path
    name: str
    attempt: int
    words: tuple[str, ...]


def launcher_arguments(job: TrainingJob, seconds: int, again: Again | None = None) -> list[str]:
    """Return what a node's launcher is started with: its settings, the script, and the script's own arguments.

    Args:
        job: The job.
        seconds: Between two uploads of its checkpoint, at least.
        again: Of a further attempt, what is different.
    """
    _, _, *arguments = job.command("python")
    attempt = [] if again is None else [f"--attempt={again.attempt}"]
    pattern = [] if job.checkpoints is None else [f"--checkpoints={job.checkpoints}"]
    between = [] if seconds == azureml_checkpoints.SECONDS else [f"--checkpoint-seconds={seconds}"]
    return [*attempt, *pattern, *between, *arguments, *(again.words if again else ())]


def lost_its_node(details: Mapping[str, Any]) -> bool:
    """Return whether what the service says of a failed run is that its node was taken away."""
    error = details.get("error")
    inner = error.get("error", error) if isinstance(error, dict) else {}
    said = f"{inner.get('code')} {inner.get('message')}" if isinstance(inner, dict) else ""
    return bool(_LOSS.search(said)) and not _OF_THE_SCRIPT.search(said)


def may_restart(info: RunInfo) -> bool:
    """Return whether a run that has lost its node may be sent again."""
    allowed = info.detail.get(MAX_RESTARTS)
    return isinstance(allowed, int) and len(info.restarts) < allowed and CANCEL_ASKED not in info.detail


def restarts_of(job: TrainingJob, *, low_priority: bool) -> int:
    """Return how many times a job may be sent again, which low-priority nodes decide where nobody has said it.

    Args:
        job: The job.
        low_priority: Whether its cluster has such nodes.
    """
    if job.max_restarts is not None:
        return job.max_restarts
    return DEFAULT_LOW_PRIORITY if low_priority else 0


def notice(folder: RunFolder, status: RunStatus, lines: bytes) -> bytes:
    """Record what a look at the run tells of further attempts.

    Args:
        folder: The run.
        status: Its status now.
        lines: What it has streamed so far.

    Returns:
        The lines that are metrics.
    """
    marks, metrics = _split(lines)
    before = folder.info()
    waits = status in (RunStatus.NOT_STARTED, RunStatus.PREPARING, RunStatus.QUEUED)
    if waits and before.status is RunStatus.RUNNING:
        put_log_aside(folder)
        folder.update(lambda info: msgspec.structs.replace(info, detail={**info.detail, _REQUEUED: True}))
    for mark in marks:
        seen = folder.info()
        if int(mark.value or 0) == 2 + len(seen.restarts) and not seen.detail.get(_REQUEUED):
            put_log_aside(folder)  # it was restarted between two looks
        folder.update(functools.partial(_with_mark, mark))
    info = folder.info()
    if info.detail.get(_REQUEUED) and not waits and (metrics or status.terminal):
        # It runs again, and has said nothing of a checkpoint: it began anew.
        attempt = 2 + len(info.restarts)
        _add(folder, Restart(attempt=attempt, time=time.time(), reason=LOST))
    return metrics


def spent_seconds(info: RunInfo, *, but: str | None = None) -> float:
    """Return how long the attempts that were sent before have run, all but the one with that name."""
    noted = info.detail.get(SPENT)
    each = noted.items() if isinstance(noted, dict) else ()
    return sum(float(value) for name, value in each if name != but and isinstance(value, int | float))


def note_spent(folder: RunFolder, name: str, seconds: float) -> None:
    """Record how long an attempt that has failed had run. Safe to do twice."""

    def add(info: RunInfo) -> RunInfo:
        noted = info.detail.get(SPENT)
        spent = {**(noted if isinstance(noted, dict) else {}), name: round(seconds, 3)}
        return msgspec.structs.replace(info, detail={**info.detail, SPENT: spent})

    folder.update(add)


def seconds_left(folder: RunFolder) -> int | None:
    """Return what is left of a job's time cap, of which each attempt takes a part; None without a cap."""
    cap = folder.job().max_minutes
    return None if cap is None else max(1, round(cap * 60 - spent_seconds(folder.info())))


def put_log_aside(folder: RunFolder) -> None:
    """Keep the log of the attempt that was lost under another name: the next one's begins anew."""
    number = 1 + len(folder.info().restarts)
    for path in (folder.rank_log(rank) for rank in range(folder.job().ranks)):
        if path.is_file():
            path.replace(path.with_stem(f"{path.stem}.attempt-{number}"))


def rescue(run: FollowedRun, folder: RunFolder) -> None:
    """Bring the last checkpoint of a run that has not completed to its outputs, for ``trainer resume``."""
    with tempfile.TemporaryDirectory(prefix=".rescue.", dir=folder.path) as temporary:
        found, _ = _restore(run, folder, Path(temporary))
        for name, path in found.files.items():
            target = folder.outputs / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)


def send_again(run: FollowedRun, folder: RunFolder, send: Callable[[Again], bool], key: str) -> None:
    """Send a run that has failed for want of its node again, from its last checkpoint.

    Safe to do twice: the name is the same each time, and the service takes it once.

    Args:
        run: As it failed.
        folder: Its folder.
        send: Sends it; returns whether the service has it.
        key: In RunInfo.detail, of the name under which the service has the run.
    """
    attempt = 2 + len(folder.info().restarts)
    name = f"{folder.run_id}-{attempt}"
    with tempfile.TemporaryDirectory(prefix=".again.", dir=folder.path) as temporary:
        found, metrics = _restore(run, folder, Path(temporary))
        snapshot = Path(shutil.copytree(folder.snapshot, Path(temporary, "snapshot")))
        attempts.lay(found, snapshot)
        if found.files:
            write_bytes(snapshot / RESUME_DIR / EARLIER_METRICS, _split(metrics)[1])
        words = attempts.words_for(snapshot / folder.job().script, found)
        if not send(Again(snapshot, name, attempt, words)):
            return  # the next look does it again
        restart = Restart(attempt=attempt, time=time.time(), reason=LOST, epoch=found.epoch, checkpoint=found.newest)
    put_log_aside(folder)
    _add(folder, restart, status=RunStatus.PREPARING, **{key: name})


def _restore(run: FollowedRun, folder: RunFolder, directory: Path) -> tuple[attempts.Checkpoint, bytes]:
    place = directory / "checkpoint"
    place.mkdir()
    with explained(f"look for the last checkpoint of run {folder.run_id}"):
        return retry(lambda: azureml_checkpoints.restore(run, Path(tempfile.mkdtemp(dir=place))))


def _split(lines: bytes) -> tuple[list[Metric], bytes]:
    marks, others = [], []
    name = msgspec.json.encode(ATTEMPT)
    for line in lines.splitlines(keepends=True):
        if name in line:
            try:
                metric = _METRIC.decode(line)
            except (ValueError, RecursionError, OverflowError):
                continue
            if metric.name == ATTEMPT:
                marks.append(metric)
                continue
        others.append(line)
    return marks, b"".join(others)


def _with_mark(mark: Metric, info: RunInfo) -> RunInfo:
    # Of a run that was sent again the node knows only the attempts since.
    attempt = int(mark.value or 0)
    known = {restart.attempt: restart for restart in info.restarts}
    if not 2 <= attempt <= 2 + len(known) or (attempt in known and known[attempt].time >= mark.time):
        return info
    restart = Restart(attempt=attempt, time=mark.time, reason=LOST, epoch=mark.step, checkpoint=mark.text)
    known[attempt] = restart
    detail = {name: value for name, value in info.detail.items() if name != _REQUEUED}
    return msgspec.structs.replace(info, restarts=tuple(known[number] for number in sorted(known)), detail=detail)


def _add(folder: RunFolder, restart: Restart, status: RunStatus | None = None, **detail: str) -> None:
    def add(info: RunInfo) -> RunInfo:
        kept = {name: value for name, value in info.detail.items() if name != _REQUEUED}
        return msgspec.structs.replace(
            info,
            restarts=(*info.restarts, restart),
            status=status or info.status,
            detail={**kept, **detail},
        )

    folder.update(add)
