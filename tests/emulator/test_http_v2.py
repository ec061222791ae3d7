"""SDK v2's routes over plain HTTP: what a client of the storage and of ARM may do, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
import requests

from azureml_emulator import Emulator, Endpoint, FaultAction, FaultRule, Settings, start_in_background
from tests.emulator.clients import Http

SETTINGS = Settings(phase_duration=0.0, cancel_grace=2.0)


class Client(Http):
    """ARM's routes, and a container's."""

    def arm(
        self, method: str, path: str, properties: dict[str, Any] | None = None, **options: Any
    ) -> requests.Response:
        body = {} if properties is None else {"json": {"properties": properties}}
        return self(method, f"{self.workspace}/{path}", **body, **options)

    def blob(self, method: str, url: str, name: str = "", query: str = "", **options: Any) -> requests.Response:
        base, _, signature = url.partition("?")
        return self(method, f"{base}{name}?{query}{signature}", token=None, **options)

    def new_container(self) -> str:
        answer = self.arm("POST", "codes/c/versions/1/startPendingUpload", None, json={"pendingUploadType": UPLOAD})
        url: str = answer.json()["blobReferenceForConsumption"]["credential"]["sasUri"]
        return url

    def prepare(self) -> None:
        spec = {"vmSize": "STANDARD_DS3_V2", "scaleSettings": {"maxNodeCount": 2}}
        self.arm("PUT", "computes/cpu", {"computeType": "AmlCompute", "properties": spec})
        self.arm("PUT", "environments/e/versions/1", {"image": "i"})

    def job(self, **changes: Any) -> dict[str, Any]:
        return {
            "jobType": "Command",
            "command": "true",
            "environmentId": f"{self.workspace}/environments/e/versions/1",
            "computeId": f"{self.workspace}/computes/cpu",
            **changes,
        }

    def status(self, name: str) -> str:
        found: str = self.arm("GET", f"jobs/{name}").json()["properties"]["status"]
        return found

    def wait(self, name: str, *statuses: str) -> str:
        wanted = statuses or ("Completed", "Failed", "Canceled")
        limit = time.monotonic() + 120
        while (status := self.status(name)) not in wanted:
            assert time.monotonic() < limit, status
            time.sleep(0.05)
        return status


STORE = "azureml://datastores/workspaceblobstore/paths"
UPLOAD = "TemporaryBlobReference"
BLOCK = {"x-ms-blob-type": "BlockBlob"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Emulator(tmp_path_factory.mktemp("state"), settings=SETTINGS) as endpoint:
        client = Client(endpoint)
        client.prepare()
        yield client


# Storage


def test_a_blob_is_written_once_unless_it_may_be_replaced(client: Client) -> None:
    url = client.new_container()
    once = BLOCK | {"If-None-Match": "*"}
    assert client.blob("HEAD", url, "/f/a").status_code == 404
    assert client.blob("PUT", url, "/f/a", headers=once, data=b"one").status_code == 201
    refused = client.blob("PUT", url, "/f/a", headers=once, data=b"two")
    assert (refused.status_code, refused.headers["x-ms-error-code"]) == (409, "BlobAlreadyExists")
    assert client.blob("PUT", url, "/f/a", headers=BLOCK, data=b"three").status_code == 201
    assert client.blob("GET", url, "/f/a").content == b"three"
    etag = client.blob("HEAD", url, "/f/a").headers["ETag"]
    assert client.blob("GET", url, "/f/a", headers={"If-Match": etag, "x-ms-range": "bytes=1-2"}).content == b"hr"
    assert client.blob("GET", url, "/f/a", headers={"If-Match": '"other"'}).status_code == 412


def test_content_is_checked_and_metadata_kept(client: Client) -> None:
    url = client.new_container()
    digest = b64encode(md5(b"one").digest()).decode()
    wrong = client.blob("PUT", url, "/a", headers=BLOCK | {"Content-MD5": digest}, data=b"two")
    assert wrong.headers["x-ms-error-code"] == "Md5Mismatch"
    assert client.blob("HEAD", url, "/a").status_code == 404
    assert client.blob("PUT", url, "/a", headers=BLOCK | {"Content-MD5": digest}, data=b"one").status_code == 201
    done = {"x-ms-meta-upload_status": "completed", "x-ms-meta-name": "n"}
    assert client.blob("PUT", url, "/a", "comp=metadata&", headers=done).status_code == 200
    assert client.blob("HEAD", url, "/a").headers["x-ms-meta-upload_status"] == "completed"
    assert client.blob("PUT", url, "/a", "comp=metadata&", headers={"x-ms-meta-a-b": "x"}).status_code == 400
    assert client.blob("PUT", url, "/b", "comp=metadata&", headers=done).status_code == 404


def test_lists_have_prefixes_folders_and_pages(client: Client) -> None:
    url = client.new_container()
    for name in ("f/a b é.txt", "f/b", "f/deep/c", "g"):
        assert client.blob("PUT", url, f"/{name}", headers=BLOCK, data=b"x").status_code == 201

    def listed(query: str) -> tuple[list[str], list[str], str]:
        answer = client.blob("GET", url, "", f"restype=container&comp=list&{query}&")
        assert answer.status_code == 200, answer.text
        root = ElementTree.fromstring(answer.content)
        names = [element.text or "" for element in root.findall("Blobs/Blob/Name")]
        folders = [element.text or "" for element in root.findall("Blobs/BlobPrefix/Name")]
        return names, folders, root.findtext("NextMarker") or ""

    assert listed("prefix=f/") == (["f/a b é.txt", "f/b", "f/deep/c"], [], "")
    assert listed("prefix=f/&delimiter=/") == (["f/a b é.txt", "f/b"], ["f/deep/"], "")
    names, _, marker = listed("maxresults=3")
    assert (names, marker) == (["f/a b é.txt", "f/b", "f/deep/c"], "g")
    assert listed(f"maxresults=3&marker={marker}") == (["g"], [], "")
    assert client.blob("GET", url, "", "restype=container&").status_code == 501


def test_a_signature_opens_one_container(client: Client) -> None:
    first, second = client.new_container(), client.new_container()
    signature = first.partition("?")[2]
    other = f"{second.partition('?')[0]}?{signature}"
    for url in (
        other,
        first.replace("sp=racwl", "sp=racwdl"),
        first.partition("?")[0] + "?",
        first.replace("sr=c", "sr=b"),
    ):
        assert client.blob("PUT", url, "/a", headers=BLOCK, data=b"x").status_code == 403
        assert client.blob("GET", url, "", "restype=container&comp=list&").status_code == 403
    token = client.arm("POST", "datastores/workspaceblobstore/listSecrets", None, json={}).json()["sasToken"]
    assert (
        client.blob("GET", f"{client.endpoint.url}/azureml?{token}", "", "restype=container&comp=list&").status_code
        == 403
    )
    assert client.blob("PUT", first, "/..%2F..%2Fa", headers=BLOCK, data=b"x").status_code == 400
    assert client.blob("PUT", first, "/folder/", headers=BLOCK, data=b"x").status_code == 400
    gone = first.replace("-", "-", 1).split("?")[0][:-1] + "0?" + signature
    assert client.blob("GET", gone, "/a").status_code in (403, 404)


def test_a_file_of_a_run_has_a_signature_of_its_own(client: Client) -> None:
    client.arm("PUT", "jobs/files", client.job(command="echo a > outputs/a; echo b > outputs/b"))
    assert client.wait("files") == "Completed"
    history = f"/history/v1.0{client.workspace}/experiments/Default/runs/files/artifacts"
    link = client("GET", f"{history}/contentinfo?path=outputs/a").json()["contentUri"]
    plain = "https://" + link.partition("@")[2]
    assert client("GET", plain, token=None).content == b"a\n"
    assert client("GET", plain.replace("outputs/a", "outputs/b"), token=None).status_code == 403
    assert sorted(item["path"] for item in client("GET", history).json()["value"]) == [
        "outputs/a",
        "outputs/b",
        "user_logs/std_log.txt",
    ]


def test_the_answer_to_an_upload_is_lost(client: Client) -> None:
    url = client.new_container()
    # As of an upload of code, and of none of ARM's routes.
    client.endpoint.set_faults(rules=[FaultRule(route="PUT /????????-*/*", action=FaultAction.DROP_ANSWER, times=1)])
    once = BLOCK | {"If-None-Match": "*"}
    with pytest.raises(requests.ConnectionError):
        client.blob("PUT", url, "/f/a", headers=once, data=b"x")
    # What azure-storage-blob does next, and what it then takes for somebody else's blob.
    assert client.blob("PUT", url, "/f/a", headers=once, data=b"x").status_code == 409
    assert client.blob("GET", url, "/f/a").content == b"x"
    client.endpoint.clear_faults()


# ARM


def test_a_list_has_what_its_view_is_of(client: Client) -> None:
    for version, archived in (("1", True), ("2", False)):
        made = client.arm("PUT", f"environments/viewed/versions/{version}", {"image": "i", "isArchived": archived})
        assert made.status_code == 201
    client.arm("PUT", "environments/put-away/versions/1", {"image": "i", "isArchived": True})

    def listed(path: str, view: str) -> list[str]:
        answer = client.arm("GET", f"{path}?listViewType={view}")
        assert answer.status_code == 200, answer.text
        return [each["name"] for each in answer.json()["value"]]

    versions = "environments/viewed/versions"
    views = {view: listed(versions, view) for view in ("ActiveOnly", "ArchivedOnly", "All")}
    assert views == {"ActiveOnly": ["2"], "ArchivedOnly": ["1"], "All": ["2", "1"]}
    assert "put-away" in listed("environments", "ArchivedOnly")
    assert "put-away" not in listed("environments", "ActiveOnly")
    for path in ("jobs", versions, "environments"):
        assert client.arm("GET", f"{path}?listViewType=Some").status_code == 400


def test_run_tokens_open_no_arm(client: Client) -> None:
    from azureml_emulator.tokens import Scope

    token = client.authority.issue(Scope.RUN, 60, run_id="files")
    for path in ("jobs", "datastores", "models", "computes", "environments"):
        assert client("GET", f"{client.workspace}/{path}", token=token).status_code == 403
        assert client("GET", f"{client.workspace}/{path}", token=None).status_code == 401


def test_a_service_principal_signs_in_by_variables_alone(client: Client) -> None:
    given = client.endpoint.service_principal()
    form = {
        "grant_type": "client_credentials",
        "client_id": given["AZURE_CLIENT_ID"],
        "client_secret": given["AZURE_CLIENT_SECRET"],
        "scope": f"{client.endpoint.url}/.default",
    }
    described = client("GET", "/adfs/.well-known/openid-configuration", token=None).json()
    for wrong in ({"client_secret": "x"}, {"client_id": "x"}, {"grant_type": "password"}):
        answer = client("POST", described["token_endpoint"], token=None, data=form | wrong)
        assert answer.status_code in (400, 401)
        assert given["AZURE_CLIENT_SECRET"] not in answer.text
    program = (
        "import os, azure.identity as ways;"
        "print(ways.EnvironmentCredential().get_token(os.environ['AZURE_AUTHORITY_HOST'] + '/.default').token)"
    )
    environment = {"PATH": os.environ["PATH"], "REQUESTS_CA_BUNDLE": str(client.endpoint.ca_bundle), **given}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    answer = client("GET", f"{client.workspace}/computes?api-version=2023-08-01-preview", token=ran.stdout.strip())
    assert answer.status_code == 200


def test_code_is_what_was_uploaded(client: Client) -> None:
    url = client.new_container()
    base = url.partition("?")[0]
    client.blob("PUT", url, "/src/run.sh", headers=BLOCK, data=b"echo from code")
    properties = {"codeUri": f"{base}/src", "isAnonymous": True, "properties": {"hash_sha256": "h1"}}
    for status in (201, 200):
        assert client.arm("PUT", "codes/c1/versions/1", properties).status_code == status
    assert client.arm("PUT", "codes/c1/versions/1", properties | {"codeUri": f"{base}/other"}).status_code == 400
    assert client.arm("PUT", "codes/c2/versions/1", properties | {"codeUri": f"{base}/nothing"}).status_code == 400
    assert (
        client.arm("PUT", "codes/c2/versions/1", properties | {"codeUri": "https://example.org/x"}).status_code == 400
    )
    # Under another name, by its hash.
    found = client.arm("GET", "codes/fresh/versions?hash=h1&hashVersion=202208").json()["value"]
    assert [item["id"] for item in found] == [f"{client.workspace}/codes/c1/versions/1"]
    job = client.job(codeId=found[0]["id"], command="bash run.sh")
    assert client.arm("PUT", "jobs/with-code", job).status_code == 201
    assert client.wait("with-code") == "Completed"


def test_a_job_put_again_is_the_same_job(client: Client) -> None:
    job = client.job(tags={"a": "1"})
    assert client.arm("PUT", "jobs/again", job).status_code == 201
    again = client.arm("PUT", "jobs/again", job | {"tags": {"b": "2"}, "displayName": "shown"})
    assert again.status_code == 200
    assert again.json()["properties"]["tags"] == {"a": "1", "b": "2"}
    assert client.arm("PUT", "jobs/again", job | {"command": "false"}).status_code == 400
    assert client.wait("again") == "Completed"
    names = [item["name"] for item in client.arm("GET", "jobs").json()["value"]]
    assert names.count("again") == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"services": {"vs": {"jobServiceType": "VSCode"}}}, "services: is not emulated"),
        ({"queueSettings": {"jobTier": "Spot"}}, "queueSettings: is not emulated"),
        ({"distribution": {"distributionType": "TensorFlow"}}, "distribution"),
        ({"identity": {"identityType": "UserIdentity"}}, "identity"),
        ({"limits": {"timeout": "ten minutes"}}, "ISO 8601"),
        ({"command": "echo ${{inputs.nothing}}"}, "inputs.nothing"),
        ({"command": "echo $[[--x ${{inputs.x}}]]"}, "Optional parts"),
        ({"resources": {"instanceCount": 2}}, "needs a distribution"),
        ({"outputs": {"o": {"jobOutputType": "mltable"}}}, "jobOutputType"),
        ({"inputs": {"i": {"jobInputType": "mltable", "uri": "x"}}}, "mltable is not emulated"),
        ({"inputs": {"i": {"jobInputType": "uri_file", "uri": "wasbs://x"}}}, "reads azureml:// addresses"),
        ({"inputs": {"i": {"jobInputType": "uri_file", "uri": f"{STORE}/no"}}}, "nothing"),
        ({"computeId": None}, "serverless"),
        ({"jobType": "Pipeline"}, "Pipeline are not emulated"),
        ({"jobType": "Sweep"}, "trial"),
    ],
)  # fmt: skip
def test_what_is_not_emulated_is_refused_with_a_reason(client: Client, change: dict[str, Any], reason: str) -> None:
    answer = client.arm("PUT", "jobs/strict", client.job(**change))
    assert answer.status_code == 400
    assert reason in answer.json()["error"]["message"], answer.text
    assert client.arm("GET", "jobs/strict").status_code == 404


@pytest.mark.parametrize(
    "path", ["jobs?$filter=x", "models/m/versions?$orderBy=name", "datastores?x=1", "codes/c/versions?y=1"]
)
def test_queries_that_are_not_emulated_are_refused(client: Client, path: str) -> None:
    assert client.arm("GET", path).status_code == 400


def test_what_a_job_refers_to_must_be_there(client: Client) -> None:
    for change in (
        {"environmentId": f"{client.workspace}/environments/none/versions/1"},
        {"codeId": f"{client.workspace}/codes/none/versions/1"},
    ):
        assert client.arm("PUT", "jobs/refers", client.job(**change)).status_code == 404
    unknown = client.arm("PUT", "jobs/refers", client.job(computeId=f"{client.workspace}/computes/none"))
    assert "ComputeTargetNotFound" in unknown.text
    for run in ("../up", "a/b", "x" * 300):
        assert client.arm("PUT", f"jobs/{run}", client.job()).status_code in (400, 404, 501)


def test_a_model_s_files_and_version_are_fixed(client: Client) -> None:
    client.arm("PUT", "jobs/makes", client.job(command="echo a > outputs/a; echo b > outputs/b"))
    assert client.wait("makes") == "Completed"
    files = "azureml://jobs/makes/outputs/artifacts/paths/outputs"
    for status in (201, 200):
        assert client.arm("PUT", "models/m/versions/1", {"modelUri": f"{files}/a"}).status_code == status
    changed = client.arm("PUT", "models/m/versions/1", {"modelUri": f"{files}/b"})
    assert changed.json()["error"] == {"code": "UserError", "message": "Asset paths cannot be updated."}
    assert client.arm("PUT", "models/m/versions/2024-a", {"modelUri": f"{files}/a"}).status_code == 400
    assert client.arm("PUT", "models/m/versions/7", {"modelUri": f"{files}/b"}).status_code == 201
    assert client.arm("GET", "models/m").json()["properties"]["nextVersion"] == "8"
    uri = client.arm("GET", "models/m/versions/1").json()["properties"]["modelUri"]
    assert uri.endswith("/datastores/workspaceartifactstore/paths/ExperimentRun/dcid.makes/outputs/a")
    # As the input of a job: the next one evaluates it.
    model = {"jobInputType": "custom_model", "uri": f"{client.workspace}/models/m/versions/1"}
    client.arm("PUT", "jobs/reads", client.job(command="test $(cat ${{inputs.m}}/a) = a", inputs={"m": model}))
    assert client.wait("reads") == "Completed"


def test_metrics_that_are_sent_twice_count_once(client: Client) -> None:
    client.arm("PUT", "jobs/metrics", client.job())
    base = f"/mlflow/v1.0{client.workspace}/api/2.0/mlflow"
    point = {"run_id": "metrics", "key": "M", "value": 0.5, "timestamp": 1000, "step": 1}
    for _ in range(2):
        assert client("POST", f"{base}/runs/log-metric", json=point).status_code == 200
    odd = [{"key": "M", "value": value, "timestamp": 2000, "step": 2} for value in ("NaN", "Infinity")]
    assert client("POST", f"{base}/runs/log-batch", json={"run_id": "metrics", "metrics": odd}).status_code == 200
    history = client("GET", f"{base}/metrics/get-history?run_id=metrics&metric_key=M").json()["metrics"]
    assert [(item["step"], item["value"]) for item in history] == [(1, 0.5), (2, "NaN"), (2, "Infinity")]
    for value, status in (("1", 200), ("1", 200), ("2", 400)):
        parameter = {"run_id": "metrics", "key": "p", "value": value}
        assert client("POST", f"{base}/runs/log-parameter", json=parameter).status_code == status
    experiment = client("GET", f"{base}/experiments/get-by-name?experiment_name=Default").json()["experiment"]
    search = {"experiment_ids": [experiment["experiment_id"]], "max_results": 1}
    found = client("POST", f"{base}/runs/search", json=search).json()["runs"]
    assert [run["info"]["run_id"] for run in found] == ["metrics"]
    assert client("POST", f"{base}/runs/search", json=search | {"filter": "metrics.M > 0"}).status_code == 400
    missing = client("GET", f"{base}/experiments/get-by-name?experiment_name=none")
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert client("POST", f"{base}/runs/log-metric", json=point | {"more": 1}).status_code == 400


# The emulator's end


def test_a_job_goes_on_while_there_is_no_emulator(tmp_path: Path) -> None:
    endpoint: Endpoint = start_in_background(tmp_path / "state", settings=SETTINGS)
    client = Client(endpoint)
    client.prepare()
    line = "echo started; while [ ! -e $FLAG ]; do sleep 0.1; done; echo done > ${{outputs.o}}/o.txt"
    variables = {"FLAG": str(tmp_path / "flag")}
    job = client.job(command=line, environmentVariables=variables, outputs={"o": {"jobOutputType": "uri_folder"}})
    client.arm("PUT", "jobs/survivor", job)
    client.wait("survivor", "Running")
    os.kill(endpoint.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(endpoint.pid)] if psutil.pid_exists(endpoint.pid) else [], timeout=60)
    (tmp_path / "flag").touch()
    again = Client(start_in_background(tmp_path / "state", settings=SETTINGS))
    try:
        assert again.arm("PUT", "jobs/survivor", job).status_code == 200
        assert again.wait("survivor") == "Completed"
        secret = again.arm("POST", "datastores/workspaceblobstore/listSecrets", None, json={}).json()["sasToken"]
        container = again.arm("GET", "datastores/workspaceblobstore").json()["properties"]["containerName"]
        url = f"{again.endpoint.url}/{container}?{secret}"
        assert again.blob("GET", url, "/azureml/survivor/o/o.txt").content == b"done\n"
    finally:
        again.endpoint.stop(kill_jobs=True)
