"""Jobs of several ranks on this machine, through the command line's own functions and the real mpiexec."""

from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from backends.local import LocalBackend
from backends.local_processes import find_processes
from tests.backends.local_runs import SECONDS, SLEEP, gone, start, until
from tests.backends.test_local import supervise
from trainer.backend import Backend
from trainer.cli import main
from trainer.errors import RefusedError, UsageError
from trainer.handle import Run
from trainer.home import Home
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.submission import JobRequest, prepare, resume, submit, with_ranks

# Rank 1 ends as it is told, while the other waits for it.
ENDS = """
import os, sys, threading, time
from pathlib import Path
from mpi4py import MPI
from trainer.runtime import reporting
end, once = sys.argv[1], Path("ended")
ranks = MPI.COMM_WORLD
print("rank", ranks.rank, "of", ranks.size, os.environ["OPENBLAS_NUM_THREADS"], flush=True)
reporting.report({"Rank": ranks.rank}, epoch=1)
if ranks.rank == 1:
    if end == "raise":
        raise ValueError("no such thing")
    if end == "thread":
        threading.Thread(target=time.sleep, args=(600,)).start()
        raise ValueError("a thread goes on")
    if end == "exit":
        sys.exit(3)
    if end == "leave":
        os._exit(4)
    if end == "kill":
        os.kill(os.getpid(), 9)
    if end == "once" and not once.exists():
        once.touch()
        Path("outputs/state").write_text("so far")
        os.kill(os.getpid(), 9)
ranks.allreduce(1)
if end == "once":
    print(Path(os.environ["TRAINER_RESUME_DIR"], "state").read_text(), os.environ["TRAINER_ATTEMPT"])
"""
WAITS = f"""
import os
from mpi4py import MPI
with open("outputs/%d.pid" % MPI.COMM_WORLD.rank, "w") as file:
    file.write(str(os.getpid()))
{SLEEP}"""
CONVOLUTION = """
import chainer
import chainer.functions as F
import chainer.links as L
def make(shape, classes):
    return chainer.Sequential(L.Convolution2D(None, 4, 5, 3), F.relu, L.Linear(None, classes))
"""
TRAINING = {"epochs": 5, "batchsize": 128, "device": "cpu", "seed": 3}


def train(home: Home, ranks: int, dataset: str = "mnist-5k", network: str | None = None, **training: object) -> Run:
    request = JobRequest(
        training={**TRAINING, **training}, dataset=dataset, network=network, processes_per_node=ranks, model_name=None
    )
    run = submit(prepare(request, home), LocalBackend(home, {}), home)
    assert run.wait(SECONDS).status is RunStatus.COMPLETED, run.folder.log_tail()
    return run


def parameters(run: Run) -> dict[str, NDArray[np.float32]]:
    with np.load(run.file("model.npz")) as archive:
        return dict(archive)


def difference(one: Run, other: Run) -> float:
    """The largest difference of two models' weights, by the largest weight."""
    a, b = parameters(one), parameters(other)
    assert list(a) == list(b)
    return float(max(np.abs(a[name] - b[name]).max() for name in a) / max(np.abs(value).max() for value in a.values()))


def values(run: Run, name: str) -> list[float | None]:
    return [metric.value for metric in run.metrics() if metric.name == name]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("raise", "rank 1: ValueError: no such thing"),
        ("thread", "rank 1: ValueError: a thread goes on"),
        ("exit", "rank 1: The script ended with exit status 3."),
        ("leave", "rank 1: The script ended with exit status 4."),
        ("kill", "rank 1: The script was ended by SIGKILL, possibly out of memory."),
    ],
)
def test_a_rank_that_ends_badly_ends_the_job(home: Home, tmp_path: Path, end: str, message: str) -> None:
    run = start(home, tmp_path / "job", ENDS, end, processes_per_node=2, max_minutes=1)
    info = run.wait(SECONDS)
    assert info.failure is not None
    assert (info.status, info.failure.message) == (RunStatus.FAILED, message)
    log = run.folder.read_log().decode()
    assert "rank 1: rank 1 of 2" in log, "the end of its log is not shown in the run's"
    if end == "raise":
        assert "rank 1: Traceback (most recent call last):" in log
        assert any("Traceback" in line for line in info.failure.log_tail)
    assert values(run, "Rank") in ([0.0], [])  # rank 1 reports nothing


