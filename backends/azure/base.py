"""What the backends of both SDKs do alike: a job is a run on AmlCompute, followed into its folder.

    submit   workspace -> cluster, reused or created -> image -> sent under our run's id
    refresh  the run's status, log, metrics; at its end its outputs and its model, into the run's folder
    cancel   the run's own cancel
    store    the workspace's model registry

The run's folder holds the workspace's name, and its own name is the run's id, so any client can go on where another
was killed. What differs between the SDKs is a :class:`Client`.
"""

from __future__ import annotations

import functools
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from backends.azure import restarts, sync, vm_sizes
from backends.azure.emulator import DOES_NOT_PROVE
from backends.azure.errors import ServiceUnavailableError
from backends.azure.image import environment_of
from backends.azure.options import ClusterOptions
from backends.azure.sync import Pace
from trainer.backend import Backend, Plan
from trainer.console.output import note
from trainer.errors import SignInError, TrainerError
from trainer.kernels import torch_for
from trainer.ranks import each_batch
from trainer.records import RunFailure, RunInfo, RunStatus
from trainer.runfolder import SUBMISSION_LOCK
from trainer.snapshot import Limits, Snapshot, check_limits

if TYPE_CHECKING:
    from backends.azure.cluster import Computes
    from backends.azure.image import Environment, NodeSide
    from backends.azure.restarts import Again
    from backends.azure.sdk import FollowedRun
    from backends.azure.session import WorkspaceRef
    from trainer.artifacts import ArtifactStore
    from trainer.home import Home
    from trainer.job import TrainingJob
    from trainer.runfolder import RunFolder

_SYNC_LOCK = "azureml"
# azureml/_restclient/constants.py: SNAPSHOT_MAX_FILES, SNAPSHOT_MAX_SIZE_BYTES.
SNAPSHOT_LIMITS = Limits("Azure ML", 2_000, 300 * 1024 * 1024)
# A submission whose client was killed before the answer may still arrive.
_IN_FLIGHT_SECONDS = 60.0


class Client(Protocol):
    """A workspace, signed in to, through one of the SDKs."""

    def computes(self) -> Computes:
        """Return its compute targets."""

    def find_run(self, name: str) -> FollowedRun | None:
        """Look up a run by its id; None if the service has none."""

    def prepare(
        self, folder: RunFolder, image: Environment, compute: str, seconds: int, again: Again | None = None
    ) -> Callable[[], bool]:
        """Make what is sent of a run.

        Args:
            folder: The run, with its staged snapshot.
            image: What it runs in.
            compute: The cluster's name.
            seconds: Between two uploads of its checkpoint, at least.
            again: Of a further attempt, what is different.

        Returns:
            Sends it; tells whether the service is known to have it.
        """


