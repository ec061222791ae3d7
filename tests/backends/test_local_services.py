"""Services on this machine keep the contract, and are told apart alive and dead."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from backends.local import LocalBackend
from tests.cli.conftest import Project
from tests.cli.test_terminal import run_on_terminal
from tests.contract.deploy_contract import NAME, DeployContract, Place
from tests.serving.conftest import register
from trainer.home import Home

SLOW = """
import pathlib, time

def init():
    pathlib.Path({begun!r}).touch()
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.02)

def run(data):
    return "late"
"""


def local(project: Path) -> Place:
    return Place(LocalBackend(Home(project / ".trainer", project)), ("--backend", "local"))


class TestLocalServices(DeployContract):
    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        place = local(tmp_path_factory.mktemp("deploy") / "project")
        yield place
        end(place.home)


def end(home: Home) -> None:
    """End whatever a test has left."""
    for process in processes(home):
        with contextlib.suppress(psutil.NoSuchProcess):  # workers end with their supervisor
            process.kill()


def processes(home: Home) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            folder = process.environ().get("TRAINER_SERVICE_DIR", "")
            if folder.startswith(str(home.services)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def until(what: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path / "project", tmp_path, tmp_path)
    register(project, NAME)
    yield project
    end(Home(project.path / ".trainer", project.path))


@pytest.fixture
def place(project: Project) -> Place:
    return local(project.path)


def test_a_service_outlives_its_client_and_its_end_is_known(project: Project, place: Place) -> None:
    client = project.start("deploy", NAME, "--json", start_new_session=True)
    _out, err = client.communicate(timeout=120)
    assert client.returncode == 0, err
    first = place.trainer("services", NAME, "--json").json
    # What a closed terminal does.
    for process in processes(place.home):
        process.send_signal(signal.SIGHUP)
    assert place.trainer("services", NAME, "--json").json["state"] == "Healthy"
    key = place.home.services / "local" / NAME / "key"
    assert key.stat().st_mode & 0o777 == 0o600

    leader = next(each for each in processes(place.home) if os.getsid(each.pid) == each.pid)
    leader.kill()
    until(lambda: not processes(place.home))  # its workers end with it
    # The kernel takes a killed process from the list before it gives back its lock.
    until(lambda: place.trainer("services", NAME, "--json").json["state"] == "Failed")
    dead = place.trainer("services", NAME, "--json").json
    assert (dead["state"], dead["url"]) == ("Failed", None)
    assert "was killed" in dead["error"]

    again = place.deploy(NAME, "--overwrite", "--json")
    assert again.code == 0, again.err
    assert again.json["url"] == first["url"]  # the port stays


def test_a_client_that_is_interrupted_leaves_the_service_to_start(
    project: Project, place: Place, tmp_path: Path
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    script = place.write("slow.py", SLOW.format(begun=str(begun), go=str(go)))
    client = project.start("deploy", NAME, "--script", script)
    until(begun.exists)
    assert place.trainer("services", NAME, "--json").json["state"] == "Transitioning"
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=120)
    assert client.returncode == 130
    assert "goes on without this command" in err
    go.touch()
    until(lambda: place.trainer("services", NAME, "--json").json["state"] == "Healthy")
    piped = ["sh", "-c", 'echo {} | exec "$@"', "-", *project.command]
    asked = project.trainer("score", NAME, "--data", "-", "--json", command=piped)
    assert asked.stdout == '"late"\n', asked.stderr


def test_one_that_loads_for_ever_can_be_replaced(project: Project, place: Place, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    script = place.write("slow.py", SLOW.format(begun=str(begun), go=str(tmp_path / "never")))
    client = project.start("deploy", NAME, "--script", script)
    until(begun.exists)
    client.kill()
    client.communicate()
    assert place.deploy(NAME, "--overwrite", "--json").json["state"] == "Healthy"
    assert len({os.getsid(each.pid) for each in processes(place.home)}) == 1


def test_of_two_who_deploy_at_once_one_is_refused(project: Project, place: Place) -> None:
    clients = [project.start("deploy", NAME) for _ in range(2)]
    ends = [client.communicate(timeout=120) for client in clients]
    assert sorted(client.returncode for client in clients) == [0, 4], ends
    assert len({os.getsid(each.pid) for each in processes(place.home)}) == 1


def test_a_service_whose_folder_has_gone_ends(project: Project, place: Place) -> None:
    assert place.deploy(NAME).code == 0
    assert processes(place.home)
    subprocess.run(["rm", "-rf", str(place.home.services)], check=True)
    until(lambda: not processes(place.home))
    assert place.trainer("services", "--json").json == []


def test_a_damaged_record_is_said_and_set_aside(project: Project, place: Place) -> None:
    assert place.deploy(NAME).code == 0
    record = place.home.services / "local" / NAME / "service.json"
    record.write_text('{"name": ')
    listed = place.trainer("services")
    assert (listed.code, "is damaged" in listed.err) == (0, True)
    assert place.trainer("services", NAME).code == 3
    repaired = place.trainer("doctor", "--repair")
    assert NAME in repaired.out
    until(lambda: not processes(place.home))
    assert place.deploy(NAME).code == 0


def test_a_network_that_ends_the_process_is_refused_before_anything_is_started(place: Place) -> None:
    network = place.write("net.py", "def make(shape, classes):\n    print('here')\n    raise SystemExit\n")
    ran = place.deploy(NAME, "--network", f"{network}:make")
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert "net.py:make could not be tried: its process ended with 0" in ran.err
    assert "  here" in ran.err
    assert not place.home.services.joinpath("local", NAME).exists()


def test_another_machines_service_is_left_alone(project: Project, place: Place) -> None:
    assert place.deploy(NAME).code == 0
    record = place.home.services / "local" / NAME / "service.json"
    service = msgspec.json.decode(record.read_bytes())
    service["detail"]["host"] = {"name": "elsewhere", "machine": "m", "boot": "b"}
    record.write_bytes(msgspec.json.encode(service))
    assert "runs on elsewhere" in place.trainer("services").err
    for words in (("undeploy", NAME), ("deploy", NAME, "--overwrite")):
        ran = place.trainer(*words)
        assert (ran.code, "on elsewhere" in ran.err) == (4, True), ran.err


def test_what_a_narrow_terminal_says_of_a_service_can_be_copied(project: Project, place: Place, tmp_path: Path) -> None:
    script = place.write(
        "own.py", 'import json\n\n\ndef init():\n    pass\n\n\ndef run(data):\n    return json.loads(data)["a"]\n'
    )
    words = ["deploy", NAME, "--script", str(script), "--name", "one-with-a-rather-long-name"]
    seen = run_on_terminal(project, words, COLUMNS="80").replace("\r", "")
    assert "ask it   trainer score one-with-a-rather-long-name --data BODY.json\n" in seen
    command = seen.partition("by curl")[2].partition("  keys  ")[0].replace("'{}'", "'{\"a\": 7}'")
    assert "\\\n" in command
    (tmp_path / "trainer").write_text(f'#!/bin/sh\nexec {shlex.join(project.command)} "$@"\n')
    (tmp_path / "trainer").chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    pasted = project.trainer("-c", command.replace("curl", "curl -s", 1), command=["sh"], env=path)
    assert pasted.stdout == "7", pasted.stderr

    listed = run_on_terminal(project, ["services"], COLUMNS="80")
    assert "http" not in listed, "half an address is none"
    assert "No room for the addresses: trainer services SERVICE" in listed
    (project.path / "body.json").write_text("{}")
    failed = project.trainer("score", "one-with-a-rather-long-name", "--data", "body.json")
    assert failed.returncode == 1
    assert "hint: See what it printed: trainer services one-with-a-rather-long-name --log 50" in failed.stderr
