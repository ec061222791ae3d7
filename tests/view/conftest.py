"""A project with runs, its page's server as a process, and a headless browser driven through its debugging pipe."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Project, trained, trained_once  # noqa: F401

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
)
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


class Browser:
    """One page of a headless Chromium (Chrome DevTools Protocol over two pipes, messages end with a NUL)."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def descriptors() -> None:
            # Chromium reads from 3 and writes to 4. Out of their way first.
            a, b = os.dup(to_browser), os.dup(from_browser)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=descriptors,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self.problems = b"", 0, list[str]()
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(str(message["params"]["entry"]))
        return message

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, expression: str, seconds: float = 30) -> Any:
        """Wait for an expression to be true."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)
        return found

    def key(self, name: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": name} if len(name) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, **text)

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)


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
    chromium.problems.clear()
    chromium.size(1280, 900)
    chromium.open("about:blank")
    chromium.open(view.url)
    chromium.until("document.querySelectorAll('#table tbody tr').length === 3")
    return chromium
