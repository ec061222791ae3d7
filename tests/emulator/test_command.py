"""The command line, the pytest plug-in, and the documentation's table."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azureml_emulator import Settings, find, start_in_background
from tests.emulator.clients import Http

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "azureml_emulator"]

PLUGIN_TESTS = """\
import os
import subprocess
import sys

import pytest
import requests


def call(emulator, path):
    session = requests.Session()
    session.trust_env = False
    return session.get(emulator.url + path, verify=str(emulator.ca), timeout=600)


def test_three_lines(azureml_emulator, tmp_path):
    azureml_emulator.write_config(tmp_path)
    code = "from azureml.core import Workspace; print(Workspace.from_config().name)"
    environment = os.environ | azureml_emulator.env()
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "emulator-ws", result.stderr


def test_unknown(azureml_emulator):
    call(azureml_emulator, "/not/a/route")


@pytest.mark.allow_unknown_routes
def test_allowed(azureml_emulator):
    assert call(azureml_emulator, "/not/a/route").status_code == 501


def test_environment(azureml_environment, tmp_path):
    assert os.environ["AZUREML_CURRENT_CLOUD"] == "AzureMLEmulator"
    assert (tmp_path / ".azureml" / "config.json").exists()


def test_without():
    assert "MSI_ENDPOINT" not in os.environ
"""


def test_the_plug_in_fails_a_test_that_met_an_unknown_route(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PLUGIN_TESTS)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "azureml_emulator.pytest_plugin", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "1 failed, 4 passed" in result.stdout, result.stdout + result.stderr
    assert "FAILED test_it.py::test_unknown" in result.stdout
    assert "GET /not/a/route" in result.stdout


def test_the_plug_in_loads_nothing_of_weight() -> None:
    code = (
        "import sys, azureml_emulator.pytest_plugin;"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'pydantic', 'fastapi', 'jwt', 'requests'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=600)


def exports(output: str) -> dict[str, str]:
    words = [shlex.split(line) for line in output.splitlines()]
    assert all(line[0] == "export" and len(line) == 2 for line in words)
    return dict(line[1].split("=", 1) for line in words)


def test_serving_says_what_it_does_not_prove(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with subprocess.Popen([*COMMAND, "--state", str(state)], stderr=subprocess.PIPE, text=True) as process:
        while not (state / "lock").exists():
            assert process.poll() is None
            time.sleep(0.05)
        # It is still starting: that is waited for.
        asked = run("--state", str(state), "--print-env")
        endpoint = find(state)
        assert endpoint is not None
        assert endpoint.pid == process.pid
        assert exports(asked.stdout) == endpoint.env()
        second = run("--state", str(state))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    assert "does not prove" in errors
    assert "Traceback" not in errors
    assert second.returncode == 4
    assert second.stderr.startswith("error: Another emulator serves")
    assert find(state) is None
    assert not (state / "endpoint.json").exists()


def test_printing_the_environment_starts_an_emulator_in_the_background(tmp_path: Path) -> None:
    state = str(tmp_path / "state with space")
    first = run("--state", state, "--print-env")
    endpoint = find(state)
    try:
        assert endpoint is not None
        assert first.returncode == 0
        assert "does not prove" in first.stderr
        assert exports(first.stdout) == endpoint.env()
        assert run("--state", state, "--print-env").stdout == first.stdout
    finally:
        stopped = run("--state", state, "--stop")
    assert stopped.stderr == f"Stopped the emulator at {endpoint.url}.\n"
    assert find(state) is None
    again = run("--state", state, "--stop")
    assert again.returncode == 0
    assert again.stderr.startswith("No emulator serves")


def test_the_recipe_of_the_documentation(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "emulator.md").read_text()
    recipe = page.partition("```console\n")[2].partition("```")[0]
    commands = [line.removeprefix("$ ") for line in recipe.splitlines()]
    assert all(line.startswith("$ ") for line in recipe.splitlines())
    (tmp_path / "any_program_with_either_sdk.py").write_text(
        "from azureml.core import Workspace; print(Workspace.from_config().name)"
    )
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["/bin/bash", "-euc", "\n".join(commands)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().endswith("emulator-ws")
    assert find(tmp_path / "emulator") is None


def test_the_state_is_private(tmp_path: Path) -> None:
    endpoint = start_in_background(tmp_path / "state", settings=Settings(idle_exit=5.0))
    assert (endpoint.state_dir.stat().st_mode & 0o077) == 0
    for name in ("secret.key", "endpoint.json", "tls/server.key"):
        assert (endpoint.state_dir.joinpath(name).stat().st_mode & 0o077) == 0
    token = endpoint.token()
    deadline = time.monotonic() + 600
    while find(endpoint.state_dir) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert token not in endpoint.state_dir.joinpath("emulator.log").read_text()


def test_a_new_state_has_a_new_workspace_id(tmp_path: Path) -> None:
    identities = []
    for name in ("one", "two", "one"):
        endpoint = start_in_background(tmp_path / name)
        identities.append(endpoint.workspace_id)
        client = Http(endpoint)
        assert client("GET", "/_emulator/health").ok
        endpoint.stop()
        # A connection that is kept for later holds nobody up.
        assert "graceful shutdown exceeded" not in (endpoint.state_dir / "emulator.log").read_text()
        client.session.close()
    assert identities[0] == identities[2] != identities[1]


def test_a_damaged_endpoint_file_is_no_emulator(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    for content in ("", "{", "[]", '{"pid": 1}'):
        (tmp_path / "endpoint.json").write_text(content)
        assert find(tmp_path) is None


@pytest.mark.parametrize("arguments", [["--settings", '{"nonsense": 1}'], ["--faults", "["], []])
def test_usage_errors(tmp_path: Path, arguments: list[str]) -> None:
    state = ["--state", str(tmp_path)] if arguments else []
    result = subprocess.run([*COMMAND, *state, *arguments], capture_output=True, text=True, timeout=600)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = subprocess.run(
            [*COMMAND, "--state", str(tmp_path), "--port", port], capture_output=True, text=True, timeout=600
        )
    assert result.returncode == 4
    assert f"Port {port} is not available" in result.stderr


def test_the_documentation_s_table_is_current() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "emulator_routes.py"), "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
