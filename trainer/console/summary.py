"""What is known of a run: as one JSON object, or in a few lines."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainer import modeluse
from trainer.backend import DEFAULT_BACKEND
from trainer.console.epochs import ordered, said
from trainer.console.output import (
    BOLD,
    GREEN,
    RED,
    YELLOW,
    duration,
    facts,
    inline,
    log_line,
    measured,
    moment,
    note,
    number,
    paint,
    width,
)
from trainer.errors import TrainerError
from trainer.host import elsewhere
from trainer.job import DEFAULT_SCRIPT
from trainer.records import RunStatus
from trainer.runtime.layout import MODEL_FILE, WORK_DIR

if TYPE_CHECKING:
    from trainer.handle import Run
    from trainer.records import RunInfo

# The options with which a run's model is found later, kept in its record for the commands that "Next" shows.
FLAGS = "flags"
_ACCURACY = "Accuracy"
# What else than pictures a model is asked with, by the kind of data that it was trained on.
_EXAMPLES = {"table": "ROWS.csv"}
# What a backend keeps of a run: when it sent it, in seconds since the epoch, and names that need words.
_SENT = "sent"
_LABELS = {"run": "Run there"}
# Of no use once the process has ended.
_OF_THE_PROCESS = ("pid", "supervisor_pid")
_MOST_FOLDERS = 3
# Columns of the longest label of a run, with the blanks behind it.
_MARGIN = 20
# Logged, as the tutorial does, but already on the command line.
_GIVEN = ("Batch size", "Epochs")


def as_object(run: Run, info: RunInfo) -> dict[str, Any]:
    """Return the object with which ``run --json`` ends.

    ``model.path`` is the registered file as the run left it in its outputs, absolute; ``model`` is null where
    nothing was registered, and ``failure`` where nothing failed.
    """
    job = run.job
    return {
        "run_id": info.run_id,
        "backend": info.backend,
        "status": info.status,
        "metrics": run.latest_metrics(),
        "model": None if info.model is None else {**_fields(info.model), "path": str(run.folder.outputs / MODEL_FILE)},
        "dataset": info.dataset,
        "dataset_note": job.dataset_note,
        "snapshot": info.snapshot,
        "outputs": str(run.folder.outputs),
        "experiment": info.experiment,
        "tags": job.tags,
        "created": info.created,
        "started": info.started,
        "ended": info.ended,
        "resumed_from": info.resumed_from,
        "restarts": info.restarts,
        "warnings": info.warnings,
        "failure": None if info.failure is None else _fields(info.failure),
    }


def print_summary(run: Run, info: RunInfo, *, detailed: bool = False) -> None:
    """Print the result of a run, and what can be done next.

    Args:
        run: The run.
        info: Its record.
        detailed: Print everything that is known, not just the result.
    """
    facts(list(_rows(run, info, detailed=detailed)))


def print_failure(run: Run, info: RunInfo, *, tail: bool) -> None:
    """Print where a failed run's log is, and its last lines if ``tail``."""
    lines = info.failure.log_tail if info.failure and tail else ()
    for line in lines[-15:]:
        note(f"  | {log_line(kept_path(line, run), sys.stderr)}")
    if run.folder.log_path.exists():
        note(f"Full log: {relative(run.folder.log_path)}")


def curves_of(run: Run) -> str:
    """Return the learning curves as text; empty if there are none to draw."""
    return modeluse.curves_text(run.metrics(), width=curves_width())


def curves_width() -> int:
    """Return how many columns curves are drawn in."""
    return min(100, shutil.get_terminal_size().columns)


def kept_path(line: str, run: Run) -> str:
    """Return a line of a log in which files of the job's working directory are named where they stay.

    A traceback names the script in the working directory, which is removed when the run has ended; the same files lie
    in the snapshot.
    """
    return line.replace(f"{run.folder.path}/{WORK_DIR}/", f"{run.folder.snapshot}/")


