"""The service's edges over plain HTTP: sign-in, strictness, blobs, faults."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

import pytest
import requests

from azureml_emulator import Emulator, EmulatorError, Endpoint, FaultAction, FaultRule, Faults, Settings
from azureml_emulator.tokens import Scope, TokenAuthority
from tests.emulator.clients import Http

EXPERIMENT = "/history/v1.0{}/experiments/e"


@pytest.fixture(autouse=True)
def no_faults_left(emulator: Endpoint) -> Iterator[None]:
    """Faults of one test are not the next one's."""
    yield
    emulator.clear_faults()
    emulator.clear_requests()


# Sign-in


def test_no_token_is_401(http: Http) -> None:
    assert http("GET", http.workspace, token=None).status_code == 401


def test_a_token_of_another_key_is_401(http: Http) -> None:
    forged = TokenAuthority(b"another key that is long enough!").issue(Scope.USER, 60)
    assert http("GET", http.workspace, token=forged).status_code == 401


def test_an_expired_token_is_401(http: Http) -> None:
    assert http("GET", http.workspace, token=http.authority.issue(Scope.USER, -1)).status_code == 401


def test_an_unsigned_token_is_401(http: Http) -> None:
    header, body, _ = http.endpoint.token().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    for token in (f"{none}.{body}.", f"{header}.{body}.", "garbage"):
        assert http("GET", http.workspace, token=token).status_code == 401


def test_a_run_token_is_for_the_data_plane_only(http: Http) -> None:
    token = http.authority.issue(Scope.RUN, 60, run_id="r")
    assert http("POST", EXPERIMENT.format(http.workspace), token=token).status_code == 200
    assert http("GET", http.workspace, token=token).status_code == 403
    assert http("GET", "/_emulator/faults", token=token).status_code == 403


def test_a_user_token_is_not_an_admin_token(http: Http) -> None:
    assert http("GET", "/_emulator/faults").status_code == 403
    assert http("GET", "/_emulator/faults", admin=True).status_code == 200


def test_the_managed_identity_needs_its_secret(http: Http) -> None:
    url, secret = http.endpoint.token_url, http.endpoint.token_secret
    assert secret not in url
    for path in (url, f"{url}/?resource=https://management.core.windows.net/&api-version=2017-09-01"):
        answer = http("GET", path, token=None, headers={"secret": secret})
        assert http("GET", http.workspace, token=answer.json()["access_token"]).status_code == 200
    for headers in ({}, {"Metadata": "true"}, {"secret": ""}, {"secret": secret[:-1]}, {"secret": "é"}):
        assert http("GET", url, token=None, headers=_latin(headers)).status_code == 401
        assert http("GET", f"{url}?secret={secret}", token=None, headers=_latin(headers)).status_code == 401


def _latin(headers: dict[str, str]) -> dict[str, bytes]:
    return {name: value.encode("latin-1") for name, value in headers.items()}


def test_another_workspace_is_404(http: Http) -> None:
    assert http("GET", http.workspace + "-other").status_code == 404


def test_the_certificate_is_for_loopback_only(http: Http) -> None:
    from cryptography import x509

    ca = x509.load_pem_x509_certificate(http.endpoint.ca.read_bytes())
    constraints = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert {str(name.value) for name in constraints.value.permitted_subtrees or []} == {
        "127.0.0.0/8",
        "::1/128",
        "localhost",
    }
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(http.endpoint.url, timeout=600, verify=requests.certs.where())


