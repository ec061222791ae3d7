"""Azure's Chainer tutorial, as a plain SDK script: nothing in it knows of an emulator."""

import shutil
import sys

from azureml.core import Experiment, Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException
from azureml.train.dnn import Chainer

ws = Workspace.from_config()
print("Workspace name: " + ws.name, "Resource group: " + ws.resource_group, sep="\n")

cluster_name = "gpu-cluster"
vm_size = sys.argv[2]
try:
    compute_target = ComputeTarget(workspace=ws, name=cluster_name)
    print("Found existing compute target.")
except ComputeTargetException:
    print("Creating a new compute target...")
    compute_config = AmlCompute.provisioning_configuration(vm_size=vm_size, max_nodes=4)
    compute_target = ComputeTarget.create(ws, cluster_name, compute_config)
    compute_target.wait_for_completion(show_output=True)
print(compute_target.get_status().serialize())

project_folder = "./chainer-mnist"
shutil.copytree(sys.argv[1], project_folder, dirs_exist_ok=True)
experiment = Experiment(ws, name="chainer-mnist")
estimator = Chainer(
    source_directory=project_folder,
    script_params={"--epochs": 10, "--batchsize": 128, "--output_dir": "./outputs"},
    compute_target=compute_target,
    pip_packages=["numpy", "pytest"],
    entry_script="train.py",
    use_gpu=True,
)
run = experiment.submit(estimator)
print(run)
run.wait_for_completion(show_output=True)

model = run.register_model(model_name="chainer-dnn-mnist", model_path="outputs/model.npz")
print(model.name, model.id, model.version, sep="\t")
files = run.get_file_names()
print(files)
for name in files:
    if name.startswith("outputs/"):
        run.download_file(name=name, output_file_path="./model")
print("metrics", run.get_metrics())
