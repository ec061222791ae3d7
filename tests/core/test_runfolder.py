"""A run on disk: whole records under any interleaving, and names that find it."""

import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from trainer.errors import ConfigError, NotFoundError, UsageError
from trainer.findrun import find_run
from trainer.home import Home, find_home
from trainer.job import TrainingJob
from trainer.listing import list_infos, open_run
from trainer.logreader import LogReader
from trainer.records import Metric, Progress, RunFailure, RunInfo, RunStatus
from trainer.runfolder import NEW_PREFIX, SUBMISSION_LOCK, RunFolder
from trainer.runids import RUN_ID, new_run_id, run_ids

JOB = TrainingJob(script="train.py", arguments=("--a", "ü", ""), tags={"k": "v"}, max_minutes=3)


@pytest.fixture
def folder(home: Home) -> RunFolder:
    return RunFolder.create(home.runs, JOB, backend="local", snapshot="0" * 64)


def count_up(path: str, times: int) -> None:
    folder = RunFolder(Path(path))
    for _ in range(times):
        folder.update(lambda info: msgspec.structs.replace(info, detail={"n": info.detail.get("n", 0) + 1}))


class TestRecord:
    def test_comes_back(self, folder: RunFolder) -> None:
        assert folder.job() == JOB
        info = folder.info()
        assert (info.run_id, info.status, info.backend) == (folder.run_id, RunStatus.NOT_STARTED, "local")
        failure = RunFailure(message="why", log_tail=("a", "b"), exit_code=-9)
        assert folder.update(failure=failure, started=1.5).failure == failure
        assert folder.info().started == 1.5

    def test_an_end_is_final(self, folder: RunFolder) -> None:
        ended = folder.update(status=RunStatus.CANCELED)
        assert ended.ended is not None
        assert folder.update(status=RunStatus.COMPLETED) == ended
        assert folder.update(status=RunStatus.RUNNING, started=1.0) == ended
        assert folder.info() == ended

    def test_no_change_is_lost_between_processes(self, folder: RunFolder) -> None:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=count_up, args=(str(folder.path), 20)) for _ in range(3)]
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            folder.info()  # whole at any moment
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert folder.info().detail == {"n": 60}

    def test_damage_is_named(self, folder: RunFolder) -> None:
        (folder.path / "status.json").write_bytes(b'{"run_id": ')
        with pytest.raises(ConfigError, match=r"status\.json is damaged"):
            folder.info()

    def test_a_run_that_is_not_there(self, home: Home) -> None:
        folder = RunFolder(home.runs / "20261123-000000-aaaaaa")
        for call in (folder.info, folder.job, folder.update):
            with pytest.raises(NotFoundError):
                call()

    def test_a_disk_without_room_or_leave(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="Can't create a run folder"):
            RunFolder.create(tmp_path / "file" / "runs", JOB, backend="local", snapshot="")
        with pytest.raises(ConfigError, match="Can't create a run folder"):
            RunFolder.create(tmp_path / "file", JOB, backend="local", snapshot="")


class TestLocks:
    def test_tell_whether_a_living_process_holds_them(self, folder: RunFolder) -> None:
        code = (
            "import sys, time; from pathlib import Path; from trainer.runfolder import RunFolder\n"
            "with RunFolder(Path(sys.argv[1])).locked('supervisor'):\n    print('held', flush=True); time.sleep(600)"
        )
        assert not folder.is_locked("supervisor")
        with subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            try:
                assert folder.is_locked("supervisor")
                with pytest.raises(BlockingIOError), folder.locked("supervisor", blocking=False):
                    pass
            finally:
                holder.send_signal(signal.SIGKILL)
        assert not folder.is_locked("supervisor")
        with folder.locked("supervisor", blocking=False):
            assert folder.is_locked("supervisor")

    def test_looking_does_not_take_one(self, folder: RunFolder) -> None:
        with folder.locked("x"):
            pass
        assert not folder.is_locked("x")
        assert not folder.is_locked("never")
        assert not (folder.path / ".never.lock").exists()


