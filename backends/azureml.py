"""The Azure ML backend: a job is a run on AmlCompute, made with the SDK v1's Chainer estimator.

    submit   workspace -> cluster, reused or created -> image -> estimator -> Experiment.submit under our run's id
    refresh  the run's status, log, metrics; at its end its outputs and its model, into the run's folder
    cancel   the run's own cancel
    store    the workspace's model registry

The run's folder holds the workspace's name, and its own name is the run's id, so any client can go on where another
was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from backends.azure import restarts, sync, vm_sizes
from backends.azure.emulator import DOES_NOT_PROVE
from backends.azure.errors import ServiceUnavailableError
from backends.azure.image import environment_of
from backends.azure.options import AzureOptions
from backends.azure.sync import Pace
from trainer.backend import Backend, Plan
from trainer.console.output import note
from trainer.errors import SignInError, TrainerError
from trainer.records import RunFailure, RunInfo, RunStatus
from trainer.runfolder import SUBMISSION_LOCK
from trainer.snapshot import Limits, Snapshot, check_limits

if TYPE_CHECKING:
    from backends.azure.sdk import Run, Workspace
    from backends.azure.services import AzureServices
    from backends.azure.session import WorkspaceRef
    from backends.azure.store import AzureMLStore
    from backends.azure.sweeps import HyperDrive
    from trainer.home import Home
    from trainer.job import TrainingJob
    from trainer.runfolder import RunFolder

_SYNC_LOCK = "azureml"
# azureml/_restclient/constants.py: SNAPSHOT_MAX_FILES, SNAPSHOT_MAX_SIZE_BYTES.
SNAPSHOT_LIMITS = Limits("Azure ML", 2_000, 300 * 1024 * 1024)
# Key of what this backend keeps in RunInfo.detail; see backends.azure.options.
_CHECKPOINT_SECONDS = "checkpoint_seconds"
# A submission whose client was killed before the answer may still arrive.
_IN_FLIGHT_SECONDS = 60.0


class AzureMLBackend(Backend):
    """The backend for jobs on Azure ML. Thread-safe.

    Args:
        home: Where runs are kept, and an emulator's state.
        options: Values for :class:`backends.azure.options.AzureOptions`.

    Raises:
        UsageError: An option is unknown or unusable.
    """

    name = "azureml"
    remote = True
    limits = SNAPSHOT_LIMITS
    options_type = AzureOptions
    options: AzureOptions

    def __init__(self, home: Home, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(home, options)
        self.notify: Callable[[str], None] = note
        self._runs: dict[str, Run] = {}
        self._paces: dict[str, Pace] = {}
        self._checked = False

    def plan(self, job: TrainingJob, snapshot: Snapshot) -> Plan:
        """See :meth:`trainer.backend.Backend.plan`.

        Raises:
            MissingExtraError: The SDK is not installed, so there is no version of it to pin.
        """
        check_limits(snapshot, SNAPSHOT_LIMITS)
        choice = vm_sizes.choose(self.options.vm_size)
        image = environment_of(snapshot, choice.size)
        details = {
            "workspace": self._where(),
            "compute": self.options.compute,
            "VM priority": self.options.vm_priority or "dedicated, where the cluster has to be created",
            "VM size": [f"{choice.size}, where the cluster has to be created", *([choice.note] if choice.note else [])],
            "nodes": f"0 to {self.options.max_nodes}; this job uses 1",
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

    def check(self, job: TrainingJob) -> None:  # noqa: ARG002  # nothing of a job is refused here
        """See :meth:`trainer.backend.Backend.check`. Sign in, and ask the workspace for its cluster or VM sizes.

        Raises:
            SignInError: We are not who the workspace wants.
            RefusedError: The VM size is retired or not offered, or the cluster can't be used.
            ConfigError: There is no workspace, and no emulator is asked for.
        """
        from backends.azure import cluster
        from backends.azure.session import answer_by, find_workspace, sdk

        if self._checked:
            return
        if self.options.vm_size is not None:
            vm_sizes.choose(self.options.vm_size)
        ref = find_workspace(self.options, self.home)
        if ref.is_emulated:
            self.notify(DOES_NOT_PROVE)
        workspace = self._open(ref)
        sdk("azureml.core.compute")  # importing it waits for nobody
        answer_by(ref).wait(lambda: cluster.check(workspace, self.options), "look at the cluster")
        self._checked = True

    def submit(self, folder: RunFolder) -> None:
        """See :meth:`trainer.backend.Backend.submit`."""
        from backends.azure import cluster, submit
        from backends.azure.session import find_workspace

        job, snapshot = folder.job(), Snapshot.load(folder.snapshot)
        check_limits(snapshot, SNAPSHOT_LIMITS)
        ref = find_workspace(self.options, self.home)
        workspace = self._open(ref)
        choice = cluster.get_or_create(workspace, self.options, self.notify)
        image = environment_of(snapshot, choice.size)
        self.notify(f"Run {folder.run_id}: loading the SDK's Chainer estimator; this takes ten seconds ...")
        seconds = self.options.checkpoint_seconds
        config = submit.make_config(folder, image, self.options.compute, job.max_minutes, checkpoint_seconds=seconds)
        restarts_left = restarts.DEFAULT_LOW_PRIORITY if choice.low_priority else 0
        detail = {
            sync.WORKSPACE: msgspec.to_builtins(ref),
            sync.RUN: folder.run_id,
            "compute": self.options.compute,
            "vm_size": choice.size.name,
            "environment": image.name,
            "image": image.image,
            sync.SENT: time.time(),
            "vm_priority": cluster.LOW_PRIORITY if choice.low_priority else cluster.DEDICATED,
            restarts.MAX_RESTARTS: restarts_left if job.max_restarts is None else job.max_restarts,
            _CHECKPOINT_SECONDS: seconds,
        }
        warnings = image.left_out_notes()
        # Before anything is sent: a client killed from here on leaves what it takes to find the run.
        folder.update(
            lambda info: msgspec.structs.replace(
                info, detail=detail, warnings=(*info.warnings, *warnings), status=RunStatus.PREPARING
            )
        )
        self.notify(f"Sending {len(snapshot.files)} files, {snapshot.size / 1e6:.1f} MB, to {ref.workspace_name}.")
        if submit.submit_once(workspace, folder, config):
            submit.set_tags(workspace, folder, job)
        else:
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
                found = sync.sync_run(
                    run, folder, lambda: self._store(info), lambda lost: self._send_again(lost, folder)
                )
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

    def _send_again(self, run: Run, folder: RunFolder) -> None:
        """Send a run again that has lost its node; see :mod:`backends.azure.restarts`."""
        from backends.azure import submit

        info, job = folder.info(), folder.job()
        workspace = self._open(_workspace_ref(info))
        seconds = info.detail.get(_CHECKPOINT_SECONDS)

        def send(snapshot: Path, name: str, attempt: int, words: tuple[str, ...]) -> bool:
            image = environment_of(Snapshot.load(folder.snapshot), vm_sizes.look_up(str(info.detail["vm_size"])))
            again = submit.Again(snapshot, name, attempt, words)
            config = submit.make_config(
                folder,
                image,
                str(info.detail["compute"]),
                job.max_minutes,
                checkpoint_seconds=seconds if isinstance(seconds, int) else 60,
                again=again,
            )
            return submit.submit_once(workspace, folder, config, again)

        self.notify(f"Run {folder.run_id} has lost its node, and is sent again.")
        restarts.send_again(run, folder, send, sync.RUN)
        self._runs.pop(folder.run_id, None)

    def study_service(self) -> HyperDrive:
        """See :meth:`trainer.backend.Backend.study_service`."""
        from backends.azure.sweeps import HyperDrive

        return HyperDrive(self.home, self.options, lambda text: self.notify(text))

    def store(self) -> AzureMLStore:
        """Return the model registry of the workspace that the options name."""
        from backends.azure.session import find_workspace
        from backends.azure.store import AzureMLStore

        return AzureMLStore(lambda: self._open(find_workspace(self.options, self.home)))

    def services(self) -> AzureServices:
        """Return the services of the workspace that the options name."""
        from backends.azure.services import AzureServices

        return AzureServices(self.options, self.home, self.store, self._where)

    def _store(self, info: RunInfo) -> AzureMLStore:
        """Return the registry of the workspace that a run is in, which may not be the one of the options."""
        from backends.azure.store import AzureMLStore

        return AzureMLStore(lambda: self._open(_workspace_ref(info)))

    def _open(self, ref: WorkspaceRef) -> Workspace:
        from backends.azure.session import open_workspace

        return open_workspace(ref)

    def _run(self, folder: RunFolder, info: RunInfo) -> Run | None:
        from backends.azure import submit

        if folder.run_id not in self._runs:
            found = submit.find_run(self._open(_workspace_ref(info)), sync.run_name(info))
            if found is None:
                return None
            self._runs[folder.run_id] = found
        return self._runs[folder.run_id]

    def _forget(self, folder: RunFolder) -> None:
        from backends.azure.session import forget_workspaces

        self._runs.pop(folder.run_id, None)
        forget_workspaces()

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

    def _where(self) -> str:
        from backends.azure.session import find_config, read_config

        if self.options.emulator:
            return f"the emulator of this project, {self.home.path / 'emulator'}"
        path = find_config(self.options.workspace_config or Path.cwd())
        return "none: no config.json was found" if path is None else f"{read_config(path).workspace_name}, from {path}"


def _pace(info: RunInfo) -> Pace:
    workspace = info.detail.get(sync.WORKSPACE)
    emulated = isinstance(workspace, dict) and workspace.get("emulator") is not None
    return Pace(0.3, 1.0) if emulated else Pace(1.0, 5.0)


def _workspace_ref(info: RunInfo) -> WorkspaceRef:
    from backends.azure.session import WorkspaceRef

    try:
        return msgspec.convert(info.detail[sync.WORKSPACE], WorkspaceRef)
    except msgspec.ValidationError as error:
        raise TrainerError(f"The record of run {info.run_id} is damaged: {error}.", "Restore status.json.") from error


def _never_sent(info: RunInfo) -> RunInfo:
    message = "The client that submitted it ended before Azure ML had the run. Start it again."
    failure = RunFailure(message=message, lost=True)
    return msgspec.structs.replace(info, status=RunStatus.FAILED, failure=failure)
