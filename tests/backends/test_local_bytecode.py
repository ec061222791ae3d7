"""The compiled modules that a job of the local backend finds beside its copy of the runtime."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

import trainer.runtime
from backends.local_bytecode import lay_compiled

RUNTIME = Path(trainer.runtime.__file__).parent


@pytest.fixture(params=[shutil.copy2, shutil.copy], ids=["times kept", "other times"])
def work(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A job's working directory; one of its modules is not the installed one, and one is of another version."""
    target = tmp_path / "work" / "_trainer_job" / "trainer" / "runtime"
    shutil.copytree(RUNTIME, target, ignore=shutil.ignore_patterns("__pycache__"), copy_function=request.param)
    shutil.copy(RUNTIME.parent / "__init__.py", target.parent)
    (target / "hints.py").write_text((target / "hints.py").read_text() + "CHANGED = 1\n")
    (target / "of_another_version.py").write_text("")
    return tmp_path / "work"


def compiled(work: Path) -> set[str]:
    runtime = work / "_trainer_job" / "trainer" / "runtime"
    found = (path.relative_to(runtime).as_posix() for path in runtime.rglob("*.pyc"))
    return {name.replace("__pycache__/", "").partition(".")[0] for name in found}


def modules() -> set[str]:
    return {path.relative_to(RUNTIME).with_suffix("").as_posix() for path in RUNTIME.rglob("*.py")}


def test_python_takes_them(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    lay_compiled(work)
    assert compiled(work) == modules() - {"hints"}
    top = work / "_trainer_job"
    program = "import trainer.runtime.layout, trainer.runtime.hints as hints; print(hints.CHANGED)"
    words = [sys.executable, "-v", "-P", "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(top), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPYCACHEPREFIX", None)
    ran = subprocess.run(words, env=environment, cwd=work, capture_output=True, text=True, check=True)
    cached = next((top / "trainer" / "runtime" / "__pycache__").glob("layout.*.pyc"))
    assert f"# {cached} matches {top}/trainer/runtime/layout.py" in ran.stderr
    assert ran.stdout == "1\n"


def test_a_changed_source_is_compiled_anew(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    lay_compiled(work)
    installed = Path(cache_from_source(str(RUNTIME / "layout.py"))).read_bytes()
    path = work / "_trainer_job" / "trainer" / "runtime" / "layout.py"
    path.write_text("CHANGED = 2\n")
    environment = {**os.environ, "PYTHONPATH": str(work / "_trainer_job")}
    program = "import trainer.runtime.layout as l; print(l.CHANGED)"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, cwd=work, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "2\n"
    assert Path(cache_from_source(str(RUNTIME / "layout.py"))).read_bytes() == installed


def test_none_where_python_is_to_write_none(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    lay_compiled(work)
    assert compiled(work) == set()


def test_a_directory_without_a_runtime_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    lay_compiled(tmp_path)
    assert list(tmp_path.iterdir()) == []
