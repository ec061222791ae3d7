"""SIGKILL of clients and of services themselves, at any moment of a deployment, an update and a removal."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path

import psutil

from tests.cli.conftest import Project
from tests.drills.drill import Drill
from tests.serving.conftest import register

_ROUNDS = 100
_NAME = "digits"
_BODY = {"data": [0.5] * 784}


def kills(scratch: Path, scale: float) -> dict[str, int]:
    project = Project(scratch / "project", scratch, scratch)
    for seed in range(2):
        register(project, _NAME, seed)
    (project.path / "body.json").write_text(json.dumps(_BODY))
    (project.path / "script.py").write_text("def init():\n    pass\n\n\ndef run(data):\n    return 'script'\n")
    answers = [_answer_of(project, "--overwrite", version=version) for version in (1, 2)]
    answers.append(_answer_of(project, "--overwrite", "--script", "script.py", version=2))
    chance = random.Random(1)  # a schedule, not a secret
    clients = services = 0
    try:
        for _ in range(max(3, round(_ROUNDS * scale))):
            if chance.random() < 0.7:
                _kill_a_client(project, chance)
                clients += 1
            else:
                services += _kill_a_service(project, chance)
            _check(project, answers)
        assert project.trainer("undeploy", _NAME).returncode == 0
        assert not _processes(project)
    finally:
        for process in _processes(project):
            process.kill()
    return {"clients killed": clients, "services killed": services}


def _kill_a_client(project: Project, chance: random.Random) -> None:
    words = chance.choice(
        [
            ["deploy", f"{_NAME}:1", "--overwrite"],
            ["deploy", f"{_NAME}:2", "--overwrite"],
            ["deploy", _NAME, "--overwrite", "--script", "script.py"],
            ["undeploy", _NAME],
        ]
    )
    client = project.start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(chance.random() * 1.5)
    client.kill()
    client.wait()


def _kill_a_service(project: Project, chance: random.Random) -> int:
    found = _processes(project)
    if found:
        chance.choice(found).kill()
    return len(found[:1])


def _check(project: Project, answers: list[object]) -> None:
    """Whatever happened, the service is told as it is, and a deployment brings it up."""
    asked = project.trainer("score", _NAME, "--data", "body.json", "--json")
    assert asked.returncode in (0, 4, 5), asked.stderr
    assert asked.returncode or json.loads(asked.stdout) in answers, asked.stdout
    listed = project.trainer("services", "--json")
    assert listed.returncode == 0, listed.stderr
    for service in json.loads(listed.stdout):
        assert service["state"] in ("Healthy", "Transitioning", "Failed", "Unhealthy"), service
    assert _answer_of(project, "--overwrite", version=2) == answers[1]
    sessions = {os.getsid(process.pid) for process in _processes(project) if process.is_running()}
    assert len(sessions) == 1, sessions


def _answer_of(project: Project, *words: str, version: int) -> object:
    deployed = project.trainer("deploy", f"{_NAME}:{version}", *words)
    assert deployed.returncode == 0, deployed.stderr
    asked = project.trainer("score", _NAME, "--data", "body.json", "--json")
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def _processes(project: Project) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            folder = process.environ().get("TRAINER_SERVICE_DIR", "")
            if folder.startswith(str(project.path)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


DRILLS = (
    Drill(
        "kills-deployments",
        "A kill while a service is deployed, updated or removed, or of the service itself, leaves one that is told as "
        "it is; the next deployment brings it up, once.",
        kills,
    ),
)
