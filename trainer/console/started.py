"""A run that has just been submitted or picked up: follow it to its end and say what it came to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from trainer.console.follow import follow, go_on_hint
from trainer.console.output import note, print_json, say
from trainer.console.summary import FLAGS, as_object, print_failure, print_summary
from trainer.console.view import make_view
from trainer.errors import InterruptedRunError, RunFailedError
from trainer.records import RunStatus

if TYPE_CHECKING:
    from trainer.run import Run


def follow_to_the_end(run: Run, *, logs: bool | None, as_json: bool) -> int:
    """Follow a run, then print its summary, or with ``as_json`` its object.

    Args:
        run: The run.
        logs: Show what the script prints; None for scripts that aren't ours.
        as_json: End with one JSON object on standard output.

    Returns:
        0 if it completed, 1 if it failed or was cancelled by someone else, 130 on Ctrl-C.
    """
    from trainer.snapshot import DEFAULT_SCRIPT

    shown = run.job.script != DEFAULT_SCRIPT if logs is None else logs
    try:
        info = follow(run, make_view, logs=shown)
    except InterruptedRunError as interrupt:
        if not as_json:
            raise
        note(f"error: {interrupt.message}\nhint: {interrupt.hint}")
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
    note(f"error: {failure.message}\nhint: {failure.hint}")
    return failure.exit_code


def remember_flags(run: Run, words: list[str]) -> None:
    """Keep in the run's record the words that its model is found with again.

    Args:
        run: The run.
        words: :meth:`trainer.config.Config.registry_flags`.
    """
    if words:
        run.folder.update(lambda info: msgspec.structs.replace(info, detail={**info.detail, FLAGS: words}))


def print_detached(run: Run, *, as_json: bool) -> None:
    """Say how a run that goes on by itself is found again; its id goes to standard output."""
    if as_json:
        print_json(as_object(run, run.folder.info()))
        return
    say(run.run_id)
    note(f"It goes on by itself. Follow it: trainer attach {run.run_id}    Stop it: trainer cancel {run.run_id}")


def _failure(run: Run, status: RunStatus, reason: str) -> RunFailedError:
    if status is RunStatus.CANCELED:
        return RunFailedError(f"Run {run.run_id} was canceled.", go_on_hint(run))
    return RunFailedError(f"Run {run.run_id} failed: {reason}".rstrip(), f"See: trainer logs {run.run_id}")
