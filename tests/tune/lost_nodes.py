"""Studies on Azure ML whose only trial loses its node."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from azureml_emulator import Endpoint, Settings, start_in_background
from tests.emulator.clients import Http
from tests.tune.conftest import Studies
from trainer.errors import TrainerError
from trainer.runfolder import RunFolder

# Logs one value, and waits. The next attempt goes on from what the first has left.
SCRIPT = """
import argparse, os, time
from pathlib import Path
import numpy as np
from azureml.core.run import Run

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--x", type=float, required=True)
parser.add_argument("--wait", action="store_true")
args = parser.parse_args()
run = Run.get_context()
earlier = os.environ.get("TRAINER_RESUME_DIR")
if earlier is None:
    run.log("score", args.x)
    Path("outputs/states").mkdir()
    Path("outputs/states/.half").write_text(repr(args.x))
    Path("outputs/states/.half").rename("outputs/states/1.txt")
if earlier is None or args.wait:
    time.sleep(600)
assert float(Path(earlier, "states/1.txt").read_text()) == args.x
print("goes on, attempt", os.environ["TRAINER_ATTEMPT"], flush=True)
run.log("score", 10 + args.x)
np.savez("outputs/model.npz", x=np.float64(args.x))
"""


@contextlib.contextmanager
def failing_nodes(folder: Path, data: Path) -> Iterator[tuple[Studies, Endpoint]]:
    """A project with :data:`SCRIPT`, and an emulator of its own on which a run that loses its node fails."""
    project = Studies(folder / "project", data, folder)
    project.script(SCRIPT)
    endpoint = start_in_background(project.path / ".trainer" / "emulator", settings=Settings(phase_duration=0.0))
    try:
        endpoint.set_faults(evicted_runs_fail=True)
        yield project, endpoint
    finally:
        endpoint.stop()


class EvictedStudy:
    """A study of one trial on low-priority nodes, under way."""

    def __init__(self, project: Studies, endpoint: Endpoint, kind: str, driver: str, *words: str) -> None:
        self.project, self.driver, self.http = project, driver, Http(endpoint)
        studies = project.path / ".trainer" / "studies"
        before = _names(studies)
        what = ("tune", "--script", "script.py", "--metric", "score", "--space", "x=uniform:0..1", "--trials", "1")
        on = ("--backend", kind, "--emulator", "--driver", driver, "--checkpoints", "states/*", "--json")
        low = ("--compute", "low-cluster", "--vm-priority", "lowpriority", "--checkpoint-seconds", "1")
        self.process = project.start(*what, *on, *low, "--", *words)
        [self.study_id] = self.until(lambda: _names(studies) - before)

    def until(self, true: Callable[[], Any]) -> Any:
        """Wait for something, while the command runs."""
        deadline = time.monotonic() + 300
        while not (found := true()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return found

    def latest(self) -> Any:
        """The record of its latest trial's run, or None."""
        for name in sorted(_names(self.project.runs), reverse=True):
            with contextlib.suppress(TrainerError):
                info = RunFolder(self.project.runs / name).info()
                if info.study == self.study_id:
                    return info
        return None

    def checkpointed(self) -> str | None:
        """The service's name of the trial, once its checkpoint has left the node."""
        info = self.latest()
        if info is None or "run" not in info.detail:
            return None
        # Over HTTP: the backend's own way would bind this process, and its other tests, to this emulator.
        name = str(info.detail["run"])
        url = f"/artifact/v2.0{self.http.workspace}/artifacts/ExperimentRun/dcid.{name}"
        answer = self.http("GET", url)
        return name if answer.ok and "trainer_checkpoints/1/1.json" in answer.text else None

    def end(self) -> dict[str, Any]:
        """What the command ended with."""
        out, err = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, err
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def end_completed(self) -> None:
        """See that the trial went on from its checkpoint, and that its model is registered."""
        found = self.end()
        assert (found["status"], found["driver"]) == ("Completed", self.driver)
        [trial] = found["trials"]
        x = trial["values"]["x"]
        assert (trial["state"], trial["curve"]) == ("Completed", [x, 10 + x])
        assert found["model"]["name"] == "script"
        assert [restart.attempt for restart in self.latest().restarts] == [2]
        assert "goes on, attempt 2" in self.project.trainer("logs", trial["run_id"]).stdout

    def end_canceled(self) -> None:
        """Cancel the study once the trial was sent again, and see that it has ended."""
        self.until(lambda: self.latest().restarts)
        assert self.project.trainer("cancel", self.study_id).returncode == 0
        found = self.end()
        assert (found["status"], [trial["state"] for trial in found["trials"]]) == ("Canceled", ["Canceled"])


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name[0] in "2s"} if folder.is_dir() else set()
