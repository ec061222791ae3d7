"""A sweep over a command job, as a plain SDK v2 program: nothing in it knows of an emulator."""

from pathlib import Path

from azure.ai.ml import MLClient, command
from azure.ai.ml.entities import AmlCompute, Environment
from azure.ai.ml.sweep import BanditPolicy, Choice, LogUniform
from azure.identity import DefaultAzureCredential

here = Path(__file__).parent
ml_client = MLClient.from_config(DefaultAzureCredential())
cluster = AmlCompute(name="sweep-cluster", size="STANDARD_DS3_V2", max_instances=4)
ml_client.compute.begin_create_or_update(cluster).result()

command_job = command(
    code=str(here / "src"),
    command="python train.py --lr ${{inputs.lr}} --epochs ${{inputs.epochs}}",
    inputs={"lr": 0.1, "epochs": 1},
    environment=Environment(image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"),
    compute="sweep-cluster",
)
job_for_sweep = command_job(lr=LogUniform(min_value=-3, max_value=-1), epochs=Choice([1, 2]))
sweep_job = job_for_sweep.sweep(
    compute="sweep-cluster", sampling_algorithm="random", primary_metric="Accuracy", goal="Maximize"
)
sweep_job.set_limits(max_total_trials=3, max_concurrent_trials=3, timeout=3600)
sweep_job.early_termination = BanditPolicy(slack_factor=0.9, evaluation_interval=2)
sweep_job.experiment_name = "sweep"

submitted = ml_client.create_or_update(sweep_job)
print("submitted", submitted.status, submitted.type)
ml_client.jobs.stream(submitted.name)
ended = ml_client.jobs.get(submitted.name)
print("ended", ended.status, ended.tags, sorted(ended.search_space), ended.limits.max_total_trials)
best = ended.properties["best_child_run_id"]
children = [child.name for child in ml_client.jobs.list(parent_job_name=submitted.name)]
print("children", sorted(child.removeprefix(submitted.name) for child in children), best in children)
trial = ml_client.jobs.get(best)
print("best", trial.status, trial.tags["lr"] in trial.command)
ml_client.jobs.download(submitted.name, download_path="best", all=True)
print("file", next(Path("best").rglob("model.txt")).read_text() == "lr=" + trial.tags["lr"])
