"""The emulator: a second user who wants in, floods, and a kill under running jobs."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from pathlib import Path

import psutil
import requests

from azureml_emulator import Emulator, Settings, start_in_background
from azureml_emulator.endpoint import process_is_alive
from tests.drills.drill import Drill, NotHereError
from tests.emulator import second_user
from tests.emulator.clients import PROGRAMS, Http, Sdk

_SETTINGS = Settings(phase_duration=0.0)
_MEMORY = 150 << 20
"""Bytes by which a flooded emulator may grow. It parses up to 8 MiB at a time, as objects up to twenty times that."""


def another_user(scratch: Path, _: float) -> dict[str, int]:
    """Try every way in, as another user."""
    if not second_user.possible():
        raise NotHereError("only root can become another user")
    second_user.open_way_to(scratch)
    (scratch / "client").mkdir()
    with Emulator(scratch / "state", settings=_SETTINGS) as endpoint:
        sdk = Sdk(endpoint, scratch / "client")
        run_id = sdk.submit(source=str(PROGRAMS / "job"), arguments=["--epochs", 1])
        assert sdk.wait(run_id=run_id) == "Completed"
        report = second_user.try_everything(endpoint, run_id, scratch)
        sdk.close()
    assert report["uid"] == second_user.SECOND_USER
    assert report["got in"] == []
    return {"tries": report["tried"]}


def flood(scratch: Path, scale: float) -> dict[str, int]:
    """Bodies of 600 MB with a token and without, long unknown routes, connections that say nothing."""
    bodies, routes, silent = max(1, round(5 * scale)), max(10, round(5_000 * scale)), max(10, round(300 * scale))
    with Emulator(scratch / "state") as endpoint:
        http, process = Http(endpoint), psutil.Process(endpoint.pid)
        url = f"/history/v1.0{http.workspace}/experiments:query"
        http("POST", url, json={})
        before = process.memory_info().rss
        for token in (None, "") * bodies:
            try:
                data = iter([b"[" * (1 << 20)] * 600)
                answer = http("POST", url, token=token, data=data, headers={"Content-Type": "application/json"})
                assert answer.status_code in (401, 413)
            except requests.ConnectionError:
                pass  # cut off, which is as good
        for number in range(routes):
            assert http("GET", f"/{number}{'x' * 40_000}", token=None).status_code in (400, 501)
        connections = [socket.create_connection(("127.0.0.1", endpoint.port)) for _ in range(silent)]
        assert http("POST", url, json={}).status_code == 200
        for connection in connections:
            connection.close()
        grown = process.memory_info().rss - before
        assert grown < _MEMORY, f"{grown >> 20} MiB more"
        assert len(endpoint.unknown_requests()) <= 1_000
    return {"bodies of 600 MB": 2 * bodies, "unknown routes": routes, "silent connections": silent}


def kill_under_jobs(scratch: Path, scale: float) -> dict[str, int]:
    """Kill the emulator under running jobs at any moment; each completes with all its metrics and files."""
    rounds = max(1, round(10 * scale))
    (scratch / "client").mkdir()
    endpoint = start_in_background(scratch / "state", settings=_SETTINGS)
    sdk = Sdk(endpoint, scratch / "client")
    chance = random.Random(0)
    jobs = 0
    for _ in range(rounds):
        arguments = ["--epochs", 20, "--sleep", 0.2]
        runs = [sdk.submit(source=str(PROGRAMS / "job"), arguments=arguments) for _ in range(2)]
        time.sleep(chance.uniform(0, 10))
        created = psutil.Process(endpoint.pid).create_time()
        os.kill(endpoint.pid, signal.SIGKILL)
        while process_is_alive(endpoint.pid, created):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 20))
        endpoint = start_in_background(scratch / "state", settings=_SETTINGS)
        for run_id in runs:
            assert sdk.wait(run_id=run_id, timeout=600) == "Completed", sdk.log_text(run_id=run_id)
            assert len(sdk.metrics(run_id=run_id)["Accuracy"]) == 20
            assert "outputs/model.npz" in sdk.files(run_id=run_id)
            jobs += 1
    sdk.close()
    endpoint.stop()
    return {"kills": rounds, "jobs": jobs}


DRILLS = (
    Drill(
        "second-user",
        "Another user of the machine reads nothing of an emulator, signs in nowhere and has nothing run.",
        another_user,
    ),
    Drill("emulator-flood", "Requests by the thousand and bodies by the gigabyte cost an emulator no memory.", flood),
    Drill("emulator-kill", "A job goes on when its emulator is killed, and loses nothing.", kill_under_jobs),
)
