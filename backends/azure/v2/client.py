"""The SDK itself, imported where a request of our own does not do, and kept quiet."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from backends.azure.session import quieten_logging
from trainer.errors import MissingExtraError

if TYPE_CHECKING:
    from backends.azure.v2.connection import Connection

EXTRA = "azureml-v2"
_lock = threading.RLock()


def sdk(module: str) -> ModuleType:
    """Import a module of the SDK.

    Raises:
        MissingExtraError: It is not installed.
    """
    quieten_logging()
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("azure"):
                raise
            raise MissingExtraError("The azureml-v2 backend", EXTRA) from error
    # Its import sets INFO, and what it then warns of is that parts of itself are experimental.
    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
    return found


def ml_client(connection: Connection) -> Any:  # noqa: ANN401  # azure.ai.ml.MLClient
    """Make the SDK's client of a workspace.

    With ``show_progress=False`` it would wait for ever after an upload that has failed: it looks at what its threads
    raised only where it shows their progress. So it shows it, to :func:`quietly`.
    """
    ref = connection.ref
    return sdk("azure.ai.ml").MLClient(
        connection.credential,
        ref.subscription_id,
        ref.resource_group,
        ref.workspace_name,
        show_progress=True,
        enable_telemetry=False,
    )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep off the terminal what the SDK prints in the block. One thread at a time: the streams are the process's."""
    with _lock:
        out, err = _Muted(sys.stdout), _Muted(sys.stderr)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield


class _Muted(io.TextIOBase):
    """A stream on which the thread that made it, and progress bars, are not heard."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401  # whatever stands for the terminal
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Pass on what others write."""
        if threading.get_ident() != self._thread and not text.startswith("\r"):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what others have written."""
        self._stream.flush()
