"""Compiled modules for a job's copy of the runtime, which would otherwise be compiled anew in every run.

The runtime travels as source. Where a module of it is the installed one, byte for byte, what Python has compiled of
that one is put beside it as Python would put it there (PEP 3147, PEP 552): with the source's time and size, by which
Python finds out if the job changes the source. That has the installed one's time as well where the run was submitted
from here, and then Python's own file gets another name there: Python replaces such files and never writes into them.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import sys
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path

from trainer.interpreter import TOP
from trainer.runtime.layout import JOB_DIR

_HEADER = struct.Struct("<4sIII")


def lay_compiled(work: Path) -> None:
    """Put compiled modules into a job's working directory. What can't be had or written is left out.

    Args:
        work: The directory, with its ``_trainer_job``.
    """
    if sys.dont_write_bytecode or sys.pycache_prefix is not None or sys.implementation.cache_tag is None:
        return
    top = os.path.join(work, JOB_DIR)  # noqa: PTH118
    for folder, _, names in os.walk(os.path.join(top, "trainer")):  # noqa: PTH118
        modules = [name for name in names if name.endswith(".py")]
        installed = folder.replace(top, str(TOP), 1)
        with suppress(OSError):
            if modules:
                os.mkdir(os.path.join(folder, "__pycache__"))  # noqa: PTH102, PTH118
            for name in modules:
                _lay(f"{folder}/{name}", f"{installed}/{name}")


def _lay(copied: str, installed: str) -> None:
    try:
        if _read(copied) != _read(installed):
            return
        code = _compiled(installed)
    except FileNotFoundError:  # of another version of ours
        return
    if not code:
        return
    header, target = _header(os.stat(copied)), importlib.util.cache_from_source(copied)  # noqa: PTH116
    if header == _header(os.stat(installed)):  # noqa: PTH116
        with suppress(OSError):  # another file system, or another user's file
            os.link(importlib.util.cache_from_source(installed), target)
            return
    with open(target, "wb") as stream:  # noqa: PTH123
        stream.write(header + code)


def _compiled(source: str) -> bytes:
    """Return an installed module's marshalled code from Python's own cache, which is filled if need be, or nothing."""
    for attempt in range(2):
        with suppress(FileNotFoundError):
            cached = _read(importlib.util.cache_from_source(source))
            if cached[: _HEADER.size] == _header(os.stat(source)):  # noqa: PTH116
                return cached[_HEADER.size :]
        if not attempt:
            with suppress(SyntaxError, ValueError):
                SourceFileLoader("runtime", source).get_code("runtime")  # keeps it, where it may write there
    return b""


def _header(source: os.stat_result) -> bytes:
    return _HEADER.pack(importlib.util.MAGIC_NUMBER, 0, int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF)


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:  # noqa: PTH123
        return stream.read()