# Strictness


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing/here"), ("DELETE", "/subscriptions")])
def test_an_unknown_route_is_501_and_recorded(http: Http, method: str, path: str) -> None:
    answer = http(method, path)
    assert answer.status_code == 501
    assert f"{method} {path}" in answer.json()["error"]["message"]
    assert [(item.method, item.path) for item in http.endpoint.unknown_requests()] == [(method, path)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/experiments/e/runs:query", {"filter": "(Nonsense eq 1)"}),
        ("/experiments/e/runs:query", {"filter": "Status like x"}),
        ("/experiments/e/runs:query", {"filter": "(Status eq x"}),
        ("/experiments/e/runs:query", {"orderby": "Nonsense desc"}),
        ("/experiments/e/runs:query", {"continuationToken": "x"}),
        ("/experiments/e/runs:query", {"top": "many"}),
        ("/experiments:query", {"filter": "Name eq x"}),
    ],
)
def test_a_query_that_is_not_understood_is_400(http: Http, path: str, body: dict[str, object]) -> None:
    base = f"/history/v1.0{http.workspace}"
    http("POST", f"{base}/experiments/e")
    answer = http("POST", base + path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"communicator": "ParameterServer"},
        {"framework": "PySpark"},
        {"nodeCount": 2},
        {"nodeCount": 0},
        {"script": None},
        {"target": "nowhere"},
        {"maxRunDurationSeconds": "long"},
    ],
)
def test_a_job_that_can_t_run_here_is_400(http: Http, change: dict[str, object]) -> None:
    configuration = {"script": "train.py", "target": "nowhere", "nodeCount": 1} | change
    url = f"/execution/v1.0{http.workspace}/experiments/e/snapshotrun?runId=r1"
    answer = http("POST", url, json={"Configuration": configuration, "SnapshotId": "0"})
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "", "."])
def test_names_can_t_leave_their_container(http: Http, path: str) -> None:
    url = f"/artifact/v2.0{http.workspace}/artifacts/batch/metadata/ExperimentRun/c"
    assert http("POST", url, json={"paths": [{"path": path}]}).status_code == 400
    url = f"/content/v2.0{http.workspace}/snapshots/getblob"
    assert http("POST", url, json={"FileNames": [path]}).status_code == 400


# Blobs


@pytest.fixture
def urls(http: Http) -> tuple[str, str]:
    """Write URL and key of a new blob."""
    url = f"/artifact/v2.0{http.workspace}/artifacts/batch/metadata/LocalUpload/c"
    name = f"f{time.monotonic_ns()}"
    answer = http("POST", url, json={"paths": [{"path": name}]}).json()
    write = answer["artifactContentInformation"][name]["contentUri"].replace("emu.blob.local@", "")
    return write, name


