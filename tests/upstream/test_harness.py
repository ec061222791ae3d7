"""The harness for Chainer's own tests, on a folder of three tests that stands for theirs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.upstream import report
from tests.upstream.report import Known, Outcome

HERE = Path(__file__).parent
KNOWN = [Known(r"chainer_tests/a_tests/test_x\.py::.*y=-1", "tests", "because")]

TESTS = """
import unittest
import mock
import numpy
import chainer

class TestX(unittest.TestCase):
    def test_aliases_of_numpy(self):
        assert numpy.product([2, 3]) == 6
        assert numpy.int is int

    def test_chainer(self):
        x = chainer.Variable(numpy.ones((1, 1, 2, 2), 'f'))
        assert chainer.functions.resize_images(x, (3, 3)).array.sum() == 9

    def test_that_fails(self):
        self.assertEqual(1, 2)

    @unittest.skip('not here')
    def test_that_is_skipped(self):
        pass
"""


def test_the_command_on_a_small_folder(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "chainer_tests" / "functions_tests" / "math_tests"
    folder.mkdir(parents=True)
    (folder / "test_x.py").write_text(TESTS)
    (folder / "test_broken.py").write_text("import no_such_module")
    table, outcomes = tmp_path / "table.md", tmp_path / "outcomes.jsonl"
    command = [sys.executable, HERE / "run.py", tmp_path, "--output", table, "--outcomes", outcomes]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr  # an unknown failure
    assert "| functions/math | 2 | 1 | 1 | 1 |" in table.read_text(), done.stdout
    assert "test_x.py::TestX::test_that_fails`: AssertionError: 1 != 2" in table.read_text()
    assert "test_broken.py`: ModuleNotFoundError: No module named 'no_such_module'" in table.read_text()
    assert {json.loads(line)["outcome"] for line in outcomes.read_text().splitlines()} == {
        "passed",
        "failed",
        "error",
        "skipped",
    }


RANKS = """
import time
import pytest
from mpi4py import MPI
ranks = MPI.COMM_WORLD

def test_sum():
    assert ranks.allreduce(ranks.rank) == 1

def test_that_fails_on_one():
    assert ranks.rank == 0

def test_that_hangs():
    ranks.recv(source=1) if ranks.rank == 0 else time.sleep(600)

def test_behind_it():
    assert ranks.allreduce(1) == 2

@pytest.mark.gpu
def test_on_a_card():
    assert False
"""


@pytest.mark.slow
def test_ranks(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "chainermn_tests" / "links_tests"
    folder.mkdir(parents=True)
    (folder / "test_x.py").write_text(RANKS)
    table = tmp_path / "table.md"
    command = [sys.executable, HERE / "run.py", tmp_path, "--ranks", "2", "--patience", "8", "--output", table]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr  # an unknown failure
    text = table.read_text()
    assert ", with the layer, 2 ranks (" in text
    assert "| links | 2 | 1 | 0 | 0 | 1 |" in text, text
    assert "test_x.py::test_that_fails_on_one`: rank 1: assert 1 == 0" in text
    assert "test_x.py::test_that_hangs`: rank 0: does not end" in text


def test_a_folder_without_chainers_tests_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, HERE / "run.py", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "git clone --branch v7.8.1" in done.stderr


def test_failures_are_matched_with_known_ones() -> None:
    outcomes = [
        Outcome("chainer_tests/a_tests/test_x.py::T_{y=-1}::t", "failed", "E"),
        Outcome("chainer_tests/a_tests/test_x.py::T_{y=1}::t", "failed", "boom"),
        Outcome("chainer_tests/a_tests/test_x.py::T_{y=-1}::u", "passed"),
        Outcome("chainer_tests/test_top.py::t", "passed"),
    ]
    summary = report.summarise(outcomes, KNOWN)
    assert summary.known == {KNOWN[0]: 1}
    assert summary.unknown == [outcomes[1]]
    assert summary.groups["a"] == {"failed": 2, "passed": 1}
    table = report.write_table(summary, layer=True, minutes=3)
    assert "| a | 1 | 2 | 0 | 0 |" in table
    assert "| **total** | 2 | 2 | 0 | 0 |" in table
    assert "boom" in table


def test_every_known_failure_has_a_cause() -> None:
    known = report.load_known(HERE / "known_failures.toml")
    assert known
    for entry in known:
        assert entry.fault in ("tests", "chainer", "library")
        assert len(entry.cause) > 20


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("chainer_tests/test_link.py::T::t", "top level"),
        ("chainer_tests/links_tests/rnn_tests/test_n.py::T::t", "links/rnn"),
        ("chainer_tests/serializers_tests/test_npz.py", "serializers"),
    ],
)
def test_groups(test: str, group: str) -> None:
    assert report.group_of(test) == group
