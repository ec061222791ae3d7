"""MLflow's REST protocol, over the runs and metrics that both SDKs see.

After MLflow's own description of its REST API, version 2.0; bodies and answers are in its snake_case. azureml-mlflow
asks under ``mlflow/v2.0`` and plain MLflow, given the workspace's address, under ``mlflow/v1.0``.
"""

# What a route is for is in its summary, from which the documentation's table is made. A body is described by its
# fields.
# ruff: noqa: D101, D103

from __future__ import annotations

import math
import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router, paginate
from azureml_emulator.api.v2.common import only_query
from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.jobs.submission import check_run_id
from azureml_emulator.service import Service
from azureml_emulator.store.metrics import MetricPoint, MetricSeries
from azureml_emulator.store.runs import Experiment, Run, RunStatus, RunTypeV2
from azureml_emulator.times import from_epoch, to_epoch, utc_now

BASE = f"/mlflow/{{api}}{WORKSPACE}/api/2.0/mlflow"
PARAMETER = "mlflow.parameter."
"""How the properties begin in which a run's parameters are kept."""
MAX_RESULTS = 25_000
_NAMESPACE = uuid.UUID("6c3b7d0e-8f3c-5b58-9c1b-1f6f2b5a9e11")
_STATUS = {
    RunStatus.COMPLETED: "FINISHED",
    RunStatus.FAILED: "FAILED",
    RunStatus.CANCELED: "KILLED",
    RunStatus.NOT_STARTED: "SCHEDULED",
    RunStatus.PREPARING: "SCHEDULED",
    RunStatus.QUEUED: "SCHEDULED",
    RunStatus.STARTING: "SCHEDULED",
}
_ENDINGS = {"FINISHED": RunStatus.COMPLETED, "FAILED": RunStatus.FAILED, "KILLED": RunStatus.CANCELED}


