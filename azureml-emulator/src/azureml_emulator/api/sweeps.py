"""HyperDrive sweeps."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated

from fastapi import File, UploadFile
from pydantic import ValidationError

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.errors import bad_request
from azureml_emulator.store.sweeps import Acknowledgement, SweepAnswer, SweepRequest
from azureml_emulator.sweeps.driver import cancel_sweep, start_sweep

BASE = f"/hyperdrive/v1.0{WORKSPACE}/experiments/{{experiment}}/runs"

router = guarded_router("HyperDrive", access=DATA_PLANE)


@router.post(BASE, status_code=201, summary="`Experiment.submit(HyperDriveConfig)`")
def create_sweep(experiment: str, config: Annotated[UploadFile, File()], service: ServiceDep) -> SweepAnswer:
    try:
        request = SweepRequest.model_validate_json(config.file.read())
    except ValidationError as error:
        raise bad_request(f"The sweep is invalid: {error}") from None
    return SweepAnswer(result=start_sweep(service, experiment, request))


@router.post(f"{BASE}/{{run_id}}/cancel", summary="`HyperDriveRun.cancel`")
def cancel(experiment: str, run_id: str, service: ServiceDep) -> Acknowledgement:
    service.run_of(experiment, run_id)
    cancel_sweep(service, run_id)
    return Acknowledgement()
