"""``import trainer``: what it offers, what it costs, and what becomes of it inside a job. docs/python.md is run too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import trainer
from trainer.errors import ConfigError, NotFoundError, RunFailedError, UsageError
from trainer.records import RunStatus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAINER_HOME", raising=False)
    return tmp_path


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {list(map(str, path))}; {code}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT if not path else path[0])


def test_importing_it_loads_nothing_else() -> None:
    loaded = python("import trainer; print(*[name for name in sys.modules if name.startswith('trainer')])").stdout
    assert loaded.split() == ["trainer"]
    assert {"run", "runs", "models", "load", "Run", "Model"} <= set(dir(trainer))
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        trainer.walk  # type: ignore[attr-defined]  # noqa: B018


def test_inside_a_job_it_says_that_only_the_runtime_travels(tmp_path: Path) -> None:
    package = tmp_path / "trainer"
    package.mkdir()
    (package / "__init__.py").write_bytes((ROOT / "trainer" / "__init__.py").read_bytes())
    for code in ("import trainer; trainer.run()", "from trainer import run"):
        said = python(code, tmp_path).stderr.splitlines()[-1]
        assert said.startswith("ImportError: trainer.run can't be used inside a job: only trainer.runtime travels")


def test_a_run_that_fails_is_raised_with_its_reason(project: Path) -> None:
    (project / "bad.py").write_text("import sys\nprint('so far', *sys.argv[1:])\nraise ValueError('no good')\n")
    run = trainer.run("bad.py", seed=3, args=["-x"], tags={"why": "test", "try": 1})  # type: ignore[dict-item]
    with pytest.raises(RunFailedError, match=r"Failed: .*ValueError: no good"):
        run.wait()
    assert run.wait(check=False).status is RunStatus.FAILED
    assert next(run.logs()) == "so far --seed 3 -x"
    assert (run.info.experiment, run.metrics, run.history) == ("bad", {}, [])
    with pytest.raises(NotFoundError, match="No model is registered"):
        run.model  # noqa: B018
    assert [found.id for found in trainer.runs()] == [run.id]
    assert run._handle.job.tags == {"why": "test", "try": "1"}
    assert trainer.notebook.curves(run).runs[0].run_id == run.id
    assert repr(trainer.Run(reference="latest")) == f"<Run {run.id} Failed (local)>"


def test_waiting_has_an_end_and_a_run_can_be_canceled(project: Path) -> None:
    (project / "long.py").write_text("import time\ntime.sleep(600)\n")
    run = trainer.run("long.py", register=False)
    with pytest.raises(TimeoutError, match=run.id):
        run.wait(timeout=0)
    run.cancel()
    with pytest.raises(RunFailedError, match="Canceled"):
        run.wait()


def test_a_mistake_costs_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="args is one text") as caught:
        trainer.run(args="--epochs 1")
    assert caught.value.hint == "Give its words: args=['--epochs', '1']"
    for mistake, error in (
        (lambda: trainer.run("missing.py"), UsageError),
        (lambda: trainer.run(epochs=0), UsageError),
        (lambda: trainer.run(backend="mars"), UsageError),
        (lambda: trainer.run(options={"vm_size": "x"}), UsageError),
        (lambda: trainer.load("nothing"), NotFoundError),
    ):
        with pytest.raises(error):
            mistake()
    monkeypatch.setenv("TRAINER_EPOCHS", "two")
    with pytest.raises(ConfigError, match="TRAINER_EPOCHS"):
        trainer.run()
    monkeypatch.delenv("TRAINER_EPOCHS")
    assert not (project / ".trainer").exists()
    assert trainer.runs() == []
    assert trainer.models() == []
