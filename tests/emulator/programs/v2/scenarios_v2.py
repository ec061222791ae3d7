"""What users of SDK v2 do, one function a scenario. Plain SDK code; returns JSON."""

# The SDK has no types, and this is code as its users write it.
# ruff: noqa: ANN001, ANN003, ANN201

import time
from pathlib import Path

from azure.ai.ml import Input, MLClient, MpiDistribution, Output, PyTorchDistribution, command
from azure.ai.ml.entities import AmlCompute, BuildContext, Data, Environment, Model
from azure.ai.ml.sweep import Choice
from azure.core.exceptions import ResourceNotFoundError
from azure.identity import DefaultAzureCredential

FINAL = ("Completed", "Failed", "Canceled")
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
client = None


def open_workspace():
    global client
    client = MLClient.from_config(DefaultAzureCredential())
    return client.workspace_name


def cluster(name="cpu", **arguments):
    try:
        return client.compute.get(name).name
    except ResourceNotFoundError:
        wanted = AmlCompute(name=name, size="STANDARD_DS3_V2", max_instances=4, **arguments)
        return client.compute.begin_create_or_update(wanted).result().name


def clusters():
    return {
        "names": [item.name for item in client.compute.list()],
        "sizes": len(client.compute.list_sizes()),
    }


def delete_cluster(name):
    client.compute.begin_delete(name).wait()
    return [item.name for item in client.compute.list()]


def make(
    command_line,
    code=None,
    name=None,
    inputs=None,
    outputs=None,
    compute="cpu",
    nodes=1,
    mpi=None,
    torch=None,
    seconds=None,
    build=None,
    **options,
):
    inputs = {key: Input(**value) if isinstance(value, dict) else value for key, value in (inputs or {}).items()}
    environment = Environment(build=BuildContext(path=build)) if build else Environment(image=IMAGE)
    distribution = MpiDistribution(process_count_per_instance=mpi) if mpi else None
    distribution = PyTorchDistribution(process_count_per_instance=torch) if torch else distribution
    job = command(
        command=command_line,
        code=code,
        name=name,
        inputs=inputs,
        outputs={key: Output(**value) for key, value in (outputs or {}).items()},
        environment=environment,
        compute=compute,
        instance_count=nodes,
        distribution=distribution,
        experiment_name="tests-v2",
        **options,
    )
    if seconds:
        job.set_limits(timeout=seconds)
    return job


def submit(**arguments):
    cluster()
    return client.jobs.create_or_update(make(**arguments)).name


def submit_twice(**arguments):
    """The same object, sent twice."""
    cluster()
    job = make(**arguments)
    return [client.jobs.create_or_update(job).name for _ in range(2)]


def submit_until_it_works(**arguments):
    """What there is to do about an upload whose answer was lost: begin again."""
    cluster()
    errors = []
    while True:
        try:
            return {"name": client.jobs.create_or_update(make(**arguments)).name, "errors": errors}
        except Exception as error:
            errors.append(type(error).__name__)


def wait(name, timeout=600):
    deadline = time.monotonic() + timeout
    while (status := str(getattr(client.jobs.get(name).status, "value", client.jobs.get(name).status))) not in FINAL:
        if time.monotonic() > deadline:
            raise TimeoutError(status)
        time.sleep(0.2)
    return status


def wait_until_running(name, timeout=600):
    deadline = time.monotonic() + timeout
    while "RUNNING" not in str(client.jobs.get(name).status).upper():
        if time.monotonic() > deadline:
            raise TimeoutError(name)
        time.sleep(0.1)


def get(name):
    job = client.jobs.get(name)
    return {
        "command": job.command,
        "status": str(job.status),
        "display_name": job.display_name,
        "tags": job.tags,
        "experiment": job.experiment_name,
        "type": job.type,
    }


def stream(name):
    client.jobs.stream(name)


def cancel(name):
    client.jobs.begin_cancel(name).wait()
    return str(client.jobs.get(name).status)


