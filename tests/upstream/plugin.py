"""The pytest plugin under which Chainer's own tests run. Loaded by ``run.py``, never by our suite.

It mends what is broken in the *tests* on current libraries, so that what fails is Chainer, and
writes one JSON line per outcome to the file named by ``UPSTREAM_OUTCOMES``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import unittest.mock
from pathlib import Path
from typing import Any

import numpy
import pytest

# Names that NumPy has removed and Chainer's tests still use.
_REMOVED: dict[str, Any] = {
    "bool": bool,
    "complex_": numpy.complex128,
    "float": float,
    "int": int,
    "object": object,
    "product": numpy.prod,
}


def pytest_configure(config: pytest.Config) -> None:
    _give_tests_removed_names(str(config.rootpath))
    if importlib.util.find_spec("mock") is None:
        sys.modules["mock"] = unittest.mock


def _give_tests_removed_names(tests: str) -> None:
    original = numpy.__getattr__

    def module_getattr(name: str) -> Any:
        # Chainer's own modules must not get them: that would hide a fault of the layer.
        caller = sys._getframe(1).f_code.co_filename
        if name in _REMOVED and caller.startswith(tests + os.sep):
            return _REMOVED[name]
        return original(name)

    numpy.__getattr__ = module_getattr


class _Recorder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: set[tuple[str, str]] = set()

    def _write(self, test: str, outcome: str, text: str) -> None:
        if (test, outcome) in self._seen and outcome == "error":
            return  # every worker reports the same failed collection
        self._seen.add((test, outcome))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"test": test, "outcome": outcome, "text": text}) + "\n")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(report.nodeid, "error", _last_error(report.longreprtext))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            text = _last_error(report.longreprtext) if report.failed else ""
            self._write(report.nodeid, report.outcome, text)


def _last_error(text: str) -> str:
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    if "(caused by)" in lines:  # Chainer wraps the errors of parameterized tests
        lines = lines[lines.index("(caused by)") + 1 :]
    return next((line for line in lines if line), text.strip().splitlines()[-1] if text else "")[:300]


class _RankRecorder(_Recorder):
    """Writes down that a test begins, too, and leaves out those that other ranks have been through."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / f"rank-{os.environ['PMI_RANK']}")
        self._done = set((folder / "done").read_text().splitlines())

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.nodeid in self._done]
        items[:] = [item for item in items if item.nodeid not in self._done]
        config.hook.pytest_deselected(items=left_out)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(nodeid, "started", "")


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    path = os.environ.get("UPSTREAM_OUTCOMES")
    folder = os.environ.get("UPSTREAM_RANKS")
    if folder:
        session.config.pluginmanager.register(_RankRecorder(Path(folder)))
    elif path and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Recorder(Path(path)))
