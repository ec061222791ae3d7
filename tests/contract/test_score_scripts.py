"""The same score scripts under Azure's own inference server and under ``trainer serve``.

Azure's server can't share an environment with this package (its pins exclude ours), so it gets one of its own, made
with uv; without uv, or where the package index and uv's cache have nothing, these tests are skipped.
"""

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from azureml_emulator import Emulator, Settings
from tests.cli.conftest import Project
from tests.contract.deploy_contract import NETWORK, PICTURES
from tests.emulator.clients import Http, deploy_over_http
from tests.serving.conftest import Answered, Served, request, write_model
from trainer.artifacts import ModelVersion, file_sha256
from trainer.deploy.preparing import prepare, source_of, stage
from trainer.home import Home
from trainer.modeluse.building import NOTHING_SAID, NetworkChoice
from trainer.serving.inputs import InputError
from trainer.serving.network import NetworkScorer, network_scorer
from trainer.serving.scoring import ModelFiles, Request

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTS = HERE / "scores"
AZURE_SERVER = "azureml-inference-server-http==1.5.1"
# The cache that this user's uv has, not the empty one that tests are given.
_CACHE = os.environ.get("UV_CACHE_DIR") or str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv")
_START = (
    "import sys; from azureml_inference_server_http import amlserver_linux as s; s.run('127.0.0.1', sys.argv[1], 1)"
)
_TIMEOUT_MS = "1500"


@pytest.fixture(scope="session")
def azure_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has Azure's inference server, and Chainer."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    folder = tmp_path_factory.mktemp("azure")
    python = folder / "env" / "bin" / "python"
    constraints = folder / "build.txt"
    constraints.write_text("setuptools<82\n")
    beside = [f"{name}=={version(name)}" for name in ("numpy", "msgspec", "pillow")]
    packages = [AZURE_SERVER, "chainer==7.8.1", *beside]
    for command in (
        [uv, "venv", "-q", "-p", sys.executable, str(python.parents[1])],
        [uv, "pip", "install", "-q", "-p", str(python), "--build-constraints", str(constraints), *packages],
    ):
        made = subprocess.run(
            command,
            env=os.environ | {"UV_CACHE_DIR": _CACHE},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        if made.returncode:
            pytest.skip(f"Azure's inference server can't be had: {made.stderr.strip()[-300:]}")
    return python


class AzureServed:
    """Azure's inference server with a score script, in the layout of Azure's container.

    ``travelled`` is a folder that was staged for Azure, with the script in it: then nothing else of ours is there.
    """

    def __init__(self, python: Path, top: Path, script: Path, model: Path, travelled: Path | None = None) -> None:
        app = top / "app"
        folder = script.parent if travelled is None else travelled
        source = app / folder.name
        shutil.copytree(folder, source, ignore=shutil.ignore_patterns("__pycache__"))
        models = app / "azureml-models" / "digits" / "1"
        models.mkdir(parents=True)
        shutil.copy(model, models / "model.npz")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AZUREML_")} | {
            "AML_APP_ROOT": str(app),
            "AZUREML_ENTRY_SCRIPT": f"{source.name}/{script.relative_to(folder)}",
            "AZUREML_SOURCE_DIRECTORY": source.name,
            "AZUREML_MODEL_DIR": str(models),
            "SERVICE_NAME": "digits",
            "SCORING_TIMEOUT_MS": _TIMEOUT_MS,
            "PYTHONPATH": "" if travelled else str(ROOT / "trainer" / "runtime" / "site"),
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(top),
        }
        self.url = f"http://127.0.0.1:{port}"
        self.log = top / "log.txt"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [str(python), "-c", _START, str(port)], cwd=app, env=environment, stdout=stream, stderr=stream
            )

    def wait(self) -> None:
        end = time.monotonic() + 120
        while self.process.poll() is None and time.monotonic() < end:
            try:
                if request(self.url).status == 200:
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


