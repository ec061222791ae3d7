"""The inputs and outputs of command jobs: from data stores into an attempt's directory, and back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from azureml_emulator.assets import DATA, Place, arm_names, data_place, model_place, output_place, resolve
from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.jobs.command import CommandPlan, input_path, output_path
from azureml_emulator.service import Service


def input_place(service: Service, uri: str) -> Place:
    """Return where the files of an input are; its address may be the ARM id of a model or a data asset.

    Raises:
        ServiceError: 400, it can't be read here; 404, it is not there.
    """
    if not uri.startswith("/"):
        return resolve(service, uri)
    if _is_data(uri):
        return data_place(service, *arm_names(service, uri, DATA, "versions"))
    return model_place(service, *arm_names(service, uri, "models", "versions"))


def with_addresses(service: Service, plan: CommandPlan) -> CommandPlan:
    """Return a plan whose inputs are files and folders where they were data assets.

    Raises:
        ServiceError: 404, there is no such asset.
    """
    named = {
        key: given.model_copy(update={"uri": input_place(service, given.uri or "").uri})
        for key, given in plan.job.inputs.items()
        if _is_data(given.uri or "")
    }
    return replace(plan, job=plan.job.model_copy(update={"inputs": plan.job.inputs | named})) if named else plan


def _is_data(uri: str) -> bool:
    return uri.startswith("/") and uri.split("/")[-4:-3] == [DATA]


def check_files(service: Service, plan: CommandPlan) -> None:
    """See that a job's inputs are there, and that its outputs can be kept.

    Raises:
        ServiceError: 400 or 404, one is not.
    """
    for key, given in plan.job.inputs.items():
        if given.job_input_type == "literal" or given.mode == "Direct":
            continue
        place = input_place(service, given.uri or "")
        if not service.containers.below(service.containers.of_datastore(place.datastore), place.path):
            raise bad_request(f"There is nothing at {given.uri}, which is the input {key}.", "InputNotFound")
    for wanted in plan.job.outputs.values():
        if wanted.uri is not None:
            resolve(service, wanted.uri)


def lay_out(service: Service, plan: CommandPlan, attempt: Path) -> None:
    """Write a job's inputs into an attempt's directory, and make the folders for its outputs, ./outputs and ./logs too.

    Raises:
        ServiceError: 404, an input is gone.
        OSError: The files can't be written.
    """
    for folder in plan.folders:
        (attempt / "work" / folder).mkdir(parents=True, exist_ok=True)
    for key, given in plan.job.inputs.items():
        if given.job_input_type == "literal" or given.mode == "Direct":
            continue
        place = input_place(service, given.uri or "")
        target = input_path(attempt, key, given)
        target.parent.mkdir(parents=True, exist_ok=True)
        found = service.containers.below(service.containers.of_datastore(place.datastore), place.path)
        if not found:
            raise ServiceError(404, "InputNotFound", f"There is nothing any more at {given.uri}.")
        for path, stored in found.items():
            # A model that is one file is given as a folder's only file would be.
            inner = path or ("" if given.job_input_type == "uri_file" else place.path.rpartition("/")[2])
            file = target / inner if inner else target
            file.parent.mkdir(parents=True, exist_ok=True)
            blob = service.artifacts.blob(stored)
            with file.open("wb") as stream:
                for piece in service.blobs.read(blob, 0, blob.size):
                    stream.write(piece)
    for key, wanted in plan.job.outputs.items():
        made = output_path(attempt, key, wanted)
        (made.parent if wanted.job_output_type == "uri_file" else made).mkdir(parents=True, exist_ok=True)


def keep_outputs(service: Service, plan: CommandPlan, attempt: Path) -> None:
    """Bring what a job has written as its outputs into their data stores.

    Raises:
        OSError: A file can't be read.
    """
    for key, wanted in plan.job.outputs.items():
        place = resolve(service, wanted.uri) if wanted.uri else output_place(plan.name, key)
        container = service.containers.of_datastore(place.datastore)
        source = output_path(attempt, key, wanted)
        # A file that has no place of its own goes into the folder of its output.
        if wanted.job_output_type == "uri_file" and not wanted.uri:
            source = source.parent
        for path, inner in _files(source):
            name = "/".join(filter(None, (place.path, inner)))
            try:
                stored = service.containers.reserve(container, name)
            except ServiceError:
                continue  # a name that no client could ask for
            service.blobs.commit_file(stored.blob_key, path)


def _files(source: Path) -> list[tuple[Path, str]]:
    if source.is_symlink():
        return []
    if source.is_file():
        return [(source, "")]
    found = []
    for directory, _, names in os.walk(source):
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                found.append((path, path.relative_to(source).as_posix()))
    return found
