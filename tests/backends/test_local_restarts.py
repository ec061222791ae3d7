"""Runs on this machine that lose their process or their supervisor, and are started again."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from backends.local import LocalBackend
from backends.local_cap import SPENT, Cap
from tests.backends.local_runs import SECONDS, start, supervisor, until, worker
from tests.backends.test_local import supervise
from trainer.errors import UsageError
from trainer.handle import Run
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.submission import JobRequest, prepare, submit

TRAINING = {"epochs": 150, "batchsize": 64, "units": 20, "device": "cpu", "seed": 3}
# Counts to nine, one file per number; kills itself once at five, and then finds what it had written.
COUNTS = """
import os, signal, sys
from pathlib import Path
from trainer.runtime import reporting
resume = os.environ.get("TRAINER_RESUME_DIR")
done = max((int(path.stem) for path in Path(resume, "checkpoints").glob("*.txt")), default=0) if resume else 0
Path("outputs/checkpoints").mkdir(exist_ok=True)
for number in range(done + 1, 10):
    reporting.report({"Number": number}, epoch=number, epochs=9)
    if number == 5 and done == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    half = Path("outputs/half")
    half.write_text("x")
    half.rename(f"outputs/checkpoints/{number}.txt")
Path("outputs/began").write_text(f"{done} {os.environ.get('TRAINER_ATTEMPT')}")
"""


def train(home: Home, tiny_data: Path, restarts: int) -> Run:
    request = JobRequest(training=TRAINING, dataset=str(tiny_data), max_restarts=restarts)
    backend = LocalBackend(home, {})
    return submit(prepare(request, home), backend, home)


def steps(run: Run, name: str = "Accuracy") -> list[float | None]:
    return [metric.step for metric in run.metrics() if metric.name == name]


def arrays(run: Run) -> dict[str, bytes]:
    with zipfile.ZipFile(run.file("model.npz")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def trainer(home: Home, *words: str) -> str:
    environment = {**os.environ, "TRAINER_HOME": str(home.path)}
    done = subprocess.run([sys.executable, "-m", "trainer", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_killed_script_and_a_killed_supervisor_cost_nothing(home: Home, tiny_data: Path) -> None:
    run = train(home, tiny_data, 2)
    until(lambda: len(steps(run)) > 10, "ten epochs")
    worker(run).kill()
    until(lambda: run.folder.info().restarts and run.folder.info().status is RunStatus.RUNNING, "the second attempt")
    until(lambda: steps(run)[-1:] > [40.0] or run.folder.info().status.terminal, "forty epochs")
    script, boss = worker(run), supervisor(run)
    boss.kill()
    script.kill()
    boss.wait()
    info = run.wait(SECONDS)
    assert info.status is RunStatus.COMPLETED, run.folder.log_tail()
    whole = train(home, tiny_data, 0)
    assert whole.wait(SECONDS).status is RunStatus.COMPLETED
    assert arrays(run) == arrays(whole)
    # Every epoch once, with the same values; those of later attempts say so.
    assert [(m.name, m.value, m.step) for m in run.metrics() if m.step] == [
        (m.name, m.value, m.step) for m in whole.metrics() if m.step
    ]
    assert {m.attempt for m in run.metrics()} == {1, 2, 3}
    first, second = info.restarts
    assert first.epoch is not None
    assert second.epoch is not None
    assert 10 <= first.epoch <= second.epoch
    assert (
        first.text == f"attempt 2, from epoch {first.epoch:g}: the script was ended by SIGKILL, possibly out of memory"
    )
    assert second.text.startswith(f"attempt 3, from epoch {second.epoch:g}: the process that supervised the run died")
    shown = trainer(home, "show", run.run_id)
    assert first.text in shown
    assert second.text in shown
    assert [each["attempt"] for each in json.loads(trainer(home, "show", "--json", run.run_id))["restarts"]] == [2, 3]


@pytest.mark.parametrize("ending", ["sys.exit(3)", "os.kill(os.getpid(), signal.SIGSEGV)", "raise ValueError('no')"])
def test_an_error_of_the_script_is_not_tried_again(home: Home, tmp_path: Path, ending: str) -> None:
    run = start(home, tmp_path / "job", f"import os, signal, sys\n{ending}\n", max_restarts=3)
    info = run.wait(SECONDS)
    assert info.status is RunStatus.FAILED
    assert info.restarts == ()


def test_no_more_attempts_than_were_allowed(home: Home, tmp_path: Path) -> None:
    source = "import os, signal\nprint('up', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    run = start(home, tmp_path / "job", source, max_restarts=2)
    info = run.wait(SECONDS)
    assert info.status is RunStatus.FAILED
    assert info.failure is not None
    assert info.failure.exit_code == -signal.SIGKILL
    assert run.folder.read_log().splitlines() == [b"up"] * 3
    assert [restart.text for restart in info.restarts] == [
        f"attempt {number}, from the start: the script was ended by SIGKILL, possibly out of memory"
        for number in (2, 3)
    ]


def test_a_script_of_ones_own_finds_what_it_asked_to_be_kept(home: Home, tmp_path: Path) -> None:
    run = start(home, tmp_path / "job", COUNTS, max_restarts=1, checkpoints="checkpoints/*")
    info = run.wait(SECONDS)
    assert info.status is RunStatus.COMPLETED, run.folder.log_tail()
    assert (run.folder.outputs / "began").read_text() == "4 2"
    assert [restart.checkpoint for restart in info.restarts] == ["checkpoints/4.txt"]
    assert steps(run, "Number") == list(range(1, 10))
    assert len(run.files()) == 9 + 2  # with the environment


def test_a_cancelled_run_is_not_started_again(home: Home, tmp_path: Path) -> None:
    run = start(home, tmp_path / "job", "import time\nprint('up', flush=True)\ntime.sleep(600)\n", max_restarts=3)
    until(lambda: run.folder.read_log(), "the script's first word")
    run.cancel()
    info = run.wait(SECONDS)
    assert info.status is RunStatus.CANCELED
    assert info.restarts == ()


@pytest.mark.parametrize("pattern", ["/etc/*", "../*", "a/../../b", ""])
def test_a_pattern_that_leads_out_of_the_outputs_is_refused(home: Home, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="--checkpoints"):
        start(home, tmp_path / "job", "pass", checkpoints=pattern)


def test_what_the_system_killed_for_want_of_memory_is_said(home: Home, tmp_path: Path) -> None:
    counter, script = tmp_path / "vmstat", tmp_path / "train.py"
    counter.write_text("nr_free_pages 3\noom_kill 4\n")
    script.write_text(
        "import os, pathlib, sys\npathlib.Path(sys.argv[1]).write_text('oom_kill 5\\n')\nos.kill(os.getpid(), 9)\n"
    )
    prepared = prepare(JobRequest(script=script, script_args=(str(counter),), model_name=None), home)
    folder = RunFolder.create(home.runs, prepared.job, backend="local", snapshot=prepared.snapshot.digest)
    prepared.snapshot.stage(folder.snapshot)
    code = (
        "import sys; from pathlib import Path; from backends import local_processes, local_supervisor;"
        "from backends.local_store import LocalStore; from trainer.runfolder import RunFolder;"
        "local_processes._VMSTAT = Path(sys.argv[3]);"
        "local_supervisor.supervise(RunFolder(Path(sys.argv[1])), LocalStore(Path(sys.argv[2])))"
    )
    subprocess.run([sys.executable, "-c", code, folder.path, home.models, counter], check=True)
    failure = folder.info().failure
    assert failure is not None
    assert failure.message == "The script was ended by SIGKILL: the system was out of memory."


def test_the_cap_counts_all_attempts(home: Home, tmp_path: Path) -> None:
    # Each attempt sleeps for three fifths of the cap and is then lost.
    script = tmp_path / "train.py"
    script.write_text("import os, time\nprint('up', flush=True)\ntime.sleep(3)\nos.kill(os.getpid(), 9)\n")
    prepared = prepare(JobRequest(script=script, model_name=None, max_minutes=1, max_restarts=9), home)
    folder = RunFolder.create(home.runs, prepared.job, backend="local", snapshot=prepared.snapshot.digest)
    prepared.snapshot.stage(folder.snapshot)
    supervise(home, folder, minute=5.0)
    info = folder.info()
    assert info.failure is not None
    assert info.failure.message == "It was stopped after 1 min, the cap that it was submitted with."
    assert len(info.restarts) <= 1


@pytest.mark.parametrize(("spent", "over"), [(50.0, False), (70.0, True)])
def test_the_cap_counts_an_attempt_whose_supervisor_died_up_to_its_last_word(
    home: Home, spent: float, *, over: bool
) -> None:
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py", max_minutes=2), backend="local", snapshot="0" * 64)
    began = 1_700_000_000.0
    folder.update(status=RunStatus.RUNNING, started=began, detail={SPENT: spent})
    folder.log_path.write_text("so far\n")
    os.utime(folder.log_path, (began + 60, began + 60))
    cap = Cap(folder, 60.0)
    assert cap.detail == {SPENT: spent + 60}
    assert cap.is_over() == over
