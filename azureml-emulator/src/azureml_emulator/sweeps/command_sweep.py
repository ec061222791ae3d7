"""Sweeps of SDK v2: a command with places for the parameters, driven as HyperDrive's sweeps are."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from azureml_emulator.bodies import StrictBody, problems
from azureml_emulator.errors import bad_request
from azureml_emulator.jobs.command import (
    CommandPlan,
    JobBody,
    Resources,
    Task,
    fixed_part,
    substitute,
)
from azureml_emulator.jobs.command_submission import (
    check_command,
    described,
    is_repeated,
    put_command,
    run_configuration,
    update_mutable,
)
from azureml_emulator.jobs.new_run import SWEEP, add_run
from azureml_emulator.jobs.submission import check_run_id
from azureml_emulator.service import Service
from azureml_emulator.store.runs import Run
from azureml_emulator.store.sweeps import (
    GeneratorConfig,
    PlatformConfig,
    PolicyConfig,
    PrimaryMetric,
    Sweep,
    SweepDefinition,
    SweepRequest,
)
from azureml_emulator.sweeps.bayesian import require_optuna
from azureml_emulator.sweeps.policy import make_policy
from azureml_emulator.sweeps.sampling import BAYESIAN, GRID, RANDOM, Sample, check_space, random_sample
from azureml_emulator.sweeps.submission import first_samples, sweep_properties, tags_of
from azureml_emulator.times import parse_duration

# https://learn.microsoft.com/azure/machine-learning/how-to-tune-hyperparameters, reference-yaml-job-sweep
MAX_CONCURRENT = 1000
_DEFAULT_SECONDS = 5_184_000
METHODS = {"Random": RANDOM, "Grid": GRID, "Bayesian": BAYESIAN}


class Objective(StrictBody):
    """What is to be best."""

    goal: Literal["maximize", "minimize"]
    primary_metric: str = Field(min_length=1)

    @field_validator("goal", mode="before")
    @classmethod
    def _in_lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class Sampling(StrictBody):
    """How samples are drawn."""

    sampling_algorithm_type: Literal["Random", "Grid", "Bayesian"]
    seed: int | None = None
    rule: Literal["Random"] = "Random"

    @field_validator("rule", mode="before")
    @classmethod
    def _capitalised(cls, value: object) -> object:
        return value.capitalize() if isinstance(value, str) else value


class SweepLimits(StrictBody):
    """Durations are ISO 8601."""

    job_limits_type: Literal["Sweep"] = "Sweep"
    max_total_trials: int = Field(ge=1, le=1000)
    max_concurrent_trials: int | None = Field(default=None, ge=1, le=MAX_CONCURRENT)
    timeout: str | None = None
    trial_timeout: str | None = None

    @field_validator("timeout", "trial_timeout")
    @classmethod
    def _is_a_duration(cls, value: str | None) -> str | None:
        parse_duration(value, 0.0)
        return value


class Termination(StrictBody):
    """The early termination policy."""

    policy_type: Literal["Bandit", "MedianStopping", "TruncationSelection"]
    evaluation_interval: int = 1
    delay_evaluation: int = 0
    slack_factor: float | None = None
    slack_amount: float | None = None
    truncation_percentage: int | None = None

    def config(self) -> PolicyConfig:
        """Return it as HyperDrive has it."""
        given = self.model_dump(exclude={"policy_type"}, exclude_none=True)
        # The SDK sends 0 for the slack that is not meant.
        if given.get("slack_factor") == 0:
            del given["slack_factor"]
        elif given.get("slack_amount") == 0:
            del given["slack_amount"]
        return PolicyConfig(name=self.policy_type, properties=given)


class SweepJob(JobBody):
    """The ``properties`` of a sweep job, as far as they are emulated."""

    job_type: Literal["Sweep"]
    trial: Task
    search_space: dict[str, list[Any]]
    sampling_algorithm: Sampling
    objective: Objective
    limits: SweepLimits
    early_termination: Termination | None = None
    resources: Resources | None = None

    def command_job(self) -> dict[str, Any]:
        """Return a child's ``properties``, with the parameters' places still in the command."""
        document: dict[str, Any] = {
            "jobType": "Command",
            **self.trial.model_dump(by_alias=True, exclude_none=True),
            "computeId": self.compute_id,
            "experimentName": self.experiment_name,
            "inputs": {key: item.model_dump(by_alias=True, exclude_none=True) for key, item in self.inputs.items()},
            "outputs": {key: item.model_dump(by_alias=True, exclude_none=True) for key, item in self.outputs.items()},
            "limits": {"jobLimitsType": "Command", "timeout": self.limits.trial_timeout},
            "tags": self.tags,
        }
        if self.resources is not None:
            document["resources"] = self.resources.model_dump(by_alias=True, exclude_none=True)
        return document


def put_sweep(service: Service, name: str, document: dict[str, Any]) -> tuple[Run, bool]:
    """Take in a sweep job and create its parent run; putting the same one again starts nothing.

    Args:
        service: The emulator's state.
        name: The job's name, and its run's id.
        document: ARM's ``properties``.

    Returns:
        The run, and whether it is new.

    Raises:
        ServiceError: 400, the sweep can't be run here, or is another job than that which has the name; 404, something
            that it refers to is not there.
    """
    try:
        job = SweepJob.model_validate(document)
    except ValidationError as error:
        raise bad_request(f"The sweep is invalid: {problems(error)}") from None
    check_run_id(f"{name}_{job.limits.max_total_trials}")
    with service.database.transaction():
        if (existing := is_repeated(service, name, fixed_part(document))) is not None:
            return update_mutable(service, existing, job), False
        method = METHODS[job.sampling_algorithm.sampling_algorithm_type]
        check_space(job.search_space, method)
        policy = job.early_termination.config() if job.early_termination else PolicyConfig()
        if make_policy(policy.name, policy.properties) is not None and method == BAYESIAN:
            raise bad_request("Bayesian sampling does not support early termination policies.")
        if method == BAYESIAN:
            require_optuna()
        trial = job.command_job()
        sample = random_sample(job.search_space, name, 0)
        plan = CommandPlan.from_wire(name, with_sample(trial, sample))
        checked = check_command(service, plan)
        overrides = run_configuration(plan, checked) | {"command": job.trial.command}
        minutes = math.ceil(parse_duration(job.limits.timeout, _DEFAULT_SECONDS) / 60)
        request = SweepRequest(
            generator_config=GeneratorConfig(name=method, parameter_space=job.search_space),
            platform_config=PlatformConfig(
                ExperimentName=job.experiment_name,
                Definition=SweepDefinition(Overrides=overrides, SnapshotId=checked.snapshot),
                ParentRunId=name,
            ),
            policy_config=policy,
            primary_metric_config=PrimaryMetric(name=job.objective.primary_metric, goal=job.objective.goal),
            max_total_jobs=job.limits.max_total_trials,
            max_concurrent_jobs=job.limits.max_concurrent_trials or min(job.limits.max_total_trials, MAX_CONCURRENT),
            max_duration_minutes=minutes,
        )
        sent = request.model_dump(mode="json")
        run = add_run(
            service,
            SWEEP,
            name,
            job.experiment_name,
            properties=job.properties | sweep_properties(sent),
            tags=job.tags | tags_of(sent),
            target=checked.target,
            definition=overrides,
            **described(job),
        )
        service.command_jobs.add(name, document)
        seeds = (service.settings.sweep_seed, job.sampling_algorithm.seed)
        seed = next((str(each) for each in seeds if each is not None), name)
        sweep = Sweep(
            run_id=name,
            experiment=job.experiment_name,
            request=request,
            seed=seed,
            samples=first_samples(service, request, seed),
            deadline=time.time() + minutes * 60,
            trial=trial,
        )
        service.sweeps.save(sweep, active=True)
        return run, True


def start_trial(service: Service, sweep: Sweep, child: str, sample: Sample) -> None:
    """Submit a child of a sweep of SDK v2.

    Raises:
        ServiceError: 400 or 404, it can't be run any more.
    """
    assert sweep.trial is not None
    parameters = {key: _text(value) for key, value in sample.items()}
    tags = {"hyperparameters": json.dumps(sample), **parameters}
    put_command(service, child, with_sample(sweep.trial, sample), parent=sweep.run_id, tags=tags)


def with_sample(trial: dict[str, Any], sample: Sample) -> dict[str, Any]:
    """Return a child's ``properties`` with a sample in its command.

    Raises:
        ServiceError: 400, the command refers to a parameter that the space does not have.
    """

    def replace(match: re.Match[str]) -> str:
        kind, _, key = match[1].partition(".")
        if kind != "search_space":
            return match[0]
        if key not in sample:
            raise bad_request(f"The command refers to {match[1]}, which the search space does not have.")
        return _text(sample[key])

    return trial | {"command": substitute(trial["command"], replace)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
