"""Search the tutorial's space with Optuna and Chainer alone, or with Optuna and ``trainer run``.

    python optuna_chainer.py run|function --data DIR --space NAME=A,B ... --trials N --parallel N [--epochs N]

``function`` trains in a fresh process per trial, so that a crash harms one trial alone: plain Chainer, the tutorial's
network and optimizer, an evaluation per epoch, the model saved at the end.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Each with the size of its head in bytes.
FILES = {
    "train-images-idx3-ubyte": 16,
    "train-labels-idx1-ubyte": 8,
    "t10k-images-idx3-ubyte": 16,
    "t10k-labels-idx1-ubyte": 8,
}


def train(data: str, batchsize: int, epochs: int, folder: str) -> float:
    """Train with Chainer; return the accuracy on the test images."""
    from trainer.runtime import compat

    compat.apply()  # plain Chainer doesn't import on today's Python
    import chainer
    import chainer.functions as F  # noqa: N812
    import chainer.links as L  # noqa: N812
    import numpy as np
    from chainer import training
    from chainer.training import extensions

    class MLP(chainer.Chain):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            with self.init_scope():
                self.l1, self.l2, self.l3 = L.Linear(None, 100), L.Linear(None, 100), L.Linear(None, 10)

        def forward(self, x: Any) -> Any:  # noqa: ANN401
            return self.l3(F.relu(self.l2(F.relu(self.l1(x)))))

    arrays = []
    for name, head in FILES.items():
        packed = Path(data) / f"{name}.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else (Path(data) / name).read_bytes()
        arrays.append(np.frombuffer(content, np.uint8, offset=head))
    images = [array.reshape(-1, 784).astype(np.float32) / 255 for array in arrays[::2]]
    labels = [array.astype(np.int32) for array in arrays[1::2]]
    train_set, test_set = (chainer.datasets.TupleDataset(x, t) for x, t in zip(images, labels, strict=True))
    np.random.seed(0)
    model = MLP()
    classifier = L.Classifier(model)
    optimizer = chainer.optimizers.MomentumSGD(0.01, 0.9).setup(classifier)
    iterator = chainer.iterators.SerialIterator(train_set, batchsize)
    test = chainer.iterators.SerialIterator(test_set, 1000, repeat=False, shuffle=False)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    loop = training.Trainer(updater, (epochs, "epoch"), out=folder)
    loop.extend(extensions.Evaluator(test, classifier))
    loop.extend(extensions.LogReport())
    loop.run()
    chainer.serializers.save_npz(Path(folder) / "model.npz", model)
    return float(loop.get_extension("LogReport").log[-1]["validation/main/accuracy"])


def run(data: str, batchsize: int, epochs: int) -> float:
    """Train through ``trainer run``; return the accuracy."""
    words = ["--dataset", data, "--batchsize", str(batchsize), "--epochs", str(epochs), "--device", "cpu"]
    ran = subprocess.run(
        [sys.executable, "-m", "trainer", "run", "--json", "--no-register", *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(json.loads(ran.stdout)["metrics"]["Accuracy"])


def main() -> None:
    """Search."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=("run", "function"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--space", action="append", default=[])
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    space = {name: [int(word) for word in words.split(",")] for name, words in (s.split("=") for s in args.space)}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend("optuna.jsonl"))
    study = optuna.create_study(direction="maximize", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    context = multiprocessing.get_context("spawn")

    def objective(trial: Any) -> float:  # noqa: ANN401
        values = {name: trial.suggest_categorical(name, listed) for name, listed in space.items()}
        values.setdefault("epochs", args.epochs)
        if args.way == "run":
            return run(args.data, **values)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            folder = tempfile.mkdtemp(dir=".")
            return pool.submit(train, args.data, values["batchsize"], values["epochs"], folder).result()

    with ThreadPoolExecutor(args.parallel) as threads:
        each = args.trials // args.parallel
        for done in [threads.submit(study.optimize, objective, n_trials=each) for _ in range(args.parallel)]:
            done.result()
    print(study.best_trial.params, study.best_value)


if __name__ == "__main__":
    main()
