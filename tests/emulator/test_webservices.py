"""Web services through the real SDK and plain HTTP."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from azureml_emulator import Endpoint, start_in_background
from tests.emulator.clients import Http, Sdk, SdkError, deploy_over_http, kill, processes_of
from tests.emulator.conftest import SETTINGS

SCRIPT = """\
import json, os, time

def init():
    print("init of", os.environ["SERVICE_NAME"])

def run(data):
    asked = json.loads(data)
    if asked == "sleep":
        time.sleep(30)
    return {"data": asked, "version": VERSION} if asked != "look" else look()

def look():
    root = os.environ["AML_APP_ROOT"]
    found = [os.path.relpath(os.path.join(at, name), root) for at, _, names in os.walk(root) for name in names]
    return {
        "files": sorted(name for name in found if not name.endswith(".pyc")),
        "here": os.path.relpath(os.getcwd(), root),
        "models": os.path.relpath(os.environ["AZUREML_MODEL_DIR"], root),
        "variables": dict(os.environ),
    }
"""
FIRST, SECOND = (f"VERSION = {number}\n{SCRIPT}" for number in (1, 2))
CRASH = "def init():\n    raise RuntimeError('no weights in here')\n\ndef run(data):\n    return 1\n"


def score(uri: str, key: str | None, data: str = "[1]", **headers: str) -> requests.Response:
    """Ask a service as a client without the SDK does."""
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    session = requests.Session()
    session.trust_env = False
    return session.post(uri, data=data, headers={"Content-Type": "application/json"} | headers, timeout=60)


def eventually(check: Callable[[], Any]) -> Any:
    """Wait until something is so; a hang fails."""
    end = time.monotonic() + 120
    while not (found := check()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def of_service(endpoint: Endpoint, name: str = "") -> list[psutil.Process]:
    """Processes that work in a service's directory."""
    return processes_of(str(endpoint.state_dir / "webservices" / name))


@pytest.fixture
def faults(emulator: Endpoint) -> Iterator[Endpoint]:
    """The emulator, whose faults are cleared afterwards."""
    yield emulator
    emulator.clear_faults()


@pytest.fixture(scope="module")
def standing(sdk: Sdk) -> dict[str, Any]:
    """A service that every test of this module may use: ``standing``, with the keys ``mine`` and ``second``."""
    model = sdk.register_files(name="served", files={"weights.bin": "w"})
    keys = {"auth_enabled": True, "primary_key": "mine", "secondary_key": "second"}
    tags = {"stage": "one"}
    made: dict[str, Any] = sdk.deploy(
        name="standing", script=FIRST, models=[model], variables={"MINE": "yes"}, tags=tags, **keys
    )
    assert "Succeeded" in sdk.output
    return made | {"model": model}


def test_a_service_is_found_and_answers(sdk: Sdk, standing: dict[str, Any]) -> None:
    assert (standing["state"], standing["kind"], standing["models"]) == ("Healthy", "ACI", [standing["model"]])
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/score", standing["uri"])
    assert standing["environment"] == "scoring"
    assert sdk.run_service(name="standing", data="[1, 2]") == {"data": [1, 2], "version": 1}
    assert "init of standing" in sdk.service_logs(name="standing")
    assert len(sdk.service_logs(name="standing", num_lines=1).splitlines()) == 1
    found: list[dict[str, Any]] = [
        {"tags": [["stage", "one"]]},
        {"tags": ["stage"]},
        {"model_name": "served"},
        {"model_id": standing["model"]},
        {"compute_type": "ACI"},
    ]
    for filters in found:
        assert "standing" in sdk.services(**filters)
    missed: list[dict[str, Any]] = [{"tags": [["stage", "two"]]}, {"model_name": "other"}, {"compute_type": "AKS"}]
    for filters in missed:
        assert "standing" not in sdk.services(**filters)
    changed = sdk.tag_service(name="standing", tags={"b": "2"}, properties={"p": "q"})
    assert changed["tags"] == {"stage": "one", "b": "2"}
    assert changed["properties"]["p"] == "q"
    with pytest.raises(SdkError, match="overwrite=True replaces it"):
        sdk.deploy(name="standing", script=FIRST)


