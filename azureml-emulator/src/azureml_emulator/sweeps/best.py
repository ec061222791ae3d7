"""The table in which a sweep's parent run says which child is the best.

``HyperDriveRun.get_best_run_by_primary_metric`` reads its last row, if that is marked as final or the sweep still goes
on, and asks every child for its metrics if there is none.
"""

from __future__ import annotations

import uuid

from azureml_emulator.service import Service
from azureml_emulator.store.metrics import MetricPoint, MetricSeries
from azureml_emulator.store.sweeps import Sweep
from azureml_emulator.times import utc_now

TABLE = "best_child_by_primary_metric"
_COLUMNS = {
    "metric_name": "string",
    "timestamp": "string",
    "run_id": "string",
    "metric_value": "double",
    "final": "bool",
}


def add_best(service: Service, sweep: Sweep, *, final: bool) -> None:
    """Add the best child to the table, if there is one, and to the parent's properties.

    Args:
        service: The emulator's state.
        sweep: The sweep.
        final: Whether no other can become the best any more.
    """
    if sweep.best is None:
        return
    now = utc_now()
    row = {
        "metric_name": sweep.request.primary_metric_config.name,
        "timestamp": now,
        "run_id": sweep.best.run_id,
        "metric_value": sweep.best.value,
        "final": final,
    }
    point = MetricPoint(metric_id=str(uuid.uuid4()), created_utc=now, data=row)
    table = MetricSeries(name=TABLE, columns=_COLUMNS, value=[point], properties={"uxMetricType": "azureml.v1.table"})
    service.metrics.add(sweep.run_id, [table])
    best, score = sweep.best.run_id, str(sweep.best.value)
    # SDK v2 downloads the best child's files by this name.
    service.runs.update(sweep.run_id, lambda run: run.properties.update({"best_child_run_id": best, "score": score}))
