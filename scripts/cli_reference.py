"""Write the reference of all commands into docs/cli.md, from the parsers themselves.

uv run scripts/cli_reference.py            rewrite it
uv run scripts/cli_reference.py --check    exit 1 if it is out of date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from trainer.cli.commands import GROUPS, Command

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
MARK = "<!-- What follows is written by scripts/cli_reference.py. -->\n"


def reference() -> str:
    """The Markdown of every command."""
    return "\n".join(line for group, commands in GROUPS.items() for line in _group(group, commands)) + "\n"


def updated(page: str) -> str:
    """The page with its reference renewed."""
    head, mark, _ = page.partition(MARK)
    return head + mark + "\n" + reference()


def _group(title: str, commands: tuple[Command, ...]) -> Iterator[str]:
    yield f"## {title}\n"
    for command in commands:
        yield from _command(command.parser(), f"### trainer {command.name}")


def _command(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    yield f"{heading}\n\n{parser.description}\n"
    yield f"    {parser.format_usage().strip().removeprefix('usage: ')}\n"
    rows = [row for group in parser._action_groups for row in _rows(group)]
    if rows:
        yield "\n".join(["| | |", "| --- | --- |", *rows]) + "\n"
    if parser.epilog:
        yield f"{parser.epilog}\n"
    for action in inner:
        for name, child in action.choices.items():
            yield from _command(child, f"#### {parser.prog} {name}")


def _rows(group: argparse._ArgumentGroup) -> Iterator[str]:
    for action in group._group_actions:
        if action.help is None or action.dest == "help" or isinstance(action, argparse._SubParsersAction):
            continue
        names = ", ".join(action.option_strings) or str(action.metavar)
        value = f" {action.metavar}" if action.option_strings and action.nargs != 0 else ""
        yield f"| `{names}{value}` | {action.help % {'default': action.default}} |"


def main() -> int:
    """Entry point. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    options = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    new = updated(old)
    if options.check:
        print("up to date" if new == old else f"{PAGE} is out of date: run scripts/cli_reference.py")
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
