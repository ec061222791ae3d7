"""HyperDrive as the service that drives a study: sent under our own name, found again by it from any process.

The sweep's id is the study's own, so that a lost answer, or a client that was killed while it sent, leaves no second
one: whether the service has it can be looked up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from backends.azure import cluster, hyperdrive, submit, sync
from backends.azure.computes import SdkComputes
from backends.azure.errors import ServiceUnavailableError, explained, retry
from backends.azure.image import environment_of
from backends.azure.session import WorkspaceRef, find_workspace, forget_workspaces, open_workspace, sdk
from trainer.errors import NotFoundError, RefusedError, SignInError, TrainerError
from trainer.records import RunInfo, RunStatus
from trainer.snapshot import Snapshot
from trainer.tune.service import ServiceLook, ServiceTrial
from trainer.tune.study import ServiceRecord, find_study

if TYPE_CHECKING:
    from backends.azure.options import AzureOptions
    from backends.azure.sdk import Run, Workspace
    from trainer.home import Home
    from trainer.tune.study import StudyDefinition, StudyFolder

_COMPUTE, _VM_SIZE = "compute", "vm_size"
# Where the service notes a trial's values: on the trial, and on the sweep (SDK: HyperDriveRun.get_hyperparameters).
_VALUES_TAG = "hyperparameters"
_SWEEP_TAG = "_aml_system_"
# A submission whose client was killed before the answer may still arrive.
_IN_FLIGHT_SECONDS = 60.0


class HyperDrive:
    """The service, a :class:`trainer.tune.service.StudyService`.

    Args:
        home: Where studies are kept.
        options: Of the backend.
        notify: Called with a line at every step of a submission.
    """

    def __init__(self, home: Home, options: AzureOptions, notify: Callable[[str], None]) -> None:
        self._home, self._options, self._notify = home, options, notify
        self._pace: sync.Pace | None = None
        self._sweep: Run | None = None
        self._canceled = False

    def check(self, definition: StudyDefinition) -> None:
        """See :meth:`trainer.tune.service.StudyService.check`."""
        hyperdrive.check(definition, self._options.compute)
        for each in definition.warm_start:
            if find_study(self._home.studies, each).service() is None:
                raise RefusedError(
                    f"HyperDrive can't learn from study {each}, which it has not driven.",
                    "This program can: --driver client --sampler tpe",
                )

    def start(self, study: StudyFolder, definition: StudyDefinition) -> None:
        """See :meth:`trainer.tune.service.StudyService.start`."""
        record = study.service()
        options = self._options
        if record is None:
            ref = find_workspace(options, self._home)
        else:
            ref = _workspace_ref(record)
            # What was to be sent first is sent again, whatever this command's options are.
            names = {name: record.detail.get(name) for name in (_COMPUTE, _VM_SIZE)}
            options = msgspec.structs.replace(options, **{k: v for k, v in names.items() if isinstance(v, str)})
        workspace = open_workspace(ref)
        if record is not None and submit.find_run(workspace, record.run) is not None:
            return
        if record is not None and abs(time.time() - record.sent) < _IN_FLIGHT_SECONDS:
            return  # it may be on its way; the next look sees
        choice = cluster.get_or_create(SdkComputes(workspace), options, self._notify)
        snapshot = Snapshot.load(study.snapshot)
        image = environment_of(snapshot, choice.size, kernels=definition.job.kernels)
        for text in image.left_out_notes():
            self._notify(f"warning: {text}")
        self._notify(f"Study {study.study_id}: loading the SDK's HyperDrive; this takes ten seconds ...")
        words = hyperdrive.arguments(definition)
        script = submit.script_config(study.snapshot, words, image, options.compute, definition.job.max_minutes)
        earlier = [self._earlier(workspace, each) for each in definition.warm_start]
        config = hyperdrive.make_config(definition, script, study.study_id, earlier, self._notify)
        detail = {
            sync.WORKSPACE: msgspec.to_builtins(ref),
            _COMPUTE: options.compute,
            _VM_SIZE: choice.size.name,
            "environment": image.name,
            "image": image.image,
        }
        # Before anything is sent: a client killed from here on leaves what it takes to find the sweep.
        study.write_service(ServiceRecord(run=study.study_id, sent=time.time(), detail=detail))
        self._notify(f"Sending {len(snapshot.files)} files, {snapshot.size / 1e6:.1f} MB, to {ref.workspace_name}.")

        def send() -> None:
            with hyperdrive.quietly():
                sdk("azureml.core").Experiment(workspace, definition.job.experiment).submit(config)

        try:
            sent = submit.send_once(workspace, study.study_id, study.snapshot, send)
        except TrainerError:
            # Refused: the service does not have it.
            study.write_service(ServiceRecord(run=study.study_id, sent=0.0, detail=detail))
            raise
        if not sent:
            self._notify("The answer to the submission was lost; looking for it.")

    def look(self, study: StudyFolder, definition: StudyDefinition) -> ServiceLook | None:
        """See :meth:`trainer.tune.service.StudyService.look`."""
        record = study.service()
        if record is None:
            raise NotFoundError(f"Study {study.study_id} was never sent.", f"Send it: trainer attach {study.study_id}")
        ref = _workspace_ref(record)
        if self._pace is None:
            self._pace = sync.Pace(0.3, 1.0) if ref.is_emulated else sync.Pace(1.0, 5.0)
        if not self._pace.is_due():
            return None
        try:
            found = self._look(ref, record, definition)
        except (ServiceUnavailableError, SignInError):
            self._sweep = None
            forget_workspaces()
            if not self._pace.record_failure():
                raise
            return None
        self._pace.record_answer(changed=True)
        return found

    def cancel(self, study: StudyFolder, definition: StudyDefinition) -> None:  # noqa: ARG002  # the id is enough
        """See :meth:`trainer.tune.service.StudyService.cancel`."""
        record = study.service()
        if record is None:
            return
        sweep = self._find(_workspace_ref(record), record)
        if sweep is not None:
            with explained(f"cancel study {study.study_id}"):
                if retry(sweep.get_status) not in ("Completed", "Failed", "Canceled"):
                    retry(sweep.cancel)

    def cancel_was_asked(self, info: RunInfo) -> bool:
        """See :meth:`trainer.tune.service.StudyService.cancel_was_asked`."""
        return sync.CANCEL_ASKED in info.detail

    def _look(self, ref: WorkspaceRef, record: ServiceRecord, definition: StudyDefinition) -> ServiceLook | None:
        sweep = self._find(ref, record)
        if sweep is None:
            if abs(time.time() - record.sent) < _IN_FLIGHT_SECONDS:
                return None
            if record.canceled:
                return ServiceLook(RunStatus.CANCELED, "It was canceled before Azure ML had it.", None, None, ())
            raise NotFoundError(
                f"Azure ML does not have study {definition.study}: the client that sent it ended before.",
                f"Send it again: trainer attach {definition.study}",
            )
        with explained(f"look at study {definition.study}"):
            # The status before the trials: once it is final, there are no more of them.
            details = retry(sweep.get_details)
            tags = retry(sweep.get_tags)
            children = retry(lambda: list(sweep.get_children(_rehydrate_runs=False)))
        status = sync.status_in(details)
        if record.canceled and not status.terminal and not self._canceled:
            # It may have been on its way when that was asked for.
            self._canceled = True
            with explained(f"cancel study {definition.study}"):
                retry(sweep.cancel)
        started, ended = (sync.seconds(details.get(key)) for key in ("startTimeUtc", "endTimeUtc"))
        trials = tuple(sorted(_trials(record, definition, tags, children)))
        return ServiceLook(status, _reason(details), started, ended, trials)

    def _find(self, ref: WorkspaceRef, record: ServiceRecord) -> Any:  # noqa: ANN401  # HyperDriveRun
        if self._sweep is None:
            workspace = open_workspace(ref)
            # So that the SDK makes a HyperDriveRun of it, whose cancel is its own; after azureml.core, which it needs.
            sdk("azureml.train.hyperdrive")
            with hyperdrive.quietly():
                self._sweep = submit.find_run(workspace, record.run)
        return self._sweep

    def _earlier(self, workspace: Workspace, reference: str) -> Any:  # noqa: ANN401  # HyperDriveRun
        study = find_study(self._home.studies, reference)
        record = study.service()
        with hyperdrive.quietly():
            found = submit.find_run(workspace, record.run) if record else None
        if found is None:
            raise RefusedError(f"This workspace does not have study {reference}.", "Leave it out of --warm-start.")
        return found


def _trials(
    record: ServiceRecord, definition: StudyDefinition, tags: dict[str, str], children: list[Any]
) -> Iterator[ServiceTrial]:
    """The children whose values are known; the service notes them a moment after it has started one."""
    for child in children:
        # Not the run that prepares the image, whose id ends in a word.
        number = re.fullmatch(rf"{re.escape(record.run)}_([0-9]{{1,6}})", child.id)
        if number is None:
            continue
        noted = (child.tags or {}).get(_VALUES_TAG) or tags.get(_SWEEP_TAG + child.id) or tags.get(child.id)
        values = hyperdrive.read_values(definition.space, _decoded(noted))
        if values is not None:
            detail = {**record.detail, sync.RUN: child.id, sync.SENT: time.time()}
            yield ServiceTrial(int(number[1]), values, detail)


def _decoded(text: object) -> object:
    try:
        return msgspec.json.decode(text) if isinstance(text, str) else None
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None


def _reason(details: dict[str, Any]) -> str:
    error = details.get("error")
    inner = error.get("error", error) if isinstance(error, dict) else {}
    said = inner.get("message") if isinstance(inner, dict) else None
    if not said:
        warned = details.get("warnings")
        said = warned[0].get("message") if isinstance(warned, list) and warned and isinstance(warned[0], dict) else None
    return " ".join(str(said).split())[:300] if said else ""


def _workspace_ref(record: ServiceRecord) -> WorkspaceRef:
    try:
        return msgspec.convert(record.detail.get(sync.WORKSPACE), WorkspaceRef)
    except msgspec.ValidationError as error:
        raise TrainerError(f"The record of study {record.run} is damaged: {error}.", "Restore service.json.") from error
