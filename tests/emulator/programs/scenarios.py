"""What SDK users do, one function a scenario. Plain SDK code; returns JSON."""

# The SDK has no types, and this is code as its users write it.
# ruff: noqa: ANN001, ANN003, ANN201, PTH118

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azureml._restclient.exceptions import ServiceException
from azureml.core import Environment, Experiment, Model, Run, ScriptRunConfig, Workspace
from azureml.core.authentication import TokenAuthentication
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.runconfig import MpiConfiguration, RunConfiguration

FINAL = ("Completed", "Failed", "Canceled")
workspace = None


def open_workspace():
    global workspace
    # The token is in this process already; asking the managed identity for one takes two requests for each call.
    workspace = Workspace.from_config(auth=TokenAuthentication(lambda audience: os.environ["TOKEN"]))
    return workspace.name


def cluster(name="cpu", size="STANDARD_DS3_V2", max_nodes=4, priority="dedicated", min_nodes=0, idle=1800):
    if name in workspace.compute_targets:
        return ComputeTarget(workspace, name)
    configuration = AmlCompute.provisioning_configuration(
        vm_size=size, min_nodes=min_nodes, max_nodes=max_nodes, vm_priority=priority, idle_seconds_before_scaledown=idle
    )
    target = ComputeTarget.create(workspace, name, configuration)
    target.wait_for_completion()
    return target


def create_cluster(**arguments):
    return cluster(**arguments).get_status().serialize()


def cluster_status(name):
    return ComputeTarget(workspace, name).get_status().serialize()


def update_cluster(name, max_nodes):
    target = ComputeTarget(workspace, name)
    target.update(max_nodes=max_nodes)
    return ComputeTarget(workspace, name).get_status().serialize()


def delete_cluster(name):
    ComputeTarget(workspace, name).delete()
    return sorted(workspace.compute_targets)


def vm_sizes():
    return [size["name"] for size in AmlCompute.supported_vmsizes(workspace)]


def configure(source, script="train.py", arguments=(), target="cpu", nodes=1, seconds=None, mpi=None, command=None):
    configuration = RunConfiguration()
    configuration.target = target
    configuration.node_count = nodes
    configuration.max_run_duration_seconds = seconds
    if mpi:
        configuration.communicator = "IntelMpi"
        configuration.mpi = MpiConfiguration(process_count_per_node=mpi, node_count=nodes)
    if command:
        configuration.history.output_collection = False
        return ScriptRunConfig(source, command=command, run_config=configuration)
    return ScriptRunConfig(source, script=script, arguments=list(arguments), run_config=configuration)


def submit(source, experiment="tests", tags=None, **arguments):
    cluster()
    return Experiment(workspace, experiment).submit(configure(source, **arguments), tags=tags).id


def submit_as_zip(source, **arguments):
    os.environ["AML_FORCE_EXECUTE_WITH_ZIP"] = "1"
    try:
        return submit(source, **arguments)
    finally:
        del os.environ["AML_FORCE_EXECUTE_WITH_ZIP"]


def submit_many(source, count, **arguments):
    cluster()
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: submit(source, **arguments), range(count)))


def submit_estimator(source, nodes, per_node, arguments):
    # Imported where it is used: azureml.train takes longer than all the rest.
    from azureml.train.dnn import Chainer, Mpi

    estimator = Chainer(
        source_directory=source,
        entry_script="mpi.py",
        script_params=arguments,
        compute_target=cluster(),
        node_count=nodes,
        distributed_training=Mpi(process_count_per_node=per_node),
        pip_packages=["numpy"],
    )
    return Experiment(workspace, "tests").submit(estimator).id


def wait(run_id, timeout=600):
    run = Run.get(workspace, run_id)
    deadline = time.monotonic() + timeout
    while (found := run.get_status()) not in FINAL:
        if time.monotonic() > deadline:
            raise TimeoutError(found)
        time.sleep(0.2)
    return found


def wait_for(run_id, statuses, timeout=600):
    deadline = time.monotonic() + timeout
    run = existing(run_id, deadline)
    while run.get_status() not in statuses:
        if time.monotonic() > deadline or run.get_status() in FINAL:
            raise TimeoutError(run.get_status())
        time.sleep(0.1)
    return run.get_status()


def existing(run_id, deadline):
    # A sweep makes its children one after the other; until then the service has no such run.
    while True:
        try:
            return Run.get(workspace, run_id)
        except ServiceException as error:
            if error.status_code != 404 or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def wait_for_metric(run_id, name, timeout=600):
    deadline = time.monotonic() + timeout
    # A run object keeps the metrics it has seen, so each look takes a new one.
    while name not in (found := Run.get(workspace, run_id).get_metrics()):
        if time.monotonic() > deadline:
            raise TimeoutError(name)
        if status(run_id) in FINAL:
            raise RuntimeError(f"{status(run_id)} without {name}: {log_text(run_id)}")
        time.sleep(0.2)
    return found


def stream(run_id):
    Run.get(workspace, run_id).wait_for_completion(show_output=True)


def status(run_id):
    return Run.get(workspace, run_id).get_status()


