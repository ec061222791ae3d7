"""The end of a run: what any backend gets from finish(). That it survives kills is in tests/backends/kill_finish.py."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.local_store import LocalStore
from trainer.artifacts import ArtifactStore
from trainer.errors import ConfigError, RefusedError
from trainer.finish import Outcome, finish
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import RunStatus
from trainer.runfolder import RunFolder

DONE = Outcome(RunStatus.COMPLETED)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / ".trainer", tmp_path)


@pytest.fixture
def store(home: Home) -> Callable[[], LocalStore]:
    return lambda: LocalStore(home.models)


def running(home: Home, *, model: bool = True, **job: object) -> RunFolder:
    job = {"script": "x.py", "model_name": "m"} | job
    folder = RunFolder.create(home.runs, TrainingJob(**job), backend="mine", snapshot="0" * 64)  # type: ignore[arg-type]
    folder.log_path.write_text("epoch 1\nTraceback (most recent call last):\n  x\nValueError: no\n")
    if model:
        np.savez(folder.outputs / "model.npz", w=np.arange(3))
    folder.update(status=RunStatus.RUNNING)
    return folder


def no_registry() -> ArtifactStore:
    raise RefusedError("The backend can't do that.")


def test_a_job_that_succeeded_has_its_model_registered(home: Home, store: Callable[[], LocalStore]) -> None:
    folder = running(home)
    info = finish(folder, store, replace(DONE, ended=12.5))
    (version,) = store().versions()
    assert info.model
    assert (info.status, info.ended, info.warnings) == (RunStatus.COMPLETED, 12.5, ())
    assert (info.model.name, info.model.version, info.model.sha256) == ("m", 1, version.sha256)
    assert finish(folder, store, DONE) == info == folder.info()
    assert store().versions() == [version]


def test_a_backend_without_a_registry_completes_with_a_warning(home: Home) -> None:
    info = finish(running(home), no_registry, DONE)
    assert (info.status, info.model) == (RunStatus.COMPLETED, None)
    (warning,) = info.warnings
    assert "outputs/model.npz" in warning
    assert "the mine backend has no model registry" in warning


@pytest.mark.parametrize("outcome", [Outcome(RunStatus.CANCELED), Outcome(RunStatus.FAILED)])
def test_no_registry_is_asked_for_where_there_is_nothing_to_register(home: Home, outcome: Outcome) -> None:
    assert finish(running(home, model_name=None), no_registry, DONE).warnings == ()
    info = finish(running(home, model=False), no_registry, DONE)
    assert info.warnings == ("The script left no outputs/model.npz, so no model was registered.",)
    assert finish(running(home), no_registry, outcome).status is outcome.status


def test_outputs_are_collected_whatever_the_outcome_and_before_the_record_closes(
    home: Home, store: Callable[[], LocalStore]
) -> None:
    for outcome, during in (
        (DONE, RunStatus.FINALIZING),
        (Outcome(RunStatus.FAILED), RunStatus.RUNNING),
        (Outcome(RunStatus.CANCELED), RunStatus.RUNNING),
    ):
        folder = running(home, model=False)
        seen: list[RunStatus] = []

        def collect(folder: RunFolder = folder, seen: list[RunStatus] = seen) -> None:
            seen.append(folder.info().status)
            np.savez(folder.outputs / "model.npz", w=np.arange(3))

        info = finish(folder, store, outcome, collect=collect)
        assert (info.status, seen) == (outcome.status, [during])
        assert (info.model is not None) is (outcome == DONE)


def test_what_is_lost_at_the_end_fails_the_run_and_the_jobs_own_failure_comes_first(
    home: Home, store: Callable[[], LocalStore], tmp_path: Path
) -> None:
    def collect() -> None:
        (tmp_path / "gone").rename(tmp_path / "there")

    info = finish(running(home), store, DONE, collect=collect)
    assert info.status is RunStatus.FAILED
    assert info.failure
    words = "The job succeeded, but its outputs could not be kept: No such file or directory"
    assert info.failure.message.startswith(words)
    assert info.failure.log_tail[-1] == "ValueError: no"

    folder = running(home)
    own = finish(folder, store, Outcome.from_exit_code(folder, 3), collect=collect).failure
    assert own
    assert (own.message, own.exit_code) == ("ValueError: no", 3)

    canceled = finish(running(home), store, Outcome(RunStatus.CANCELED), collect=collect)
    assert canceled.failure
    assert canceled.failure.message.startswith("The run's outputs could not be kept: ")
    assert store().versions() == []


def test_a_model_that_is_none_fails_the_run(home: Home, store: Callable[[], LocalStore]) -> None:
    folder = running(home)
    (folder.outputs / "model.npz").write_bytes(b"not an npz")
    info = finish(folder, store, DONE)
    assert info.status is RunStatus.FAILED
    assert info.failure
    assert info.failure.message.startswith("The job succeeded, but its model could not be registered: ")
    assert store().versions() == []


def test_an_error_that_may_pass_leaves_the_record_open(home: Home, store: Callable[[], LocalStore]) -> None:
    folder = running(home)
    home.models.write_text("in the way of the registry")
    with pytest.raises(ConfigError):
        finish(folder, store, DONE, retry_on=(ConfigError,))
    assert folder.info().status is RunStatus.FINALIZING
    home.models.unlink()
    assert finish(folder, store, DONE, retry_on=(ConfigError,)).status is RunStatus.COMPLETED


def test_several_at_once_collect_and_register_once(home: Home, store: Callable[[], LocalStore]) -> None:
    folder = running(home)
    collected: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(finish, folder, store, DONE, collect=lambda: collected.append(1)) for _ in range(4)]
        assert len({call.result().model for call in calls}) == 1
    assert collected == [1]
    assert len(store().versions()) == 1


def test_a_run_that_has_ended_is_left_as_it_is(home: Home, store: Callable[[], LocalStore]) -> None:
    folder = running(home)
    before = folder.update(status=RunStatus.CANCELED)
    assert finish(folder, store, DONE) == before
    assert store().versions() == []


def test_outcomes(home: Home) -> None:
    folder = running(home, max_minutes=7)
    assert Outcome.from_exit_code(folder, 0) == DONE
    over = Outcome.over_cap(folder, 5.0)
    assert over.failure
    assert (over.status, over.ended) == (RunStatus.FAILED, 5.0)
    assert over.failure.message == "It was stopped after 7 min, the cap that it was submitted with."
    with pytest.raises(ValueError, match="Running"):
        Outcome(RunStatus.RUNNING)
