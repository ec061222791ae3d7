"""Asking a service: pictures or JSON to its URL, and what it takes them for.

A body is JSON on every backend, pictures in base64 inside it: Azure's inference server hands bodies on as text.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from trainer.errors import ConfigError, NotFoundError, RefusedError, RunFailedError, SignInError, UsageError
from trainer.serving.settings import is_loopback

if TYPE_CHECKING:
    import requests

_ANSWER_MAX = 256 << 20
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 310.0
_PICTURE_MAX = 8 << 20
# Of one request: our server takes 1,000 pictures and 16 MiB.
_BATCH_PICTURES, _BATCH_BYTES = 100, 6 << 20
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


class Prediction(msgspec.Struct, frozen=True, rename={"label": "class"}):
    """What an input is taken for; ``class`` in JSON."""

    label: int
    probability: float
    probabilities: list[float]


class Predictions(msgspec.Struct, frozen=True):
    """The answer of our own score script: one prediction per input, in their order, and the classes' names, if any."""

    predictions: list[Prediction]
    model: str = ""
    classes: list[str] = []


def ask(url: str, key: str | None, body: bytes, *, words: str) -> Any:  # noqa: ANN401  # what JSON holds
    """Send a JSON body to a service and return its answer.

    Args:
        url: Where to POST it.
        key: The key, or None where none is asked for.
        body: JSON.
        words: By which a command finds the service, for the hint of an error.

    Raises:
        RefusedError: The service can't be reached, or is not ready.
        SignInError: It does not take the key.
        UsageError: It can't use the body.
        RunFailedError: Its score script failed, or its answer is no JSON.
    """
    import requests

    headers = {"Content-Type": "application/json"}
    try:
        with requests.Session() as session:
            # A proxy has no way to this machine.
            session.trust_env = not is_loopback(urlsplit(url).hostname or "")
            answer = session.post(
                url,
                data=body,
                headers=headers,
                auth=_Bearer(key),
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                stream=True,
                # The key is for this address alone.
                allow_redirects=False,
            )
            with answer:
                said = _limited(answer)
    except (requests.RequestException, OSError) as error:
        raise RefusedError(
            f"The service at {url} can't be reached: {type(error).__name__}.", f"See: trainer services {words}"
        ) from error
    if answer.status_code != 200:
        raise _refusal(answer.status_code, said, words)
    try:
        return msgspec.json.decode(said)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        text = said[:200].decode("utf-8", "replace")
        raise RunFailedError(
            f"The service's answer is no JSON: {text!r}.", "Its score script must return it."
        ) from error


def picture_bodies(paths: Sequence[Path]) -> Iterator[tuple[Sequence[Path], bytes]]:
    """Return bodies for pictures, with the pictures that are in each; small enough for any service.

    Raises:
        NotFoundError: There is no such file.
        UsageError: One is no PNG or JPEG file, or too large.
    """
    batch: list[Path] = []
    encoded: list[str] = []
    size = 0
    for path in paths:
        text = base64.b64encode(_picture(path)).decode("ascii")
        if batch and (len(batch) == _BATCH_PICTURES or size + len(text) > _BATCH_BYTES):
            yield batch, msgspec.json.encode({"images": encoded})
            batch, encoded, size = [], [], 0
        batch.append(path)
        encoded.append(text)
        size += len(text)
    if batch:
        yield batch, msgspec.json.encode({"images": encoded})


def check_json(data: bytes, name: str) -> bytes:
    """Return a body that is JSON.

    Args:
        data: The body.
        name: Where it is from, for messages.

    Raises:
        UsageError: It is none.
    """
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
        data.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}.", 'For example: {"data": [[0.0, 0.5, ...]]}') from error
    return data


def predictions(answer: object) -> Predictions | None:
    """Return the predictions of an answer; None if it is another script's, which may hold anything."""
    try:
        return msgspec.convert(answer, Predictions)
    except msgspec.ValidationError:
        return None


class _Bearer:
    """Puts the key into the header after requests has thought of ~/.netrc, which would take its place."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _limited(answer: requests.Response) -> bytes:
    parts, size = [], 0
    for part in answer.iter_content(1 << 16):
        parts.append(part)
        size += len(part)
        if size > _ANSWER_MAX:
            raise RunFailedError(f"The service's answer has more than {_ANSWER_MAX >> 20} MiB.", "Send less at once.")
    return b"".join(parts)


def _refusal(status: int, said: bytes, words: str) -> Exception:
    why = _message(said)
    shown = f"{status}{f': {why}' if why else ''}"
    if status in (401, 403):
        return SignInError(f"The service does not take our key ({shown}).", f"See: trainer services {words} --keys")
    if status in (429, 503):
        return RefusedError(f"The service is not ready ({shown}).", f"Try again, or see: trainer services {words}")
    if status == 404:
        return NotFoundError(f"There is no service at this address ({shown}).", f"See: trainer services {words}")
    if 400 <= status < 500:
        return UsageError(
            f"The service can't use this ({shown}).", "See what our score script takes: trainer docs serving"
        )
    if status >= 500:
        return RunFailedError(
            f"The service failed ({shown}).", f"See what it printed: trainer services {words} --log 50"
        )
    return ConfigError(f"The service answered with status {shown}.", f"See: trainer services {words}")


def _message(said: bytes) -> str:
    try:
        found = msgspec.json.decode(said)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return " ".join(said[:200].decode("utf-8", "replace").split())
    if isinstance(found, dict):
        found = found.get("message", found)
    return " ".join(str(found).split())[:300]


def _picture(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            found = stream.read(_PICTURE_MAX + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.", "Check the path.") from error
    except OSError as error:
        raise UsageError(f"Can't read {path}: {error.strerror}.", "Make it readable.") from error
    if not found.startswith(_MAGIC):
        raise UsageError(f"{path} is no PNG or JPEG file.", "JSON is sent with: --data FILE")
    if len(found) > _PICTURE_MAX:
        raise UsageError(
            f"{path} has more than {_PICTURE_MAX >> 20} MiB.", "Make it smaller; a digit needs few pixels."
        )
    return found
