"""Nobody but its owner gets anything from an emulator: not a second user, not a web page, not a flood."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from azureml_emulator import Emulator, EmulatorError, Endpoint, Settings, find, start_in_background
from tests.emulator import second_user
from tests.emulator.clients import PROGRAMS, Http, Sdk

needs_root = pytest.mark.skipif(not second_user.possible(), reason="only root can become a second user")


@pytest.fixture(autouse=True)
def nothing_left(emulator: Endpoint) -> Iterator[None]:
    """Unknown routes of one test are not the next one's."""
    yield
    emulator.clear_requests()


# Another user of the machine


@needs_root
@pytest.mark.slow
def test_a_second_user_gets_nowhere(tmp_path: Path) -> None:
    second_user.open_way_to(tmp_path)
    (tmp_path / "client").mkdir()
    with Emulator(tmp_path / "state", settings=Settings(phase_duration=0.0)) as endpoint:
        sdk = Sdk(endpoint, tmp_path / "client")
        run_id = sdk.submit(source=str(PROGRAMS / "job"), arguments=["--epochs", 1])
        assert sdk.wait(run_id=run_id) == "Completed"
        report = second_user.try_everything(endpoint, run_id, tmp_path)
        assert report["uid"] == second_user.SECOND_USER
        assert report["tried"] > 40
        assert report["got in"] == []
        assert sdk.status(run_id=run_id) == "Completed"
        sdk.close()


def test_everything_in_a_state_is_private_whatever_the_umask(tmp_path: Path) -> None:
    state = tmp_path / "state"
    code = (
        "import os, sys; os.umask(0); from azureml_emulator import start_in_background;"
        "print(start_in_background(sys.argv[1]).url)"
    )
    subprocess.run([sys.executable, "-c", code, str(state)], check=True, capture_output=True, timeout=300)
    endpoint = find(state)
    assert endpoint is not None
    client = tmp_path / "client"
    client.mkdir()
    try:
        sdk = Sdk(endpoint, client)
        run_id = sdk.submit(source=str(PROGRAMS / "job"), arguments=["--epochs", 1])
        assert sdk.wait(run_id=run_id) == "Completed"
        sdk.close()
        # Those below client are written by the SDK, with the client's umask; nobody gets to them but through the root.
        assert open_to_others(state, but_not=endpoint._state.client) == []
    finally:
        endpoint.stop()


def test_what_clients_have_left_open_is_made_private_at_the_next_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    start_in_background(state).stop()
    for name in ("client/home/cache", "emulator.log.1", "jobs/old"):
        (state / name).write_text("old")
        (state / name).chmod(0o644)
    (state / "client").chmod(0o755)
    start_in_background(state).stop()
    assert open_to_others(state) == []


def test_a_log_that_has_been_rotated_is_private(tmp_path: Path) -> None:
    code = (
        "import logging, os, pathlib, sys; os.umask(0); from azureml_emulator import logs; logs.LOG_BYTES = 2000;"
        "logs.configure_logging(pathlib.Path(sys.argv[1]));"
        "[logging.getLogger('azureml_emulator').info('x' * 100) for _ in range(50)]"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], check=True, timeout=600)
    assert {path.name for path in tmp_path.iterdir()} == {"log", "log.1"}
    assert open_to_others(tmp_path) == []


def open_to_others(root: Path, but_not: Path | None = None) -> list[str]:
    found = []
    for path in (root, *root.rglob("*")):
        mode = path.lstat().st_mode
        if mode & 0o077 and not stat.S_ISLNK(mode) and not (but_not and path.is_relative_to(but_not)):
            found.append(f"{stat.filemode(mode)} {path}")
    return found


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o777, 0o1777])
def test_a_state_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    state = tmp_path / "state"
    start_in_background(state).stop()
    state.chmod(mode)
    for attempt in (start_in_background, find):
        with pytest.raises(EmulatorError) as refusal:
            attempt(state)
        assert str(state) in refusal.value.message
        assert "private" in refusal.value.hint
    command = [sys.executable, "-m", "azureml_emulator", "--state", str(state)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert refused.returncode == 4
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr


@needs_root
def test_a_state_of_another_user_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, second_user.SECOND_USER, second_user.SECOND_USER)
    for attempt in (start_in_background, find):
        with pytest.raises(EmulatorError, match="belongs to another user"):
            attempt(state)
    assert list(state.iterdir()) == []


