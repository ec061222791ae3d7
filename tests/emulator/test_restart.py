"""What survives the end of an emulator, of a job, of a node."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from azureml_emulator import Endpoint, Settings, find, start_in_background
from azureml_emulator.endpoint import process_is_alive
from azureml_emulator.tokens import Scope
from tests.emulator.clients import PROGRAMS, Http, Sdk, processes_of

SETTINGS = Settings(phase_duration=0.0, cancel_grace=2.0, upload_grace=5.0)
WAITING = """\
import pathlib, sys, time
from azureml.core import Run

run = Run.get_context(allow_offline=False)
attempts = pathlib.Path(sys.argv[1])
with attempts.open("a") as stream:
    stream.write("attempt\\n")
run.log("Ready", 1)
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.1)
run.log("Done", 1)
pathlib.Path("outputs/result.txt").write_text("result")
"""

EVICTED = """\
import pathlib, signal, sys, time
from azureml.core import Run

run = Run.get_context(allow_offline=False)

def leave(*_):
    pathlib.Path("last.txt").write_text("from attempt 1")
    run.upload_file("checkpoints/last.txt", "last.txt")
    sys.exit("the node goes away")

found = [name for name in run.get_file_names() if name.startswith("checkpoints/")]
if not found:
    signal.signal(signal.SIGTERM, leave)
with pathlib.Path(sys.argv[1]).open("a") as stream:
    stream.write("attempt\\n")
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.1)
pathlib.Path("outputs/result.txt").write_text("result")
print("found", found)
pathlib.Path("last.txt").write_text("from attempt 2")
try:
    run.upload_file("checkpoints/last.txt", "last.txt")
except Exception as error:
    print("refused", error)
"""

AWAY = 90.0
COUNTING = """\
import os, pathlib, sys, time
from urllib.request import urlopen
from azureml.core import Run

run = Run.get_context(allow_offline=False)
pathlib.Path(sys.argv[1]).write_text("attempt\\n")
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.1)
for count in range(5):
    run.log("Count", count)
    time.sleep(0.3)
run.log("Again", 1)
pathlib.Path("outputs/result.txt").write_text("result")
pathlib.Path("script_has_ended").touch()
# As the SDK does while it is being imported.
urlopen(os.environ["ARM_CLOUD_METADATA_URL"]).read()
"""

STREAMING = """\
import pathlib, sys, time

log = pathlib.Path("logs/a.txt")
log.write_text("first")
pathlib.Path(sys.argv[1]).write_text("attempt\\n")
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.1)
    with log.open("a") as stream:
        stream.write(".")
with log.open("a") as stream:
    stream.write("last")
"""


class Lab:
    """An emulator that can be killed and started again, a client, and a job that waits to be let go."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.attempts = directory / "attempts"
        self.go = directory / "go"
        self.source = directory / "source"
        self.source.mkdir()
        (self.source / "train.py").write_text(WAITING)
        (self.source / "stream.py").write_text(STREAMING)
        (self.source / "counting.py").write_text(COUNTING)
        (self.source / "evicted.py").write_text(EVICTED)
        client = directory / "client"
        client.mkdir()
        self.endpoint = self.start()
        self.sdk = Sdk(self.endpoint, client)

    def start(self) -> Endpoint:
        """Start an emulator on the state."""
        self.endpoint = start_in_background(self.state, settings=SETTINGS)
        return self.endpoint

    def kill(self) -> None:
        """Kill the emulator without a word."""
        pid, created = self.endpoint.pid, psutil.Process(self.endpoint.pid).create_time()
        os.kill(pid, signal.SIGKILL)
        while process_is_alive(pid, created):
            time.sleep(0.01)

    def submit(self, *, use_sdk: bool = False, **arguments: object) -> str:
        """Submit the waiting job and wait until it waits.

        Args:
            use_sdk: As a training script that logs metrics. Otherwise a shell command, which starts at once.
            arguments: For the scenario.
        """
        self.go.unlink(missing_ok=True)
        self.attempts.unlink(missing_ok=True)
        if use_sdk:
            arguments["arguments"] = [str(self.attempts), str(self.go)]
        else:
            arguments["command"] = f"echo attempt >> {self.attempts}; until test -e {self.go}; do sleep 0.1; done"
        run_id: str = self.sdk.submit(source=str(self.source), **arguments)
        self.wait_for_attempts(1)
        return run_id

    def wait_for_attempts(self, count: int) -> None:
        """Wait until the job has been started so often."""
        deadline = time.monotonic() + 600
        while not self.attempts.exists() or self.attempts.read_text() != "attempt\n" * count:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One laboratory for the module's tests."""
    made = Lab(tmp_path_factory.mktemp("lab"))
    yield made
    made.sdk.close()
    made.endpoint.stop(kill_jobs=True)


