"""Every command and every block of Python that the pages show, run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs import tables
from tests.docs.pages import PAGES, blocks
from tests.drills.drill import Drill

_SCRIPT = """\
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--my-flag")
parser.add_argument("--epoch", type=int)
parser.parse_args()
import chainer
chainer.serializers.save_npz("outputs/model.npz", chainer.links.Linear(3, 2))
"""
_DIGIT = """\
from PIL import Image
from trainer.runtime import datasets
Image.fromarray(datasets.load("mnist-5k").test_images[0]).save("digit.png")
"""


def pages(scratch: Path, _: float) -> dict[str, int]:
    """Run what the pages show, in one project with a few runs, two versions of a model and a study."""
    project = _Project(scratch / "project")
    for name in ("train.py", "train_mnist.py"):
        (project.path / name).write_text(_SCRIPT)
    first, second = (project.train("--epochs", "2", "--lr", lr, "--seed", "1") for lr in ("0.01", "0.05"))
    project.python(_DIGIT)
    study = json.loads(project.trainer("tune --space lr=0.01,0.05 --trials 2 --dataset mnist-5k --json -- --epochs 1"))
    values = {"run": first, "other": second, "study": study["study"]}
    count = {"commands": 0, "programs": 0}
    for name, path in PAGES.items():
        if name in tables.WHOLE:
            continue
        shutil.rmtree(project.path / "model", ignore_errors=True)  # where two pages fetch a model to
        for block in blocks(path):
            wrapped = tables.PYTHON.get((name, block.first))
            if wrapped is not None:
                indented = block.text.replace("\n", "\n    ")
                project.python(wrapped.replace("INDENTED", indented).replace("TEXT", block.text))
                count["programs"] += 1
            for command in block.commands() if block.language != "python" else ():
                if command in tables.NOT_RUN:
                    continue
                words = shlex.split(tables.MORE.get(command, command))
                if "OTHER" not in words and ("delete" in words or "rename" in words):
                    values["run"] = project.train("--epochs", "1")  # one of its own, to be removed or named
                typed = [tables.WORDS.get(word, word).format(**values) for word in words]
                if "baseline" in typed:
                    typed[-1] = f"baseline-{count['commands']}"
                if typed[1:3] == ["delete", "chainer-dnn-mnist:2"]:
                    typed[2] = project.version()
                project.trainer(shlex.join(typed[1:]))
                values["run"] = first
                count["commands"] += 1
    return count


class _Project:
    """A directory without an account, a network or a card."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINER_", "AZUREML_"))}
        self._environment = kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(path.parent),
            "TRAINER_DATA_MIRRORS": "off",
            "PYTHONWARNINGS": "ignore",
        }

    def _run(self, command: list[str], shown: str) -> str:
        done = subprocess.run(
            command, cwd=self.path, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{shown}\n{done.stdout}{done.stderr}"
        return done.stdout

    def trainer(self, words: str) -> str:
        return self._run([sys.executable, "-m", "trainer", *shlex.split(words)], f"trainer {words}")

    def train(self, *words: str) -> str:
        return str(json.loads(self.trainer(shlex.join(["run", "--dataset", "mnist-5k", "--json", *words])))["run_id"])

    def version(self) -> str:
        model = json.loads(self.trainer(f"show {self.train('--epochs', '1')} --json"))["model"]
        return f"{model['name']}:{model['version']}"

    def python(self, text: str) -> str:
        return self._run([sys.executable, "-c", text], text)


DRILLS = (Drill("docs", "every command and program that the pages show works as shown", pages),)
