"""Every code block of the pages that teach is run as it stands, in the page's order, in an empty folder.

A block in ``sh`` is run by bash, one in ``python`` in one Python process per page, and one with a title is the file
that it names. Nothing is fetched: data sets are those that come with the packages.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ("index", "python", "own-data", "tutorial")
FENCE = re.compile(r"^```(?P<language>[a-z]*)(?P<rest>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
DRIVER = """\
import json, subprocess, sys
names = {"__name__": "__main__"}
for language, title, text in json.loads(sys.stdin.read()):
    if title:
        open(title, "w").write(text)
    elif language == "python":
        exec(compile(text, "a block in python", "exec"), names)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)
"""


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', match["rest"])
        found.append(Block(match["language"], title[1] if title else "", match["text"]))
    return found


def run(page: list[Block], folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINER_", "AZUREML_"))}
    environment = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TRAINER_DATA_DIR": str(folder.parent / "data"),
        "TRAINER_DATA_MIRRORS": "off",
        "PYTHONWARNINGS": "ignore",
        "HOME": str(folder.parent),
    }
    return subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(page),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    assert (tmp_path / "site" / "tutorial" / "index.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_the_page_runs(name: str, tmp_path: Path) -> None:
    page = blocks(DOCS / f"{name}.md")
    assert {block.language for block in page} <= {"sh", "python", "text"}, "a block that nobody runs"
    folder = tmp_path / "project"
    folder.mkdir()
    ran = run([block for block in page if block.language != "text"], folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    for block in (
        Block("python", "", "1 / 0"),
        Block("sh", "", "false | true"),
        Block("sh", "", "trainer runs --nope"),
    ):
        assert run([block], tmp_path).returncode, block
    assert run([Block("sh", "a.txt", "x"), Block("sh", "", "test $(cat a.txt) = x")], tmp_path).returncode == 0
