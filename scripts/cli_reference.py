"""Write what docs/ says of every command, setting and module, from the parsers, tables and docstrings themselves.

uv run scripts/cli_reference.py            rewrite docs/cli.md, configuration.md and architecture.md
uv run scripts/cli_reference.py --check    exit 1 if it is out of date
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.backend import backend_options, bundled_names
from trainer.cli.commands import GROUPS, Command
from trainer.config import JOB
from trainer.options import Option
from trainer.runtime.flags import TRAINING

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGES = (
    (ROOT, "trainer"),
    (ROOT, "backends"),
    (ROOT / "azureml-emulator" / "src", "azureml_emulator"),
)
MARK = "<!-- What follows is written by scripts/cli_reference.py. -->\n"
END = "<!-- The end of what scripts/cli_reference.py writes. -->\n"


def reference() -> str:
    """The Markdown of every command."""
    return "\n".join(line for group, commands in GROUPS.items() for line in _group(group, commands)) + "\n"


def settings() -> str:
    """The Markdown of every setting, and of the options of the backends that come with trainer."""
    tables = ["\n".join(_setting_rows(JOB))]
    head = ["| training flag | | value | default |", "| --- | --- | --- | --- |"]
    rows = [f"| `{flag.name}` | {flag.help} | {flag.expected} | {_code(flag.default)} |" for flag in TRAINING]
    tables.append("\n".join([*head, *rows]))
    for name in bundled_names():
        options = backend_options(name)
        if options:
            tables.append("\n".join(_setting_rows(options, f"option of `{name}`")))
    return "\n\n".join(tables) + "\n\n"


def rooms() -> str:
    """The Markdown of every module, with the first line of its docstring."""
    lines = []
    for top, package in PACKAGES:
        for folder in sorted({path.parent for path in (top / package).rglob("*.py")}):
            modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
            lines += [f"### {'.'.join(folder.relative_to(top).parts)}", ""]
            lines += [_first_line(folder / "__init__.py"), ""] if (folder / "__init__.py").is_file() else []
            lines += ["| | |", "| --- | --- |", *(f"| `{path.stem}` | {_first_line(path)} |" for path in modules), ""]
    lines += ["### Beside them", "", "| | |", "| --- | --- |"]
    lines += [f"| `{path.name}` | {_first_line(path)} |" for path in sorted(ROOT.glob("*.py"))]
    return "\n".join([*lines, "", ""])


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].replace("|", "\\|")


def pages() -> Iterator[tuple[Path, str]]:
    """Each page, with its text renewed."""
    for name, text in (("cli.md", reference()), ("configuration.md", settings()), ("architecture.md", rooms())):
        path = DOCS / name
        head, mark, rest = path.read_text(encoding="utf-8").partition(MARK)
        _, end, tail = rest.partition(END)
        yield path, head + mark + "\n" + text + end + tail


def _setting_rows(options: Iterable[Option], title: str = "setting") -> Iterator[str]:
    yield from (f"| {title} | | value | default |", "| --- | --- | --- | --- |")
    for option in options:
        shown = option.default_text or _code(option.default)
        yield f"| `{option.name.replace('_', '-')}` | {option.help} | {option.expected} | {shown} |"


def _code(value: object) -> str:
    return "-" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _group(title: str, commands: tuple[Command, ...]) -> Iterator[str]:
    yield f"## {title}\n"
    for command in commands:
        parser = command.parser()
        parser.add_backend_options(bundled_names())
        yield from _command(parser, f"### trainer {command.name}")


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
    old = [path for path, text in pages() if path.read_text(encoding="utf-8") != text]
    for path, text in pages() if not options.check else ():
        path.write_text(text, encoding="utf-8")
    if options.check:
        print(f"out of date: {', '.join(map(str, old))}; run scripts/cli_reference.py" if old else "up to date")
    return int(bool(old and options.check))


if __name__ == "__main__":
    sys.exit(main())