class TestLogReader:
    def test_gives_each_line_once_when_it_is_complete(self, folder: RunFolder) -> None:
        log = LogReader(folder)
        assert log.lines(final=False) == []
        folder.log_path.write_bytes(b"one\n\ntw\xc3")
        assert log.lines(final=False) == ["one", ""]
        assert log.lines(final=False) == []
        with folder.log_path.open("ab") as stream:
            stream.write(b"\xb6\n\xff")
        assert log.lines(final=False) == ["tw\u00f6"]
        assert log.lines(final=True) == ["\ufffd"]
        assert log.lines(final=True) == []


class TestBeingSubmitted:
    @pytest.mark.parametrize("created", [0.0, 253402300799.0])
    def test_while_the_lock_is_held_whatever_the_clock_says(self, folder: RunFolder, created: float) -> None:
        folder.update(created=created)
        assert not folder.being_submitted()
        with folder.locked(SUBMISSION_LOCK):
            assert folder.being_submitted()

    def test_a_run_is_never_seen_without_its_record_and_its_lock(self, home: Home) -> None:
        with RunFolder.submitting(home.runs, JOB, backend="local", snapshot="0" * 64) as folder:
            assert [path.name for path in home.runs.iterdir()] == [folder.run_id]
            assert folder.being_submitted()
            assert RunFolder.create(home.runs, JOB, backend="local", snapshot="0" * 64).path.is_dir()
            assert folder.path.is_dir()
        assert not folder.being_submitted()

    def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(self, home: Home) -> None:
        dead, living = (home.runs / f"{NEW_PREFIX}{name}" for name in ("dead", "living"))
        for path in (dead, living):
            (path / "logs").mkdir(parents=True)
        with RunFolder(living).locked(SUBMISSION_LOCK):
            RunFolder.create(home.runs, JOB, backend="local", snapshot="0" * 64)
            assert (dead.exists(), living.exists()) == (False, True)

    def test_not_once_its_backend_has_taken_it(self, folder: RunFolder) -> None:
        folder.update(status=RunStatus.PREPARING)
        with folder.locked(SUBMISSION_LOCK):
            assert not folder.being_submitted()


class TestWhatTheScriptWrites:
    def test_metrics_leave_out_half_lines_and_spoiled_ones(self, folder: RunFolder) -> None:
        lines = [
            b'{"name": "a", "value": 1.5, "step": 1, "time": 2}',
            b"\xff\xfe nonsense",
            b'{"name": 3}',
            b'{"name": "b", "value": null, "text": "nan"}',
            b'{"name": "half", "va',
        ]
        (folder.path / "metrics.jsonl").write_bytes(b"\n".join(lines))
        assert folder.metrics() == [
            Metric(name="a", value=1.5, step=1.0, time=2.0),
            Metric(name="b", value=None, text="nan"),
        ]

    def test_progress(self, folder: RunFolder) -> None:
        assert folder.progress() is None
        (folder.path / "progress.json").write_bytes(b'{"epoch": 1.5, "epochs": 10, "loss": null}')
        assert folder.progress() == Progress(epoch=1.5, epochs=10.0)
        (folder.path / "progress.json").write_bytes(b'{"epo')
        assert folder.progress() is None

    def test_the_log_survives_any_bytes(self, folder: RunFolder) -> None:
        assert folder.log_tail() == ()
        folder.log_path.write_bytes(b"one\n\xff\xfe\ntwo" + b"\nx" * 100_000)
        assert folder.log_tail(2) == ("x", "x")
        assert folder.read_log(4)[:3] == b"\xff\xfe\n"


