"""Reporting from scripts that run as their own processes, as in a run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.runfolder import RunFolder
from trainer.runtime.faults import RuntimeFault
from trainer.runtime.sinks import FolderSink, clean_name, number

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "20261123-180501-k3xq2m"
    folder.mkdir()
    return folder


@pytest.fixture
def launch(tmp_path: Path, run_folder: Path) -> Launch:
    """Runs a script's text under the launcher, in a job's working directory."""
    work = tmp_path / "work"
    work.mkdir()

    def run(text: str, *, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        (work / "script.py").write_text(textwrap.dedent(text))
        environment = os.environ | {"TRAINER_RUN_DIR": str(run_folder)} | variables
        command = [sys.executable, "-m", "trainer.runtime.launch", "script.py"]
        environment = {name: value for name, value in environment.items() if value}
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=check)

    return run


def metrics(run_folder: Path) -> list[tuple[str, float | None, float | None]]:
    """As the run's readers see them."""
    return [(metric.name, metric.value, metric.step) for metric in RunFolder(run_folder).metrics()]


def test_a_report_reaches_the_run_folder(launch: Launch, run_folder: Path) -> None:
    done = launch("""
        import numpy as np
        from trainer.runtime import reporting
        run = reporting.start()
        run.log("Accuracy", np.float32(0.5), step=1)
        run.log("Batch size", 128)
        run.log("Loss", float("nan"))
        run.log("Loss", np.array(-np.inf))
        for i in range(1000):
            run.progress(epoch=i / 100, epochs=10, images_per_second=5e4, loss=0.25)
    """)
    assert done.stdout == ""
    assert metrics(run_folder) == [
        ("Accuracy", 0.5, 1),
        ("Batch size", 128, None),
        ("Loss", None, None),
        ("Loss", None, None),
    ]
    texts = [json.loads(line).get("text") for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert texts == [None, None, "nan", "-inf"]
    progress = RunFolder(run_folder).progress()
    assert progress is not None
    assert (progress.epoch, progress.epochs, progress.loss) == (9.99, 10, 0.25)
    assert {path.name for path in run_folder.iterdir()} == {"metrics.jsonl", "progress.json"}


def test_without_a_run_the_values_are_printed(launch: Launch) -> None:
    done = launch(
        """
        from trainer.runtime import reporting
        run = reporting.start()
        run.log("Accuracy", 0.97123456789, step=3)
        run.log("Epochs", 10)
        run.progress(epoch=1, epochs=2)
        """,
        TRAINER_RUN_DIR="",
    )
    assert done.stdout == "Accuracy (3): 0.971235\nEpochs: 10\n"


def test_worker_processes_report_nothing(launch: Launch, run_folder: Path) -> None:
    launch("""
        import multiprocessing, os, sys
        from azureml.core import Run
        from trainer.runtime import reporting
        azure, run = Run.get_context(), reporting.start()

        def work():
            azure.log("worker", 1)
            Run.get_context().log("worker", 2)
            run.log("worker", 3)
            run.progress(epoch=1, epochs=1)
            reporting.start().log("worker", 4)

        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                process = multiprocessing.get_context(method).Process(target=work)
                process.start()
                process.join()
                assert process.exitcode == 0
            child = os.fork()
            if child == 0:
                run.log("forked", 5)
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            run.log("main", 6)
    """)
    assert metrics(run_folder) == [("main", 6, None)]
    assert not (run_folder / "progress.json").exists()


def test_a_program_that_the_script_starts_reports_too(launch: Launch, run_folder: Path) -> None:
    launch("""
        import subprocess, sys
        program = "from azureml.core import Run; Run.get_context().log('from below', 1)"
        subprocess.run([sys.executable, "-c", program], check=True)
    """)
    assert metrics(run_folder) == [("from below", 1, None)]


@pytest.mark.parametrize("variable", ["PMI_RANK", "OMPI_COMM_WORLD_RANK"])
def test_under_mpi_only_the_first_rank_reports(launch: Launch, run_folder: Path, variable: str) -> None:
    text = "from trainer.runtime import reporting\nreporting.start().log('rank', 1)"
    for rank in ("1", "0", "2"):
        launch(text, **{variable: rank})
    assert metrics(run_folder) == [("rank", 1, None)]


def test_a_run_folder_that_is_gone_is_said(launch: Launch, tmp_path: Path) -> None:
    done = launch(
        "from trainer.runtime import reporting\nreporting.start()", check=False, TRAINER_RUN_DIR=str(tmp_path / "gone")
    )
    assert done.returncode == 3
    assert "which is no directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RuntimeFault, match="No space left"):
        FolderSink(tmp_path).log("Loss", 1.0)


def test_on_azure_an_unreachable_run_is_an_error_not_an_offline_success(launch: Launch) -> None:
    done = launch(
        "from trainer.runtime import reporting\nreporting.start()",
        check=False,
        TRAINER_RUN_DIR="",
        AZUREML_RUN_ID="chainer-mnist_1_abc",
    )
    assert done.returncode == 3
    assert "The Azure ML run chainer-mnist_1_abc can't be reached" in done.stderr


def test_on_azure_values_go_to_the_run_of_the_sdk(launch: Launch, tmp_path: Path) -> None:
    # A fake of the SDK, for what it is given; the real one is tested against the emulator.
    fake = tmp_path / "work" / "azureml" / "core"
    fake.mkdir(parents=True)
    (fake.parent / "__init__.py").touch()
    (fake / "__init__.py").touch()
    (fake / "run.py").write_text(
        "class Run:\n"
        "    def get_context(allow_offline): assert not allow_offline; return Run()\n"
        "    def log(self, name, value): print('sent', name, value)\n"
    )
    done = launch(
        """
        from trainer.runtime import reporting
        run = reporting.start()
        run.log("Accuracy", 0.5, step=1)
        run.log("Loss", float("nan"))
        run.progress(epoch=1, epochs=2)
        """,
        TRAINER_RUN_DIR="",
        AZUREML_RUN_ID="chainer-mnist_1_abc",
    )
    assert done.stdout.splitlines() == ["sent Accuracy 0.5", "Loss: nan (not sent: metrics on Azure ML are finite)"]
    lines = [json.loads(line) for line in (tmp_path / "work" / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["name"], line["value"], line["step"]) for line in lines] == [
        ("Accuracy", 0.5, 1),
        ("Loss", None, None),
    ]


def test_on_azure_the_sdk_is_left_alone(launch: Launch) -> None:
    done = launch(
        "from azureml.core.run import Run\nprint(type(Run.get_context()).__module__)",
        TRAINER_RUN_DIR="",
        AZUREML_RUN_ID="chainer-mnist_1_abc",
    )
    # The real class, which without the service's other variables is offline.
    assert done.stdout == "azureml.core.run\n"


AZURE = {"TRAINER_RUN_DIR": "", "AZUREML_RUN_ID": "chainer-mnist_1_abc"}


def test_on_azure_what_a_cancelled_job_wrote_is_among_its_outputs(launch: Launch, tmp_path: Path) -> None:
    done = launch(
        """
        import multiprocessing, os, signal, time
        open("half", "w").write("x")
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        worker.start()
        worker.terminate()
        worker.join()
        print(worker.exitcode, os.path.exists("outputs/half"), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
        """,
        check=False,
        **AZURE,
    )
    assert (done.returncode, done.stdout) == (-15, "-15 False\n")
    assert (tmp_path / "work" / "outputs" / "half").read_text() == "x"


def test_on_azure_a_scripts_own_handler_is_its_own(launch: Launch, tmp_path: Path) -> None:
    done = launch(
        """
        import os, signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        os.kill(os.getpid(), signal.SIGTERM)
        """,
        check=False,
        **AZURE,
    )
    assert done.returncode == 7


def test_the_environment_is_recorded(launch: Launch, tmp_path: Path) -> None:
    launch("""
        import json, os
        from trainer.runtime import reporting
        at_start = json.load(open("outputs/environment.json"))
        assert at_start["device"] is None
        reporting.record(device="a GPU", extra=object)
        os.remove("outputs/environment.json")
    """)
    found = json.loads((tmp_path / "work" / "outputs" / "environment.json").read_text())
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert found["chainer"] == "7.8.1"
    assert found["device"] == "a GPU"
    assert found["extra"] == "<class 'object'>"
    assert set(found) >= {"python", "numpy", "chainer", "cupy", "platform", "device", "blas_threads", "extra"}


def test_recording_the_environment_imports_nothing_of_it(launch: Launch) -> None:
    done = launch("import sys\nprint(*sys.modules)")
    assert "azureml" not in done.stdout.split()
    assert "cupy" not in done.stdout.split()


def test_only_the_first_rank_and_no_child_records_the_environment(launch: Launch, tmp_path: Path) -> None:
    launch("pass", PMI_RANK="3")
    assert not (tmp_path / "work" / "outputs").exists()
    launch("""
        import os, subprocess, sys
        os.mkdir("below")
        program = "from azureml.core import Run; Run.get_context()"
        subprocess.run([sys.executable, "-c", program], check=True, cwd="below")
    """)
    assert (tmp_path / "work" / "outputs").exists()
    assert not (tmp_path / "work" / "below" / "outputs").exists()


@pytest.mark.parametrize("value", [None, [1, 2], {"a": 1}, object(), np.zeros(2), b"1"])
def test_what_is_no_value_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"a number or a string, not"):
        number(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(
    name=st.text(max_size=400),
    value=st.one_of(
        st.floats(),
        st.integers(),
        st.just(-(10**400)),
        st.booleans(),
        st.text(max_size=50),
        st.floats(width=16).map(np.float16),
    ),
    step=st.one_of(st.none(), st.floats(), st.integers(-5, 5)),
)
def test_every_name_and_value_is_one_line_of_valid_json(tmp_path: Path, name: str, value: Any, step: Any) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
    sink = FolderSink(tmp_path)
    sink.log(clean_name(name), number(value), step)
    (metric,) = folder.metrics()
    assert 1 <= len(metric.name) <= 255
    assert metric.name.isprintable()
    plain = number(value)
    if isinstance(plain, str) or not math.isfinite(plain):
        assert metric.value is None
    else:
        assert metric.value == plain == float(value)


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from trainer.runtime.sinks import FolderSink
        sink = FolderSink(Path(sys.argv[1]))
        for i in range(300):
            sink.log(sys.argv[2] * 200, float(i))
    """)
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), who]) for who in "abcd"]
    assert [process.wait(60) for process in processes] == [0] * 4
    found = RunFolder(tmp_path).metrics()
    assert len(found) == 1200
    for who in "abcd":
        assert [metric.value for metric in found if metric.name == who * 200] == list(range(300))
