"""What a sweep may take over from earlier ones.

``resume_from`` names sweeps whose runs count as seen: policies compare with them, and Bayesian sampling learns from
them. ``resume_child_runs`` names children to be run again with the same parameters; what the earlier one left in
./outputs is laid before the new one, which is told where by ``--resume-from``.
"""

from __future__ import annotations

from azureml_emulator.errors import bad_request
from azureml_emulator.service import Service
from azureml_emulator.store.runs import RunStatus
from azureml_emulator.store.sweeps import RunKey, Sweep, SweepRequest
from azureml_emulator.sweeps.sampling import BAYESIAN

MAX_PARENTS = 5
MAX_RUNS = 1000


def check_resumed_sweeps(service: Service, request: SweepRequest) -> None:
    """See that ``resume_from`` can be taken over.

    Raises:
        ServiceError: 400.
    """
    total = request.max_total_jobs
    for key in _distinct("resume_from", request.resume_from):
        sweep = _sweep(service, key, key.run_id)
        status = service.runs.get(key.run_id).status
        if status not in (RunStatus.COMPLETED, RunStatus.CANCELED):
            raise bad_request(f"resume_from takes completed and cancelled sweeps, and {key.run_id} is {status}.")
        _check_alike(request, sweep)
        total += sweep.request.max_total_jobs
    if request.resume_from and total > MAX_RUNS:
        raise bad_request(f"With those of resume_from, the sweep would have {total} runs; {MAX_RUNS} are allowed.")


def check_resumed_children(service: Service, request: SweepRequest) -> None:
    """See that ``resume_child_runs`` can be taken over.

    Raises:
        ServiceError: 400.
    """
    if len(request.resume_child_runs) > request.max_total_jobs:
        raise bad_request("resume_child_runs has more runs than the sweep may have.")
    parents = set()
    for key in _distinct("resume_child_runs", request.resume_child_runs):
        run = service.runs.find(key.run_id)
        if run is None or run.parent_run_id is None or service.sweeps.sample(key.run_id) is None:
            raise bad_request(f"resume_child_runs takes children of sweeps, and {key.run_id} is none here.")
        if not run.status.is_final:
            raise bad_request(f"resume_child_runs takes runs that have ended, and {key.run_id} is {run.status}.")
        _check_alike(request, _sweep(service, key, run.parent_run_id))
        parents.add(run.parent_run_id)
    if len(parents) > MAX_PARENTS:
        raise bad_request(f"resume_child_runs takes children of {MAX_PARENTS} sweeps at most, not {len(parents)}.")


def _distinct(field: str, keys: list[RunKey]) -> list[RunKey]:
    if len({key.run_id for key in keys}) != len(keys):
        raise bad_request(f"{field} names a run twice.")
    return keys


def _sweep(service: Service, key: RunKey, run_id: str) -> Sweep:
    settings, scope = service.settings, key.run_scope
    asked = (scope.subscription_id, scope.resource_group, scope.workspace_name)
    served = (settings.subscription_id, settings.resource_group, settings.workspace_name)
    sweep = service.sweeps.find(run_id)
    if sweep is None or tuple(map(str.lower, asked)) != tuple(map(str.lower, served)):
        raise bad_request(f"There is no sweep {run_id} in this workspace to resume from.")
    return sweep


def _check_alike(request: SweepRequest, earlier: Sweep) -> None:
    metric, theirs = request.primary_metric_config, earlier.request.primary_metric_config
    if metric != theirs:
        raise bad_request(
            f"The sweep {theirs.goal}s {theirs.name}, and can't be resumed by one that {metric.goal}s {metric.name}."
        )
    space = request.generator_config.parameter_space
    if request.generator_config.name.upper() == BAYESIAN and space != earlier.request.generator_config.parameter_space:
        raise bad_request("With Bayesian sampling, a sweep can only be resumed by one of the same parameter space.")
