"""The emulator's log: a private file that rotates, without secrets and without control characters."""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import sys
from io import TextIOWrapper
from pathlib import Path

from azureml_emulator.private import FILE_MODE

LOG_BYTES = 5 << 20
MAX_PATH = 1024
"""Characters of a request's path that are recorded."""

_SECRETS = (
    (re.compile(r"(?i)\b(sig|secret|access_token|token)=[^&\s\"']+"), r"\1=(removed)"),
    (re.compile(r"(?i)\b(bearer)\s+[^\s\"']+"), r"\1 (removed)"),
    # A JSON Web Token, wherever it stands.
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "(removed)"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def redact(text: str) -> str:
    """Return a text without tokens and signatures, and without what a terminal would obey."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def recordable(path: str) -> str:
    """Return a request's path as it may be recorded: one line, and not endless."""
    short = path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}..."
    return redact(short).replace("\n", "\\n").replace("\t", "\\t")


class _Formatter(logging.Formatter):
    """The one place where text goes to the log."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating log of which every file is for its owner only."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(self.baseFilename, flags, FILE_MODE)
        os.fchmod(descriptor, FILE_MODE)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding=self.encoding, errors=self.errors)


def configure_logging(path: Path) -> None:
    """Send the emulator's log to a file, and its errors to standard error too."""
    handler = _PrivateFile(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace")
    problems = logging.StreamHandler(sys.stderr)
    problems.setLevel(logging.ERROR)
    handlers: list[logging.Handler] = [handler, problems]
    for one in handlers:
        one.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, level in (("azureml_emulator", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        logger.handlers = handlers
