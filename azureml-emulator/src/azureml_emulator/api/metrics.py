"""Metrics."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.bodies import Page
from azureml_emulator.errors import not_found
from azureml_emulator.store.metrics import (
    MetricBatch,
    MetricBatchAnswer,
    MetricDefinition,
    MetricFull,
    MetricFullRequest,
    MetricListRequest,
)

BASE = f"/metric/v2.0{WORKSPACE}/runs/{{run_id}}"

router = guarded_router("Metrics", access=DATA_PLANE)


@router.post(f"{BASE}/batch", summary="`Run.log`, `Run.log_list`, `Run.log_row`, `Run.log_table`")
def add_metrics(run_id: str, body: MetricBatch, service: ServiceDep) -> MetricBatchAnswer:
    service.runs.get(run_id)
    service.metrics.add(run_id, body.values)
    return MetricBatchAnswer()


@router.post(f"{BASE}/list", summary="`Run.get_metrics`")
def list_metrics(run_id: str, _body: MetricListRequest, service: ServiceDep) -> Page[MetricDefinition]:
    service.runs.get(run_id)
    return Page(value=service.metrics.definitions(run_id))


@router.post(f"{BASE}/full", summary="`Run.get_metrics`")
def get_metric(run_id: str, body: MetricFullRequest, service: ServiceDep) -> MetricFull:
    run = service.runs.get(run_id)
    found = service.metrics.full(run_id, body.metric_name, run.data_container_id)
    if found is None:
        raise not_found("Metric", body.metric_name)
    return found
