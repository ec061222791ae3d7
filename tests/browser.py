"""A headless Chromium, told what to do over its debugging pipe (Chrome DevTools Protocol), without a library."""

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--mute-audio"),
)


class Browser:
    """One tab."""

    def __init__(self, profile: Path, width: int = 900, height: int = 620) -> None:
        assert CHROMIUM is not None
        # It reads its orders from 3 and answers on 4, whatever numbers the pipes have here.
        orders, self._write = os.pipe()
        self._read, answers = os.pipe()
        orders, answers = (fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (orders, answers))

        def place() -> None:
            os.dup2(orders, 3)
            os.dup2(answers, 4)

        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, preexec_fn=place, close_fds=False, stdout=quiet, stderr=quiet)
        os.close(orders)
        os.close(answers)
        self._numbers = itertools.count(1)
        self._heard = b""
        self.console: list[str] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._heard:
            part = os.read(self._read, 1 << 16)
            assert part, "Chromium has ended"
            self._heard += part
        message, _, self._heard = self._heard.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        if found.get("method") == "Runtime.exceptionThrown":
            self.console.append(json.dumps(found["params"]["exceptionDetails"]))
        if found.get("method") == "Log.entryAdded":
            self.console.append(found["params"]["entry"]["text"])
        return found

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 120) -> Any:
        """Wait for an expression to be true; return its value."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, (expression, self.value("document.body.innerText"))
            time.sleep(0.05)
        return found

    def key(self, name: str) -> None:
        """Press a key: a character, ``Escape``, ``Enter``, ..."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": name} if len(name) == 1 and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, **text)

    def size(self, width: int, height: int) -> None:
        """Give the page another width and height; below 600 pixels it is a phone's."""
        override = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **override)

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def drag(self, *points: tuple[float, float]) -> None:
        """Draw lines through points of the page."""
        self.mouse("mousePressed", *points[0])
        for x, y in points[1:]:
            self.mouse("mouseMoved", x, y)
        self.mouse("mouseReleased", *points[-1])

    def click(self, selector: str) -> None:
        middle = "b => [b.x + b.width / 2, b.y + b.height / 2]"
        x, y = self.value(f"({middle})(document.querySelector({selector!r}).getBoundingClientRect())")
        self.drag((x, y))

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
