"""A score script by the contract of Azure ML's inference server.

``init()`` runs once per worker, ``run(data)`` per request with the body as text, and with ``request_headers`` if it
has such a parameter. What a script sees (variables, folders, path), what it may return and how its failures are
answered follow azureml-inference-server-http 1.5; ``tests/contract/test_score_scripts.py`` runs the same scripts under
both. What is not taken over is refused before anything is served: ``@rawhttp``, which hands out a Flask request.

The layout that a script sees, as in Azure's container::

    AML_APP_ROOT/                                    the working directory, on the path
    AML_APP_ROOT/<folder>/                           the script's folder, on the path too
    AML_APP_ROOT/azureml-models/<name>/<version>/    the model's file: AZUREML_MODEL_DIR
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any
from urllib.parse import parse_qs

from trainer.errors import ConfigError, UsageError
from trainer.serving.inputs import InputError
from trainer.serving.scoring import Answer, ModelFiles, Request

TIMEOUT_VARIABLE = "SCORING_TIMEOUT_MS"
_TIMEOUT_MS = 3_600_000  # Azure's
_SCHEMA_MODULE = "inference_schema.schema_util"
_TREE_LINES = 200
_FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."
_INTERNAL = "An unexpected internal error occurred. Check the logs for more info."


class ScriptScorer:
    """Runs a score script. Everything happens in the main thread.

    Args:
        files: The model.
        script: The score script.
        app: The folder that becomes ``AML_APP_ROOT``; the model lies in it, and the script may.
        service: What ``SERVICE_NAME`` says.

    Raises:
        UsageError: A setting of the contract is unusable.
    """

    in_main_thread = True

    def __init__(self, files: ModelFiles, script: Path, app: Path, service: str) -> None:
        self._files = files
        self._app = app.resolve()
        resolved = script.resolve()
        self._source: Path | None = None
        if resolved.is_relative_to(self._app):
            # The layout is there already, with a folder of sources or without.
            self._entry = resolved.relative_to(self._app).as_posix()
            self._folder = os.environ.get("AZUREML_SOURCE_DIRECTORY", "")
        else:
            self._source = resolved.parent
            self._folder = self._source.name or "source"
            self._entry = f"{self._folder}/{script.name}"
        self._service = service
        self._timeout_ms = _milliseconds(os.environ.get(TIMEOUT_VARIABLE, ""))
        self._run: Callable[..., Any] = lambda: None
        self._parameters: Sequence[inspect.Parameter] = ()
        self._wants_headers = False
        self._by_schema = False
        self.about = f"score script {script}"
        self.schema: dict[str, Any] = {
            "input": {"type": "object", "example": {}},
            "output": {"type": "object", "example": {}},
            "bodies": [],
            "numbers": 0,
        }

    def load(self) -> None:
        """Import the script and call its ``init()``.

        Raises:
            ConfigError: It can't be imported, its ``init()`` fails, or it has no usable ``run()``.
        """
        self._arrange()
        module = self._import()
        for name in ("init", "run"):
            if not callable(getattr(module, name, None)):
                raise ConfigError(
                    f"{self.about} has no {name}().", "Azure's contract: init() once, run(data) per request."
                )
        self._analyse(module.run)
        with self._explained("init()"):
            module.init()

    def score(self, request: Request) -> Answer:
        """Call ``run()``. A failure of the script's is an answer with status 500, as Azure's server gives it.

        Raises:
            InputError: The body can't be handed to the script.
        """
        arguments = self._arguments(request)
        if self._wants_headers:
            arguments["request_headers"] = _wsgi_headers(request.headers)
        begun = time.perf_counter()
        try:
            with _alarm(self._timeout_ms):
                found = self._run(**arguments)
        except TimeoutError:
            traceback.print_exc()
            return _failure(f"Scoring timeout after {self._timeout_ms} ms")
        except InputError:  # by trainer.serving.own_score
            raise
        except BaseException:  # SystemExit too: the script must not end the server
            traceback.print_exc()
            return _failure(_FAILED)
        milliseconds = (time.perf_counter() - begun) * 1000
        try:
            body = json.dumps({} if found is None else found).encode()
        except (TypeError, ValueError, RecursionError):
            traceback.print_exc()
            sys.stderr.write("run() must return what JSON can hold: of an array its tolist()\n")
            return Answer(_message(_INTERNAL), 500)
        return Answer(body, milliseconds=milliseconds)

    def _arrange(self) -> None:
        """Make the layout, the variables and the path that a script finds in Azure's container."""
        folder = self._app / self._folder
        if self._source is not None and not folder.is_symlink():
            folder.symlink_to(self._source, target_is_directory=True)
        os.environ.update(
            AML_APP_ROOT=str(self._app),
            AZUREML_ENTRY_SCRIPT=self._entry,
            AZUREML_SOURCE_DIRECTORY=self._folder,
            AZUREML_MODEL_DIR=str(self._files.model_dir),
            SERVICE_NAME=self._service,
        )
        os.environ.setdefault("WORKSPACE_NAME", "local")
        os.chdir(self._app)
        sys.path += [str(self._app), *([str(folder)] if self._folder else [])]
        # A script may have Chainer inside.
        from trainer.runtime import compat

        compat.apply()
        compat.apply_to_children()

    def _import(self) -> ModuleType:
        location = self._app / self._entry
        spec = importlib.util.spec_from_file_location("entry_module", location)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{self.about} can't be imported.", "Is it a Python file?")
        module = importlib.util.module_from_spec(spec)
        with self._explained("import"):
            spec.loader.exec_module(module)
        driver: object = getattr(module, "driver_module", None)
        # Azure's generated driver scripts hand on to the real one, whose run() is the one to be called.
        return _Driven(module, driver) if isinstance(driver, ModuleType) and hasattr(driver, "run") else module

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # SystemExit too
            traceback.print_exc()
            sys.stderr.write(f"AZUREML_MODEL_DIR is {self._files.model_dir} and holds:\n")
            sys.stderr.writelines(f"{line}\n" for line in _tree(self._files.model_dir))
            raise ConfigError(
                f"The {what} of {self.about} failed: {type(error).__name__}: {error}.", "The traceback is above."
            ) from error

    def _analyse(self, run: Callable[..., Any]) -> None:
        """Find out how ``run()`` wants its input, as Azure's server does."""
        aml_request = sys.modules.get("azureml_inference_server_http.api.aml_request")
        if getattr(aml_request, "_rawHttpRequested", False):
            raise ConfigError(
                f"{self.about} uses @rawhttp, which trainer serve does not offer.",
                "Take the body as text: def run(data), or run the script with azmlinfsrv.",
            )
        parameters = list(inspect.signature(run).parameters.values())
        if any(each.kind not in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters):
            raise ConfigError(f"run() in {self.about} has *args, **kwargs or positional-only arguments.", "Name them.")
        self._wants_headers = any(each.name == "request_headers" for each in parameters)
        self._parameters = [each for each in parameters if each.name != "request_headers"]
        if not self._parameters:
            raise ConfigError(f"run() in {self.about} takes no input.", "Write: def run(data)")
        self._run = run
        schemas = sys.modules.get(_SCHEMA_MODULE)
        if schemas is not None and schemas.is_schema_decorated(run):
            self._by_schema = True
            self.schema = self.schema | {
                "input": schemas.get_input_schema(run),
                "output": schemas.get_output_schema(run),
            }

    def _arguments(self, request: Request) -> dict[str, Any]:
        if self._by_schema:
            return self._by_name(request)
        name = self._parameters[0].name
        if request.method == "GET":
            return {name: json.dumps(_query(request.query))}
        try:
            return {name: request.body.decode("utf-8")}
        except UnicodeDecodeError as error:
            raise InputError(400, f"Input cannot be decoded as UTF-8: {error}") from None

    def _by_name(self, request: Request) -> dict[str, Any]:
        """The arguments of a run() that is decorated with @input_schema."""
        if request.method == "GET":
            body = _query(request.query)
        elif request.content_type != "application/json":
            raise InputError(415, "Expects Content-Type to be application/json")
        else:
            try:
                body = json.loads(request.body)
            except (ValueError, RecursionError) as error:
                if not request.body:
                    raise InputError(400, "POST body is empty. Expecting a JSON dictionary.") from None
                raise InputError(400, f"POST body could not be decoded as JSON: {error}") from None
            if not isinstance(body, dict):
                raise InputError(400, "POST body should be a JSON dictionary.")
        found = {}
        for parameter in self._parameters:
            value = body.get(parameter.name, parameter.default)
            if value is inspect.Parameter.empty:
                raise InputError(400, f"A value is not provided for the {parameter.name!r} parameter.")
            found[parameter.name] = value
        return found


