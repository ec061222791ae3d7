"""Neighbours of a script that are named like modules of the standard library: ``random.py``, ``token.py``.

Python puts a script's folder in front of the standard library's, so ``import random`` finds the neighbour from then on,
whoever asks for it; NumPy and Chainer do, too. The layers import what they need before that, inside
:func:`standard_library_first`. Afterwards the script finds a neighbour that it imports, as under ``python SCRIPT``. One
that it does not import, it has beside it by accident: libraries go on with the standard library's.

This module is imported while a script's folder may be on the search path: it needs only what start-up loads.
"""
# ruff: noqa: PTH100, PTH112, PTH113, PTH118, PTH123, PTH208  # pathlib imports a dozen modules that may be hidden

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from types import ModuleType

# What NumPy, Chainer and the runtime import of the standard library: with these loaded, they import no neighbour.
_USED_BY_LIBRARIES = (
    *("argparse", "ast", "atexit", "bisect", "calendar", "collections", "concurrent.futures", "contextlib"),
    *("copy", "copyreg", "csv", "ctypes", "dataclasses", "datetime", "decimal", "difflib", "dis", "email.message"),
    *("email.parser", "email.policy", "email.utils", "enum", "errno"),
    *("fnmatch", "fractions", "functools", "gc", "getpass", "glob", "gzip", "hashlib", "heapq", "hmac"),
    *("importlib.machinery", "importlib.metadata", "importlib.util", "inspect", "ipaddress", "itertools", "json"),
    *(
        "keyword",
        "linecache",
        "locale",
        "logging",
        "math",
        "mmap",
        "multiprocessing",
        "multiprocessing.pool",
        "numbers",
    ),
    *("numbers", "opcode", "operator", "pickle", "pkgutil", "platform", "pprint", "queue", "random", "re", "secrets"),
    *("select", "selectors", "shutil", "signal", "socket", "stat", "statistics", "string", "struct", "subprocess"),
    *("tempfile", "textwrap", "threading", "time", "timeit", "token", "tokenize", "traceback", "types", "typing"),
    *(
        "unittest",
        "unittest.mock",
        "urllib.parse",
        "urllib.request",
        "uuid",
        "warnings",
        "weakref",
        "xml.etree.ElementTree",
    ),
    *("zipfile", "zlib"),
)
_LARGEST_SOURCE = 4 << 20


class standard_library_first:  # noqa: N801  # contextlib would be one more import
    """Within the context, imports find the standard library and installed packages before a script's neighbours.

    Args:
        folder: The script's.
        path: The search path without the script's folder.
        loaded: Names of the modules that Python had loaded before anything of ours.
    """

    def __init__(self, folder: str, path: list[str], loaded: Collection[str]) -> None:
        self._folder, self._path, self._loaded = folder, path, loaded
        self._hidden: list[str] = []
        self._own: dict[str, ModuleType] = {}

    def __enter__(self) -> None:
        self._saved = sys.path[:]
        sys.path[:] = self._path
        self._hidden = _hidden_names(self._folder)
        for name in self._hidden:
            # The script's, where it was first.
            self._own.update(_take_out(name, self._folder))
        if self._hidden:
            for name in _USED_BY_LIBRARIES:
                _import_quietly(name)

    def __exit__(self, *_: object) -> None:
        sys.path[:] = self._saved
        wanted = _imported_names(self._folder) if self._hidden else set()
        for name in self._hidden:
            if name in wanted and name not in self._loaded:
                _take_out(name)
        sys.modules.update(self._own)


def _hidden_names(folder: str) -> list[str]:
    """The names of the standard library's modules that something in ``folder`` has too."""
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    found = {entry.partition(".")[0] for entry in entries if entry.endswith((".py", ".so", ".pyc")) or "." not in entry}
    known = found & (sys.stdlib_module_names - set(sys.builtin_module_names))
    return sorted(
        name
        for name in known
        if os.path.isfile(os.path.join(folder, name, "__init__.py")) or not os.path.isdir(os.path.join(folder, name))
    )


def _imported_names(folder: str) -> set[str]:
    """The first names of what the modules in ``folder`` import, including what only looks like an import."""
    import re  # loaded by now: it is in _USED_BY_LIBRARIES

    found: set[str] = set()
    for directory, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if not name.startswith((".", "_trainer_job")) and "-packages" not in name
        ]
        for name in files:
            path = os.path.join(directory, name)
            if name.endswith(".py"):
                try:
                    with open(path, "rb") as stream:
                        source = stream.read(_LARGEST_SOURCE)
                except OSError:
                    continue
                for words in re.findall(rb"\b(?:from|import)[ \t]+([\w., \t]+)", source):
                    found.update(word.split(".")[0] for word in re.findall(r"[\w.]+", words.decode("utf-8", "replace")))
    return found


def _take_out(name: str, folder: str | None = None) -> dict[str, ModuleType]:
    """Forget a module and its submodules, if it lies in ``folder``; return them."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) or ""
    if module is None or (folder is not None and not os.path.abspath(file).startswith(folder + os.sep)):
        return {}
    return {key: sys.modules.pop(key) for key in list(sys.modules) if key == name or key.startswith(name + ".")}


def _import_quietly(name: str) -> None:
    try:
        __import__(name)
    except ImportError:  # a Python that was built without it
        return
