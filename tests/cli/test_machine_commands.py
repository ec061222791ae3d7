"""``trainer doctor``, ``config``, ``data``, ``completion``."""

import json
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND, Project


def findings(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in report["findings"]}


def test_doctor_finds_this_machine_fit(project: Project) -> None:
    ran = project.trainer("doctor", "--json")
    assert ran.returncode == 0, ran.stdout
    report = json.loads(ran.stdout)
    found = findings(report)
    assert report["works"] is True
    # Everything but CuPy, which is told with the devices, and Chainer.
    declared = set(metadata("chainer-trainer").get_all("Provides-Extra") or ()) - {"chainer", "cuda12"}
    assert {finding["name"] for finding in report["findings"] if finding["area"] == "extras"} == declared
    assert found["import chainer"]["state"] == "ok"
    assert found["chainer"]["found"] == "7.8.1"
    assert found["BLAS threads"]["found"].startswith("1 ")
    if not report["devices"]["usable"]:
        assert report["devices"]["reason"] in found["gpu"]["found"]
    assert all(finding["fix"] for finding in found.values() if finding["state"] == "fault")
    shown = project.trainer("doctor").stdout
    assert shown.rstrip().endswith("Training works here.")
    assert not (project.path / ".trainer").exists(), "looking changes nothing"


