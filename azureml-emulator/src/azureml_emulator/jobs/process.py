"""One attempt at executing a job: its directory, its processes, and how it is started."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from azureml_emulator.jobs.command import CommandPlan
from azureml_emulator.jobs.files import lay_out
from azureml_emulator.jobs.plan import LAUNCHER, MPIRUN, JobPlan, job_environment, kept_environment
from azureml_emulator.jobs.plans import Plan, plan_of
from azureml_emulator.private import write_atomically
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import RUN_ORIGIN
from azureml_emulator.store.jobs import Job
from azureml_emulator.store.runs import Run
from azureml_emulator.tokens import Scope

SUPERVISOR = Path(__file__).with_name("supervisor.py")
_LOOK_AGAIN = 0.02
_STARTERS = ("mpiexec", "mpirun", "hydra_", "orted", "prted")
"""How the names of the processes begin that start the ranks of an MPI job."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        reason: ``exited``, ``timeout``, ``terminated``, or what kept it from starting.
        code: The exit code, for ``exited``.
    """

    reason: str
    code: int


@dataclass(frozen=True)
class Sight:
    """What is seen of an attempt at one moment.

    Attributes:
        claimed: Its supervisor has begun, or may not begin any more.
        alive: Its supervisor is alive.
        outcome: How it ended, if it has.
    """

    claimed: bool
    alive: bool
    outcome: Outcome | None


class Attempt:
    """The files and processes of one attempt. Holds no state of its own, so a new emulator can pick it up."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def work(self) -> Path:
        """The working directory: the snapshot's files, and what the script writes."""
        return self.directory / "work"

    @property
    def home(self) -> Path:
        """The job's HOME."""
        return self.directory / "home"

    @property
    def logs(self) -> Path:
        """Directory of the user logs."""
        return self.directory / "user_logs"

    @property
    def resumed(self) -> Path:
        """What an earlier run has left in ./outputs, if this one goes on from there. Outside of what is collected."""
        return self.directory / "resume_from"

    @property
    def spec(self) -> Path:
        """What the supervisor is told."""
        return self.directory / "spec.json"

    @property
    def _claim(self) -> Path:
        return self.directory / "claim.json"

    @property
    def _outcome(self) -> Path:
        return self.directory / "outcome.json"

    def create(self) -> None:
        """Make the directories."""
        for path in (self.work, self.home, self.logs):
            path.mkdir(parents=True, exist_ok=True)

    def prepare(
        self, commands: list[list[str]], environment: dict[str, str], *, log: Path, deadline: float | None, grace: float
    ) -> None:
        """Write down what the supervisor is to do."""
        content: dict[str, Any] = {
            "commands": commands,
            "env": environment,
            "cwd": str(self.work),
            "log": str(log),
            "claim": str(self._claim),
            "outcome": str(self._outcome),
            "deadline": deadline,
            "grace": grace,
        }
        # The environment holds the run's token, so the file is for its owner only.
        write_atomically(self.spec, json.dumps(content))

    def start(self) -> subprocess.Popen[bytes]:
        """Start the supervisor in a session of its own, so that it outlives this process."""
        with (self.directory / "supervisor.log").open("ab") as problems:
            return subprocess.Popen(
                [sys.executable, "-I", str(SUPERVISOR), str(self.spec)],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=problems,
                cwd=self.directory,
                # It needs no more, and its children could read the rest of the emulator's in /proc.
                env=kept_environment(os.environ),
            )

    def outcome(self) -> Outcome | None:
        """Return how it ended, if it has."""
        try:
            found = json.loads(self._outcome.read_bytes())
        except FileNotFoundError:
            return None
        return Outcome(str(found["reason"]), int(found["code"]))

    def look(self) -> Sight:
        """Look what it is doing. Claimed, not alive and without an outcome: its supervisor was killed."""
        # In the order in which a supervisor writes its claim, writes the outcome and ends. In another one, an attempt
        # that begins or ends between two of these looks would be taken for one that was killed.
        claimed = self.is_claimed
        alive = self.process() is not None
        return Sight(claimed, alive, self.outcome())

    @property
    def is_claimed(self) -> bool:
        """Whether the supervisor has begun, or may not begin any more."""
        return self._claim.exists()

    def void(self) -> bool:
        """Keep a supervisor that has not begun from beginning; False if it was faster."""
        try:
            with self._claim.open("x") as stream:
                stream.write("null")
        except FileExistsError:
            return False
        return True

    def process(self) -> psutil.Process | None:
        """Return the supervisor, if it is alive."""
        with contextlib.suppress(FileNotFoundError, psutil.Error, json.JSONDecodeError):
            claim = json.loads(self._claim.read_bytes())
            if claim is None:
                return None
            process = psutil.Process(claim["pid"])
            same = abs(process.create_time() - claim["created"]) < 1.0
            if same and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def terminate(self) -> None:
        """Ask the supervisor to stop the job."""
        process = self.process()
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)

    def warn(self) -> None:
        """Send SIGTERM to the script's processes, and not to those that wait for them: they would wait no longer."""
        supervisor = self.process()
        if supervisor is None:
            return
        with contextlib.suppress(psutil.Error):
            for process in supervisor.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if not _only_waits(process):
                        process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the job and its supervisor at once."""
        process = self.process()
        if process is None:
            return
        # Another thread of ours may have waited for it first.
        with contextlib.suppress(psutil.Error, ChildProcessError):
            # A stopped supervisor starts nothing new while its children are being collected.
            process.suspend()
            # The others do: what one starts just before its end becomes a child of the supervisor, and is found there.
            while alive := [child for child in process.children(recursive=True) if _is_alive(child)]:
                for child in alive:
                    with contextlib.suppress(psutil.Error):
                        child.kill()
                time.sleep(_LOOK_AGAIN)
            process.kill()
            os.waitpid(process.pid, 0) if process.ppid() == os.getpid() else process.wait(5)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _only_waits(process: psutil.Process) -> bool:
    """Tell whether a process of a job has started the script, and does nothing but wait for its end."""
    if process.name().startswith(_STARTERS) or str(MPIRUN) in process.cmdline():
        return True
    # The launcher runs the script in a fork of itself; a rank's does not.
    return str(LAUNCHER) in process.cmdline() and any(str(LAUNCHER) in child.cmdline() for child in process.children())


def prepare_job(service: Service, job: Job, attempt: Attempt, *, extract: bool = True) -> None:
    """Make everything ready for an attempt.

    Args:
        service: The emulator's state.
        job: The job.
        attempt: Which one.
        extract: Whether the snapshot is to be unpacked into the working directory.

    Raises:
        ServiceError: The snapshot is gone, or the configuration can't be run here any more.
        OSError: The files can't be written.
    """
    run = service.runs.get(job.run_id)
    plan = plan_of(service, run)
    attempt.create()
    if job.resume_from is not None and isinstance(plan, JobPlan):
        _copy_outputs(service, job.resume_from, attempt.resumed)
        plan = plan.with_arguments("--resume-from", str(attempt.resumed))
    if extract and job.snapshot_id:
        service.snapshots.extract(job.snapshot_id, attempt.work)
    if isinstance(plan, CommandPlan):
        lay_out(service, plan, attempt.directory)
    for name in plan.log_names():
        path = attempt.logs / name
        path.touch()
        artifact = service.artifacts.reserve(RUN_ORIGIN, run.data_container_id, f"user_logs/{name}")
        service.blobs.link(artifact.blob_key, path)
    cap = plan.cap or service.settings.default_max_run_duration
    attempt.prepare(
        plan.commands(attempt.logs),
        _environment(service, run, plan, attempt.home),
        log=attempt.logs / plan.log_names()[0],
        deadline=time.time() + cap if cap else None,
        grace=service.settings.cancel_grace,
    )


def _copy_outputs(service: Service, run_id: str, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for artifact in service.artifacts.list(RUN_ORIGIN, service.runs.get(run_id).data_container_id, "outputs"):
        target = directory / Path(artifact.path).relative_to("outputs")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(service.artifacts.blob(artifact).path, target)


def _environment(service: Service, run: Run, plan: Plan, home: Path) -> dict[str, str]:
    token, expiry = service.issue_token(Scope.RUN, run_id=run.run_id)
    return job_environment(
        service.settings,
        inherited=os.environ,
        requested=plan.environment_variables,
        experiment=service.runs.experiment_by_id(run.experiment_id).name,
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        token=token,
        token_expiry=expiry,
        base_url=service.base_url,
        tracking_uri=service.tracking_uri,
        discovery_url=service.discovery_url,
        workspace_id=service.workspace_id,
        ca_bundle=service.ca_bundle,
        home=home,
        distributed=plan.distributed,
    )
