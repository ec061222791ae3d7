"""Runs that lose their node at any moment, here and on both kinds of cluster; each ends with the undisturbed model."""

from __future__ import annotations

import functools
import os
import random
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import psutil

from azureml_emulator import Emulator, Endpoint, Settings
from azureml_emulator.errors import EmulatorError
from backends.azure.base import AzureBackend
from backends.azureml import AzureMLBackend
from backends.azureml_v2 import AzureMLV2Backend
from backends.local import LocalBackend
from tests.backends.local_runs import until
from tests.conftest import write_idx_set
from tests.drills.drill import Drill
from trainer.backend import Backend
from trainer.handle import Run
from trainer.home import Home
from trainer.records import RunStatus
from trainer.submission import JobRequest, prepare, submit

_TIMES = 20
_SECONDS = 600.0
# By ranks; those of one machine wait for each other by spinning.
_EPOCHS = {1: 1000, 2: 200}


def _train(home: Home, backend: Backend, data: Path, ranks: int, restarts: int = 5) -> Run:
    training = {"epochs": _EPOCHS[ranks], "batchsize": 64, "units": 20, "device": "cpu", "seed": 3}
    request = JobRequest(training=training, dataset=str(data), max_restarts=restarts, processes_per_node=ranks)
    return submit(prepare(request, home), backend, home)


def _model(run: Run) -> dict[str, bytes]:
    info = run.wait(_SECONDS)
    assert info.status is RunStatus.COMPLETED, (info.failure, run.folder.log_tail())
    steps = [metric.step for metric in run.metrics() if metric.name == "Accuracy"]
    assert steps == list(range(1, _EPOCHS[run.job.ranks] + 1)), steps
    with zipfile.ZipFile(run.file("model.npz")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _reached(run: Run, epoch: int) -> bool:
    """Whether a run has ended, or logged so many epochs."""
    return run.info().status.terminal or sum(metric.name == "Accuracy" for metric in run.metrics()) >= epoch


def _wait(run: Run, chance: random.Random, began: bool) -> None:
    """Wait for any moment of a run: of a few seconds, or of its epochs, however long one takes here."""
    if chance.random() < 0.5:
        if began:
            until(lambda: _reached(run, 1), "its first epoch")
        time.sleep(chance.uniform(0, 8))
    else:
        epoch = chance.randrange(1, _EPOCHS[run.job.ranks])
        until(lambda: _reached(run, epoch), f"epoch {epoch}")
        time.sleep(chance.uniform(0, 0.5))


def _prepared(scratch: Path) -> tuple[Home, Path]:
    data = scratch / "tiny"
    data.mkdir()
    write_idx_set(data, train=512, test=128)
    return Home(scratch / "project" / ".trainer", scratch / "project"), data


def _kill_here(run: Run, chance: random.Random) -> None:
    """Kill the script, or one of its ranks, or its supervisor, or both."""
    detail = run.folder.info().detail
    scripts = [detail.get("pid")]
    if run.job.ranks > 1:
        with suppress(OSError, ValueError):  # it has not come to that yet
            scripts = [int((run.folder.path / ".ranks" / f"pid.{chance.randrange(run.job.ranks)}").read_text())]
    supervisors = [detail.get("supervisor_pid")]
    for pid in chance.choice([scripts, supervisors, supervisors + scripts]):
        with suppress(psutil.NoSuchProcess):
            if pid is not None:
                psutil.Process(pid).kill()


def here(scratch: Path, scale: float, ranks: int = 1) -> dict[str, int]:
    """Kill script and supervisor on this machine."""
    home, data = _prepared(scratch)
    backend = LocalBackend(home, {})
    expected = _model(_train(home, backend, data, ranks))
    chance, restarts = random.Random(0), 0
    for _ in range(max(1, round(_TIMES * scale))):
        run = _train(home, backend, data, ranks)
        for _ in range(2):
            _wait(run, chance, began=False)
            if not run.info().status.terminal:
                _kill_here(run, chance)
        assert _model(run) == expected
        restarts += len(run.folder.info().restarts)
        sys.stderr.write(f"{[restart.text for restart in run.folder.info().restarts]}\n")
    return {"runs": max(1, round(_TIMES * scale)), "further attempts": restarts}


def _evicted(
    scratch: Path, scale: float, kind: type[AzureBackend], priority: str, ranks: int = 1, *, fail: bool = False
) -> dict[str, int]:
    home, data = _prepared(scratch)
    expected = _model(_train(home, LocalBackend(home, {}), data, ranks))
    with Emulator(scratch / "emulator", settings=Settings(phase_duration=0.0, cancel_grace=2.0)) as endpoint:
        home.path.mkdir(parents=True, exist_ok=True)
        (home.path / "emulator").symlink_to(endpoint.state_dir, target_is_directory=True)
        endpoint.set_faults(evicted_runs_fail=fail)
        os.environ.update(AZUREML_DEFAULT_BACKOFF="0")
        options = {"emulator": True, "vm_priority": priority, "compute": f"{priority[:4]}-cluster"}
        backend = kind(home, {**options, "checkpoint_seconds": 2})
        backend.notify = lambda _: None
        chance, restarts = random.Random(1), 0
        times = max(1, round(_TIMES * scale))
        for _ in range(times):
            run = _train(home, backend, data, ranks)
            # Some before the first checkpoint has left the node.
            _wait(run, chance, began=True)
            _evict(endpoint, run, notice=chance.choice([0.0, 0.0, 5.0]))
            assert _model(run) == expected
            restarts += len(run.folder.info().restarts)
            sys.stderr.write(f"{[restart.text for restart in run.folder.info().restarts]}\n")
    return {"runs": times, "further attempts": restarts}


def _evict(endpoint: Endpoint, run: Run, notice: float) -> None:
    with suppress(EmulatorError):  # it has ended
        endpoint.evict(str(run.folder.info().detail["run"]), notice=notice)


_SAME = (
    "goes on from its last checkpoint, and ends with the undisturbed run's model, bit for bit, each epoch logged once."
)
DRILLS = (
    Drill("evict-here", f"A run on this machine whose script or supervisor is killed {_SAME}", here),
    *(
        Drill(
            f"evict-{'v2-' if kind is AzureMLV2Backend else ''}{name}",
            f"A run of `{kind.name}` that {what} {_SAME}",
            functools.partial(_evicted, kind=kind, priority=priority, fail=name == "failed"),
        )
        for kind in (AzureMLBackend, AzureMLV2Backend)
        for name, priority, what in (
            ("dedicated", "dedicated", "fails because a dedicated node is lost"),
            ("restarted", "lowpriority", "Azure ML restarts on another low-priority node"),
            ("failed", "lowpriority", "fails because a low-priority node is taken"),
        )
    ),
    Drill(
        "evict-ranks-here",
        f"A run of two ranks on this machine, one of which or whose supervisor is killed, {_SAME}",
        lambda scratch, scale: here(scratch, scale, ranks=2),
    ),
    *(
        Drill(
            f"evict-{'v2-' if kind is AzureMLV2Backend else ''}ranks",
            f"A run of two ranks of `{kind.name}` that Azure ML restarts on another low-priority node {_SAME}",
            functools.partial(_evicted, kind=kind, priority="lowpriority", ranks=2),
        )
        for kind in (AzureMLBackend, AzureMLV2Backend)
    ),
)
