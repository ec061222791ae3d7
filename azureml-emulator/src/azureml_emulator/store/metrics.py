"""Metrics, API version 2."""

# A body is described by its fields; pydantic copies mutable defaults.
# ruff: noqa: D101, RUF012

from __future__ import annotations

import json
from typing import Any

from pydantic import ConfigDict

from azureml_emulator.bodies import Body
from azureml_emulator.store.database import Database
from azureml_emulator.times import to_epoch

_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


class MetricPoint(Body):
    # JSON has no number for these. The SDK makes floats of the texts in a column of doubles.
    model_config = ConfigDict(ser_json_inf_nan="strings")

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


class MetricStore:
    """Points of metrics; one that is sent twice counts once."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, run_id: str, batch: list[MetricSeries]) -> None:
        """Store points, leaving out those whose ``metricId`` is known."""
        with self._db.transaction():
            for series in batch:
                for point in series.value:
                    self._db.execute(
                        "INSERT OR IGNORE INTO metrics (run_id, metric_id, name, columns, properties, point)"
                        " VALUES (?, ?, ?, ?, ?, ?)",
                        run_id,
                        point.metric_id,
                        series.name,
                        json.dumps(series.columns),
                        json.dumps(series.properties or {}),
                        point.model_dump_json(by_alias=True),
                    )

    def definitions(self, run_id: str) -> list[MetricDefinition]:
        """Return the run's metrics, in the order of their first points."""
        rows = self._db.all(
            "SELECT name, columns FROM metrics WHERE run_id = ? GROUP BY name ORDER BY MIN(seq)", run_id
        )
        return [
            MetricDefinition(metric_key=MetricKey(name=row["name"]), columns=json.loads(row["columns"])) for row in rows
        ]

    def full(self, run_id: str, name: str, container: str) -> MetricFull | None:
        """Return one metric with all its points, or None if the run has none of that name."""
        rows = self._db.all(
            "SELECT columns, properties, point FROM metrics WHERE run_id = ? AND name = ? ORDER BY seq", run_id, name
        )
        if not rows:
            return None
        columns: dict[str, str] = {}
        for row in rows:
            columns.update(json.loads(row["columns"]))
        return MetricFull(
            data_container_id=container,
            name=name,
            columns=columns,
            properties=json.loads(rows[0]["properties"]),
            value=_in_order([MetricPoint.model_validate_json(row["point"]) for row in rows]),
        )

    def scalars(self, run_id: str, name: str) -> list[float]:
        """Return the numbers logged as scalar ``name``, in order."""
        found = self.full(run_id, name, "")
        values = (point.data.get(name) for point in found.value) if found else ()
        return [float(value) for value in values if isinstance(value, int | float) or value in _NOT_FINITE]

    def counts_of_children(self, run_id: str, name: str) -> dict[str, int]:
        """Return how many points of a metric each child of a run has; without those that have none."""
        rows = self._db.all(
            "SELECT m.run_id, COUNT(*) AS points FROM runs r JOIN metrics m ON m.run_id = r.run_id"
            " WHERE r.parent_run_id = ? AND m.name = ? GROUP BY m.run_id",
            run_id,
            name,
        )
        return {row["run_id"]: row["points"] for row in rows}


def _in_order(points: list[MetricPoint]) -> list[MetricPoint]:
    """Return points in the order in which they were logged; after an outage, a client sends several batches at once."""
    try:
        return sorted(points, key=lambda point: to_epoch(point.created_utc or ""))
    except ValueError:
        return points
