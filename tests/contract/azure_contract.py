"""What the backends of both SDKs for Azure ML do when the network, the service or a client fails.

A test file subclasses these, names its backend and the requests that it makes. The fixtures ``service``, ``azure_home``
and ``faults`` are those of ``tests/backends/conftest.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azure import sync
from backends.azure.base import AzureBackend
from trainer.handle import Run
from trainer.home import Home
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.runids import run_ids
from trainer.submission import JobRequest, prepare, submit

BACKENDS = Path(__file__).parents[1] / "backends"
TINY = BACKENDS / "scripts" / "tiny" / "train.py"
CLIENT = BACKENDS / "azureml_client.py"
SECONDS = 600.0
Start = Callable[..., Run]
Client = Callable[..., "subprocess.Popen[str]"]


def completed(run: Run) -> Run:
    """Follow a run that is to complete."""
    info = run.wait(timeout=SECONDS)
    assert info.status is RunStatus.COMPLETED, (info, list(run.logs()))
    return run


class AzureFaultsContract:
    """Jobs of the tiny script under faults.

    Attributes:
        kind: The backend.
        passing: Faults that pass, among them that every answer to the submission is lost.
        unauthorized: A request of a follower, which is refused for its token.
        at_once: How many submissions are made at once.
    """

    kind: ClassVar[type[AzureBackend]]
    passing: ClassVar[Sequence[FaultRule]]
    unauthorized: ClassVar[str]
    at_once: ClassVar[int] = 6

    @pytest.fixture
    def backend(self, azure_home: Home) -> AzureBackend:
        return self.kind(azure_home, {"emulator": True})

    @pytest.fixture
    def start(self, backend: AzureBackend, azure_home: Home, tmp_path: Path) -> Start:
        """Submits the tiny script; what it writes down of itself is in ``tmp_path/diary``."""
        # Code that the workspace has already is not uploaded again.
        script = tmp_path / "source" / "train.py"
        script.parent.mkdir()
        script.write_text(f"{TINY.read_text()}\n# {tmp_path}\n")

        def start(seconds: float = 0.0, diary: str = "diary", **more: Any) -> Run:
            words = (str(tmp_path / diary), str(seconds))
            request = JobRequest(script=script, script_args=words, dataset="none", **more)
            return submit(prepare(request, azure_home), backend, azure_home)

        return start

    def cap(self, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
        """Have the service stop a job, for which a cap of one minute is asked, after so many seconds."""
        raise NotImplementedError

    def test_passing_failures_are_ridden_out_and_a_lost_answer_runs_nothing_twice(
        self, start: Start, faults: Callable[..., None], tmp_path: Path, backend: AzureBackend
    ) -> None:
        faults(rules=list(self.passing))
        run = completed(start())
        assert len((tmp_path / "diary").read_text().splitlines()) == 1
        assert len([version for version in backend.store().versions() if version.run_id == run.run_id]) == 1

    def test_expired_links_and_tokens_are_ridden_out(self, start: Start, faults: Callable[..., None]) -> None:
        run = start(2.0)
        assert not run.info().status.terminal
        faults(expired_sas=True)
        time.sleep(1.5)
        assert not run.info().status.terminal
        faults(rules=[FaultRule(route=self.unauthorized, status=401, times=2)])
        assert completed(run).file("model.npz").stat().st_size > 0

    def test_a_job_that_is_killed_fails_with_a_reason(self, start: Start, tmp_path: Path) -> None:
        run = start(600.0, model_name=None)
        deadline = time.monotonic() + SECONDS
        while not (tmp_path / "diary").exists() or not (tmp_path / "diary").read_text().endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(int((tmp_path / "diary").read_text()), signal.SIGKILL)
        info = run.wait(timeout=SECONDS)
        assert info.status is RunStatus.FAILED
        assert info.failure
        assert "SIGKILL" in info.failure.message

    def test_a_run_over_its_cap_fails_and_says_so(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cap(monkeypatch, 2)
        monkeypatch.setattr(sync, "_CAP_SLACK_SECONDS", 59.0)
        info = start(600.0, max_minutes=1).wait(timeout=SECONDS)
        assert info.status is RunStatus.FAILED
        assert info.failure
        assert info.failure.message == "It was stopped after 1 min, the cap that it was submitted with."

    @pytest.mark.slow
    def test_submissions_at_once(self, start: Start, backend: AzureBackend, tmp_path: Path) -> None:
        name, numbers = f"at-once-{backend.name}", range(self.at_once)
        with ThreadPoolExecutor(self.at_once) as pool:
            runs = list(pool.map(lambda number: start(0.0, f"diary-{number}", model_name=name), numbers))
            list(pool.map(completed, runs))
        for number in numbers:
            assert len((tmp_path / f"diary-{number}").read_text().splitlines()) == 1
        versions = {version.version: version for version in backend.store().versions(name)}
        assert sorted(versions) == list(range(1, self.at_once + 1))
        assert {version.run_id for version in versions.values()} == {run.run_id for run in runs}
        for run in runs:
            model = run.info().model
            assert model
            assert (model.sha256, run.run_id) == (versions[model.version].sha256, versions[model.version].run_id)


class AzureKillContract:
    """Clients that are killed at every step of a run's life: nothing is lost, nothing done twice.

    Attributes:
        kind: The backend.
        unsent: A request of a submission, before the service has the run.
        sent: One with which it has the run, or has had it, and what becomes of its answer: the client hears of none.
        later: Those of a follower, as it fetches the outputs and registers the model.
    """

    kind: ClassVar[type[AzureBackend]]
    unsent: ClassVar[str]
    sent: ClassVar[tuple[str, FaultAction]]
    later: ClassVar[Sequence[str]]

    @pytest.fixture
    def client(self, azure_home: Home) -> Iterator[Client]:
        """Starts a client; the environment tells it of the shared emulator."""
        started: list[subprocess.Popen[str]] = []

        def start(action: str, *words: object) -> subprocess.Popen[str]:
            command = [sys.executable, str(CLIENT), action, str(azure_home.path), *map(str, words)]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
            return started[-1]

        yield start
        for process in started:
            process.kill()
            if process.stdout and not process.stdout.closed:
                process.communicate()

    @pytest.fixture
    def kill_at(self, service: Endpoint, faults: Callable[..., None]) -> Callable[..., None]:
        """Kills a client as soon as it has sent a request on a route. The service answers it later, or never."""

        def kill(process: subprocess.Popen[str], route: str, action: FaultAction = FaultAction.DELAY) -> None:
            delay = 1.5 if action is FaultAction.DELAY else 0.0
            faults(rules=[FaultRule(route=route, action=action, delay=delay, times=2)])
            deadline = time.monotonic() + SECONDS
            while service.faults().rules[0].times == 2:
                assert process.poll() is None, (
                    f"it ended before it asked for {route}: {process.stdout and process.stdout.read()}"
                )
                assert time.monotonic() < deadline, f"it never asked for {route}"
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            service.clear_faults()

        return kill

    def test_a_client_killed_at_every_step(
        self, client: Client, kill_at: Callable[..., None], azure_home: Home, tmp_path: Path
    ) -> None:
        name, diary, backend = self.kind.name, tmp_path / "diary", self.kind(azure_home, {"emulator": True})
        kill_at(client("submit", diary, 1, name), self.unsent)
        (unsent,) = run_ids(azure_home.runs)
        kill_at(client("submit", diary, 1, name), *self.sent)
        (sent,) = set(run_ids(azure_home.runs)) - {unsent}
        folder = RunFolder(azure_home.runs / sent)
        assert not folder.info().status.terminal
        for route in self.later:
            kill_at(client("attach", sent), route)
            assert not folder.info().status.terminal, route
        last = [client("attach", sent) for _ in range(2)]
        assert [process.communicate(timeout=SECONDS)[0].split()[-2:] for process in last] == [["Completed", "1"]] * 2
        assert len(diary.read_text().splitlines()) == 1
        versions = backend.store().versions(f"killed-{name}")
        assert [(version.version, version.run_id) for version in versions] == [(1, sent)]
        assert (folder.outputs / "model.npz").stat().st_size == versions[0].size

        lost = RunFolder(azure_home.runs / unsent)
        sent_at = time.time()
        lost.update(detail={**lost.info().detail, "sent": sent_at})
        info = backend.refresh(lost)
        assert not info.status.terminal, "it may still be on its way"
        lost.update(detail={**info.detail, "sent": sent_at - 3600})
        assert self.kind(azure_home, {}).refresh(lost).status is RunStatus.FAILED
