"""What SDK users do with web services. Plain SDK code; returns JSON."""

# The SDK has no types, and this is code as its users write it.
# ruff: noqa: ANN001, ANN003, ANN201, PTH

import os
import tempfile
from pathlib import Path

import scenarios
from azureml.core import Environment, Model
from azureml.core.model import InferenceConfig
from azureml.core.webservice import AciWebservice, AksWebservice, Webservice

operations = {}


def environment_of(variables=None):
    environment = Environment("scoring")
    environment.python.user_managed_dependencies = True
    environment.environment_variables = dict(variables or {})
    return environment


def register_files(name, files):
    """Register one file, or a folder of several."""
    folder = Path(tempfile.mkdtemp(dir=".")) / "artifacts"
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_text(content)
    path = folder if len(files) > 1 else folder / next(iter(files))
    return Model.register(scenarios.workspace, os.path.relpath(path), name).id


def inference(script, variables=None, source=True):
    folder = Path(tempfile.mkdtemp(dir=".")) / "src"
    folder.mkdir()
    (folder / "score.py").write_text(script)
    if source:
        return InferenceConfig("score.py", source_directory=str(folder), environment=environment_of(variables))
    return InferenceConfig(str(folder / "score.py"), environment=environment_of(variables))


def deploy(name, script, models=(), kind="aci", overwrite=False, variables=None, source=True, wait=True, **options):
    """Deploy, and say how it is afterwards. Without ``wait``, how it is at once."""
    configure = AciWebservice if kind == "aci" else AksWebservice
    service = Model.deploy(
        scenarios.workspace,
        name,
        [Model(scenarios.workspace, id=one) for one in models],
        inference(script, variables, source),
        configure.deploy_configuration(**options),
        overwrite=overwrite,
    )
    operations[name] = service
    if wait:
        service.wait_for_deployment(show_output=True)
    return service_of(name, service)


def wait_for_service(name):
    operations[name].wait_for_deployment()
    return service_of(name, operations[name])


def service_of(name, service=None):
    found = service or Webservice(scenarios.workspace, name)
    return {
        "state": found.state,
        "uri": found.scoring_uri,
        "kind": found.compute_type,
        "tags": found.tags,
        "properties": found.properties,
        "description": found.description,
        "error": found.error,
        "models": [model.id for model in found.models],
        "environment": found.environment.name if found.environment else None,
    }


def services(**filters):
    return sorted(service.name for service in Webservice.list(scenarios.workspace, **filters))


def run_service(name, data):
    return Webservice(scenarios.workspace, name).run(data)


def service_keys(name):
    return list(Webservice(scenarios.workspace, name).get_keys())


def service_logs(name, **arguments):
    return Webservice(scenarios.workspace, name).get_logs(**arguments)


def regenerate_key(name, key, value=None):
    Webservice(scenarios.workspace, name).regen_key(key, value)


def service_token(name):
    token = Webservice(scenarios.workspace, name).get_access_token()
    return [token.access_token, token.token_type]


def update_service(name, script=None, wait=True, **changes):
    service = Webservice(scenarios.workspace, name)
    if script is not None:
        changes["inference_config"] = inference(script)
    service.update(**changes)
    if wait:
        service.wait_for_deployment()
    return service_of(name, service)


def tag_service(name, tags, properties):
    service = Webservice(scenarios.workspace, name)
    service.add_tags(tags)
    service.add_properties(properties)
    return service_of(name)


def delete_service(name):
    """Delete it twice."""
    service = Webservice(scenarios.workspace, name)
    service.delete()
    service.delete()
    return service.state
