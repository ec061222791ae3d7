"""Command jobs of SDK v2: what they ask for, and the commands and folders that become of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from azureml_emulator.bodies import StrictBody, problems
from azureml_emulator.errors import bad_request
from azureml_emulator.jobs.plan import mpiexec
from azureml_emulator.times import parse_duration

RANKS = Path(__file__).with_name("ranks.py")
_REFERENCE = re.compile(r"\$\{\{\s*([^{}]*?)\s*\}\}")
_SAFE_PATH = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
FILE_TYPES = ("uri_file", "uri_folder", "custom_model", "mlflow_model", "triton_model")
READ_MODES = ("ReadOnlyMount", "Download", "Direct")
WRITE_MODES = ("ReadWriteMount", "Upload", "Direct")


class JobInput(StrictBody):
    """A literal, or a file or folder at an address."""

    job_input_type: str
    value: str | None = None
    uri: str | None = None
    mode: str = "ReadOnlyMount"
    description: str | None = None

    @field_validator("job_input_type")
    @classmethod
    def _is_emulated(cls, value: str) -> str:
        if value != "literal" and value not in FILE_TYPES:
            raise ValueError(f"an input of the type {value} is not emulated")
        return value

    @field_validator("mode")
    @classmethod
    def _is_a_mode(cls, value: str) -> str:
        if value not in READ_MODES:
            raise ValueError(f"an input's mode {value} is not emulated, only {', '.join(READ_MODES)}")
        return value


class JobOutput(StrictBody):
    """A file or folder that the job writes."""

    job_output_type: Literal["uri_file", "uri_folder", "custom_model", "mlflow_model"] = "uri_folder"
    uri: str | None = None
    mode: str = "ReadWriteMount"
    description: str | None = None

    @field_validator("mode")
    @classmethod
    def _is_a_mode(cls, value: str) -> str:
        if value not in WRITE_MODES[:2]:
            raise ValueError(f"an output's mode {value} is not emulated, only {', '.join(WRITE_MODES[:2])}")
        return value


class Limits(StrictBody):
    """``timeout`` is an ISO 8601 duration."""

    job_limits_type: Literal["Command"] = "Command"
    timeout: str | None = None

    @field_validator("timeout")
    @classmethod
    def _is_a_duration(cls, value: str | None) -> str | None:
        parse_duration(value, 0.0)
        return value


class Resources(StrictBody):
    """Nodes, and what they are started with; all but their number is stored and given back, not acted on."""

    instance_count: int = Field(default=1, ge=1)
    instance_type: str | None = None
    shm_size: str | None = None
    docker_args: str | None = None
    properties: dict[str, Any] = {}  # noqa: RUF012


class Distribution(StrictBody):
    """How the command's processes are started."""

    distribution_type: Literal["Mpi", "PyTorch"]
    process_count_per_instance: int = Field(default=1, ge=1)


class Identity(StrictBody):
    """Who the job is: itself. Its own token is what it has."""

    identity_type: Literal["AMLToken"]


class Task(StrictBody):
    """What a job's processes run: a command job's, or that of each of a sweep's trials."""

    command: str = Field(min_length=1)
    code_id: str | None = None
    environment_id: str
    environment_variables: dict[str, str] = {}  # noqa: RUF012
    distribution: Distribution | None = None
    resources: Resources = Resources()


class JobBody(StrictBody):
    """What the ``properties`` of a command job and of a sweep have in common."""

    compute_id: str | None = None
    display_name: str | None = None
    description: str | None = None
    experiment_name: str = "Default"
    inputs: dict[str, JobInput] = {}  # noqa: RUF012
    outputs: dict[str, JobOutput] = {}  # noqa: RUF012
    identity: Identity | None = None
    tags: dict[str, str] = {}  # noqa: RUF012
    properties: dict[str, str] = {}  # noqa: RUF012
    is_archived: bool = False


class CommandJob(JobBody, Task):
    """The ``properties`` of a command job, as far as they are emulated."""

    job_type: Literal["Command"]
    limits: Limits = Limits()


MUTABLE = ("displayName", "description", "tags", "properties", "isArchived")
"""What may differ in a second submission of a job."""


