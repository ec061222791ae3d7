"""The forms of run history that SDK v2 and azureml-mlflow use: runs without their experiments, and runs' files."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from azureml_emulator.api import artifacts as artifact_routes
from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router, paginate
from azureml_emulator.api.runs import BASE, BY_NAME, details
from azureml_emulator.api.v2.common import only_query
from azureml_emulator.assets import BLOB_STORE, Place, output_place, resolve
from azureml_emulator.bodies import Page, StrictBody
from azureml_emulator.errors import ServiceError, not_found
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import RUN_ORIGIN, Artifact, ArtifactPaths, BatchArtifacts, ContentInfo
from azureml_emulator.store.runs import Run, RunDetails

FILES = f"{BY_NAME}/runs/{{run_id}}/artifacts"
_OUTPUT = "azureml_{job}_output_data_{output}"


class RunDataRequest(StrictBody):
    """Which parts of a run are wanted; all are given."""

    run_id: str
    select_run_metadata: bool = True
    select_run_definition: bool = True
    select_job_specification: bool = True


class RunData(StrictBody):
    """A run with its inputs and outputs."""

    run_metadata: dict[str, Any]
    run_definition: dict[str, Any] | None = None


class AssetIds(StrictBody):
    """Ids of data assets."""

    values: list[str]


router = guarded_router("Run history (SDK v2)", access=DATA_PLANE)


@router.get(f"{BASE}/runs/{{run_id}}/details", summary="`jobs.stream`")
def get_details(run_id: str, service: ServiceDep) -> RunDetails:
    return details(service, service.runs.get(run_id))


@router.get(
    f"{BASE}/runs/{{run_id}}/children",
    dependencies=[only_query("$continuationToken", "$top")],
    summary="`jobs.list(parent_job_name=)`",
)
def get_children(
    run_id: str,
    service: ServiceDep,
    top: Annotated[int | None, Query(alias="$top")] = None,
    token: Annotated[str | None, Query(alias="$continuationToken")] = None,
) -> Page[Run]:
    service.runs.get(run_id)
    return paginate(service.runs.children(run_id), top, token)


@router.post(f"{BASE}/rundata", summary="`jobs.download`")
def get_run_data(body: RunDataRequest, service: ServiceDep) -> RunData:
    run = service.runs.get(body.run_id)
    document = service.command_jobs.find(run.run_id) or {}
    outputs = {
        name: {"assetId": _asset_id(service, run.run_id, name), "type": wanted.get("jobOutputType", "uri_folder")}
        for name, wanted in (document.get("outputs") or {}).items()
    }
    metadata = run.model_dump(mode="json", by_alias=True) | {"outputs": outputs, "inputs": {}}
    return RunData(run_metadata=metadata, run_definition=run.run_definition)


@router.post(
    f"/data/v1.0{WORKSPACE}/dataversion/batchGetResolvedUris", summary="`jobs.download` of a job with named outputs"
)
def resolve_assets(body: AssetIds, service: ServiceDep) -> dict[str, Any]:
    return {"values": {asset: _resolved(service, asset) for asset in body.values}}


def _asset_id(service: Service, job: str, output: str) -> str:
    name = _OUTPUT.format(job=job, output=output)
    base = f"azureml://locations/{service.settings.location}/workspaces/{service.workspace_id}"
    return f"{base}/data/{name}/versions/1"


def _resolved(service: Service, asset: str) -> dict[str, str]:
    name = asset.partition("/data/")[2].removesuffix("/versions/1")
    middle = _OUTPUT.format(job="", output="").removeprefix("azureml_")
    # Both a job's and an output's name may have the middle in them, so every split is tried.
    start = 0
    while (at := name.find(middle, start)) >= 0:
        job, output = name[len("azureml_") : at], name[at + len(middle) :]
        wanted = ((service.command_jobs.find(job) or {}).get("outputs") or {}).get(output)
        if wanted is not None:
            place = resolve(service, wanted["uri"]) if wanted.get("uri") else output_place(job, output)
            return {"uri": _folder_uri(place, wanted), "type": wanted.get("jobOutputType", "uri_folder")}
        start = at + 1
    raise not_found("Data", asset)


def _folder_uri(place: Place, wanted: dict[str, Any]) -> str:
    is_file = wanted.get("jobOutputType") == "uri_file" and wanted.get("uri")
    return place.uri if is_file or place.datastore != BLOB_STORE else place.uri + "/"


# Files of runs, as azureml-mlflow writes and reads them


@router.get(FILES, summary="`MlflowClient.list_artifacts`")
def list_files(experiment: str, run_id: str, service: ServiceDep) -> Page[Artifact]:
    run = service.run_of(experiment, run_id)
    return artifact_routes.list_artifacts(RUN_ORIGIN, run.data_container_id, service)


@router.get(f"{FILES}/contentinfo", dependencies=[only_query("path")], summary="`MlflowClient.download_artifacts`")
def get_file(experiment: str, run_id: str, path: str, service: ServiceDep) -> ContentInfo:
    run = service.run_of(experiment, run_id)
    return _named(service, artifact_routes.get_content(RUN_ORIGIN, run.data_container_id, path, service))


@router.post(f"{FILES}/batch/metadata", summary="`mlflow.log_artifact(s)`")
def create_files(experiment: str, run_id: str, body: ArtifactPaths, service: ServiceDep) -> BatchArtifacts:
    run = service.run_of(experiment, run_id)
    made = artifact_routes.create_artifacts(RUN_ORIGIN, run.data_container_id, body, service)
    if made.errors:
        # This client looks at nothing but the links.
        raise ServiceError(400, "UserError", next(iter(made.errors.values())).error.message)
    named = {path: _named(service, item) for path, item in made.artifact_content_information.items()}
    return made.model_copy(update={"artifact_content_information": named})


def _named(service: Service, item: ContentInfo) -> ContentInfo:
    """Return a link that has the container and the name in it, which azureml-mlflow reads."""
    return item.model_copy(update={"content_uri": service.named_url(item.origin, item.container, item.path)})
