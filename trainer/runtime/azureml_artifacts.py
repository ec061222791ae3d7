"""The files of a job's own run on Azure ML, by plain HTTPS: a node of SDK v2 has no SDK to upload with.

The interface is run history's, which azureml-mlflow asks for ``mlflow.log_artifact``; the address and the token are
those of :mod:`trainer.runtime.log_batch`. A file's content goes to storage itself, by a link that is signed:
https://learn.microsoft.com/rest/api/storageservices/put-blob.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from trainer.runtime import log_batch
from trainer.runtime.layout import AZURE_RUN_ID_VARIABLE

# Set by Azure ML in every job: its experiment's name.
_EXPERIMENT = "AZUREML_ARM_PROJECT_NAME"
_STORAGE_VERSION = "2023-11-03"
_TRIES = 4
_PAUSE_SECONDS = 1.0
_SECONDS = 60.0
_MOST_PAGES = 1000
_LONGEST_ANSWER = 64 << 20
_LONGEST_REASON = 300


class JobArtifacts:
    """What of ``azureml.core.Run`` it takes to upload a checkpoint and to find it again.

    Every request is sent up to four times: none does harm twice.

    Raises:
        ValueError: Azure ML has set no https address.
    """

    def __init__(self) -> None:
        host, interface, workspace = log_batch.address().partition("/mlflow/")
        if not interface:
            raise ValueError("the address that Azure ML has set is not that of its MLflow interface")
        names = (os.environ[_EXPERIMENT], os.environ[AZURE_RUN_ID_VARIABLE])
        experiment, run = (quote(name, safe="") for name in names)
        _, _, path = workspace.partition("/")
        self._url = f"{host}/history/v1.0/{path}/experiments/{experiment}/runs/{run}/artifacts"

    def get_file_names(self) -> list[str]:
        """Return the names of all files.

        Raises:
            OSError: Azure ML does not answer, or refuses.
        """
        names: list[str] = []
        query = ""
        for _ in range(_MOST_PAGES):
            page = self._ask(query)
            names += [str(item["path"]) for item in page.get("value") or ()]
            token = page.get("continuationToken")
            if not token:
                break
            query = f"?continuationToken={quote(str(token), safe='')}"
        return names

    def download_file(self, name: str, output_file_path: str) -> None:
        """Download one.

        Args:
            name: Its name, percent-encoded, as SDK v1 wants it.
            output_file_path: Where to.

        Raises:
            OSError: Azure ML does not answer or refuses, or the file can't be written.
        """
        found = self._ask(f"/contentinfo?path={quote(unquote(name), safe='')}")
        link = _link(found.get("contentUri"))

        def write(answer: Any) -> None:  # noqa: ANN401  # http.client.HTTPResponse
            with Path(output_file_path).open("wb") as target:
                shutil.copyfileobj(answer, target)

        _sent(lambda: urllib.request.Request(link), write)  # noqa: S310  # https

    def upload_file(self, name: str, path: str) -> None:
        """Upload a file under a name that is new.

        Args:
            name: The name.
            path: The file's path.

        Raises:
            OSError: Azure ML does not answer or refuses, as it does where the name is taken; or the file can't be read.
        """
        found = self._ask("/batch/metadata", {"paths": [{"path": name}]})
        if found.get("errors"):
            raise OSError(f"Azure ML does not take {name}: {json.dumps(found['errors'])[:_LONGEST_REASON]}")
        content = (found.get("artifactContentInformation") or {}).get(name)
        link = _link(content.get("contentUri") if isinstance(content, dict) else None)
        with Path(path).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            headers = {
                "x-ms-blob-type": "BlockBlob",
                "x-ms-version": _STORAGE_VERSION,
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
            }

            def request() -> urllib.request.Request:
                stream.seek(0)
                return urllib.request.Request(link, stream, headers, method="PUT")  # noqa: S310  # https

            _sent(request, lambda answer: answer.read())

    def _ask(self, path: str, body: object = None) -> dict[str, Any]:
        headers = {**log_batch.authorization(), "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        found: list[Any] = []
        _sent(
            lambda: urllib.request.Request(self._url + path, data, headers),  # noqa: S310  # https
            lambda answer: found.append(json.loads(answer.read(_LONGEST_ANSWER))),
        )
        if not isinstance(found[-1], dict):
            raise OSError("Azure ML answers something else than an object.")
        return found[-1]


def _sent(make: Callable[[], urllib.request.Request], read: Callable[[Any], object]) -> None:
    """Send what ``make`` gives, and have ``read`` take the answer in; again, where the failure may pass."""
    for attempt in range(1, _TRIES + 1):
        try:
            with log_batch.opener().open(make(), timeout=_SECONDS) as answer:
                read(answer)
        except urllib.error.HTTPError as error:
            with closing(error):
                if error.code not in log_batch.PASSING or attempt == _TRIES:
                    raise OSError(f"Azure ML answers {error.code}: {_said(error)}") from None
        except (OSError, http.client.HTTPException) as error:
            if attempt == _TRIES:
                raise OSError(f"A request to Azure ML has failed: {getattr(error, 'reason', error)}") from None
        else:
            return
        time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))


def _said(error: urllib.error.HTTPError) -> str:
    try:
        inner = json.loads(error.read(_LONGEST_ANSWER))["error"]
        return f"{inner['message']}"[:_LONGEST_REASON]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return str(error.reason)


def _link(given: object) -> str:
    if not isinstance(given, str) or not given.startswith("https://"):
        raise OSError("Azure ML gives no link to the file.")
    link = urlsplit(given)
    # urllib would take user information, which an emulator's links have, for a part of the host.
    return urlunsplit(link._replace(netloc=link.netloc.rpartition("@")[2]))
