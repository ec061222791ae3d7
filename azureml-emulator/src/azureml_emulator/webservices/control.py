"""What a client asks for: deploying, changing and removing a service, its keys and tokens.

Here only the database and the file of who may ask are changed, both under the database's lock;
:mod:`azureml_emulator.webservices.driver` sees what is to be done about it.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Mapping
from typing import Any, Literal

from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.service import EXPIRED, Service
from azureml_emulator.store.models import PatchOperation
from azureml_emulator.store.webservices import Deployment, OperationState, ServiceState, Webservice
from azureml_emulator.times import utc_now
from azureml_emulator.webservices import rules
from azureml_emulator.webservices.process import (
    artifact_of,
    kill_all,
    scoring_command,
    service_directory,
    start_of,
    write_auth,
)

MAX_SERVICES = 100
"""Services of a workspace; each takes several processes of this machine."""
_IN_TRANSITION = "ServiceInTransition"


def check_create(service: Service, body: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return name, document and image request of a request to create a service that can be met.

    Raises:
        ServiceError: 400, it can't; 409, there is one of that name.
    """
    name = rules.check_name(body.get("name"))
    document = rules.document(body)
    rules.keys(body)
    image = checked_image(service, body.get("environmentImageRequest"))
    existing = service.webservices.find(name)
    kind = rules.compute_type(body)
    if existing is not None and not body.get("overwrite"):
        raise ServiceError(409, "ServiceNameInUse", f"There is a service {name} already: overwrite=True replaces it.")
    if existing is not None and existing.compute_type != kind:
        raise bad_request(f"Service {name} is an {existing.compute_type} service. Delete it first.")
    return name, document, image


def check_free(service: Service, name: str) -> None:
    """See that a name can be given to a new service.

    Raises:
        ServiceError: 400, it is no name; 409, there is such a service.
    """
    if service.webservices.find(rules.check_name(name)) is not None:
        raise ServiceError(409, "ServiceNameInUse", f"There is a service {name} already: overwrite=True replaces it.")


def create(service: Service, body: Mapping[str, Any]) -> str:
    """Create a service, or replace one.

    A request that is repeated because its answer was lost gets the first one's operation and starts nothing.

    Returns:
        The operation's id.

    Raises:
        ServiceError: 400, 409.
    """
    with service.database.transaction():
        repeated = _repeated(service, body)
        if repeated is not None:
            return repeated
        name, document, image = check_create(service, body)
        primary, secondary = rules.keys(body)
        existing = service.webservices.find(name)
        if existing is None:
            check_number(service)
            now = utc_now()
            service.webservices.add(
                Webservice(
                    name=name,
                    compute_type=rules.compute_type(body),
                    created=now,
                    updated=now,
                    document=document,
                    primary_key=primary or make_key(),
                    secondary_key=secondary or make_key(),
                )
            )
        refuse_if_busy(service.webservices.get(name))
        deployment = new_deployment(service, image, document)

        def change(record: Webservice) -> None:
            record.document = document
            record.primary_key = primary or record.primary_key
            record.secondary_key = secondary or record.secondary_key
            begin(record, deployment)

        write_auth(service, service.webservices.update(name, change))
    return deployment.operation


def check_number(service: Service) -> None:
    """See that there is room for one more.

    Raises:
        ServiceError: 400.
    """
    if len(service.webservices.all()) >= MAX_SERVICES:
        raise bad_request(f"A workspace has at most {MAX_SERVICES} services here.", "QuotaExceeded")


