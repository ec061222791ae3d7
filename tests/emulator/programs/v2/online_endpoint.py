"""A managed online endpoint with two deployments, as a plain SDK v2 program: nothing in it knows of an emulator."""

import sys
import urllib.request
from pathlib import Path

from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    CodeConfiguration,
    Environment,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    Model,
    OnlineRequestSettings,
)
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential

here = Path(__file__).parent
ml_client = MLClient.from_config(DefaultAzureCredential())
name = "digits-endpoint"

endpoint = ManagedOnlineEndpoint(name=name, description="a sample", auth_mode="key", tags={"kind": "sample"})
endpoint = ml_client.online_endpoints.begin_create_or_update(endpoint).result()
print("endpoint", endpoint.name, endpoint.provisioning_state, endpoint.auth_mode, endpoint.tags)

for number, text in enumerate(("first", "second"), 1):
    Path(f"v{number}").mkdir()
    Path(f"v{number}/model.txt").write_text(text)
registered = ml_client.models.create_or_update(Model(name="digits-model", path="v1/model.txt", type="custom_model"))
environment = Environment(
    image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04", conda_file=str(here / "conda.yml"), name="scoring"
)
code = CodeConfiguration(code=str(here / "online"), scoring_script="score.py")

blue = ManagedOnlineDeployment(
    name="blue",
    endpoint_name=name,
    model=registered,
    environment=environment,
    code_configuration=code,
    environment_variables={"GREETING": "hello"},
    request_settings=OnlineRequestSettings(request_timeout_ms=30000),
    instance_type="Standard_DS3_v2",
    instance_count=1,
)
blue = ml_client.online_deployments.begin_create_or_update(blue).result()
print("blue", blue.provisioning_state, blue.instance_type, blue.instance_count, blue.model.rpartition("/models/")[2])

endpoint.traffic = {"blue": 100}
ml_client.online_endpoints.begin_create_or_update(endpoint).result()
Path("request.json").write_text('{"data": [1, 2, 3]}')
print("answer", ml_client.online_endpoints.invoke(endpoint_name=name, request_file="request.json"))

# What another framework's client does.
endpoint = ml_client.online_endpoints.get(name=name)
keys = ml_client.online_endpoints.get_keys(name=name)
request = urllib.request.Request(
    endpoint.scoring_uri,
    b'{"data": [4]}',
    {"Content-Type": "application/json", "Authorization": "Bearer " + keys.primary_key},
)
print("plain", urllib.request.urlopen(request).read().decode())
print("log", "loaded first" in ml_client.online_deployments.get_logs(name="blue", endpoint_name=name, lines=50))

green = ManagedOnlineDeployment(
    name="green",
    endpoint_name=name,
    model=Model(path="v2/model.txt"),
    environment=environment,
    code_configuration=code,
    instance_type="Standard_DS3_v2",
    instance_count=1,
)
ml_client.online_deployments.begin_create_or_update(green).result()
endpoint.traffic = {"blue": 50, "green": 50}
ml_client.online_endpoints.begin_create_or_update(endpoint).result()
answers = {ml_client.online_endpoints.invoke(endpoint_name=name, request_file="request.json") for _ in range(20)}
print("both", len(answers))
answer = ml_client.online_endpoints.invoke(endpoint_name=name, deployment_name="green", request_file="request.json")
print("green", answer)

try:
    ml_client.online_deployments.begin_delete(name="blue", endpoint_name=name).result()
except HttpResponseError as error:
    print("refused", "50 percent" in str(error))
endpoint.traffic = {"green": 100}
endpoint = ml_client.online_endpoints.begin_create_or_update(endpoint).result()
ml_client.online_deployments.begin_delete(name="blue", endpoint_name=name).result()
print("deployments", [item.name for item in ml_client.online_deployments.list(endpoint_name=name)])
print("traffic", ml_client.online_endpoints.get(name=name).traffic)

Path("broken").mkdir()
Path("broken/score.py").write_text(
    "def init():\n    raise RuntimeError('no weights')\n\ndef run(data):\n    return 1\n"
)
green.code_configuration = CodeConfiguration(code="broken", scoring_script="score.py")
green.name = "red"
try:
    ml_client.online_deployments.begin_create_or_update(green).result()
except HttpResponseError as error:
    print("failed", "ResourceNotReady" in str(error), "container has crashed" in str(error))
print("why", "no weights" in ml_client.online_deployments.get_logs(name="red", endpoint_name=name, lines=50))
print("state", ml_client.online_deployments.get(name="red", endpoint_name=name).provisioning_state)

before = ml_client.online_endpoints.get_keys(name=name)
ml_client.online_endpoints.begin_regenerate_keys(name=name, key_type="primary").result()
after = ml_client.online_endpoints.get_keys(name=name)
print("keys", before.primary_key != after.primary_key, before.secondary_key == after.secondary_key)
print("listed", [item.name for item in ml_client.online_endpoints.list()])

ml_client.online_endpoints.begin_delete(name=name).result()
try:
    ml_client.online_endpoints.get(name=name)
except ResourceNotFoundError:
    print("deleted")
sys.exit(0)
