"""The requests of :mod:`trainer.runtime.tracking`: MLflow's "Log Batch"; and how a job asks Azure ML anything.

A module of its own because only a job that reports in this way is to import TLS and HTTP, which take a tenth of what
a small job takes to start.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any

from trainer.runtime.layout import AZURE_RUN_ID_VARIABLE

_URI, _TOKEN = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"
# The scheme that azureml-mlflow registers, and the version of the interface that it turns it into.
_SCHEME = "azureml://"
_LATEST = ("/mlflow/v1.0/", "/mlflow/v2.0/")
_REQUEST_SECONDS = 20.0
PASSING = {408, 429, 500, 502, 503, 504}
"""Statuses of answers after which the same request may work a little later."""


def send(batch: list[dict[str, Any]]) -> bool:
    """Send some values; tell whether they are done with.

    Args:
        batch: The protocol's metrics: key, value, timestamp in milliseconds, step.
    """
    body = {"run_id": os.environ[AZURE_RUN_ID_VARIABLE], "metrics": batch, "params": [], "tags": []}
    headers = {**authorization(), "Content-Type": "application/json"}
    try:
        url = f"{address()}/api/2.0/mlflow/runs/log-batch"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310  # https
        with opener().open(request, timeout=_REQUEST_SECONDS) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            if error.code in PASSING:
                return False
            sys.stderr.write(f"warning: Azure ML does not take metrics through MLflow: {error.code}\n")
    except (OSError, ValueError):
        return False
    return True


def address() -> str:
    """Return where Azure ML has MLflow's interface for the workspace: ``https://HOST/mlflow/v2.0/subscriptions/...``.

    Raises:
        ValueError: What it has set is no https address.
    """
    base = os.environ[_URI].partition("?")[0].rstrip("/")
    if base.startswith(_SCHEME):
        base = "https://" + base.removeprefix(_SCHEME).replace(*_LATEST, 1)
    if not base.startswith("https://"):
        raise ValueError(f"{_URI} is no https address")
    return base


def authorization() -> dict[str, str]:
    """Return the header of the job's own token."""
    return {"Authorization": f"Bearer {os.environ[_TOKEN]}"}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: the token is for who is asked."""


def opener() -> urllib.request.OpenerDirector:
    """Return what sends requests to Azure ML, and trusts whom the job's environment says."""
    context = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE") or None)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects())
