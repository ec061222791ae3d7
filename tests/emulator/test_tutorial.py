"""Azure's tutorial, with nothing but environment variables, and no network but loopback."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from azureml_emulator import Emulator
from tests.conftest import write_idx_set
from tests.emulator.clients import PROGRAMS, client_environment
from tests.emulator.conftest import SETTINGS

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
def test_the_tutorial(tmp_path: Path) -> None:
    # An emulator of its own: the tutorial creates its cluster, and its model's version is the first.
    with Emulator(tmp_path / "state", settings=SETTINGS) as emulator:
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


def _learnt(patterns: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of the tutorial's network, for images of ten patterns under noise: each is compared with all."""
    wanted = patterns.reshape(10, 784) / 255.0 - 0.5
    first = np.zeros((100, 784), np.float32)
    first[:10], first[10:20] = wanted, -wanted
    last = np.zeros((10, 100), np.float32)
    last[:, :10], last[:, 10:20] = np.eye(10), -np.eye(10)
    nothing = np.zeros(100, np.float32)
    return {
        **{"l1/W": first, "l1/b": nothing, "l2/W": np.eye(100, dtype=np.float32), "l2/b": nothing},
        **{"l3/W": last, "l3/b": np.zeros(10, np.float32)},
    }


@pytest.mark.slow
def test_the_notebook_s_deployment(tmp_path: Path) -> None:
    """Its cells and its score script, unchanged, with Chainer inside, under our own scoring server."""
    notebook = PROGRAMS / "notebook"
    shutil.copytree(notebook / "site", tmp_path / "site")
    (tmp_path / "site" / "mnist").mkdir()
    write_idx_set(tmp_path / "site" / "mnist", train=64, test=64)
    for plain in list((tmp_path / "site" / "mnist").iterdir()):
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    np.savez(tmp_path / "model.npz", **_learnt(np.random.default_rng(0).integers(0, 160, size=(10, 28, 28))))
    client = tmp_path / "client"
    client.mkdir()
    for name in ("chainer_score.py", "datautils.py"):
        shutil.copy(notebook / name, client)
    settings = SETTINGS.model_copy(update={"job_site": tmp_path / "site"})
    with Emulator(tmp_path / "state", settings=settings) as endpoint:
        endpoint.write_config(client)
        result = subprocess.run(
            [sys.executable, str(notebook / "deploy.py"), str(tmp_path / "model.npz")],
            cwd=client,
            env=client_environment(endpoint) | {"PYTHONPATH": str(tmp_path / "site"), "MPLBACKEND": "Agg"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert 'ACI service creation operation finished, operation "Succeeded"' in result.stdout
        found = dict(re.findall(r"^(label|prediction): (\d)$", result.stdout, re.MULTILINE))
        assert found["label"] == found["prediction"]
        assert "Model: chainer-dnn-mnist, ID: chainer-dnn-mnist:1" in result.stdout
        assert "Webservice: chainer-mnist-1, scoring URI: http://127.0.0.1:" in result.stdout
        assert endpoint.unknown_requests() == []