class _Driven(ModuleType):
    """The ``init`` of a driver script and the ``run`` of the script that it drives."""

    def __init__(self, driver: ModuleType, script: ModuleType) -> None:
        super().__init__(driver.__name__)
        self.init = driver.init
        self.run = script.run


@contextmanager
def _alarm(milliseconds: int) -> Iterator[None]:
    """Raise a TimeoutError in this, the main thread when the time is over."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _milliseconds(text: str) -> int:
    if not text:
        return _TIMEOUT_MS
    if not text.isdigit() or not 0 < int(text) <= 10**9:
        raise UsageError(
            f"{TIMEOUT_VARIABLE} must be a number of milliseconds, not {text[:20]!r}.", "For example: 60000"
        )
    return int(text)


def _failure(message: str) -> Answer:
    return Answer(_message(message), 500, failed=True)


def _message(text: str) -> bytes:
    return json.dumps({"message": text}).encode()


def _query(text: str) -> dict[str, Any]:
    """Arguments of a GET: JSON where they are, text where not, a list where a name comes twice."""
    found: dict[str, Any] = {}
    for name, values in parse_qs(text, keep_blank_values=True).items():
        parsed = [_maybe_json(value) for value in values]
        found[name] = parsed[0] if len(parsed) == 1 else parsed
    return found


def _maybe_json(text: str) -> Any:  # noqa: ANN401  # whatever JSON holds
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _wsgi_headers(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as a WSGI server names them: ``Content-Type``; those that come twice joined by a comma."""
    found: dict[str, str] = {}
    for name, value in headers:
        title = "-".join(part.capitalize() for part in name.decode("latin-1").split("-"))
        text = value.decode("latin-1")
        found[title] = f"{found[title]},{text}" if title in found else text
    return found


def _tree(folder: Path) -> list[str]:
    lines = []
    for path in sorted(folder.rglob("*")):
        depth = len(path.relative_to(folder).parts)
        lines.append(f"{'    ' * depth}{path.name}{'/' if path.is_dir() else ''}")
        if len(lines) == _TREE_LINES:
            return [*lines, f"(the first {_TREE_LINES} lines)"]
    return lines
