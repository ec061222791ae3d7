"""Web services and the operations on them."""

# A body is described by its fields.
# ruff: noqa: D101

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from azureml_emulator.bodies import Body
from azureml_emulator.errors import not_found
from azureml_emulator.store.database import Database
from azureml_emulator.times import utc_now

MAX_OPERATIONS = 10_000
"""Operations that are remembered."""


class ServiceState(StrEnum):
    """What the SDK shows as a service's state."""

    TRANSITIONING = "Transitioning"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    FAILED = "Failed"


class OperationState(StrEnum):
    """What the SDK waits for."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self is not OperationState.RUNNING


class Deployment(BaseModel):
    """One content of a service, and one start of it.

    Attributes:
        number: Of the content: script, models, environment. Never given out twice in the life of a state.
        attempt: Of the start.
        image: The environment image request, as sent.
        timeout_ms: Limit of one call of the score script, or None.
        operation: The operation that waits for it; empty for a start that nobody has asked for.
        launched: A process for this start may exist.
        not_before: POSIX time of the start.
        deadline: POSIX time at which it is given up if it is not healthy.
        takes_over: Another start of the service answers meanwhile.
    """

    number: int
    attempt: int = 1
    image: dict[str, Any]
    timeout_ms: int | None = None
    operation: str = ""
    launched: bool = False
    not_before: float = 0.0
    deadline: float = 0.0
    takes_over: bool = False

    @property
    def start(self) -> tuple[int, int]:
        """Number and attempt."""
        return self.number, self.attempt


class Webservice(BaseModel):
    """A service.

    Attributes:
        name: Its name.
        compute_type: ``ACI`` or ``AKS``; of SDK v2 ``OnlineEndpoint`` or, of what is deployed to one, ``Managed``.
        created: ISO 8601.
        updated: ISO 8601.
        document: What the client has said of it and gets back, in the wire's words.
        primary_key: A key.
        secondary_key: The other.
        tokens: Tokens that are good until a POSIX time.
        state: As the SDK shows it.
        error: Why it is not healthy, or why its latest change failed.
        serving: What answers.
        coming: What will answer when it is healthy.
        failed: The latest that never did.
        port: Where it answers; 0 before it ever has.
        asleep: Its processes have ended, and are started again when somebody wants to ask it something.
        restarts: How often it has been started again since it last was healthy for a while.
        healthy_since: POSIX time.
    """

    name: str
    compute_type: str
    created: str
    updated: str
    document: dict[str, Any]
    primary_key: str
    secondary_key: str
    tokens: dict[str, float] = {}
    state: ServiceState = ServiceState.TRANSITIONING
    error: dict[str, Any] | None = None
    serving: Deployment | None = None
    coming: Deployment | None = None
    failed: Deployment | None = None
    port: int = 0
    asleep: bool = False
    restarts: int = 0
    healthy_since: float = 0.0

    @property
    def deployments(self) -> list[Deployment]:
        """Its deployments, the latest first."""
        return [one for one in (self.coming, self.failed, self.serving) if one is not None]

    @property
    def wants_key(self) -> bool:
        """Whether a key opens it."""
        return bool(self.document["authEnabled"])

    @property
    def wants_token(self) -> bool:
        """Whether a token opens it."""
        return bool(self.document.get("aadAuthEnabled"))


class OperationDetails(Body):
    sub_operation_type: str = "DeployService"


class Operation(Body):
    """An operation. ``streamingOperationLog`` is lines of ``UTC stamp|text``, each ended by ``#``."""

    id: str
    operation_type: str = "Service"
    state: OperationState = OperationState.RUNNING
    created_time: str
    end_time: str | None = None
    error: dict[str, Any] | None = None
    operation_details: OperationDetails = OperationDetails()
    streaming_operation_log: str = ""


class WebserviceStore:
    """Services by name, and operations by id."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, name: str) -> Webservice | None:
        """Return a service, if there is one of that name."""
        row = self._db.one("SELECT doc FROM webservices WHERE name = ?", name)
        return Webservice.model_validate_json(row["doc"]) if row else None

    def get(self, name: str) -> Webservice:
        """Return a service.

        Raises:
            ServiceError: 404.
        """
        found = self.find(name)
        if found is None:
            raise not_found("Service", name)
        return found

    def all(self) -> list[Webservice]:
        """Return every service, newest first."""
        rows = self._db.all("SELECT doc FROM webservices ORDER BY seq DESC")
        return [Webservice.model_validate_json(row["doc"]) for row in rows]

    def in_transition(self) -> bool:
        """Tell whether a service is being started."""
        return any(record.coming is not None for record in self.all())

    def add(self, record: Webservice) -> None:
        """Store a new service."""
        self._db.execute("INSERT INTO webservices (name, doc) VALUES (?, ?)", record.name, record.model_dump_json())

    def update(self, name: str, change: Callable[[Webservice], None]) -> Webservice:
        """Change a service in place.

        Raises:
            ServiceError: 404.
        """
        with self._db.transaction():
            record = self.get(name)
            change(record)
            self._db.execute("UPDATE webservices SET doc = ? WHERE name = ?", record.model_dump_json(), name)
            return record

    def delete(self, name: str) -> bool:
        """Remove a service; False if there is none."""
        return self._db.execute("DELETE FROM webservices WHERE name = ?", name).rowcount > 0

    def next_number(self) -> int:
        """Give out the number of a deployment."""
        with self._db.transaction():
            number = int(self._db.meta("deployments", "0")) + 1
            self._db.set_meta("deployments", str(number))
            return number

    # Operations

    def start_operation(self, state: OperationState = OperationState.RUNNING) -> Operation:
        """Begin an operation."""
        operation = Operation(id=str(uuid.uuid4()), state=state, created_time=utc_now())
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO webservice_operations (id, doc) VALUES (?, ?)", operation.id, _dump(operation)
            )
            self._db.execute(
                "DELETE FROM webservice_operations WHERE seq <= (SELECT MAX(seq) FROM webservice_operations) - ?",
                MAX_OPERATIONS,
            )
        return operation

    def operation(self, operation_id: str) -> Operation:
        """Return an operation.

        Raises:
            ServiceError: 404.
        """
        row = self._db.one("SELECT doc FROM webservice_operations WHERE id = ?", operation_id)
        if row is None:
            raise not_found("Operation", operation_id)
        return Operation.model_validate_json(row["doc"])

    def log(self, operation_id: str, text: str) -> None:
        """Add a line to what the SDK shows while it waits. An empty id is nobody's operation."""
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime())
        line = f"{stamp}|{text.replace('#', '').replace('|', '')}#"

        def change(operation: Operation) -> None:
            operation.streaming_operation_log += line

        self._change(operation_id, change)

    def end_operation(self, operation_id: str, state: OperationState, error: dict[str, Any] | None = None) -> None:
        """End an operation; one that has ended stays as it is."""

        def change(operation: Operation) -> None:
            if not operation.state.is_final:
                operation.state, operation.error, operation.end_time = state, error, utc_now()

        self._change(operation_id, change)

    def _change(self, operation_id: str, change: Callable[[Operation], None]) -> None:
        with self._db.transaction():
            row = self._db.one("SELECT doc FROM webservice_operations WHERE id = ?", operation_id)
            if row is None:
                return
            operation = Operation.model_validate_json(row["doc"])
            change(operation)
            self._db.execute("UPDATE webservice_operations SET doc = ? WHERE id = ?", _dump(operation), operation_id)


def _dump(operation: Operation) -> str:
    return operation.model_dump_json(by_alias=True)
