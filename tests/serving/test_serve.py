"""``trainer serve`` as a client and its owner see it."""

import base64
import http.client
import io
import json
import re
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw

from tests.cli.conftest import Project
from tests.serving.conftest import Served, register, request, write_model
from trainer.modeluse.network import probabilities
from trainer.modeluse.prediction import predict
from trainer.modeluse.source import load_file

NET = """
import chainer, chainer.functions as F, chainer.links as L

class Net(chainer.Chain):
    def __init__(self, softmax=False):
        super().__init__()
        self.softmax = softmax
        with self.init_scope():
            self.c = L.Convolution2D(None, 4, 3)
            self.l = L.Linear(None, 10)

    def forward(self, x):
        y = self.l(F.dropout(F.relu(self.c(x))))
        return F.softmax(y) if self.softmax else y

def make():
    return Net()

def make_softmax():
    return Net(softmax=True)

def make_failing():
    raise ValueError("no such net")
"""


def digit(mode: str = "L", kind: str = "PNG") -> bytes:
    """A seven, black on white, 90x90."""
    picture = Image.new(mode, (90, 90), "white")
    ImageDraw.Draw(picture).line([(20, 20), (70, 20), (40, 75)], fill="black", width=9)
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def expected(project: Project, inputs: np.ndarray[Any, Any], version: int = 1) -> Any:
    model = load_file(project.path / ".trainer" / "models" / "digits" / str(version))
    return probabilities(model.network.scores(inputs.astype(np.float32)))


@pytest.fixture
def inputs() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).random((3, 784)).astype(np.float32)


def test_numbers_as_json_and_as_bytes_give_class_and_probabilities(
    serve: Any, bare_project: Project, inputs: np.ndarray[Any, Any]
) -> None:
    served = serve("digits")
    lists = inputs.tolist()
    square = inputs.reshape(-1, 28, 28).tolist()
    wanted = expected(bare_project, inputs)
    for body, kind in (
        (json.dumps({"data": lists}).encode(), "application/json"),
        (json.dumps(lists).encode(), "text/plain"),
        (json.dumps({"data": square}).encode(), "application/json"),
        (json.dumps(square).encode(), "application/json"),
        (inputs.astype("<f4").tobytes(), "application/octet-stream"),
    ):
        found = served.score(body, kind).json
        assert found["model"] == "digits:1"
        np.testing.assert_allclose([each["probabilities"] for each in found["predictions"]], wanted, atol=1e-6)
        assert [each["class"] for each in found["predictions"]] == wanted.argmax(axis=1).tolist()
        assert [each["probability"] for each in found["predictions"]] == [
            max(each["probabilities"]) for each in found["predictions"]
        ]
    for one in (lists[0], {"data": lists[0]}, {"data": square[0]}, square[0]):
        found = served.score(json.dumps(one).encode()).json["predictions"]
        np.testing.assert_allclose([each["probabilities"] for each in found], wanted[:1], atol=1e-6)


