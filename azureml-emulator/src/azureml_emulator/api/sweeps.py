"""HyperDrive sweeps."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from typing import Annotated

from fastapi import File, UploadFile
from pydantic import ValidationError

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE, ServiceDep, guarded_router
from azureml_emulator.bodies import problems
from azureml_emulator.errors import bad_request
from azureml_emulator.store.sweeps import Acknowledgement, SweepAnswer, SweepRequest
from azureml_emulator.sweeps.submission import cancel_sweep, start_sweep

EXPERIMENT = f"/hyperdrive/v1.0{WORKSPACE}/experiments/{{experiment}}"
BASE = f"{EXPERIMENT}/runs"

router = guarded_router("HyperDrive", access=DATA_PLANE)
Config = Annotated[UploadFile, File()]


@router.post(BASE, status_code=201, summary="`Experiment.submit(HyperDriveConfig)`")
def create_sweep(experiment: str, config: Config, service: ServiceDep) -> SweepAnswer:
    return SweepAnswer(result=start_sweep(service, experiment, _read(config)))


@router.post(f"{EXPERIMENT}/hdruns/{{run_id}}", status_code=201, summary="`HyperDriveConfig(custom_run_id=)`")
def create_named_sweep(experiment: str, run_id: str, config: Config, service: ServiceDep) -> SweepAnswer:
    return SweepAnswer(result=start_sweep(service, experiment, _read(config), run_id=run_id))


@router.post(f"{BASE}/{{run_id}}", status_code=201, summary="`Run.submit_child(HyperDriveConfig)`")
def create_child_sweep(experiment: str, run_id: str, config: Config, service: ServiceDep) -> SweepAnswer:
    return SweepAnswer(result=start_sweep(service, experiment, _read(config), parent_run_id=run_id))


@router.post(f"{BASE}/{{run_id}}/cancel", summary="`HyperDriveRun.cancel`")
def cancel(experiment: str, run_id: str, service: ServiceDep) -> Acknowledgement:
    service.run_of(experiment, run_id)
    cancel_sweep(service, run_id)
    return Acknowledgement()


def _read(config: UploadFile) -> SweepRequest:
    try:
        return SweepRequest.model_validate_json(config.file.read())
    except ValidationError as error:
        raise bad_request(f"The sweep is invalid, or asks for what is not emulated: {problems(error)}.") from None
