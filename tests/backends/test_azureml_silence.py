"""Addresses that take a connection and say nothing: signing in gives up within seconds, and says where it waited."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
# For a hang: what is tested gives up after twenty seconds.
HANG = 200
SECRET = "s3cretS3CRETs3cret"
PRINCIPAL = {
    "AZUREML_SERVICE_PRINCIPAL_TENANT_ID": "00000000-0000-0000-0000-000000000002",
    "AZUREML_SERVICE_PRINCIPAL_ID": "00000000-0000-0000-0000-000000000003",
    "AZUREML_SERVICE_PRINCIPAL_PASSWORD": SECRET,
}


@pytest.fixture(scope="module")
def hole() -> Iterator[str]:
    """Host and port of a socket on which the kernel takes connections and nobody reads."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


class Client:
    """Starts ``trainer models --backend azureml`` with a workspace's file and no other way to sign in than given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        workspace = {"subscription_id": PRINCIPAL["AZUREML_SERVICE_PRINCIPAL_ID"]}
        workspace |= {"resource_group": "rg", "workspace_name": "ws"}
        (folder / "config.json").write_text(json.dumps(workspace))

    def start(self, terminal: int | None = None, **environment: str) -> subprocess.Popen[str]:
        unwanted = (
            "TRAINER_",
            "AZURE",
            "MSI_",
            "IDENTITY_",
            "XDG_",
            "HTTP",
            "http",
            "NO_PROXY",
            "no_proxy",
            "ALL_PROXY",
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        return subprocess.Popen(
            [sys.executable, "-m", "trainer", "models", "--backend", "azureml"],
            cwd=self.folder,
            env=kept | {"HOME": str(self.folder), "PATH": os.defpath} | environment,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if terminal is None else terminal,
            text=True,
        )


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def az(folder: Path, script: str) -> str:
    """A PATH with an ``az`` of our making: the real one needs an account."""
    folder.mkdir()
    (folder / "az").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "az").chmod(0o755)
    return f"{folder}{os.pathsep}{os.defpath}"


def test_every_way_to_sign_in_gives_up(client: Client, hole: str, tmp_path: Path) -> None:
    proxy = {"HTTPS_PROXY": f"http://user:{SECRET}@{hole}"}
    told = f"Check the network and the proxy {hole}, from HTTPS_PROXY."
    ways = {
        "principal": (client.start(**PRINCIPAL, **proxy), "could not open the workspace ws within 20 s", told),
        "identity": (
            client.start(MSI_ENDPOINT=f"http://{hole}/msi/{SECRET}/token", MSI_SECRET=SECRET),
            "could not sign in with the managed identity within 20 s",
            "Check the network.",
        ),
        "az": (
            client.start(PATH=az(tmp_path / "hangs", "exec sleep 600"), **proxy),
            "could not get a token from the Azure CLI within 15 s",
            told,
        ),
    }
    for way, (process, message, hint) in ways.items():
        out, err = process.communicate(timeout=HANG)
        assert process.returncode == 4, (way, out, err)
        assert f"error: Azure ML doesn't answer; {message}.\n" in err, (way, err)
        assert f"hint: {hint}\n" in err, (way, err)
        assert SECRET not in out + err, way


def test_a_login_by_hand_is_not_begun(client: Client, hole: str) -> None:
    ours, theirs = pty.openpty()
    with client.start(theirs, HTTPS_PROXY=f"http://{hole}", PATH="/nowhere") as process:
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 4096):
                said += chunk
        except OSError:  # the other side is closed
            pass
        finally:
            os.close(ours)
        assert process.wait(HANG) == 4, said
    assert b"could not reach Azure's login page" in said
    assert b"interactive authentication" not in said


def test_a_dead_identity_endpoint_is_told_without_its_secret(client: Client) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        process = client.start(MSI_ENDPOINT=f"http://{address}/msi/{SECRET}/token", MSI_SECRET=SECRET)
        _, err = process.communicate(timeout=HANG)
    assert process.returncode == 3
    assert "error: The managed identity gives no token: " in err
    assert "/msi/[redacted]/token" in err
    assert SECRET not in err


def test_a_silent_proxy_is_not_between_us_and_the_emulator(tmp_path: Path, hole: str) -> None:
    from azureml_emulator import Emulator

    home = tmp_path / "home"
    with Emulator(home / "emulator"):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINER_", "AZURE", "MSI_"))}
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), f"http://{hole}")
        ran = subprocess.run(
            [sys.executable, "-m", "trainer", "models", "--backend", "azureml", "--emulator"],
            cwd=tmp_path,
            env=kept | proxies | {"HOME": str(tmp_path), "TRAINER_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
