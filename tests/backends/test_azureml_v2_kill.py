"""Clients of the backend of SDK v2 that are killed at every step."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azureml_v2 import AzureMLV2Backend
from tests.backends import sdk_warnings
from trainer.home import Home
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.runids import run_ids

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow, pytest.mark.timeout(1800)]
CLIENT = Path(__file__).parent / "azureml_client.py"
SECONDS = 600.0


@pytest.fixture
def azure(azure_home: Home) -> AzureMLV2Backend:
    return AzureMLV2Backend(azure_home, {"emulator": True})


@pytest.fixture
def client(azure_home: Home) -> Iterator[Callable[..., subprocess.Popen[str]]]:
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
def kill_at(service: Endpoint) -> Callable[..., None]:
    """Kills a client as soon as it has sent a request on a route, which the service answers only later, or never."""

    def kill(process: subprocess.Popen[str], route: str, action: FaultAction = FaultAction.DELAY) -> None:
        delay = 1.5 if action is FaultAction.DELAY else 0.0
        service.set_faults(rules=[FaultRule(route=route, action=action, delay=delay, times=2)])
        deadline = time.monotonic() + SECONDS
        while service.faults().rules[0].times == 2:
            assert process.poll() is None, f"it ended before it asked for {route}: {process.stdout.read()}"
            assert time.monotonic() < deadline, f"it never asked for {route}"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        service.clear_faults()

    return kill


def test_a_client_killed_at_every_step(
    client: Callable[..., subprocess.Popen[str]],
    kill_at: Callable[..., None],
    azure: AzureMLV2Backend,
    azure_home: Home,
    tmp_path: Path,
) -> None:
    diary = tmp_path / "diary"
    # Before the service has the run; and when it has it, and the client has not heard of it.
    kill_at(client("submit", diary, 1, "azureml-v2"), "POST */startPendingUpload")
    (unsent,) = run_ids(azure_home.runs)
    kill_at(client("submit", diary, 1, "azureml-v2"), "PUT */jobs/*", FaultAction.DROP_ANSWER)
    (sent,) = set(run_ids(azure_home.runs)) - {unsent}
    folder = RunFolder(azure_home.runs / sent)
    assert not folder.info().status.terminal
    # While it fetches the outputs, and when it registers the model.
    for route in ("GET */contentinfo", "PUT */models/*"):
        kill_at(client("attach", sent), route)
        assert not folder.info().status.terminal, route
    last = [client("attach", sent) for _ in range(2)]
    assert [process.communicate(timeout=SECONDS)[0].split()[-2:] for process in last] == [["Completed", "1"]] * 2
    assert len(diary.read_text().splitlines()) == 1
    versions = azure.store().versions("killed-azureml-v2")
    assert [(version.version, version.run_id) for version in versions] == [(1, sent)]
    assert (folder.outputs / "model.npz").stat().st_size == versions[0].size

    lost = RunFolder(azure_home.runs / unsent)
    info = azure.refresh(lost)
    assert not info.status.terminal, "it may still be on its way"
    lost.update(detail={**info.detail, "sent": info.detail["sent"] - 3600})
    assert AzureMLV2Backend(azure_home, {}).refresh(lost).status is RunStatus.FAILED
