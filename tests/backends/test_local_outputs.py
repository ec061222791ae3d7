"""What a script may leave as its outputs: the run ends with a true status and keeps what can be kept."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backends.local_workdir import collect_outputs, make_workdir, working_directory
from tests.backends.local_runs import SECONDS, start
from trainer.errors import DamagedRecordError, NotFoundError
from trainer.handle import Run
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import RunStatus
from trainer.runfolder import RunFolder
from trainer.trees import remove_tree, walk

ODDITIES = ("file", "fifo", "gone", "link out", "link to itself", "link to nothing", "link up")
MODEL = "import os, sys\nimport numpy as np\nnp.savez('outputs/model.npz', w=np.arange(3.))\n"


@pytest.fixture
def folder(home: Home) -> RunFolder:
    """A run whose script has just ended, with a file in its outputs."""
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
    (make_workdir(folder) / "outputs" / "kept").write_text("kept")
    return folder


def made(folder: RunFolder) -> Path:
    return working_directory(folder) / "outputs"


def files(folder: RunFolder) -> list[str]:
    return Run(folder, None).files()  # type: ignore[arg-type]


class TestLinks:
    def test_to_a_file_beside_the_outputs_becomes_that_file(self, folder: RunFolder) -> None:
        (made(folder).parent / "best").write_text("best")
        (made(folder) / "model.npz").symlink_to("../best")
        assert collect_outputs(folder) == []
        assert (folder.outputs / "model.npz").read_text() == "best"
        assert not (folder.outputs / "model.npz").is_symlink()

    def test_to_a_folder_becomes_that_folder_with_what_its_own_links_show(self, folder: RunFolder) -> None:
        work = made(folder).parent
        for name in ("a", "b"):
            (work / name / "sub").mkdir(parents=True)
            (work / name / "sub" / "file").write_text(name)
        (work / "a" / "to_b").symlink_to("../b")
        (work / "b" / "to_a").symlink_to(work / "a")
        (work / "b" / "up").symlink_to("..")
        (made(folder) / "one").symlink_to("../a")
        (made(folder) / "two").symlink_to("../a/sub")
        problems = collect_outputs(folder)
        assert (folder.outputs / "one" / "to_b" / "sub" / "file").read_text() == "b"
        assert (folder.outputs / "one" / "to_b" / "to_a" / "sub" / "file").read_text() == "a"
        assert (folder.outputs / "two" / "file").read_text() == "a"
        (problem,) = problems
        assert problem == "outputs/one/to_b/up is a link to a directory that holds the outputs; it was removed."

    def test_within_the_outputs_stay_links_whatever_their_form(self, folder: RunFolder) -> None:
        (made(folder) / "relative").symlink_to("kept")
        (made(folder) / "absolute").symlink_to(made(folder) / "kept")
        assert collect_outputs(folder) == []
        assert files(folder) == ["absolute", "kept", "relative"]
        assert (folder.outputs / "absolute").readlink() == Path("kept")

    def test_out_of_the_working_directory_are_left_and_never_followed(self, folder: RunFolder, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        for name, target in (("file", tmp_path / "secret"), ("root", Path("/")), ("runs", folder.path.parent)):
            (made(folder) / name).symlink_to(target)
        assert collect_outputs(folder) == []
        assert files(folder) == ["kept"]
        assert (folder.outputs / "file").is_symlink()

    @pytest.mark.parametrize("target", ["loop", "../nothing", "x" * 200 + "/" + "y" * 200, "kept/no"])
    def test_that_lead_nowhere_are_named(self, folder: RunFolder, target: str) -> None:
        (made(folder) / "loop").symlink_to(target)
        (problem,) = collect_outputs(folder)
        assert "outputs/loop" in problem
        assert files(folder) == ["kept"]


class TestOddities:
    def test_special_files_stay_and_are_no_outputs(self, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        os.mkfifo(made(folder) / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            monkeypatch.chdir(made(folder))  # an address has a hundred bytes at most
            server.bind("socket")
        assert collect_outputs(folder) == []
        assert files(folder) == ["kept"]

    def test_a_name_that_is_not_utf8_and_a_file_that_cannot_be_read(self, folder: RunFolder) -> None:
        odd = os.fsencode(made(folder)) + b"/\xff\xfe"
        Path(os.fsdecode(odd)).write_text("x")
        Path(os.fsdecode(odd) + "link").symlink_to("../nothing")
        (made(folder) / "shut").mkdir()
        (made(folder) / "shut" / "file").write_text("x")
        (made(folder) / "shut" / "file").chmod(0)
        (made(folder) / "shut").chmod(0)
        (problem,) = collect_outputs(folder)
        assert problem == "outputs/\\xff\\xfelink is a link to nothing."
        assert len(files(folder)) == 3

    def test_a_path_longer_than_the_system_takes(self, folder: RunFolder) -> None:
        _nest(made(folder), 60)
        _nest(made(folder).parent / "scratch", 60)
        (problem,) = collect_outputs(folder)
        assert "without a look at the links in it: File name too long" in problem
        assert files(folder) == ["kept"]
        assert not working_directory(folder).exists()
        remove_tree(folder.outputs)

    @pytest.mark.parametrize("kind", ODDITIES)
    def test_something_else_in_the_place_of_the_outputs(self, folder: RunFolder, tmp_path: Path, kind: str) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
        outputs = made(folder)
        remove_tree(outputs)
        makers: dict[str, Callable[[], object]] = {
            "file": lambda: outputs.write_text("x"),
            "fifo": lambda: os.mkfifo(outputs),
            "gone": lambda: None,
            "link out": lambda: outputs.symlink_to(tmp_path / "out"),
            "link to itself": lambda: outputs.symlink_to("outputs"),
            "link to nothing": lambda: outputs.symlink_to("nothing"),
            "link up": lambda: outputs.symlink_to("."),
        }
        makers[kind]()
        problems = collect_outputs(folder)
        assert len(problems) == (kind in ("file", "fifo", "link out", "link up", "link to itself"))
        assert files(folder) == (["outputs"] if kind == "file" else [])
        assert (tmp_path / "out" / "theirs").exists()
        assert collect_outputs(folder) == []

    def test_another_folder_in_the_place_of_the_runs_own(self, folder: RunFolder) -> None:
        folder.outputs.unlink()
        folder.outputs.mkdir()
        (folder.outputs / "theirs").touch()
        (problem,) = collect_outputs(folder)
        assert "it is now" in problem
        assert files(folder) == ["kept"]
        assert (folder.path / "outputs.1" / "theirs").exists()

    def test_what_a_killed_job_was_writing_is_removed(self, folder: RunFolder) -> None:
        for name in (".checkpoint.npz.ab12_d8z.tmp", ".environment.json.abcdefgh.tmp", ".mine.abcdefgh.tmp"):
            (made(folder) / name).touch()
        assert collect_outputs(folder) == []
        assert files(folder) == [".mine.abcdefgh.tmp", "kept"]


class TestRuns:
    """The same through a script, its supervisor and the record."""

    def end(self, home: Home, tmp_path: Path, source: str, **request: object) -> Run:
        run = start(home, tmp_path / "job", MODEL + source, **{"model_name": "m", **request})
        run.wait(SECONDS)
        return run

    def test_a_loop_is_named_and_the_model_registered(self, home: Home, tmp_path: Path) -> None:
        info = self.end(home, tmp_path, "os.symlink('a', 'outputs/a')\n").info()
        assert (info.status, info.warnings) == (RunStatus.COMPLETED, ("outputs/a is a link that leads to itself.",))
        assert info.model

    @pytest.mark.parametrize(
        ("source", "what"),
        [("os.mkfifo('outputs/model.npz')", "a named"), ("os.mkdir('outputs/model.npz')", "a dir")],
    )
    def test_a_model_that_is_no_file(self, home: Home, tmp_path: Path, source: str, what: str) -> None:
        info = self.end(home, tmp_path, f"os.remove('outputs/model.npz')\n{source}\n").info()
        assert (info.status, info.model) == (RunStatus.COMPLETED, None)
        assert f"left {what}" in info.warnings[0]

    def test_a_record_that_the_script_spoils_is_written_anew(self, home: Home, tmp_path: Path) -> None:
        run = self.end(home, tmp_path, "open(os.environ['TRAINER_RUN_DIR'] + '/status.json', 'w').write('{')\n")
        info = run.info()
        assert (info.status, info.model is not None) == (RunStatus.COMPLETED, True)
        (warning,) = info.warnings
        aside = Path(warning.rpartition(" ")[2].rstrip("."))
        assert aside.read_text() == "{"
        assert aside.is_relative_to(home.path / "damaged")

    def test_spoiled_metrics_and_versions_are_named(self, home: Home, tmp_path: Path) -> None:
        source = (
            "metrics = open(os.environ['TRAINER_RUN_DIR'] + '/metrics.jsonl', 'ab')\n"
            'metrics.write(b\'{"name": "Pr\\xe9", "value": 1}\\n\')\nmetrics.close()\n'
            "open('outputs/environment.json', 'wb').write(b'{\"site\": \"Z\\xfcrich\"}')\nos._exit(0)\n"
        )
        info = self.end(home, tmp_path, source).info()
        assert (info.status, info.model is not None) == (RunStatus.COMPLETED, True)
        assert [("metrics.jsonl" in text, "not UTF-8" in text) for text in info.warnings] == [
            (True, True),
            (False, True),
        ]

    def test_a_folder_that_the_script_removes_ends_the_run(self, home: Home, tmp_path: Path) -> None:
        source = (
            "import shutil, time\nshutil.rmtree(os.environ['TRAINER_RUN_DIR'], ignore_errors=True)\ntime.sleep(1)\n"
        )
        run = start(home, tmp_path / "job", source)
        # Either the folder is gone, and said to be, or its record was written anew and says how the script ended.
        try:
            assert run.wait(SECONDS).status.terminal
        except (DamagedRecordError, NotFoundError) as error:
            assert run.run_id in error.message  # noqa: PT017

    def test_a_log_of_endless_lines(self, home: Home, tmp_path: Path) -> None:
        run = self.end(home, tmp_path, "for _ in range(10): sys.stdout.write('x' * 10**6)\nraise SystemExit(7)\n")
        info = run.info()
        assert info.failure
        assert info.failure.exit_code == 7
        assert max(map(len, info.failure.log_tail)) <= 2000
        assert (run.folder.path / "status.json").stat().st_size < 100_000

    def test_a_full_record_of_links(self, home: Home, tmp_path: Path) -> None:
        info = self.end(home, tmp_path, "for i in range(300): os.symlink('no', f'outputs/{i}')\n").info()
        assert info.status is RunStatus.COMPLETED
        assert len(info.warnings) == 51
        assert info.warnings[-1] == "250 more warnings are not kept."


def _nest(top: Path, depth: int) -> None:
    """Directories within directories, until the path is longer than 4,096 bytes."""
    here = os.open(".", os.O_RDONLY)
    top.mkdir(exist_ok=True)
    os.chdir(top)
    try:
        for _ in range(depth):
            Path("d" * 100).mkdir()
            os.chdir("d" * 100)
        Path("file").touch()
    finally:
        os.fchdir(here)
        os.close(here)


def test_a_tree_of_any_depth_and_any_permissions_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "shut").mkdir(parents=True)
    (top / "shut" / "file").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (top / "link").symlink_to(tmp_path / "kept")
    _nest(top, 1500)
    (top / "shut").chmod(stat.S_IRUSR)
    assert sum(1 for _ in walk(top)) > 5
    remove_tree(top)
    assert not top.exists()
    assert (tmp_path / "kept" / "file").exists()


def test_the_arrays_of_a_linked_model_are_those_that_were_saved(home: Home, tmp_path: Path) -> None:
    source = (
        "os.makedirs('ckpt')\nos.rename('outputs/model.npz', 'ckpt/best.npz')\n"
        "os.symlink('../ckpt/best.npz', 'outputs/model.npz')\n"
    )
    run = start(home, tmp_path / "job", MODEL + source, model_name="m")
    info = run.wait(SECONDS)
    assert (info.status, info.warnings, info.model is not None) == (RunStatus.COMPLETED, (), True)
    with np.load(run.folder.outputs / "model.npz") as arrays:
        assert arrays["w"].tolist() == [0, 1, 2]
