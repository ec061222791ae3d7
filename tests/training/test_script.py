"""``chainer_mnist.py`` as a user starts it: a real process, a real data set, the files it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
import pytest

import trainer
from trainer.runtime import npz
from trainer.runtime.datasets import Dataset

ROOT = Path(trainer.__file__).parents[1]
SCRIPT = ROOT / "chainer_mnist.py"


def start(*arguments: Any, cwd: Any, launcher: Any = None, **environment: Any) -> Any:
    command = [
        sys.executable,
        *([str(launcher)] if launcher else []),
        str(SCRIPT if launcher is None else arguments[0]),
    ]
    rest = arguments if launcher is None else arguments[1:]
    return subprocess.run(
        [*command, *map(str, rest)],
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "error", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def trained(*arguments: Any, cwd: Any, **options: Any) -> Any:
    done = start(*arguments, cwd=cwd, **options)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two epochs on the small set."""
    folder = tmp_path_factory.mktemp("run")
    done = trained("--dataset", tiny_data, "--epochs", 2, "--batchsize", 50, "--device", "cpu", cwd=folder)
    return folder, done


def test_learns_and_says_so(run: Any, tiny_data: Path) -> None:
    folder, done = run
    assert "tiny: 512 training and 128 test images" in done.stdout
    assert "BLAS threads: 1" in done.stdout
    for name in ("Batch size", "Epochs", "Accuracy", "Loss", "Validation loss"):
        assert f"{name}" in done.stdout
    log = json.loads((folder / "outputs" / "log").read_text())
    assert [entry["epoch"] for entry in log] == [1, 2]
    assert log[1]["main/loss"] < log[0]["main/loss"]
    assert log[1]["validation/main/accuracy"] > 0.3


class TutorialNetwork(chainer.Chain):
    """The tutorial's scoring script builds this and loads the model into it."""

    def __init__(self, n_mid_units: Any = 100, n_out: Any = 10) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(None, n_mid_units)
            self.l2 = L.Linear(n_mid_units, n_mid_units)
            self.l3 = L.Linear(n_mid_units, n_out)

    def forward(self, x: chainer.Variable) -> Any:
        h = F.relu(self.l1(x))
        h = F.relu(self.l2(h))
        return self.l3(h)


def test_the_tutorials_scoring_script_can_load_the_model(run: Any, data: Dataset) -> None:
    folder, _ = run
    model = TutorialNetwork()
    chainer.serializers.load_npz(str(folder / "outputs" / "model.npz"), model)
    scores = model(data.test_images.reshape(-1, 784).astype(np.float32) / 255).array
    accuracy = (scores.argmax(axis=1) == data.test_labels).mean()
    log = json.loads((folder / "outputs" / "log").read_text())
    assert accuracy == log[-1]["validation/main/accuracy"]


def test_same_seed_same_bytes_from_a_staged_snapshot(run: Any, tiny_data: Path, tmp_path: Path) -> None:
    """What a backend does: the runtime beside the script in a folder of its own, nothing else on the path."""
    folder, _ = run
    runtime = tmp_path / "_trainer_job" / "trainer"
    shutil.copytree(ROOT / "trainer" / "runtime", runtime / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "trainer" / "__init__.py", runtime)
    shutil.copytree(tiny_data, tmp_path / "_trainer_job" / "data" / "tiny")
    shutil.copy(SCRIPT, tmp_path)
    done = trained(
        "chainer_mnist.py", "--epochs", 2, "--batchsize", 50, "--output_dir", "./outputs",
        cwd=tmp_path, launcher=runtime / "runtime" / "launch.py",
    )  # fmt: skip
    assert "tiny: 512" in done.stdout
    assert (tmp_path / "outputs" / "model.npz").read_bytes() == (folder / "outputs" / "model.npz").read_bytes()
    facts = json.loads((tmp_path / "outputs" / "environment.json").read_text())
    assert facts["blas_threads"] == 1
    assert facts["device"].startswith("cpu") or facts["device"].startswith("cuda")


def test_another_seed_is_another_model(run: Any, tiny_data: Path, tmp_path: Path) -> None:
    folder, _ = run
    trained("--dataset", tiny_data, "-e", 2, "-b", 50, "--device", "cpu", "--seed", 7, cwd=tmp_path)
    ours, theirs = npz.read(tmp_path / "outputs" / "model.npz"), npz.read(folder / "outputs" / "model.npz")
    assert not np.array_equal(ours["l1/W"], theirs["l1/W"])


def test_resumed_ends_with_the_same_bytes(run: Any, tiny_data: Path, tmp_path: Path) -> None:
    folder, _ = run
    common = ("--dataset", tiny_data, "-b", 50, "-g", -1)
    trained(*common, "-e", 1, "-o", "first", cwd=tmp_path)
    trained(*common, "-e", 2, "-o", "second", "--resume", "first/checkpoint.npz", cwd=tmp_path)
    assert (tmp_path / "second" / "model.npz").read_bytes() == (folder / "outputs" / "model.npz").read_bytes()


