"""From a run configuration to the commands and the variables of a job."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.settings import Settings
from azureml_emulator.state import CLOUD_NAME, METADATA_PATH
from azureml_emulator.store.jobs import RunConfiguration
from azureml_emulator.times import from_epoch

LAUNCHER = Path(__file__).with_name("launcher.py")
MPIRUN = Path(__file__).with_name("mpirun.py")
_MPI_COMMUNICATORS = {"mpi", "intelmpi", "openmpi"}
_PYTHON_FRAMEWORKS = {"python", ""}


@dataclass(frozen=True)
class JobPlan:
    """What a job runs.

    Attributes:
        configuration: As submitted.
        nodes: Nodes it takes.
        processes_per_node: MPI ranks on each node.
        distributed: Whether it is started by mpiexec.
    """

    configuration: RunConfiguration
    nodes: int
    processes_per_node: int
    distributed: bool

    @classmethod
    def from_wire(cls, document: dict[str, Any]) -> JobPlan:
        """Read a RunConfiguration.

        Raises:
            ServiceError: 400, it is malformed or asks for something that is not emulated.
        """
        try:
            configuration = RunConfiguration.model_validate(_without_nulls(document))
        except ValidationError as error:
            raise bad_request(f"The run configuration is invalid: {error}") from None
        if not configuration.script and not configuration.command:
            raise bad_request("The run configuration names neither a script nor a command.")
        communicator = (configuration.communicator or "None").lower()
        distributed = communicator in _MPI_COMMUNICATORS
        if not distributed and communicator != "none":
            raise bad_request(f"The emulator does not run communicator {configuration.communicator!r}, only MPI.")
        if configuration.framework.lower() not in _PYTHON_FRAMEWORKS:
            raise bad_request(f"The emulator does not run framework {configuration.framework!r}, only Python.")
        if configuration.node_count > 1 and not distributed:
            raise bad_request("A run on more than one node needs MPI.")
        nodes = configuration.node_count
        if distributed:
            # An estimator gives the number in nodeCount, a ScriptRunConfig in mpi.nodeCount.
            nodes = max(nodes, configuration.mpi.node_count)
        per_node = configuration.mpi.process_count_per_node if distributed else 1
        return cls(configuration, nodes, per_node, distributed)

    @property
    def environment_variables(self) -> dict[str, str]:
        """Variables the configuration asks for."""
        given = self.configuration.environment.environment_variables or {}
        return given | (self.configuration.environment_variables or {})

    @property
    def cap(self) -> float | None:
        """Longest run time in seconds."""
        return self.configuration.max_run_duration_seconds

    @property
    def folders(self) -> list[str]:
        """Folders of the working directory whose files become the run's."""
        history = self.configuration.history
        return (["outputs"] if history.output_collection else []) + history.directories_to_watch

    @property
    def script_arguments(self) -> list[str]:
        """The script's arguments; the wire has numbers as numbers."""
        return [_argument(value) for value in self.configuration.arguments]

    def with_arguments(self, *arguments: str) -> JobPlan:
        """Return the plan with further arguments for the script."""
        longer = self.configuration.model_copy(update={"arguments": [*self.configuration.arguments, *arguments]})
        return replace(self, configuration=longer)

    def log_names(self) -> list[str]:
        """Return the names of the user logs, below user_logs/."""
        if not self.distributed:
            return ["std_log.txt"]
        return [f"std_log_process_{rank}.txt" for rank in range(self.nodes * self.processes_per_node)]

    def commands(self, logs: Path) -> list[list[str]]:
        """Return the commands to run, in order.

        Args:
            logs: Directory of the user logs.

        Raises:
            ServiceError: 400, an MPI job, and no mpiexec on this machine.
        """
        python = sys.executable
        launcher = str(LAUNCHER)
        watched = ",".join(self.configuration.history.directories_to_watch)
        release = [[python, launcher, "release"]] if self.configuration.history.output_collection else []
        if self.configuration.command:
            given = self.configuration.command
            line = given if isinstance(given, str) else shlex.join(given)
            return [["/bin/bash", "-c", line], *release]
        script = [str(self.configuration.script), *self.script_arguments]
        if not self.distributed:
            return [[python, launcher, "run", watched, *script]]
        ranks = str(self.nodes * self.processes_per_node)
        pattern = str(logs / "std_log_process_{rank}.txt")
        return [
            [*mpiexec(), "-n", ranks, python, launcher, "rank", pattern, watched, *script],
            *release,
        ]