def test_pictures_are_prepared_as_predict_does(serve: Any, bare_project: Project, tmp_path: Path) -> None:
    served = serve("digits")
    (tmp_path / "seven.png").write_bytes(digit())
    model = load_file(bare_project.path / ".trainer" / "models" / "digits" / "1")
    [wanted] = predict(model, [tmp_path / "seven.png"])
    png, jpeg = digit(), digit("RGB", "JPEG")
    for body, kind, count in (
        (png, "image/png", 1),
        (png, "application/x-www-form-urlencoded", 1),  # what curl --data-binary says
        (json.dumps({"images": [base64.b64encode(png).decode()] * 2}).encode(), "application/json", 2),
        (
            json.dumps({"images": ["data:image/png;base64," + base64.b64encode(png).decode()]}).encode(),
            "application/json",
            1,
        ),
    ):
        found = served.score(body, kind).json["predictions"]
        assert len(found) == count
        assert found[0]["class"] == wanted.label
        np.testing.assert_allclose(found[0]["probabilities"], wanted.probabilities, atol=1e-6)
    assert served.score(jpeg, "image/jpeg").status == 200


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", "application/json", 400, "empty"),
        (b"{", "application/json", 400, "not JSON"),
        (b"{}", "application/json", 400, 'either "data" or "images"'),
        (b'{"data": [], "images": []}', "application/json", 400, 'either "data" or "images"'),
        (b'{"data": []}', "application/json", 400, "no input"),
        (b'{"data": [[1, 2]]}', "application/json", 400, "holds 2 numbers; the model takes 784"),
        (b'{"data": [["a"]]}', "application/json", 400, "Expected `float`"),
        (b'{"data": 7}', "application/json", 400, "Expected `array"),
        (b'{"other": 7}', "application/json", 400, "other"),
        (b'{"data": [[' + b"1e39, " * 783 + b"1]]}", "application/json", 400, "finite"),
        (b'{"data": [[' + b"1e999, " * 783 + b"1]]}", "application/json", 400, ""),
        (b'{"data": [[NaN]]}', "application/json", 400, "not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "application/json", 400, "nested too deeply"),
        (b'{"data": ' + b"[" * 100_000, "application/json", 400, "nested too deeply"),
        (b'{"data": "\xff"}', "application/json", 400, ""),
        (b'{"data": [[[1,2],[3]]]}', "application/json", 400, "Expected `float`"),
        (b"hello", "text/plain", 415, "Can't tell"),
        (b"\0" * 3, "application/octet-stream", 400, "no whole number of inputs of 3,136 bytes"),
        (np.full(784, np.nan, "<f4").tobytes(), "application/octet-stream", 400, "finite"),
        (b'{"images": []}', "application/json", 400, "no picture"),
        (b'{"images": ["!"]}', "application/json", 400, "Picture 0 is not base64"),
        (b'{"images": ["aGVsbG8="]}', "application/json", 400, "Picture 0 is not a PNG or JPEG image"),
        (digit()[:200], "image/png", 400, "damaged"),
        (b"GIF89a", "image/gif", 400, "not a PNG or JPEG"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:24],
)
def test_bodies_that_cannot_be_used(serve_once: Any, body: bytes, kind: str, status: int, message: str) -> None:
    found = serve_once.score(body, kind)
    assert (found.status, found.headers["content-type"]) == (status, "application/json"), found
    assert message in found.json["message"]
    assert found.headers["x-ms-run-function-failed"] == "False"


@pytest.fixture(scope="module")
def serve_once(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tests.serving.conftest import Served

    top = tmp_path_factory.mktemp("served")
    project = Project(top / "project", top, top)
    register(project)
    served = Served(project, "digits", "--max-body", "1")
    yield served
    served.close()


def test_a_picture_that_would_fill_the_memory(serve_once: Any) -> None:
    stream = io.BytesIO()
    Image.new("L", (3000, 3000)).save(stream, "PNG")
    found = serve_once.score(stream.getvalue(), "image/png")
    assert found.status == 400
    assert "more than 4,000,000 pixels" in found.json["message"]


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(serve_once: Any) -> None:
    connection = http.client.HTTPConnection(urlsplit(serve_once.url).netloc, timeout=300)
    connection.putrequest("POST", "/score")
    connection.putheader("Authorization", f"Bearer {serve_once.key}")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"1,048,576 bytes" in answer.read()
    connection.close()
    chunks = (b"1" * 65536 for _ in range(40))
    connection = http.client.HTTPConnection(urlsplit(serve_once.url).netloc, timeout=300)
    try:
        connection.request("POST", "/score", chunks, {"Authorization": f"Bearer {serve_once.key}"}, encode_chunked=True)
    except BrokenPipeError:
        pass
    else:
        assert connection.getresponse().status == 413
    connection.close()


def test_without_the_key_nothing_is_told(serve_once: Any) -> None:
    for path in ("/score", "/metrics", "/swagger.json", "/openapi.json"):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": serve_once.key},
            {"Authorization": ""},
        ):
            found = request(serve_once.url, "POST" if path == "/score" else "GET", path, None, headers)
            assert found.status == 401, path
            assert found.headers["www-authenticate"] == "Bearer"
    assert request(serve_once.url, path="/").body == b"Healthy"
    assert request(serve_once.url, path="/ready").status == 200
    mode = serve_once.key_file.stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert serve_once.key not in serve_once.said


def test_keys_change_while_it_runs(serve: Any) -> None:
    served = serve("digits")
    served.url  # noqa: B018  # it has started
    old = served.key
    served.key_file.write_text(f"new-key\n{old}\n")
    body = np.zeros(784, "<f4").tobytes()
    for key in ("new-key", old):
        assert served.ask("POST", "/score", body, key=key, Content_Type="application/octet-stream").status == 200
    served.key_file.write_text("new-key\n")
    assert served.ask("POST", "/score", body, key=old, Content_Type="application/octet-stream").status == 401
    assert served.ask("POST", "/score", body, key="new-key", Content_Type="application/octet-stream").status == 200
    served.key_file.chmod(0o644)
    assert served.ask("POST", "/score", body, key="new-key", Content_Type="application/octet-stream").status == 401


