"""The environment variables of a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from azureml_emulator.settings import Settings
from azureml_emulator.times import from_epoch

# A job gets what a process needs to run on this machine, and nothing else of its emulator's environment: the client's
# sign-in, its Azure settings and its other secrets would not be on a node either.
_KEPT_NAMES = frozenset(
    {"PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}
)
_KEPT_PREFIXES = ("LC_", "CUDA_", "CUPY_", "NVIDIA_", "NCCL_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_")
_LOOPBACK = "127.0.0.1,localhost"


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
    discovery_url: str,
    workspace_id: str,
    ca_bundle: Path,
    home: Path,
    distributed: bool,
) -> dict[str, str]:
    """The variables a job starts with.

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
        discovery_url: Where the workspace's services are listed.
        workspace_id: The workspace.
        ca_bundle: CAs to trust.
        home: HOME of the job.
        distributed: Whether the job has several processes.
    """
    kept = {name: value for name, value in inherited.items() if name in _KEPT_NAMES or name.startswith(_KEPT_PREFIXES)}
    interpreter_dir = str(Path(sys.executable).parent)
    environment = kept | {
        "PATH": os.pathsep.join(filter(None, (interpreter_dir, kept.get("PATH", os.defpath)))),
        "HOME": str(home),
        "NO_PROXY": _LOOPBACK,
        "no_proxy": _LOOPBACK,
        "PYTHONUNBUFFERED": "1",
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
        # What AmlCompute sets; it keeps the SDK from streaming its own debug log to the run.
        "AZUREML_TARGET_TYPE": "batchai",
    }
    if distributed:
        # The job's temporary files and MPICH's local ranks need no network but shared memory and loopback.
        environment |= {"HYDRA_IFACE": "lo", "FI_PROVIDER": "tcp"}
    return environment