def test_the_line_of_speed_can_be_deleted(run: Any, tiny_data: Path, tmp_path: Path) -> None:
    """Same model, same log, same checkpoint: Chainer's own updater does every step then."""
    folder, _ = run
    lines = SCRIPT.read_text().splitlines(keepends=True)
    (speed,) = (line for line in lines if "rt.compiled" in line)
    plain = tmp_path / "chainer_mnist.py"
    plain.write_text("".join(line for line in lines if line is not speed))
    subprocess.run(
        [sys.executable, plain, "--dataset", tiny_data, "--epochs", "2", "--batchsize", "50", "--device", "cpu"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}, check=True,
    )  # fmt: skip
    assert (tmp_path / "outputs" / "model.npz").read_bytes() == (folder / "outputs" / "model.npz").read_bytes()
    logs = [json.loads((place / "outputs" / "log").read_text()) for place in (tmp_path, folder)]
    for entry in (*logs[0], *logs[1]):
        del entry["elapsed_time"]
    assert logs[0] == logs[1]
    ours, theirs = (npz.read(place / "outputs" / "checkpoint.npz") for place in (folder, tmp_path))
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"_snapshot_elapsed_time", "extensions/LogReport/_log"}:
        if "elapsed" not in name:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def cnn(*arguments: Any, cwd: Path) -> Any:
    script = Path(__file__).parent / "scripts" / "cnn.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    )


def test_the_parts_carry_a_convolutional_network(tmp_path: Path) -> None:
    """The same parts around another network: what can't be compiled goes through Chainer, and that is said once."""
    done = cnn("compiled", "compiled", cwd=tmp_path)
    assert done.stderr.count("note: the updater is not compiled") == 1
    plain = cnn("plain", "plain", cwd=tmp_path)
    assert plain.stderr == ""
    assert plain.stdout == done.stdout
    log = json.loads((tmp_path / "plain" / "log").read_text())
    assert log[-1]["main/loss"] < log[0]["main/loss"]
    model = (tmp_path / "plain" / "model.npz").read_bytes()
    assert (tmp_path / "compiled" / "model.npz").read_bytes() == model


def test_a_convolutional_network_resumes(tmp_path: Path) -> None:
    cnn("compiled", "whole", cwd=tmp_path)
    cnn("compiled", "part", "--epochs", "1", cwd=tmp_path)
    cnn("compiled", "rest", "--resume", "part/checkpoint.npz", cwd=tmp_path)
    assert (tmp_path / "rest" / "model.npz").read_bytes() == (tmp_path / "whole" / "model.npz").read_bytes()


def test_help_has_every_default() -> None:
    done = start("--help", cwd=ROOT)
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for words in ("passes over the training set (default: 10)", "learning rate (default: 0.01)", "(default: outputs)"):
        assert words in text
    assert "BLAS threads (default: TRAINER_THREADS, else 1) " in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("--epochs", "0"),
        ("--epochs", "two"),
        ("--batchsize", "-3"),
        ("--units", "0"),
        ("--lr", "-0.1"),
        ("--lr", "nan"),
        ("--momentum", "1"),
        ("--seed", "-1"),
        ("--seed", str(2**32)),
        ("--threads", "0"),
        ("--device", "cpu", "--gpu_id", "0"),
        ("--device", "tpu"),
        ("--gpu_id", "first"),
    ],
    ids=" ".join,
)
def test_wrong_options_are_refused(tmp_path: Path, arguments: Any) -> None:
    done = start(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batchsize", "513"), "--batchsize 513 is more than the 512 training images"),
        (("--resume", "none.npz"), "There is no file none.npz"),
    ],
)
def test_what_cannot_work_is_refused(tiny_data: Path, tmp_path: Path, arguments: Any, message: Any) -> None:
    done = start("--dataset", tiny_data, *arguments, cwd=tmp_path)
    assert done.returncode == 3
    assert f"error: {message}" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.npz"))


def test_an_unusable_output_folder_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = start("--dataset", tiny_data, "--output_dir", "file/outputs", cwd=tmp_path)
    assert done.returncode == 3
    assert "error: [Errno 20] Not a directory: 'file/outputs'" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_set_of_the_same_name_is_refused(run: Any, tiny_data: Path, tmp_path: Path) -> None:
    folder, _ = run
    other = tmp_path / "tiny"
    shutil.copytree(tiny_data, other)
    images = bytearray((other / "train-images-idx3-ubyte").read_bytes())
    images[100] ^= 1
    (other / "train-images-idx3-ubyte").write_bytes(images)
    options = ("--dataset", other, "-b", 50, "--device", "cpu", "--epochs", 3)
    done = start(*options, "--resume", folder / "outputs" / "checkpoint.npz", cwd=tmp_path)
    assert done.returncode == 3
    assert "checksum of the training set" in done.stderr


def test_a_full_disk_is_said_and_keeps_the_last_checkpoint(run: Any, tiny_data: Path, tmp_path: Path) -> None:
    """A file size limit stands for a full disk: the checkpoint does not fit, the log does."""
    folder, _ = run
    output = tmp_path / "outputs"
    output.mkdir()
    shutil.copy(folder / "outputs" / "checkpoint.npz", output)
    before = (output / "checkpoint.npz").read_bytes()
    limited = (
        "import resource, signal, runpy, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.argv = ['chainer_mnist.py', '--dataset', {str(tiny_data)!r}, '-e', '1', '--device', 'cpu']\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", limited], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert (output / "checkpoint.npz").read_bytes() == before
    assert sorted(path.name for path in output.iterdir() if path.name != "log") == ["checkpoint.npz"]