def test_ranks_have_logs_and_threads_of_their_own(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "TRAINER_THREADS"):
        monkeypatch.delenv(name, raising=False)
    run = start(home, tmp_path / "job", ENDS, "well", nodes=2)
    assert run.wait(SECONDS).status is RunStatus.COMPLETED, run.folder.log_tail()
    threads = max(1, len(psutil.Process().cpu_affinity() or [0]) // 2)
    assert run.folder.read_log().decode().splitlines() == [f"rank 0 of 2 {threads}"]
    assert run.folder.read_log(rank=1).decode().splitlines() == [f"rank 1 of 2 {threads}"]
    assert values(run, "Rank") == [0.0]
    monkeypatch.setenv("TRAINER_HOME", str(home.path))
    for rank, printed in (
        ("0", f"rank 0 of 2 {threads}\n"),
        ("1", f"rank 1 of 2 {threads}\n"),
        ("all", f"rank 0: rank 0 of 2 {threads}\nrank 1: rank 1 of 2 {threads}\n"),
    ):
        assert main(["logs", run.run_id, "--rank", rank]) == 0
        assert capsys.readouterr().out == printed
    assert main(["logs", run.run_id, "--rank", "2"]) == 2
    assert "has the ranks 0 to 1" in capsys.readouterr().err


def test_a_job_whose_rank_is_killed_goes_on_from_its_checkpoint(home: Home, tmp_path: Path) -> None:
    asked = {"processes_per_node": 2, "max_restarts": 1, "checkpoints": "state"}
    run = start(home, tmp_path / "job", ENDS, "once", **asked)
    info = run.wait(SECONDS)
    assert info.status is RunStatus.COMPLETED, run.folder.log_tail()
    assert [restart.checkpoint for restart in info.restarts] == ["state"]
    for rank in range(2):
        assert list(run.logs(rank=rank))[-1] == "so far 2"


def test_the_cap_ends_every_rank(home: Home, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(WAITS)
    asked = JobRequest(script=tmp_path / "train.py", model_name=None, processes_per_node=2, max_minutes=1)
    prepared = prepare(asked, home)
    folder = RunFolder.create(home.runs, prepared.job, backend="local", snapshot=prepared.snapshot.digest)
    prepared.snapshot.stage(folder.snapshot)
    supervise(home, folder, minute=4.0)
    info = folder.info()
    assert info.failure is not None
    assert info.failure.message == "It was stopped after 1 min, the cap that it was submitted with."
    assert not list(find_processes(folder.path))


def test_canceling_ends_every_rank(home: Home, tmp_path: Path) -> None:
    run = start(home, tmp_path / "job", WAITS, processes_per_node=2)
    files = [run.folder.outputs / f"{rank}.pid" for rank in range(2)]
    until(lambda: all(file.exists() and file.read_text() for file in files), "the ranks' start")
    pids = [int(file.read_text()) for file in files]
    assert next(run.logs(follow=True, rank=1)) == "up"
    run.cancel()
    assert run.wait(SECONDS).status is RunStatus.CANCELED
    assert all(gone(pid) for pid in pids)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two ranks and five epochs."""
    project = tmp_path_factory.mktemp("two")
    return train(Home(project / ".trainer", project), 2)


def test_ranks_train_as_one_process_does(home: Home, two: Run) -> None:
    alone, again = train(home, 1), train(home, 2)
    assert difference(alone, two) < 1e-6
    assert run_bytes(two) == run_bytes(again)
    assert values(two, "Accuracy") == values(alone, "Accuracy")
    for name in ("Loss", "Validation loss"):
        assert np.allclose(np.asarray(values(two, name), float), np.asarray(values(alone, name), float), rtol=1e-6)
    assert "note: the updater is not compiled" not in two.folder.read_log().decode()


def run_bytes(run: Run) -> bytes:
    return run.file("model.npz").read_bytes()


def test_a_checkpoint_resumes_with_any_number_of_ranks(home: Home, two: Run) -> None:
    first = train(home, 2, epochs=2)
    prepared = resume(first, ["--epochs", "5"])
    same = submit(prepared, LocalBackend(home, {}), home)
    other = submit(with_ranks(prepared, 1, 1), LocalBackend(home, {}), home)
    for run in (same, other):
        assert run.wait(SECONDS).status is RunStatus.COMPLETED, run.folder.log_tail()
    assert run_bytes(same) == run_bytes(two)
    assert difference(other, two) < 1e-6


def test_a_network_that_is_not_compiled(home: Home, tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "net.py").write_text(CONVOLUTION)
    network = f"{tmp_path / 'net.py'}:make"
    alone, both = (train(home, ranks, str(tiny_data), network, batchsize=33, epochs=2) for ranks in (1, 2))
    assert "note: the updater is not compiled" in both.folder.read_log().decode()
    assert difference(alone, both) < 1e-6  # parts of 17 and 16 examples


def test_a_script_for_one_process_is_refused(home: Home, tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "beside.py").write_text("import chainermn\n")
    script = tmp_path / "train.py"
    script.write_text("import chainer\n")
    with pytest.raises(UsageError, match="is a script for one process"):
        prepare(JobRequest(script=script, dataset="none", processes_per_node=2), home)
    script.write_text("import beside\n")
    assert prepare(JobRequest(script=script, dataset="none", processes_per_node=2), home).job.ranks == 2
    with pytest.raises(UsageError, match="leaves some of 6 ranks without an example"):
        prepare(JobRequest(training={"batchsize": 5}, dataset=str(tiny_data), nodes=2, processes_per_node=3), home)


def test_the_plan_says_what_each_rank_gets(home: Home, tiny_data: Path) -> None:
    prepared = prepare(JobRequest(training=TRAINING, dataset=str(tiny_data), nodes=3), home)
    plan = LocalBackend(home, {}).plan(prepared.job, prepared.snapshot)
    assert plan.details["ranks"] == "3 on this machine, in the place of 3 nodes with 1 each"
    assert plan.details["each_batch"].startswith("43 examples for 2 of the ranks, 42 for each other")
    assert any("--nodes 3 is simulated" in text for text in plan.warnings)


def test_a_backend_of_one_process_refuses_several(home: Home, tiny_data: Path) -> None:
    job = prepare(JobRequest(dataset=str(tiny_data), nodes=2), home).job
    with pytest.raises(RefusedError, match="The local backend runs one process per job, and this one asks for 2"):
        Backend.check_ranks(LocalBackend(home, {}), job)
