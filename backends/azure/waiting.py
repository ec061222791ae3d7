"""Waiting for a deployment with the SDK's own wait, and telling what it prints as it goes on."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import time
from typing import TYPE_CHECKING

from backends.azure.errors import is_transient
from trainer.deploy.service import TRANSITIONING, Tell

if TYPE_CHECKING:
    from backends.azure.sdk import Webservice

_LOOK_SECONDS = 0.1
_TELL_SECONDS = 30.0
_RETRY_SECONDS = 5.0
# Errors of the network are waited out for so long.
_PATIENCE_SECONDS = 300.0
_ENDED = "reached non-successful terminal state"
_NOISE = re.compile(
    r"\.*|Tips: .*|(NotStarted|Running|Succeeded|Failed|Cancelled|TimedOut)\.*|.* creation operation finished.*"
)


def wait(service: Webservice, tell: Tell) -> Exception | None:
    """Wait until a deployment has ended, and bring ``service.state`` up to date.

    Args:
        service: What is being deployed.
        tell: Is told what Azure ML says of it, and now and then that it goes on.

    Returns:
        None if it has ended well; why not, otherwise.
    """
    failed_since: float | None = None
    while True:
        error = _wait_once(service, tell)
        if error is None:
            return None
        if _ENDED in str(error) or not (is_transient(error) or "operation information not known" in str(error)):
            return error
        with contextlib.suppress(Exception):
            service.update_deployment_state()
            if service.state != TRANSITIONING:
                return None
        failed_since = failed_since or time.monotonic()
        if time.monotonic() - failed_since > _PATIENCE_SECONDS:
            return error
        time.sleep(_RETRY_SECONDS)


def _wait_once(service: Webservice, tell: Tell) -> Exception | None:
    """Run the SDK's wait in a thread that ends with the process: Ctrl-C must not have to wait for it."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            service.wait_for_deployment(show_output=True)
        except Exception as error:
            errors.append(error)

    begun = told = time.monotonic()
    thread = threading.Thread(target=run, daemon=True, name="deployment")
    with contextlib.redirect_stdout(_Lines(tell)):
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                tell(f"Still waiting, for {told - begun:.0f} s now.")
    return errors[0] if errors else None


class _Lines(io.TextIOBase):
    """Takes what the SDK prints, and tells the lines that say something."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._begun = ""

    def write(self, text: str) -> int:
        """Take some text."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if not _NOISE.fullmatch(line.strip()):
                self._tell(f"  {line.strip()}")
        return len(text)
