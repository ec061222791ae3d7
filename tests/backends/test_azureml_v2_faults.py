"""The backend of SDK v2 where the network, the service or a client fails."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azure import sync
from backends.azure.v2 import submit as v2_submit
from backends.azureml_v2 import AzureMLV2Backend
from tests.backends import sdk_warnings
from trainer.errors import SignInError, TrainerError
from trainer.handle import Run
from trainer.home import Home
from trainer.records import RunStatus
from trainer.submission import JobRequest, prepare, submit

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow]
TINY = Path(__file__).parent / "scripts" / "tiny" / "train.py"
SECONDS = 600.0


@pytest.fixture
def faults(service: Endpoint) -> Iterator[Callable[..., None]]:
    """Sets the emulator's fault switches; puts them back afterwards."""
    yield service.set_faults
    service.clear_faults()


@pytest.fixture
def azure(azure_home: Home) -> AzureMLV2Backend:
    return AzureMLV2Backend(azure_home, {"emulator": True})


@pytest.fixture
def start(azure: AzureMLV2Backend, azure_home: Home, tmp_path: Path) -> Callable[..., Run]:
    """Submits the tiny script; what it writes down of itself is in ``tmp_path/diary``."""
    # Code that the workspace has already is not uploaded again.
    script = tmp_path / "source" / "train.py"
    script.parent.mkdir()
    script.write_text(f"{TINY.read_text()}\n# {tmp_path}\n")

    def start(seconds: float = 0.0, diary: str = "diary", **more: Any) -> Run:
        request = JobRequest(script=script, script_args=(str(tmp_path / diary), str(seconds)), dataset="none", **more)
        return submit(prepare(request, azure_home), azure, azure_home)

    return start


def completed(run: Run) -> Run:
    info = run.wait(timeout=SECONDS)
    assert info.status is RunStatus.COMPLETED, (info, list(run.logs()))
    return run


def test_passing_failures_are_ridden_out_and_a_lost_answer_runs_nothing_twice(
    start: Callable[..., Run], faults: Callable[..., None], tmp_path: Path, azure: AzureMLV2Backend
) -> None:
    faults(
        rules=[
            FaultRule(route="POST */startPendingUpload", action=FaultAction.DROP, times=1),
            # The service takes the run, and the client never hears of it, however often it asks the SDK.
            FaultRule(route="PUT */jobs/*", action=FaultAction.DROP_ANSWER, times=5),
            FaultRule(route="GET */jobs/*", status=503, times=1),
            FaultRule(route="GET */details", status=500, times=1),
            FaultRule(route="GET */details", status=429, times=1),
            FaultRule(route="GET */details", action=FaultAction.DROP, times=1),
            FaultRule(route="PUT */models/*", action=FaultAction.DROP_ANSWER, times=1),
        ]
    )
    run = completed(start())
    assert len((tmp_path / "diary").read_text().splitlines()) == 1
    assert len([version for version in azure.store().versions() if version.run_id == run.run_id]) == 1


def test_expired_links_and_tokens_are_ridden_out(start: Callable[..., Run], faults: Callable[..., None]) -> None:
    run = start(1.0)
    assert not run.info().status.terminal
    faults(expired_sas=True)
    time.sleep(1.5)
    assert not run.info().status.terminal
    faults(rules=[FaultRule(route="GET */contentinfo", status=401, times=2)])
    assert completed(run).file("model.npz").stat().st_size > 0


def test_an_upload_whose_answer_is_lost_is_begun_again(
    start: Callable[..., Run], faults: Callable[..., None], service: Endpoint, tmp_path: Path
) -> None:
    # The SDK sends the file again, and storage says that it is there; with its progress off the SDK would hang.
    faults(rules=[FaultRule(route="PUT *launch.py", action=FaultAction.DROP_ANSWER, times=1)])
    run = start()
    assert service.faults().rules[0].times == 0
    completed(run)
    assert len((tmp_path / "diary").read_text().splitlines()) == 1


def test_a_refused_upload_is_said_and_does_not_hang(
    start: Callable[..., Run], faults: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    faults(rules=[FaultRule(route="PUT *train.py", status=403)])
    with pytest.raises(TrainerError) as caught:
        start()
    assert isinstance(caught.value, SignInError)
    assert not (tmp_path / "diary").exists()
    out, err = capfd.readouterr()
    assert out == ""
    assert "Uploading" not in err
    assert "\n\n" not in err


def test_a_run_over_its_cap_fails_and_says_so(start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    make_job = v2_submit.make_job

    def impatient(*words: Any) -> Any:
        job = make_job(*words)
        assert job.limits.timeout == 60
        job.limits.timeout = 2
        return job

    monkeypatch.setattr(v2_submit, "make_job", impatient)
    monkeypatch.setattr(sync, "_CAP_SLACK_SECONDS", 59.0)
    info = start(600.0, max_minutes=1).wait(timeout=SECONDS)
    assert info.status is RunStatus.FAILED
    assert info.failure
    assert info.failure.message == "It was stopped after 1 min, the cap that it was submitted with."


def test_a_job_that_is_killed_fails_with_a_reason(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start(600.0, model_name=None)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "diary").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(int((tmp_path / "diary").read_text()), signal.SIGKILL)
    info = run.wait(timeout=SECONDS)
    assert info.status is RunStatus.FAILED
    assert info.failure
    assert "exited with code" in info.failure.message


def test_submissions_at_once(start: Callable[..., Run], azure: AzureMLV2Backend, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(lambda n: start(0.0, f"diary-{n}", model_name="at-once"), range(6)))
        list(pool.map(completed, runs))
    for number in range(6):
        assert len((tmp_path / f"diary-{number}").read_text().splitlines()) == 1
    versions = azure.store().versions("at-once")
    assert sorted(version.version for version in versions) == list(range(1, 7))
    assert {version.run_id for version in versions} == {run.run_id for run in runs}
