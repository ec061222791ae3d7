"""Submitting and cancelling runs."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

import json
import zipfile
from typing import Annotated

from fastapi import File, Query, Response, UploadFile

from azureml_emulator.api.common import DATA_PLANE, MAX_BODY, WORKSPACE, ServiceDep, guarded_router, max_body
from azureml_emulator.errors import bad_request
from azureml_emulator.jobs.submission import request_cancel, submit, submit_local
from azureml_emulator.store.jobs import SnapshotRunRequest, SubmittedRun
from azureml_emulator.store.snapshots import MAX_BYTES

BASE = f"/execution/v1.0{WORKSPACE}/experiments/{{experiment}}"

router = guarded_router("Execution", access=DATA_PLANE)


@router.post(f"{BASE}/snapshotrun", summary="`Experiment.submit(estimator)`, `Experiment.submit(ScriptRunConfig)`")
def submit_snapshot(
    experiment: str, body: SnapshotRunRequest, service: ServiceDep, run_id: Annotated[str, Query(alias="runId")]
) -> SubmittedRun:
    run = submit(
        service,
        experiment=experiment,
        run_id=run_id,
        configuration=body.Configuration,
        snapshot_id=body.SnapshotId,
        parent_run_id=body.ParentRunId,
    )
    return SubmittedRun(run_id=run.run_id)


@router.post(f"{BASE}/startrun", summary="`Experiment.submit` with `AML_FORCE_EXECUTE_WITH_ZIP`")
@max_body(MAX_BYTES + MAX_BODY)
def submit_zip(
    experiment: str,
    service: ServiceDep,
    run_definition: Annotated[UploadFile, File(alias="runDefinitionFile")],
    project: Annotated[UploadFile, File(alias="projectZipFile")],
    run_id: Annotated[str, Query(alias="runId")],
) -> SubmittedRun:
    try:
        definition = json.loads(run_definition.file.read())
        snapshot_id = service.snapshots.add_zip(project.file)
    except (json.JSONDecodeError, zipfile.BadZipFile) as error:
        raise bad_request(f"The submission can't be read: {error}") from None
    run = submit(
        service,
        experiment=experiment,
        run_id=run_id,
        configuration=definition.get("Configuration") or definition,
        snapshot_id=snapshot_id,
        parent_run_id=definition.get("ParentRunId"),
    )
    return SubmittedRun(run_id=run.run_id)


@router.post(f"{BASE}/localrun", summary="`Experiment.submit` of a configuration with the target `local`")
@max_body(MAX_BYTES + MAX_BODY)
def submit_to_client(
    experiment: str,
    service: ServiceDep,
    files: Annotated[list[UploadFile], File()],
    run_id: Annotated[str, Query(alias="runId")],
) -> Response:
    definition = next((item for item in files if item.filename == "definition.json"), None)
    if definition is None:
        raise bad_request("The submission has no definition.json.")
    try:
        found = json.loads(definition.file.read())
        configuration = dict(found["Configuration"])
    except (ValueError, KeyError, TypeError) as error:
        raise bad_request(f"The submission can't be read: {error}") from None
    archive = submit_local(
        service,
        experiment=experiment,
        run_id=run_id,
        configuration=configuration,
        parent_run_id=found.get("ParentRunId"),
    )
    return Response(archive, media_type="application/zip")


@router.post(f"{BASE}/runId/{{run_id}}/cancel", summary="`Run.cancel`")
def cancel(experiment: str, run_id: str, service: ServiceDep) -> Response:
    service.run_of(experiment, run_id)
    request_cancel(service, run_id)
    return Response()
