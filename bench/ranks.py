"""Scaling by ranks: an epoch of the tutorial's network by several processes of this machine that train one model.

This program beside ChainerMN as its example uses it and PyTorch's DistributedDataParallel. All take 128 examples per
batch, of all ranks together, and one BLAS thread per rank.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.epochs import load
from bench.measuring import Samples

PEERS = Path(__file__).parent / "peers"
ROOT = Path(__file__).parents[1]
REFERENCE = "this program, 1 rank"
_EPOCHS = 4  # the first warms up


def measure(
    data: Path, units: int, repeats: int, folder: Path, peers: Path, most: int
) -> tuple[dict[str, Samples], list[str]]:
    """Time epochs by 1, 2, 4, ... ranks of each, interleaved.

    Args:
        data: Folder of the four IDX files.
        units: Units in each hidden layer.
        repeats: How often each is started; each start times three epochs.
        folder: For what they read and write.
        peers: Environments of peers; ``torch/bin/python`` there is PyTorch's, else this interpreter is.
        most: How many ranks there are at most.

    Returns:
        Samples by name, and a line for each subject that had to be left out.

    Raises:
        RuntimeError: A command failed; the message has the end of its output.
    """
    folder.mkdir(parents=True)
    arrays = folder / "arrays.npz"
    found, floats, labels = load(data)
    np.savez(arrays, images=found.train_images.reshape(len(floats), -1), x=floats, t=labels)
    notes = []
    own = sys.executable if importlib.util.find_spec("torch") else None
    beside = peers / "torch" / "bin" / "python"
    torch = str(beside) if beside.exists() else own
    if torch is None:
        notes.append(f"PyTorch is not installed, here or in {beside}: its rows are left out (pip install torch).")
    words = ["--units", str(units), "--epochs", str(_EPOCHS), "--arrays", str(arrays)]
    subjects: dict[str, list[str]] = {}
    for count in (1 << power for power in range(most.bit_length())):
        name = f"{count} rank{'s' * (count > 1)}"
        mpi = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(count), sys.executable]
        subjects[f"this program, {name}"] = [*mpi, str(PEERS / "ranks_ours.py"), *words]
        chainermn = [str(PEERS / "plain.py"), str(PEERS / "ranks_chainermn.py")]
        subjects[f"ChainerMN, its example's way, {name}"] = [*mpi, *chainermn, *words]
        if torch is not None:
            script = [torch, str(PEERS / "ranks_torch.py"), "--ranks", str(count)]
            subjects[f"PyTorch DDP, gloo, {name}"] = [*script, *words]
    samples = {name: Samples() for name in subjects}
    for number in range(repeats):
        for index, (name, command) in enumerate(subjects.items()):
            cwd = folder / f"{index}-{number}"
            cwd.mkdir()
            _time(command, cwd, samples[name])
    return samples, notes


def _time(command: list[str], cwd: Path, samples: Samples) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HYDRA_IFACE": "lo",
        "FI_PROVIDER": "tcp",
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    line = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("{")), None)
    if done.returncode or line is None:
        text = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{text}")
    took = json.loads(line)
    samples.wall += took["wall"][1:]
    samples.cpu += took["cpu"][1:]
