"""Every code block of every page is run, or the tables beside this file say why not.

The pages that teach are run here as they stand, in the page's order, in an empty folder: a block in ``sh`` by bash,
one in ``python`` in one Python process per page, and one whose first line names a file is that file. Commands of
others are parsed here, and run by ``python -m tests.drills docs``. Nothing is fetched: data sets come with the
packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import tables
from tests.docs.pages import DOCS, PAGES, ROOT, Block, blocks, words
from trainer.cli.commands import COMMANDS

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
    # The script of the tutorial is a block of code, and the theme's own script finds the search that it asks for.
    page = (tmp_path / "site" / "tutorial" / "index.html").read_text()
    assert '<pre><code class="language-python"># train.py' in page
    assert 'id="mkdocs_search_modal"' in page


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", tables.WHOLE)
def test_every_block_of_the_page_runs(name: str, tmp_path: Path) -> None:
    page = blocks(DOCS / f"{name}.md")
    folder = tmp_path / "project"
    folder.mkdir()
    ran = run([block for block in page if block.language in ("sh", "python")], folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    for block in (
        Block("python", "", "1 / 0"),
        Block("sh", "", "false | true"),
        Block("sh", "", "trainer runs --nope"),
    ):
        assert run([block], tmp_path).returncode, block
    assert run([Block("sh", "a.txt", "x"), Block("sh", "", "test $(cat a.txt) = x")], tmp_path).returncode == 0


def test_every_block_is_run_or_a_table_says_why_not() -> None:
    for name, path in PAGES.items():
        for block in blocks(path):
            whole = name in tables.WHOLE and block.language in ("sh", "python", "text")
            where = (name, block.first)
            known = (whole, where in tables.PYTHON, where in tables.OTHER, not whole and any(block.commands()))
            assert sum(known) == 1, f"{name}: {block.first!r} is in {sum(known)} of the tables"


def test_the_tables_name_what_the_pages_have() -> None:
    shown = {(name, block.first) for name, path in PAGES.items() for block in blocks(path)}
    assert tables.PYTHON.keys() | tables.OTHER.keys() <= shown
    commands = {command for path in PAGES.values() for block in blocks(path) for command in block.commands()}
    assert tables.NOT_RUN.keys() | tables.MORE.keys() <= commands


def test_every_command_shown_is_one() -> None:
    for name, path in PAGES.items():
        for block in blocks(path):
            for command in block.commands() if block.language != "python" else ():
                for form in {command, tables.MORE.get(command, command)}:
                    typed = [tables.WORDS.get(word, word) for word in words(form)]
                    assert typed[1] in COMMANDS, f"{name}: {command}"
                    COMMANDS[typed[1]].parser().read(typed[2:])
