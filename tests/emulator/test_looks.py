"""What the emulator's drivers make of jobs and services that change while they are being looked at."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from pathlib import Path
from typing import Any

import pytest

from azureml_emulator.app import FaultsAndLog
from azureml_emulator.faults import FaultSwitchboard
from azureml_emulator.jobs import scheduler as scheduling
from azureml_emulator.jobs.new_run import JOB, add_run
from azureml_emulator.jobs.process import Attempt
from azureml_emulator.jobs.scheduler import Scheduler
from azureml_emulator.service import Service
from azureml_emulator.settings import Settings
from azureml_emulator.state import StateDir
from azureml_emulator.store.compute import AmlComputeSpec, Cluster, NodeStateCounts
from azureml_emulator.store.jobs import Job, JobState
from azureml_emulator.store.runs import RunStatus
from azureml_emulator.store.webservices import Deployment, ServiceState, Webservice
from azureml_emulator.webservices.driver import WebserviceDriver
from azureml_emulator.webservices.process import Start, start_of


@pytest.fixture
def service(tmp_path: Path) -> Service:
    state = StateDir.at(tmp_path / "state")
    state.create()
    made = Service(state, Settings(phase_duration=0.0), "https://127.0.0.1:1", tmp_path / "ca", FaultSwitchboard(None))
    cluster = Cluster(name="cpu", spec=AmlComputeSpec(vm_size="D1"), location="here", created=0, modified=0, ready_at=0)
    made.computes.save(cluster)
    return made


def test_a_job_that_ends_while_the_jobs_are_read_ends_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(_service: Service, _job: Job, attempt: Attempt) -> None:
        attempt.create()
        attempt.prepare([["true"]], {}, log=attempt.logs / "log.txt", deadline=None, grace=1.0)

    monkeypatch.setattr(scheduling, "prepare_job", prepare)
    definition = {"script": "x.py", "target": "cpu"}
    add_run(service, JOB, "run", "experiment", properties={}, tags={}, definition=definition, target="cpu")
    service.jobs.add(Job(run_id="run", snapshot_id="", compute="cpu", nodes=1))
    scheduler = Scheduler(service)
    read = service.jobs.active

    def read_and_wait() -> list[Job]:
        found = read()
        # Whatever a worker is at is done before the tick goes on with what it has read.
        concurrent.futures.wait(scheduler._pending.values())
        return found

    monkeypatch.setattr(service.jobs, "active", read_and_wait)
    while read():
        scheduler.tick()
        time.sleep(0.01)
    scheduler.tick()
    scheduler.stop()
    job = service.jobs.find("run")
    assert job is not None
    assert (job.state, service.runs.get("run").status) == (JobState.ENDED, RunStatus.COMPLETED)
    assert Attempt(service.state.jobs / "run" / "1").process() is None, "nothing of a run that has ended is left"
    assert scheduler.node_counts("cpu") == NodeStateCounts(idle_node_count=1)
    service.database.close()


def test_a_service_that_ends_while_it_is_looked_at_says_how(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment(number=1, image={}, launched=True, deadline=time.time() + 3600)
    record = Webservice(
        name="svc",
        compute_type="ACI",
        created="",
        updated="",
        document={"authEnabled": False},
        primary_key="",
        secondary_key="",
        coming=deployment.model_copy(update={"operation": service.webservices.start_operation().id}),
    )
    start = start_of(service, "svc", deployment)
    start.create()
    start.work.mkdir()
    start.prepare(
        [["sleep", "0.5"], ["sh", "-c", "exit 3"]], {"PATH": "/usr/bin:/bin"}, log=start.log, deadline=None, grace=1.0
    )
    driver = WebserviceDriver(service)
    service.webservices.add(record)
    supervisor = start.start()
    while not start.is_claimed:
        time.sleep(0.01)

    def port_after_the_end(_start: Start) -> None:
        supervisor.wait(120)

    monkeypatch.setattr(Start, "port", port_after_the_end)
    driver.tick()
    driver.stop(kill=True)
    found = service.webservices.get("svc")
    assert found.state is ServiceState.FAILED
    assert "before it was healthy (exited)" in str(found.error)
    service.database.close()


def test_a_service_that_was_about_to_end_is_held(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    start = start_of(service, "svc", Deployment(number=1, image={}))
    start.create()
    # Its front has taken its status back, and sees then that somebody is about to ask.
    looks = iter((None, None, 5000))
    monkeypatch.setattr(Start, "port", lambda _: next(looks))
    monkeypatch.setattr(Start, "is_alive", True)
    assert start.hold()
    service.database.close()


def test_a_request_under_way_keeps_an_idle_emulator(service: Service) -> None:
    seen = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(service.requests.under_way)

    asyncio.run(FaultsAndLog(app, service)({"type": "http", "method": "GET", "path": "/"}, None, None))  # type: ignore[arg-type]
    assert (seen, service.requests.under_way) == ([1], 0)
    service.database.close()
