"""Follow a run to its end, whatever backend it is on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from trainer.console.epochs import Epochs
from trainer.errors import InterruptedRunError
from trainer.runfolder import LogReader

if TYPE_CHECKING:
    from trainer.console.view import View
    from trainer.records import RunInfo, RunStatus
    from trainer.run import Run

_POLL_SECONDS = 0.2
# An observer must not slow down what it observes: it sleeps at least this many times as long as it looks.
_REST = 4
_CANCEL_SECONDS = 120
# At one look. A script that logs every iteration is not worth a thousand lines.
_MOST_STEPS = 30


def follow(run: Run, make_view: Callable[[], View], *, logs: bool = False) -> RunInfo:
    """Show a run until it ends.

    Args:
        run: The run.
        make_view: Makes what it is shown on. Called here, because Ctrl-C must find the run followed already.
        logs: Show what the script prints, too.

    Returns:
        The run's last record.

    Raises:
        InterruptedRunError: Ctrl-C. The run has been cancelled, or goes on, as its backend has it.
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
    epochs, log = Epochs(), LogReader(run.folder)
    status: RunStatus | None = None
    told: set[str] = set()
    while True:
        began = time.monotonic()
        info = run.info()
        for line in log.lines(final=info.status.terminal) if logs else ():
            view.log(line)
        complete = epochs.add(run.metrics(), ended=info.status.terminal)
        progress = epochs.progress(run.progress())
        view.progress(info, progress, epochs.latest)
        for step, metrics in complete[-_MOST_STEPS:]:
            view.epoch(step, metrics, progress)
        if info.status is not status:
            status = info.status
            view.phase(info)
        for text in info.warnings:
            if text not in told:
                told.add(text)
                view.warning(text)
        if info.status.terminal:
            return info
        time.sleep(max(_POLL_SECONDS, _REST * (time.monotonic() - began)))


def _interrupted(run: Run) -> InterruptedRunError:
    if run.backend.on_interrupt == "detach":
        return InterruptedRunError(
            f"Detached. Run {run.run_id} goes on.",
            f"Follow it: trainer attach {run.run_id}    Stop it: trainer cancel {run.run_id}",
        )
    from trainer.console.output import note

    note(f"Canceling {run.run_id} ...")
    try:
        run.cancel()
        info = run.wait(_CANCEL_SECONDS)
    except KeyboardInterrupt:
        return InterruptedRunError(
            f"Run {run.run_id} has been told to stop; this command didn't wait for it.",
            f"See: trainer show {run.run_id}",
        )
    return InterruptedRunError(f"Run {run.run_id}: {info.status}.", go_on_hint(run))


def go_on_hint(run: Run) -> str:
    """What can be done with a run that ended early."""
    if (run.folder.outputs / "checkpoint.npz").is_file():
        return f"To go on from its last checkpoint: trainer resume {run.run_id}"
    return f"See: trainer show {run.run_id}"
