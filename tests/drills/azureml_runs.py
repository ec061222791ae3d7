"""The Azure ML backends on an emulator that is killed at every request of a run, and twenty submissions at once."""

from __future__ import annotations

import contextlib
import functools
import random
import re
import shutil
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azureml_emulator import Endpoint, FaultAction, FaultRule, Settings, start_in_background
from backends.azure.base import AzureBackend, workspace_ref
from backends.azure.v2.connection import open_connection
from backends.azure.v2.submit import RestClient
from backends.azureml import AzureMLBackend
from backends.azureml_v2 import AzureMLV2Backend
from backends.local import LocalBackend
from tests.conftest import write_idx_set
from tests.contract.backend_contract import arrays
from tests.drills.drill import ROOT, Drill
from tests.emulator.clients import kill
from trainer.backend import Backend
from trainer.errors import TrainerError
from trainer.handle import Run
from trainer.home import Home
from trainer.records import RunInfo, RunStatus
from trainer.runfolder import RunFolder
from trainer.runids import run_ids
from trainer.submission import JobRequest, prepare, submit

_SETTINGS = Settings(phase_duration=0.0, cancel_grace=2.0)
_SECONDS = 600.0
_EPOCHS = 40
_ARGUMENTS = tuple(f"--epochs {_EPOCHS} --batchsize 64 --units 20 --device cpu --seed 3 --output_dir ./outputs".split())
_AT_ONCE = 20
# What is of one run alone has other names in the next.
_ONE_TIME = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9a-f]{20})?|[0-9a-f]{32,64}|\d{8}-\d{6}-[a-z0-9]{6}"
)
# Of the files of a snapshot, of checkpoints and of versions one is enough.
_OF_MANY = re.compile(r"(?<=/_trainer_job/).*|(?<=trainer_checkpoints/1/)\d+|(?<=/versions/)\d+$")
# The cloud's description and tokens are asked for at any time; the last is the drill's own.
_ASIDE = ("/metadata/", "/msi/", "/_emulator/")


class _Project:
    """A project with an emulator of its own, and a backend."""

    def __init__(self, scratch: Path, kind: type[AzureBackend]) -> None:
        self.home = Home(scratch / "project" / ".trainer", scratch / "project")
        self.home.path.mkdir(parents=True)
        self.data = scratch / "tiny"
        self.data.mkdir()
        write_idx_set(self.data, train=512, test=128)
        self.state = self.home.path / "emulator"
        self.start()
        self.backend = kind(self.home, {"emulator": True, "checkpoint_seconds": 1})
        self.backend.notify = lambda _: None

    def start(self) -> Endpoint:
        """Start the emulator where none runs."""
        self.endpoint = start_in_background(self.state, settings=_SETTINGS)
        return self.endpoint

    def train(self, backend: Backend | None = None, **more: str) -> Run:
        # Code that the workspace has already is not uploaded again.
        script = self.data.parent / f"script-{uuid.uuid4().hex}" / "train.py"
        script.parent.mkdir()
        script.write_text(f"{(ROOT / 'chainer_mnist.py').read_text()}\n# {script}\n")
        request = JobRequest(script=script, script_args=_ARGUMENTS, dataset=str(self.data), **more)
        return submit(prepare(request, self.home), backend or self.backend, self.home)

    def undisturbed(self) -> dict[str, bytes]:
        """The model that the runs are to have: this machine's."""
        run = self.train(LocalBackend(self.home, {}))
        run.wait(_SECONDS)
        return bits(run)

    def check(self, run: Run, expected: dict[str, bytes]) -> None:
        """See that a run has completed, once and whole."""
        info = ended(run)
        assert info.status is RunStatus.COMPLETED, (info, run.folder.log_tail())
        assert bits(run) == expected
        steps = [metric.step for metric in run.metrics() if metric.name == "Accuracy"]
        assert steps == list(range(1, _EPOCHS + 1)), steps
        assert [path.name for path in (self.state / "jobs" / run.run_id).iterdir()] == ["1"], "it ran again"
        assert not list((self.state / "jobs").glob(f"{run.run_id}-*")), "it was sent again"
        there = RestClient(open_connection(workspace_ref(info))).find_run(run.run_id)
        assert there is not None
        assert len(there.get_metrics()["Accuracy"]) == _EPOCHS
        versions = [version for version in self.backend.store().versions() if version.run_id == run.run_id]
        assert len(versions) == 1, versions
        assert info.model is not None
        assert (versions[0].version, versions[0].sha256) == (info.model.version, info.model.sha256)


def bits(run: Run) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays(run).items()}