def fixed_part(document: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a job the job that it is: all that can't be changed once it is there."""
    return {key: value for key, value in document.items() if key not in MUTABLE and value not in (None, {}, [])}


@dataclass(frozen=True)
class CommandPlan:
    """What a command job runs.

    Attributes:
        name: The job's name.
        job: As submitted.
    """

    name: str
    job: CommandJob

    @classmethod
    def from_wire(cls, name: str, document: dict[str, Any]) -> CommandPlan:
        """Read the ``properties`` of a command job.

        Raises:
            ServiceError: 400, it is malformed or asks for something that is not emulated.
        """
        try:
            job = CommandJob.model_validate(document)
        except ValidationError as error:
            raise bad_request(f"The job is invalid: {problems(error)}") from None
        for key, given in job.inputs.items():
            if (given.value if given.job_input_type == "literal" else given.uri) is None:
                raise bad_request(f"The input {key} has no value.")
        if job.resources.instance_count > 1 and job.distribution is None:
            raise bad_request("A job on more than one node needs a distribution.")
        plan = cls(name, job)
        plan.line(Path("/"))
        return plan

    @property
    def nodes(self) -> int:
        """Nodes it takes."""
        return self.job.resources.instance_count

    @property
    def distributed(self) -> bool:
        """Whether it has several processes."""
        return self.job.distribution is not None

    @property
    def environment_variables(self) -> dict[str, str]:
        """Variables the job asks for."""
        return self.job.environment_variables

    @property
    def cap(self) -> float | None:
        """Longest run time in seconds."""
        return parse_duration(self.job.limits.timeout, 0.0) or None

    @property
    def folders(self) -> list[str]:
        """Folders of the working directory whose files become the run's."""
        return ["outputs", "logs"]

    @property
    def _ranks(self) -> int:
        return self.nodes * (self.job.distribution.process_count_per_instance if self.job.distribution else 1)

    def log_names(self) -> list[str]:
        """Return the names of the user logs, below user_logs/."""
        if not self.distributed:
            return ["std_log.txt"]
        return [f"std_log_process_{rank}.txt" for rank in range(self._ranks)]

    def commands(self, logs: Path) -> list[list[str]]:
        """Return the commands to run, in order.

        Args:
            logs: Directory of the user logs, in that of the attempt.

        Raises:
            ServiceError: 400, an MPI job, and no mpiexec on this machine.
        """
        line = self.line(logs.parent)
        given = self.job.distribution
        if given is None:
            return [["/bin/bash", "-c", line]]
        pattern = str(logs / "std_log_process_{rank}.txt")
        start = [sys.executable, str(RANKS)]
        if given.distribution_type == "Mpi":
            return [[*mpiexec(), "-n", str(self._ranks), *start, "one", pattern, line]]
        return [[*start, "torch", pattern, str(self.nodes), str(given.process_count_per_instance), line]]

    def line(self, attempt: Path) -> str:
        """Return the command with what its references stand for.

        Args:
            attempt: The attempt's directory.

        Raises:
            ServiceError: 400, it refers to something that the job does not have.
        """

        def replace(match: re.Match[str]) -> str:
            kind, _, key = match[1].partition(".")
            if kind == "inputs" and key in self.job.inputs:
                given = self.job.inputs[key]
                if given.job_input_type == "literal":
                    return given.value or ""
                return given.uri or "" if given.mode == "Direct" else in_shell(input_path(attempt, key, given))
            if kind == "outputs" and key in self.job.outputs:
                return in_shell(output_path(attempt, key, self.job.outputs[key]))
            raise bad_request(f"The command refers to {match[1]}, which the job does not have.")

        if "$[[" in self.job.command:
            raise bad_request("Optional parts of a command, $[[...]], are not emulated.", "NotEmulated")
        return substitute(self.job.command, replace)


def substitute(command: str, replace: Callable[[re.Match[str]], str]) -> str:
    """Return a command with its references, ``${{...}}``, replaced. The match's first group is what one refers to."""
    return _REFERENCE.sub(replace, command)


def input_path(attempt: Path, key: str, given: JobInput) -> Path:
    """Return where an input lies: a folder, or a file of its own name in a folder."""
    folder = attempt / "inputs" / key
    is_file = given.job_input_type == "uri_file" and given.uri is not None
    return folder / (given.uri or "").rstrip("/").rpartition("/")[2] if is_file else folder


def output_path(attempt: Path, key: str, wanted: JobOutput) -> Path:
    """Return where the job writes an output: a folder, or a file in a folder."""
    folder = attempt / "named_outputs" / key
    return (
        folder / (wanted.uri or key).rstrip("/").rpartition("/")[2] if wanted.job_output_type == "uri_file" else folder
    )


def in_shell(path: Path) -> str:
    """Return a path as it may stand in a command, quoted or not, which nobody but its author knows.

    As on Azure it is written as it is. A state directory with a space in its name would break commands, so there
    the path is one from the working directory.
    """
    if _SAFE_PATH.fullmatch(str(path)):
        return str(path)
    names = path.parts
    at = max(index for index, name in enumerate(names) if name in ("inputs", "named_outputs"))
    return "/".join(("..", *names[at:]))