def details(run_id):
    found = Run.get(workspace, run_id).get_details()
    return {key: found.get(key) for key in ("runId", "status", "error", "warnings", "properties", "logFiles")}


def times(run_id):
    found = Run.get(workspace, run_id).get_details()
    return [found["startTimeUtc"], found["endTimeUtc"]]


def metrics(run_id):
    return Run.get(workspace, run_id).get_metrics()


def files(run_id):
    return Run.get(workspace, run_id).get_file_names()


def download(run_id, name, target):
    Run.get(workspace, run_id).download_file(name, target)


def log_text(run_id, name="user_logs/std_log.txt"):
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "log")
        Run.get(workspace, run_id).download_file(name, str(target))
        return target.read_text()


def cancel(run_id):
    Run.get(workspace, run_id).cancel()


def restore(run_id, target):
    return Run.get(workspace, run_id).restore_snapshot(path=target)


def interactive_run(directory):
    run = Experiment(workspace, "interactive").start_logging(snapshot_directory=None)
    run.log("loss", 0.5)
    run.log("loss", 0.25)
    run.log_list("list", [1, 2, 3])
    run.log_row("row", x=1, y=2)
    run.log_table("table", {"a": [1, 2], "b": [3, 4]})
    run.tag("kind", "demo")
    path = Path(directory, "with space é.txt")
    path.write_text("content")
    run.upload_file("folder/with space é.txt", str(path))
    run.upload_folder("many", directory)
    run.complete()
    run.remove_tags(["kind"])
    run.set_tags({"stage": "done", "other": "1"})
    run.download_files(prefix="many", output_directory=os.path.join(directory, "back"))
    return {"id": run.id, "metrics": run.get_metrics(), "files": run.get_file_names(), "tags": run.get_tags()}


def child_runs():
    run = Experiment(workspace, "interactive").start_logging(snapshot_directory=None)
    child = run.child_run()
    child.complete()
    run.fail("on purpose")
    return {"children": [item.id for item in run.get_children()], "child": child.id, "status": run.get_status()}


def children(run_id):
    return [child.id for child in Run.get(workspace, run_id).get_children()]


def find_runs(experiment, **filters):
    return [run.id for run in Experiment(workspace, experiment).get_runs(**filters)]


def experiments():
    return [experiment.name for experiment in Experiment.list(workspace)]


def upload_big(path, target):
    run = Experiment(workspace, "interactive").start_logging(snapshot_directory=None)
    run.upload_file("big.bin", path)
    run.download_file("big.bin", target)
    run.complete()


def register(run_id, name, **arguments):
    model = Run.get(workspace, run_id).register_model(model_name=name, model_path="outputs/model.npz", **arguments)
    return model.id


def register_local(path, name, **arguments):
    # The SDK registers nothing from outside the current directory.
    os.chdir(Path(path).parent)
    return Model.register(workspace, model_path=Path(path).name, model_name=name, **arguments).id


def models(name=None, **filters):
    return [model.id for model in Model.list(workspace, name=name, **filters)]


def model(name=None, version=None, id=None):
    found = Model(workspace, name=name, version=version, id=id)
    return {"id": found.id, "tags": found.tags, "properties": found.properties, "description": found.description}


def change_model(name):
    found = Model(workspace, name)
    found.add_tags({"a": "1", "b": "2"})
    found.remove_tags(["a"])
    found.add_properties({"p": "q"})
    found.update(description="described")


def download_model(name, target, version=None):
    return Model(workspace, name, version=version).download(target, exist_ok=True)


def delete_model(name, version):
    Model(workspace, name, version=version).delete()


def submit_local(source, script="train.py", arguments=()):
    configuration = RunConfiguration()
    configuration.target = "local"
    configuration.environment.python.user_managed_dependencies = True
    config = ScriptRunConfig(source, script=script, arguments=list(arguments), run_config=configuration)
    return Experiment(workspace, "local").submit(config).id


def nodes(name):
    return ComputeTarget(workspace, name).list_nodes()


def upload_again(directory):
    run = Experiment(workspace, "interactive").start_logging(snapshot_directory=None)
    path = Path(directory, "a.txt")
    path.write_text("first")
    run.upload_file("a.txt", str(path))
    path.write_text("second")
    try:
        run.upload_file("a.txt", str(path))
    finally:
        run.complete()


def register_environment(name, packages, version=None, label=None):
    environment = Environment(name)
    for package in packages:
        environment.python.conda_dependencies.add_pip_package(package)
    environment.version = version
    registered = environment.register(workspace)
    if label:
        Environment.label(workspace, name, registered.version, [label])
    return [registered.name, registered.version]


def environment(name, version=None, label=None):
    found = Environment.get(workspace, name, version=version, label=label)
    return [found.version, list(found.python.conda_dependencies.pip_packages)]


def environments():
    return {name: found.version for name, found in workspace.environments.items()}


def submit_with_environment(source, name):
    cluster()
    config = ScriptRunConfig(
        source, script="train.py", compute_target="cpu", environment=Environment.get(workspace, name)
    )
    return Experiment(workspace, "tests").submit(config).id