def test_a_planted_file_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    start_in_background(state).stop()
    (tmp_path / "elsewhere").write_bytes(b"k" * 32)
    (state / "secret.key").unlink()
    (state / "secret.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EmulatorError, match=r"secret\.key is not a file of yours"):
        start_in_background(state)


def test_no_secret_is_on_a_command_line_or_in_a_file_that_is_shown(tmp_path: Path) -> None:
    client = tmp_path / "client"
    client.mkdir()
    with Emulator(tmp_path / "state", settings=Settings(phase_duration=0.0)) as endpoint:
        secret, key = endpoint.token_secret, (endpoint.state_dir / "secret.key").read_bytes().hex()
        sdk = Sdk(endpoint, client)
        run_id = sdk.submit(source=str(PROGRAMS / "job"), command=["sleep", "30"])
        sdk.wait_for(run_id=run_id, statuses=["Running"])
        process = psutil.Process(endpoint.pid)
        lines = []
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                lines.append(one.cmdline())
        assert not any(word in " ".join(line) for line in lines for word in (secret, key, "eyJ"))
        http = Http(endpoint)
        http("GET", f"/msi/{secret}/token?sig={secret}")
        http("GET", f"/nothing/sig={secret}/{endpoint.token()}\x1b]52;c;x\x07%0aforged")
        shown = (endpoint.state_dir / "emulator.log").read_text()
        shown += json.dumps([item.model_dump() for item in endpoint.unknown_requests()])
        sdk.cancel(run_id=run_id)
        sdk.close()
    assert "eyJ" not in shown
    assert "\x1b" not in shown
    assert "\nforged" not in shown


def test_a_sign_in_that_fails_names_no_secret(tmp_path: Path) -> None:
    endpoint = start_in_background(tmp_path / "state")
    environment = {"PATH": os.environ["PATH"], **endpoint.env()}
    endpoint.write_config(tmp_path)
    endpoint.stop()
    # Without it the SDK stops at the cloud's metadata, before it signs in.
    del environment["ARM_CLOUD_METADATA_URL"], environment["AZUREML_CURRENT_CLOUD"]
    code = "from azureml.core.authentication import MsiAuthentication; MsiAuthentication().get_authentication_header()"
    failed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert failed.returncode == 1
    assert "/msi/token" in failed.stderr
    assert environment["MSI_SECRET"] not in failed.stdout + failed.stderr


# Web pages


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Host": "attacker.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:{port}.attacker.example"},
        {"Host": ""},
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_from_elsewhere_are_refused_on_every_route(http: Http, headers: dict[str, str]) -> None:
    foreign = {name: value.format(port=http.endpoint.port) for name, value in headers.items()}
    signed_in = {"secret": http.endpoint.token_secret}
    for method, path in (
        ("GET", "/_emulator/health"),
        ("POST", "/_emulator/shutdown"),
        ("GET", "/msi/token/"),
        ("GET", f"/discovery/workspaces/{http.endpoint.workspace_id}"),
        ("GET", http.workspace),
        ("PUT", "/blobs/x"),
        ("POST", f"/history/v1.0{http.workspace}/experiments/e"),
        ("OPTIONS", "/nothing/here"),
    ):
        answer = http(method, path, admin=True, headers=foreign | signed_in)
        assert answer.status_code == 403, (method, path)
        assert answer.json()["error"]["code"] == "ForeignRequest"
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert http.endpoint.unknown_requests() == []


def test_its_own_names_are_let_in(http: Http) -> None:
    for headers in ({"Host": f"LocalHost:{http.endpoint.port}"}, {"Origin": http.endpoint.url}):
        assert http("GET", "/_emulator/health", token=None, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /_emulator/health HTTP/1.0\r\n",
        b"GET https://attacker.example/_emulator/health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n",
        b"POST /_emulator/shutdown HTTP/1.1\r\nHost: attacker.example\r\nContent-Length: 1000000000\r\n",
    ],
)
def test_they_are_refused_before_anything_is_read(emulator: Endpoint, head: bytes) -> None:
    if b"%d" in head:
        head %= emulator.port
    with _connect(emulator) as connection:
        connection.sendall(head + b"\r\n")
        # No body is sent: it is not waited for, and the connection is closed.
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.split()[1] == b"403"


