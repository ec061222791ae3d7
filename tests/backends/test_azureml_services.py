"""Services on ACI and AKS keep the contract, on the emulator; and what only Azure has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from azureml_emulator import Endpoint
from backends.azure.options import AzureOptions
from backends.azure.service_info import Detail
from backends.azure.session import find_workspace
from backends.azureml import AzureMLBackend
from backends.local import LocalBackend
from tests.backends import azure_services, sdk_warnings
from tests.backends.azure_services import AzureDeployContract
from tests.contract.deploy_contract import NAME, Place
from trainer.deploy import records
from trainer.home import Home
from trainer.trees import remove_tree

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow]

EMULATED = azure_services.words(AzureMLBackend)
place = azure_services.place_with_a_model(AzureMLBackend)


class TestAzureServices(AzureDeployContract):
    kind = AzureMLBackend
    # Two processes listen on the emulator's port for a moment; what the kernel has queued for the old one is reset.
    keeps_connections = False


def test_a_service_is_found_by_a_client_that_has_no_record(
    place: Place, emulated: Callable[[Path], Home], tmp_path: Path
) -> None:
    newest = place.backend.store().get(NAME)
    assert place.deploy(NAME, "--name", "found").code == 0
    other = azure_services.place_in(emulated(tmp_path / "other"), AzureMLBackend)
    assert other.trainer("services", "--json").json == []
    listed = other.trainer("services", *EMULATED, "--json").json
    assert [(one["name"], one["model"]) for one in listed] == [("found", newest.reference)]
    body = other.write("body.json", json.dumps({"data": [0.5] * 784}))
    asked = other.trainer("score", "found", "--data", body, "--json", *EMULATED)
    assert asked.json["model"] == newest.reference, asked.err
    assert other.trainer("undeploy", "found", *EMULATED).code == 0
    # The first one's record says so when it is asked.
    gone = place.trainer("services", "found", "--json").json
    assert (gone["state"], gone["url"]) == ("Failed", None)
    assert "no such service" in gone["error"]
    assert place.trainer("undeploy", "found", "--json").json["deleted"] is False
    assert place.trainer("services", "--json").json == []


def test_a_service_on_aks_is_asked_with_its_key(place: Place) -> None:
    for words, said in (
        (("--kind", "aks"), "needs the name of a cluster"),
        (("--aks-cluster", "one"), "is for --kind aks"),
        (("--kind", "vm"), "must be one of aci, aks"),
    ):
        ran = place.deploy(NAME, *words)
        assert (ran.code, said in ran.err) == (2, True), ran.err
    ran = place.deploy(NAME, "--name", "on-aks", "--kind", "aks", "--aks-cluster", "one", "--json")
    assert (ran.code, ran.json["kind"]) == (0, "AKS"), ran.err
    body = place.write("body.json", json.dumps({"data": [0.5] * 784}))
    assert place.trainer("score", "on-aks", "--data", body).code == 0
    assert place.trainer("undeploy", "on-aks").code == 0


def test_one_name_on_two_backends_is_told_apart(place: Place) -> None:
    here = Place(LocalBackend(place.home), ("--backend", "local"))
    here.register(2)
    assert here.deploy(NAME, "--name", "both").code == 0
    # As a deployment leaves it before it is sent.
    record = records.known(place.home, "local")[0][0]
    ref = find_workspace(AzureOptions(emulator=True), place.home)
    detail = msgspec.to_builtins(Detail(workspace=ref))
    records.write(
        place.home.services / "azureml" / "both.0",
        msgspec.structs.replace(record, backend="azureml", kind="ACI", detail=detail),
    )
    either = place.trainer("services", "both")
    assert (either.code, "azureml and local" in either.err) == (2, True), either.err
    for backend, state in (("local", "Healthy"), ("azureml", "Failed")):
        shown = place.trainer("services", "both", "--backend", backend, "--json").json
        assert (shown["backend"], shown["state"]) == (backend, state)
    assert place.trainer("undeploy", "both", "--backend", "local").code == 0
    assert place.trainer("services", "both", "--json").json["backend"] == "azureml"
    remove_tree(place.home.services / "azureml" / "both.0")


def test_the_plan_needs_no_network_and_says_what_is_deprecated(place: Place) -> None:
    plan = place.trainer("deploy", NAME, "--backend", "azureml", "--dry-run", "--json")
    assert plan.code == 0, plan.err
    pins = plan.json["details"]["pins"].split()
    assert {"azureml-inference-server-http==1.5.1", "chainer==7.8.1", "pydantic==2.12.5"} <= set(pins)
    assert all("==" in pin for pin in pins)
    assert "deprecated" in plan.err
    # A script's own imports are among them, in a version that the server takes.
    script = place.write("p/score.py", "import pydantic\nimport h5py\ndef init(): pass\ndef run(data): pass\n")
    plan = place.trainer("deploy", NAME, "--backend", "azureml", "--script", script, "--dry-run", "--json")
    if plan.code:
        assert "requires pydantic" in plan.err
    else:
        assert "pydantic==2.12.5" in plan.json["details"]["pins"].split()
        assert "in place of" in plan.err


def test_a_client_that_is_killed_leaves_a_record_that_finds_the_service(
    place: Place, service: Endpoint, tmp_path: Path
) -> None:
    go, begun = tmp_path / "go", tmp_path / "begun"
    script = place.write(
        "slow/score.py",
        "import pathlib, time\n"
        f"def init():\n    pathlib.Path({str(begun)!r}).touch()\n"
        f"    while not pathlib.Path({str(go)!r}).exists():\n        time.sleep(0.02)\n"
        "def run(data):\n    return 'late'\n",
    )
    client = subprocess.Popen(
        [sys.executable, "-m", "trainer", "deploy", NAME, "--name", "orphan", "--script", script, *EMULATED],
        cwd=place.home.project,
        env=os.environ | {"HOME": str(service.state_dir)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert client.stderr is not None
    lines = []
    for line in client.stderr:
        lines.append(line)
        if line.startswith("Waiting for orphan"):
            break
    else:
        pytest.fail("".join(lines))
    client.send_signal(signal.SIGKILL)
    client.stderr.close()
    client.wait()
    assert place.trainer("services", "orphan", "--json").json["state"] == "Transitioning"
    go.touch()
    for _ in range(600):
        found = place.trainer("services", "orphan", "--json").json
        if found["state"] != "Transitioning":
            break
    assert found["state"] == "Healthy"
    body = place.write("body.json", "{}")
    assert place.trainer("score", "orphan", "--data", body).out == '"late"\n'
    assert place.trainer("undeploy", "orphan").code == 0
