"""``trainer logs``, ``attach`` and ``cancel``."""

from __future__ import annotations

import sys

from trainer.cli.parsing import Parser, add_json, add_reference


def add_logs(parser: Parser) -> None:
    """Declare ``trainer logs``."""
    add_reference(parser, "whose log is printed")
    parser.add_argument("-f", "--follow", action="store_true", help="Go on until the run ends.")
    add_json(parser, 'Print one JSON object a line: {"line": ...}.')


def add_attach(parser: Parser) -> None:
    """Declare ``trainer attach``."""
    add_reference(parser, "to follow")
    logs = parser.add_mutually_exclusive_group()
    shown = "Show what the script prints, too (default: for a --script of your own)."
    logs.add_argument("--logs", action="store_true", default=None, help=shown)
    logs.add_argument("--no-logs", dest="logs", action="store_false", help="Don't.")
    add_json(parser, "End with the object of 'trainer run --json'.")


def add_cancel(parser: Parser) -> None:
    """Declare ``trainer cancel``."""
    add_reference(parser, "to stop")
    add_json(parser, "Print the run's record.")


def logs_command(*, reference: str, follow: bool, as_json: bool) -> None:
    """Print a run's log."""
    from trainer.cli.context import open_run
    from trainer.console.output import print_json, say
    from trainer.console.text import printable

    run = open_run(reference)
    if not follow:
        run.info()  # a remote run's log is brought here first
    terminal = sys.stdout.isatty()
    for line in run.logs(follow=follow):
        if as_json:
            print_json({"line": line})
        else:
            say(printable(line) if terminal else line)
        if follow:
            sys.stdout.flush()


def attach_command(*, reference: str, logs: bool | None, as_json: bool) -> int:
    """Follow a run to its end."""
    from trainer.cli.context import open_run
    from trainer.console.started import follow_to_the_end

    return follow_to_the_end(open_run(reference), logs=logs, as_json=as_json)


def cancel_command(*, reference: str, as_json: bool) -> None:
    """Stop a run; nothing happens to one that has ended."""
    from trainer.cli.context import open_run
    from trainer.console.output import note, print_json

    run = open_run(reference)
    before = run.info()
    if not before.status.terminal:
        run.cancel()
    info = run.wait(timeout=10)
    if as_json:
        print_json(info)
    elif before.status.terminal:
        note(f"Run {run.run_id} had ended: {before.status}.")
    else:
        note(f"Run {run.run_id}: {info.status if info.status.terminal else 'stopping'}.")