def _connect(endpoint: Endpoint) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(endpoint.ca))
    plain = socket.create_connection(("127.0.0.1", endpoint.port), timeout=600)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


# Bodies and floods


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/history/v1.0{workspace}/experiments:query"),
        ("POST", "/execution/v1.0{workspace}/experiments/e/snapshotrun?runId=r"),
        ("POST", "/execution/v1.0{workspace}/experiments/e/startrun?runId=r"),
        ("POST", "/hyperdrive/v1.0{workspace}/experiments/e/runs"),
        ("PUT", "{workspace}/computes/c"),
        ("PUT", "/_emulator/faults"),
        ("PUT", "/blobs/k?comp=block&blockid=QQ=="),
        ("POST", "/nothing/here"),
    ],
)
def test_a_body_is_not_waited_for_without_a_token(http: Http, method: str, path: str) -> None:
    target = path.format(workspace=http.workspace)
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{http.endpoint.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    )
    with _connect(http.endpoint) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).split()[1] in (b"401", b"403", b"501")


def test_a_token_of_the_wrong_scope_does_not_get_its_body_read_either(http: Http) -> None:
    head = (
        f"PUT /_emulator/faults HTTP/1.1\r\nHost: 127.0.0.1:{http.endpoint.port}\r\n"
        f"Authorization: Bearer {http.endpoint.token()}\r\nContent-Length: 1000000\r\n\r\n"
    )
    with _connect(http.endpoint) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).split()[1] == b"403"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_is_read_up_to_a_limit(http: Http, announced: bool) -> None:
    size = 9 << 20
    url = f"/history/v1.0{http.workspace}/experiments:query"
    data = b"1" * size if announced else iter([b"1" * (1 << 20)] * 9)
    answer = http("POST", url, data=data, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "RequestBodyTooLarge")


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"filter":' + '{"a":' * 3_000 + "1" + "}" * 3_001, "\xff", "NaN", "{"]
)
def test_a_body_that_is_no_good_is_400(http: Http, body: str) -> None:
    for path in (
        f"/history/v1.0{http.workspace}/experiments:query",
        f"/execution/v1.0{http.workspace}/experiments/e/snapshotrun?runId=r",
        f"/content/v2.0{http.workspace}/snapshots/{'0' * 8}-0000-0000-0000-{'0' * 12}",
    ):
        answer = http("POST", path, data=body.encode("latin-1"), headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text[:500]


@pytest.mark.slow
def test_a_flood_costs_no_memory_to_speak_of(tmp_path: Path) -> None:
    """Bodies of 300 MB without a token and with one, and long unknown routes by the hundred."""
    with Emulator(tmp_path / "state") as endpoint:
        http, process = Http(endpoint), psutil.Process(endpoint.pid)
        url = f"/history/v1.0{http.workspace}/experiments:query"
        json_type = {"Content-Type": "application/json"}
        http("POST", url, json={})
        before = process.memory_info().rss
        # None of them is answered before it has been sent, so a connection may also be cut off.
        for token in (None, ""):
            try:
                answer = http("POST", url, token=token, data=iter([b"[" * (1 << 20)] * 300), headers=json_type)
                assert answer.status_code in (401, 413)
            except requests.ConnectionError:
                pass
        for number in range(600):
            # Beyond 16 KiB a request's head is refused, unless it arrives in one piece.
            assert http("GET", f"/{number}{'x' * 40_000}", token=None).status_code in (400, 501)
        endpoint.clear_requests()
        for number in range(600):
            assert http("GET", f"/{number}{'x' * 8_000}", token=None).status_code == 501
        assert process.memory_info().rss - before < 120 << 20
        recorded = endpoint.unknown_requests()
        assert len(recorded) == 600
        assert max(len(item.path) for item in recorded) < 1_100


def test_unknown_requests_are_recorded_up_to_a_bound() -> None:
    from azureml_emulator.service import RequestLog

    requests_seen = RequestLog()
    for number in range(3_000):
        requests_seen.add_unknown("GET", f"/{number}")
    assert [item.path for item in requests_seen.unknown()] == [f"/{number}" for number in range(2_000, 3_000)]
