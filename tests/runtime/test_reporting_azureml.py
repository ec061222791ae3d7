"""Scripts that know Azure ML's Run, on this machine: with the SDK installed, and without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import trainer
from trainer.runfolder import RunFolder

Launch = Callable[..., subprocess.CompletedProcess[str]]
SITE = Path(trainer.__file__).parent / "runtime" / "site"

# Puts a finder in front that hides the SDK, as on a machine where it is not installed.
HIDDEN = """
import importlib.machinery, sys
class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "azureml" else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
"""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "20261123-180501-k3xq2m"
    folder.mkdir()
    return folder


@pytest.fixture(params=["installed", "not installed"])
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def launch(tmp_path: Path, run_folder: Path, sdk: str) -> Launch:
    work = tmp_path / "work"
    work.mkdir()

    def run(text: str) -> subprocess.CompletedProcess[str]:
        before = HIDDEN if sdk == "not installed" else ""
        program = f"{before}\nfrom trainer.runtime import reporting\nreporting.install()\n{textwrap.dedent(text)}"
        environment = os.environ | {"TRAINER_RUN_DIR": str(run_folder)}
        return subprocess.run(
            [sys.executable, "-c", program], cwd=work, env=environment, capture_output=True, text=True, check=True
        )

    return run


def test_the_tutorial_style_reports_into_the_run_folder(launch: Launch, run_folder: Path, tmp_path: Path) -> None:
    launch("""
        import sys
        from azureml.core.run import Run
        from azureml.core import Run as Same
        import azureml.core.run
        assert Same is Run is azureml.core.run.Run is azureml.core.Run
        run = Run.get_context()
        assert run is Run.get_context(allow_offline=False) is Run.get_submitted_run()
        run.log("Accuracy", 0.97)
        run.log("Loss", 0.1, step=2)
        run.log_list("list", [1, 2.5])
        run.log_row("row", x=1, y=2)
        run.log_row("row", x=3, y=4)
        run.log_table("table", {"a": [5, 6], "b": 7})
        assert run.get_metrics() == {
            "Accuracy": 0.97, "Loss": 0.1, "list": [1, 2.5],
            "row": {"x": [1, 3], "y": [2, 4]}, "table": {"a": [5, 6], "b": 7},
        }
        assert run.get_metrics(name="Loss") == {"Loss": 0.1}
        run.tag("stage", "dev")
        run.add_properties({"p": 1})
        run.add_properties({"p": 2})
        open("model.bin", "wb").write(b"weights")
        run.upload_file("outputs/model.bin", "model.bin")
        run.upload_file("notes.txt", "model.bin")
        run.upload_folder("folder", "outputs")
        run.log_confusion_matrix("matrix", {"data": [[1]]})
        run.flush()
        run.complete()
        assert run.id == "20261123-180501-k3xq2m" and run.tags == {"stage": "dev"}
        assert "azureml.core.workspace" not in sys.modules, "the SDK was imported for Run alone"
    """)
    assert [(metric.name, metric.value, metric.step) for metric in RunFolder(run_folder).metrics()] == [
        ("Accuracy", 0.97, None),
        ("Loss", 0.1, 2),
        ("list", 1, 0),
        ("list", 2.5, 1),
        ("row/x", 1, 0),
        ("row/y", 2, 0),
        ("row/x", 3, 1),
        ("row/y", 4, 1),
        ("table/a", 5, 0),
        ("table/a", 6, 1),
        ("table/b", 7, 0),
    ]
    labels = json.loads((run_folder / "labels.json").read_text())
    assert labels == {"tags": {"stage": "dev"}, "properties": {"p": "1"}}
    outputs = tmp_path / "work" / "outputs"
    assert (outputs / "model.bin").read_bytes() == b"weights"
    assert (outputs / "notes.txt").read_bytes() == b"weights"
    assert (outputs / "folder" / "model.bin").read_bytes() == b"weights"
    assert json.loads((outputs / "matrix.json").read_text()) == {"data": [[1]]}


def test_a_file_can_only_go_below_outputs(launch: Launch, tmp_path: Path) -> None:
    launch("""
        from azureml.core import Run
        run = Run.get_context()
        for name in ("../x", "/tmp/x", "outputs/../../x", "", "a\\0b"):
            try:
                run.upload_file(name, __import__("io").BytesIO(b"x"))
            except ValueError as error:
                assert "relative path" in str(error)
            else:
                raise AssertionError(name)
    """)
    assert not (tmp_path / "x").exists()


def test_what_needs_azure_says_so(launch: Launch) -> None:
    done = launch("""
        from azureml.core import Run
        try:
            Run.get_context().register_model(model_name="m", model_path="p")
        except AttributeError as error:
            print(error)
        assert not hasattr(Run.get_context(), "experiment")
    """)
    assert "register_model needs Azure ML" in done.stdout


def test_the_rest_of_the_sdk_is_there_or_named(launch: Launch, sdk: str) -> None:
    done = launch("""
        from azureml.core import Run
        run = Run.get_context()
        try:
            from azureml.core import Workspace
        except ImportError as error:
            print(error)
        else:
            import azureml.core
            from azureml.core.run import Run as RealRun
            from azureml.core.model import Model
            assert Workspace.__module__ == "azureml.core.workspace"
            assert azureml.core.Model is Model
            assert RealRun.__module__ == "azureml.core.run"
            assert RealRun.get_context() is run
            print("real")
    """)
    assert ("not installed here" if sdk == "not installed" else "real") in done.stdout


@pytest.mark.parametrize("sdk", ["installed"], indirect=True)
@pytest.mark.parametrize(
    "statement",
    [
        "from azureml.core.model import Model; import azureml.core.model; assert azureml.core.model.Model is Model",
        "from azureml.core.run import Run, get_run; assert get_run",
        "import azureml.data; from azureml.core import Model; assert Model",
        "import importlib; assert importlib.import_module('azureml.core.workspace').Workspace",
    ],
)
def test_the_sdk_is_loaded_once_whatever_is_asked_of_it_first(launch: Launch, statement: str) -> None:
    done = launch(f"""
        {statement}
        import sys
        import azureml.core.run as real
        assert "azureml.core.workspace" in sys.modules
        assert type(sys.modules["azureml.core"]) is type(sys)
        real.Run.get_context().log("after", 1)
        print(real.__spec__.loader.__class__.__name__)
    """)
    assert done.stdout == "SourceFileLoader\n"


@pytest.mark.parametrize("sdk", ["not installed"], indirect=True)
def test_a_child_interpreter_gets_the_stand_in_through_the_path(run_folder: Path, tmp_path: Path, sdk: str) -> None:
    program = f"{HIDDEN}\nfrom azureml.core.run import Run; Run.get_context().log('below', 1)"
    environment = os.environ | {"TRAINER_RUN_DIR": str(run_folder), "PYTHONPATH": str(SITE)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    assert [metric.name for metric in RunFolder(run_folder).metrics()] == ["below"]
