"""One search space on both backends: the same trials and, bit for bit, the same models."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tune.conftest import Studies, result

pytestmark = pytest.mark.slow

SPACE = ("--space", "lr=log:1e-2..0.3", "--space", "batchsize=32,64")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Iterator[Studies]:
    """A project whose emulator is started by the first command and stopped at the end."""
    top = tmp_path_factory.mktemp("cloud")
    project = Studies(top / "project", tiny_data, top)
    yield project
    project.stop_emulator()


def test_both_backends_run_the_same_trials_and_end_with_the_same_models(cloud: Studies) -> None:
    words = ("tune", *SPACE, "--dataset", str(cloud.data), "--json", "--trials", "3", "--sampler", "tpe")
    words = (*words, "--try", "lr=0.1,batchsize=64")
    there = result(
        cloud.trainer(*words, "--backend", "azureml", "--emulator", "--driver", "client", "--", "--epochs", "2")
    )
    here = result(cloud.trainer(*words, "--", "--epochs", "2"))
    assert [trial["values"] for trial in there["trials"]] == [trial["values"] for trial in here["trials"]]
    assert [trial["curve"] for trial in there["trials"]] == [trial["curve"] for trial in here["trials"]]
    for one, other in zip(there["trials"], here["trials"], strict=True):
        models = [cloud.runs / trial["run_id"] / "outputs" / "model.npz" for trial in (one, other)]
        assert models[0].read_bytes() == models[1].read_bytes()
    assert there["snapshot"] == here["snapshot"]
    assert there["best"]["number"] == here["best"]["number"]
    # The best is in the workspace's registry, with its study, trial and values.
    models = ("models", "chainer-dnn-mnist", "--backend", "azureml", "--emulator", "--json")
    (version,) = json.loads(cloud.trainer(*models).stdout)
    assert version["run_id"] == there["best"]["run_id"]
    assert version["tags"]["study"] == there["study"]
    assert version["tags"]["trial"] == str(there["best"]["number"])


def test_ctrl_c_leaves_remote_trials_and_resume_adopts_them(cloud: Studies) -> None:
    words = ("tune", *SPACE, "--dataset", str(cloud.data), "--trials", "2", "--backend", "azureml", "--emulator")
    words = (*words, "--driver", "client")
    process = cloud.start(*words, "--", "--epochs", "2")
    before = set((cloud.path / ".trainer" / "studies").iterdir())
    deadline = time.monotonic() + 120
    while set((cloud.path / ".trainer" / "studies").iterdir()) == before or not _sent(cloud):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "continue" in err
    first = cloud.study.trials()[0].run_id
    found = result(cloud.trainer("tune", "--resume", "latest", "--json"))
    assert [trial["state"] for trial in found["trials"]] == ["Completed"] * 2
    assert found["trials"][0]["run_id"] == first


def _sent(cloud: Studies) -> bool:
    trials = cloud.study.trials()
    if 0 not in trials:
        return False
    record = cloud.runs / trials[0].run_id / "status.json"
    return record.exists() and json.loads(record.read_text())["status"] in ("Queued", "Running", "Finalizing")
