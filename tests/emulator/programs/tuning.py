"""The tuning cells of Azure's Chainer notebook, as a plain SDK script: nothing in it knows of an emulator."""

import shutil
import sys

from azureml.core import Environment, Experiment, ScriptRunConfig, Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException
from azureml.train.hyperdrive.parameter_expressions import choice
from azureml.train.hyperdrive.policy import BanditPolicy
from azureml.train.hyperdrive.run import PrimaryMetricGoal
from azureml.train.hyperdrive.runconfig import HyperDriveConfig
from azureml.train.hyperdrive.sampling import RandomParameterSampling

ws = Workspace.from_config()
cluster_name = "gpu-cluster"
try:
    compute_target = ComputeTarget(workspace=ws, name=cluster_name)
except ComputeTargetException:
    compute_config = AmlCompute.provisioning_configuration(vm_size=sys.argv[2], max_nodes=4)
    compute_target = ComputeTarget.create(ws, cluster_name, compute_config)
    compute_target.wait_for_completion(show_output=True)

project_folder = "./chainer-mnist"
shutil.copytree(sys.argv[1], project_folder, dirs_exist_ok=True)
experiment = Experiment(ws, name="chainer-mnist")
src = ScriptRunConfig(
    source_directory=project_folder,
    script="train.py",
    arguments=["--epochs", 10, "--batchsize", 128, "--output_dir", "./outputs"],
    compute_target=compute_target,
    environment=Environment("chainer-gpu"),
)

param_sampling = RandomParameterSampling({"--batchsize": choice(128, 256), "--epochs": choice(5, 10, 20, 40)})
hyperdrive_config = HyperDriveConfig(
    run_config=src,
    hyperparameter_sampling=param_sampling,
    primary_metric_name="Accuracy",
    policy=BanditPolicy(evaluation_interval=1, slack_factor=0.1, delay_evaluation=3),
    primary_metric_goal=PrimaryMetricGoal.MAXIMIZE,
    max_total_runs=8,
    max_concurrent_runs=4,
)

hyperdrive_run = experiment.submit(hyperdrive_config)
hyperdrive_run.wait_for_completion(show_output=True)
assert hyperdrive_run.get_status() == "Completed"

best_run = hyperdrive_run.get_best_run_by_primary_metric()
print(best_run.get_details()["runDefinition"]["arguments"])
print(best_run.get_file_names())
model = best_run.register_model(model_name="chainer-dnn-mnist", model_path="outputs/model.npz")
print(model.name, model.id, model.version, best_run.id, sep="\t")
for child in hyperdrive_run.get_children_sorted_by_primary_metric():
    print(child["run_id"], child["hyperparameters"], child["best_primary_metric"], child["status"], sep="\t")
