"""Who decides how many threads BLAS has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from trainer.runtime import threads
from trainer.runtime.faults import RuntimeFault


@pytest.fixture(autouse=True)
def own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRAINER_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpoolctl.threadpool_limits(None):
        before = threadpoolctl.threadpool_info()
        yield
    for pool in before:
        threadpoolctl.threadpool_limits(pool["num_threads"], user_api=pool["user_api"])


def in_use() -> Any:
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


def test_one_by_default() -> None:
    found = threads.limit()
    assert (found.count, found.reason) == (1, "the default")
    assert in_use() == {1}
    assert str(found) == "1 (the default)"


@pytest.mark.parametrize(
    ("environment", "argument", "expected"),
    [
        ({"TRAINER_THREADS": "2", "OMP_NUM_THREADS": "1"}, None, (2, "TRAINER_THREADS")),
        ({"OMP_NUM_THREADS": "2"}, None, (2, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "2,1"}, None, (2, "OMP_NUM_THREADS")),
        ({"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}, None, (2, "OPENBLAS_NUM_THREADS")),
        ({"TRAINER_THREADS": "1"}, 2, (2, "--threads")),
    ],
)
def test_overridden(monkeypatch: pytest.MonkeyPatch, environment: Any, argument: Any, expected: Any) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = threads.limit(argument)
    assert (found.count, found.reason) == expected
    assert in_use() == {expected[0]}


@pytest.mark.parametrize(
    ("argument", "expected"), [("None", ["1 (the default)", "1 1"]), ("2", ["2 (--threads)", "1 2"])]
)
def test_blas_starts_no_threads_that_a_script_switches_off(tmp_path: Path, argument: str, expected: list[str]) -> None:
    (tmp_path / "script.py").write_text(f"""
import trainer.runtime.compat.auto
import numpy, threadpoolctl
from trainer import runtime as rt
before = threadpoolctl.threadpool_info()[0]["num_threads"]
rt.use_device("cpu", blas_threads={argument})
print(before, threadpoolctl.threadpool_info()[0]["num_threads"])
""")
    words = [sys.executable, "-m", "trainer.runtime.launch", "script.py"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [f"device: cpu; BLAS threads: {expected[0]}", expected[1]]


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setenv("TRAINER_THREADS", value)
    with pytest.raises(RuntimeFault, match="TRAINER_THREADS"):
        threads.limit()


def test_without_threadpoolctl() -> None:
    """A node may lack it: training goes on, and says that BLAS decides."""
    program = (
        "import sys; sys.modules['threadpoolctl'] = None\n"
        "from trainer.runtime import threads\n"
        "found = threads.limit(2)\n"
        "assert found.count is None and 'threadpoolctl' in found.reason, found\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=threads.__file__.split("/trainer/")[0])
