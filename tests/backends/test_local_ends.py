"""How a run on this machine can end before its script does: kills, of every process it has, and cancels."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backends.local import LocalBackend
from backends.local_workdir import collect_outputs, make_workdir, working_directory
from tests.backends.kill_finish import SCENES
from tests.backends.local_runs import FAMILY, SECONDS, SLEEP, family, gone, start, supervisor, until, worker
from tests.contract.backend_contract import arrays
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.listing import list_infos
from trainer.records import RunStatus
from trainer.runfolder import SUBMISSION_LOCK, RunFolder
from trainer.submission import JobRequest, prepare, resume, submit


class TestDeaths:
    def test_a_killed_script_fails_the_run(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", SLEEP)
        until(lambda: run.folder.read_log(), "the script's first word")
        worker(run).kill()
        info = run.wait(SECONDS)
        assert info.status is RunStatus.FAILED
        assert info.failure is not None
        assert "SIGKILL" in info.failure.message
        assert info.failure.exit_code == -signal.SIGKILL
        assert info.failure.log_tail == ("up",)

    def test_a_killed_supervisor_fails_the_run_and_leaves_no_process(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", FAMILY, "600")
        pids = family(run)
        supervisor(run).kill()
        until(lambda: run.status().terminal, "the end")
        info = run.info()
        assert info.status is RunStatus.FAILED
        assert info.failure is not None
        assert "supervised" in info.failure.message
        assert all(gone(pid) for pid in pids)
        assert run.files() == ["environment.json", "pids"]
        assert not working_directory(run.folder).exists()

    def test_a_supervisor_killed_after_the_script_loses_nothing(self, home: Home) -> None:
        folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
        made = make_workdir(folder) / "outputs"
        np.savez(made / "model.npz", w=np.arange(3))
        folder.update(status=RunStatus.FINALIZING, created=0.0)
        backend = LocalBackend(home, {})
        info = backend.refresh(folder)
        assert info.status is RunStatus.COMPLETED
        assert info.model is not None
        assert folder.outputs.is_dir()
        assert not folder.outputs.is_symlink()
        assert backend.refresh(folder) == info
        assert len(backend.store().versions()) == 1

    def test_collecting_goes_on_where_a_kill_stopped_it(self, home: Home) -> None:
        folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
        (make_workdir(folder) / "outputs" / "kept").touch()
        folder.outputs.unlink()  # as far as it came
        for _ in range(2):
            collect_outputs(folder)
            assert [path.name for path in folder.outputs.iterdir()] == ["kept"]

    def test_a_submission_killed_before_its_supervisor_started_fails(self, home: Home) -> None:
        folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
        backend = LocalBackend(home, {})
        with folder.locked(SUBMISSION_LOCK):
            assert backend.refresh(folder).status is RunStatus.NOT_STARTED
        assert backend.refresh(folder).status is RunStatus.FAILED

    def test_a_script_stopped_between_epochs_resumes_to_the_same_model(
        self, home: Home, tmp_path: Path, tiny_data: Path
    ) -> None:
        backend = LocalBackend(home, {})
        request = JobRequest(
            training={"epochs": 200, "batchsize": 64, "units": 20, "device": "cpu", "seed": 3}, dataset=str(tiny_data)
        )
        killed = submit(prepare(request, home), backend, home)
        until((killed.folder.outputs / "checkpoint.npz").exists, "the first checkpoint")
        worker(killed).kill()
        assert killed.wait(SECONDS).status is RunStatus.FAILED
        assert "model.npz" not in killed.files()
        resumed = submit(resume(killed), backend, home)
        whole = submit(prepare(request, home), backend, home)
        for run in (resumed, whole):
            assert run.wait(2 * SECONDS).status is RunStatus.COMPLETED, run.folder.log_tail()
        expected = arrays(whole)
        for name, array in arrays(resumed).items():
            assert array.tobytes() == expected[name].tobytes(), name


class TestCancel:
    def test_every_process_of_the_job_ends(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", FAMILY, "600")
        pids = family(run)
        run.cancel()
        assert run.wait(SECONDS).status is RunStatus.CANCELED
        assert all(gone(pid) for pid in pids)

    def test_processes_that_outlive_the_script_end_with_it(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", FAMILY, "0")
        assert run.wait(SECONDS).status is RunStatus.COMPLETED
        assert all(gone(pid) for pid in family(run))

    def test_a_script_that_ignores_sigterm_ends(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = start(home, tmp_path / "job", f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEP}")
        until(lambda: run.folder.read_log(), "the script's first word")
        run.cancel()
        assert run.wait(SECONDS).status is RunStatus.CANCELED

    def test_from_another_process(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", SLEEP)
        code = (
            "import sys; from pathlib import Path; from trainer.home import Home; from trainer.listing import open_run;"
            "open_run(Home(Path(sys.argv[1]), Path(sys.argv[1])), 'latest').cancel()"
        )
        subprocess.run([sys.executable, "-c", code, str(home.path)], check=True)
        assert run.wait(SECONDS).status is RunStatus.CANCELED

    @pytest.mark.parametrize("then", [0.0, 253402300799.0])
    def test_whatever_the_clock_said_when_it_was_submitted(self, home: Home, tmp_path: Path, then: float) -> None:
        run = start(home, tmp_path / "job", SLEEP)
        worker(run)
        run.folder.update(created=then, started=then)
        assert [info.status for info in list_infos(home).infos] == [RunStatus.RUNNING]
        run.cancel()
        assert run.wait(SECONDS).status is RunStatus.CANCELED

    @pytest.mark.parametrize("then", [0.0, 253402300799.0])
    def test_a_submission_that_died_while_the_clock_was_wrong(self, home: Home, then: float) -> None:
        folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
        folder.update(created=then)
        assert [info.status for info in list_infos(home).infos] == [RunStatus.FAILED]

    def test_what_was_written_before_is_kept(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", FAMILY, "600")
        family(run)
        run.cancel()
        run.wait(SECONDS)
        assert "pids" in run.files()

    def test_ending_the_supervisor_cancels(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", SLEEP)
        worker(run)
        supervisor(run).send_signal(signal.SIGTERM)
        assert run.wait(SECONDS).status is RunStatus.CANCELED


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_every_file_operation_of_a_runs_end(tmp_path: Path, scene: str) -> None:
    harness = Path(__file__).with_name("kill_finish.py")
    done = subprocess.run(
        [sys.executable, harness, tmp_path, scene],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(harness.parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15