def test_what_a_script_finds(standing: dict[str, Any]) -> None:
    found = score(standing["uri"], "mine", '"look"').json()
    name, _, version = standing["model"].partition(":")
    assert found["here"] == "."
    assert found["files"] == [f"azureml-models/{name}/{version}/weights.bin", "main.py", "src/score.py"]
    assert found["models"] == f"azureml-models/{name}/{version}"
    variables = found["variables"]
    assert variables["AZUREML_ENTRY_SCRIPT"] == "src/score.py"
    assert variables["AZUREML_SOURCE_DIRECTORY"] == "src"
    assert (variables["SERVICE_NAME"], variables["MINE"]) == ("standing", "yes")
    secrets = ("MSI_", "AZURE_", "APPSETTING", "AZUREML_RUN", "PYTEST")
    assert [variable for variable in variables if variable.startswith(secrets)] == []


def test_only_a_key_opens_it(sdk: Sdk, http: Http, standing: dict[str, Any]) -> None:
    uri = standing["uri"]
    assert sdk.service_keys(name="standing") == ["mine", "second"]
    for key in (None, "", "wrong", "minee"):
        assert score(uri, key).status_code == 401
    assert score(uri, None, Authorization="Basic mine").status_code == 401
    for key in ("mine", "second"):
        assert score(uri, key).json() == {"data": [1], "version": 1}
    base = f"/modelmanagement/v1.0{http.workspace}/services/standing"
    # By plain HTTP, for the SDK sleeps five seconds first.
    answer = http("POST", f"{base}/regenerateKeys", json={"keyType": "Secondary", "keyValue": None})
    assert answer.status_code == 202
    assert http("GET", answer.headers["Operation-Location"]).json()["state"] == "Succeeded"
    assert score(uri, "second").status_code == 401, "an old key is dead at once"
    primary, secondary = sdk.service_keys(name="standing")
    assert (primary, secondary != "second") == ("mine", True)
    assert score(uri, secondary).status_code == 200
    http("POST", f"{base}/regenerateKeys", json={"keyType": "Secondary", "keyValue": "chosen"})
    assert (score(uri, secondary).status_code, score(uri, "chosen").status_code) == (401, 200)
    # Health is open, the description is not, a page of another site gets nowhere.
    root = uri.removesuffix("/score")
    assert requests.get(root, timeout=60).text == "Healthy"
    assert requests.get(f"{root}/swagger.json", timeout=60).status_code == 401
    assert score(uri, primary, Origin="https://elsewhere.example").status_code == 403
    assert score(uri, primary, Host="elsewhere.example").status_code == 403
    assert score(uri, "wrong", data="x" * (1 << 20)).status_code == 401
    assert len(score(uri, primary, data=json.dumps(["x" * (1 << 20)])).json()["data"][0]) == 1 << 20
    # What the script says no to comes as it is.
    refused = score(uri, primary, data="no JSON")
    assert (refused.status_code, refused.headers["x-ms-run-function-failed"]) == (500, "True")
    sdk.update_service(name="standing", auth_enabled=False)
    assert score(uri, None).status_code == 200


def test_an_update_takes_over_when_it_is_healthy_and_not_before(
    sdk: Sdk, emulator: Endpoint, standing: dict[str, Any]
) -> None:
    uri = standing["uri"]
    sdk.update_service(name="standing", auth_enabled=False)
    with pytest.raises(SdkError, match=r"Failed(.|\n)*CrashLoopBackOff"):
        sdk.update_service(name="standing", script=CRASH)
    assert "no weights in here" in sdk.service_logs(name="standing")
    after = sdk.service_of(name="standing")
    assert (after["state"], after["uri"], after["error"]["code"]) == ("Healthy", uri, "AciDeploymentFailed")
    assert score(uri, None).json()["version"] == 1
    after = sdk.update_service(name="standing", script=SECOND)
    assert (after["state"], after["uri"], after["error"]) == ("Healthy", uri, None)
    assert [score(uri, None).json()["version"] for _ in range(4)] == [2] * 4
    contents = emulator.state_dir / "webservices" / "standing"
    eventually(lambda: len([path for path in contents.iterdir() if path.is_dir()]) == 1)


def test_the_end_of_a_service(sdk: Sdk, emulator: Endpoint, standing: dict[str, Any]) -> None:
    assert of_service(emulator, "standing")
    sdk.delete_service(name="standing")
    assert "No service with name standing found to delete" in sdk.output
    assert "standing" not in sdk.services()
    with pytest.raises(SdkError, match="WebserviceNotFound"):
        sdk.service_of(name="standing")
    assert of_service(emulator, "standing") == []
    with pytest.raises(requests.ConnectionError):
        score(standing["uri"], "mine")


