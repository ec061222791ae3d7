"""Follow a run to its end, whatever backend it is on, and say what it came to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from trainer.advice import advice
from trainer.backend import backend_options
from trainer.changes import Changes
from trainer.console.epochs import Epochs
from trainer.console.output import note, print_error, print_json, say
from trainer.console.summary import FLAGS, as_object, kept_path, print_failure, print_summary
from trainer.console.view import View, make_view
from trainer.errors import InterruptedRunError, RunFailedError
from trainer.logreader import LogReader
from trainer.records import RunStatus
from trainer.runfolder import STATUS_FILE
from trainer.runtime.layout import CHECKPOINT_FILE

if TYPE_CHECKING:
    from trainer.handle import Run
    from trainer.records import RunInfo

_POLL_SECONDS = 0.2
# An observer must not slow down what it observes: it sleeps at least this many times as long as it looks.
_REST = 4
_CANCEL_SECONDS = 120
# Printed after one look: a script that logs every iteration would print a thousand lines.
_MOST_STEPS = 30


def follow_to_the_end(run: Run, *, logs: bool | None, as_json: bool) -> int:
    """Follow a run, then print its summary, or with ``as_json`` its object.

    Args:
        run: The run.
        logs: Show the script's output; None means for any script but the one that is included.
        as_json: End with one JSON object on standard output.

    Returns:
        0 if it completed, 1 if it failed or was cancelled by someone else, 130 on Ctrl-C.
    """
    from trainer.snapshot import DEFAULT_SCRIPT  # reads .gitignore files, which no list needs

    shown = run.job.script != DEFAULT_SCRIPT if logs is None else logs
    try:
        info = follow(run, make_view, logs=shown)
    except InterruptedRunError as interrupt:
        if not as_json:
            raise
        print_error(interrupt.message, interrupt.hint)
        print_json(as_object(run, run.folder.info()))
        return interrupt.exit_code
    if info.status is RunStatus.FAILED:
        print_failure(run, info, tail=not shown)
    if as_json:
        print_json(as_object(run, info))
    elif info.status is RunStatus.COMPLETED:
        if sys.stdout.isatty():
            say()
        print_summary(run, info)
    if info.status is RunStatus.COMPLETED:
        return 0
    failure = _failure(run, info.status, info.failure.message if info.failure else "")
    if not as_json:
        raise failure
    print_error(failure.message, failure.hint)
    return failure.exit_code


def remember_flags(run: Run, words: list[str]) -> None:
    """Keep in the run's record the words with which its model is found again.

    Args:
        run: The run.
        words: :meth:`trainer.config.Config.registry_flags`.
    """
    if words:
        run.folder.update(lambda info: msgspec.structs.replace(info, detail={**info.detail, FLAGS: words}))


def found_again(info: RunInfo, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with which a run's place was found, its workspace and its cluster, for one that follows on it.

    Args:
        info: The run's record.
        given: The options that a command line gives, by name; None for what it doesn't. If one of them says where the
            workspace is, that is meant.

    Returns:
        What :func:`remember_flags` and the backend have kept, by the options' names.
    """
    options = backend_options(info.backend)
    if any(option.for_registry and given.get(option.name) is not None for option in options):
        return {}
    found: dict[str, Any] = {
        option.name: str(info.detail[option.name])
        for option in options
        if option.kept_with and option.name in info.detail
        if all(given.get(name) is None for name in (option.name, option.kept_with))
    }
    words = info.detail.get(FLAGS)
    if not isinstance(words, list):
        return found
    for option in options:
        if not option.for_registry:
            continue
        if option.flag not in words:
            continue
        if option.is_switch:
            found[option.name] = True
        elif following := words[words.index(option.flag) + 1 :]:
            found[option.name] = str(following[0])
    return found


def print_detached(run: Run, *, as_json: bool) -> None:
    """Print a run's id on standard output, and how to follow and stop it."""
    if as_json:
        print_json(as_object(run, run.folder.info()))
        return
    say(run.run_id)
    note(
        "The run continues in the background. "
        f"Follow it: trainer attach {run.run_id}    Stop it: trainer cancel {run.run_id}"
    )


def follow(run: Run, make_view: Callable[[], View], *, logs: bool = False) -> RunInfo:
    """Show a run until it ends.

    Args:
        run: The run.
        make_view: Makes the view. Called here so that Ctrl-C in it interrupts the run, too.
        logs: Show the script's output.

    Returns:
        The run's last record.

    Raises:
        InterruptedRunError: Ctrl-C. A run on this machine has been canceled; one elsewhere continues.
    """
    try:
        view = make_view()
        try:
            return _watch(run, view, logs=logs)
        finally:
            view.close()
    except KeyboardInterrupt:
        raise _interrupted(run) from None


def _watch(run: Run, view: View, *, logs: bool) -> RunInfo:
    with Changes(run.folder.path, STATUS_FILE) as changes:
        return _watch_by(changes, run, view, logs=logs)


def _watch_by(changes: Changes, run: Run, view: View, *, logs: bool) -> RunInfo:
    epochs, log = Epochs(run.job.arguments), LogReader(run.folder)
    status: RunStatus | None = None
    told: set[str] = set()
    while True:
        began = time.monotonic()
        info = run.info()
        for line in log.lines(final=info.status.terminal) if logs else ():
            view.log(kept_path(line, run))
        # Here a run that is being finalized has ended its script; on Azure ML its last metrics may be on their way.
        ended = info.status.terminal or (info.status is RunStatus.FINALIZING and not run.backend.remote)
        complete = epochs.add(run.metrics(), ended=ended)
        progress = epochs.progress(run.progress())
        view.progress(info, progress, epochs.latest)
        for step, metrics in complete[-_MOST_STEPS:]:
            view.epoch(step, metrics, progress, epochs.seconds(step))
        if info.status is not status:
            status = info.status
            view.phase(info)
        for text in (*(restart.text for restart in info.restarts), *info.warnings):
            if text not in told:
                told.add(text)
                view.warning(text)
        if info.status.terminal:
            return info
        rest = _REST * (time.monotonic() - began)
        time.sleep(rest)
        changes.wait(_POLL_SECONDS - rest)


def _interrupted(run: Run) -> InterruptedRunError:
    if run.backend.remote:
        return InterruptedRunError(
            f"Detached. Run {run.run_id} continues.",
            f"Follow it: trainer attach {run.run_id}    Stop it: trainer cancel {run.run_id}",
        )
    note(f"Canceling {run.run_id} ...")
    try:
        run.cancel()
        info = run.wait(_CANCEL_SECONDS)
    except KeyboardInterrupt:
        return InterruptedRunError(
            f"Run {run.run_id} was told to stop. This command did not wait for its end.",
            f"See: trainer show {run.run_id}",
        )
    return InterruptedRunError(f"Run {run.run_id}: {info.status}.", go_on_hint(run))


def go_on_hint(run: Run) -> str:
    """Return the hint for a run that ended early."""
    if (run.folder.outputs / CHECKPOINT_FILE).is_file():
        return f"To continue from its last checkpoint: trainer resume {run.run_id}"
    return f"See: trainer show {run.run_id}"


def _failure(run: Run, status: RunStatus, reason: str) -> RunFailedError:
    if status is RunStatus.CANCELED:
        return RunFailedError(f"Run {run.run_id} was canceled.", go_on_hint(run))
    told = advice(reason, run.job, run.folder.snapshot)
    see = f"See: trainer logs {run.run_id}"
    return RunFailedError(f"Run {run.run_id} failed: {reason}".rstrip(), f"{told} {see}" if told else see)