def test_commands_that_are_shown_hold_where_a_folder_has_a_blank(tmp_path: Path) -> None:
    project = Project(tmp_path / "my project", tmp_path, tmp_path)
    register(project)
    path = project.path / ".trainer" / "serving" / "key"
    path.parent.mkdir()
    path.write_text("key\n")
    path.chmod(0o644)
    elsewhere = Project(tmp_path / "elsewhere", tmp_path, tmp_path)
    home = {"TRAINER_HOME": str(project.path / ".trainer")}
    ran = elsewhere.trainer("serve", "digits", "--port", "0", env=home)
    assert ran.returncode == 3
    assert "Others may read the key file" in ran.stderr
    subprocess.run(["sh", "-c", ran.stderr.partition("hint: ")[2]], check=True)
    served = Served(elsewhere, "digits", env=home)
    try:
        shown = served.wait_for(r"  try    (curl .*)").group(1)
        pasted = shown.replace("--data-binary @picture.png", "-d '{\"data\": [[1]]}' -s")
        answer = subprocess.run(["sh", "-c", pasted], capture_output=True, text=True, check=True).stdout
        assert "the model takes 784 per input" in answer, "the key was read"
        assert served.stop() == 0
    finally:
        served.close()


def test_without_keys_other_sites_pages_are_refused(serve: Any) -> None:
    served = serve("digits", "--no-key")
    body = np.zeros(784, "<f4").tobytes()
    kind = {"Content_Type": "application/octet-stream"}
    assert served.ask("POST", "/score", body, **kind).status == 200
    assert served.ask("POST", "/score", body, **kind, Origin=served.url).status == 200
    assert served.ask("POST", "/score", body, **kind, Origin="http://evil.example").status == 403
    assert served.ask("POST", "/score", body, **kind, Host="evil.example:5001").status == 403


