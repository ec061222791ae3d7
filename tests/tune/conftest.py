"""Studies of small scripts and of the included one, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.cli.conftest import Project
from trainer.tune.study import StudyFolder, Trial, find_study, study_ids

# Logs a curve that depends on --x alone, best at 0.3, and does what --mode asks for.
SCRIPT = """
import argparse, os, signal, sys, time
import numpy as np
from azureml.core.run import Run

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--x", type=float, required=True)
parser.add_argument("--mode", default="plain")
parser.add_argument("--seconds", type=float, default=0.0)
args = parser.parse_args()
run = Run.get_context()
if args.mode == "fail":
    raise ValueError("this never works")
if args.mode == "crash" and args.x > 0.5:
    os.kill(os.getpid(), signal.SIGSEGV)
for step in range(1, 5):
    time.sleep(args.seconds)
    run.log("score", 1 - abs(args.x - 0.3) / step)
    print("step", step, flush=True)
np.savez("outputs/model.npz", x=np.float64(args.x))
"""


class Studies(Project):
    """A project with :data:`SCRIPT`, and studies of it."""

    def __init__(self, path: Path, data: Path, home: Path) -> None:
        super().__init__(path, data, home)
        self.script(SCRIPT)

    def tune(self, *words: str, **options: Any) -> Any:
        """Tune the small script; ``--json`` is added."""
        more = options.pop("script", ())
        mine = ("--script", "script.py", "--metric", "score")
        return self.trainer("tune", *mine, *words, "--json", *(("--", *more) if more else ()), **options)

    def tune_digits(self, *words: str, epochs: int = 3, **options: Any) -> Any:
        """Tune the included script."""
        what = ("--space", "lr=log:1e-2..0.3", "--space", "batchsize=32,64", "--dataset", str(self.data))
        return self.trainer("tune", *what, *words, "--json", "--", "--epochs", str(epochs), **options)

    def stop_emulator(self) -> None:
        """End the emulator that a command has started for this project."""
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if any("azureml_emulator" in word for word in words) and str(self.path) in " ".join(words):
                process.terminate()

    @property
    def study(self) -> StudyFolder:
        studies = self.path / ".trainer" / "studies"
        return find_study(studies, study_ids(studies)[0])

    def lines(self) -> list[Trial]:
        """Every line of the latest study's trials.jsonl."""
        text = (self.study.path / "trials.jsonl").read_bytes()
        return [msgspec.json.decode(line, type=Trial) for line in text.splitlines()]


def result(ran: Any) -> dict[str, Any]:
    """The object that a command ended with."""
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.fixture
def studies(tmp_path: Path, tiny_data: Path) -> Studies:
    return Studies(tmp_path / "project", tiny_data, tmp_path)