def test_put_and_get(http: Http, urls: tuple[str, str]) -> None:
    url, _ = urls
    put = http("PUT", url, token=None, data=b"0123456789", headers={"If-None-Match": "*"})
    assert put.status_code == 201
    assert put.headers["ETag"]
    head = http("HEAD", url, token=None)
    assert head.headers["Content-Length"] == "10"
    assert head.headers["x-ms-blob-type"] == "BlockBlob"
    assert http("GET", url, token=None).content == b"0123456789"
    for header in ("Range", "x-ms-range"):
        part = http("GET", url, token=None, headers={header: "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"234")
        assert part.headers["Content-Range"] == "bytes 2-4/10"
    assert http("GET", url, token=None, headers={"Range": "bytes=8-99"}).content == b"89"
    assert http("GET", url, token=None, headers={"Range": "bytes=10-11"}).status_code == 416
    again = http("PUT", url, token=None, data=b"other", headers={"If-None-Match": "*"})
    assert (again.status_code, again.headers["x-ms-error-code"]) == (409, "BlobAlreadyExists")
    assert http("GET", url, token=None).content == b"0123456789"


def test_blocks(http: Http, urls: tuple[str, str]) -> None:
    url, _ = urls
    for block, data in (("QQ==", b"first "), ("Qg==", b"second")):
        assert http("PUT", f"{url}&comp=block&blockid={block}", token=None, data=data).status_code == 201
    assert http("GET", url, token=None).status_code == 404
    missing = "<BlockList><Latest>QQ==</Latest><Latest>Qw==</Latest></BlockList>"
    assert http("PUT", f"{url}&comp=blocklist", token=None, data=missing).status_code == 400
    blocks = "<?xml version='1.0'?><BlockList><Latest>Qg==</Latest><Latest>QQ==</Latest></BlockList>"
    assert http("PUT", f"{url}&comp=blocklist", token=None, data=blocks).status_code == 201
    assert http("GET", url, token=None).content == b"secondfirst "
    evil = '<!DOCTYPE x [<!ENTITY a "b">]><BlockList><Latest>&a;</Latest></BlockList>'
    assert http("PUT", f"{url}&comp=blocklist", token=None, data=evil).status_code == 400
    assert http("PUT", f"{url}&comp=blocklist", token=None, data="<BlockList>").status_code == 400


def test_appending(http: Http, urls: tuple[str, str]) -> None:
    url, _ = urls
    assert http("PUT", url, token=None, headers={"x-ms-blob-type": "AppendBlob"}).status_code == 201
    offsets = []
    for data in (b"abc", b"de"):
        answer = http("PUT", f"{url}&comp=appendblock", token=None, data=data)
        offsets.append(answer.headers["x-ms-blob-append-offset"])
    assert offsets == ["0", "3"]
    assert http("GET", url, token=None).content == b"abcde"


def test_a_signature_is_for_one_blob_one_purpose_and_a_time(http: Http, urls: tuple[str, str]) -> None:
    url, _ = urls
    http("PUT", url, token=None, data=b"x")
    key = url.split("/blobs/")[1].split("?")[0]
    base = f"{http.endpoint.url}/blobs/{key}"
    read = http.authority.sign_blob(key, "r", 60)
    assert http("GET", f"{base}?{read}", token=None).status_code == 200
    for bad in (
        "",
        http.authority.sign_blob("other", "r", 60),
        http.authority.sign_blob(key, "r", -1),
        read.replace("sp=r", "sp=rw"),
    ):
        answer = http("GET", f"{base}?{bad}", token=None)
        assert (answer.status_code, answer.headers["x-ms-error-code"]) == (403, "AuthenticationFailed")
    assert http("PUT", f"{base}?{read}", token=None, data=b"y").status_code == 403
    assert http("GET", f"{http.endpoint.url}/blobs/..%2F..%2Fsecret.key?{read}", token=None).status_code in (403, 501)


def test_a_job_s_token_can_be_renewed(http: Http) -> None:
    experiment = http("POST", EXPERIMENT.format(http.workspace)).json()["experimentId"]
    base = f"/history/v1.0{http.workspace}"
    assert http("PATCH", f"{base}/experiments/e/runs/renewing", json={"runId": "renewing"}).status_code == 200
    for form in ("experiments/e", f"experimentids/{experiment}"):
        answer = http("GET", f"{base}/{form}/runs/renewing/token").json()
        assert answer["expiryTimeUtc"].endswith("Z")
        assert http("GET", f"{base}/runs/renewing", token=answer["token"]).status_code == 200


def test_a_write_url_can_be_renewed(http: Http) -> None:
    url = f"/artifact/v2.0{http.workspace}/artifacts"
    renewed = http("GET", f"{url}/write/ExperimentRun/c2/logs/a.txt").json()["contentUri"]
    assert http("PUT", renewed.replace("emu.blob.local@", ""), token=None, data=b"x").status_code == 201
    assert http("GET", f"{url}/contentinfo/ExperimentRun/c2/logs/a.txt").status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"values": [{"name": 1}]}', b"\xff"])
def test_a_body_of_another_type_is_400(http: Http, body: bytes) -> None:
    http("PATCH", f"/history/v1.0{http.workspace}/experiments/e/runs/typed", json={})
    url = f"/metric/v2.0{http.workspace}/runs/typed/batch"
    assert http("POST", url, data=body, headers={"Content-Type": "application/json"}).status_code == 400


# Faults


def test_a_rule_hits_its_route_as_often_as_it_says(http: Http) -> None:
    path = EXPERIMENT.format(http.workspace)
    http.endpoint.set_faults(rules=[FaultRule(route="POST */experiments/*", status=429, retry_after=7, times=2)])
    answers = [http("POST", path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert http("GET", path).status_code == 200
    assert http.endpoint.faults().rules[0].times == 0


def test_rates_are_repeatable(http: Http) -> None:
    path = EXPERIMENT.format(http.workspace)
    http("POST", path)

    def statuses() -> list[int]:
        http.endpoint.set_faults(rules=[FaultRule(status=503, rate=0.5)], seed=1)
        return [http("GET", path).status_code for _ in range(20)]

    first = statuses()
    assert set(first) == {200, 503}
    assert statuses() == first


def test_a_dropped_connection_has_no_answer(http: Http) -> None:
    path = EXPERIMENT.format(http.workspace) + "dropped"
    http.endpoint.set_faults(rules=[FaultRule(route="POST *", action=FaultAction.DROP)])
    with pytest.raises(requests.ConnectionError):
        http("POST", path)
    http.endpoint.clear_faults()
    assert http("GET", path).status_code == 404


def test_a_lost_answer_leaves_its_effect(http: Http) -> None:
    path = EXPERIMENT.format(http.workspace) + "lost"
    http.endpoint.set_faults(rules=[FaultRule(route="POST *", action=FaultAction.DROP_ANSWER)])
    with pytest.raises(requests.ConnectionError):
        http("POST", path)
    http.endpoint.clear_faults()
    assert http("GET", path).status_code == 200


def test_delays_and_latency_do_not_change_answers(http: Http) -> None:
    path = EXPERIMENT.format(http.workspace)
    http("POST", path)
    http.endpoint.set_faults(latency=0.1, rules=[FaultRule(action=FaultAction.DELAY, delay=0.1)])
    http.endpoint.clear_requests()
    assert http("GET", path).status_code == 200
    (record,) = http.endpoint.recorded_requests()
    assert record.duration >= 0.2


def test_expired_tokens_are_refused_where_they_were_issued(http: Http) -> None:
    http.endpoint.set_faults(expired_tokens=True)
    answer = http("GET", http.endpoint.token_url, token=None, headers={"secret": http.endpoint.token_secret})
    assert http("GET", http.workspace, token=answer.json()["access_token"]).status_code == 401


def test_expired_signatures(http: Http, emulator: Endpoint) -> None:
    emulator.set_faults(expired_sas=True)
    url = f"/content/v2.0{http.workspace}/snapshots/getblob"
    (node,) = http("POST", url, json={"FileNames": ["a"]}).json()["fileNodes"]
    write = node["blobUri"].replace("emu.blob.local@", "")
    assert http("PUT", write, token=None, data=b"x").status_code == 403


def _create_cluster(http: Http, name: str, size: str = "Standard_DS3_v2", **properties: object) -> requests.Response:
    spec = {"vmSize": size, "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1}} | properties
    body = {"location": "eastus", "properties": {"computeType": "AmlCompute", "properties": spec}}
    return http("PUT", f"{http.workspace}/computes/{name}", json=body)


def test_sizes_that_are_not_offered(http: Http) -> None:
    http.endpoint.set_faults(sizes_not_offered=["STANDARD_DS3_V2"])
    settings = Settings()
    path = f"/subscriptions/{settings.subscription_id}/providers/Microsoft.MachineLearningServices"
    sizes = http("GET", f"{path}/locations/eastus/vmSizes").json()["amlCompute"]
    assert "Standard_DS3_v2" not in {size["name"] for size in sizes}
    answer = _create_cluster(http, "c")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidVmSize")


def test_refused_quota_fails_the_provisioning(http: Http) -> None:
    http.endpoint.set_faults(refused_quota=True)
    answer = _create_cluster(http, "quota")
    assert answer.status_code == 201
    operation = http("GET", answer.headers["Azure-AsyncOperation"]).json()
    assert (operation["status"], operation["error"]["code"]) == ("Failed", "ClusterCoreQuotaReached")
    compute = http("GET", f"/rp/workspaces{http.workspace}/computes/quota").json()
    assert compute["properties"]["provisioningState"] == "Failed"


def test_bad_scale_settings(http: Http) -> None:
    wrong = {"minNodeCount": 2, "maxNodeCount": 1}
    assert _create_cluster(http, "wrong", scaleSettings=wrong).status_code == 400
    wrong_idle = {"minNodeCount": 0, "maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "soon"}
    assert _create_cluster(http, "wrong", scaleSettings=wrong_idle).status_code == 400


def test_switches_are_checked(emulator: Endpoint) -> None:
    with pytest.raises(ValueError, match="no_such_switch"):
        Faults.model_validate({"no_such_switch": 1})
    with pytest.raises(EmulatorError, match="404"):
        emulator.evict("no-such-run")


def test_two_emulators_do_not_share_a_state(emulator: Endpoint) -> None:
    with pytest.raises(EmulatorError, match="Another emulator serves"):
        Emulator(emulator.state_dir).start()