class Snake(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OfRun(Snake):
    run_id: str = ""
    run_uuid: str = ""
    """The older name of the same, which MLflow sends beside it."""

    @property
    def run(self) -> str:
        """The run's id."""
        return self.run_id or self.run_uuid


class Metric(Snake):
    """``timestamp`` is in milliseconds since 1970. A value that is no number is a text on the wire, such as NaN."""

    key: str = Field(min_length=1)
    value: float
    timestamp: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None


class KeyValue(Snake):
    key: str = Field(min_length=1)
    value: str


class LogMetric(OfRun, Metric):
    run_id: str = ""


class LogParameter(OfRun, KeyValue):
    pass


class SetTag(OfRun, KeyValue):
    pass


class LogBatch(OfRun):
    metrics: list[Metric] = []
    params: list[KeyValue] = []
    tags: list[KeyValue] = []


class UpdateRun(OfRun):
    status: Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"] | None = None
    end_time: int | None = None
    run_name: str | None = None


class CreateRun(Snake):
    experiment_id: str
    user_id: str | None = None
    run_name: str | None = None
    start_time: int | None = None
    tags: list[KeyValue] = []


class CreateExperiment(Snake):
    name: str = Field(min_length=1)
    artifact_location: str | None = None
    tags: list[KeyValue] = []


class SearchRuns(Snake):
    experiment_ids: list[str]
    filter: str = ""
    run_view_type: Literal["ACTIVE_ONLY", "DELETED_ONLY", "ALL"] = "ACTIVE_ONLY"
    max_results: int = Field(default=1000, ge=1, le=50_000)
    order_by: list[str] = []
    page_token: str | None = None


class LoggedModelSearch(Snake):
    model_config = ConfigDict(extra="allow")

    experiment_ids: list[str]


router = guarded_router("MLflow", access=DATA_PLANE)


# Runs


@router.get(
    f"{BASE}/runs/get", dependencies=[only_query("run_id", "run_uuid")], summary="`MlflowClient.get_run`, `start_run`"
)
def get_run(service: ServiceDep, run_id: str = "", run_uuid: str = "") -> dict[str, Any]:
    return {"run": _run(service, service.runs.get(run_id or run_uuid))}


@router.post(f"{BASE}/runs/create", summary="`mlflow.start_run` outside of a job")
def create_run(body: CreateRun, service: ServiceDep) -> dict[str, Any]:
    experiment = service.runs.experiment_by_id(body.experiment_id)
    run_id = check_run_id(str(uuid.uuid4()))
    started = from_epoch((body.start_time or time.time() * 1000) / 1000)
    made = service.runs.add(
        Run(
            run_id=run_id,
            run_number=0,
            root_run_id=run_id,
            experiment_id=experiment.experiment_id,
            data_container_id=f"dcid.{run_id}",
            status=RunStatus.RUNNING,
            created_utc=utc_now(),
            start_time_utc=started,
            display_name=body.run_name or run_id,
            run_type_v2=RunTypeV2(orchestrator="External", traits=["unspecified"]),
            tags={tag.key: tag.value for tag in body.tags},
        )
    )
    return {"run": _run(service, made)}


@router.post(f"{BASE}/runs/update", summary="`mlflow.start_run`, `mlflow.end_run`")
def update_run(body: UpdateRun, service: ServiceDep) -> dict[str, Any]:
    run = service.runs.get(body.run)
    if body.run_name is not None:
        run = service.runs.update(run.run_id, lambda run: setattr(run, "display_name", body.run_name))
    # How a submitted run goes on is for the service to say, not for its script.
    if body.status is not None and run.cancel_uri is None and service.sweeps.find(run.run_id) is None:
        run = service.runs.set_status(run.run_id, _ENDINGS.get(body.status, RunStatus.RUNNING))
    return {"run_info": _info(service, run)}


@router.post(f"{BASE}/runs/search", summary="`mlflow.search_runs`")
def search_runs(body: SearchRuns, service: ServiceDep) -> dict[str, Any]:
    if body.filter or body.order_by:
        raise bad_request("Searching runs by a filter, and ordering them, are not emulated.", "NotEmulated")
    hidden = {"ACTIVE_ONLY": (False,), "DELETED_ONLY": (True,), "ALL": (False, True)}[body.run_view_type]
    experiments = [service.runs.experiment_by_id(each) for each in body.experiment_ids]
    found = [run for each in experiments for run in service.runs.of_experiment(each.experiment_id)]
    kept = sorted((run for run in found if run.hidden in hidden), key=lambda run: run.run_number, reverse=True)
    page = paginate(kept, body.max_results, body.page_token or None)
    more = {"next_page_token": page.continuation_token} if page.continuation_token else {}
    return {"runs": [_run(service, run) for run in page.value], **more}


@router.post(f"{BASE}/runs/log-metric", summary="`mlflow.log_metric`")
def log_metric(body: LogMetric, service: ServiceDep) -> dict[str, Any]:
    _add_metrics(service, body.run, [body])
    return {}


@router.post(f"{BASE}/runs/log-batch", summary="`mlflow.log_metrics`, `mlflow.log_params`, `mlflow.set_tags`")
def log_batch(body: LogBatch, service: ServiceDep) -> dict[str, Any]:
    with service.database.transaction():
        _add_parameters(service, body.run, body.params)
        _add_tags(service, body.run, body.tags)
        _add_metrics(service, body.run, body.metrics)
    return {}


@router.post(f"{BASE}/runs/log-parameter", summary="`mlflow.log_param`")
def log_parameter(body: LogParameter, service: ServiceDep) -> dict[str, Any]:
    _add_parameters(service, body.run, [body])
    return {}


@router.post(f"{BASE}/runs/set-tag", summary="`mlflow.set_tag`")
def set_tag(body: SetTag, service: ServiceDep) -> dict[str, Any]:
    _add_tags(service, body.run, [body])
    return {}


@router.get(
    f"{BASE}/metrics/get-history",
    dependencies=[only_query("run_id", "run_uuid", "metric_key", "max_results", "page_token")],
    summary="`MlflowClient.get_metric_history`",
)
def get_history(
    service: ServiceDep,
    metric_key: str,
    run_id: str = "",
    run_uuid: str = "",
    max_results: int = MAX_RESULTS,
    page_token: str | None = None,
) -> dict[str, Any]:
    run = service.runs.get(run_id or run_uuid)
    page = paginate(_history(service, run, metric_key), min(max_results, MAX_RESULTS), page_token or None)
    more = {"next_page_token": page.continuation_token} if page.continuation_token else {}
    return {"metrics": page.value, **more}


# Experiments, and what MLflow 3 asks besides


@router.get(f"{BASE}/experiments/get", dependencies=[only_query("experiment_id")], summary="`mlflow.get_experiment`")
def get_experiment(service: ServiceDep, experiment_id: str) -> dict[str, Any]:
    return {"experiment": _experiment(service, service.runs.experiment_by_id(experiment_id))}


@router.get(
    f"{BASE}/experiments/get-by-name",
    dependencies=[only_query("experiment_name")],
    summary="`mlflow.set_experiment`, `mlflow.get_experiment_by_name`",
)
def get_experiment_by_name(service: ServiceDep, experiment_name: str) -> dict[str, Any]:
    found = service.runs.find_experiment(experiment_name)
    if found is None:
        raise MlflowNotFound(f"Experiment {experiment_name} not found.")
    return {"experiment": _experiment(service, found)}


@router.post(f"{BASE}/experiments/create", summary="`mlflow.set_experiment` of a new name")
def create_experiment(body: CreateExperiment, service: ServiceDep) -> dict[str, Any]:
    return {"experiment_id": service.runs.ensure_experiment(body.name).experiment_id}


@router.post(f"{BASE}/logged-models/search", summary="`mlflow.artifacts` of MLflow 3")
def search_logged_models(body: LoggedModelSearch, service: ServiceDep) -> dict[str, Any]:
    # MLflow 3 asks whether a file belongs to a logged model before it lists or downloads it; none is kept as such.
    for experiment in body.experiment_ids:
        service.runs.experiment_by_id(experiment)
    return {"models": []}


class MlflowNotFound(ServiceError):  # noqa: N818 - an answer, not an error of this program
    """What MLflow takes for "there is none": it reads this code."""

    def __init__(self, message: str) -> None:
        super().__init__(404, "ResourceNotFound", message)

    def body(self) -> dict[str, object]:
        """Return the answer's JSON, as MLflow has it."""
        return super().body() | {"error_code": "RESOURCE_DOES_NOT_EXIST"}


def _add_metrics(service: Service, run_id: str, metrics: list[Any]) -> None:
    run = service.runs.get(run_id)
    series = []
    for metric in metrics:
        value: float | str = metric.value
        if not math.isfinite(metric.value):
            value = "NaN" if math.isnan(metric.value) else ("Infinity" if metric.value > 0 else "-Infinity")
        # A repeated request must not count twice, so the point's id is made of all that it says.
        content = f"{run.run_id}\n{metric.key}\n{metric.timestamp}\n{metric.step}\n{value}"
        series.append(
            MetricSeries(
                name=metric.key,
                columns={metric.key: "double"},
                properties={"uxMetricType": "azureml.v1.scalar"},
                value=[
                    MetricPoint(
                        metric_id=str(uuid.uuid5(_NAMESPACE, content)),
                        created_utc=from_epoch(metric.timestamp / 1000),
                        step=metric.step,
                        data={metric.key: value},
                    )
                ],
            )
        )
    service.metrics.add(run.run_id, series)


def _add_parameters(service: Service, run_id: str, given: list[Any]) -> None:
    def change(run: Run) -> None:
        for item in given:
            known = run.properties.setdefault(f"{PARAMETER}{item.key}", item.value)
            if known != item.value:
                message = f"The parameter {item.key} is {known!r} already, and can't be changed to {item.value!r}."
                raise ServiceError(400, "UserError", message)

    service.runs.update(run_id, change)


def _add_tags(service: Service, run_id: str, given: list[Any]) -> None:
    service.runs.update(run_id, lambda run: run.tags.update({item.key: item.value for item in given}))


def _history(service: Service, run: Run, key: str) -> list[dict[str, Any]]:
    found = service.metrics.full(run.run_id, key, run.data_container_id)
    points = []
    for index, point in enumerate(found.value if found else []):
        value = point.data.get(key)
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            moment = to_epoch(point.created_utc) if point.created_utc else time.time()
            step = index if point.step is None else point.step
            points.append({"key": key, "value": value, "timestamp": round(moment * 1000), "step": step})
    return sorted(points, key=lambda item: (item["timestamp"], item["step"]))


def _run(service: Service, run: Run) -> dict[str, Any]:
    latest = []
    for definition in service.metrics.definitions(run.run_id):
        history = _history(service, run, definition.metric_key.name)
        if history:
            latest.append(max(history, key=lambda item: (item["step"], item["timestamp"])))
    parameters = [
        {"key": name.removeprefix(PARAMETER), "value": value}
        for name, value in run.properties.items()
        if name.startswith(PARAMETER)
    ]
    tags = [{"key": key, "value": value} for key, value in run.tags.items()]
    return {"info": _info(service, run), "data": {"metrics": latest, "params": parameters, "tags": tags}}


def _info(service: Service, run: Run) -> dict[str, Any]:
    experiment = service.runs.experiment_by_id(run.experiment_id)
    times = {"start_time": run.start_time_utc or run.created_utc, "end_time": run.end_time_utc}
    return {
        "run_id": run.run_id,
        "run_uuid": run.run_id,
        "run_name": run.display_name or run.run_id,
        "experiment_id": run.experiment_id,
        "user_id": run.user_id,
        "status": _STATUS.get(run.status, "RUNNING"),
        **{name: round(to_epoch(moment) * 1000) for name, moment in times.items() if moment},
        "artifact_uri": f"{_artifact_base(service)}/experiments/{experiment.name}/runs/{run.run_id}/artifacts",
        "lifecycle_stage": "deleted" if run.hidden else "active",
    }


def _experiment(service: Service, experiment: Experiment) -> dict[str, Any]:
    return {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "artifact_location": f"{_artifact_base(service)}/experiments/{experiment.name}",
        "lifecycle_stage": "active",
        "tags": [{"key": key, "value": value} for key, value in experiment.tags.items()],
    }


def _artifact_base(service: Service) -> str:
    host = service.base_url.removeprefix("https://")
    return f"azureml://{host}/mlflow/v2.0{service.settings.workspace_path}"
