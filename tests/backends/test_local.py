"""What only a run on this machine can go through: closed terminals, full disks, scripts that rearrange things."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backends.local import LocalBackend
from backends.local_workdir import working_directory
from tests.backends.local_runs import FAMILY, SECONDS, SLEEP, family, gone, start, supervisor, until, worker
from trainer.backend import load_backend
from trainer.errors import ConfigError
from trainer.handle import Run
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.submission import JobRequest, prepare, submit

MODEL = """
import numpy as np
from pathlib import Path
Path("outputs").mkdir(exist_ok=True)
np.savez("outputs/model.npz", w=np.arange(3))
"""


def supervise(home: Home, folder: RunFolder, minute: float = 60.0) -> None:
    """Supervise in the foreground, with minutes as short as wanted; in a process whose children it may end."""
    code = (
        "import sys; from pathlib import Path; from trainer.runfolder import RunFolder;"
        "from backends.local_store import LocalStore; from backends.local_supervisor import supervise;"
        "supervise(RunFolder(Path(sys.argv[1])), LocalStore(Path(sys.argv[2])), minute=float(sys.argv[3]))"
    )
    words = [str(folder.path), str(home.models), str(minute)]
    subprocess.run([sys.executable, "-c", code, *words], check=True)


class TestIndependence:
    def test_a_run_outlives_the_session_it_was_started_from(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "job").mkdir()
        (tmp_path / "job" / "train.py").write_text(f"{MODEL}import time\ntime.sleep(1)\n")
        code = (
            "import os, sys; from pathlib import Path; from trainer.home import Home; from trainer.submission import *;"
            "from backends.local import LocalBackend; home = Home(Path(sys.argv[1]), Path(sys.argv[1]));"
            "run = submit(prepare(JobRequest(script=Path(sys.argv[2])), home), LocalBackend(home, {}), home);"
            "print(run.run_id, flush=True); os.kill(0, 9)"
        )
        shell = subprocess.run(
            [sys.executable, "-c", code, str(home.path), str(tmp_path / "job" / "train.py")],
            start_new_session=True,
            stdout=subprocess.PIPE,
            check=False,
        )
        assert shell.returncode == -signal.SIGKILL
        run = Run(RunFolder(home.runs / shell.stdout.decode().strip()), load_backend("local", home))
        assert run.wait(SECONDS).status is RunStatus.COMPLETED

    def test_two_runs_at_once(self, home: Home, tmp_path: Path) -> None:
        source = (
            "import sys, time\nfrom pathlib import Path\nPath('outputs').mkdir(exist_ok=True)\n"
            "Path('scratch').write_text(sys.argv[1])\ntime.sleep(1)\n"
            "Path('outputs/said').write_text(Path('scratch').read_text())\nprint(sys.argv[1])\n"
        )
        runs = [start(home, tmp_path / word, source, word) for word in ("one", "two")]
        for run, word in zip(runs, ("one", "two"), strict=True):
            assert run.wait(SECONDS).status is RunStatus.COMPLETED
            assert run.file("said").read_text() == word
            assert list(run.logs()) == [word]

    def test_the_job_has_no_input_no_open_file_and_its_own_environment(self, home: Home, tmp_path: Path) -> None:
        source = (
            "import json, os, sys\nfrom pathlib import Path\n"
            "state = {'stdin': sys.stdin.read(), 'fds': os.listdir('/proc/self/fd'), 'cwd': os.getcwd(),\n"
            "  'run': os.environ['TRAINER_RUN_DIR'], 'id': os.environ['TRAINER_RUN_ID'],\n"
            "  'unbuffered': os.environ['PYTHONUNBUFFERED'], 'session': os.getsid(0) == os.getpid(),\n"
            "  'real': not Path('outputs').is_symlink(), 'decoded': os.environ['TRAINER_DECODED_DIR']}\n"
            "Path('outputs/state.json').write_text(json.dumps(state))\n"
        )
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        try:
            run = start(home, tmp_path / "job", source)
        finally:
            os.close(reader)
            os.close(writer)
        assert run.wait(SECONDS).status is RunStatus.COMPLETED, run.folder.log_tail()
        state = json.loads(run.file("state.json").read_text())
        assert state["stdin"] == ""
        assert len(state["fds"]) <= 4  # 0, 1, 2 and the listing's own
        assert state["run"] == str(run.folder.path)
        assert state["id"] == run.run_id
        assert state["cwd"] == str(working_directory(run.folder))
        assert (state["unbuffered"], state["session"], state["real"]) == ("1", True, True)

    def test_the_supervisor_is_light(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", SLEEP)
        worker(run)
        mapped = {Path(region.path).name for region in supervisor(run).memory_maps()}
        run.cancel()
        assert run.wait(SECONDS).status.terminal
        assert not [name for name in mapped if name.startswith(("_multiarray_umath", "libopenblas"))]

    def test_a_job_whose_folder_is_removed_ends(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", SLEEP)
        pids = [worker(run).pid, supervisor(run).pid]

        def removed() -> bool:
            # The job writes into the folder meanwhile, so that one removal can find it filled again.
            shutil.rmtree(run.folder.path, ignore_errors=True)
            return not run.folder.path.exists()

        until(removed, "the removal")
        until(lambda: all(gone(pid) for pid in pids), "the end")


class TestOutputs:
    def test_they_are_seen_while_the_job_runs(self, home: Home, tmp_path: Path) -> None:
        run = start(home, tmp_path / "job", FAMILY, "600")
        family(run)
        assert "pids" in run.files()
        run.cancel()
        run.wait(SECONDS)

    def test_links_among_them_survive(self, home: Home, tmp_path: Path) -> None:
        source = (
            "import os\nfrom pathlib import Path\nPath('outputs/a').write_text('a')\nPath('beside').write_text('b')\n"
            "os.symlink('a', 'outputs/relative')\nos.symlink(os.path.abspath('outputs/a'), 'outputs/absolute')\n"
            "os.symlink(os.path.abspath('beside'), 'outputs/outside')\n"
        )
        run = start(home, tmp_path / "job", source)
        assert run.wait(SECONDS).status is RunStatus.COMPLETED
        assert [run.file(name).read_text() for name in ("relative", "absolute", "outside")] == ["a", "a", "b"]

    @pytest.mark.parametrize(
        ("ending", "files"),
        [
            ("shutil.rmtree('outputs')", []),
            ("shutil.rmtree('outputs'); Path('outputs').mkdir(); Path('outputs/x').touch()", ["x"]),
            ("shutil.rmtree('outputs'); Path('outputs').write_text('')", ["outputs"]),
            ("Path('outputs').rename('other'); Path('other/x').touch(); Path('outputs').symlink_to('other')", ["x"]),
            # Who may read everything finds it, and it is collected.
            (
                "Path('locked').mkdir(); Path('locked/x').touch(); Path('locked').chmod(0)",
                [] if os.geteuid() else ["locked/x"],
            ),
        ],
    )
    def test_whatever_the_script_makes_of_the_directory(
        self, home: Home, tmp_path: Path, ending: str, files: list[str]
    ) -> None:
        run = start(home, tmp_path / "job", f"import atexit, shutil\nfrom pathlib import Path\n{ending}\n")
        assert run.wait(SECONDS).status is RunStatus.COMPLETED, run.folder.log_tail()
        assert [name for name in run.files() if name != "environment.json"] == files
        assert not working_directory(run.folder).exists()

    def test_a_model_that_is_no_safe_npz_fails_the_run(self, home: Home, tmp_path: Path) -> None:
        source = "from pathlib import Path\nPath('outputs/model.npz').write_bytes(b'not a zip')\n"
        run = start(home, tmp_path / "job", source, model_name="m")
        info = run.wait(SECONDS)
        assert info.status is RunStatus.FAILED
        assert info.failure is not None
        assert "registered" in info.failure.message
        assert "model.npz" in run.files()


class TestCheck:
    def test_a_named_device_that_cannot_be_used_writes_nothing(self, home: Home, tiny_data: Path) -> None:
        # A card that does not exist, on a machine with any number of them.
        prepared = prepare(JobRequest(dataset=str(tiny_data), training={"device": "cuda:99"}), home)
        with pytest.raises(ConfigError, match="cuda:99"):
            submit(prepared, LocalBackend(home, {}), home)
        assert not home.path.exists()


class TestLimits:
    def test_a_run_is_stopped_at_its_cap(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "job").mkdir()
        (tmp_path / "job" / "train.py").write_text(SLEEP)
        prepared = prepare(JobRequest(script=tmp_path / "job" / "train.py", max_minutes=3), home)
        folder = RunFolder.create(home.runs, prepared.job, backend="local", snapshot=prepared.snapshot.digest)
        prepared.snapshot.stage(folder.snapshot)
        supervise(home, folder, minute=0.01)
        info = folder.info()
        assert info.status is RunStatus.FAILED
        assert info.failure is not None
        assert "3 min" in info.failure.message
        assert gone(info.detail["pid"])

    def test_a_home_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "train.py").write_text(SLEEP)
        home = Home(tmp_path / "file" / ".trainer", tmp_path)
        prepared = prepare(JobRequest(script=tmp_path / "train.py"), home)
        with pytest.raises(ConfigError, match="Can't create"):
            submit(prepared, LocalBackend(home, {}), home)

    def test_a_working_directory_that_cannot_be_made(self, home: Home, tmp_path: Path) -> None:
        folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
        working_directory(folder).write_text("in the way")
        supervise(home, folder)
        info = folder.info()
        assert info.status is RunStatus.FAILED
        assert info.failure is not None
        assert "could not be started" in info.failure.message

    def test_a_full_disk_fails_the_run_and_says_so(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        (tmp_path / "train.py").write_text(
            "from pathlib import Path\nprint('writing', flush=True)\n"
            "with open('outputs/big', 'wb') as file:\n    while True:\n        file.write(bytes(1 << 16))\n"
        )
        script = Path(__file__).parent / "on_a_small_disk.py"
        inside = (
            f"mount -t tmpfs -o size=6m tmpfs {disk} && exec {sys.executable} {script} {disk} {tmp_path / 'train.py'}"
        )
        trial = ["unshare", "-rm", "true"]
        if not shutil.which("unshare") or subprocess.run(trial, check=False, stderr=subprocess.DEVNULL).returncode:
            pytest.skip("this system lets nobody mount a small disk")
        done = subprocess.run(["unshare", "-rm", "sh", "-c", inside], stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
        assert found["status"] == "Failed"
        assert "the disk is full" in found["failure"]["message"]
        assert found["on_disk"] == "Failed"
