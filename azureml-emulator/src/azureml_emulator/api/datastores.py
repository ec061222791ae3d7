"""Datastores."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from fastapi import APIRouter

from azureml_emulator.api.common import DATA_PLANE, WORKSPACE
from azureml_emulator.bodies import Page
from azureml_emulator.wire.arm import Datastore

router = APIRouter(tags=["Datastores"], dependencies=DATA_PLANE)


@router.get(
    f"/datastore/v1.0{WORKSPACE}/datastores",
    summary="`Experiment.submit(estimator)` with `node_count` > 1, `Workspace.datastores`",
)
def list_datastores() -> Page[Datastore]:
    return Page(value=[])