def mpiexec() -> list[str]:
    """Return the command that starts MPI's ranks.

    Raises:
        ServiceError: 400, there is none on this machine.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise ServiceError(400, "MpiNotInstalled", "No mpiexec here; `pip install mpich` gives one.")
    return [sys.executable, "-I", "-S", str(MPIRUN), found]


def _argument(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _without_nulls(document: dict[str, Any]) -> dict[str, Any]:
    """Drop nulls, which the SDK writes for what is not set, also where the type is not nullable."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in document.items()
        if value is not None
    }


# A job gets what a process needs to run on this machine, and nothing else of its emulator's environment: the client's
# sign-in, its Azure settings and its other secrets would not be on a node either.
_KEPT_NAMES = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}
)
_KEPT_PREFIXES = ("LC_", "CUDA_", "CUPY_", "NVIDIA_", "NCCL_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_")
_LOOPBACK = "127.0.0.1,localhost"


def kept_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that a process of a job may have."""
    kept = {name: value for name, value in inherited.items() if name in _KEPT_NAMES or name.startswith(_KEPT_PREFIXES)}
    # A proxy's URL may have a password in it.
    return {name: value for name, value in kept.items() if not (name.lower().endswith("_proxy") and "@" in value)}


def job_environment(
    settings: Settings,
    *,
    inherited: Mapping[str, str],
    requested: Mapping[str, str],
    experiment: str,
    experiment_id: str,
    run_id: str,
    token: str,
    token_expiry: float,
    base_url: str,
    tracking_uri: str,
    discovery_url: str,
    workspace_id: str,
    ca_bundle: Path,
    home: Path,
    distributed: bool,
) -> dict[str, str]:
    """Return the variables a job starts with.

    Args:
        settings: Names the workspace.
        inherited: The emulator's own environment, of which only a list of harmless variables is passed on.
        requested: The run configuration's variables; they win over inherited ones, not over the SDK's.
        experiment: Name of the run's experiment.
        experiment_id: Its id.
        run_id: The run.
        token: The run's bearer token.
        token_expiry: POSIX time. Written as ISO 8601 with a zone, for the SDK misreads epoch seconds in most zones.
        base_url: The emulator.
        tracking_uri: Where MLflow tracks runs.
        discovery_url: Where the workspace's services are listed.
        workspace_id: The workspace.
        ca_bundle: CAs to trust.
        home: HOME of the job.
        distributed: Whether the job has several processes.
    """
    kept = kept_environment(inherited)
    interpreter_dir = str(Path(sys.executable).parent)
    environment = kept | {
        "PATH": os.pathsep.join(filter(None, (interpreter_dir, kept.get("PATH", os.defpath)))),
        "HOME": str(home),
        "NO_PROXY": _LOOPBACK,
        "no_proxy": _LOOPBACK,
        "PYTHONUNBUFFERED": "1",
        # The SDK's own switch against telemetry; another is a file that any program may change.
        "HBI_WORKSPACE_JOB": "true",
        # MLflow's: it reports from version 3 on.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **requested,
        "REQUESTS_CA_BUNDLE": str(ca_bundle),
        "AZUREML_ARM_SUBSCRIPTION": settings.subscription_id,
        "AZUREML_ARM_RESOURCEGROUP": settings.resource_group,
        "AZUREML_ARM_WORKSPACE_NAME": settings.workspace_name,
        "AZUREML_ARM_PROJECT_NAME": experiment,
        "AZUREML_EXPERIMENT_ID": experiment_id,
        "AZUREML_RUN_ID": run_id,
        "AZUREML_RUN_TOKEN": token,
        "AZUREML_RUN_TOKEN_EXPIRY": from_epoch(token_expiry).replace("+00:00", "Z"),
        "AZUREML_SERVICE_ENDPOINT": base_url,
        "AZUREML_DISCOVERY_SERVICE_ENDPOINT": discovery_url,
        "AZUREML_WORKSPACE_ID": workspace_id,
        "AZUREML_EMULATOR_UPLOAD_GRACE": str(settings.upload_grace),
        # What AmlCompute sets; it keeps the SDK from streaming its own debug log to the run.
        "AZUREML_TARGET_TYPE": "batchai",
        # As Azure sets them; azureml-mlflow, which knows the scheme, finds its cloud by the last three.
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_EXPERIMENT_ID": experiment_id,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "ARM_CLOUD_METADATA_URL": f"{base_url}{METADATA_PATH}",
        "AZUREML_CURRENT_CLOUD": CLOUD_NAME,
        "SSL_CERT_FILE": str(ca_bundle),
    }
    if settings.job_site is not None:
        # After the job's own: what it brings along is meant for it.
        paths = (environment.get("PYTHONPATH"), str(settings.job_site))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if distributed:
        # The job's temporary files and MPICH's local ranks need no network but shared memory and loopback.
        environment |= {"HYDRA_IFACE": "lo", "FI_PROVIDER": "tcp"}
    return environment
