"""Online endpoints and their deployments over plain HTTP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from azureml_emulator import Endpoint, FaultAction, FaultRule, find, start_in_background
from tests.emulator.clients import Http, deploy_over_http, kill, processes_of
from tests.emulator.conftest import SETTINGS

SCRIPT = """\
import json, os, time

def init():
    print("here is", WORD)

def run(data):
    asked = json.loads(data)
    if asked == "sleep":
        print("asked to sleep", flush=True)
        time.sleep(2)
    return look() if asked == "look" else {"word": WORD, "data": asked}

def look():
    root = os.environ["AML_APP_ROOT"]
    names = ("AZUREML_ENTRY_SCRIPT", "SERVICE_NAME", "MINE", "SCORING_TIMEOUT_MS")
    return {
        "models": os.path.relpath(os.environ["AZUREML_MODEL_DIR"], root),
        "files": sorted(os.listdir(root)),
        "variables": {name: os.environ.get(name) for name in names},
    }
"""
CRASH = "def init():\n    raise RuntimeError('no weights in here')\n\ndef run(data):\n    return 1\n"


def eventually(check: Callable[[], Any]) -> Any:
    """Wait until something is so; a hang fails."""
    end = time.monotonic() + 120
    while not (found := check()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


class Arm:
    """What SDK v2 asks of ARM, without its import."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.http = Http(endpoint)
        self.base = self.http.workspace

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self.http(method, f"{self.base}{path}?api-version=2023-04-01-preview", json=body)

    def done(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Ask, wait for the operation, and give back how it ended."""
        answer = self.ask(method, path, body)
        assert answer.status_code < 300, answer.text
        waits = answer.headers.get("Azure-AsyncOperation")
        found: dict[str, Any] = self.http("GET", waits).json() if waits else {"status": "Succeeded"}
        assert found["status"] != "InProgress"
        return found

    def code(self, name: str, script: str) -> str:
        place = self.ask("POST", f"/codes/{name}/versions/1/startPendingUpload", {}).json()
        reference = place["blobReferenceForConsumption"]
        uri, signature = reference["credential"]["sasUri"].split("?")
        headers = {"x-ms-blob-type": "BlockBlob"}
        put = self.http("PUT", f"{uri}/src/score.py?{signature}", token=None, data=script.encode(), headers=headers)
        assert put.status_code == 201
        made = self.ask("PUT", f"/codes/{name}/versions/1", {"properties": {"codeUri": f"{uri}/src"}}).json()
        return str(made["id"])

    def environment(self, name: str, **properties: Any) -> str:
        body = {"properties": {"image": "mcr.microsoft.com/azureml/minimal", **properties}}
        return str(self.ask("PUT", f"/environments/{name}/versions/1", body).json()["id"])

    def endpoint(self, name: str, traffic: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
        properties = {"authMode": "Key", "traffic": traffic or {}, **more}
        return self.done("PUT", f"/onlineEndpoints/{name}", {"location": "eastus", "properties": properties})

    def body(self, name: str, script: str, **more: Any) -> dict[str, Any]:
        properties = {
            "endpointComputeType": "Managed",
            "codeConfiguration": {"codeId": self.code(name, script), "scoringScript": "score.py"},
            "environmentId": self.environment("scoring"),
            "instanceType": "Standard_DS3_v2",
            **more,
        }
        return {"location": "eastus", "properties": properties, "sku": {"name": "Default", "capacity": 1}}

    def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/onlineEndpoints/{path}").json()
        return found

    def keys(self, name: str) -> list[str]:
        return list(self.ask("POST", f"/onlineEndpoints/{name}/listKeys").json().values())

    def score(self, name: str, data: str = "1", **headers: str) -> requests.Response:
        uri = self.get(name)["properties"]["scoringUri"]
        given = {"Authorization": f"Bearer {self.keys(name)[0]}"} | headers
        return requests.post(uri, data=data, headers={"Content-Type": "application/json"} | given, timeout=60)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An emulator of this file's own, which one of its tests kills."""
    endpoint = start_in_background(tmp_path_factory.mktemp("state"), settings=SETTINGS)
    yield endpoint
    last = find(endpoint.state_dir)
    assert last is not None
    assert last.unknown_requests() == []
    last.stop(kill_jobs=True)


@pytest.fixture(scope="module")
def arm(emulator: Endpoint) -> Arm:
    return Arm(emulator)


@pytest.fixture(scope="module")
def blue(arm: Arm) -> str:
    """An endpoint with one deployment, ``blue``, that gets everything."""
    assert arm.endpoint("colours")["status"] == "Succeeded"
    body = arm.body("blue", f"WORD = 'blue'\n{SCRIPT}", environmentVariables={"MINE": "yes"})
    body["properties"]["requestSettings"] = {"requestTimeout": "PT1M30S"}
    assert arm.done("PUT", "/onlineEndpoints/colours/deployments/blue", body)["status"] == "Succeeded"
    assert arm.score("colours").status_code == 404, "nothing gets traffic by itself"
    arm.endpoint("colours", {"blue": 100})
    return "colours"


def test_what_a_script_finds_and_who_gets_in(arm: Arm, blue: str) -> None:
    found = arm.score(blue, '"look"').json()
    assert found["files"] == ["azureml-models", "src"]
    assert found["variables"] == {
        "AZUREML_ENTRY_SCRIPT": "src/score.py",
        "SERVICE_NAME": "blue",
        "MINE": "yes",
        "SCORING_TIMEOUT_MS": "90000",
    }
    for key in ("", "Bearer wrong", f"Basic {arm.keys(blue)[0]}"):
        assert arm.score(blue, Authorization=key).status_code == 401
    assert arm.score(blue, Origin="https://elsewhere.example").status_code == 403
    assert arm.score(blue, **{"azureml-model-deployment": "red"}).status_code == 404
    # It is no web service of SDK v1, under whatever name.
    services = f"/modelmanagement/v1.0{arm.base}/services"
    assert arm.http("GET", services).json()["value"] == []
    for name in ("colours", "colours.endpoint", "colours.blue.deployment"):
        assert arm.http("GET", f"{services}/{name}").status_code == 404
        assert arm.http("DELETE", f"{services}/{name}").status_code in (204, 404)
    assert arm.score(blue).status_code == 200


def test_what_is_not_emulated_is_refused(arm: Arm, blue: str) -> None:
    body = arm.body("refused", SCRIPT)
    for change, said in (
        ({"instanceType": "two donkeys"}, "instanceType"),
        ({"appInsightsEnabled": True}, "appInsightsEnabled"),
        ({"dataCollector": {"collections": {}}}, "dataCollector"),
        ({"modelMountPath": "/models"}, "modelMountPath"),
        ({"scaleSettings": {"scaleType": "TargetUtilization"}}, "scaleType"),
        ({"endpointComputeType": "Kubernetes"}, "endpointComputeType"),
        ({"requestSettings": {"requestTimeout": "PT1H"}}, "at most 180 seconds"),
        ({"codeConfiguration": None}, "codeConfiguration"),
        ({"model": "azureml:other"}, "is not the id"),
        ({"environmentVariables": {"A=B": "c"}}, "environment variable"),
    ):
        answer = arm.ask(
            "PUT",
            f"/onlineEndpoints/{blue}/deployments/refused",
            body | {"properties": body["properties"] | change},
        )
        assert (answer.status_code, said in answer.text) == (400, True), answer.text
    assert arm.ask("GET", f"/onlineEndpoints/{blue}/deployments/refused").status_code == 404


def test_endpoints_that_are_not_emulated_are_refused(arm: Arm, blue: str) -> None:
    for change, said in (
        ({"authMode": "AADToken"}, "only Key and AMLToken"),
        ({"mirrorTraffic": {"blue": 10}}, "mirroring"),
        ({"publicNetworkAccess": "Disabled"}, "private endpoints"),
        ({"compute": "/k8s"}, "compute"),
        ({"traffic": {"blue": 90}}, "add up to"),
        ({"traffic": {"green": 100}}, "no deployment green"),
        ({"authMode": "AMLToken"}, "can't be changed"),
    ):
        body = {"location": "eastus", "properties": {"authMode": "Key", **change}}
        answer = arm.ask("PUT", f"/onlineEndpoints/{blue}", body)
        assert (answer.status_code, said in answer.text) == (400, True), answer.text
    assert arm.ask("PUT", "/onlineEndpoints/a.b", body).status_code == 400
    assert arm.ask("PUT", "/onlineEndpoints/none/deployments/blue", arm.body("orphan", SCRIPT)).status_code == 404
    assert arm.get(blue)["properties"]["traffic"] == {"blue": 100}


def test_what_is_put_again_is_not_started_again(arm: Arm, blue: str, emulator: Endpoint) -> None:
    body = arm.body("green", f"WORD = 'green'\n{SCRIPT}")
    path = f"/onlineEndpoints/{blue}/deployments/green"
    emulator.set_faults(rules=[FaultRule(route="PUT */deployments/green", action=FaultAction.DROP_ANSWER, times=1)])
    with pytest.raises(requests.ConnectionError):
        arm.ask("PUT", path, body)
    assert arm.done("PUT", path, body)["status"] == "Succeeded"
    assert arm.done("PUT", path, body)["status"] == "Succeeded"
    directory = emulator.state_dir / "webservices" / f"{blue}.green.deployment"
    assert [item.name for content in directory.glob("[0-9]*") for item in content.glob("[0-9]*")] == ["1"]
    # One that is removed answers first what it was asked.
    answers: list[requests.Response] = []
    named = {"azureml-model-deployment": "green"}
    asking = threading.Thread(target=lambda: answers.append(arm.score(blue, '"sleep"', **named)))
    asking.start()
    logs = lambda: arm.ask("POST", f"{path}/getLogs", {"tail": 100}).json()["content"]  # noqa: E731
    eventually(lambda: "asked to sleep" in logs())
    assert arm.ask("DELETE", path).status_code == 200
    asking.join()
    assert (answers[0].status_code, answers[0].json()) == (200, {"word": "green", "data": "sleep"})
    assert arm.ask("DELETE", path).status_code == 204
    assert not directory.exists()


def test_what_never_becomes_healthy(arm: Arm, blue: str, emulator: Endpoint) -> None:
    path = f"/onlineEndpoints/{blue}/deployments/red"
    failed = arm.done("PUT", path, arm.body("red", CRASH))
    assert (failed["status"], failed["error"]["code"]) == ("Failed", "ResourceNotReady")
    assert "no weights in here" in arm.ask("POST", f"{path}/getLogs", {"tail": 100}).json()["content"]
    assert arm.get(f"{blue}/deployments/red")["properties"]["provisioningState"] == "Failed"
    refused = arm.ask(
        "PUT",
        f"/onlineEndpoints/{blue}",
        {"location": "eastus", "properties": {"authMode": "Key", "traffic": {"red": 100}}},
    )
    assert "never been healthy" in refused.text
    emulator.set_faults(unhealthy_services=1.0)
    late = arm.done("PUT", path, arm.body("late", f"WORD = 'late'\n{SCRIPT}"))
    emulator.clear_faults()
    assert late["error"]["code"] == "DeploymentTimedOut"
    emulator.set_faults(sizes_not_offered=["Standard_DS3_v2"])
    assert arm.ask("PUT", path, arm.body("small", SCRIPT)).json()["error"]["code"] == "OutOfCapacity"
    emulator.clear_faults()
    assert arm.ask("DELETE", path).status_code == 200
    assert arm.score(blue).json()["word"] == "blue"


def test_a_token_opens_an_endpoint_that_takes_tokens(arm: Arm) -> None:
    assert arm.endpoint("tokens", authMode="AMLToken")["status"] == "Succeeded"
    assert "takes tokens" in arm.ask("POST", "/onlineEndpoints/tokens/listKeys").text
    token = arm.ask("POST", "/onlineEndpoints/tokens/token").json()
    uri = arm.get("tokens")["properties"]["scoringUri"]
    headers = {"Authorization": f"Bearer {token['accessToken']}"}
    assert [requests.post(uri, headers=one, timeout=60).status_code for one in (headers, {})] == [404, 401]
    assert token["expiryTimeUtc"] > token["refreshAfterTimeUtc"] > time.time()
    assert arm.ask("DELETE", "/onlineEndpoints/tokens").status_code == 200
    with pytest.raises(requests.ConnectionError):
        requests.post(uri, timeout=60)


def test_all_goes_on_without_the_emulator_and_is_found_by_the_next(arm: Arm, blue: str, emulator: Endpoint) -> None:
    uri = arm.get(blue)["properties"]["scoringUri"]
    headers = {"Authorization": f"Bearer {arm.keys(blue)[0]}", "Content-Type": "application/json"}
    # The service of SDK v1 beside it, of the same name.
    deploy_over_http(arm.http, blue, f"WORD = 'v1'\n{SCRIPT}")
    kill(emulator)
    assert requests.post(uri, data="1", headers=headers, timeout=60).json()["word"] == "blue"
    again = start_in_background(emulator.state_dir, settings=SETTINGS)
    after = Arm(again)
    assert after.get(blue)["properties"]["scoringUri"] == uri
    assert after.score(blue).json()["word"] == "blue"
    # Nobody is left: what has ended is there again when somebody asks for the keys.
    kill(again)
    for process in of_services(again.state_dir):
        with contextlib.suppress(psutil.Error):
            process.kill()
    eventually(lambda: not of_services(again.state_dir))
    again = start_in_background(again.state_dir, settings=SETTINGS)
    after = Arm(again)
    assert after.score(blue).json()["word"] == "blue"
    assert after.get(blue)["properties"]["scoringUri"] == uri
    assert after.ask("DELETE", f"/onlineEndpoints/{blue}").status_code == 200
    assert after.ask("DELETE", f"/onlineEndpoints/{blue}").status_code == 204
    assert not list((again.state_dir / "webservices").glob(f"{blue}.*"))


def of_services(state: Path) -> list[psutil.Process]:
    """Processes that work in a service's directory."""
    return processes_of(str(state / "webservices"))