def test_a_crash_in_init(sdk: Sdk, emulator: Endpoint) -> None:
    with pytest.raises(SdkError, match=r"current service state: Failed(.|\n)*init\(\) function") as failed:
        sdk.deploy(name="crashing", script=CRASH)
    assert "get_logs" in str(failed.value)
    found = sdk.service_of(name="crashing")
    assert (found["state"], found["uri"]) == ("Failed", None)
    assert "RuntimeError: no weights in here" in sdk.service_logs(name="crashing")
    with pytest.raises(SdkError, match="scoring_uri unavailable"):
        sdk.run_service(name="crashing", data="[]")
    eventually(lambda: not of_service(emulator, "crashing"))


def test_faults_of_services(sdk: Sdk, faults: Endpoint, tmp_path: Path) -> None:
    faults.set_faults(crashing_services=True)
    with pytest.raises(SdkError, match="CrashLoopBackOff"):
        sdk.deploy(name="faulty", script=FIRST)
    assert "told to have services crash" in sdk.service_logs(name="faulty")
    faults.set_faults(unhealthy_services=0.5)
    with pytest.raises(SdkError, match=r"Unhealthy(.|\n)*DeploymentTimedOut"):
        sdk.deploy(name="faulty", script=FIRST, overwrite=True)
    assert sdk.service_of(name="faulty")["state"] == "Unhealthy"
    eventually(lambda: not of_service(faults, "faulty"))
    # The last one with two models and no source directory, which lie elsewhere.
    one = sdk.register_files(name="one-file", files={"weights.bin": "w"})
    two = sdk.register_files(name="a-folder", files={"a.txt": "a", "b.txt": "b"})
    faults.set_faults(slow_services=0.5)
    go = tmp_path / "go"
    waits = f"{FIRST}\ninit_at_once = init\n\ndef init():\n    while not os.path.exists({str(go)!r}):\n"
    waits += "        time.sleep(0.05)\n    init_at_once()\n"
    made = sdk.deploy(name="faulty", script=waits, models=[one, two], source=False, overwrite=True, wait=False)
    assert made["state"] == "Transitioning"
    with pytest.raises(SdkError, match="changed already"):
        sdk.deploy(name="faulty", script=SECOND, overwrite=True)
    go.touch()
    made = sdk.wait_for_service(name="faulty")
    assert made["state"] == "Healthy"
    found = score(made["uri"], None, '"look"').json()
    assert found["models"] == "azureml-models"
    assert f"azureml-models/a-folder/{two[-1]}/artifacts/a.txt" in found["files"]
    assert f"azureml-models/one-file/{one[-1]}/weights.bin" in found["files"]
    assert "score.py" in found["files"]


def test_aks_with_tokens(sdk: Sdk, faults: Endpoint) -> None:
    made = sdk.deploy(
        name="on-aks",
        script=SECOND,
        kind="aks",
        compute_target_name="cluster",
        auth_enabled=False,
        token_auth_enabled=True,
        num_replicas=2,
        scoring_timeout_ms=3000,
    )
    assert (made["state"], made["kind"]) == ("Healthy", "AKS")
    token, kind = sdk.service_token(name="on-aks")
    assert (kind, score(made["uri"], token).status_code) == ("Bearer", 200)
    for key in (None, sdk.service_keys(name="on-aks")[0]):
        assert score(made["uri"], key).status_code == 401
    assert sdk.run_service(name="on-aks", data="[]")["version"] == 2
    assert "Scoring timeout after 3000 ms" in score(made["uri"], token, '"sleep"').text
    faults.set_faults(expired_tokens=True)
    assert score(made["uri"], sdk.service_token(name="on-aks")[0]).status_code == 401
    sdk.update_service(name="on-aks", token_auth_enabled=False, auth_enabled=True)
    assert score(made["uri"], token).status_code == 401
    assert score(made["uri"], sdk.service_keys(name="on-aks")[0]).status_code == 200
    assert sdk.services(compute_type="AKS") == ["on-aks"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"computeType": "MIR"}, "MIR services"),
    ({"computeType": "AKSENDPOINT"}, "AKS endpoints"),
    ({"computeType": "IOT"}, "compute type 'IOT'"),
    ({"name": "../../up"}, "no name of a service"),
    ({"name": "No"}, "no name of a service"),
    ({"sslEnabled": True, "cname": "a.b"}, "TLS"),
    ({"appInsightsEnabled": True}, "Application Insights"),
    ({"dataCollection": {"storageEnabled": True}}, "collecting"),
    ({"dnsNameLabel": "label"}, "DNS"),
    ({"encryptionProperties": {"keyName": "k"}}, "customer-managed"),
    ({"vnetConfiguration": {"vnetName": "v"}}, "virtual networks"),
    ({"imageId": "x:1"}, "images"),
    ({"somethingNew": 1}, "somethingNew"),
    ({"computeType": "AKS", "computeName": "c", "containerResourceRequirements": {"gpu": 1}}, "GPUs"),
    ({"computeType": "AKS"}, "name of a cluster"),
    ({"computeType": "AKS", "computeName": "c", "aadAuthEnabled": True, "authEnabled": True}, "not for both"),
    ({"keys": {"primaryKey": "a b"}}, "printable"),
    ({"description": "\ud800"}, "Unicode"),
    ({"kvTags": [1]}, "kvTags must be an object"),
    ({"environmentImageRequest": {"modelIds": ["m:1"]}}, "no-code"),
    ({"environmentImageRequest": {"driverProgram": "a.py", "assets": []}}, "without an environment"),
    ({"environmentImageRequest": {"environment": {"docker": {"platform": {"os": "Windows"}}}}}, "Linux"),
    ({"environmentImageRequest": {"environment": {"environmentVariables": {"AZUREML_ENTRY_SCRIPT": "../x"}}}}, "path"),
    ({"environmentImageRequest": {"environment": {"name": "e"}, "modelIds": ["missing:1"]}}, "missing:1 not found"),
    (
        {"environmentImageRequest": {"environment": {"name": "e"}, "assets": [{"id": "a", "url": "https://x/y"}]}},
        "has not been uploaded",
    ),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED)
