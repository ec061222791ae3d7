"""What a run's job is to do, whichever SDK submitted it."""

from __future__ import annotations

from azureml_emulator.jobs.command import CommandPlan
from azureml_emulator.jobs.files import with_addresses
from azureml_emulator.jobs.plan import JobPlan
from azureml_emulator.service import Service
from azureml_emulator.store.runs import Run

Plan = JobPlan | CommandPlan


def plan_of(service: Service, run: Run) -> Plan:
    """Return the plan of a submitted run.

    Raises:
        ServiceError: 400, it can't be run here any more; 404, a data asset of its inputs is gone.
    """
    document = service.command_jobs.find(run.run_id)
    if document is not None:
        return with_addresses(service, CommandPlan.from_wire(run.run_id, document))
    return JobPlan.from_wire(run.run_definition or {})
