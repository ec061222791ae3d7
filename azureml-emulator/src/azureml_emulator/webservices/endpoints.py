"""Online endpoints of SDK v2 and their deployments: what a client asks for.

Both are services of :mod:`azureml_emulator.webservices.control`: a deployment is a score script behind a front, an
endpoint a front alone, with the port, the keys and the traffic. What a client said of them is in ``document["wire"]``.
"""

from __future__ import annotations

import json
import time
from typing import Any

from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.private import write_atomically
from azureml_emulator.service import Service
from azureml_emulator.store.webservices import Deployment, OperationState, Webservice
from azureml_emulator.times import utc_now
from azureml_emulator.webservices import control, names
from azureml_emulator.webservices.process import retire, routes_of, start_of, write_auth

DRAIN_SECONDS = 30.0
"""Seconds that a deployment has to answer what it was asked before it is removed."""
CONTENT = ("model", "codeConfiguration", "environmentId", "environmentVariables", "requestSettings")
"""What of a deployment a process learns when it starts."""
_LOOK_INTERVAL = 0.05


def find(service: Service, name: str) -> Webservice:
    """Return an endpoint.

    Raises:
        ServiceError: 404.
    """
    return _get(service, names.of_endpoint(name), f"Online endpoint {name}")


def every(service: Service) -> list[Webservice]:
    """Return every endpoint, newest first."""
    return [record for record in service.webservices.all() if record.compute_type == names.ENDPOINT]


def find_deployment(service: Service, endpoint: str, name: str) -> Webservice:
    """Return a deployment.

    Raises:
        ServiceError: 404.
    """
    find(service, endpoint)
    return _get(service, names.of_deployment(endpoint, name), f"Deployment {name} of online endpoint {endpoint}")


def deployments(service: Service, endpoint: str) -> list[Webservice]:
    """Return the deployments of an endpoint, newest first."""
    return [
        record
        for record in service.webservices.all()
        if record.compute_type == names.MANAGED and names.endpoint_of(record.name) == endpoint
    ]


def state_of(record: Webservice) -> str:
    """Return ARM's word for how the latest request to make or change something fares."""
    if record.coming is not None and record.coming.operation:
        return "Creating" if record.serving is None else "Updating"
    return "Failed" if record.failed is not None else "Succeeded"


def put(service: Service, name: str, wire: dict[str, Any], keys: tuple[str | None, str | None]) -> tuple[bool, str]:
    """Make an endpoint, or change one. What is put again because its answer was lost is the same endpoint.

    Args:
        service: The emulator's state.
        name: The endpoint's.
        wire: What is kept of the request: ``tags`` and the like, and ``properties``.
        keys: Primary and secondary, as far as they are given.

    Returns:
        Whether it is new, and the operation that waits for it.

    Raises:
        ServiceError: 400; 409, it is being made.
    """
    with service.database.transaction():
        known = service.webservices.find(names.of_endpoint(name))
        if known is None:
            return True, _make(service, name, wire, keys)
        if known.coming is not None and known.coming.operation and known.document["wire"] == wire:
            return False, known.coming.operation
        control.refuse_if_busy(known)
        if known.document["wire"]["properties"]["authMode"] != wire["properties"]["authMode"]:
            raise bad_request("The authentication mode of an endpoint can't be changed.")
        _check_traffic(service, name, wire["properties"]["traffic"])

        def change(record: Webservice) -> None:
            record.document["wire"], record.updated = wire, utc_now()

        service.webservices.update(known.name, change)
        write_routes(service, name)
        return False, service.webservices.start_operation(OperationState.SUCCEEDED).id


def put_deployment(
    service: Service, endpoint: str, name: str, wire: dict[str, Any], image: dict[str, Any], timeout_ms: int | None
) -> tuple[bool, str]:
    """Make a deployment of an endpoint, or change one. What is put again, and has not failed, is not started again.

    Args:
        service: The emulator's state.
        endpoint: The endpoint's name.
        name: The deployment's.
        wire: What is kept of the request.
        image: The environment image request that it comes to.
        timeout_ms: Limit of one call of the score script, or None.

    Returns:
        Whether it is new, and the operation that waits for it.

    Raises:
        ServiceError: 400; 404, there is no such endpoint; 409, it is being made.
    """
    image = control.checked_image(service, image)
    document = {"authEnabled": False, "scoringTimeoutMs": timeout_ms, "wire": wire}
    with service.database.transaction():
        find(service, endpoint)
        known = service.webservices.find(names.of_deployment(endpoint, name))
        if known is not None:
            coming = known.coming if known.coming is not None and known.coming.operation else None
            if coming is not None and known.document["wire"] == wire:
                return False, coming.operation
            control.refuse_if_busy(known)
            if known.failed is None and _same_content(known.document["wire"], wire):
                service.webservices.update(known.name, lambda record: setattr(record, "document", document))
                return False, service.webservices.start_operation(OperationState.SUCCEEDED).id
        else:
            control.check_number(service)
            now = utc_now()
            service.webservices.add(
                Webservice(
                    name=names.of_deployment(endpoint, name),
                    compute_type=names.MANAGED,
                    created=now,
                    updated=now,
                    document=document,
                    primary_key="",
                    secondary_key="",
                )
            )
        deployment = control.new_deployment(service, image, document)

        def change(record: Webservice) -> None:
            record.document, record.failed = document, None
            control.begin(record, deployment)

        write_auth(service, service.webservices.update(names.of_deployment(endpoint, name), change))
        write_routes(service, endpoint)
        return known is None, deployment.operation


