"""What a web service may be asked to be. What is not emulated is refused, never accepted and ignored."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.store.artifacts import normalise
from azureml_emulator.store.models import PatchOperation

ACI, AKS = "ACI", "AKS"
NOT_EMULATED = "NotEmulated"
_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
_KEY = re.compile(r"[!-~]{1,256}")

_COMMON = frozenset({"description", "kvTags", "properties", "location", "authEnabled", "containerResourceRequirements"})
_OF_AKS = frozenset(
    {"numReplicas", "computeName", "autoScaler", "maxConcurrentRequestsPerContainer", "maxQueueWaitMs", "namespace"}
    | {"scoringTimeoutMs", "aadAuthEnabled", "livenessProbeRequirements"}
)
_KEPT = {ACI: _COMMON, AKS: _COMMON | _OF_AKS}
_APART = frozenset({"name", "computeType", "keys", "environmentImageRequest", "overwrite"})
_REFUSED = {
    "appInsightsEnabled": "Application Insights",
    "cname": "TLS and host names of web services",
    "dataCollection": "collecting a service's data",
    "dnsNameLabel": "DNS names of web services",
    "encryptionProperties": "customer-managed keys",
    "imageId": "images; deploy with an InferenceConfig that has an environment",
    "sslCertificate": "TLS of web services",
    "sslEnabled": "TLS of web services",
    "sslKey": "TLS of web services",
    "storageInitEnabled": "blobfuse",
    "vnetConfiguration": "virtual networks",
}
_COMPUTE_TYPES = {
    "AKSENDPOINT": "AKS endpoints with versions and traffic",
    "MIR": "MIR services",
    "MIR-SINGLEMODEL": "MIR services",
    "MIR-MULTIMODEL": "MIR services",
    "MIRGRPC": "MIR services",
}
_FIXED = frozenset({"computeName", "location"})
_DEFAULTS: dict[str, dict[str, Any]] = {
    ACI: {"authEnabled": False, "containerResourceRequirements": {"cpu": 0.1, "memoryInGB": 0.5}},
    AKS: {
        "authEnabled": True,
        "aadAuthEnabled": False,
        "containerResourceRequirements": {
            **{"cpu": 0.1, "cpuLimit": None, "memoryInGB": 0.5, "memoryInGBLimit": None, "gpu": 0}
        },
        "autoScaler": {
            **{"autoscaleEnabled": False, "maxReplicas": None, "minReplicas": None},
            **{"refreshPeriodInSeconds": None, "targetUtilization": None},
        },
        "livenessProbeRequirements": {
            **{"periodSeconds": 10, "initialDelaySeconds": 310, "timeoutSeconds": 2},
            **{"successThreshold": 1, "failureThreshold": 3},
        },
        "maxConcurrentRequestsPerContainer": 1,
        "maxQueueWaitMs": 500,
        "namespace": None,
        "numReplicas": None,
        "scoringTimeoutMs": 60_000,
    },
}


def not_emulated(what: str) -> ServiceError:
    """Make the answer to something that the emulator does not do."""
    return bad_request(f"The emulator does not emulate {what}.", NOT_EMULATED)


def check_text(content: object) -> None:
    """See that all texts of a request can be written down.

    Raises:
        ServiceError: 400, JSON can name characters that no UTF-8 has.
    """
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise bad_request("The request has a text that is not valid Unicode.") from None


def check_name(name: object) -> str:
    """Return a service's name.

    Raises:
        ServiceError: 400, it is none; it becomes the name of a directory.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise bad_request(
            f"{str(name)[:40]!r} is no name of a service: 3 to 32 lowercase letters, numbers or dashes, "
            "beginning with a letter."
        )
    return name


def compute_type(body: Mapping[str, Any]) -> str:
    """Return what kind of service is asked for.

    Raises:
        ServiceError: 400, the emulator has no such kind.
    """
    given = body.get("computeType")
    if given in (ACI, AKS):
        return str(given)
    raise not_emulated(_COMPUTE_TYPES.get(str(given).upper(), f"services of the compute type {str(given)[:40]!r}"))