def test_what_is_not_emulated_is_refused(http: Http, change: dict[str, Any], reason: str) -> None:
    body = {"name": "refused", "computeType": "ACI", "environmentImageRequest": {"environment": {"name": "e"}}} | change
    base = f"/modelmanagement/v1.0{http.workspace}/services"
    answer = http("POST", base, json=body)
    assert answer.status_code == 400
    assert reason in answer.json()["message"]
    # The SDK asks first, and shows this.
    asked = {"type": "Create", "serviceName": "refused", "createRequest": body, "updateRequest": None}
    assert reason in http("POST", f"{base}/validate", json=asked).json()["error"]["message"]
    assert "refused" not in str(http("GET", base).json())


def test_other_ways_to_deploy_are_refused(http: Http) -> None:
    base = f"/modelmanagement/v1.0{http.workspace}"
    for route in ("images", "packages", "profiles"):
        answer = http("POST", f"{base}/{route}", json={})
        assert (answer.status_code, answer.json()["code"]) == (400, "NotEmulated")
    assert http("GET", f"{base}/services?imageName=x").status_code == 400
    assert http("DELETE", f"{base}/services/nothing").status_code == 204
    for route in ("services/nothing", "services/nothing/logs", "operations/nothing"):
        assert http("GET", f"{base}/{route}").status_code == 404
    assert http("GET", f"{base}/services", token=None).status_code == 401


def test_a_service_outlives_its_emulator_but_not_the_end_of_it(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"service_idle": 2.0})
    endpoint = start_in_background(tmp_path / "state", settings=SETTINGS)
    http = Http(endpoint)
    base = f"/modelmanagement/v1.0{http.workspace}/services/lasting"
    try:
        deploy_over_http(http, "lasting", FIRST)
        uri = http("GET", base).json()["scoringUri"]
        key = http("POST", f"{base}/listkeys").json()["primaryKey"]
        processes = {process.pid for process in of_service(endpoint)}
        kill(endpoint)
        assert score(uri, key).status_code == 200
        assert score(uri, "wrong").status_code == 401
        endpoint = start_in_background(tmp_path / "state", settings=settings)
        assert http("GET", base).json()["scoringUri"] == uri
        assert {process.pid for process in of_service(endpoint)} == processes, "it was found, not started again"

        def wakes() -> bool:
            # On a busy machine it may have fallen asleep again by the time of the question.
            http("POST", f"{base}/listkeys")
            try:
                return score(uri, key).status_code == 200
            except requests.ConnectionError:
                return False

        # One that dies is started again, where it was.
        for process in of_service(endpoint):
            with contextlib.suppress(psutil.NoSuchProcess):  # each ends with its parent
                process.kill()
        eventually(lambda: not {process.pid for process in of_service(endpoint)} & processes)
        eventually(wakes)
        assert http("GET", base).json()["state"] == "Healthy"
        # One that nobody asks ends, and is there again for whoever asks for its keys.
        eventually(lambda: not of_service(endpoint))
        eventually(wakes)
    finally:
        endpoint.stop(kill_jobs=True)
    assert of_service(endpoint) == []
