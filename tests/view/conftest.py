"""A project with runs, its page's server as a process, and the page in a headless browser."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Browser
from tests.cli.conftest import Project, trained, trained_once  # noqa: F401

SCRIPT = """
import os, sys
from trainer import runtime as rt
rate = float(sys.argv[sys.argv.index("--lr") + 1])
for epoch in range(1, 6):
    rt.report({"Loss": rate / epoch, "Accuracy": 1 - rate / epoch}, epoch=epoch, epochs=5)
print("trained with", rate, "<b>bold</b>\\x1b[2J")
os.makedirs("outputs/plots", exist_ok=True)
open("outputs/notes.txt", "w").write("plain")
open("outputs/page.html", "w").write("<script>document.title = 'owned'</script>")
open("outputs/plots/a b.svg", "w").write('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
os.symlink("/etc/passwd", "outputs/outside")
if rate > 0.8:
    raise ValueError("too large <img src=x onerror=document.title='owned'>")
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Project:
    """Three finished runs, one of them failed."""
    top = tmp_path_factory.mktemp("view")
    project = Project(top / "project", tiny_data, top)
    name = project.script(SCRIPT)
    for rate, code in (("0.25", 0), ("0.5", 0), ("0.9", 1)):
        ran = project.trainer("run", "--script", name, "--no-register", "--", "--lr", rate)
        assert ran.returncode == code, ran.stderr
    return project


class View:
    """``trainer view`` as a process."""

    def __init__(self, project: Project) -> None:
        self.process = project.start("view", "--json")
        assert self.process.stdout is not None
        started = json.loads(self.process.stdout.readline())
        self.url, self.port, self.token = started["url"], started["port"], started["token"]
        self.root = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=600)
        assert self.process.returncode == 0


@pytest.fixture(scope="session")
def view(project: Project) -> Iterator[View]:
    started = View(project)
    yield started
    started.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser, view: View) -> Browser:
    """The page, open, with its table."""
    chromium.console.clear()
    chromium.size(1280, 900)
    chromium.call("Page.navigate", url="about:blank")
    chromium.open(view.url)
    chromium.until("document.querySelectorAll('#table tbody tr').length === 3")
    return chromium
