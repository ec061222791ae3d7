"""A run, by plain HTTPS: what it takes to follow it, without the SDK."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from backends.azure.v2.connection import JOBS_VERSION, AnswerError, segments
from trainer.records import Metric

if TYPE_CHECKING:
    from backends.azure.v2.connection import Connection

_HISTORY = "history/v1.0"
# MLflow's own REST interface: https://mlflow.org/docs/latest/rest-api.html
_MLFLOW = "mlflow/v2.0"
_MOST_PAGES = 1000


def find_run(connection: Connection, name: str) -> RestRun | None:
    """Look up the run with that id; None if the workspace has none."""
    try:
        found = connection.arm("GET", segments("jobs", name), version=JOBS_VERSION)
    except AnswerError as error:
        if error.status_code == 404:
            return None
        raise
    properties = found.get("properties")
    experiment = (properties if isinstance(properties, dict) else {}).get("experimentName")
    return RestRun(connection, name, str(experiment or "Default"))


class RestRun:
    """See :class:`backends.azure.sdk.FollowedRun`.

    Args:
        connection: The workspace.
        name: The run's id.
        experiment: Its experiment's name.
    """

    def __init__(self, connection: Connection, name: str, experiment: str) -> None:
        self._connection, self._name = connection, name
        self._files = segments("experiments", experiment, "runs", name, "artifacts")

    def get_details(self) -> dict[str, Any]:
        """Return the run's status, times, error and links to its logs."""
        return self._connection.ask("GET", _HISTORY, f"{segments('runs', self._name)}/details")

    def get_status(self) -> str:
        """Return its status."""
        return str(self.get_details().get("status"))

    def get_metrics(self) -> dict[str, list[Metric]]:
        """Return every value that MLflow has, by name and in the order of logging."""
        run = self._mlflow("runs/get", run_id=self._name).get("run", {})
        latest = run.get("data", {}).get("metrics", [])
        return {str(one["key"]): list(self._history(str(one["key"]))) for one in latest}

    def get_file_names(self) -> list[str]:
        """Return the paths of its files."""
        names: list[str] = []
        query: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            page = self._connection.ask("GET", _HISTORY, self._files, params=query)
            names += [str(item["path"]) for item in page.get("value") or ()]
            token = page.get("continuationToken")
            if not token:
                break
            query = {"continuationToken": str(token)}
        return names

    def download_file(self, name: str, output_file_path: str) -> None:
        """Download one of its files.

        Args:
            name: Its path, percent-encoded, as SDK v1 wants it.
            output_file_path: Where to.
        """
        info = self._connection.ask("GET", _HISTORY, f"{self._files}/contentinfo", params={"path": unquote(name)})
        answer = self._connection.get(str(info.get("contentUri", "")))
        with answer, Path(output_file_path).open("wb") as stream:
            answer.raw.decode_content = True
            shutil.copyfileobj(answer.raw, stream)

    def cancel(self) -> None:
        """Ask for its end."""
        self._connection.arm("POST", f"{segments('jobs', self._name)}/cancel", version=JOBS_VERSION)

    def children(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Return the runs that belong to it, each with its tags."""
        query: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            page = self._connection.ask("GET", _HISTORY, f"{segments('runs', self._name)}/children", params=query)
            for item in page.get("value") or ():
                yield str(item["runId"]), item.get("tags") or {}
            token = page.get("continuationToken")
            if not token:
                return
            query = {"$continuationToken": str(token)}

    def _history(self, key: str) -> Iterator[Metric]:
        query = {"run_id": self._name, "metric_key": key}
        for _ in range(_MOST_PAGES):
            page = self._mlflow("metrics/get-history", **query)
            for one in page.get("metrics") or ():
                value = float(one["value"])
                finite = value == value and abs(value) != float("inf")
                yield Metric(
                    name=key,
                    value=value if finite else None,
                    step=float(one.get("step") or 0),
                    time=float(one.get("timestamp") or 0) / 1000,
                )
            token = page.get("next_page_token")
            if not token:
                return
            query["page_token"] = str(token)

    def _mlflow(self, what: str, **query: str) -> dict[str, Any]:
        return self._connection.ask("GET", _MLFLOW, f"/api/2.0/mlflow/{what}", params=query)
