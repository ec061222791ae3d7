"""The SDK's errors in this project's words, and which of them pass by themselves.

The SDK raises its own exceptions, msrest's, azure-core's, requests' and plain ones for the same causes, one
wrapped in another. What decides is the HTTP status and the kinds of error found along that chain.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from trainer.errors import ConfigError, NotFoundError, RefusedError, SignInError, TrainerError
from trainer.redaction import redact

_T = TypeVar("_T")
# 530 is Azure ML's own: a node whose proxy is still starting.
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504, 530}
_CONNECTION_ERRORS = {
    *("ConnectionError", "ConnectTimeout", "ReadTimeout", "Timeout", "SSLError", "ProxyError", "ChunkedEncodingError"),
    *("ServiceRequestError", "ServiceResponseError", "ServiceRequestTimeoutError", "ServiceResponseTimeoutError"),
    *("ClientRequestError", "ProtocolError", "NewConnectionError", "MaxRetryError", "IncompleteRead"),
    *("RemoteDisconnected", "ConnectionResetError", "ConnectionRefusedError", "BrokenPipeError", "gaierror"),
    "ContentDecodingError",
}
_AUTHENTICATION_ERRORS = {
    "AuthenticationException",
    "AuthenticationError",
    "AdalError",
    "ClientAuthenticationError",
    "CLIError",
}
_STATUS = re.compile(r"(?:Response Code|StatusCode|status code|Code)\W{1,4}([1-5][0-9]{2})\b")


class ServiceUnavailableError(RefusedError):
    """Azure ML could not be reached, or kept answering that it can't answer now."""


class NoAnswerError(ServiceUnavailableError):
    """Nobody answered in the time that there was for it; asking again at once would take as long again."""


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn whatever the SDK raises in the block into an error of this project.

    Args:
        doing: What the block does, for the message, such as ``"submit the run"``.

    Raises:
        SignInError: We are not who the service wants.
        NotFoundError: What was asked for is not there.
        ServiceUnavailableError: It is down, overloaded or out of reach.
        RefusedError: It refused for another reason.
    """
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:
        raise translate(error, doing) from error


def translate(error: BaseException, doing: str) -> TrainerError:
    """Translate one of the SDK's errors to one of this project."""
    status, reason = status_of(error), first_line(error)
    if is_transient(error):
        what = "is too busy" if status == 429 else f"answers {status}" if status else "can't be reached"
        return ServiceUnavailableError(
            f"Azure ML {what}; could not {doing}: {reason}", "Check the network, then try again in a few minutes."
        )
    if status in (401, 403) or _names(error) & _AUTHENTICATION_ERRORS or "az login" in reason:
        return SignInError(
            f"Azure ML doesn't let us {doing}: {reason}",
            "Sign in again (az login), and check your role in the workspace (AzureML Data Scientist or Contributor).",
        )
    if status == 404:
        return NotFoundError(f"Azure ML could not {doing}: {reason}", "Check the workspace and the name.")
    if _is_about_quota(reason):
        return RefusedError(
            f"Azure ML could not {doing}: {reason}",
            "Quota is counted by VM family and region: ask for more in the portal, or choose another --vm-size.",
        )
    if status is None and not _is_from_sdk(error):
        return ConfigError(f"Could not {doing}: {type(error).__name__}: {reason}", "Run with TRAINER_DEBUG=1.")
    return RefusedError(f"Azure ML could not {doing}: {reason}", "Put that right, or see the workspace in the portal.")


def retry(call: Callable[[], _T], *, attempts: int = 2, pause: float = 1.0) -> _T:
    """Call something until it works, or fails with an error that is not transient.

    The SDK tries most requests a dozen times by itself, over half a minute; this covers the rest.

    Args:
        call: What to do; doing it twice must be as good as once.
        attempts: Calls at most.
        pause: Seconds before the second call; doubles each time.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Exception as error:
            if attempt == attempts or not is_transient(error) or isinstance(error, NoAnswerError):
                raise
        time.sleep(pause * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def is_transient(error: BaseException) -> bool:
    """Return whether the same call may work a little later."""
    status = status_of(error)
    if status == 409 and "BlobAlreadyExists" in str(error):
        return True  # an upload whose first answer was lost; the next one goes to another place
    if status is not None:
        return status in _TRANSIENT_STATUSES
    return bool(_names(error) & _CONNECTION_ERRORS) or isinstance(error, ServiceUnavailableError)


def status_of(error: BaseException) -> int | None:
    """Find the HTTP status behind an error; None if there is none."""
    for one in _chain(error):
        for holder in (one, getattr(one, "response", None), getattr(getattr(one, "error", None), "response", None)):
            status = getattr(holder, "status_code", None)
            if isinstance(status, int):
                return status
    for one in _chain(error):
        match = _STATUS.search(_message(one))
        if match:
            return int(match[1])
    return None


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line of at most 300 characters, without the SDK's wrapping."""
    text = redact(_message(error))  # before it is cut: half a token is no longer known for one
    inner = _json_message(text)
    line = next((line.strip() for line in (inner or text).splitlines() if line.strip()), type(error).__name__)
    return line[:300]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if any(one is other for other in seen):
            continue
        seen.append(one)
        yield one
        for name in ("__cause__", "__context__", "inner_exception", "_inner_exception", "reason"):
            inner = getattr(one, name, None)
            if isinstance(inner, BaseException):
                waiting.append(inner)


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}


def _is_from_sdk(error: BaseException) -> bool:
    return any(type(one).__module__.startswith(("azureml.", "msrest", "azure.")) for one in _chain(error))


def _is_about_quota(reason: str) -> bool:
    return bool(re.search(r"quota|not enough (cores|capacity)|cores? needed|SkuNotAvailable", reason, re.IGNORECASE))


def _message(error: BaseException) -> str:
    message = getattr(error, "message", None)
    return message if isinstance(message, str) and message else str(error)


def _json_message(text: str) -> str | None:
    """Find the ``error.message`` of a JSON object inside a text, as services answer it."""
    for start in (match.start() for match in re.finditer(r"\{", text)):
        try:
            found, _ = json.JSONDecoder().raw_decode(text[start:])
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            inner = found.get("error", found)
            message = inner.get("message") if isinstance(inner, dict) else None
            if isinstance(message, str) and message.strip():
                return message
    return None
