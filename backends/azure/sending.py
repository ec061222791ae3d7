"""Sending what gets an id of our own, so that it can't be there twice."""

from __future__ import annotations

import time
from collections.abc import Callable

from backends.azure.errors import is_transient, translate

_ATTEMPTS = 3
_PAUSE_SECONDS = 2.0


def send_once(
    find: Callable[[], object | None], run_id: str, send: Callable[[], None], doing: str | None = None
) -> bool:
    """Send a run, or something else, until the service has it. Thread-safe.

    The id makes a lost answer harmless: whether the service took the run can be looked up.

    Args:
        find: Looks it up; None if the service does not have it.
        run_id: Its id.
        send: Sends it, once.
        doing: What that is, for messages; None for submitting the run.

    Returns:
        Whether the service is known to have it. False: it could not be reached any more to ask.

    Raises:
        TrainerError: It does not have it, and won't.
    """
    doing = doing or f"submit run {run_id}"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            send()
            return True
        except Exception as error:
            try:
                if find() is not None:
                    return True
            except Exception:
                if not is_transient(error):
                    raise translate(error, doing) from error
                return False  # it may be running: whoever looks next will see
            if attempt == _ATTEMPTS or not is_transient(error):
                raise translate(error, doing) from error
        time.sleep(_PAUSE_SECONDS * attempt)
    raise AssertionError("unreachable")
