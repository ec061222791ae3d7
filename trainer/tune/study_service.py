"""What a backend's own service of studies has to do, and what it says of one."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from trainer.records import RunInfo, RunStatus
from trainer.runfolder import RunFolder
from trainer.tune.space import Value
from trainer.tune.study import StudyDefinition, StudyFolder


class ServiceTrial(NamedTuple):
    """A trial that the service has started.

    Attributes:
        number: Counted from 0.
        values: By flag, as the study's space has them.
        detail: The backend's notes, by which :meth:`Backend.refresh` finds the run.
    """

    number: int
    values: dict[str, Value]
    detail: dict[str, object]


class ServiceLook(NamedTuple):
    """How a study stands at its service.

    Attributes:
        status: Of the whole study.
        reason: Why it failed or ended early, as far as the service says.
        started: When it began there, in seconds since the epoch, or None.
        ended: When it ended, or None.
        trials: Every trial so far.
    """

    status: RunStatus
    reason: str
    started: float | None
    ended: float | None
    trials: tuple[ServiceTrial, ...]


class StudyService(Protocol):
    """A service that drives studies; see :meth:`trainer.backend.Backend.study_service`."""

    def check(self, definition: StudyDefinition) -> None:
        """Refuse what the service can't do, without asking it.

        Raises:
            RefusedError: It can't; the hint says what can.
        """
        ...

    def start(self, study: StudyFolder, definition: StudyDefinition) -> None:
        """Send a study, unless the service has it already; its record is on the disk before it is sent.

        Raises:
            TrainerError: The service does not have it, and won't.
        """
        ...

    def look(self, study: StudyFolder, definition: StudyDefinition) -> ServiceLook | None:
        """Ask how the study stands; None where it is too early to ask again, or the service doesn't answer just now.

        Raises:
            NotFoundError: The service has no such study.
            TrainerError: It has not answered for long.
        """
        ...

    def cancel(self, study: StudyFolder, definition: StudyDefinition) -> None:
        """Ask for the study's end. Idempotent.

        Raises:
            TrainerError: The service can't be reached, or refuses.
        """
        ...

    def cancel_was_asked(self, info: RunInfo) -> bool:
        """Whether a command has asked for the end of this one trial."""
        ...

    def runs_apart(self, info: RunInfo) -> bool:
        """Whether a trial that lost its node was sent again, as a run that the service's study knows nothing of."""
        ...

    def restart_no_more(self, folder: RunFolder) -> None:
        """See that a trial is not sent again when it loses its node."""
        ...