def relative(path: Path) -> str:
    """Return a path as it is shortest typed from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _rows(run: Run, info: RunInfo, *, detailed: bool) -> Iterator[tuple[str, str]]:
    job, colour = run.job, {RunStatus.COMPLETED: GREEN, RunStatus.FAILED: RED, RunStatus.CANCELED: YELLOW}
    took = f" in {duration(info.ended - (info.started or info.created))}" if info.ended else ""
    yield "Run", f"{info.run_id}  {paint(info.status, colour.get(info.status, BOLD))}{took} ({info.backend})"
    if info.failure:
        yield "Failure", info.failure.message
    if info.restarts:
        yield "Attempts", "\n".join(restart.text for restart in (info.restarts if detailed else info.restarts[-1:]))
    if info.stopped:
        value, bound = ("-" if each is None else f"{each:.6g}" for each in (info.stopped.value, info.stopped.bound))
        yield "Stopped", f"by {info.stopped.by} at step {info.stopped.step}: {value}, bound {bound}"
    if detailed and info.study:
        yield "Study", f"{info.study}, trial {info.trial}"
    if detailed:
        yield "Experiment", info.experiment
        yield "Command", shlex.join([job.script, *job.arguments])
        yield "Created", moment(info.created)
        if info.host:
            yield (
                "Host",
                inline(info.host.name)
                + (" (another machine: the last known status is shown)" if elsewhere(info) else ""),
            )
        if info.resumed_from:
            yield "Resumed from", info.resumed_from
        if job.tags:
            yield "Tags", "  ".join(inline(f"{name}={value}") for name, value in job.tags.items())
        yield "Snapshot", f"sha256 {_digest(info.snapshot)}"
    yield from _metrics(run.latest_metrics(), detailed=detailed)
    if info.dataset:
        # Whoever follows a run has read the note as a warning.
        told = f"\n{paint(job.dataset_note, YELLOW)}" if job.dataset_note and detailed else ""
        yield "Data set", info.dataset + told
    if detailed:
        for label, value in info.detail.items():
            over = info.status.terminal and label in _OF_THE_PROCESS
            if label != FLAGS and value is not None and not over and value != info.run_id:
                yield _label(label), _detail(label, value)
        for text in info.warnings:
            yield "Warning", text
    outputs = run.files()
    if outputs:
        some = ", ".join(map(inline, outputs)) if detailed else _at_the_top(outputs)
        yield "Outputs", f"{relative(run.folder.outputs)}/  ({some})"
    deleted = detailed and _model_is_deleted(run, info)
    if info.model:
        reference = paint(f"{info.model.name}:{info.model.version}", BOLD)
        yield "Model", f"{reference}{' (deleted)' if deleted else ''}  sha256 {info.model.sha256[:16]}..."
    following = "" if deleted else "\n".join(_next(run, info))
    if following:
        yield "Next", following


def _digest(snapshot: str) -> str:
    """The whole of a digest, or its beginning on a terminal that has no room for it beside the longest label."""
    room = width(sys.stdout)
    return snapshot if room is None or room >= len(snapshot) + _MARGIN else f"{snapshot[:16]}..."


def _metrics(latest: dict[str, float | None], *, detailed: bool) -> Iterator[tuple[str, str]]:
    if _ACCURACY in latest:
        yield _ACCURACY, f"{paint(measured(latest[_ACCURACY]), BOLD)} (test)"
    rest = {name: value for name, value in ordered(latest) if name != _ACCURACY and (detailed or name not in _GIVEN)}
    if rest:
        given = [f"{inline(name)} {_counted(rest.pop(name))}" for name in _GIVEN if name in rest]
        yield "Metrics", "  ".join([*said(rest), *given])


def _at_the_top(outputs: list[str]) -> str:
    """How many files there are, and the folders among them: those that the script made, or wrote elsewhere."""
    count = f"{len(outputs)} file{'s' * (len(outputs) != 1)}"
    folders = list(dict.fromkeys(f"{name.partition('/')[0]}/" for name in outputs if "/" in name))
    some = ", ".join(map(inline, folders[:_MOST_FOLDERS])) + (", ..." if len(folders) > _MOST_FOLDERS else "")
    return f"{count}, {some}" if folders else count


def _model_is_deleted(run: Run, info: RunInfo) -> bool:
    """Whether the registered version is gone; a registry that is elsewhere is not asked."""
    if info.model is None or run.backend.remote:
        return False
    try:
        versions = run.backend.store().versions(info.model.name)
    except TrainerError:
        return False
    return all(version.version != info.model.version for version in versions)


def _next(run: Run, info: RunInfo) -> list[str]:
    if info.model:
        reference = f"{info.model.name}:{info.model.version}"
        flags = [] if info.backend == DEFAULT_BACKEND else ["--backend", info.backend, *info.detail.get(FLAGS, ())]
        where = "".join(f" {shlex.quote(word)}" for word in flags)
        fetching = f"trainer fetch {reference}{where} -o ./model"
        if run.job.script != DEFAULT_SCRIPT:
            return [fetching]  # what its network computes is not known
        data = run.job.data
        pictures = data is None or data.kind == "pictures" or (data.kind == "idx" and len(data.shape) == 2)
        example = "IMAGE.png" if data is None or pictures else _EXAMPLES.get(data.kind, "EXAMPLES.npy")
        return [f"trainer evaluate {reference}{where}", f"trainer predict {reference}{where} {example}", fetching]
    if not info.status.terminal:
        return [f"trainer attach {info.run_id}", f"trainer cancel {info.run_id}"]
    if info.status is not RunStatus.COMPLETED:
        from trainer.submission import continues  # for a run that ended badly alone

        following = [f"trainer logs {info.run_id}"]
        if continues(run):
            following.append(f"trainer resume {info.run_id}")
        elif info.status is RunStatus.CANCELED:
            following.append(f"trainer rerun {info.run_id}")
        return following
    return []


def _label(name: str) -> str:
    """The words for the name of what a backend keeps of a run."""
    return _LABELS.get(name) or name.replace("_", " ").capitalize().replace("Vm ", "VM ")


def _detail(name: str, value: object) -> str:
    if name == _SENT and isinstance(value, float):
        return moment(value)
    if isinstance(value, dict):
        return "\n".join(inline(f"{key}: {item}") for key, item in value.items())
    return inline(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _counted(value: float | None) -> str:
    return number(value) if value is None else f"{value:g}"


def _fields(record: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(record)
