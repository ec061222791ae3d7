"""The API's description: Swagger 2, OpenAPI 3.0 and 3.1, with the schemas of the model's own input and output."""

from __future__ import annotations

import copy
from typing import Any

_VERSIONS = {"2": "2", "2.0": "2", "3": "3.0.3", "3.0": "3.0.3", "3.1": "3.1.0"}
_HEALTH = "If service is up and running, this response will be returned with the content 'Healthy'"
_FAILED = "The service failed to execute due to an error."
_SCORED = "The service processed the input correctly and provided a result prediction, if applicable."
_ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}


def describe(
    version: str, name: str, model_version: str, schema: dict[str, Any], *, key: bool
) -> dict[str, Any] | None:
    """Return the description.

    Args:
        version: Of the description: 2, 3 or 3.1.
        name: The service's name.
        model_version: The model's version.
        schema: As :class:`trainer.serving.scoring.Scorer` has it.
        key: Whether a key is asked for.

    Returns:
        What ``/swagger.json`` answers, or None for another version.
    """
    found = _VERSIONS.get(version)
    if found is None:
        return None
    info = {
        "title": name,
        "description": f"API specification for the Azure Machine Learning service {name}",
        "version": model_version,
    }
    return _swagger(info, schema, key=key) if found == "2" else _openapi(found, info, schema, key=key)


def _swagger(info: dict[str, str], schema: dict[str, Any], *, key: bool) -> dict[str, Any]:
    failed = {"description": _FAILED, "schema": {"$ref": "#/definitions/ErrorResponse"}}

    def answers(about: str, of: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"200": {"description": about, "schema": of, **more}, "default": failed}

    parameter = {
        "name": "serviceInputPayload",
        "in": "body",
        "description": "The input payload for executing the real-time machine learning service.",
        "schema": {"$ref": "#/definitions/ServiceInput"},
    }
    score: dict[str, Any] = {
        "operationId": "RunMLService",
        "description": "Run web service's model and get the prediction output",
        "security": [{"Bearer": []}] if key else [],
        "consumes": ["application/json", *schema["bodies"]],
        "parameters": [parameter],
        "responses": answers(_SCORED, {"$ref": "#/definitions/ServiceOutput"}),
    }
    health = answers(_HEALTH, {"type": "string"}, examples={"application/json": "Healthy"})
    return {
        "swagger": "2.0",
        "info": info,
        "schemes": ["http"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": {"Bearer": _bearer()} if key else {},
        "paths": {
            "/": {"get": {"operationId": "ServiceHealthCheck", "responses": health}},
            "/score": {"post": score},
            "/swagger.json": {
                "get": {
                    "operationId": "GetSwaggerSpec",
                    "responses": answers("The Swagger specification.", {"type": "object"}),
                }
            },
        },
        "definitions": {
            "ServiceInput": schema["input"],
            "ServiceOutput": schema["output"],
            "ErrorResponse": copy.deepcopy(_ERROR),
        },
    }


def _openapi(version: str, info: dict[str, str], schema: dict[str, Any], *, key: bool) -> dict[str, Any]:
    def content(of: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
        return {kind: {"schema": of}}

    failed = {"description": _FAILED, "content": content({"$ref": "#/components/schemas/ErrorResponse"})}

    def answers(about: str, of: dict[str, Any]) -> dict[str, Any]:
        return {"200": {"description": about, "content": of}, "default": failed}

    bodies = content({"$ref": "#/components/schemas/ServiceInput"})
    for kind in schema["bodies"]:
        of: dict[str, Any] = {} if version.startswith("3.1") else {"type": "string", "format": "binary"}
        if kind == "application/octet-stream":
            of["description"] = f"float32, little-endian, {schema['numbers']} numbers per input"
        bodies |= content(of, kind)
    score = {
        "operationId": "RunMLService",
        "description": "Run web service's model and get the prediction output",
        "requestBody": {
            "description": "The input payload for executing the real-time machine learning service.",
            "content": bodies,
            "required": True,
        },
        "responses": answers(_SCORED, content({"$ref": "#/components/schemas/ServiceOutput"})),
    }
    health = answers(_HEALTH, content({"type": "string"}, "text/plain"))
    ready = answers("The model answers.", content({"type": "object"}))
    components: dict[str, Any] = {
        "schemas": {
            "ServiceInput": schema["input"],
            "ServiceOutput": schema["output"],
            "ErrorResponse": copy.deepcopy(_ERROR),
        }
    }
    if key:
        components["securitySchemes"] = {"Bearer": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": version,
        "info": info,
        "security": [{"Bearer": []}] if key else [],
        "paths": {
            "/": {"get": {"operationId": "ServiceHealthCheck", "security": [], "responses": health}},
            "/ready": {"get": {"operationId": "ServiceReadiness", "security": [], "responses": ready}},
            "/score": {"post": score},
            "/swagger.json": {
                "get": {
                    "operationId": "GetSwaggerSpec",
                    "responses": answers("The Swagger specification.", content({"type": "object"})),
                }
            },
        },
        "components": components,
    }


def _bearer() -> dict[str, str]:
    return {"type": "apiKey", "name": "Authorization", "in": "header", "description": "For example: Bearer abc123"}