class Both:
    """One score script under both servers."""

    def __init__(self, azure: AzureServed, ours: Served) -> None:
        self.azure, self.ours = azure, ours

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[Answered, Answered]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return request(self.azure.url, method, path, body, named), request(self.ours.url, method, path, body, named)

    def same(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
        """Ask both, compare what they answer, return it."""
        azure, ours = self.ask(method, path, body, **headers)
        assert ours.status == azure.status, (azure, ours)
        assert comparable(ours.headers) == comparable(azure.headers), (azure, ours)
        assert ours.body == azure.body, (azure, ours)
        return ours

    def score(self, value: object, **headers: str) -> Answered:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.same("POST", "/score", body, **({"Content_Type": "application/json"} | headers))


# Of the connection and the server, not of the contract.
# RFC 9110 wants Allow with a 405; Azure's server leaves it out.
_OTHERS = {"server", "date", "connection", "keep-alive", "transfer-encoding", "allow"}


def comparable(headers: dict[str, str]) -> dict[str, str]:
    """Headers without those of the connection; what differs from call to call as its form."""
    found = {name: value for name, value in headers.items() if name not in _OTHERS}
    if "x-ms-run-fn-exec-ms" in found:
        found["x-ms-run-fn-exec-ms"] = re.sub(r"\d+\.\d{3}", "N", found["x-ms-run-fn-exec-ms"])
    for name in ("x-request-id", "x-ms-request-id", "x-ms-client-request-id"):
        if name in found:
            found[name] = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", found[name])
    return found


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.npz")


def packages_of(python: Path, folder: Path, *names: str) -> str:
    """A folder with some of an environment's packages, for another's PYTHONPATH."""
    [installed] = python.parents[1].glob("lib/python*/site-packages")
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(installed / name)
    return str(folder)


def start_both(azure_python: Path, top: Path, script: str, model: Path, **environment: str) -> Both:
    path = SCRIPTS / script
    azure = AzureServed(azure_python, top, path, model)
    project = Project(top / "project", top, top)
    # Registered, as on Azure: the name and the number of a version are part of the layout.
    from tests.serving.conftest import register

    register(project)
    variables = {"SCORING_TIMEOUT_MS": _TIMEOUT_MS} | environment
    ours = Served(project, "digits", "--script", str(path), "--no-key", env=variables)
    return Both(azure, ours)


def served_by_both(script: str) -> Any:
    @pytest.fixture(scope="module")
    def both(azure_python: Path, tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Both]:
        found = start_both(azure_python, tmp_path_factory.mktemp("both"), script, model)
        try:
            found.azure.wait()
            yield found
        finally:
            found.azure.close()
            found.ours.close()

    return both


answers = served_by_both("answers.py")
headers = served_by_both("headers.py")
neighbours = served_by_both("neighbours/score.py")
digits = served_by_both("digits.py")


@pytest.mark.parametrize(
    "what",
    ["none", "number", "float", "tuple", "nested", "unicode", "nan", "keys", "calls", "where"],
)
def test_what_run_returns_is_answered_alike(answers: Both, what: str) -> None:
    assert answers.score({"what": what}).status == 200


@pytest.mark.parametrize("what", ["array", "float32", "list of float32", "bytes", "set"])
def test_what_json_cannot_hold_is_the_same_failure(answers: Both, what: str) -> None:
    azure, ours = answers.ask("POST", "/score", json.dumps({"what": what}).encode(), Content_Type="application/json")
    assert (ours.status, ours.body, comparable(ours.headers)) == (azure.status, azure.body, comparable(azure.headers))
    assert ours.status == 500


@pytest.mark.parametrize("what", ["raise", "raise a timeout", "wait", "no such thing"])
def test_failures_are_answered_alike(answers: Both, what: str) -> None:
    found = answers.score({"what": what})
    assert found.status == 500
    assert found.headers["x-ms-run-function-failed"] == "True"


def test_the_servers_go_on_after_failures(answers: Both) -> None:
    answers.score({"what": "raise"})
    assert answers.score({"what": "echo", "value": [1, 2]}).json == [1, 2]


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[1, 2", b"null", b'{"what": NaN}', "Zürich".encode()])
def test_bodies_that_the_script_does_not_understand(answers: Both, body: bytes) -> None:
    answers.score(body)


def test_a_body_that_is_no_utf8(answers: Both) -> None:
    assert answers.score(b"\xff\xfe").status == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-8", "application/xml"])
def test_content_types(answers: Both, kind: str) -> None:
    assert answers.score({"what": "text"}, Content_Type=kind).status == 200


@pytest.mark.parametrize(
    "query", ["", "what=text", "what=echo&value=[1,2]", "what=echo&value=a&value=b", "what=echo&value=", "a=%C3%BC"]
)
def test_the_query_of_a_get_is_the_input(answers: Both, query: str) -> None:
    answers.same("GET", f"/score?{query}")


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH"])
def test_other_methods(answers: Both, method: str) -> None:
    answers.same(method, "/score")


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/nowhere"), ("POST", "/"), ("GET", "/score/")])
def test_other_paths(answers: Both, method: str, path: str) -> None:
    answers.same(method, path)


@pytest.mark.parametrize(
    "given",
    [
        {"x_request_id": "mine"},
        {"x_ms_request_id": "old"},
        {"x_ms_client_request_id": "client"},
        {"x_request_id": "mine", "x_ms_request_id": "old", "x_ms_client_request_id": "client"},
        {"x_request_id": "x" * 101},
        {"x_ms_client_request_id": "x" * 101},
        {"x_ms_request_id": "x" * 100},
        {"TraceId": "trace"},
    ],
)
def test_request_ids(answers: Both, given: dict[str, str]) -> None:
    answers.score({"what": "number"}, **given)


def test_headers_reach_the_script(headers: Both) -> None:
    body = '{"a": "ü"}'.encode()
    found = headers.same("POST", "/score", body, Content_Type="application/json", X_Mine_And_yours="1", X_MINE="2")
    assert found.json["headers"]["X-Mine-And-Yours"] == "1"


def test_modules_beside_the_script(neighbours: Both) -> None:
    assert neighbours.score(21).json == 42


def test_chainer_inside(digits: Both) -> None:
    images = np.random.default_rng(1).random((3, 784)).round(3).tolist()
    azure, ours = digits.ask("POST", "/score", json.dumps({"data": images}).encode(), Content_Type="application/json")
    assert azure.status == ours.status == 200, (azure, ours)
    assert azure.json["label"] == ours.json["label"]
    np.testing.assert_allclose(azure.json["probability"], ours.json["probability"], rtol=1e-5)


@pytest.mark.parametrize("version", ["2", "2.0", "3", "3.0", "3.1", "4", ""])
def test_the_api_is_described_in_the_same_versions(answers: Both, version: str) -> None:
    azure, ours = answers.ask("GET", f"/swagger.json?version={version}")
    assert (ours.status, comparable(ours.headers).keys()) == (azure.status, comparable(azure.headers).keys())
    for name in ("swagger", "openapi"):
        assert ours.json.get(name) == azure.json.get(name)
    if ours.status == 200:
        assert ours.json["info"]["title"] == azure.json["info"]["title"]
        assert azure.json["paths"].keys() <= ours.json["paths"].keys()
    else:
        assert ours.body == azure.body


def test_a_run_that_is_decorated_with_its_schema(azure_python: Path, tmp_path: Path, model: Path) -> None:
    names = ("inference_schema", "wrapt", "dateutil", "pytz", "six.py")
    both = start_both(
        azure_python, tmp_path, "schema.py", model, PYTHONPATH=packages_of(azure_python, tmp_path / "packages", *names)
    )
    try:
        both.azure.wait()
        assert both.score({"data": [1, 2]}).json == [3, 6]
        assert both.score({"data": [1, 2], "factor": 5, "more": 1}).json == [5, 10]
        assert both.same("GET", "/score?data=[4]&factor=2").json == [8]
        for body in (b"", b"[1]", b"{", b"{}", b'{"factor": 2}'):
            assert both.score(body).status == 400
        assert both.score({"data": [1]}, Content_Type="text/plain").status == 415
        azure, ours = both.ask("GET", "/swagger.json")
        for name in ("ServiceInput", "ServiceOutput"):
            assert ours.json["definitions"][name] == azure.json["definitions"][name]
    finally:
        both.azure.close()
        both.ours.close()


@pytest.mark.parametrize("script", ["failing_init.py", "no_run.py"])
def test_what_cannot_start_ends_with_exit_code_3(azure_python: Path, tmp_path: Path, model: Path, script: str) -> None:
    both = start_both(azure_python, tmp_path, script, model)
    try:
        assert both.azure.process.wait(120) == 3
        assert both.ours.process.wait(120) == 3
        both.ours.wait_for("error: ")
        if script == "failing_init.py":
            assert "no such weights" in both.azure.log.read_text()
            both.ours.wait_for("FileNotFoundError: no such weights")
    finally:
        both.azure.close()
        both.ours.close()


def test_the_emulator_takes_azure_s_server(azure_python: Path, tmp_path: Path) -> None:
    with Emulator(tmp_path / "state", settings=Settings(scoring_python=azure_python)) as endpoint:
        http = Http(endpoint)
        script = "def init():\n    print('in init')\n\ndef run(data):\n    return data\n"
        deploy_over_http(http, "azures", script)
        base = f"/modelmanagement/v1.0{http.workspace}/services/azures"
        key = http("POST", f"{base}/listkeys").json()["primaryKey"]
        uri = http("GET", base).json()["scoringUri"]
        url, path = uri.removesuffix("/score"), "/score"
        assert request(url, "POST", path, b"[1]", {"Content-Type": "application/json"}).status == 401
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        assert request(url, "POST", path, b"[1]", headers).json == "[1]"
        assert "azmlinfsrv.print - in init" in http("GET", f"{base}/logs").json()["content"]


def served_as_deployed(
    python: Path,
    top: Path,
    model: Path,
    script: Path | None,
    network: NetworkChoice = NOTHING_SAID,
    record: ModelVersion | None = None,
) -> AzureServed:
    """Azure's server with what travels to it when a model is deployed."""
    deployment = replace(prepare("digits", Home(top / "home", top), script=script, network=network), record=record)
    snapshot, entry = source_of(deployment)
    stage(deployment, snapshot, top / "source")
    served = AzureServed(python, top, top / "source" / entry, model, top / "source")
    served.wait()
    return served


def test_our_own_score_script_gives_what_serving_gives(azure_python: Path, tmp_path: Path, model: Path) -> None:
    scorer = NetworkScorer(ModelFiles("digits:1", "digits", 1, model, model.parent))
    served = served_as_deployed(azure_python, tmp_path, model, None)
    try:
        picture = io.BytesIO()
        Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(picture, "PNG")
        for value in (
            {"data": np.random.default_rng(0).random((3, 784)).tolist()},
            {"images": [base64.b64encode(picture.getvalue()).decode()]},
        ):
            body = json.dumps(value).encode()
            found = request(served.url, "POST", "/score", body, {"Content-Type": "application/json"})
            wanted = json.loads(scorer.score(Request("POST", "", body, "application/json", [])).body)
            assert found.status == 200, found
            assert found.json["model"] == wanted["model"]
            for one, other in zip(found.json["predictions"], wanted["predictions"], strict=True):
                assert one["class"] == other["class"]
                np.testing.assert_allclose(one["probabilities"], other["probabilities"], rtol=1e-6)
        for body in (b'{"data": [[1]]}', b"no JSON", b'{"images": ["text"]}', b""):
            with pytest.raises(InputError) as refused:
                scorer.score(Request("POST", "", body, "application/json", []))
            found = request(served.url, "POST", "/score", body, {"Content-Type": "application/json"})
            assert (found.status, found.json["message"]) == (refused.value.status, refused.value.message)
    finally:
        served.close()


def test_a_network_of_ones_own_gives_what_serving_gives(azure_python: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    sizes = {"conv/W": (2, 3, 3, 3), "conv/b": (2,), "out/W": (3, 2 * 6 * 4), "out/b": (3,)}
    arrays: dict[str, Any] = {key: random.normal(0, 0.2, size).astype("f") for key, size in sizes.items()}
    model = tmp_path / "model.npz"
    np.savez(model, **arrays)
    (tmp_path / "net.py").write_text(NETWORK)
    choice = NetworkChoice(network=f"{tmp_path / 'net.py'}:make")
    record = ModelVersion(
        name="fruit",
        version=7,
        sha256=file_sha256(model),
        size=model.stat().st_size,
        run_id="r",
        backend="local",
        snapshot="0" * 64,
        created=0.0,
        data=PICTURES,
        network="net.py:make",
    )
    served = served_as_deployed(azure_python, tmp_path, model, None, choice, record)
    try:
        picture = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (50, 33, 3)).astype(np.uint8)).save(picture, "PNG")
        body = json.dumps({"images": [base64.b64encode(picture.getvalue()).decode()]}).encode()
        found = request(served.url, "POST", "/score", body, {"Content-Type": "application/json"})
        assert found.status == 200, served.log.read_text()
        files = ModelFiles(record.reference, record.name, record.version, model, model.parent, record)
        answer = network_scorer(files, choice).score(Request("POST", "", body, "application/json", []))
        [one], [other] = found.json["predictions"], json.loads(answer.body)["predictions"]
        assert (found.json["model"], one["name"]) == ("fruit:7", other["name"])
        np.testing.assert_allclose(one["probabilities"], other["probabilities"], rtol=1e-5)
    finally:
        served.close()


def test_a_deployed_script_finds_chainer_at_work_and_its_neighbours(
    azure_python: Path, tmp_path: Path, model: Path
) -> None:
    served = served_as_deployed(azure_python, tmp_path, model, SCRIPTS / "digits.py")
    try:
        body = json.dumps({"data": [[0.5] * 784]}).encode()
        found = request(served.url, "POST", "/score", body, {"Content-Type": "application/json"})
        assert found.status == 200, served.log.read_text()
        assert len(found.json["label"]) == 1
    finally:
        served.close()
