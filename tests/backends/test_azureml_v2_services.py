"""Services on managed online endpoints keep the contract, on the emulator; and what only they have."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from azureml_emulator import Endpoint as Emulator
from azureml_emulator import FaultAction, FaultRule
from backends.azure.session import find_workspace
from backends.azure.v2 import endpoints, services
from backends.azure.v2.connection import open_connection
from backends.azure.v2.endpoint_info import Endpoint
from backends.azureml_v2 import AzureMLV2Backend
from tests.backends import azure_services, sdk_warnings
from tests.backends.azure_services import AzureDeployContract
from tests.contract.deploy_contract import NAME, Place, Ran
from trainer.deploy import records
from trainer.home import Home

pytestmark = [sdk_warnings.IGNORED, pytest.mark.slow]

KINDS = ("onlineEndpoints", "deployments")
EMULATED = azure_services.words(AzureMLV2Backend)
place = azure_services.place_with_a_model(AzureMLV2Backend)


class TestManagedServices(AzureDeployContract):
    kind = AzureMLV2Backend


def there(place: Place, name: str) -> Endpoint:
    """An endpoint as the workspace has it."""
    backend = place.backend
    assert isinstance(backend, AzureMLV2Backend)
    found = endpoints.find_endpoint(open_connection(find_workspace(backend.options, backend.home)), name)
    assert found is not None
    return found


def deploy_until_it_waits(place: Place, then: Callable[[], object], *words: str) -> Ran:
    """Run ``trainer deploy``; where it would wait for its deployment, something else happens before."""
    wait = services._why_not

    def interrupted(*arguments: Any) -> str | None:
        patch.undo()
        then()
        return wait(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "_why_not", interrupted)
        ran = place.deploy(NAME, *words)
    # The SDK's threads end with a client's process, and print dots until then.
    for thread in threading.enumerate():
        if thread.name.startswith("LROPoller"):
            thread.join()
    return ran


def vanish() -> None:
    raise KeyboardInterrupt


def eventually(place: Place, name: str, deployment: str) -> None:
    """Look until a deployment has all of an endpoint's traffic."""
    end = time.monotonic() + 120
    while place.trainer("services", name, "--json").json["state"] != "Healthy" or (
        there(place, name).traffic != {deployment: 100}
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_plan_needs_no_network_and_names_the_instances(place: Place) -> None:
    words = ("--instance-type", "Standard_F4s_v2", "--instances", "2")
    plan = place.deploy(NAME, *words, "--dry-run", "--json")
    assert plan.code == 0, plan.err
    assert plan.json["details"]["instances"] == "2 of Standard_F4s_v2"
    assert "azureml-inference-server-http==1.5.1" in plan.json["details"]["pins"].split()
    assert "deprecated" not in plan.err
    for given, said in ((("--instances", "0"), "from 1 to 100"), (("--instance-type", "a b"), "not a VM size")):
        ran = place.deploy(NAME, *given)
        assert (ran.code, said in ran.err) == (2, True), ran.err


def test_answers_that_are_lost_make_one_service(place: Place, service: Emulator) -> None:
    lost = [FaultRule(route=f"PUT */{kind}/*", action=FaultAction.DROP_ANSWER, times=1) for kind in KINDS]
    service.set_faults(rules=lost)
    ran = place.deploy(NAME, "--name", "stormy", "--json")
    service.clear_faults()
    assert ran.code == 0, ran.err
    found = there(place, "stormy")
    assert list(found.traffic.values()) == [100]
    assert len(found.deployments) == 1
    assert place.trainer("undeploy", "stormy").code == 0


def test_a_refusal_is_said_and_leaves_nothing(place: Place, service: Emulator) -> None:
    service.set_faults(sizes_not_offered=["Standard_DS3_v2"])
    ran = place.deploy(NAME, "--name", "refused")
    service.clear_faults()
    assert ran.code == 4, ran.err
    assert "Standard_DS3_v2 is not offered" in ran.err
    assert place.trainer("services", "refused", *EMULATED).code == 5
    assert place.trainer("services", "--json").json == []


def test_a_client_that_is_gone_leaves_what_the_next_one_finishes(place: Place) -> None:
    assert deploy_until_it_waits(place, vanish, "--name", "orphan").code == 130
    (one,) = there(place, "orphan").deployments
    assert there(place, "orphan").traffic == {}
    assert records.known(place.home)[0][0].state == "Transitioning"
    eventually(place, "orphan", one)
    body = place.write("body.json", json.dumps({"data": [0.5] * 784}))
    assert place.trainer("score", "orphan", "--data", body).code == 0
    # Gone while it replaces that: the old one answers until somebody looks, and is removed then.
    script = place.write("own/score.py", "def init():\n    pass\n\ndef run(data):\n    return 'own'\n")
    gone = deploy_until_it_waits(place, vanish, "--name", "orphan", "--script", script, "--overwrite")
    assert (gone.code, gone.out) == (130, ""), gone.err
    found = there(place, "orphan")
    assert (len(found.deployments), found.traffic) == (2, {one: 100})
    (other,) = found.deployments.keys() - {one}
    eventually(place, "orphan", other)
    assert there(place, "orphan").deployments.keys() == {other}
    assert place.trainer("score", "orphan", "--data", body).out == '"own"\n'


def test_of_two_clients_the_later_one_wins(place: Place) -> None:
    later: list[Ran] = []
    first = deploy_until_it_waits(
        place,
        lambda: later.append(place.deploy(NAME, "--name", "orphan", "--overwrite", "--json")),
        *("--name", "orphan", "--overwrite"),
    )
    assert later[0].code == 0, later[0].err
    assert (first.code, first.out) == (4, ""), first.err
    assert "Another client has deployed to orphan meanwhile" in first.err
    found = there(place, "orphan")
    assert (len(found.deployments), list(found.traffic.values())) == (1, [100])
    shown = place.trainer("services", "orphan", "--json").json
    assert (shown["state"], shown["script"]) == ("Healthy", None)


def test_a_service_is_found_by_a_client_that_has_no_record(
    place: Place, emulated: Callable[[Path], Home], tmp_path: Path, service: Emulator
) -> None:
    other = azure_services.place_in(emulated(tmp_path / "other"), AzureMLV2Backend)
    assert other.trainer("services", "--json").json == []
    listed = other.trainer("services", *EMULATED, "--json").json
    assert [one["name"] for one in listed] == ["orphan"]
    # One that is removed while the list is read is left out of it.
    service.set_faults(rules=[FaultRule(route="GET */onlineEndpoints/orphan/deployments", status=404, times=1)])
    assert other.trainer("services", *EMULATED, "--json").json == []
    service.clear_faults()
    body = other.write("body.json", json.dumps({"data": [0.5] * 784}))
    asked = other.trainer("score", "orphan", "--data", body, "--json", *EMULATED)
    assert asked.json["model"] == listed[0]["model"], asked.err
    assert other.trainer("undeploy", "orphan", *EMULATED).code == 0
    # The first one's record says so when it is asked.
    gone = place.trainer("services", "orphan", "--json").json
    assert (gone["state"], gone["url"]) == ("Failed", None)
    assert "no such service" in gone["error"]
    assert place.trainer("undeploy", "orphan", "--json").json["deleted"] is False
