"""Metrics, API version 2."""

# A body is described by its module and its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

from typing import Any

from azureml_emulator.bodies import Body


class MetricPoint(Body):
    metric_id: str
    created_utc: str | None = None
    step: int | None = None
    data: dict[str, Any]


class MetricSeries(Body):
    """Points of one metric; a scalar metric has one column that bears its name."""

    name: str
    columns: dict[str, str]
    value: list[MetricPoint]
    properties: dict[str, Any] | None = None


class MetricBatch(Body):
    values: list[MetricSeries]
    report_errors: bool = False


class MetricBatchAnswer(Body):
    errors: list[Any] = []


class MetricListRequest(Body):
    metric_namespace: str | None = None
    continuation_token: str | None = None


class MetricKey(Body):
    namespace: str = ""
    name: str


class MetricDefinition(Body):
    metric_key: MetricKey
    columns: dict[str, str]


class MetricFullRequest(Body):
    metric_name: str
    metric_namespace: str | None = None
    continuation_token: str | None = None


class MetricFull(Body):
    data_container_id: str
    name: str
    columns: dict[str, str]
    properties: dict[str, Any] | None
    value: list[MetricPoint]
    continuation_token: str | None = None
