"""Reporting by MLflow's interface: to an HTTPS service that takes what it is sent, and to none."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from azureml_emulator.certificates import ensure_certificates
from tests.runtime.test_reporting_azureml import HIDDEN

WORKSPACE = "/mlflow/v1.0/subscriptions/s/resourceGroups/g/providers/P/workspaces/w"


class Tracking:
    """What was sent, and what to answer next, 200 where nothing is said."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.answers: list[int] = []
        self.environment: dict[str, str] = {}

    @property
    def metrics(self) -> list[tuple[str, float, int]]:
        return [(one["key"], one["value"], one["step"]) for _, _, body in self.sent for one in body["metrics"]]


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[Tracking]:
    found = Tracking()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = found.answers.pop(0) if found.answers else 200
            if status == 200:
                found.sent.append((self.path, self.headers["Authorization"], body))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    ca, certificate, key = ensure_certificates(tmp_path / "tls")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found.environment = {
        "AZUREML_RUN_ID": "run-1",
        "TRAINER_TRACKING": "mlflow",
        "MLFLOW_RUN_ID": "run-1",
        "MLFLOW_TRACKING_TOKEN": "secret",
        "MLFLOW_TRACKING_URI": f"azureml://127.0.0.1:{server.server_address[1]}{WORKSPACE}?",
        "REQUESTS_CA_BUNDLE": str(ca),
        "NO_PROXY": "127.0.0.1",
    }
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def ran(tmp_path: Path, environment: dict[str, str], program: str) -> subprocess.CompletedProcess[str]:
    begin = "from trainer.runtime import reporting, tracking\nreporting.install()\n"
    return subprocess.run(
        [sys.executable, "-c", begin + program],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )


def lines(tmp_path: Path) -> list[tuple[str, float | None, float | None]]:
    found = [json.loads(line) for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [(one["name"], one["value"], one["step"]) for one in found]


def test_values_arrive_in_order_with_their_steps_and_in_the_record(tracking: Tracking, tmp_path: Path) -> None:
    tracking.answers = [503, 429]
    program = """
report = reporting.start()
for epoch in (1, 2):
    report.log("Loss", 1 / epoch, epoch)
report.log("Inner", 0.5, 0.25, 7)
report.log("Bad", float("nan"), 1)
report.log("Text", "words")
for _ in range(2):
    report.log("Plain", 3)
"""
    done = ran(tmp_path, tracking.environment, program)
    assert done.stderr == ""
    steps = [("Loss", 1.0, 1), ("Loss", 0.5, 2), ("Inner", 0.5, 7), ("Plain", 3.0, 0), ("Plain", 3.0, 1)]
    assert tracking.metrics == steps
    path, token, body = tracking.sent[0]
    assert path == f"{WORKSPACE.replace('v1.0', 'v2.0')}/api/2.0/mlflow/runs/log-batch"
    assert (token, body["run_id"]) == ("Bearer secret", "run-1")
    assert [name for name, _, _ in lines(tmp_path)] == ["Loss", "Loss", "Inner", "Bad", "Text", "Plain", "Plain"]


def test_the_tutorials_run_works_where_its_sdk_is_not_installed(tracking: Tracking, tmp_path: Path) -> None:
    program = "from azureml.core.run import Run\nRun.get_context().log('rate', 0.5)\n"
    begin = f"{HIDDEN}\nfrom trainer.runtime import reporting\nreporting.install()\n{program}"
    command = [sys.executable, "-c", begin]
    subprocess.run(command, cwd=tmp_path, env=os.environ | tracking.environment, check=True)
    assert tracking.metrics == [("rate", 0.5, 0)]
    assert lines(tmp_path) == [("rate", 0.5, None)]


def test_what_mlflow_sends_itself_is_not_sent_twice(tracking: Tracking, tmp_path: Path) -> None:
    done = ran(tmp_path, tracking.environment, "reporting.start(automatic=True, sent_already=True).log('x', 1, 2)\n")
    assert done.stderr == ""
    assert tracking.metrics == []
    assert lines(tmp_path) == [("x", 1, 2)]


def test_a_service_that_refuses_or_is_away_costs_the_record_nothing(tracking: Tracking, tmp_path: Path) -> None:
    tracking.answers = [400]
    program = "tracking._CLOSE_SECONDS = 2.0\nreporting.start().log('x', 1, 2)\n"
    done = ran(tmp_path, tracking.environment, program)
    assert "does not take metrics through MLflow: 400" in done.stderr
    away = tracking.environment | {"MLFLOW_TRACKING_URI": f"azureml://127.0.0.1:1{WORKSPACE}"}
    done = ran(tmp_path, away, program)
    assert "could not be sent" in done.stderr
    assert lines(tmp_path) == [("x", 1, 2)] * 2