def document(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a request to create a service, whole, in the wire's words.

    Raises:
        ServiceError: 400, it asks for something that is not emulated, or is malformed.
    """
    check_text(body)
    kind = compute_type(body)
    found: dict[str, Any] = {"description": None, "kvTags": {}, "properties": {}, "location": None}
    found |= copy.deepcopy(_DEFAULTS[kind])
    for name, value in body.items():
        if name in _APART or not _says_something(value):
            continue
        if name not in _KEPT[kind]:
            raise not_emulated(_REFUSED.get(name, f"{name[:60]} of {kind} services"))
        default = found.get(name)
        if isinstance(default, dict) and isinstance(value, dict) and name not in ("kvTags", "properties"):
            found[name] = default | {key: item for key, item in value.items() if item is not None}
        else:
            found[name] = value
    # Whether a service asks for a key matters also where it is said to be false.
    for name in ("authEnabled", "aadAuthEnabled"):
        if name in _KEPT[kind] and isinstance(body.get(name), bool):
            found[name] = body[name]
    if found.get("aadAuthEnabled") and body.get("authEnabled") is None:
        found["authEnabled"] = False
    return _checked(kind, found)


def patched(kind: str, before: Mapping[str, Any], operations: list[PatchOperation]) -> dict[str, Any]:
    """Return what a service's document is after a JSON Patch, apart from ``/environmentImageRequest``.

    Raises:
        ServiceError: 400, it asks for something that is not emulated, or is malformed.
    """
    check_text([one.model_dump() for one in operations])
    found: dict[str, Any] = copy.deepcopy(dict(before))
    for operation in operations:
        name, _, key = operation.path.removeprefix("/").partition("/")
        key = key.replace("~1", "/").replace("~0", "~")
        if name == "environmentImageRequest":
            continue
        if operation.op == "remove" or name in _FIXED | _APART:
            raise not_emulated(f"the change {operation.op} {operation.path[:60]} of a service")
        if name not in _KEPT[kind]:
            if _says_something(operation.value):
                raise not_emulated(_REFUSED.get(name, f"{name[:60]} of {kind} services"))
            continue
        if not key:
            found[name] = operation.value
            continue
        if not isinstance(found.get(name), dict):
            raise bad_request(f"{operation.path[:60]} is no path of a service.")
        if name == "properties" and found[name].get(key, operation.value) != operation.value:
            raise bad_request(f"Property {key[:60]} can't be changed, only others added.")
        found[name][key] = operation.value
    return _checked(kind, found)


def image_request(operations: list[PatchOperation]) -> Any:  # noqa: ANN401 - to be checked
    """Return the environment image request of a JSON Patch, or None."""
    found = [one.value for one in operations if one.path == "/environmentImageRequest" and one.op != "remove"]
    return found[-1] if found else None


def keys(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the keys that a request to create a service brings along.

    Raises:
        ServiceError: 400, they can't be sent in a header.
    """
    given = body.get("keys") or {}
    if not isinstance(given, dict):
        raise bad_request("keys must be an object.")
    found = (given.get("primaryKey") or None, given.get("secondaryKey") or None)
    return tuple(None if key is None else check_key(key) for key in found)  # type: ignore[return-value]


def check_key(key: object) -> str:
    """Return a key that a client has chosen.

    Raises:
        ServiceError: 400, it can't be sent in a header.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise bad_request("A key must be 1 to 256 printable ASCII characters without blanks.")
    return key


def check_image(image: object, has_artifact: Callable[[str], bool], has_model: Callable[[str], bool]) -> dict[str, Any]:
    """Return an environment image request that can be run here.

    Args:
        image: As sent.
        has_artifact: Tells whether an asset's URL leads to something.
        has_model: Tells whether there is such a model.

    Raises:
        ServiceError: 400.
    """
    if not isinstance(image, dict):
        raise bad_request("A service needs an environmentImageRequest: deploy with an InferenceConfig.")
    environment = image.get("environment")
    if not image.get("driverProgram") and not environment:
        raise not_emulated("no-code deployment; give an InferenceConfig with a score script")
    if not isinstance(environment, dict):
        raise not_emulated("deployment without an environment; give the InferenceConfig one")
    docker = environment.get("docker") or {}
    platform = docker.get("platform") if isinstance(docker, dict) else None
    if isinstance(platform, dict) and str(platform.get("os") or "Linux").lower() != "linux":
        raise not_emulated("containers other than Linux's")
    variables = environment.get("environmentVariables") or {}
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise bad_request("environmentVariables must be an object of texts.")
    if any("\0" in name + value or "=" in name or not name for name, value in variables.items()):
        raise bad_request("An environment variable has a name or a value that no process can have.")
    for name in ("AZUREML_ENTRY_SCRIPT", "AZUREML_SOURCE_DIRECTORY"):
        if variables.get(name):
            normalise(variables[name])
    assets, models = image.get("assets") or [], image.get("modelIds") or []
    if not isinstance(assets, list) or not isinstance(models, list):
        raise bad_request("assets and modelIds must be lists.")
    for asset in assets:
        if not isinstance(asset, dict) or not isinstance(asset.get("id"), str):
            raise bad_request("An asset must be an object with an id.")
        normalise(asset["id"])
        if not has_artifact(str(asset.get("url"))):
            raise bad_request(f"Asset {asset['id'][:80]} has not been uploaded: {str(asset.get('url'))[:200]}")
    for model in models:
        if not isinstance(model, str) or not has_model(model):
            raise ServiceError(400, "ModelNotFound", f"Model {str(model)[:80]} not found.")
    return image


def _checked(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    for name in ("kvTags", "properties"):
        value = found[name] if found[name] is not None else {}
        if not isinstance(value, dict):
            raise bad_request(f"{name} must be an object.")
        found[name] = {str(key): str(item) for key, item in value.items()}
    for name in ("authEnabled", "aadAuthEnabled"):
        if not isinstance(found.get(name, False), bool):
            raise bad_request(f"{name} must be true or false.")
    for name, default in _DEFAULTS[kind].items():
        if isinstance(default, dict) and not isinstance(found[name], dict):
            raise bad_request(f"{name} must be an object.")
    if found["containerResourceRequirements"].get("gpu"):
        raise not_emulated("GPUs of services")
    if found["authEnabled"] and found.get("aadAuthEnabled"):
        raise bad_request("A service asks for keys or for tokens, not for both.")
    if kind == AKS:
        cluster = found.get("computeName")
        if not cluster or not isinstance(cluster, str):
            raise bad_request("An AKS service needs the name of a cluster: compute_target_name=.")
        limit = found["scoringTimeoutMs"]
        if not isinstance(limit, int) or not 0 < limit <= 300_000:
            raise bad_request("scoringTimeoutMs must be a number from 1 to 300000.")
    return found


def _says_something(value: object) -> bool:
    """Tell whether a value asks for anything: not where all it holds is null, false or empty."""
    if isinstance(value, dict):
        return any(map(_says_something, value.values()))
    return bool(value)
