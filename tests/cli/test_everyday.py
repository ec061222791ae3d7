"""What people do every day with scripts of their own, and with Chainer's: each was a fault once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND, Project

SAVE = """
import os
import chainer
import chainer.links as L
import numpy as np

model = chainer.Chain()
with model.init_scope():
    model.l1 = L.Linear(6, 3)
    model.aux = L.Linear(None, 3)
model.l1(np.zeros((1, 6), "f"))
{change}
os.makedirs("outputs", exist_ok=True)
chainer.serializers.save_npz("outputs/model.npz", model)
"""


def ran(project: Project, *words: str, **options: Any) -> dict[str, Any]:
    done = project.trainer("run", "--json", "--script", *words, **options)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"stderr": done.stderr}


def kept(outputs: str) -> list[str]:
    top = Path(outputs)
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())


class TestWhatARunKeeps:
    def test_files_outside_outputs_are_kept_at_their_own_paths(self, project: Project) -> None:
        (project.path / "data.txt").write_text("came with the script")
        script = project.script("""
import os
os.makedirs("result")
os.makedirs("outputs", exist_ok=True)
os.makedirs("__pycache__", exist_ok=True)
open("__pycache__/x.pyc", "w").write("x")
open("outputs/kept.txt", "w").write("kept")
open("result/model_iter_100.npz", "wb").write(b"x" * 2_000_000)
open("result/log", "w").write("x")
open("data.txt", "a").write(", and was changed")
""")
        done = project.trainer("run", "--script", script, "--no-register")
        assert "/outputs/  (5 files, result/)" in done.stdout
        assert "not kept" not in done.stderr
        found = json.loads(project.trainer("show", "latest", "--json").stdout)
        assert found["warnings"] == []
        assert kept(found["outputs"]) == [
            *("data.txt", "environment.json", "kept.txt", "result/log", "result/model_iter_100.npz")
        ]
        assert Path(found["outputs"], "data.txt").read_text() == "came with the script, and was changed"

    def test_what_is_beyond_the_limit_is_named(self, project: Project) -> None:
        script = project.script("open('large', 'w').write('x' * 300_000)\nopen('log', 'w').write('x')")
        found = ran(project, script, "--no-register", "--collect", "0.5MB")
        (warning,) = found["warnings"]
        assert warning.startswith("1 file, 300.0 kB, written outside outputs/ was not kept: large (300.0 kB). ")
        assert f"warning: {warning}" in found["stderr"].replace("\n", " ")
        assert kept(found["outputs"]) == ["environment.json", "log"]
        again = json.loads(project.trainer("rerun", "latest", "--json").stdout)
        assert kept(again["outputs"]) == ["environment.json", "log"]
        found = ran(project, script, "--no-register", env={"TRAINER_COLLECT": "off"})
        assert found["warnings"][0].startswith("2 files, 300.0 kB, written outside outputs/ were not kept: large")
        done = project.trainer("run", "--script", script, "--collect", "some")
        assert done.returncode == 2
        assert "--collect must be off, all, or a size such as 500MB, not 'some'" in done.stderr

    def test_what_travelled_unchanged_is_not_kept_again(self, project: Project) -> None:
        (project.path / "data.txt").write_text("came with the script")
        script = project.script("open('outputs/a.txt', 'w').write(open('data.txt').read())")
        found = ran(project, script, "--no-register")
        assert found["warnings"] == []
        assert kept(found["outputs"]) == ["a.txt", "environment.json"]

    @pytest.mark.parametrize("end", ["raise ValueError('stop')", "import os\nos.kill(os.getpid(), 9)"])
    def test_a_failed_run_keeps_them_too(self, project: Project, end: str) -> None:
        found = ran(project, project.script(f"open('half', 'w').write('x')\n{end}"), "--no-register")
        assert (found["status"], found["warnings"]) == ("Failed", [])
        assert kept(found["outputs"]) == ["environment.json", "half"]

    def test_a_parameter_that_was_never_used_is_registered(self, project: Project) -> None:
        found = ran(project, project.script(SAVE.format(change="")))
        assert (found["status"], found["model"]["version"], found["warnings"]) == ("Completed", 1, [])
        fetched = project.trainer("fetch", f"{found['model']['name']}:1", "-o", "copy")
        assert fetched.returncode == 0, fetched.stderr

    def test_a_model_of_nan_is_not_registered(self, project: Project) -> None:
        found = ran(project, project.script(SAVE.format(change="model.l1.W.array[0, 0] = np.nan")))
        assert (found["status"], found["model"]) == ("Completed", None)
        (warning,) = found["warnings"]
        assert "was not registered: the training diverged, and l1/W holds values that are not numbers" in warning

    def test_a_training_that_diverged_says_so(self, project: Project) -> None:
        done = project.trainer("run", "--dataset", str(project.data), "--epochs", "1", "--lr", "1e30", "--json")
        found = json.loads(done.stdout)
        assert (found["status"], found["model"]) == ("Completed", None)
        assert found["warnings"][0] == "The training diverged: not a finite number at the end: Loss, Validation loss."
        assert "was not registered" in found["warnings"][1]


class TestWhatTravels:
    def test_what_gitignore_keeps_back_is_said_and_the_failure_helps(self, project: Project) -> None:
        (project.path / ".gitignore").write_text("data/\n*.npz\nenv/\n")
        (project.path / "data").mkdir()
        (project.path / "data" / "train.txt").write_text("x" * 3_000_000)
        (project.path / "weights.npz").write_text("x")
        (project.path / "env").mkdir()
        (project.path / "env" / "pyvenv.cfg").touch()
        script = project.script("open('data/train.txt')")
        found = ran(project, script, "--no-register")
        said = " ".join(found["stderr"].split())
        assert (
            ".gitignore keeps back data/ (1 file, 3.0 MB), *.npz (1 file, 0.0 MB). To choose otherwise, add a" in said
        )
        assert "data/train.txt did not travel with the script. If .gitignore names it, write an .amlignore" in said
        (project.path / ".amlignore").write_text("*.npz\n")
        assert ran(project, script, "--no-register")["status"] == "Completed"

    def test_a_file_that_grows_is_taken_as_first_seen(self, project: Project) -> None:
        script = project.script("print(open('grow.log').read().count('line'))")
        (project.path / "grow.log").write_text("line\n" * 1000)
        code = "import time\nwhile True:\n    open('grow.log', 'a').write('line\\n' * 50)\n    time.sleep(0.001)"
        with subprocess.Popen([sys.executable, "-c", code], cwd=project.path) as writer:
            try:
                for _ in range(3):
                    assert ran(project, script, "--no-register")["status"] == "Completed"
            finally:
                writer.kill()

    def test_our_own_output_stays_behind(self, project: Project) -> None:
        script = project.script("import os; print(sorted(os.listdir()))")
        with (project.path / "err.log").open("w") as errors, (project.path / "out.log").open("w") as output:
            started = subprocess.run(
                [*COMMAND, "run", "--script", script, "--no-register"],
                cwd=project.path,
                env=project.environment,
                stdout=output,
                stderr=errors,
                check=False,
            )
        assert started.returncode == 0, (project.path / "err.log").read_text()
        # What the script printed is in either, as the command shows it.
        shown = (project.path / "err.log").read_text() + (project.path / "out.log").read_text()
        assert "'script.py'" in shown
        assert "'err.log'" not in shown
        assert "'out.log'" not in shown

    def test_much_beside_the_script_is_said(self, project: Project) -> None:
        with (project.path / "large.bin").open("wb") as file:
            file.truncate(150_000_000)
        script = project.script("print('done')")
        done = project.trainer("package", "--script", script)
        assert (
            "150 MB beside the script travel with it, and every run keeps a copy: large.bin (150.0 MB)" in done.stderr
        )
        assert ".amlignore" in done.stderr

    def test_a_job_cannot_change_the_snapshot(self, project: Project) -> None:
        (project.path / "data.txt").write_text("as submitted")
        script = project.script("open('data.txt', 'r+').write('AS CHANGED')")
        found = ran(project, script, "--no-register")
        assert (project.runs / found["run_id"] / "snapshot" / "data.txt").read_text() == "as submitted"


class TestAdvice:
    def failure(self, project: Project, *words: str) -> str:
        done = project.trainer("run", "--no-register", "--script", *words)
        assert done.returncode == 1
        return " ".join(done.stderr.split())

    def test_a_script_that_starts_in_its_own_folder(self, project: Project) -> None:
        (project.path / "lib").mkdir()
        (project.path / "lib" / "__init__.py").touch()
        (project.path / "run1").mkdir()
        script = project.script("import sys\nsys.path.append('..')\nimport lib", "run1/s.py")
        said = self.failure(project, script, "--source", ".")
        assert "meant to start in run1/ begins with os.chdir(" in said
        assert "../outputs" in said

    def test_one_element_arrays(self, project: Project) -> None:
        np = pytest.importorskip("numpy")
        if tuple(map(int, np.__version__.split(".")[:2])) < (2, 4):
            pytest.skip("this NumPy takes them")
        script = project.script("import numpy as np\nprint(float(np.ones(1)))")
        said = self.failure(project, script)
        assert "NumPy 2.4 and newer need a.item()" in said
        assert "trainer docs compat" in said

    def test_a_number_that_is_text(self, project: Project) -> None:
        script = project.script("import sys\nprint(sys.argv[2] >= 0)")
        assert "add_argument(..., type=int)" in self.failure(project, script, "--", "--gpu_id", "-1")

    def test_no_advice_where_none_is_known(self, project: Project) -> None:
        said = self.failure(project, project.script("open('/nowhere/x')"))
        assert "did not travel" not in said
        assert "hint: See: trainer logs" in said


class TestResume:
    def test_the_hint_names_what_the_script_wrote(self, project: Project) -> None:
        script = project.script(
            "import sys\nfor n in (200, 100): open(f'outputs/snapshot_iter_{n}', 'w').close()\n"
            "open('outputs/log', 'w').close()\nsys.exit(1)"
        )
        run = ran(project, script, "--no-register")["run_id"]
        past = time.time() - 100
        for name in ("snapshot_iter_100", "snapshot_iter_200"):
            os.utime(project.runs / run / "outputs" / name, (past, past))
        done = project.trainer("resume", run)
        assert done.returncode == 2
        assert f"trainer resume {run} -- --resume _trainer_job/resume/snapshot_iter_200" in done.stderr

    def test_the_runtimes_own_file_is_nothing_to_continue_from(self, project: Project) -> None:
        run = ran(project, project.script("raise SystemExit(1)"), "--no-register")["run_id"]
        done = project.trainer("resume", run)
        assert done.returncode != 0
        assert "left no outputs to continue from" in done.stderr

    def test_a_scripts_own_words_stay_and_starting_over_is_said(self, project: Project) -> None:
        script = project.script("import sys\nopen('outputs/state', 'w').close()\nprint('ARGS', sys.argv[1:])")
        run = ran(project, script, "--no-register", "--", "--resume", "always", "--epoch", "1")["run_id"]
        done = project.trainer("resume", run, "--", "--epoch", "3")
        assert done.returncode == 0, done.stderr
        assert "ARGS ['--resume', 'always', '--epoch', '1', '--epoch', '3']" in done.stdout + done.stderr
        said = " ".join(done.stderr.split())
        assert "script.py starts over: nothing tells it of the earlier run's outputs" in said
        assert "-- --resume _trainer_job/resume/state" in said
        told = project.trainer("resume", run, "--", "--from", "_trainer_job/resume/state")
        assert told.returncode == 0
        assert "starts over" not in told.stderr


@pytest.mark.slow
def test_rows_tables_and_steps_are_the_same_on_both_backends(project: Project) -> None:
    script = project.script("""
