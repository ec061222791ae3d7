"""What the page's server answers, and to whom."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.cli.conftest import Project
from tests.view.conftest import View


def get(view: View, path: str, **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {view.token}"} | options.pop("headers", {})
    return requests.get(f"{view.root}{path}", headers=headers, timeout=300, allow_redirects=False, **options)


def run_ids(view: View) -> list[str]:
    return sorted(row["run_id"] for row in get(view, "/api/runs").json()["rows"])


def test_the_token_moves_from_the_address_into_a_cookie(view: View) -> None:
    answer = requests.get(view.url, timeout=300, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    session = requests.Session()
    assert session.get(view.url, timeout=300).status_code == 200
    assert session.get(f"{view.root}/api/runs", timeout=300).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/models", "/static/page.js", "/files/x/y", "/none"])
@pytest.mark.parametrize("token", ["", "?token=wrong", "?token="])
def test_without_the_token_nothing(view: View, path: str, token: str) -> None:
    assert requests.get(f"{view.root}{path}{token}", timeout=300, allow_redirects=False).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil:{port}"]
)
def test_another_host_is_refused(view: View, host: str) -> None:
    assert get(view, "/api/runs", headers={"Host": host.format(port=view.port)}).status_code == 421


def test_localhost_is_this_machine(view: View) -> None:
    assert get(view, "/api/runs", headers={"Host": f"LOCALHOST:{view.port}"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading(view: View, method: str) -> None:
    answer = requests.request(method, f"{view.root}/api/runs?token={view.token}", timeout=300)
    assert answer.status_code == 405


def test_it_listens_on_this_machine_alone(view: View) -> None:
    with pytest.raises(OSError, match="refused"), socket.socket() as other:
        other.connect(("127.0.0.2", view.port))


def test_headers(view: View) -> None:
    for path in ("/", "/api/runs", "/static/page.js"):
        headers = get(view, path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_asks_nobody_else(view: View) -> None:
    static = Path(__file__).parents[2] / "trainer/view/static"
    for path in static.rglob("*"):
        if path.is_file() and path.suffix in (".html", ".css", ".js") and "uplot" not in path.parts:
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http" not in text, path
    assert "MIT" in (static / "uplot/LICENSE").read_text()


def test_only_what_has_changed_is_sent_again(view: View) -> None:
    first = get(view, "/api/runs").json()
    assert len(first["rows"]) == 3
    assert first["metrics"][:2] == ["Accuracy", "Loss"]
    assert first["parameters"] == ["lr"]
    again = get(view, f"/api/runs?since={first['version']}").json()
    assert (again["rows"], again["removed"], again["version"]) == ([], [], first["version"])


def test_a_run(view: View) -> None:
    run_id = run_ids(view)[0]
    found = get(view, f"/api/run/{run_id}").json()
    assert found["command"] == ["script.py", "--lr", "0.25"]
    assert [file["path"] for file in found["files"]] == [
        "environment.json",
        "notes.txt",
        "page.html",
        "plots/a b.svg",
    ], "a link that leads outside is no file of the run"


def test_curves_together(view: View) -> None:
    ids = run_ids(view)
    found = get(view, f"/api/curves?metric=Loss&runs={','.join(ids)}").json()
    assert found["x"] == [1, 2, 3, 4, 5]
    assert found["series"][ids[0]] == pytest.approx([0.25, 0.125, 0.0833333, 0.0625, 0.05])
    assert found["pending"] == []
    part = get(view, f"/api/curves?metric=Loss&runs={ids[0]}&from=2.5&to=3.5").json()
    assert part["x"] == [2, 3, 4]
    assert get(view, "/api/curves?metric=Loss&runs=../..,x").json() == {"x": [], "series": {}, "pending": []}


def test_the_log_and_what_is_new_of_it(view: View) -> None:
    found = get(view, f"/api/log/{run_ids(view)[0]}").json()
    assert "trained with 0.25 <b>bold</b>" in found["text"]
    assert "\x1b" not in found["text"]
    again = get(view, f"/api/log/{run_ids(view)[0]}?since={found['next']}").json()
    assert (again["text"], again["next"]) == ("", found["next"])


def test_files(view: View) -> None:
    run_id = run_ids(view)[0]
    picture = get(view, f"/files/{run_id}/plots/a%20b.svg")
    assert picture.headers["Content-Type"] == "image/svg+xml"
    assert "sandbox" in picture.headers["Content-Security-Policy"]
    page = get(view, f"/files/{run_id}/page.html")
    assert page.headers["Content-Type"] == "application/octet-stream"
    assert page.headers["Content-Disposition"].startswith("attachment")
    assert get(view, f"/files/{run_id}/notes.txt").text == "plain"


@pytest.mark.parametrize(
    "path",
    [
        *("/files/{run}/outside", "/files/{run}/../status.json", "/files/{run}/%2e%2e/status.json"),
        *(
            "/files/{run}//etc/passwd",
            "/files/{run}/%2Fetc%2Fpasswd",
            "/files/{run}/notes.txt%00",
            "/files/{run}/plots",
        ),
        *("/files/../{run}/notes.txt", "/files/nonsense/notes.txt", "/api/run/..", "/api/log/nonsense", "/api/run/%00"),
        *("/static/../app.py", "/static/%2e%2e/app.py", "/api/run/20260101-000000-aaaaaa"),
    ],
)
def test_nothing_outside_a_runs_outputs(view: View, path: str) -> None:
    # Not requests, which would tidy the path up.
    connection = http.client.HTTPConnection("127.0.0.1", view.port, timeout=300)
    connection.request("GET", path.format(run=run_ids(view)[0]), headers={"Authorization": f"Bearer {view.token}"})
    answer = connection.getresponse()
    assert answer.status == 404, answer.read()
    connection.close()


def test_a_port_that_is_taken(project: Project, view: View) -> None:
    done = project.trainer("view", "--port", str(view.port))
    assert done.returncode == 3
    assert f"Port {view.port} can't be had" in done.stderr
    assert project.trainer("view", "--port", "70000").returncode == 2


def test_models(trained: Project) -> None:
    view = View(trained)
    try:
        (model,) = get(view, "/api/models").json()
        assert (model["name"], model["version"]) == ("chainer-dnn-mnist", 1)
        rows = get(view, "/api/runs").json()["rows"]
        assert [row["run_id"] for row in rows] == [model["run_id"]]
    finally:
        view.close()


def test_a_run_that_appears_grows_and_goes(project: Project, view: View, tmp_path: Path) -> None:
    version = get(view, "/api/runs").json()["version"]
    folder = project.runs / "20990101-000000-aaaaaa"
    other = next(path for path in project.runs.iterdir() if path.is_dir())
    folder.mkdir()
    try:
        (folder / "job.json").write_bytes((other / "job.json").read_bytes())
        record = json.loads((other / "status.json").read_bytes()) | {"run_id": folder.name, "status": "Queued"}
        record |= {"backend": "azureml", "ended": None}
        (folder / "status.json").write_text(json.dumps(record))
        found = get(view, f"/api/runs?since={version}").json()
        assert [row["run_id"] for row in found["rows"]] == [folder.name]
        (folder / "metrics.jsonl").write_text('{"name": "Loss", "value": 1.5, "step": 1, "time": 1}\n{"name": "Lo')
        found = get(view, f"/api/runs?since={found['version']}").json()
        assert [row["metrics"] for row in found["rows"]] == [{"Loss": 1.5}]
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert get(view, f"/api/runs?since={found['version']}").json()["removed"] == [folder.name]
