"""Making the run of a job or of a sweep, whichever SDK has sent it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from azureml_emulator.service import Service
from azureml_emulator.store.runs import Run, RunStatus, RunTypeV2
from azureml_emulator.times import utc_now


@dataclass(frozen=True)
class Kind:
    """What is different about the run of a job and that of a sweep.

    Attributes:
        run_type: What SDK v1 makes an object of its own by.
        orchestrator: What runs it.
        status: What it begins as.
        cancel: Where it is cancelled, below the emulator's address.
    """

    run_type: str
    orchestrator: str
    status: RunStatus
    cancel: str


JOB = Kind(
    "azureml.scriptrun",
    "Execution",
    RunStatus.PREPARING,
    "/execution/v1.0{workspace}/experiments/{experiment}/runId/{run}/cancel",
)
SWEEP = Kind(
    "hyperdrive",
    "HyperDrive",
    RunStatus.RUNNING,
    "/hyperdrive/v1.0{workspace}/experiments/{experiment}/runs/{run}/cancel",
)


def add_run(
    service: Service,
    kind: Kind,
    run_id: str,
    experiment: str,
    *,
    properties: dict[str, str],
    tags: dict[str, str],
    definition: dict[str, Any],
    target: str,
    parent: str | None = None,
    script: str | None = None,
    display_name: str | None = None,
    description: str | None = None,
    hidden: bool = False,
) -> Run:
    """Store a new run.

    Args:
        service: The emulator's state.
        kind: Of what.
        run_id: Its id.
        experiment: Name of its experiment, which is made if need be.
        properties: Beside the one that says its kind.
        tags: Its tags.
        definition: What SDK v1 reads as its definition.
        target: Its cluster.
        parent: The run that it belongs to.
        script: Its script.
        display_name: Its id, if none is given.
        description: What its user says of it.
        hidden: Whether it is archived.

    Raises:
        ServiceError: 404, there is no such parent.
    """
    where = kind.cancel.format(workspace=service.settings.workspace_path, experiment=experiment, run=run_id)
    return service.runs.add(
        Run(
            run_id=run_id,
            run_number=0,
            root_run_id=service.runs.get(parent).root_run_id if parent else run_id,
            parent_run_id=parent,
            experiment_id=service.runs.ensure_experiment(experiment).experiment_id,
            data_container_id=f"dcid.{run_id}",
            status=kind.status,
            created_utc=utc_now(),
            start_time_utc=utc_now() if kind is SWEEP else None,
            display_name=display_name or run_id,
            description=description,
            hidden=hidden,
            run_type=kind.run_type,
            run_type_v2=RunTypeV2(orchestrator=kind.orchestrator),
            properties={**properties, "azureml.runsource": kind.run_type},
            tags=tags,
            script_name=script,
            target=target,
            run_definition=definition,
            cancel_uri=f"{service.base_url}{where}",
        )
    )