def test_metrics_count_what_was_asked(serve: Any) -> None:
    served = serve("digits", "--workers", "2")
    body = np.zeros(2 * 784, "<f4").tobytes()
    for _ in range(6):
        assert served.score(body, "application/octet-stream").status == 200
    assert served.score(b"{").status == 400
    text = served.ask(path="/metrics").body.decode()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert found['trainer_serve_requests_total{code="200"}'] == "6"
    assert found['trainer_serve_requests_total{code="400"}'] == "1"
    assert found["trainer_serve_inputs_total"] == "12"
    assert (
        found["trainer_serve_request_seconds_count"] == found['trainer_serve_request_seconds_bucket{le="+Inf"}'] == "7"
    )
    assert found["trainer_serve_requests_in_flight"] == "0"
    assert found['trainer_serve_model_info{name="digits",version="1"}'] == "1"
    assert float(found["trainer_serve_resident_memory_bytes"]) > 1e6
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    assert {re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", name) for name in found} == names


def test_the_log_has_a_line_per_request_and_no_secret(serve: Any) -> None:
    served = serve("digits")
    served.score(np.zeros(784, "<f4").tobytes(), "application/octet-stream", X_Request_Id="mine")
    served.ask(path="/a%1b[31mb?key=secret")
    served.wait_for(r"\dZ POST /score 200 3136B 1 in \d+\.\d\dms")
    served.wait_for(r"Z GET '/a\\x1b\[31mb' 404 ")
    assert "secret" not in served.said
    assert served.key not in served.said
    quiet = serve("digits", "--no-log")
    assert quiet.ask(path="/").status == 200
    assert quiet.stop() == 0
    assert "GET /" not in quiet.said


def test_the_api_describes_the_models_own_shapes(serve_once: Any) -> None:
    found = serve_once.ask(path="/openapi.json").json
    assert found["openapi"] == "3.1.0"
    schemas = found["components"]["schemas"]
    one = schemas["ServiceInput"]["properties"]["data"]["items"]
    assert (one["minItems"], one["maxItems"]) == (784, 784)
    row = schemas["ServiceOutput"]["properties"]["predictions"]["items"]["properties"]["probabilities"]
    assert row["maxItems"] == 10
    assert set(found["paths"]["/score"]["post"]["requestBody"]["content"]) == {
        *("application/json", "application/octet-stream", "image/png", "image/jpeg"),
    }
    assert serve_once.ask(path="/swagger.json").json["swagger"] == "2.0"


def test_a_new_version_is_taken_without_a_dropped_request(serve: Any, bare_project: Project) -> None:
    served = serve("digits", "--workers", "2")
    address, key = urlsplit(served.url).netloc, served.key
    body = np.zeros(784, "<f4").tobytes()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/octet-stream"}
    over, seen, problems = threading.Event(), [], []

    def client() -> None:
        connection = http.client.HTTPConnection(address, timeout=300)
        while not over.is_set():
            try:
                connection.request("POST", "/score", body, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    problems.append(text)
                seen.append(json.loads(text)["model"])
            except Exception as error:
                problems.append(repr(error))
                return
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(8)]
    for each in clients:
        each.start()
    try:
        for version in (2, 3):
            register(bare_project, seed=version)
            served.wait_for(f"Serving digits:{version}\\.")
            end = time.monotonic() + 120
            while seen[-8:] != [f"digits:{version}"] * 8 and time.monotonic() < end and not problems:
                time.sleep(0.02)
    finally:
        over.set()
        for each in clients:
            each.join()
    assert problems == []
    assert set(seen) == {"digits:1", "digits:2", "digits:3"}
    assert seen == sorted(seen) or len(seen) > 100  # versions mix only while one takes over
    assert served.stop() == 0


def test_a_version_that_cannot_be_served_leaves_the_old_one(serve: Any, bare_project: Project, tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text(
        "import os\n"
        "def init():\n    if os.environ['AZUREML_MODEL_DIR'].endswith('2'):\n        raise ValueError('too new')\n"
        "def run(data):\n    return os.path.basename(os.environ['AZUREML_MODEL_DIR'])\n"
    )
    served = serve("digits", "--script", str(script))
    assert served.score(b"1").json == "1"
    register(bare_project)
    served.wait_for(r"digits:2 can't be served.*too new.*digits:1 stays")
    assert served.score(b"1").json == "1"
    register(bare_project)
    served.wait_for(r"Serving digits:3\.")
    end = time.monotonic() + 120
    while (found := served.score(b"1").json) != "3" and time.monotonic() < end:
        assert found == "1"  # from the old one, which has yet to hear of it
    assert found == "3"


def test_a_named_version_stays(serve: Any, bare_project: Project) -> None:
    served = serve("digits:1")
    served.url  # noqa: B018  # it has started
    register(bare_project)
    time.sleep(3)
    assert served.score(np.zeros(784, "<f4").tobytes(), "application/octet-stream").json["model"] == "digits:1"


def test_a_request_under_way_is_finished_before_the_end(serve: Any, tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text("import time\ndef init(): pass\ndef run(data):\n    time.sleep(2)\n    return 1\n")
    served = serve("digits", "--script", str(script))
    url, found = served.url, []
    asking = threading.Thread(target=lambda: found.append(served.score(b"1")))
    asking.start()
    [worker] = psutil.Process(served.process.pid).children()
    end = time.monotonic() + 120
    in_flight = "requests_in_flight 1"
    while in_flight not in served.ask(path="/metrics").body.decode() and time.monotonic() < end:
        time.sleep(0.05)
    assert served.stop() == 0
    asking.join()
    assert found[0].json == 1
    assert not worker.is_running()
    with pytest.raises(OSError, match="refused"):
        request(url)


def test_alive_before_it_is_ready(serve: Any, tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    flag = tmp_path / "go"
    script.write_text(
        f"import os, time\ndef init():\n    while not os.path.exists({str(flag)!r}): time.sleep(0.05)\n"
        "def run(data):\n    return 1\n"
    )
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = serve("digits", "--script", str(script), port=port)
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            assert request(url).body == b"Healthy"
            break
        except OSError:
            time.sleep(0.05)
    ready = request(url, path="/ready")
    assert (ready.status, ready.headers["retry-after"]) == (503, "1")
    key = (served.key_file).read_text().split()[0]
    assert request(url, "POST", "/score", b"1", {"Authorization": f"Bearer {key}"}).status == 503
    flag.touch()
    served.url  # noqa: B018  # it is ready
    assert request(url, path="/ready").json == {"ready": True, "model": "digits:1"}
    assert served.score(b"1").json == 1


def test_a_worker_that_dies_is_replaced(serve: Any) -> None:
    served = serve("digits")
    served.url  # noqa: B018  # it has started
    [worker] = psutil.Process(served.process.pid).children()
    worker.kill()
    served.wait_for("A worker of digits:1 ended by signal 9")
    assert served.score(np.zeros(784, "<f4").tobytes(), "application/octet-stream").status in (200, 503)
    end = time.monotonic() + 120
    while served.ask(path="/ready").status != 200 and time.monotonic() < end:
        time.sleep(0.05)
    assert served.score(np.zeros(784, "<f4").tobytes(), "application/octet-stream").status == 200


def test_workers_end_with_a_supervisor_that_was_killed(serve: Any) -> None:
    served = serve("digits", "--workers", "2")
    served.url  # noqa: B018  # it has started
    workers = psutil.Process(served.process.pid).children()
    served.process.kill()
    assert psutil.wait_procs(workers, 120)[1] == []


def test_ctrl_c_ends_it(serve: Any) -> None:
    served = serve("digits")
    served.url  # noqa: B018  # it has started
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(120) == 0


@pytest.mark.slow
def test_any_chainer_network(serve: Any, bare_project: Project, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shapes = {"c/W": (4, 1, 3, 3), "c/b": (4,), "l/W": (10, 2704), "l/b": (10,)}
    arrays = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "net.npz", **arrays)
    (tmp_path / "net.py").write_text(NET)
    inputs = random.random((2, 1, 28, 28)).astype(np.float32)
    wanted = None
    for function in ("make", "make_softmax"):
        served = serve(
            *(str(tmp_path / "net.npz"), "--model-file", f"{tmp_path / 'net.py'}:{function}"),
            *("--input-shape", "1,28,28"),
        )
        raw = served.score(inputs.astype("<f4").tobytes(), "application/octet-stream")
        assert raw.status == 200, raw
        nested = served.score(json.dumps({"data": inputs.tolist()}).encode()).json["predictions"]
        for one, other in zip(raw.json["predictions"], nested, strict=True):
            np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-6)
        assert served.score(digit(), "image/png").json["predictions"][0]["class"] in range(10)
        found = [each["probabilities"] for each in raw.json["predictions"]]
        # Probabilities are not taken for scores.
        np.testing.assert_allclose(found, wanted or found, atol=1e-6)
        wanted = found
        assert served.stop() == 0


@pytest.mark.slow
def test_a_network_that_does_not_fit(bare_project: Project, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    model = write_model(tmp_path / "model.npz")
    for function, message in (
        ("make", "don't fit"),
        ("make_failing", "no such net"),
        ("absent", "There is no absent"),
    ):
        ran = bare_project.trainer(
            "serve", str(model), "--port", "0", "--model-file", f"{tmp_path / 'net.py'}:{function}"
        )
        assert ran.returncode == 3, ran.stderr
        assert message in ran.stderr
        assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nothing"], 5, "nothing"),
        (["digits:7"], 5, "no version 7"),
        (["./nowhere.npz"], 5, "nowhere.npz"),
        (["digits", "--port", "70000"], 2, "--port"),
        (["digits", "--workers", "0"], 2, "--workers"),
        (["digits", "--script", "nowhere.py"], 2, "nowhere.py"),
        (["digits", "--model-file", "net.py"], 2, "FILE.py:FUNCTION"),
        (["digits", "--input-shape", "1,x"], 2, "1,28,28"),
        (["digits", "--input-shape", "28"], 2, "--model-file"),
        (["digits", "--no-key", "--host", "0.0.0.0"], 2, "anyone who reaches"),
        (["digits", "--host", "no.such.host.invalid"], 3, "Can't listen"),
        (["digits", "--max-body", "0"], 2, "--max-body"),
    ],
)
def test_what_cannot_be_served(bare_project: Project, words: list[str], code: int, message: str) -> None:
    ran = bare_project.trainer("serve", *([] if "--port" in words else ["--port", "0"]), *words)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_port_that_is_taken(serve: Any, bare_project: Project) -> None:
    port = urlsplit(serve("digits").url).port
    ran = bare_project.trainer("serve", "digits", "--port", str(port))
    assert ran.returncode == 4
    assert "can't be had" in ran.stderr


def test_nothing_is_left_behind(serve: Any, bare_project: Project, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    served = serve("digits", env={"TMPDIR": str(tmp_path / "scratch")})
    served.url  # noqa: B018  # it has started
    assert list((tmp_path / "scratch").iterdir())
    register(bare_project)
    served.wait_for(r"Serving digits:2\.")
    assert served.stop() == 0
    assert list((tmp_path / "scratch").iterdir()) == []


def test_slow_and_endless_heads(serve_once: Any) -> None:
    import socket

    address = urlsplit(serve_once.url)
    with socket.create_connection((address.hostname, address.port), 30) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        try:
            for _ in range(64):
                client.sendall(b"X-Filler: " + b"x" * 8000 + b"\r\n")
            answer = client.recv(1000)
        except ConnectionError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431")
    assert request(serve_once.url).status == 200
