"""Driving services: starting them, seeing how they fare, ending what is not wanted any more."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from azureml_emulator.errors import ServiceError
from azureml_emulator.service import Service
from azureml_emulator.store.webservices import Deployment, OperationState, ServiceState, Webservice
from azureml_emulator.times import utc_now
from azureml_emulator.webservices import names
from azureml_emulator.webservices.control import failure, restart
from azureml_emulator.webservices.process import (
    Start,
    contents,
    kill_all,
    prepare,
    retire,
    retired_for,
    start_of,
    starts,
    write_auth,
)

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the processes of healthy services are there."""
CLAIM_TIMEOUT = 60.0
"""Seconds after which a supervisor that has not shown up is taken for lost."""
RETIRE_SECONDS = 45.0
"""Seconds that a start has to finish what it was doing."""
LEAVE_SECONDS = 10.0
"""Seconds in which one should have stopped listening."""
RESTARTS = 3
"""How often a service that dies is started again before it is given up."""
HEALTHY_FOR_GOOD = 60.0
"""Seconds after which a service's earlier deaths are forgotten."""

log = logging.getLogger(__name__)


class WebserviceDriver:
    """Drives every service. All it knows is in the database and in the services' directories.

    A deployment is recorded before anything of it exists, and marked as launched before its first process does. What a
    killed emulator was starting is therefore either found running, or kept from ever running and started anew.

    Args:
        service: The emulator's state.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = service.webservices
        self._workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="service")
        self._pending: dict[str, Future[None]] = {}
        self._supervisors: list[subprocess.Popen[bytes]] = []
        self._next_look = 0.0
        self._lock = threading.Lock()
        for record in self._store.all():
            self._pick_up(record)

    def _pick_up(self, record: Webservice) -> None:
        """Find out what has become of a service while there was no emulator."""
        with contextlib.suppress(OSError):
            write_auth(self._service, record)
        if record.serving is not None and not self._start(record, record.serving).is_alive:
            # Nobody's fault: a machine that was restarted, an emulator that was stopped, hours without a request.
            self._store.update(record.name, _fall_asleep)
        coming = record.coming
        if coming is not None and coming.launched and self._start(record, coming).void():
            # Its supervisor had not begun, and never will.
            self._store.update(record.name, lambda found: _once_more(found, coming))

    def stop(self, *, kill: bool) -> None:
        """Stop starting things. Services go on, unless they are to be killed."""
        self._workers.shutdown(wait=True)
        if kill:
            for directory in _directories(self._service.state.webservices):
                kill_all(directory)

    def tick(self) -> None:
        """Look at every service once."""
        now = time.time()
        look = time.monotonic() >= self._next_look
        if look:
            self._next_look = time.monotonic() + LOOK_INTERVAL
        # Before the services are read: what a worker has done with one by now is in the database.
        busy = {name for name in list(self._pending) if self._is_busy(name)}
        records = self._store.all()
        for record in records:
            if record.name in busy:
                continue
            try:
                if record.coming is not None:
                    self._drive(record, record.coming, now)
                elif look and record.serving is not None and not record.asleep:
                    self._watch(record, record.serving, now)
            except ServiceError:
                # Deleted meanwhile.
                continue
        if look:
            self._clear_up({record.name: record for record in records})

    def _is_busy(self, name: str) -> bool:
        future = self._pending.get(name)
        if future is None:
            return False
        if not future.done():
            return True
        del self._pending[name]
        return False

    # What is coming

    def _drive(self, record: Webservice, coming: Deployment, now: float) -> None:
        start = self._start(record, coming)
        if not coming.launched:
            if now >= coming.not_before:
                self._pending[record.name] = self._workers.submit(self._launch, record.name, coming)
            return
        port = start.port()
        sight = start.look()
        outcome = sight.outcome
        if outcome is not None or (sight.claimed and not sight.alive):
            reason = "the process has gone" if outcome is None else outcome.reason
            self._give_up(record.name, coming, OperationState.FAILED, _crashed(record.compute_type, start, reason))
        elif port is not None:
            if self._has_left(record):
                self._promote(record.name, coming, port)
        elif now > coming.deadline or (not sight.claimed and self._age(start) > CLAIM_TIMEOUT):
            start.void()
            start.kill()
            message = "The service was not healthy in time. Its log says more: get_logs()."
            error = failure("DeploymentTimedOut", 504, message)
            self._give_up(record.name, coming, OperationState.TIMED_OUT, error)

    def _has_left(self, record: Webservice) -> bool:
        """Have what was serving accept no more, now that there is a successor; tell whether it doesn't any more."""
        if record.serving is None:
            return True
        before = self._start(record, record.serving)
        if before.port() is None or not before.is_alive:
            return True
        if not before.retired.exists():
            retire(before)
        return retired_for(before) > LEAVE_SECONDS

    @staticmethod
    def _age(start: Start) -> float:
        try:
            return time.time() - start.spec.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _launch(self, name: str, coming: Deployment) -> None:
        try:
            self._store.log(coming.operation, "Preparing the container.")
            record = self._store.get(name)
            start = prepare(self._service, record, coming, self._service.faults.current)
            # Recorded before the process exists, so that the next emulator knows what to look for.
            if not self._mark_launched(name, coming):
                return
            supervisor = start.start()
            with self._lock:
                self._supervisors.append(supervisor)
            self._store.log(coming.operation, "Waiting for the container to become healthy.")
        except ServiceError as error:
            if error.status == 404 and self._store.find(name) is None:
                return
            found = failure(error.code, error.status, error.message)
            self._give_up(name, coming, OperationState.FAILED, found)
        except Exception as error:
            log.exception("starting service %s failed", name)
            found = failure("ServiceNotStarted", 500, f"The service could not be started: {error}")
            self._give_up(name, coming, OperationState.FAILED, found)

    def _mark_launched(self, name: str, coming: Deployment) -> bool:
        marked = False

        def change(record: Webservice) -> None:
            nonlocal marked
            if record.coming is not None and record.coming.start == coming.start:
                record.coming.launched = marked = True

        with contextlib.suppress(ServiceError):
            self._store.update(name, change)
        return marked

    def _promote(self, name: str, coming: Deployment, port: int) -> None:
        def change(record: Webservice) -> None:
            if record.coming is None or record.coming.start != coming.start:
                return
            record.serving, record.coming, record.failed = record.coming, None, None
            record.port, record.state, record.error, record.asleep = port, ServiceState.HEALTHY, None, False
            record.updated, record.healthy_since = utc_now(), time.time()
            self._store.log(coming.operation, "The container is healthy.")
            self._store.end_operation(coming.operation, OperationState.SUCCEEDED)

        self._store.update(name, change)
        self._next_look = 0.0

    def _give_up(self, name: str, coming: Deployment, state: OperationState, error: dict[str, object]) -> None:
        """End a deployment that has failed; what was serving goes on."""

        def change(record: Webservice) -> None:
            if record.coming is None or record.coming.start != coming.start:
                return
            self._store.end_operation(coming.operation, state, error)
            if coming.operation:
                record.failed, record.coming, record.error = record.coming, None, error
                if record.serving is None:
                    timed_out = state is OperationState.TIMED_OUT
                    record.state = ServiceState.UNHEALTHY if timed_out else ServiceState.FAILED
                return
            self._died(record, record.coming, error)

        with contextlib.suppress(ServiceError):
            self._store.update(name, change)
        self._next_look = 0.0

    # What is serving

    def _watch(self, record: Webservice, serving: Deployment, now: float) -> None:
        start = self._start(record, serving)
        sight = start.look()
        if sight.alive:
            if record.restarts and now - record.healthy_since > HEALTHY_FOR_GOOD:
                self._store.update(record.name, lambda found: setattr(found, "restarts", 0))
            return
        outcome = sight.outcome

        def change(found: Webservice) -> None:
            if found.coming is not None or found.serving is None or found.serving.start != serving.start:
                return
            if outcome is not None and outcome.reason == "exited" and outcome.code == 0:
                _fall_asleep(found)
                return
            reason = "the process has gone" if outcome is None else outcome.reason
            self._died(found, serving, _crashed(record.compute_type, start, reason))

        self._store.update(record.name, change)

    def _died(self, record: Webservice, last: Deployment, error: dict[str, object]) -> None:
        """Have a service started again that has died, unless it has died too often."""
        record.serving = last
        record.coming = None
        record.restarts += 1
        record.state, record.error = ServiceState.UNHEALTHY, error
        if record.restarts <= RESTARTS:
            restart(self._service, record, delay=float(record.restarts - 1))
        else:
            record.asleep, record.restarts = True, 0

    # What is not wanted any more

    def _clear_up(self, records: dict[str, Webservice]) -> None:
        with self._lock:
            self._supervisors = [one for one in self._supervisors if one.poll() is None]
        for directory in _directories(self._service.state.webservices):
            if directory.name in self._pending:
                continue
            record = records.get(directory.name)
            if record is None:
                if self._store.find(directory.name) is None:
                    kill_all(directory)
                    shutil.rmtree(directory, ignore_errors=True)
                continue
            self._clear_up_after(directory, record)

    def _clear_up_after(self, directory: Path, record: Webservice) -> None:
        wanted = {one.start for one in record.deployments}
        numbers = {one.number for one in record.deployments}
        running = set()
        for start in starts(directory):
            number = int(start.content.name)
            failed = record.failed is not None and record.failed.start == (number, int(start.directory.name))
            if (number, int(start.directory.name)) in wanted and not failed:
                continue
            if not start.is_alive:
                if not failed:
                    shutil.rmtree(start.directory, ignore_errors=True)
                continue
            if failed or retired_for(start) > RETIRE_SECONDS:
                start.kill()
                continue
            running.add(number)
            if not start.retired.exists():
                retire(start)
        for content in contents(directory):
            if int(content.name) not in numbers | running:
                shutil.rmtree(content, ignore_errors=True)

    def _start(self, record: Webservice, deployment: Deployment) -> Start:
        return start_of(self._service, record.name, deployment)


def _directories(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def _fall_asleep(record: Webservice) -> None:
    record.asleep = True


def _once_more(record: Webservice, coming: Deployment) -> None:
    if record.coming is not None and record.coming.start == coming.start:
        record.coming.attempt += 1
        record.coming.launched = False


def _crashed(compute_type: str, start: Start, reason: str) -> dict[str, object]:
    log.info("service start %s: %s", start.directory, reason)
    if compute_type in (names.ENDPOINT, names.MANAGED):
        message = "User container has crashed or terminated: its log says more, online_deployments.get_logs()."
        return failure("ResourceNotReady", 400, f"{message} The container ended before it was ready ({reason}).")
    kind = compute_type.capitalize()
    return failure(
        f"{kind}DeploymentFailed",
        400,
        f"{kind} Deployment failed with exception: Your container application crashed. This may be caused by errors in "
        "your scoring file's init() function. Its log says more: get_logs().",
        ("CrashLoopBackOff", f"The container ended before it was healthy ({reason})."),
    )
