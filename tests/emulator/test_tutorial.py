"""Azure's tutorial, with nothing but environment variables, and no network but loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from azureml_emulator import Endpoint
from tests.emulator.clients import PROGRAMS, client_environment

ONLY_LOOPBACK = """\
import os, sys

def check(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        os.write(2, f"connected to {arguments[1]}\\n".encode())
        os._exit(99)
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", None):
        os.write(2, f"looked up {arguments[0]}\\n".encode())
        os._exit(98)

sys.addaudithook(check)
"""


@pytest.mark.slow
def test_the_tutorial(emulator: Endpoint, tmp_path: Path) -> None:
    emulator.write_config(tmp_path)
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(ONLY_LOOPBACK)
    result = subprocess.run(
        [sys.executable, str(PROGRAMS / "tutorial.py"), str(PROGRAMS / "job"), "STANDARD_NC6"],
        cwd=tmp_path,
        env=client_environment(emulator) | {"PYTHONPATH": str(tmp_path / "hooks")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for line in (
        "Workspace name: emulator-ws",
        "Creating a new compute target...",
        "AmlCompute wait for completion finished",
        "Streaming user_logs/std_log.txt",
        "epoch 10 accuracy 0.990",
        "chainer-dnn-mnist\tchainer-dnn-mnist:1\t1",
    ):
        assert line in result.stdout
    assert "'Batch size': 128" in result.stdout
    with np.load(tmp_path / "model", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["l1/W"], np.arange(6.0).reshape(2, 3))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here")
def test_a_run_needs_no_network_at_all(tmp_path: Path) -> None:
    """Emulator, client and job in a network namespace that has loopback and no route."""
    namespace = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        pytest.skip("no network namespaces here")
    result = subprocess.run(
        [*namespace, sys.executable, str(PROGRAMS / "without_network.py"), str(tmp_path)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Completed" in result.stdout
