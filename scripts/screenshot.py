"""Make docs/images/run.{svg,png} and live.{svg,png} from what a real `trainer run` shows on a terminal.

    uv run scripts/screenshot.py [-- ARGUMENTS OF TRAINER RUN]

The command runs on a pseudo-terminal of 100 columns, in a scratch project. ``run`` is its screen at the end,
``live`` the screen half way.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.text import Text

COLUMNS = 100
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
# Colours, the erasing of a line, cursor up; and the switching of the cursor, which shows nothing.
_CONTROL = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


class Screen:
    """A terminal that knows what trainer and rich send: text, colours, carriage return, line feed, erase, up."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = 0
        self._fresh = True

    def feed(self, text: str) -> None:
        """Show ``text``."""
        for found in _CONTROL.finditer(text):
            self._one(found[0], found[1], found[2])

    def _one(self, text: str, argument: str | None, command: str | None) -> None:
        if command == "K":
            self.lines[self.row] = ""
        elif command == "A":
            self.row = max(0, self.row - int(argument or 1))
        elif command not in (None, "m"):
            return
        elif text == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        elif text == "\r":
            self._fresh = True
        else:
            # What follows a carriage return replaces the line: nothing here overwrites a part of one.
            self.lines[self.row] = text if self._fresh and command is None else self.lines[self.row] + text
            self._fresh = self._fresh and command is not None


def capture(arguments: list[str], folder: Path) -> tuple[list[str], list[str]]:
    """The screen half way and at the end of ``trainer run ARGUMENTS``, as lines with colour codes."""
    mine, theirs = pty.openpty()
    settings = {"COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "trainer", "run", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=os.environ | settings, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen, half_way, pending = Screen(), [""], b""
    while True:
        try:
            data = os.read(mine, 65536)
        except OSError:
            break
        # A chunk may end inside a character or a sequence; lines and redraws end with these.
        pending += data
        cut = max(pending.rfind(end) + len(end) if end in pending else 0 for end in (b"\n", b"\r", b"left"))
        screen.feed(pending[:cut].decode())
        pending = pending[cut:]
        if any(re.search(r"epoch +6/10", line) for line in screen.lines) and half_way == [""]:
            half_way = list(screen.lines)
    screen.feed(pending.decode())
    if process.wait():
        sys.exit("\n".join(screen.lines))
    return half_way, screen.lines


def save(name: str, lines: list[str], title: str) -> None:
    """Write NAME.svg and NAME.png."""
    text = [Text.from_ansi(line) for line in lines]
    while text and not text[-1].plain.strip():
        text.pop()
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, color_system="truecolor", force_terminal=True)
        for line in text:
            console.print(line, soft_wrap=True)
        picture = console.export_svg(title=title)
    # rich's picture loads a font from another host.
    (IMAGES / f"{name}.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL))
    draw(text, IMAGES / f"{name}.png")


def draw(lines: list[Text], path: Path) -> None:
    """Draw the lines in a fixed-width font, light on dark."""
    import matplotlib

    face = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
    font = ImageFont.truetype(str(face), 15)
    width, height, margin = font.getlength("M"), 20, 14
    picture = Image.new("RGB", (int(COLUMNS * width) + 2 * margin, len(lines) * height + 2 * margin), "#16181d")
    pen = ImageDraw.Draw(picture)
    console = Console(width=COLUMNS)
    for row, line in enumerate(lines):
        x = float(margin)
        for part in line.render(console):
            colour = part.style.color.get_truecolor().hex if part.style and part.style.color else "#d6d8dc"
            if part.style and part.style.bold and not part.style.color:
                colour = "#ffffff"
            pen.text((x, margin + row * height), part.text.rstrip("\n"), font=font, fill=colour)
            x += width * len(part.text)
    picture.save(path, optimize=True)


def main() -> None:
    """Entry point."""
    arguments = [word for word in sys.argv[1:] if word != "--"]
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "digits"
        folder.mkdir()
        (folder / "pyproject.toml").touch()
        half_way, end = capture(arguments, folder)
    prompt = " ".join(["$ trainer run", *arguments])
    save("live", [prompt, *half_way], "trainer run")
    save("run", [prompt, *end], "trainer run")


if __name__ == "__main__":
    main()