def names(view="ACTIVE_ONLY", **options):
    from azure.ai.ml.constants import ListViewType

    return [job.name for job in client.jobs.list(list_view_type=ListViewType[view], **options)]


def archive(name):
    client.jobs.archive(name)


def restore(name):
    client.jobs.restore(name)


def download(name, target, **options):
    client.jobs.download(name, download_path=target, **options)
    return {
        path.relative_to(target).as_posix(): path.read_text()
        for path in sorted(Path(target).rglob("*"))
        if path.is_file()
    }


def register(name, path, version=None, **options):
    model = client.models.create_or_update(Model(name=name, path=path, version=version, **options))
    return {"version": model.version, "path": model.path, "job": model.job_name}


def models(name=None):
    return [(model.name, model.version) for model in (client.models.list(name) if name else client.models.list())]


def model(name, **which):
    found = client.models.get(name, **which)
    return {"version": found.version, "tags": found.tags, "description": found.description, "path": found.path}


def archive_model(name, **which):
    client.models.archive(name, **which)
    return models(name)


def restore_model(name, **which):
    client.models.restore(name, **which)
    return models(name)


def download_model(name, version, target):
    client.models.download(name, version=version, download_path=target)
    return {
        path.relative_to(target).as_posix(): path.read_text()
        for path in sorted(Path(target).rglob("*"))
        if path.is_file()
    }


def register_environment(name, version=None, image=IMAGE, conda=None):
    made = client.environments.create_or_update(
        Environment(name=name, version=version, image=image, conda_file=conda, description="d")
    )
    return {"version": made.version, "image": made.image, "conda": made.conda_file}


def environment(name, **which):
    found = client.environments.get(name, **which)
    return {"version": found.version, "image": found.image}


def environments(name=None):
    return [item.version if name else item.name for item in client.environments.list(name=name)]


def register_data(name, path, kind, version=None):
    made = client.data.create_or_update(Data(name=name, version=version, path=path, type=kind, tags={"a": "b"}))
    return {"version": made.version, "path": made.path, "type": made.type}


def list_data(name):
    return {
        "names": sorted(item.name for item in client.data.list()),
        "versions": [item.version for item in client.data.list(name)],
        "latest": client.data.get(name, label="latest").version,
        "tags": client.data.get(name, version="1").tags,
    }


def archive_data(name, version):
    client.data.archive(name, version=version)
    left = [item.version for item in client.data.list(name)]
    client.data.restore(name, version=version)
    return left


def sweep_grid(command_line, values, code=None):
    cluster()
    job = command(
        command=command_line,
        code=code,
        inputs={"x": 0},
        environment=Environment(image=IMAGE),
        compute="cpu",
    )
    sweep = job(x=Choice(values)).sweep(sampling_algorithm="grid", primary_metric="M", goal="maximize", compute="cpu")
    sweep.set_limits(max_total_trials=10, max_concurrent_trials=2)
    sweep.experiment_name = "tests-v2"
    return client.create_or_update(sweep).name


def metrics(name):
    import mlflow

    mlflow.set_tracking_uri(client.workspaces.get(client.workspace_name).mlflow_tracking_uri)
    found = mlflow.MlflowClient().get_run(name)
    return {"metrics": found.data.metrics, "params": found.data.params, "status": found.info.status}


def without_environment(name):
    """A job that names an environment that is not there."""
    cluster()
    job = make(command_line="true", name=name)
    job.environment = "nowhere:1"
    return client.jobs.create_or_update(job).name


def serverless():
    job = make(command_line="true", compute=None)
    return client.jobs.create_or_update(job).name


def describe_sweep(name):
    job = client.jobs.get(name)
    return {
        "type": job.type,
        "command": job.trial.command,
        "space": sorted(job.search_space),
        "objective": [job.objective.goal, job.objective.primary_metric],
        "sampling": job.sampling_algorithm if isinstance(job.sampling_algorithm, str) else job.sampling_algorithm.type,
        "policy": job.early_termination and job.early_termination.type,
        "trials": job.limits.max_total_trials,
        "best": job.properties.get("best_child_run_id"),
    }