from azureml.core import Run
run = Run.get_context()
run.log("plain", 1.5)
run.log("plain", 2.5)
run.log_row("row", x=1, y=2)
run.log_row("row", x=3, y=4)
run.log_row("one", x=1)
run.log_table("table", {"a": [5, 6], "b": [7, 8]})
""")

    def lines(found: dict[str, Any]) -> list[tuple[str, float, float | None]]:
        text = (project.runs / found["run_id"] / "metrics.jsonl").read_text()
        return sorted(
            ((line["name"], line["value"], line["step"]) for line in map(json.loads, text.splitlines())), key=str
        )

    here = ran(project, script, "--no-register")
    there = ran(project, script, "--no-register", "--backend", "azureml", "--emulator")
    assert there["status"] == "Completed", there["stderr"]
    assert lines(there) == lines(here)
    assert here["metrics"] == there["metrics"]


@pytest.mark.slow
def test_azure_keeps_what_is_written_outside_outputs_too(project: Project) -> None:
    script = project.script("""
import os
os.makedirs("result")
open("result/log", "w").write("x")
open("large", "w").write("x" * 300_000)
raise ValueError("stop")
""")
    words = (script, "--no-register", "--collect", "0.5MB")
    here, there = ran(project, *words), ran(project, *words, "--backend", "azureml", "--emulator")
    assert (there["status"], kept(there["outputs"])) == ("Failed", ["environment.json", "result/log"])
    assert kept(here["outputs"]) == kept(there["outputs"])
    assert there["warnings"] == here["warnings"]
    assert "large (300.0 kB)" in there["warnings"][0]
