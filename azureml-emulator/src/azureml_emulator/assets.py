"""The ``azureml://`` addresses of SDK v2, and the ids of ARM.

An address names a place in a data store, ``azureml://datastores/NAME/paths/PATH``, in the long form with
``subscriptions/S/resourcegroups/G/workspaces/W/`` before it, or a job's output,
``azureml://jobs/JOB/outputs/OUTPUT[/paths/PATH]``, where the output ``artifacts`` is the files of the job's run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.store.artifacts import RUN_ORIGIN
from azureml_emulator.store.containers import ORIGIN

if TYPE_CHECKING:
    from azureml_emulator.service import Service

BLOB_STORE = "workspaceblobstore"
ARTIFACT_STORE = "workspaceartifactstore"
DATA = "data"
"""The kind of data assets among the stored versions, and in their ids."""
_LONG = re.compile(r"subscriptions/([^/]+)/resource[gG]roups/([^/]+)/(?:providers/[^/]+/)?workspaces/([^/]+)/")
_DATASTORE = re.compile(r"datastores/([^/]+)/paths/(.*)")
_JOB_OUTPUT = re.compile(r"jobs/([^/]+)/outputs/([^/]+)(?:/paths)?/?(.*)")
_RUN_FILES = re.compile(rf"{RUN_ORIGIN}/dcid\.([^/]+)/(.*)")


@dataclass(frozen=True)
class Place:
    """A file or a folder in a data store. ``path`` has no slash at its ends."""

    datastore: str
    path: str

    @property
    def uri(self) -> str:
        """Its short address."""
        return f"azureml://datastores/{self.datastore}/paths/{self.path}"

    def long_uri(self, service: Service) -> str:
        """Return its address with the workspace in it."""
        settings = service.settings
        return (
            f"azureml://subscriptions/{settings.subscription_id}/resourcegroups/{settings.resource_group}"
            f"/workspaces/{settings.workspace_name}/datastores/{self.datastore}/paths/{self.path}"
        )

    @property
    def job(self) -> str | None:
        """The job whose artifact it is, if it is one."""
        found = _RUN_FILES.match(self.path) if self.datastore == ARTIFACT_STORE else None
        return found[1] if found else None


def output_place(job: str, output: str) -> Place:
    """Return where a job's output is kept that its job gives no place."""
    return Place(BLOB_STORE, f"azureml/{job}/{output}")


def run_files(job: str, path: str = "") -> Place:
    """Return where the files of a run are kept."""
    return Place(ARTIFACT_STORE, f"{RUN_ORIGIN}/dcid.{job}/{path}".rstrip("/"))


def resolve(service: Service, uri: str) -> Place:
    """Return the place that an address names.

    Raises:
        ServiceError: 400, it is no such address, or of another workspace; 404, no such data store, job or output.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "https":
        return _of_blob(service, uri)
    if scheme != "azureml":
        raise bad_request(f"The emulator reads azureml:// addresses, not {uri}.", "NotEmulated")
    long = _LONG.match(rest)
    if long is not None:
        settings = service.settings
        served = (settings.subscription_id, settings.resource_group, settings.workspace_name)
        if tuple(part.lower() for part in long.groups()) != tuple(part.lower() for part in served):
            raise bad_request(f"{uri} is of another workspace.")
        rest = rest[long.end() :]
    found = _DATASTORE.fullmatch(rest)
    if found is not None:
        service.containers.of_datastore(found[1])
        return Place(found[1], found[2].strip("/"))
    found = _JOB_OUTPUT.fullmatch(rest)
    if found is not None:
        return _of_job(service, found[1], found[2], found[3].strip("/"))
    raise bad_request(f"The emulator can't read the address {uri}.", "NotEmulated")


def model_place(service: Service, name: str, version: str) -> Place:
    """Return where a registered model's files are, whichever SDK registered it.

    Raises:
        ServiceError: 404.
    """
    model = service.models.get(f"{name}:{version}")
    asset = service.models.asset(model.url.removeprefix("aml://asset/"))
    prefix = asset.artifacts[0].prefix.strip("/")
    origin, _, rest = prefix.partition("/")
    if origin != ORIGIN:
        return Place(ARTIFACT_STORE, prefix)
    container, _, path = rest.partition("/")
    return Place(service.containers.datastore_of(container) or ARTIFACT_STORE, path)


def data_place(service: Service, name: str, version: str) -> Place:
    """Return where the files of a data asset are.

    Raises:
        ServiceError: 404.
    """
    return resolve(service, str(service.versions.get(DATA, name, version).properties["dataUri"]))


def artifact_prefix(service: Service, place: Place) -> str:
    """Return what SDK v1 calls a place: origin, container and path."""
    if place.datastore == ARTIFACT_STORE:
        return place.path
    return f"{ORIGIN}/{service.containers.of_datastore(place.datastore)}/{place.path}"


def _of_job(service: Service, job: str, output: str, path: str) -> Place:
    service.runs.get(job)
    if output == "artifacts":
        return run_files(job, path)
    document = service.command_jobs.find(job)
    declared = (document or {}).get("outputs") or {}
    if output not in declared:
        raise ServiceError(404, "OutputNotFound", f"Job {job} has no output {output}.")
    uri = declared[output].get("uri")
    base = resolve(service, uri) if uri else output_place(job, output)
    return Place(base.datastore, "/".join(filter(None, (base.path, path))))


def _of_blob(service: Service, uri: str) -> Place:
    """Return the place of a blob's URL, which has user-info before the address where the SDK has rebuilt it."""
    parts = urlsplit(uri)
    container, _, path = parts.path.lstrip("/").partition("/")
    datastore = service.containers.datastore_of(container)
    if f"https://{parts.netloc.rpartition('@')[2]}" != service.base_url or datastore is None:
        raise bad_request("The emulator reads no files from elsewhere.", "NotEmulated")
    return Place(datastore, path.strip("/"))


def arm_names(service: Service, resource_id: str, *kinds: str) -> list[str]:
    """Return the names in an ARM id, such as NAME and VERSION of ``<WS>/models/NAME/versions/VERSION``.

    Raises:
        ServiceError: 400, it is an id of something else.
    """
    base = service.settings.workspace_path + "/"
    parts = resource_id[len(base) :].split("/")
    right = resource_id.lower().startswith(base.lower()) and len(parts) == 2 * len(kinds)
    if not right or [part.lower() for part in parts[::2]] != [kind.lower() for kind in kinds]:
        raise bad_request(f"{resource_id} is not the id of one of this workspace's {kinds[0]}.", "NotEmulated")
    return parts[1::2]
