"""A command job with inputs and a named output, as a plain SDK v2 program: nothing in it knows of an emulator."""

import sys
from pathlib import Path

from azure.ai.ml import Input, MLClient, Output, command
from azure.ai.ml.entities import AmlCompute, Environment, Model
from azure.core.exceptions import ResourceNotFoundError
from azure.identity import DefaultAzureCredential

here = Path(__file__).parent
ml_client = MLClient.from_config(DefaultAzureCredential())
print("Workspace name:", ml_client.workspaces.get(ml_client.workspace_name).name)

try:
    ml_client.compute.get("cpu-cluster")
except ResourceNotFoundError:
    print("Creating a new cpu compute target...")
    cluster = AmlCompute(
        name="cpu-cluster", size="STANDARD_DS3_V2", min_instances=0, max_instances=4, idle_time_before_scale_down=180
    )
    ml_client.compute.begin_create_or_update(cluster).result()
print("computes", [item.name for item in ml_client.compute.list()])

job = command(
    code=str(here / "src"),
    command="python train.py --lr ${{inputs.lr}} --data ${{inputs.data}} --out ${{outputs.result}}",
    inputs={"lr": 0.25, "data": Input(type="uri_folder", path=str(here / "data"))},
    outputs={"result": Output(type="uri_folder")},
    environment=Environment(
        image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04", conda_file=str(here / "conda.yml"), name="sample"
    ),
    environment_variables={"GREETING": "hello"},
    compute="cpu-cluster",
    experiment_name="chainer-mnist",
    display_name="first",
    tags={"kind": "sample"},
)
job.set_limits(timeout=600)
submitted = ml_client.jobs.create_or_update(job)
print("status", submitted.status, submitted.services["Studio"].endpoint.startswith("https://"))
ml_client.jobs.stream(submitted.name)
ended = ml_client.jobs.get(submitted.name)
print("ended", ended.status, ended.display_name, ended.tags)
print("listed", submitted.name in [item.name for item in ml_client.jobs.list()])
ml_client.jobs.download(submitted.name, download_path="download", all=True)
for path in sorted(Path("download").rglob("*")):
    if path.is_file():
        print("file", path.relative_to("download").as_posix())

model = ml_client.models.create_or_update(
    Model(
        name="chainer-dnn-mnist",
        path=f"azureml://jobs/{submitted.name}/outputs/artifacts/paths/outputs/model.txt",
        type="custom_model",
        description="from a job",
        tags={"stage": "test"},
    )
)
print("model", model.name, model.version)
ml_client.models.download("chainer-dnn-mnist", version=model.version, download_path="models")
print("content", Path("models/chainer-dnn-mnist/model.txt").read_text())

import mlflow  # noqa: E402

mlflow.set_tracking_uri(ml_client.workspaces.get(ml_client.workspace_name).mlflow_tracking_uri)
client = mlflow.MlflowClient()
run = client.get_run(submitted.name)
print("metrics", run.data.metrics, run.data.params, run.info.status)
print("history", [(point.step, point.value) for point in client.get_metric_history(submitted.name, "Accuracy")])
print("artifacts", [item.path for item in client.list_artifacts(submitted.name, "outputs")])
print("text", Path(client.download_artifacts(submitted.name, "copies/model.txt", ".")).read_text())
sys.exit(0)
