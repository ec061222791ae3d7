"""What the pages show: their code blocks, and the commands among them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = ("cli.md", "configuration.md", "architecture.md", "gallery.md")
"""Written from the program (tests/cli/test_docs.py compares), or by running what they show (scripts/gallery.py)."""
PAGES = {
    **{path.stem: path for path in sorted(DOCS.glob("*.md")) if path.name not in GENERATED},
    "README": ROOT / "README.md",
    "CONTRIBUTING": ROOT / "CONTRIBUTING.md",
    "azureml-emulator": ROOT / "azureml-emulator" / "README.md",
}
_COMMAND = re.compile(r"^(?:\$ )?(?:uv run (?:--extra \w+ )?)?(?P<command>trainer .*)$")


class Block(NamedTuple):
    """A fenced block, or one that is indented.

    Attributes:
        language: What the fence says; empty for one that is indented.
        title: The file that it is, if its first line is a comment that says so: ``# train.py``.
        text: Without the fence or the indentation.
    """

    language: str
    title: str
    text: str

    @property
    def first(self) -> str:
        """The first line, by which the tests' tables name a block."""
        return self.text.splitlines()[0].strip()

    def commands(self) -> Iterator[str]:
        """Every ``trainer`` command in it, one to a line, without what the page says beside it."""
        for line in self.text.splitlines():
            found = _COMMAND.match(line)
            if found:
                yield re.split(r"\s+#|\s{2,}|\t|, then:| \| | > ", found["command"])[0].rstrip(" ,")


def blocks(page: Path) -> list[Block]:
    """Every block of a page, in its order."""
    found: list[Block] = []
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    blank, inside = True, False
    for line in lines:
        fence = re.match(r"^(`{3,})([a-z]*)(.*)$", line)
        if fence:
            text = []
            for inner in lines:
                if inner.startswith(fence[1]):
                    break
                text.append(inner)
            assert not fence[3], f"{page}: the site shows no block with {fence[3]!r} behind its language"
            title = re.fullmatch(r"# (\w+\.py)", text[0]) if text else None
            found.append(Block(fence[2], title[1] if title else "", "".join(line + "\n" for line in text)))
            blank, inside = True, False
            continue
        if line.startswith("    ") and (inside or blank):
            text = line[4:] + "\n"
            found[-1:] = (
                [found[-1]._replace(text=found[-1].text + text)] if inside else [*found[-1:], Block("", "", text)]
            )
            inside = True
        elif line.strip():
            inside = False
        blank = not line.strip()
    return found


def words(command: str) -> list[str]:
    """Split a command as a shell does."""
    return shlex.split(command)