def test_doctor_names_each_fault_and_its_fix(project: Project, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    (project.path / "pyproject.toml").write_text("[tool.trainer]\nepoch = 1\n")
    ran = project.trainer("doctor", "--json", env={"TRAINER_HOME": str(blocked / "home")})
    assert ran.returncode == 3
    found = findings(json.loads(ran.stdout))
    assert found["runs and models"]["state"] == "fault"
    assert "TRAINER_HOME" in found["runs and models"]["fix"]
    assert found["settings"]["state"] == "fault"
    assert found["settings"]["fix"] == "Did you mean 'epochs'?"
    ran = project.trainer("doctor", "--json", env={"TRAINER_THREADS": "none"})
    found = findings(json.loads(ran.stdout))
    assert (ran.returncode, found["import chainer"]["state"]) == (3, "fault")
    assert "TRAINER_THREADS" in found["import chainer"]["found"]


def test_doctor_sees_a_broken_library(project: Project, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "chainer"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('half of me is missing')\n")
    ran = project.trainer("doctor", "--json", env={"PYTHONPATH": str(broken.parent)})
    assert ran.returncode == 3
    found = findings(json.loads(ran.stdout))["import chainer"]
    assert (found["state"], found["found"]) == ("fault", "ImportError: half of me is missing")
    assert "uv sync" in found["fix"]


def test_config_shows_each_source(project: Project) -> None:
    (project.path / "pyproject.toml").write_text("[tool.trainer]\nunits = 50\n")
    ran = project.trainer("config", "--json", env={"TRAINER_SEED": "7"})
    shown = json.loads(ran.stdout)
    assert shown["settings"]["units"] == {"value": 50, "source": str(project.path / "pyproject.toml")}
    assert shown["settings"]["seed"] == {"value": 7, "source": "TRAINER_SEED"}
    assert shown["settings"]["backend"] == {"value": "local", "source": "default"}
    assert shown["home"] == str(project.path / ".trainer")
    lines = project.trainer("config").stdout.splitlines()
    assert ["units", "50", str(project.path / "pyproject.toml")] in [line.split() for line in lines]


def test_settings_reach_the_job(project: Project) -> None:
    (project.path / "pyproject.toml").write_text("[tool.trainer]\nunits = 50\nepochs = 7\nvm-size = 'x'\n")
    ran = project.trainer("run", "--dry-run", "--json", "--dataset", str(project.data), env={"TRAINER_EPOCHS": "3"})
    assert ran.returncode == 0, ran.stderr
    command = " ".join(json.loads(ran.stdout)["command"])
    assert "--epochs 3" in command
    assert "--units 50" in command
    # They are our script's; another script never asked for them.
    name = project.script("print(1)\n")
    ran = project.trainer("run", "--dry-run", "--json", "--script", name)
    assert json.loads(ran.stdout)["command"][-1] == name


def test_a_wrong_setting_ends_with_three(project: Project) -> None:
    (project.path / "pyproject.toml").write_text("[tool.trainer]\nunits = 'many'\n")
    ran = project.trainer("models")
    assert ran.returncode == 3
    assert f"{project.path / 'pyproject.toml'}, [tool.trainer]: units must be a whole number" in ran.stderr


def test_data(project: Project, tmp_path: Path) -> None:
    listed = json.loads(project.trainer("data", "list", "--json").stdout)
    assert [item["name"] for item in listed] == ["mnist", "fashion-mnist", "mnist-5k"]
    assert project.trainer("data", "list").stdout.count("\n") == 4
    good = project.trainer("data", "verify", str(project.data), "--json")
    assert (good.returncode, json.loads(good.stdout)["ok"]) == (0, True)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in project.data.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes()[:-1])
    bad = project.trainer("data", "verify", str(damaged))
    assert bad.returncode == 1
    assert "Not all four files are valid." in bad.stderr
    unreachable = project.trainer("data", "download", "mnist", env={"TRAINER_DATA_DIR": str(tmp_path / "cache")})
    assert unreachable.returncode == 3
    assert "hint: " in unreachable.stderr


def complete(project: Project, line: str, tmp_path: Path) -> list[str]:
    answer = tmp_path / "answer"
    environment = project.environment | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \n",
    }
    ran = subprocess.run(COMMAND, cwd=project.path, env=environment, capture_output=True, check=False)
    assert ran.stdout == b""
    return [word.strip() for word in answer.read_text().split("\n") if word.strip()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trainer ev", {"evaluate"}),
        ("trainer run --epo", {"--epochs"}),
        ("trainer run --dataset mni", {"mnist", "mnist-5k"}),
        ("trainer run --backend ", {"local", "azureml"}),
        ("trainer fetch chainer", {"chainer-dnn-mnist"}),
        ("trainer fetch chainer-dnn-mnist:", {"chainer-dnn-mnist:1"}),
        ("trainer data ver", {"verify"}),
        ("trainer data download fash", {"fashion-mnist"}),
        ("trainer completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_completion(trained_once: Project, tmp_path: Path, line: str, expected: set[str]) -> None:
    assert expected <= set(complete(trained_once, line, tmp_path))


def test_completion_of_run_ids(trained_once: Project, tmp_path: Path) -> None:
    run_id = next(trained_once.runs.iterdir()).name
    assert set(complete(trained_once, "trainer show 2", tmp_path)) == {run_id}
    assert "latest" in complete(trained_once, "trainer attach ", tmp_path)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_code(project: Project, shell: str) -> None:
    ran = project.trainer("completion", shell)
    assert ran.returncode == 0
    assert "trainer" in ran.stdout
    if shell == "bash" and Path("/bin/bash").exists():
        subprocess.run(["/bin/bash", "-n"], input=ran.stdout, text=True, check=True)


def test_the_emulator_needs_its_extra(project: Project, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "fastapi"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not here', name='fastapi')\n")
    (hidden.parent / "pydantic.py").write_text("raise ImportError('not here', name='pydantic')\n")
    ran = project.trainer("emulator", env={"PYTHONPATH": str(hidden.parent)})
    assert ran.returncode == 3
    assert "'emulator'" in ran.stderr
    assert "uv sync --extra emulator" in ran.stderr


def test_the_module_and_the_script_are_one(project: Project) -> None:
    script = Path(sys.executable).with_name("trainer")
    if not script.exists():
        pytest.skip("trainer is not installed as a script here")
    ran = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == project.trainer("--version").stdout


def test_with_mirrors_off_nothing_is_promised(project: Project, tmp_path: Path) -> None:
    empty = {"TRAINER_DATA_DIR": str(tmp_path / "empty"), "TRAINER_DATA_MIRRORS": "off"}
    listed = project.trainer("data", "list", env=empty)
    where = {line.split()[0]: line for line in listed.stdout.splitlines()[1:]}
    assert where["mnist"].endswith("  not here")
    assert where["fashion-mnist"].endswith("  not here")
    assert where["mnist-5k"].endswith("  made when used")
    assert listed.stderr == "TRAINER_DATA_MIRRORS=off: nothing is downloaded.\n"
    findings = json.loads(project.trainer("doctor", "--json", env=empty).stdout)["findings"]
    data = {finding["name"]: finding for finding in findings if finding["area"] == "data"}
    for name in ("mnist", "fashion-mnist"):
        assert data[name]["state"] == "note"
        assert data[name]["found"] == "not in the cache, and TRAINER_DATA_MIRRORS is off"
        assert data[name]["fix"] == f"Unset it, then: trainer data download {name}"
    assert data["mnist-5k"]["found"] == "made here when it is used"
