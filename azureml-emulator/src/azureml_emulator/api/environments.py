"""Registered environments."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Response

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.bodies import Page
from azureml_emulator.errors import bad_request

BASE = f"/environment/v1.0{WORKSPACE}/environments"
Definition = Annotated[dict[str, Any], Body()]

router = guarded_router("Environments", access=DATA_PLANE)


@router.get(f"{BASE}/", summary="`Environment.list`, `Workspace.environments`")
def list_environments(service: ServiceDep) -> Page[dict[str, Any]]:
    return Page(value=service.environments.latest())


@router.get(f"{BASE}/{{name}}", summary="`Environment.get`")
def get_environment(name: str, service: ServiceDep) -> dict[str, Any]:
    return service.environments.get(name)


@router.put(f"{BASE}/{{name}}", summary="`Environment.register`")
def register_environment(name: str, body: Definition, service: ServiceDep) -> dict[str, Any]:
    return service.environments.register(name, None, _in_camel_case(body))


@router.get(f"{BASE}/{{name}}/versions/{{version}}", summary="`Environment.get(version=)`")
def get_version(name: str, version: str, service: ServiceDep) -> dict[str, Any]:
    return service.environments.get(name, version)


@router.put(f"{BASE}/{{name}}/versions/{{version}}", summary="`Environment.register` of an environment with a version")
def register_version(name: str, version: str, body: Definition, service: ServiceDep) -> dict[str, Any]:
    return service.environments.register(name, version, _in_camel_case(body))


@router.get(f"{BASE}/{{name}}/labels/{{label}}", summary="`Environment.get(label=)`")
def get_labelled(name: str, label: str, service: ServiceDep) -> dict[str, Any]:
    return service.environments.by_label(name, label)


@router.put(f"{BASE}/{{name}}/versions/{{version}}/metadata", summary="`Environment.label`")
def set_labels(name: str, version: str, body: Definition, service: ServiceDep) -> Response:
    labels = body.get("Labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise bad_request("Labels must be a list of texts.")
    service.environments.set_labels(name, version, labels)
    return Response()


def _in_camel_case(body: dict[str, Any]) -> dict[str, Any]:
    """Return a definition as the SDK reads it; it writes some of its keys in PascalCase."""
    keys = {key: key[:1].lower() + key[1:] for key in body}
    return {keys[key]: value for key, value in body.items() if keys[key] not in ("name", "version")}
