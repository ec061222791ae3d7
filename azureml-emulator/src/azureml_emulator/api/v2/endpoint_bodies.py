"""What a client says of online endpoints and deployments. What is not emulated is refused, never ignored."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from azureml_emulator.api.v2.common import Resource
from azureml_emulator.bodies import Body, StrictBody

NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{1,30}[a-zA-Z0-9]")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
LONGEST_REQUEST_MS = 180_000


class TrackedResource(Resource):
    """ARM's envelope of a thing that costs money."""

    location: str
    tags: dict[str, str] = {}
    kind: str | None = None
    identity: dict[str, Any] | None = None
    sku: dict[str, Any] | None = None


class Identity(StrictBody):
    type: str = "SystemAssigned"
    principal_id: str | None = None
    tenant_id: str | None = None

    @field_validator("type")
    @classmethod
    def _is_the_systems(cls, value: str) -> str:
        if value.lower().replace("_", "") != "systemassigned":
            raise ValueError(f"an identity of the type {value} is not emulated")
        return "SystemAssigned"


class Keys(StrictBody):
    primary_key: str | None = None
    secondary_key: str | None = None


class EndpointProperties(StrictBody):
    auth_mode: str
    description: str | None = None
    properties: dict[str, str] = {}
    traffic: dict[str, int] = {}
    mirror_traffic: dict[str, int] = {}
    public_network_access: str = "Enabled"
    keys: Keys = Keys()

    @field_validator("auth_mode")
    @classmethod
    def _can_be_checked(cls, value: str) -> str:
        modes = {"key": "Key", "amltoken": "AMLToken"}
        if value.lower() not in modes:
            raise ValueError(f"the authentication mode {value} is not emulated, only Key and AMLToken")
        return modes[value.lower()]

    @field_validator("traffic")
    @classmethod
    def _are_percents(cls, value: dict[str, int]) -> dict[str, int]:
        if not all(0 <= share <= 100 for share in value.values()):
            raise ValueError("traffic is a percentage")
        return {name: share for name, share in value.items() if share}

    @field_validator("mirror_traffic")
    @classmethod
    def _is_not_mirrored(cls, value: dict[str, int]) -> dict[str, int]:
        if any(value.values()):
            raise ValueError("mirroring is not emulated")
        return {}

    @field_validator("public_network_access")
    @classmethod
    def _is_public(cls, value: str) -> str:
        if value.lower() != "enabled":
            raise ValueError("private endpoints are not emulated")
        return "Enabled"


class EndpointRequest(StrictBody):
    """PUT: make an endpoint, or change its traffic, its tags or its description."""

    location: str
    properties: EndpointProperties
    tags: dict[str, str] = {}
    identity: Identity = Identity()
    kind: str | None = None


class CodeConfiguration(StrictBody):
    code_id: str
    scoring_script: str = Field(min_length=1)


class RequestSettings(StrictBody):
    max_concurrent_requests_per_instance: int = 1
    max_queue_wait: str = "PT0.5S"
    request_timeout: str = "PT5S"

    @property
    def timeout_ms(self) -> int:
        """Limit of a request."""
        found = _DURATION.fullmatch(self.request_timeout)
        days, hours, minutes, seconds = (float(part or 0) for part in (found.groups() if found else ("0",) * 4))
        return round(1000 * (seconds + 60 * (minutes + 60 * (hours + 24 * days))))

    @field_validator("request_timeout", "max_queue_wait")
    @classmethod
    def _is_a_duration(cls, value: str) -> str:
        if not _DURATION.fullmatch(value):
            raise ValueError(f"{value} is no duration as ISO 8601 has it")
        return value


class Probe(StrictBody):
    failure_threshold: int = 30
    success_threshold: int = 1
    timeout: str = "PT2S"
    period: str = "PT10S"
    initial_delay: str = "PT10S"


class ScaleSettings(StrictBody):
    scale_type: Literal["Default"] = "Default"


class DeploymentProperties(StrictBody):
    endpoint_compute_type: Literal["Managed"]
    code_configuration: CodeConfiguration
    environment_id: str
    model: str | None = None
    instance_type: str = Field(pattern=r"^(?i:standard)_[A-Za-z0-9_]{1,60}$")
    environment_variables: dict[str, str] = {}
    request_settings: RequestSettings = RequestSettings()
    scale_settings: ScaleSettings = ScaleSettings()
    liveness_probe: Probe = Probe()
    readiness_probe: Probe = Probe()
    app_insights_enabled: Literal[False] = False
    egress_public_network_access: Literal["Enabled", "enabled"] = "Enabled"
    description: str | None = None
    properties: dict[str, str] = {}


class Sku(StrictBody):
    name: str = "Default"
    capacity: int = Field(default=1, ge=1, le=100)
    tier: str | None = None


class DeploymentRequest(StrictBody):
    """PUT: make a deployment, or change one."""

    location: str
    properties: DeploymentProperties
    tags: dict[str, str] = {}
    sku: Sku = Sku()
    identity: Identity | None = None
    kind: str | None = None


class KeyRequest(StrictBody):
    key_type: Literal["Primary", "Secondary"]
    key_value: str | None = None


class LogRequest(StrictBody):
    container_type: Literal["InferenceServer", "StorageInitializer"] = "InferenceServer"
    tail: int = Field(default=5000, ge=0, le=100_000)


class Logs(Body):
    content: str


class EndpointKeys(Body):
    primary_key: str
    secondary_key: str


class EndpointToken(Body):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a type of token, not a token
    refresh_after_time_utc: int
    expiry_time_utc: int
