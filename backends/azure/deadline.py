"""A limit on how long signing in may wait for answers.

The SDK, msal and azure-identity ask over HTTP without limits of their own, or with minutes of retries, and behind a
proxy that takes a connection and says nothing they wait for ever. So each step is called in a thread that is left
behind when time is up.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from backends.azure.errors import NoAnswerError

_T = TypeVar("_T")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")


class Deadline:
    """A time by which several steps must have been done together.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def restart(self) -> None:
        """Begin anew."""
        self._end = time.monotonic() + self._seconds

    @property
    def left(self) -> float:
        """Seconds that are left, zero at least."""
        return max(0.0, self._end - time.monotonic())

    def wait(self, step: Callable[[], _T], doing: str) -> _T:
        """Call a step and wait for it until the deadline.

        Args:
            step: What to do. It may go on in the background after the deadline.
            doing: What it does, for the message, such as ``"sign in"``.

        Returns:
            What it returned.

        Raises:
            NoAnswerError: It was not done in time.
            Exception: What it raised.
        """
        results: list[_T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(step())
            except BaseException as error:  # raised in the thread that waits
                errors.append(error)

        thread = threading.Thread(target=work, name=f"trainer: {doing}", daemon=True)
        thread.start()
        thread.join(self.left)
        if errors:
            raise errors[0]
        if not results:
            raise no_answer(doing, self._seconds)
        return results[0]


def no_answer(doing: str, seconds: float) -> NoAnswerError:
    """Return the error about a service that was silent for so long."""
    named = next((name for name in _PROXIES if os.environ.get(name)), None)
    return NoAnswerError(
        f"Azure ML doesn't answer; could not {doing} within {seconds:.0f} s.",
        f"Check the network and the proxy {_host(os.environ[named])}, from {named}." if named else "Check the network.",
    )


def _host(url: str) -> str:
    """Return a proxy's host and port, without the password that its URL may hold."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "there"