class AzureBackend(Backend):
    """The backend for jobs on Azure ML. Thread-safe.

    Attributes:
        node_side: What of the SDK a node needs.
        loading: What a submission says while the SDK is being imported.

    Args:
        home: Where runs are kept, and an emulator's state.
        options: Values for :class:`backends.azure.options.ClusterOptions`.

    Raises:
        UsageError: An option is unknown or unusable.
    """

    remote = True
    limits = SNAPSHOT_LIMITS
    options_type = ClusterOptions
    options: ClusterOptions
    node_side: ClassVar[NodeSide]
    loading: ClassVar[str]

    def __init__(self, home: Home, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(home, options)
        self.notify: Callable[[str], None] = note
        self._runs: dict[str, FollowedRun] = {}
        self._paces: dict[str, Pace] = {}
        self._watched: dict[str, set[int]] = {}
        self._checked = 0  # how many nodes were asked for
        self._loaded = False  # whether the SDK was, which takes seconds, once

    @abstractmethod
    def open(self, ref: WorkspaceRef) -> Client:
        """Sign in to a workspace, once per process.

        Raises:
            SignInError: We are not who the workspace wants.
            NotFoundError: There is no such workspace.
            ServiceUnavailableError: Azure or the emulator can't be reached.
        """

    @abstractmethod
    def registry(self, ref: Callable[[], WorkspaceRef]) -> ArtifactStore:
        """Return the model registry of a workspace, which is looked for on first use."""

    @abstractmethod
    def forget(self) -> None:
        """Sign in again at the next use."""

    def plan(self, job: TrainingJob, snapshot: Snapshot) -> Plan:
        """See :meth:`trainer.backend.Backend.plan`.

        Raises:
            MissingExtraError: The SDK is not installed, so there is no version of it to pin.
        """
        check_limits(snapshot, SNAPSHOT_LIMITS)
        choice = vm_sizes.choose(self.options.vm_size)
        image = environment_of(snapshot, choice.size, self.node_side, job.kernels)
        details = {
            "workspace": self.where(),
            "compute": self.options.compute,
            "VM priority": self.options.vm_priority or "dedicated, where the cluster has to be created",
            "VM size": [f"{choice.size}, where the cluster has to be created", *([choice.note] if choice.note else [])],
            "nodes": _nodes(self.options.max_nodes, job.nodes),
            **_ranks(job),
            "idle minutes": self.options.idle_minutes,
            "time cap": f"{job.max_minutes} minutes" if job.max_minutes else "none",
            "image": image.image,
            "environment": image.name,
            "python": image.pins.python,
            "pins": " ".join(image.pins.requirements()),
        }
        return Plan(
            backend=self.name,
            command=tuple(job.command("python")),
            files=len(snapshot.files),
            size=snapshot.size,
            digest=snapshot.digest,
            dataset=job.dataset,
            details=details,
            warnings=(*snapshot.notes, *image.left_out_notes()),
        )

    def check_ranks(self, job: TrainingJob) -> tuple[str, ...]:  # noqa: ARG002  # it runs every such job
        """See :meth:`trainer.backend.Backend.check_ranks`."""
        return ()

    def watch_ranks(self, folder: RunFolder, ranks: Sequence[int]) -> None:
        """See :meth:`trainer.backend.Backend.watch_ranks`."""
        self._watched.setdefault(folder.run_id, set()).update(ranks)

    def check(self, job: TrainingJob) -> None:
        """See :meth:`trainer.backend.Backend.check`. Sign in, and ask the workspace for its cluster or VM sizes.

        Raises:
            SignInError: We are not who the workspace wants.
            RefusedError: The VM size is retired or not offered, or the cluster can't be used.
            ConfigError: There is no workspace, and no emulator is asked for; or there is no PyTorch here to pin.
        """
        from backends.azure import cluster
        from backends.azure.session import answer_by, find_workspace

        torch_for(job.kernels)
        if job.nodes <= self._checked:
            return
        if self.options.vm_size is not None:
            vm_sizes.choose(self.options.vm_size)
        ref = find_workspace(self.options, self.home)
        if ref.is_emulated:
            self.notify(DOES_NOT_PROVE)
        computes = self.open(ref).computes()
        answer_by(ref).wait(lambda: cluster.check(computes, self.options, job.nodes), "look at the cluster")
        self._checked = job.nodes

    def submit(self, folder: RunFolder) -> None:
        """See :meth:`trainer.backend.Backend.submit`."""
        from backends.azure import cluster
        from backends.azure.session import find_workspace

        snapshot = Snapshot.load(folder.snapshot)
        check_limits(snapshot, SNAPSHOT_LIMITS)
        ref = find_workspace(self.options, self.home)
        client = self.open(ref)
        choice = cluster.get_or_create(client.computes(), self.options, self.notify)
        image = environment_of(snapshot, choice.size, self.node_side, folder.job().kernels)
        if not self._loaded:
            self.notify(f"Run {folder.run_id}: loading {self.loading}; this takes ten seconds ...")
        send = client.prepare(folder, image, self.options.compute, self.options.checkpoint_seconds)
        self._loaded = True
        detail = {
            sync.WORKSPACE: msgspec.to_builtins(ref),
            sync.RUN: folder.run_id,
            "compute": self.options.compute,
            "vm_size": choice.size.name,
            "environment": image.name,
            "image": image.image,
            sync.SENT: time.time(),
            "vm_priority": cluster.LOW_PRIORITY if choice.low_priority else cluster.DEDICATED,
            restarts.CHECKPOINT_SECONDS: self.options.checkpoint_seconds,
            restarts.MAX_RESTARTS: restarts.restarts_of(folder.job(), low_priority=choice.low_priority),
        }
        warnings = image.left_out_notes()
        # Before anything is sent: a client killed from here on leaves what it takes to find the run.
        folder.update(
            lambda info: msgspec.structs.replace(
                info, detail=detail, warnings=(*info.warnings, *warnings), status=RunStatus.PREPARING
            )
        )
        self.notify(f"Sending {len(snapshot.files)} files, {snapshot.size / 1e6:.1f} MB, to {ref.workspace_name}.")
        if not send():
            folder.update(warnings=(*folder.info().warnings, "The answer to the submission was lost; looking for it."))

    def refresh(self, folder: RunFolder) -> RunInfo:
        """See :meth:`trainer.backend.Backend.refresh`.

        Asks the service every one to five seconds, however often it is called. Errors are ignored for up to five
        minutes after the service has answered; the first look of a process raises them.
        """
        info = folder.info()
        pace = self._paces.setdefault(folder.run_id, _pace(info))
        if info.status.terminal or not pace.is_due():
            return info
        if sync.WORKSPACE not in info.detail:
            return self._refresh_unsent(folder)
        try:
            with folder.locked(_SYNC_LOCK):
                info = folder.info()  # another client may have finished the run while we waited
                if info.status.terminal:
                    return info
                run = self._run(folder, info)
                if run is None:
                    return self._refresh_missing(folder, info)
                if info.detail.get(sync.CANCEL_ASKED) == "unsent":
                    self.cancel(folder)
                store = functools.partial(self.registry, lambda: workspace_ref(info))
                ranks = self._watched.get(folder.run_id, ())
                found = sync.sync_run(run, folder, store, functools.partial(self._again, folder), ranks)
        except (ServiceUnavailableError, SignInError):
            self._forget(folder)
            if not pace.record_failure():
                raise
            return folder.info()
        pace.record_answer(changed=found.status is not info.status)
        return found

    def cancel(self, folder: RunFolder) -> None:
        """See :meth:`trainer.backend.Backend.cancel`."""
        from backends.azure.errors import explained, retry

        info = folder.info()
        if info.status.terminal:
            return
        if sync.WORKSPACE not in info.detail:
            if not folder.is_locked(SUBMISSION_LOCK):
                folder.update(status=RunStatus.CANCELED)
            return
        run = self._run(folder, info)
        asked = "unsent" if run is None else "sent"
        folder.update(lambda now: msgspec.structs.replace(now, detail={**now.detail, sync.CANCEL_ASKED: asked}))
        if run is not None:
            with explained(f"cancel run {folder.run_id}"):
                if retry(run.get_status) not in ("Completed", "Failed", "Canceled"):
                    retry(run.cancel)

    def store(self) -> ArtifactStore:
        """Return the model registry of the workspace that the options name."""
        from backends.azure.session import find_workspace

        return self.registry(lambda: find_workspace(self.options, self.home))

    def _run(self, folder: RunFolder, info: RunInfo) -> FollowedRun | None:
        if folder.run_id not in self._runs:
            found = self.open(workspace_ref(info)).find_run(sync.run_name(info))
            if found is None:
                return None
            self._runs[folder.run_id] = found
        return self._runs[folder.run_id]

    def _again(self, folder: RunFolder, run: FollowedRun) -> None:
        """Send a run again that has failed for want of its node; see :mod:`backends.azure.restarts`."""
        info = folder.info()
        seconds, compute = info.detail.get(restarts.CHECKPOINT_SECONDS), str(info.detail["compute"])

        def send(again: Again) -> bool:
            size = vm_sizes.look_up(str(info.detail["vm_size"]))
            image = environment_of(Snapshot.load(folder.snapshot), size, self.node_side, folder.job().kernels)
            client = self.open(workspace_ref(info))
            between = seconds if isinstance(seconds, int) else self.options.checkpoint_seconds
            return client.prepare(folder, image, compute, between, again)()

        self.notify(f"Run {folder.run_id} has lost its node, and is sent again.")
        restarts.send_again(run, folder, send, sync.RUN)
        self._runs.pop(folder.run_id, None)

    def _forget(self, folder: RunFolder) -> None:
        self._runs.pop(folder.run_id, None)
        self.forget()

    def _refresh_unsent(self, folder: RunFolder) -> RunInfo:
        """Refresh a run that was not sent: it is being submitted, or its client was killed before."""
        if folder.being_submitted():
            return folder.info()
        # What is on disk now decides: a client may have sent the run while we looked.
        return folder.update(lambda info: info if sync.WORKSPACE in info.detail else _never_sent(info))

    def _refresh_missing(self, folder: RunFolder, info: RunInfo) -> RunInfo:
        """Refresh a run that the service doesn't have, yet or at all."""
        # abs: one that was sent while the clock was ahead would be on its way until the clock has caught up.
        on_its_way = abs(time.time() - float(info.detail.get(sync.SENT, 0.0))) < _IN_FLIGHT_SECONDS
        if folder.is_locked(SUBMISSION_LOCK) or on_its_way:
            return info
        if info.detail.get(sync.CANCEL_ASKED):
            return folder.update(status=RunStatus.CANCELED)
        return folder.update(_never_sent)

    def where(self) -> str:
        """Say which workspace the options name."""
        from backends.azure.session import find_config, read_config

        if self.options.emulator:
            return f"the emulator of this project, {self.home.path / 'emulator'}"
        path = find_config(self.options.workspace_config or Path.cwd())
        return "none: no config.json was found" if path is None else f"{read_config(path).workspace_name}, from {path}"


def _nodes(most: int, needed: int) -> str:
    """What a plan says of nodes. How many a cluster that exists may have is known by the workspace alone."""
    if needed <= most:
        return f"0 to {most}; this job uses {needed}"
    return f"this job uses {needed}: more than --max-nodes {most}, so it needs a cluster that exists and has as many"


def _ranks(job: TrainingJob) -> dict[str, str]:
    if job.ranks == 1:
        return {}
    return {"ranks": f"{job.ranks}, {job.processes_per_node} on each node", **each_batch(job)}


def _pace(info: RunInfo) -> Pace:
    workspace = info.detail.get(sync.WORKSPACE)
    emulated = isinstance(workspace, dict) and workspace.get("emulator") is not None
    return Pace(0.3, 1.0) if emulated else Pace(1.0, 5.0)


def workspace_ref(info: RunInfo) -> WorkspaceRef:
    """Return the workspace that a run is in, which may not be the one of the options."""
    from backends.azure.session import WorkspaceRef

    try:
        return msgspec.convert(info.detail[sync.WORKSPACE], WorkspaceRef)
    except msgspec.ValidationError as error:
        raise TrainerError(f"The record of run {info.run_id} is damaged: {error}.", "Restore status.json.") from error


def _never_sent(info: RunInfo) -> RunInfo:
    message = "The client that submitted it ended before Azure ML had the run. Start it again."
    failure = RunFailure(message=message, lost=True)
    return msgspec.structs.replace(info, status=RunStatus.FAILED, failure=failure)
