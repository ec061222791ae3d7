"""Blob storage, as far as azure-storage-blob and plain GET requests use it."""

# What a route is for is in its summary, from which the documentation's table is made.
# ruff: noqa: D103

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from email.utils import formatdate
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

from fastapi import Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from azureml_emulator.api.common import ServiceDep, guarded_router, max_body
from azureml_emulator.errors import ServiceError
from azureml_emulator.service import Service
from azureml_emulator.store.blobs import APPEND_BLOB, BLOCK_BLOB, Blob
from azureml_emulator.tokens import TokenError

MAX_BLOB = 5000 << 20
"""Bytes of one request, as on Azure. They go to a file as they come."""
MAX_BLOCK_LIST = 8 << 20
MAX_APPEND = 64 << 20
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")

router = guarded_router("Blobs")


@router.put("/blobs/{key}", summary="every upload: Put Blob, Put Block, Put Block List, Append Block")
@max_body(MAX_BLOB)
async def put_blob(
    key: str,
    request: Request,
    service: ServiceDep,
    comp: str | None = None,
    block_id: Annotated[str | None, Query(alias="blockid")] = None,
    kind: Annotated[str, Header(alias="x-ms-blob-type")] = BLOCK_BLOB,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    _check_signature(service, key, "w", request)
    overwrite = service.settings.blob_overwrite or if_none_match != "*"
    return await put(key, request, service, comp=comp, block_id=block_id, kind=kind, overwrite=overwrite)


async def put(
    key: str, request: Request, service: Service, *, comp: str | None, block_id: str | None, kind: str, overwrite: bool
) -> Response:
    """Take in a blob, a part of one, or the list of its parts.

    Args:
        key: The blob's.
        request: Its body is the content.
        service: Where it goes.
        comp: The part of the storage API that is meant; None: Put Blob.
        block_id: Which block, with ``comp=block``.
        kind: ``BlockBlob`` or ``AppendBlob``.
        overwrite: Whether a blob that is there may be replaced.

    Raises:
        ServiceError: 400, the content is not what its MD5 says; 409, the blob exists; 501, not emulated.
    """
    if comp == "block" and block_id:
        upload = await _receive(request, service)
        await run_in_threadpool(service.blobs.stage_block, key, block_id, upload)
        return Response(status_code=201, headers=common_headers())
    if comp == "blocklist":
        block_ids = _parse_block_list(await _receive_bytes(request, MAX_BLOCK_LIST))
        blob = await run_in_threadpool(service.blobs.commit_blocks, key, block_ids, overwrite=overwrite)
        return Response(status_code=201, headers=blob_headers(blob))
    if comp == "appendblock":
        data = await _receive_bytes(request, MAX_APPEND)
        blob, offset = await run_in_threadpool(service.blobs.append, key, data)
        headers = {"x-ms-blob-append-offset": str(offset), "x-ms-blob-committed-block-count": "1"}
        return Response(status_code=201, headers=blob_headers(blob) | headers)
    if comp is not None or kind not in (BLOCK_BLOB, APPEND_BLOB):
        raise ServiceError(501, "NotImplemented", f"Putting a {kind} with comp={comp} is not emulated.")
    upload = await _receive(request, service)
    blob = await run_in_threadpool(service.blobs.commit, key, upload, kind, overwrite=overwrite)
    return Response(status_code=201, headers=blob_headers(blob))


@router.head("/blobs/{key}", summary="after every upload: Get Blob Properties")
def head_blob(key: str, request: Request, service: ServiceDep) -> Response:
    _check_signature(service, key, "r", request)
    blob = service.blobs.get(key)
    return Response(headers=blob_headers(blob) | {"Content-Length": str(blob.size)})


@router.get("/blobs/{key}", summary="every download and log stream: Get Blob, with ranges", description="`jobs.stream`")
def get_blob(
    key: str,
    request: Request,
    service: ServiceDep,
    ms_range: Annotated[str | None, Header(alias="x-ms-range")] = None,
    plain_range: Annotated[str | None, Header(alias="Range")] = None,
) -> Response:
    _check_signature(service, key, "r", request)
    blob = service.blobs.get(key)
    return answer(blob, service, ms_range or plain_range, {})


def answer(blob: Blob, service: Service, asked: str | None, headers: dict[str, str]) -> Response:
    """Send a blob, or the part of it that is asked for.

    Args:
        blob: The blob.
        service: Has its content.
        asked: A range, such as ``bytes=0-99``; None: all.
        headers: What else the answer says.

    Raises:
        ServiceError: 416, the range is malformed or begins beyond the blob's end.
    """
    size = blob.size
    start, stop, status = 0, size, 200
    headers = blob_headers(blob) | headers
    if asked is not None:
        start, stop = _parse_range(asked, size)
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    # The length is fixed here, because a log may grow while it is being sent.
    headers["Content-Length"] = str(stop - start)
    return StreamingResponse(service.blobs.read(blob, start, stop - start), status_code=status, headers=headers)


def _check_signature(service: Service, key: str, permission: str, request: Request) -> None:
    try:
        service.authority.check_blob(key, permission, dict(request.query_params))
    except (TokenError, ValueError) as error:
        message = f"Server failed to authenticate the request. {error}"
        raise ServiceError(403, "AuthenticationFailed", message) from None


def _parse_range(text: str, size: int) -> tuple[int, int]:
    match = _RANGE.fullmatch(text.strip())
    if match is None or int(match[1]) >= size:
        raise ServiceError(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size


def _parse_block_list(body: bytes) -> list[str]:
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise ServiceError(400, "InvalidXmlDocument", "A block list has no document type.")
    try:
        # Entities, the danger of XML from elsewhere, have been refused above.
        root = ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError:
        raise ServiceError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.") from None
    return [(element.text or "").strip() for element in root if element.tag in ("Latest", "Uncommitted", "Committed")]


async def _receive(request: Request, service: Service) -> Path:
    """Write the request's body to a file. Nothing is left behind when the client goes away half-way.

    Raises:
        ServiceError: 400, it is not what ``Content-MD5`` says.
    """
    upload = service.blobs.new_upload()
    expected, digest = request.headers.get("Content-MD5"), hashlib.md5(usedforsecurity=False)
    try:
        with upload.open("wb") as stream:
            async for piece in request.stream():
                stream.write(piece)
                if expected is not None:
                    digest.update(piece)
        if expected is not None and expected != base64.b64encode(digest.digest()).decode():
            raise ServiceError(400, "Md5Mismatch", "The MD5 value in the request is not that of what was received.")
    except BaseException:
        upload.unlink(missing_ok=True)
        raise
    return upload


async def _receive_bytes(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise ServiceError(413, "RequestBodyTooLarge", "The request body is too large.")
    return bytes(body)


def common_headers() -> dict[str, str]:
    """Return what every answer of the storage says."""
    return {"x-ms-version": "2021-08-06", "x-ms-request-id": str(uuid.uuid4()), "x-ms-request-server-encrypted": "true"}


def blob_headers(blob: Blob) -> dict[str, str]:
    """Return what an answer says about a blob."""
    return common_headers() | {
        "ETag": blob.etag,
        "Last-Modified": formatdate(blob.modified, usegmt=True),
        "x-ms-blob-type": blob.kind,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
