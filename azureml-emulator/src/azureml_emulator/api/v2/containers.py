"""Blob containers: what azure-storage-blob does with the data stores and with containers for uploads."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

from email.utils import formatdate
from typing import Annotated
from xml.etree.ElementTree import Element, SubElement, tostring

from fastapi import Header, Query, Request
from fastapi.responses import Response
from starlette.convertors import StringConvertor, register_url_convertor

from azureml_emulator.api import blobs
from azureml_emulator.api.common import ServiceDep, guarded_router, max_body
from azureml_emulator.errors import ServiceError
from azureml_emulator.service import Service
from azureml_emulator.store.artifacts import StoredArtifact
from azureml_emulator.store.blobs import BLOCK_BLOB
from azureml_emulator.store.containers import ARTIFACTS, NAME_PATTERN, NamedBlob
from azureml_emulator.tokens import TokenError

MAX_LIST = 5000
"""Blobs of one page of a list, as on Azure."""
_META = "x-ms-meta-"


class _ContainerName(StringConvertor):
    regex = NAME_PATTERN


register_url_convertor("blobcontainer", _ContainerName())

BLOB = "/{container:blobcontainer}/{name:path}"

router = guarded_router("Blob containers")


@router.put(BLOB, summary="every upload of code, inputs and models: Put Blob, Put Block (List), Set Blob Metadata")
@max_body(blobs.MAX_BLOB)
async def put_blob(
    container: str,
    name: str,
    request: Request,
    service: ServiceDep,
    comp: str | None = None,
    block_id: Annotated[str | None, Query(alias="blockid")] = None,
    kind: Annotated[str, Header(alias="x-ms-blob-type")] = BLOCK_BLOB,
    if_none_match: Annotated[str | None, Header()] = None,
    source: Annotated[str | None, Header(alias="x-ms-copy-source")] = None,
) -> Response:
    _check_signature(service, container, name, "w", request)
    if source is not None:
        raise ServiceError(501, "NotImplemented", "Copying a blob is not emulated.")
    metadata = _metadata(request)
    if comp == "metadata":
        found = service.containers.get(container, name)
        service.containers.set_metadata(found.blob_key, metadata)
        return Response(headers=blobs.blob_headers(service.blobs.get(found.blob_key)))
    stored = service.containers.reserve(container, name)
    answer = await blobs.put(
        stored.blob_key,
        request,
        service,
        comp=comp,
        block_id=block_id,
        kind=kind,
        overwrite=if_none_match != "*",
    )
    if comp in (None, "blocklist"):
        service.containers.set_metadata(stored.blob_key, metadata)
    return answer


@router.head(BLOB, summary="before an upload: has it been done already? (Get Blob Properties)")
def head_blob(container: str, name: str, request: Request, service: ServiceDep) -> Response:
    _check_signature(service, container, name, "r", request)
    stored = _visible(service, container, name)
    blob = service.blobs.get(stored.blob_key)
    headers = blobs.blob_headers(blob) | _meta_headers(service.containers.metadata(blob.key))
    return Response(headers=headers | {"Content-Length": str(blob.size)})


@router.get(BLOB, summary="`jobs.download`, `models.download`: Get Blob, with ranges")
def get_blob(
    container: str,
    name: str,
    request: Request,
    service: ServiceDep,
    comp: str | None = None,
    ms_range: Annotated[str | None, Header(alias="x-ms-range")] = None,
    plain_range: Annotated[str | None, Header(alias="Range")] = None,
    if_match: Annotated[str | None, Header()] = None,
) -> Response:
    _check_signature(service, container, name, "r", request)
    if comp is not None:
        raise ServiceError(501, "NotImplemented", f"Getting a blob with comp={comp} is not emulated.")
    blob = service.blobs.get(_visible(service, container, name).blob_key)
    if if_match not in (None, "*", blob.etag):
        raise ServiceError(412, "ConditionNotMet", "The condition specified using HTTP conditional header is not met.")
    return blobs.answer(blob, service, ms_range or plain_range, _meta_headers(service.containers.metadata(blob.key)))


@router.get("/{container:blobcontainer}", summary="`jobs.download`, `models.download`: List Blobs")
def list_blobs(
    container: str,
    request: Request,
    service: ServiceDep,
    restype: str | None = None,
    comp: str | None = None,
    prefix: str = "",
    delimiter: str | None = None,
    marker: str = "",
    maxresults: int = MAX_LIST,
) -> Response:
    _check_signature(service, container, "", "l", request)
    if (restype, comp) != ("container", "list") or delimiter not in (None, "/"):
        raise ServiceError(501, "NotImplemented", f"{restype} with comp={comp}, delimiter={delimiter}: not emulated.")
    if not 1 <= maxresults <= MAX_LIST:
        raise ServiceError(400, "OutOfRangeQueryParameterValue", f"maxresults is from 1 to {MAX_LIST}.")
    found = [item for item in service.containers.list(container, prefix) if _is_visible(service, container, item.name)]
    document = _list(container, found, prefix, delimiter, marker, maxresults)
    return Response(document, media_type="application/xml", headers=blobs.common_headers())


def _list(
    container: str, found: list[NamedBlob], prefix: str, delimiter: str | None, marker: str, maxresults: int
) -> bytes:
    """Return the XML of List Blobs; a marker is the name with which the next page begins."""
    root = Element("EnumerationResults", ContainerName=container)
    SubElement(root, "Prefix").text = prefix
    listed = SubElement(root, "Blobs")
    following, entries, folders = "", 0, set()
    for item in found:
        if item.name < marker:
            continue
        if entries == maxresults:
            following = item.name
            break
        rest = item.name[len(prefix) :]
        if delimiter and delimiter in rest:
            folder = prefix + rest.partition(delimiter)[0] + delimiter
            if folder not in folders:
                folders.add(folder)
                entries += 1
                SubElement(SubElement(listed, "BlobPrefix"), "Name").text = folder
            continue
        entries += 1
        _add_blob(listed, item)
    SubElement(root, "NextMarker").text = following
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _add_blob(listed: Element, item: NamedBlob) -> None:
    entry = SubElement(listed, "Blob")
    SubElement(entry, "Name").text = item.name
    properties = SubElement(entry, "Properties")
    for key, value in (
        ("Last-Modified", formatdate(item.blob.modified, usegmt=True)),
        ("Etag", item.blob.etag.strip('"')),
        ("Content-Length", str(item.blob.size)),
        ("Content-Type", "application/octet-stream"),
        ("BlobType", item.blob.kind),
    ):
        SubElement(properties, key).text = value
    metadata = SubElement(entry, "Metadata")
    for key, value in item.metadata.items():
        SubElement(metadata, key).text = value


def _check_signature(service: Service, container: str, name: str, permission: str, request: Request) -> None:
    try:
        service.authority.check_container(container, name, permission, dict(request.query_params))
    except (TokenError, ValueError) as error:
        message = f"Server failed to authenticate the request. {error}"
        raise ServiceError(403, "AuthenticationFailed", message) from None


def _visible(service: Service, container: str, name: str) -> StoredArtifact:
    found = service.containers.get(container, name)
    if container == ARTIFACTS and not service.visible([found], found.container):
        raise ServiceError(404, "BlobNotFound", "The specified blob does not exist.")
    return found


def _is_visible(service: Service, container: str, name: str) -> bool:
    if container != ARTIFACTS or not service.faults.current.late_logs:
        return True
    stored = service.containers.get(container, name)
    return bool(service.visible([stored], stored.container))


def _metadata(request: Request) -> dict[str, str]:
    found = {name[len(_META) :]: value for name, value in request.headers.items() if name.startswith(_META)}
    for name in found:
        if not name.isidentifier() or not name.isascii():
            raise ServiceError(400, "InvalidMetadata", "The metadata specified is invalid.")
    return found


def _meta_headers(metadata: dict[str, str]) -> dict[str, str]:
    return {f"{_META}{name}": value for name, value in metadata.items()}
