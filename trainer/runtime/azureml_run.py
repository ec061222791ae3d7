"""A run with the methods of ``azureml.core.Run`` that training scripts use, kept in the run's folder."""

# The signatures are the SDK's.
# ruff: noqa: ARG002, ARG003

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, ClassVar

from trainer.runtime.atomic import write_bytes
from trainer.runtime.layout import LABELS_FILE, OUTPUTS_DIR, RUN_DIR_VARIABLE
from trainer.runtime.sinks import Sink, clean_name, local_sink, mark_script_reports, number

make_sink: Callable[[], Sink] = local_sink
"""Makes where the run reports to."""


class Run:
    """This run. Signatures follow azureml-core 1.61; what needs Azure ML raises and says so.

    Rows and tables are recorded as one metric per column, ``name/column``, with the row's number as step;
    lists as one value per element.
    """

    _current: ClassVar[Run | None] = None

    def __init__(self, *arguments: object, **named: object) -> None:
        if arguments or named:
            raise RuntimeError("other runs than this one can only be reached on Azure ML; use Run.get_context()")
        self._sink: Sink = make_sink()
        self._steps: dict[str, int] = {}
        # For get_metrics(): every value of a metric, or of each column of one.
        self._values: dict[str, list[object] | dict[str, list[object]]] = {}
        self._tags: dict[str, str | None] = {}
        self._properties: dict[str, str] = {}

    @classmethod
    def get_context(cls, allow_offline: bool = True, **_: object) -> Run:
        """This run, always the same object."""
        if Run._current is None:
            Run._current = Run()
        return Run._current

    @classmethod
    def get_submitted_run(cls, **_: object) -> Run:
        """This run."""
        return Run.get_context()

    @property
    def id(self) -> str:
        """The run's id."""
        folder = os.environ.get(RUN_DIR_VARIABLE)
        return Path(folder).name if folder else "local"

    @property
    def name(self) -> str:
        """The run's id: it has no other name."""
        return self.id

    @property
    def status(self) -> str:
        """``Running``: a script sees its own run in no other."""
        return "Running"

    def get_status(self) -> str:
        """Return ``Running``."""
        return self.status

    parent = None
    input_datasets: ClassVar[Mapping[str, object]] = {}

    @property
    def tags(self) -> dict[str, str | None]:
        """The tags set so far."""
        return dict(self._tags)

    @property
    def properties(self) -> dict[str, str]:
        """The properties added so far."""
        return dict(self._properties)

    def get_tags(self) -> dict[str, str | None]:
        """Return the tags set so far."""
        return self.tags

    def get_properties(self) -> dict[str, str]:
        """Return the properties added so far."""
        return self.properties

    def tag(self, key: str, value: str | None = None) -> None:
        """Tag the run."""
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Tag the run."""
        self._tags.update({str(key): None if value is None else str(value) for key, value in tags.items()})
        self._write_labels()

    def add_properties(self, properties: Mapping[str, object]) -> None:
        """Add properties; as on Azure ML, one that is there stays as it is."""
        for key, value in properties.items():
            self._properties.setdefault(str(key), str(value))
        self._write_labels()

    def log(self, name: str, value: object, description: str = "", step: float | None = None) -> None:
        """Log a number or a string."""
        self._write(name, value, step)
        self._remember(name, number(value))

    def log_list(self, name: str, value: Sequence[object], description: str = "") -> None:
        """Log every element."""
        for element in value:
            self.log(name, element, step=self._next_step(name))

    def log_row(self, name: str, description: str | None = None, **columns: object) -> None:
        """Log one row of a table."""
        step = self._next_step(name)
        for column, value in columns.items():
            self._write(f"{name}/{column}", value, step)
            self._remember(name, number(value), column)

    def log_table(self, name: str, value: Mapping[str, object], description: str = "") -> None:
        """Log a table, given as a list or a single value for each column."""
        for column, values in value.items():
            listed = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
            for step, element in enumerate(listed):
                self._write(f"{name}/{column}", element, step)
                self._remember(name, number(element), str(column))

    def get_metrics(
        self, name: str | None = None, recursive: bool = False, run_type: object = None, populate: bool = False
    ) -> dict[str, Any]:
        """Return what this process has logged.

        Args:
            name: Only the metric of this name.
            recursive: Ignored: a run here has no children.
            run_type: Ignored likewise.
            populate: Ignored: every value is a number or a text already.

        Returns:
            Name to value; to a list where there are several; and for rows and tables, to a mapping of columns to the
            same.
        """
        return {
            metric: {column: _plain(cells) for column, cells in logged.items()}
            if isinstance(logged, dict)
            else _plain(logged)
            for metric, logged in self._values.items()
            if name in (None, metric)
        }

    def log_image(self, name: str, path: str | None = None, plot: Any = None, description: str = "") -> None:  # noqa: ANN401
        """Keep an image file, or a matplotlib plot as a PNG, among the outputs."""
        if (path is None) == (plot is None):
            raise ValueError("log_image takes either a path or a plot")
        if path is not None:
            self.upload_file(name if PurePosixPath(name).suffix else name + Path(path).suffix, path)
        else:
            target = _target(name if name.endswith(".png") else f"{name}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            plot.savefig(target, format="png")

    def log_confusion_matrix(self, name: str, value: object, description: str | None = None) -> None:
        """Keep a JSON document among the outputs."""
        self._document(name, value)

    def log_accuracy_table(self, name: str, value: object, description: str | None = None) -> None:
        """Keep a JSON document among the outputs."""
        self._document(name, value)

    def log_predictions(self, name: str, value: object, description: str | None = None) -> None:
        """Keep a JSON document among the outputs."""
        self._document(name, value)

    def log_residuals(self, name: str, value: object, description: str | None = None) -> None:
        """Keep a JSON document among the outputs."""
        self._document(name, value)

    def upload_file(
        self, name: str, path_or_stream: str | os.PathLike[str] | IO[bytes], datastore_name: object = None
    ) -> None:
        """Copy a file or a stream into ``./outputs``, which is what is kept of a run."""
        target = _target(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(path_or_stream, (str, os.PathLike)):
            with contextlib.suppress(shutil.SameFileError):
                shutil.copyfile(path_or_stream, target)
            return
        data = path_or_stream.read()
        target.write_bytes(data if isinstance(data, bytes) else str(data).encode())

    def upload_files(
        self,
        names: Sequence[str],
        paths: Sequence[str],
        return_artifacts: bool = False,
        timeout_seconds: int | None = None,
        datastore_name: object = None,
    ) -> None:
        """Copy files into ``./outputs``."""
        for name, path in zip(names, paths, strict=True):
            self.upload_file(name, path)

    def upload_folder(self, name: str, path: str, datastore_name: object = None) -> None:
        """Copy a folder's files into ``./outputs``."""
        for file in sorted(Path(path).rglob("*")):
            if file.is_file():
                self.upload_file(f"{name}/{file.relative_to(path).as_posix()}", file)

    def child_run(self, name: str | None = None, run_id: object = None, outputs: object = None) -> Run:
        """This run itself: a run here has no children."""
        return self

    def flush(self, timeout_seconds: float = 300) -> None:
        """Do nothing: nothing is held back."""

    def complete(self) -> None:
        """Do nothing: the run ends with its process."""

    def fail(self, error_details: object = None, error_code: object = None) -> None:
        """End the script as failed.

        Raises:
            SystemExit: Always.
        """
        raise SystemExit(f"run.fail: {error_details or error_code or 'no details'}")

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __repr__(self) -> str:
        return f"Run(Id: {self.id}, Status: Running)"

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"Run.{name} needs Azure ML, and this run is on this machine")

    def _write(self, name: str, value: object, step: float | None) -> None:
        mark_script_reports()
        self._sink.log(clean_name(name), number(value), step)

    def _remember(self, name: str, value: object, column: str | None = None) -> None:
        known = self._values.get(name)
        if column is None:
            if not isinstance(known, list):
                known = self._values[name] = []
            known.append(value)
        else:
            if not isinstance(known, dict):
                known = self._values[name] = {}
            known.setdefault(column, []).append(value)

    def _next_step(self, name: str) -> int:
        self._steps[name] = self._steps.get(name, -1) + 1
        return self._steps[name]

    def _document(self, name: str, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        self.upload_file(name if name.endswith(".json") else f"{name}.json", io.BytesIO(text.encode()))

    def _write_labels(self) -> None:
        folder = os.environ.get(RUN_DIR_VARIABLE)
        if folder:
            labels = {"tags": self._tags, "properties": self._properties}
            text = json.dumps(labels, indent=2) + "\n"
            write_bytes(Path(folder) / LABELS_FILE, text.encode(), durable=False)


def _plain(values: list[object]) -> object:
    return values[0] if len(values) == 1 else list(values)


def _target(name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name!r} is no name for a file of a run: give a relative path without '..'")
    # Azure ML has no ./outputs/outputs either: artifacts of that prefix are what the folder holds.
    return Path(OUTPUTS_DIR, *(parts[1:] if parts[0] == OUTPUTS_DIR else parts))