def check_patch(
    service: Service, record: Webservice, operations: list[PatchOperation]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the document and, if it changes, the image request of a service after a JSON Patch.

    Raises:
        ServiceError: 400.
    """
    document = rules.patched(record.compute_type, record.document, operations)
    image = rules.image_request(operations)
    return document, None if image is None else checked_image(service, image)


def patch(service: Service, name: str, operations: list[PatchOperation]) -> str:
    """Change a service.

    Returns:
        The operation's id.

    Raises:
        ServiceError: 400; 404; 409, another change of its content is under way.
    """
    with service.database.transaction():
        record = service.webservices.get(name)
        document, image = check_patch(service, record, operations)
        coming = record.coming
        if image is not None and coming is not None and coming.operation and coming.image == image:
            return coming.operation
        limit = document.get("scoringTimeoutMs") != record.document.get("scoringTimeoutMs")
        if image is None and limit and record.deployments:
            # A server learns its time limit when it starts.
            image = record.deployments[0].image
        deployment = None
        if image is not None:
            refuse_if_busy(record)
            deployment = new_deployment(service, image, document)

        def change(record: Webservice) -> None:
            record.document, record.updated = document, utc_now()
            if deployment is not None:
                begin(record, deployment)

        write_auth(service, service.webservices.update(name, change))
        if deployment is not None:
            return deployment.operation
        return service.webservices.start_operation(OperationState.SUCCEEDED).id


def delete(service: Service, name: str) -> bool:
    """Remove a service and everything of it; False if there is none."""
    with service.database.transaction():
        record = service.webservices.find(name)
        if record is None:
            return False
        service.webservices.delete(name)
        if record.coming is not None:
            error = failure("ServiceDeleted", 409, f"Service {name} was deleted.")
            service.webservices.end_operation(record.coming.operation, OperationState.FAILED, error)
    directory = service_directory(service, name)
    kill_all(directory)
    # A start that is just being made may still write here; the driver looks after it.
    shutil.rmtree(directory, ignore_errors=True)
    return True


def regenerate_key(service: Service, name: str, which: Literal["Primary", "Secondary"], value: str | None) -> str:
    """Change a key; the old one is dead when this returns.

    Returns:
        The id of an operation that has succeeded.

    Raises:
        ServiceError: 400, 404.
    """
    key = rules.check_key(value) if value else make_key()

    def change(record: Webservice) -> None:
        setattr(record, "primary_key" if which == "Primary" else "secondary_key", key)

    with service.database.transaction():
        write_auth(service, service.webservices.update(name, change))
        return service.webservices.start_operation(OperationState.SUCCEEDED).id


def issue_token(service: Service, name: str) -> tuple[str, float, float]:
    """Issue a token that opens a service.

    Returns:
        The token, when to ask for another, and its end (POSIX times).

    Raises:
        ServiceError: 400, the service takes none; 404.
    """
    now = time.time()
    lifetime = EXPIRED if service.faults.current.expired_tokens else service.settings.token_lifetime
    token, end = secrets.token_urlsafe(32), now + lifetime

    def change(record: Webservice) -> None:
        if not record.wants_token:
            raise bad_request(f"Service {name} takes no tokens: token_auth_enabled is off.")
        record.tokens = {one: until for one, until in record.tokens.items() if until > now} | {token: end}

    with service.database.transaction():
        write_auth(service, service.webservices.update(name, change))
    return token, now + lifetime / 2, end


def wake(service: Service, name: str) -> None:
    """Have a service there for somebody who is about to ask it something: started again, if its processes have ended.

    Raises:
        ServiceError: 404.
    """
    with service.database.transaction():
        record = service.webservices.get(name)
        if record.serving is None or record.coming is not None:
            return
        if not start_of(service, name, record.serving).hold():
            service.webservices.update(name, lambda record: restart(service, record))


def restart(service: Service, record: Webservice, delay: float = 0.0) -> None:
    """Have the content of a service that is serving started once more."""
    assert record.serving is not None
    now = time.time()
    changes = {
        "attempt": record.serving.attempt + 1,
        "operation": "",
        "launched": False,
        "not_before": now + delay,
        "deadline": now + delay + service.settings.service_timeout,
        "takes_over": False,
    }
    record.coming = record.serving.model_copy(update=changes)
    record.asleep = False


def failure(code: str, status: int, message: str, detail: tuple[str, str] | None = None) -> dict[str, Any]:
    """Return an error as users meet it."""
    found: dict[str, Any] = {"code": code, "statusCode": status, "message": message}
    if detail is not None:
        found["details"] = [{"code": detail[0], "message": detail[1]}]
    return found


def checked_image(service: Service, image: object) -> dict[str, Any]:
    """Return an environment image request that can be run here.

    Raises:
        ServiceError: 400.
    """

    def has_model(model_id: str) -> bool:
        try:
            model = service.models.get(model_id)
        except ServiceError:
            return False
        if model.unpack:
            raise rules.not_emulated("models that are registered as an archive")
        return True

    checked = rules.check_image(image, lambda url: artifact_of(service, url) is not None, has_model)
    # Said now rather than when it is started.
    scoring_command(service.settings, "")
    return checked


def _repeated(service: Service, body: Mapping[str, Any]) -> str | None:
    record = service.webservices.find(str(body.get("name")))
    coming = record.coming if record is not None else None
    # Every deployment uploads its driver program under a new name, so equal requests are one.
    if coming is not None and coming.operation and coming.image == body.get("environmentImageRequest"):
        return coming.operation
    return None


def refuse_if_busy(record: Webservice) -> None:
    """See that no change of a service's content is under way.

    Raises:
        ServiceError: 409.
    """
    if record.coming is not None and record.coming.operation:
        raise ServiceError(409, _IN_TRANSITION, f"Service {record.name} is being changed already: wait for its end.")


def new_deployment(service: Service, image: dict[str, Any], document: Mapping[str, Any]) -> Deployment:
    """Make a deployment, and the operation that waits for it."""
    number = service.webservices.next_number()
    operation = service.webservices.start_operation()
    late = service.faults.current.unhealthy_services or service.settings.service_timeout
    return Deployment(
        number=number,
        image=image,
        timeout_ms=document.get("scoringTimeoutMs"),
        operation=operation.id,
        deadline=time.time() + late,
    )


def begin(record: Webservice, deployment: Deployment) -> None:
    """Have a deployment started, beside what serves."""
    record.coming, record.updated, record.error = deployment, utc_now(), None
    record.coming.takes_over = record.serving is not None and not record.asleep
    if record.serving is None:
        record.state = ServiceState.TRANSITIONING


def make_key() -> str:
    """Make a key of a service."""
    return secrets.token_urlsafe(24)