def delete(service: Service, name: str) -> bool:
    """Remove an endpoint and its deployments; False if there is none."""
    for record in deployments(service, name):
        control.delete(service, record.name)
    return control.delete(service, names.of_endpoint(name))


def delete_deployment(service: Service, endpoint: str, name: str) -> bool:
    """Remove a deployment when it has answered what it was asked; False if there is none.

    Raises:
        ServiceError: 400, it has traffic.
    """
    record = service.webservices.find(names.of_deployment(endpoint, name))
    if record is None:
        return False
    with service.database.transaction():
        share = find(service, endpoint).document["wire"]["properties"]["traffic"].get(name, 0)
        if share:
            raise bad_request(f"Deployment {name} has {share} percent of the traffic. Set that to 0 first.")
        write_routes(service, endpoint, without=name)
    if record.serving is not None:
        _drain(service, record, record.serving)
    return control.delete(service, record.name)


def everything_of(service: Service, name: str) -> list[str]:
    """Return the services that an endpoint and its deployments are."""
    return [names.of_endpoint(name), *(record.name for record in deployments(service, name))]


def write_routes(service: Service, name: str, *, without: str | None = None) -> None:
    """Tell an endpoint's front where requests go; it takes note at once."""
    record = find(service, name)
    path = routes_of(service, record.name)
    work = path.parent / "0" / "app"
    known = [names.deployment_of(one.name) for one in deployments(service, name)]
    content = {
        "traffic": record.document["wire"]["properties"]["traffic"],
        "sockets": {one: names.socket_of(name, one, work) for one in known if one != without},
    }
    write_atomically(path, json.dumps(content))


def _make(service: Service, name: str, wire: dict[str, Any], keys: tuple[str | None, str | None]) -> str:
    _check_traffic(service, name, wire["properties"]["traffic"])
    control.check_number(service)
    with_keys = wire["properties"]["authMode"] == "Key"
    document = {"authEnabled": with_keys, "aadAuthEnabled": not with_keys, "wire": wire}
    deployment = control.new_deployment(service, {}, document)
    # It is healthy by itself, whatever the services are to be.
    deployment.deadline = time.time() + service.settings.service_timeout
    now = utc_now()
    record = Webservice(
        name=names.of_endpoint(name),
        compute_type=names.ENDPOINT,
        created=now,
        updated=now,
        document=document,
        primary_key=keys[0] or control.make_key(),
        secondary_key=keys[1] or control.make_key(),
    )
    control.begin(record, deployment)
    service.webservices.add(record)
    write_auth(service, record)
    write_routes(service, name)
    return deployment.operation


def _check_traffic(service: Service, name: str, traffic: dict[str, int]) -> None:
    if traffic and sum(traffic.values()) not in (0, 100):
        raise bad_request("The traffic of an endpoint's deployments must add up to 0 or to 100 percent.")
    for one, share in traffic.items():
        known = service.webservices.find(names.of_deployment(name, one))
        if known is None:
            raise bad_request(f"Endpoint {name} has no deployment {one[:40]} that could get traffic.")
        if share and known.serving is None:
            raise bad_request(f"Deployment {one} of endpoint {name} can't get traffic: it has never been healthy.")


def _same_content(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(before["properties"].get(key) == after["properties"].get(key) for key in CONTENT)


def _drain(service: Service, record: Webservice, serving: Deployment) -> None:
    start = start_of(service, record.name, serving)
    if start.port() is None or not start.is_alive:
        return
    retire(start)
    end = time.monotonic() + DRAIN_SECONDS
    while start.is_alive and time.monotonic() < end:
        time.sleep(_LOOK_INTERVAL)


def _get(service: Service, record_name: str, what: str) -> Webservice:
    found = service.webservices.find(record_name)
    if found is None:
        raise ServiceError(404, "ResourceNotFound", f"{what} was not found.")
    return found