class TestFinding:
    def test_ids_sort_by_time_and_can_be_typed(self) -> None:
        ids = [new_run_id(second * 1e5) for second in range(100)]
        assert ids == sorted(ids)
        assert all(RUN_ID.fullmatch(run_id) for run_id in ids)
        within_a_second = [new_run_id(1.7e9 + part / 1000) for part in range(1000)]
        assert within_a_second == sorted(within_a_second)
        assert len({new_run_id(1.7e9) for _ in range(3)}) > 1

    def test_by_id_beginning_ending_and_latest(self, home: Home) -> None:
        for name in ("20260101-000000-aaaaaa", "20260101-000000-bbbbbb", "20260202-000000-cccccc"):
            (home.runs / name).mkdir(parents=True)
        (home.runs / "not-a-run").mkdir()
        assert len(run_ids(home.runs)) == 3
        for reference in ("20260202-000000-cccccc", "202602", "cccccc", "ccc", "latest"):
            assert find_run(home.runs, reference).run_id == "20260202-000000-cccccc"
        with pytest.raises(UsageError, match="fits 2 runs"):
            find_run(home.runs, "20260101")
        for reference in ("", "dddddd", "../20260202-000000-cccccc"):
            with pytest.raises(NotFoundError):
                find_run(home.runs, reference)

    def test_where_there_are_none(self, home: Home) -> None:
        assert run_ids(home.runs) == []
        with pytest.raises(NotFoundError):
            find_run(home.runs, "latest")


class TestListing:
    def test_reads_what_has_ended_and_refreshes_what_has_not(self, home: Home) -> None:
        done, going, damaged = (RunFolder.create(home.runs, JOB, backend="slow", snapshot="0" * 64) for _ in range(3))
        done.update(status=RunStatus.COMPLETED)
        (damaged.path / "status.json").write_bytes(b"{")
        asked, made = [], []

        class Backend:
            def refresh(self, folder: RunFolder) -> RunInfo:
                asked.append(folder.run_id)
                return folder.update(status=RunStatus.RUNNING)

        def load(name: str, _: Home) -> Backend:
            made.append(name)
            return Backend()

        listing = list_infos(home, load=load)  # type: ignore[arg-type]
        assert {info.run_id: info.status for info in listing.infos} == {
            done.run_id: RunStatus.COMPLETED,
            going.run_id: RunStatus.RUNNING,
        }
        assert (asked, made) == ([going.run_id], ["slow"])
        assert len(listing.problems) == 1

    def test_a_backend_that_is_gone_hides_no_run(self, home: Home) -> None:
        folder = RunFolder.create(home.runs, JOB, backend="no-such-backend", snapshot="0" * 64)
        listing = list_infos(home)
        assert [info.run_id for info in listing.infos] == [folder.run_id]
        assert "no-such-backend" in listing.problems[0]

    def test_a_dead_run_is_listed_as_failed(self, home: Home, folder: RunFolder) -> None:
        folder.update(status=RunStatus.RUNNING)
        assert [info.status for info in list_infos(home).infos] == [RunStatus.FAILED]

    def test_a_run_is_opened_with_its_backend(self, home: Home, folder: RunFolder) -> None:
        run = open_run(home, "latest")
        assert (run.run_id, run.backend.name) == (folder.run_id, "local")


class TestHome:
    def test_is_beside_the_project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "pyproject.toml").touch()
        (tmp_path / "a" / "b").mkdir(parents=True)
        assert find_home(tmp_path / "a" / "b") == Home(tmp_path / ".trainer", tmp_path)
        (tmp_path / "a" / ".trainer").mkdir()
        assert find_home(tmp_path / "a" / "b").path == tmp_path / "a" / ".trainer"
        monkeypatch.setenv("TRAINER_HOME", str(tmp_path / "else"))
        assert find_home(tmp_path / "a" / "b").path == tmp_path / "else"


def test_following_a_log_ends_with_the_run(home: Home, folder: RunFolder) -> None:
    run = open_run(home, folder.run_id)
    folder.log_path.write_bytes(b"one\ntwo\nno line end")
    folder.update(status=RunStatus.COMPLETED)
    assert list(run.logs(follow=True)) == ["one", "two", "no line end"]
    assert run.wait().status is RunStatus.COMPLETED


def test_waiting_ends_when_the_time_is_over(home: Home, folder: RunFolder) -> None:
    with folder.locked("supervisor"):
        assert open_run(home, folder.run_id).wait(timeout=0.01).status is RunStatus.NOT_STARTED


def test_a_missing_output(home: Home, folder: RunFolder) -> None:
    (folder.outputs / "x").touch()
    (home.path / "secret").touch()
    run = open_run(home, folder.run_id)
    assert run.file("x") == folder.outputs / "x"
    for name in ("y", "../job.json", "/etc/passwd", ""):
        with pytest.raises(NotFoundError):
            run.file(name)
