"""Clients and an emulator killed with SIGKILL at every step of a run's life: nothing is lost, nothing done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from azureml_emulator import Endpoint, FaultAction, FaultRule
from backends.azureml import AzureMLBackend
from tests.backends import sdk_warnings
from trainer.home import Home
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.runids import run_ids

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow, pytest.mark.timeout(1800)]
CLIENT = Path(__file__).parent / "azureml_client.py"
SECONDS = 600.0


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
def kill_at(service: Endpoint) -> Callable[[subprocess.Popen[str], str], None]:
    """Kills a client as soon as it has sent a request on a route, which the service answers only later."""

    def kill(process: subprocess.Popen[str], route: str) -> None:
        service.set_faults(rules=[FaultRule(route=route, action=FaultAction.DELAY, delay=1.5, times=1)])
        deadline = time.monotonic() + SECONDS
        while service.faults().rules[0].times:
            assert process.poll() is None, f"it ended before it asked for {route}: {process.stdout.read()}"
            assert time.monotonic() < deadline, f"it never asked for {route}"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        service.clear_faults()

    return kill


def only_run(home: Home) -> RunFolder:
    (run_id,) = run_ids(home.runs)
    return RunFolder(home.runs / run_id)


def test_a_client_killed_at_every_step(
    client: Callable[..., subprocess.Popen[str]],
    kill_at: Callable[[subprocess.Popen[str], str], None],
    azure: AzureMLBackend,
    azure_home: Home,
    tmp_path: Path,
) -> None:
    diary = tmp_path / "diary"
    # The service has the run, and the client that sent it has not heard of it.
    kill_at(client("submit", diary, 1), "PATCH */runs/*")
    folder = only_run(azure_home)
    assert not folder.info().status.terminal
    # While it fetches the outputs, before it registers the model, and when the service has it and nobody knows.
    for route in ("GET */contentinfo/*/outputs/model.npz", "POST */models", "GET *-ws/experiments/train"):
        kill_at(client("attach", folder.run_id), route)
        assert not folder.info().status.terminal, route
    last = [client("attach", folder.run_id) for _ in range(2)]
    assert [process.communicate(timeout=SECONDS)[0].split()[-2:] for process in last] == [["Completed", "1"]] * 2
    assert len(diary.read_text().splitlines()) == 1
    versions = azure.store().versions("killed")
    assert [(version.version, version.run_id) for version in versions] == [(1, folder.run_id)]
    assert (folder.outputs / "model.npz").stat().st_size == versions[0].size


def test_a_client_killed_before_the_service_has_the_run(
    client: Callable[..., subprocess.Popen[str]],
    kill_at: Callable[[subprocess.Popen[str], str], None],
    azure: AzureMLBackend,
    azure_home: Home,
    tmp_path: Path,
) -> None:
    kill_at(client("submit", tmp_path / "diary", 0), "GET *-ws/experiments/train")
    folder = only_run(azure_home)
    info = azure.refresh(folder)
    assert not info.status.terminal, "it may still be on its way"
    folder.update(detail={**info.detail, "sent": info.detail["sent"] - 3600})
    info = AzureMLBackend(azure_home, {}).refresh(folder)
    assert info.status is RunStatus.FAILED
    assert not (tmp_path / "diary").exists()


INSIDE = """
set -e
ip link set lo up
cd "$1"
run=$("$2" -m trainer run --backend azureml --emulator --script "$3" --dataset none --model-name killed \
  --detach --json -- "$1/diary" 3 | "$2" -c 'import json, sys; print(json.load(sys.stdin)["run_id"])')
pid () { sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p' .trainer/emulator/endpoint.json; }
kill -9 "$(pid)"
"$2" -m trainer attach "$run" >&2
"$2" -m trainer show "$run" --json
"$2" -m trainer models killed --backend azureml --emulator --json >models.json
kill "$(pid)"
"""


def test_an_emulator_killed_and_no_byte_leaves_the_machine(tmp_path: Path) -> None:
    """The whole of it, emulator included, in a network namespace that has loopback and nothing else."""
    unshare = shutil.which("unshare")
    probe = [unshare or "unshare", "-rn", "ip", "link", "set", "lo", "up"]
    if unshare is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets us make no network namespace (unshare -rn)")
    (tmp_path / "pyproject.toml").touch()
    script = CLIENT.parent / "scripts" / "tiny" / "train.py"
    words = [unshare, "-rn", "bash", "-c", INSIDE, "inside", str(tmp_path), sys.executable, str(script)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=SECONDS * 2, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("AZUREML_")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout)
    assert shown["status"] == "Completed", shown
    assert len((tmp_path / "diary").read_text().splitlines()) == 1
    models = json.loads((tmp_path / "models.json").read_text())
    assert [model["version"] for model in models] == [1]
