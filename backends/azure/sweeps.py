"""Azure ML's own search as the service that drives a study: sent under our own name, found by it from any process.

The sweep's id is the study's own, so that a lost answer, or a client that was killed while it sent, leaves no second
one: whether the service has it can be looked up. What differs between the SDKs is a :class:`SweepClient`.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import msgspec

from backends.azure import cluster, restarts, sync
from backends.azure.errors import ServiceUnavailableError, explained, retry
from backends.azure.image import environment_of
from backends.azure.search import read_values
from backends.azure.session import WorkspaceRef, find_workspace
from trainer.errors import NotFoundError, SignInError, TrainerError
from trainer.records import RunInfo, RunStatus
from trainer.snapshot import Snapshot
from trainer.tune.study import ServiceRecord
from trainer.tune.study_service import ServiceLook, ServiceTrial

if TYPE_CHECKING:
    from backends.azure.cluster import Computes
    from backends.azure.image import Environment, NodeSide
    from backends.azure.options import ClusterOptions
    from trainer.home import Home
    from trainer.runfolder import RunFolder
    from trainer.tune.study import StudyDefinition, StudyFolder

_COMPUTE, _VM_SIZE = "compute", "vm_size"
# A submission whose client was killed before the answer may still arrive.
_IN_FLIGHT_SECONDS = 60.0


class Child(NamedTuple):
    """A run of a sweep.

    Attributes:
        run: Its id.
        given: The values that the service has noted for it; None where it has not yet.
        keys: The service's name of each parameter.
    """

    run: str
    given: Mapping[str, object] | None
    keys: Mapping[str, str]


class Sweep(Protocol):
    """A sweep that the service has."""

    def get_details(self) -> dict[str, Any]:
        """Return its status, times and error, as run history has them."""

    def get_status(self) -> str:
        """Return its status."""

    def cancel(self) -> None:
        """Ask for its end."""

    def children(self) -> Iterable[Child]:
        """Return its runs so far."""


class SweepClient(Protocol):
    """A workspace, signed in to, through one of the SDKs."""

    def computes(self) -> Computes:
        """Return its compute targets."""

    def find(self, name: str, definition: StudyDefinition) -> Sweep | None:
        """Look up the sweep of a study by its id; None if the service has none."""

    def prepare(
        self, study: StudyFolder, definition: StudyDefinition, image: Environment, compute: str, seconds: int
    ) -> Callable[[], bool]:
        """Make what is sent of a study.

        Args:
            study: Its folder, with the staged snapshot.
            definition: What it is.
            image: What its trials run in.
            compute: The cluster's name.
            seconds: Between two uploads of a trial's checkpoint, at least.

        Returns:
            Sends it; tells whether the service is known to have it.
        """


class SweepService(ABC):
    """The service, a :class:`trainer.tune.study_service.StudyService`.

    Attributes:
        node_side: What of the SDK a node needs.
        loading: What is being imported when a study is sent.

    Args:
        home: Where studies are kept.
        options: Of the backend.
        notify: Called with a line at every step of a submission.
    """

    node_side: ClassVar[NodeSide]
    loading: ClassVar[str]

    def __init__(self, home: Home, options: ClusterOptions, notify: Callable[[str], None]) -> None:
        self._home, self._options, self._notify = home, options, notify
        self._pace: sync.Pace | None = None
        self._sweep: Sweep | None = None
        self._canceled = False

    @abstractmethod
    def check(self, definition: StudyDefinition) -> None:
        """See :meth:`trainer.tune.study_service.StudyService.check`."""

    @abstractmethod
    def open(self, ref: WorkspaceRef) -> SweepClient:
        """Sign in to a workspace, once per process.

        Raises:
            SignInError: We are not who the workspace wants.
            NotFoundError: There is no such workspace.
            ServiceUnavailableError: Azure or the emulator can't be reached.
        """

    @abstractmethod
    def forget(self) -> None:
        """Sign in again at the next use."""

    def start(self, study: StudyFolder, definition: StudyDefinition) -> None:
        """See :meth:`trainer.tune.study_service.StudyService.start`."""
        record = study.service()
        options = self._options
        if record is None:
            ref = find_workspace(options, self._home)
        else:
            ref = _workspace_ref(record)
            # What was to be sent first is sent again, whatever this command's options are.
            names = {name: record.detail.get(name) for name in (_COMPUTE, _VM_SIZE)}
            options = msgspec.structs.replace(options, **{k: v for k, v in names.items() if isinstance(v, str)})
        client = self.open(ref)
        if record is not None and client.find(record.run, definition) is not None:
            return
        if record is not None and abs(time.time() - record.sent) < _IN_FLIGHT_SECONDS:
            return  # it may be on its way; the next look sees
        choice = cluster.get_or_create(client.computes(), options, self._notify)
        snapshot = Snapshot.load(study.snapshot)
        image = environment_of(snapshot, choice.size, self.node_side, definition.job.kernels)
        for text in image.left_out_notes():
            self._notify(f"warning: {text}")
        self._notify(f"Study {study.study_id}: loading {self.loading}; this takes ten seconds ...")
        send = client.prepare(study, definition, image, options.compute, options.checkpoint_seconds)
        detail = {
            sync.WORKSPACE: msgspec.to_builtins(ref),
            _COMPUTE: options.compute,
            _VM_SIZE: choice.size.name,
            "environment": image.name,
            "image": image.image,
            "vm_priority": cluster.LOW_PRIORITY if choice.low_priority else cluster.DEDICATED,
            restarts.CHECKPOINT_SECONDS: options.checkpoint_seconds,
            restarts.MAX_RESTARTS: restarts.restarts_of(definition.job, low_priority=choice.low_priority),
        }
        # Before anything is sent: a client killed from here on leaves what it takes to find the sweep.
        study.write_service(ServiceRecord(run=study.study_id, sent=time.time(), detail=detail))
        self._notify(f"Sending {len(snapshot.files)} files, {snapshot.size / 1e6:.1f} MB, to {ref.workspace_name}.")
        try:
            sent = send()
        except TrainerError:
            # Refused: the service does not have it.
            study.write_service(ServiceRecord(run=study.study_id, sent=0.0, detail=detail))
            raise
        if not sent:
            self._notify("The answer to the submission was lost; looking for it.")

    def look(self, study: StudyFolder, definition: StudyDefinition) -> ServiceLook | None:
        """See :meth:`trainer.tune.study_service.StudyService.look`."""
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
            self.forget()
            if not self._pace.record_failure():
                raise
            return None
        self._pace.record_answer(changed=True)
        return found

    def cancel(self, study: StudyFolder, definition: StudyDefinition) -> None:
        """See :meth:`trainer.tune.study_service.StudyService.cancel`."""
        record = study.service()
        if record is None:
            return
        sweep = self._find(_workspace_ref(record), record, definition)
        if sweep is not None:
            with explained(f"cancel study {study.study_id}"):
                if retry(sweep.get_status) not in ("Completed", "Failed", "Canceled"):
                    retry(sweep.cancel)

    def cancel_was_asked(self, info: RunInfo) -> bool:
        """See :meth:`trainer.tune.study_service.StudyService.cancel_was_asked`."""
        return sync.CANCEL_ASKED in info.detail

    def runs_apart(self, info: RunInfo) -> bool:
        """See :meth:`trainer.tune.study_service.StudyService.runs_apart`."""
        return sync.run_name(info).startswith(f"{info.run_id}-")  # of restarts.send_again

    def restart_no_more(self, folder: RunFolder) -> None:
        """See :meth:`trainer.tune.study_service.StudyService.restart_no_more`."""

        def forbid(info: RunInfo) -> RunInfo:
            return msgspec.structs.replace(info, detail={**info.detail, restarts.MAX_RESTARTS: 0})

        if folder.info().detail.get(restarts.MAX_RESTARTS):
            folder.update(forbid)

    def _look(self, ref: WorkspaceRef, record: ServiceRecord, definition: StudyDefinition) -> ServiceLook | None:
        sweep = self._find(ref, record, definition)
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
            children = list(sweep.children())
        status = sync.status_in(details)
        if record.canceled and not status.terminal and not self._canceled:
            # It may have been on its way when that was asked for.
            self._canceled = True
            with explained(f"cancel study {definition.study}"):
                retry(sweep.cancel)
        started, ended = (sync.seconds(details.get(key)) for key in ("startTimeUtc", "endTimeUtc"))
        trials = tuple(sorted(_trials(record, definition, children)))
        return ServiceLook(status, _reason(details), started, ended, trials)

    def _find(self, ref: WorkspaceRef, record: ServiceRecord, definition: StudyDefinition) -> Sweep | None:
        if self._sweep is None:
            self._sweep = self.open(ref).find(record.run, definition)
        return self._sweep


def _trials(record: ServiceRecord, definition: StudyDefinition, children: Iterable[Child]) -> Iterator[ServiceTrial]:
    """The children whose values are known; the service notes them a moment after it has started one."""
    for child in children:
        # Not the run that prepares the image, whose id ends in a word.
        number = re.fullmatch(rf"{re.escape(record.run)}_([0-9]{{1,6}})", child.run)
        if number is None:
            continue
        values = read_values(definition.space, child.given, child.keys)
        if values is not None:
            detail = {**record.detail, sync.RUN: child.run, sync.SENT: time.time()}
            yield ServiceTrial(int(number[1]), values, detail)


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