def test_a_job_that_outlives_its_emulator_is_adopted(lab: Lab) -> None:
    run_id = lab.submit(use_sdk=True)
    lab.sdk.wait_for_metric(run_id=run_id, name="Ready")
    before = (lab.endpoint.url, lab.endpoint.workspace_id)
    lab.kill()
    assert find(lab.state) is None
    lab.start()
    assert (lab.endpoint.url, lab.endpoint.workspace_id) == before
    assert lab.sdk.status(run_id=run_id) == "Running"
    lab.go.touch()
    assert lab.sdk.wait(run_id=run_id) == "Completed"
    assert lab.sdk.metrics(run_id=run_id) == {"Ready": 1, "Done": 1}
    assert "outputs/result.txt" in lab.sdk.files(run_id=run_id)
    assert lab.attempts.read_text() == "attempt\n"


@pytest.mark.slow
def test_a_job_whose_log_could_not_be_streamed_ends(lab: Lab) -> None:
    # The SDK gives a file up without noticing when a new link is refused too, and then waits for its upload.
    run_id = lab.submit(use_sdk=True, script="stream.py")
    deadline = time.monotonic() + 600
    # Its content, not just its name: by then the SDK has made every file that it has seen. One that it can't make keeps
    # it from uploading any, and it tries again without a pause.
    while "logs/a.txt" not in lab.sdk.files(run_id=run_id) or not _log_so_far(lab, run_id):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    lab.endpoint.set_faults(
        rules=[{"route": "PUT */blobs/*", "status": 403}, {"route": "GET */artifacts/write/*", "status": 403}]
    )
    lab.endpoint.clear_requests()
    while not any("/artifacts/write/" in item.path for item in lab.endpoint.recorded_requests()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    lab.endpoint.clear_faults()
    lab.go.touch()
    assert lab.sdk.wait(run_id=run_id) == "Completed"
    content = lab.sdk.log_text(run_id=run_id, name="logs/a.txt")
    assert content.startswith("first.")
    assert content.endswith(".last")


@pytest.mark.slow
def test_a_job_goes_on_while_there_is_no_emulator(lab: Lab) -> None:
    # As long as the SDK's own retries take, and half as long again: they give up after a minute.
    run_id = lab.submit(use_sdk=True, script="counting.py")
    lab.kill()
    lab.go.touch()
    ended = lab.state / "jobs" / run_id / "1" / "work" / "script_has_ended"
    while not ended.exists():
        assert processes_of(run_id)
        time.sleep(0.1)
    time.sleep(AWAY)
    assert processes_of(run_id), "it waits until what it had to say can be said"
    lab.start()
    assert lab.sdk.wait(run_id=run_id, timeout=600) == "Completed"
    assert lab.sdk.metrics(run_id=run_id) == {"Count": [0, 1, 2, 3, 4], "Again": 1}
    assert "outputs/result.txt" in lab.sdk.files(run_id=run_id)
    assert "Traceback" not in lab.sdk.log_text(run_id=run_id)
    assert lab.attempts.read_text() == "attempt\n"


def test_a_job_without_an_emulator_ends_with_the_state(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run_id = lab.submit(use_sdk=True)
    processes = processes_of(run_id)
    lab.kill()
    lab.go.touch()
    shutil.rmtree(lab.state)
    _, alive = psutil.wait_procs(processes, timeout=600)
    assert alive == []
    lab.sdk.close()


def test_a_job_s_token_is_good_if_it_expired_while_nobody_could_renew_it(lab: Lab) -> None:
    http = Http(lab.endpoint)
    path = f"/history/v1.0{http.workspace}/experiments/tokens"
    assert http("POST", path).status_code == 200
    expired = http.authority.issue(Scope.RUN, -60, run_id="r")
    lab.kill()
    tokens = {scope: http.authority.issue(scope, 2, run_id="r") for scope in (Scope.RUN, Scope.USER)}
    time.sleep(3)
    http = Http(lab.start())
    assert http("GET", path, token=tokens[Scope.RUN]).status_code == 200
    assert http("GET", path, token=tokens[Scope.USER]).status_code == 401
    assert http("GET", path, token=expired).status_code == 401


def test_a_job_that_ended_while_there_was_no_emulator(lab: Lab) -> None:
    run_id = lab.submit()
    processes = processes_of(run_id)
    lab.kill()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # the shell starts one after another
            if "supervisor.py" not in " ".join(process.cmdline()):
                process.kill()
    psutil.wait_procs(processes, timeout=600)
    lab.start()
    assert lab.sdk.wait(run_id=run_id) == "Failed"
    assert "exited with code" in lab.sdk.details(run_id=run_id)["error"]["error"]["message"]


def test_a_job_whose_processes_are_gone_has_failed(lab: Lab) -> None:
    run_id = lab.submit()
    processes = processes_of(run_id)
    lab.kill()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=600)
    lab.start()
    assert lab.sdk.wait(run_id=run_id) == "Failed"
    assert "processes are gone" in lab.sdk.details(run_id=run_id)["error"]["error"]["message"]


def test_a_queued_job_is_started_after_a_restart(lab: Lab) -> None:
    lab.sdk.create_cluster(name="single", max_nodes=1)
    first = lab.submit(target="single")
    second = lab.sdk.submit(source=str(PROGRAMS / "job"), command=["true"], target="single")
    lab.sdk.wait_for(run_id=second, statuses=["Queued"])
    lab.kill()
    lab.start()
    assert lab.sdk.status(run_id=second) == "Queued"
    lab.go.touch()
    assert lab.sdk.wait(run_id=first) == "Completed"
    assert lab.sdk.wait(run_id=second) == "Completed"


def test_a_submission_whose_answer_was_lost_runs_once(lab: Lab) -> None:
    http = Http(lab.endpoint)
    lab.sdk.create_cluster(name="cpu")
    lab.endpoint.set_faults(rules=[{"route": "POST */snapshotrun", "action": "drop_answer", "times": 1}])
    lab.endpoint.clear_requests()
    run_id = lab.submit()
    posts = [item for item in lab.endpoint.recorded_requests() if item.path.endswith("/snapshotrun")]
    assert [item.status for item in posts] == [0, 200]
    lab.go.touch()
    assert lab.sdk.wait(run_id=run_id) == "Completed"
    assert lab.attempts.read_text() == "attempt\n"
    url = f"/execution/v1.0{http.workspace}/experiments/tests/snapshotrun?runId={run_id}"
    other = {"Configuration": {"script": "other.py", "target": "cpu"}, "SnapshotId": _snapshot(lab, run_id)}
    assert http("POST", url, json=other).status_code == 409


def test_an_evicted_job_fails_on_a_dedicated_cluster(lab: Lab) -> None:
    run_id = lab.submit()
    lab.endpoint.evict(run_id)
    assert lab.sdk.wait(run_id=run_id) == "Failed"
    assert lab.sdk.details(run_id=run_id)["error"]["error"]["code"] == "NodeLost"
    assert processes_of(run_id) == []


def test_an_evicted_job_runs_again_on_a_low_priority_cluster(lab: Lab, tmp_path: Path) -> None:
    lab.sdk.create_cluster(name="cheap", priority="lowpriority")
    run_id = lab.submit(use_sdk=True, script="evicted.py", target="cheap")
    lab.endpoint.evict(run_id, notice=3600)
    lab.wait_for_attempts(2)
    # The script has made use of the notice, and has not been waited for any longer.
    assert lab.sdk.details(run_id=run_id)["error"] is None
    lab.go.touch()
    assert lab.sdk.wait(run_id=run_id) == "Completed"
    assert "outputs/result.txt" in lab.sdk.files(run_id=run_id)
    # What the first attempt has uploaded is there for the second, which can't upload it again; the log is its own.
    log = lab.sdk.log_text(run_id=run_id)
    assert log.startswith("found ['checkpoints/last.txt']")
    assert "Resource Conflict" in log
    assert "goes away" not in log
    lab.sdk.download(run_id=run_id, name="checkpoints/last.txt", target=str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "from attempt 1"


@pytest.mark.parametrize("answer", ["goes on", "ends"])
def test_notice_of_an_eviction(lab: Lab, tmp_path: Path, answer: str) -> None:
    lab.sdk.create_cluster(name="cheap", priority="lowpriority")
    lab.endpoint.set_faults(evicted_runs_fail=True)
    told = tmp_path / "told"
    last = "exit 0" if answer == "ends" else "true"
    script = f"trap 'echo told > {told}; {last}' TERM; touch {tmp_path}/ready; while true; do sleep 0.05; done"
    run_id = lab.sdk.submit(source=str(lab.source), command=script, target="cheap")
    deadline = time.monotonic() + 600
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lab.endpoint.evict(run_id, notice=3 if answer == "goes on" else 3600)
    status = lab.sdk.wait(run_id=run_id)
    lab.endpoint.clear_faults()
    assert told.read_text() == "told\n"
    assert processes_of(run_id) == []
    if answer == "ends":
        assert status == "Completed"
        return
    assert status == "Failed"
    error = lab.sdk.details(run_id=run_id)["error"]["error"]
    assert error["code"] == "UserError"
    assert error["message"].startswith("AzureMLCompute job failed.\nPreemptionError: Nodes of this job got pre-empted.")


def test_late_logs_come_after_the_end(lab: Lab) -> None:
    lab.endpoint.set_faults(late_logs=3600)
    run_id = lab.sdk.submit(source=str(PROGRAMS / "job"), command=["true"])
    assert lab.sdk.wait(run_id=run_id) == "Completed"
    assert "user_logs/std_log.txt" not in lab.sdk.files(run_id=run_id)
    assert lab.sdk.details(run_id=run_id)["logFiles"] == {}
    lab.endpoint.clear_faults()
    assert "user_logs/std_log.txt" in lab.sdk.files(run_id=run_id)


def test_the_sdk_rides_out_errors_and_lost_answers(lab: Lab) -> None:
    lab.endpoint.set_faults(
        rules=[
            {"route": "POST */snapshots/getblob", "status": 503, "times": 1},
            {"route": "POST */metric/*/batch", "action": "drop_answer", "times": 1},
            {"route": "GET */details", "action": "drop", "times": 1},
        ]
    )
    run_id = lab.sdk.submit(source=str(PROGRAMS / "job"), arguments=["--epochs", 3])
    lab.sdk.stream(run_id=run_id)
    metrics = lab.sdk.metrics(run_id=run_id)
    assert len(metrics["Accuracy"]) == 3, "a batch that was sent twice counts once"
    lab.endpoint.clear_faults()


def test_a_graceful_stop_leaves_jobs_alone_unless_told_otherwise(lab: Lab) -> None:
    run_id = lab.submit()
    lab.endpoint.stop(kill_jobs=False)
    assert processes_of(run_id)
    lab.start()
    lab.endpoint.stop(kill_jobs=True)
    assert processes_of(run_id) == []
    lab.start()
    assert lab.sdk.wait(run_id=run_id) == "Failed"


def _log_so_far(lab: Lab, run_id: str) -> str:
    text: str = lab.sdk.log_text(run_id=run_id, name="logs/a.txt")
    return text


def _snapshot(lab: Lab, run_id: str) -> str:
    return str(lab.sdk.details(run_id=run_id)["properties"]["ContentSnapshotId"])
