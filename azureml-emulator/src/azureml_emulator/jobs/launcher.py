"""Starts a training script the way an AmlCompute node does: inside the SDK's own run-history context.

``python launcher.py run DIRECTORIES SCRIPT ARG...`` runs the script, and afterwards uploads ./outputs.
``python launcher.py rank LOG DIRECTORIES SCRIPT ARG...`` runs it as one rank of an MPI job; uploads nothing.
``python launcher.py release`` uploads ./outputs, once all ranks are done.

``azureml.history._tracking`` is the SDK's hook for the execution service. Without it a script loses the last second of
its metrics, because the SDK flushes them nowhere else. DIRECTORIES is a comma-separated list of folders whose files
are streamed to the run while the script is running.

While nothing listens where the service was, a job waits for it: an emulator may have been stopped or killed, and the
next one on its state takes the same port. Without that, the SDK gives up after a minute, and what the job had to say is
lost.

Imports nothing of the package: it is started by its path, by the job's interpreter.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

UPLOAD_GRACE = "AZUREML_EMULATOR_UPLOAD_GRACE"
"""Variable with the seconds that the SDK has after a script's end to upload what it wrote into watched folders."""
RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
SERVICE = "AZUREML_SERVICE_ENDPOINT"
LOOK_INTERVAL = 0.5
"""Seconds between two looks whether the service is back."""
_HERE = Path.cwd()


def wait_for_service() -> bool:
    """Wait until something listens where the service is; False if it can't come back, for its state is gone."""
    service = urlsplit(os.environ.get(SERVICE, ""))
    if not service.hostname or not service.port:
        return True
    while True:
        try:
            socket.create_connection((service.hostname, service.port), timeout=60).close()
        except ConnectionRefusedError:
            if not _HERE.exists():
                return False
            time.sleep(LOOK_INTERVAL)
        except OSError:
            return True  # whatever that is, the request itself will say so
        else:
            return True


def be_patient() -> None:
    """Make every request to the service that finds nobody listening wait and try again. Nothing had been sent yet."""
    from urllib.error import URLError
    from urllib.request import OpenerDirector, Request

    from requests import ConnectionError as RequestsConnectionError
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter
    from urllib3.exceptions import NewConnectionError

    service = urlsplit(os.environ.get(SERVICE, ""))
    send_at_once, open_at_once = HTTPAdapter.send, OpenerDirector.open

    def goes_to_service(text: str) -> bool:
        url = urlsplit(text)
        return (url.hostname, url.port) == (service.hostname, service.port)

    def open_(self: OpenerDirector, request: Request | str, *arguments: Any, **options: Any) -> object:
        """For what the SDK reads by urllib while it is being imported: the cloud's description."""
        is_ours = goes_to_service(request if isinstance(request, str) else request.full_url)
        while True:
            try:
                return open_at_once(self, request, *arguments, **options)
            except URLError as error:
                if not is_ours or not isinstance(error.reason, ConnectionRefusedError) or not wait_for_service():
                    raise

    def send(self: HTTPAdapter, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        is_ours = goes_to_service(request.url or "")
        while True:
            try:
                return send_at_once(self, request, *arguments, **options)
            except RequestsConnectionError as error:
                reason = getattr(error.args[0], "reason", None) if error.args else None
                if not is_ours or not isinstance(reason, NewConnectionError) or not wait_for_service():
                    raise

    HTTPAdapter.send = send  # type: ignore[method-assign]
    OpenerDirector.open = open_  # type: ignore[assignment,method-assign]


def run_script(directories: str, script: str, arguments: list[str]) -> None:
    """Run a script as ``__main__`` inside the run-history context."""
    be_patient()
    from azureml.history._tracking import get_history_context_manager

    # Folders to watch must exist, or the SDK's watcher complains once a second.
    watched = [name for name in directories.split(",") if name]
    for name in watched:
        Path(name).mkdir(parents=True, exist_ok=True)
    with mlflow_left_alone():
        context = get_history_context_manager(only_in_process_features=True, DirectoriesToWatch=watched)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    with context:
        try:
            runpy.run_path(script, run_name="__main__")
        finally:
            # The SDK's own limits on flushing count from here.
            wait_for_service()
            # An emulator that was started before an update of this file may not say it.
            limit_upload(float(os.environ.get(UPLOAD_GRACE, "30")))


@contextlib.contextmanager
def mlflow_left_alone() -> Iterator[None]:
    """Keep the SDK from importing MLflow, where it is installed, for a script that may not use it.

    That takes seconds. What the SDK would set up, the address and the names of the run, is in the environment already.
    """
    if "mlflow" in sys.modules:
        yield
        return
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["mlflow"]


def limit_upload(seconds: float) -> None:
    """Let the SDK's file watcher go on for so long, and no longer.

    The SDK waits at the end until everything is uploaded, and never again uploads a file whose upload and whose
    request for a new link have both failed: once the service has been away for a minute, a job would not end. What
    is not uploaded, the emulator picks up from the working directory.
    """
    from azureml._run_impl.file_watcher import FileWatcher

    def give_up(*_: object) -> None:
        sys.exit()  # ends the thread that calls it, and says nothing

    def stop() -> None:
        for thread in threading.enumerate():
            if isinstance(thread, FileWatcher):
                thread.walk_files = give_up

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()


def release() -> None:
    """Upload ./outputs with the SDK.

    A failed upload does not fail the run: the emulator picks up from the working directory what did not arrive.
    """
    be_patient()
    from azureml.exceptions import AzureMLException
    from azureml.history._tracking import execute_job_release

    wait_for_service()
    try:
        execute_job_release()
    except AzureMLException as error:
        # Such as a file that the script has uploaded itself, under the name that it has in ./outputs.
        sys.stderr.write(f"Uploading ./outputs: {error.message}\n")
    except Exception:
        traceback.print_exc()


def run_and_release(directories: str, script: str, arguments: list[str]) -> int:
    """Run the script in a child process, then upload ./outputs.

    The child is forked after the SDK has been imported, which takes seconds that two separate processes would spend
    twice.

    Returns:
        The script's exit code.
    """
    import azureml.core.run
    import azureml.history._tracking  # noqa: F401

    if threading.active_count() > 1:
        raise RuntimeError("importing the SDK has started a thread; it is not safe to fork")
    child = os.fork()
    if child == 0:
        run_script(directories, script, arguments)
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    release()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def redirect_rank_output(log_pattern: str) -> str:
    """Send this rank's output to a file of its own; ``{rank}`` in the pattern is its number, which is returned."""
    rank = next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "0")
    descriptor = os.open(log_pattern.format(rank=rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    return rank


def main(mode: str, *arguments: str) -> int:
    """Entry point; see the module's docstring."""
    Path("outputs").mkdir(exist_ok=True)
    if mode == "release":
        release()
        return 0
    if mode == "rank":
        # Rank 0 alone watches: all of this machine's ranks have one working directory.
        watched = arguments[1] if redirect_rank_output(arguments[0]) == "0" else ""
        run_script(watched, arguments[2], list(arguments[3:]))
        return 0
    return run_and_release(arguments[0], arguments[1], list(arguments[2:]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