def ended(run: Run) -> RunInfo:
    """Follow a run to its end, as a client does that is told to look again."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(TrainerError):
            if run.info().status.terminal:
                return run.info()
        time.sleep(0.1)
    raise AssertionError(f"{run.run_id} has not ended: {run.folder.info()}")


def killed_at_every_request(scratch: Path, scale: float, kind: type[AzureBackend]) -> dict[str, int]:
    """Kill the emulator at every request that a run makes, before it is served and after."""
    project = _Project(scratch, kind)
    expected = project.undisturbed()
    project.check(project.train(), expected)  # makes the cluster
    project.endpoint.clear_requests()
    project.check(project.train(), expected)
    seen = [f"{each.method} {each.path}" for each in project.endpoint.recorded_requests()]
    asked = [route for route in seen if not any(aside in route for aside in _ASIDE)]
    routes = list(dict.fromkeys(_OF_MANY.sub("*", _ONE_TIME.sub("*", route)) for route in asked))
    tries = [(route, action) for action in (FaultAction.DELAY, FaultAction.DROP_ANSWER) for route in routes]
    chance = random.Random(0)
    chance.shuffle(tries)
    told: Counter[str] = Counter()
    for route, action in tries[: max(1, round(len(tries) * scale))]:
        began = time.monotonic()
        told[_killed_at(project, route, action, expected, chance)] += 1
        sys.stderr.write(f"{route} {action}: {time.monotonic() - began:.0f} s, {dict(told)}\n")
    with contextlib.suppress(Exception):
        project.endpoint.stop()
    return {"kills": told.total() - told["undisturbed"], **{f"runs {what}": count for what, count in told.items()}}


def _killed_at(
    project: _Project, route: str, action: FaultAction, expected: dict[str, bytes], chance: random.Random
) -> str:
    """Submit and follow a run, and kill the emulator at a request; return what became of the run."""
    endpoint = project.endpoint
    endpoint.set_faults(rules=[FaultRule(route=route, action=action, delay=2.0, times=1)])
    over, killed = threading.Event(), threading.Event()
    away = chance.uniform(0, 3)

    def watch() -> None:
        while not over.is_set():
            if endpoint.faults().rules[0].times == 0:
                killed.set()
                kill(endpoint)
                time.sleep(away)
                project.start()
                return
            time.sleep(0.01)

    before = set(run_ids(project.home.runs))
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run: Run | None = None
        with contextlib.suppress(TrainerError):
            run = project.train()
            ended(run)
    finally:
        over.set()
        watcher.join()
    found = set(run_ids(project.home.runs)) - before
    if run is None and not found:
        # Refused before there was a run, and the service has none either.
        return "refused"
    (run_id,) = found
    folder = RunFolder(project.home.runs / run_id)
    run = Run(folder, type(project.backend)(project.home, {"emulator": True}))
    info = folder.info()
    if "sent" in info.detail and not info.status.terminal:
        # What was sent may be on its way for a minute.
        folder.update(detail={**info.detail, "sent": float(str(info.detail["sent"])) - 3600})
    if ended(run).status is RunStatus.FAILED:
        assert "Start it again" in str(folder.info().failure), folder.info()
        assert not (project.state / "jobs" / run_id).exists(), "it was told to be lost, and ran"
        return "refused"
    project.check(run, expected)
    return "completed" if killed.is_set() else "undisturbed"


def at_once(scratch: Path, scale: float, kind: type[AzureBackend]) -> dict[str, int]:
    """Submit twenty runs at once, and lose the answers to half of the requests by which the service gets a run."""
    project = _Project(scratch, kind)
    expected = project.undisturbed()
    count = max(2, round(_AT_ONCE * scale))
    lost = [
        FaultRule(route=route, action=FaultAction.DROP_ANSWER, rate=0.5, times=count // 2)
        for route in ("PUT */jobs/*", "POST */snapshotrun*")
    ]
    project.endpoint.set_faults(rules=lost)
    with ThreadPoolExecutor(count) as pool:
        runs = list(pool.map(lambda _: project.train(model_name="at-once"), range(count)))
        list(pool.map(ended, runs))
    answers = sum(count // 2 - int(rule.times or 0) for rule in project.endpoint.faults().rules)
    project.endpoint.clear_faults()
    for run in runs:
        project.check(run, expected)
    versions = [version.version for version in project.backend.store().versions("at-once")]
    assert sorted(versions) == list(range(1, count + 1)), versions
    assert len(list((project.state / "jobs").iterdir())) == count
    project.endpoint.stop()
    shutil.rmtree(project.state, ignore_errors=True)
    return {"runs at once": count, "answers lost": answers}


def _on(drill: Callable[..., dict[str, int]], kind: type[AzureBackend]) -> Callable[[Path, float], dict[str, int]]:
    return functools.partial(drill, kind=kind)


DRILLS = tuple(
    drill
    for kind in (AzureMLBackend, AzureMLV2Backend)
    for drill in (
        Drill(
            f"{kind.name}-kill",
            f"A run of `{kind.name}` under which the emulator is killed at any request is whole and there once, or was "
            "refused and never ran.",
            _on(killed_at_every_request, kind),
        ),
        Drill(
            f"{kind.name}-at-once",
            f"Runs of `{kind.name}` that are submitted at once, some answers lost, are each there once, with the same "
            "model.",
            _on(at_once, kind),
        ),
    )
)
