"""What every backend must do. A backend's test file subclasses :class:`BackendContract` and adds its fixture.

Runs are shared by the tests of a class where they can be, because on some backends one takes seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from trainer.artifacts import ModelVersion
from trainer.backend import Backend, backend_type
from trainer.errors import RefusedError, UsageError
from trainer.handle import Run
from trainer.home import Home
from trainer.listing import list_infos
from trainer.records import RunInfo, RunStatus
from trainer.snapshot import Snapshot
from trainer.submission import JobRequest, prepare, resume, submit

SCRIPTS = Path(__file__).parent / "scripts"
EPOCHS = 2

# Prints what another process finds when it picks a run up again.
ATTACH = """
import json, sys
from pathlib import Path
from trainer.home import Home
from trainer.backend import load_backend
from trainer.handle import Run
from trainer.runfolder import RunFolder
home = Home(Path(sys.argv[1]), Path(sys.argv[1]).parent)
folder = RunFolder(home.runs / sys.argv[2])
run = Run(folder, load_backend(folder.info().backend, home))
info = run.wait(timeout=float(sys.argv[3]))
json.dump({"status": info.status, "metrics": run.latest_metrics(), "files": run.files(), "log": list(run.logs())},
          sys.stdout)
"""


class BackendContract:
    """The tests. A subclass overrides the fixture ``backend``, of class scope.

    Attributes:
        seconds: A run takes less than this, or something is wrong.
    """

    seconds: ClassVar[float] = 600.0

    @pytest.fixture(scope="class")
    @classmethod
    def home(cls, tmp_path_factory: pytest.TempPathFactory) -> Home:
        project = tmp_path_factory.mktemp("project")
        return Home(project / ".trainer", project)

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, home: Home) -> Backend:
        raise NotImplementedError("a subclass makes the backend")

    @pytest.fixture(scope="class")
    @classmethod
    def attach_environment(cls) -> Mapping[str, str]:
        """Variables that another process needs to find the backend again."""
        return {}

    @pytest.fixture(scope="class")
    @classmethod
    def request_of_ours(cls, tiny_data: Path) -> JobRequest:
        return JobRequest(
            training={"epochs": EPOCHS, "batchsize": 32, "seed": 1, "device": "cpu"},
            dataset=str(tiny_data),
            tags={"purpose": "contract"},
        )

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, home: Home, backend: Backend, request_of_ours: JobRequest) -> Run:
        return cls.completed(submit(prepare(request_of_ours, home), backend, home))

    @pytest.fixture(scope="class")
    @classmethod
    def scripted(cls, home: Home, backend: Backend, tiny_data: Path) -> Run:
        words = ("--text", "two words", "--rate", "-0.5", "--empty", "")
        request = JobRequest(script=SCRIPTS / "tutorial" / "train.py", script_args=words, dataset=str(tiny_data))
        return cls.completed(submit(prepare(request, home), backend, home))

    @classmethod
    def ended(cls, run: Run) -> RunInfo:
        info = run.wait(timeout=cls.seconds)
        assert info.status.terminal, f"still {info.status} after {cls.seconds} s"
        return info

    @classmethod
    def completed(cls, run: Run) -> Run:
        info = cls.ended(run)
        assert info.status is RunStatus.COMPLETED, (info.failure, list(run.logs()))
        return run

    def submit_script(self, home: Home, backend: Backend, name: str, *words: str) -> Run:
        request = JobRequest(script=SCRIPTS / name, script_args=words, model_name=None)
        return submit(prepare(request, home), backend, home)

    # --- what a backend says of itself ---

    def test_is_a_backend(self, backend: Backend) -> None:
        assert isinstance(backend, Backend)
        assert backend_type(backend.name) is type(backend)

    def test_refuses_an_option_it_does_not_know(self, backend: Backend, home: Home) -> None:
        with pytest.raises(UsageError, match=r"no.such.option"):
            type(backend)(home, {"no_such_option": 1})

    def test_plan_tells_what_would_travel(self, backend: Backend, home: Home, request_of_ours: JobRequest) -> None:
        prepared = prepare(request_of_ours, home)
        before = list_infos(home, refresh=False)
        plan = backend.plan(prepared.job, prepared.snapshot)
        assert (plan.backend, plan.digest, plan.size) == (
            backend.name,
            prepared.snapshot.digest,
            prepared.snapshot.size,
        )
        assert plan.files == len(prepared.snapshot.files)
        assert plan.command[-len(prepared.job.arguments) :] == prepared.job.arguments
        assert plan.dataset == "tiny"
        assert list_infos(home, refresh=False) == before

    def test_a_snapshot_over_the_limits_is_refused_and_leaves_nothing(
        self, backend: Backend, home: Home, request_of_ours: JobRequest
    ) -> None:
        if backend.limits is None:
            pytest.skip("this backend takes any snapshot")
        prepared = prepare(request_of_ours, home)
        large = replace(prepared.snapshot.files[-1], size=backend.limits.size + 1)
        oversized = replace(prepared, snapshot=Snapshot((*prepared.snapshot.files[:-1], large)))
        before = list_infos(home, refresh=False)
        with pytest.raises(RefusedError, match="MB"):
            submit(oversized, backend, home)
        assert list_infos(home, refresh=False) == before

    # --- a run of our own script ---

    def test_the_record_of_a_run_is_complete(self, trained: Run, backend: Backend) -> None:
        info = trained.info()
        assert info.backend == backend.name
        assert info.dataset == "tiny"
        assert info.failure is None
        assert info.snapshot == Snapshot.load(trained.folder.snapshot).digest
        assert info.started is not None
        assert info.ended is not None
        assert info.created <= info.started <= info.ended

    def test_metrics_are_logged_by_epoch(self, trained: Run) -> None:
        values: dict[str, list[float | None]] = {}
        for metric in trained.metrics():
            values.setdefault(metric.name, []).append(metric.value)
        assert values["Batch size"] == [32]
        assert values["Epochs"] == [EPOCHS]
        for name in ("Accuracy", "Loss", "Validation loss"):
            assert len(values[name]) == EPOCHS
        accuracy = trained.latest_metrics()["Accuracy"]
        assert accuracy is not None
        assert accuracy > 0.5

    def test_the_log_holds_what_the_script_printed(self, trained: Run) -> None:
        assert any("512 training" in line for line in trained.logs())
        assert list(trained.logs(follow=True)) == list(trained.logs())

    def test_outputs_are_collected(self, trained: Run) -> None:
        assert {"model.npz", "checkpoint.npz"} <= set(trained.files())
        assert arrays(trained)["l1/W"].shape == (100, 784)

    def test_the_model_is_registered_exactly_once(self, trained: Run, backend: Backend) -> None:
        for _ in range(2):
            trained.info()
        found = [version for version in backend.store().versions() if version.run_id == trained.run_id]
        assert len(found) == 1
        self.check_version(found[0], trained)

    def check_version(self, version: ModelVersion, run: Run) -> None:
        info = run.info()
        assert info.model is not None
        assert (version.name, version.version, version.sha256) == (
            info.model.name,
            info.model.version,
            info.model.sha256,
        )
        assert version.size == run.file("model.npz").stat().st_size
        assert (version.backend, version.snapshot, version.dataset) == (info.backend, info.snapshot, "tiny")
        assert version.tags["purpose"] == "contract"
        assert version.metrics["Accuracy"] == pytest.approx(run.latest_metrics()["Accuracy"])
        assert version.versions["chainer"] == "7.8.1"

    def test_the_registered_file_is_the_output(self, trained: Run, backend: Backend, tmp_path: Path) -> None:
        model = trained.info().model
        assert model is not None
        store = backend.store()
        store.download(store.get(model.name, model.version), tmp_path / "model.npz")
        assert (tmp_path / "model.npz").read_bytes() == trained.file("model.npz").read_bytes()

    def test_another_process_picks_the_run_up(
        self, trained: Run, home: Home, attach_environment: Mapping[str, str]
    ) -> None:
        found = self.attach(trained, home, attach_environment)
        assert found["status"] == "Completed"
        assert found["metrics"] == trained.latest_metrics()
        assert found["files"] == trained.files()
        assert found["log"] == list(trained.logs())

    def attach(self, run: Run, home: Home, environment: Mapping[str, str]) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", ATTACH, str(home.path), run.run_id, str(self.seconds)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            check=True,
            timeout=2 * self.seconds,
        )
        return dict(json.loads(done.stdout))

    def test_a_resumed_run_ends_with_the_same_model(
        self, trained: Run, home: Home, backend: Backend, request_of_ours: JobRequest
    ) -> None:
        half = self.completed(
            submit(
                prepare(replace(request_of_ours, training={**request_of_ours.training, "epochs": 1}), home),
                backend,
                home,
            )
        )
        resumed = self.completed(submit(resume(half, ("--epochs", str(EPOCHS))), backend, home))
        assert resumed.info().resumed_from == half.run_id
        whole, continued, before = arrays(trained), arrays(resumed), arrays(half)
        assert whole.keys() == continued.keys()
        for name, array in whole.items():
            assert array.tobytes() == continued[name].tobytes(), name
        assert whole["l1/W"].tobytes() != before["l1/W"].tobytes()

    def test_a_run_that_is_complete_is_not_resumed_by_accident(self, trained: Run) -> None:
        with pytest.raises(UsageError, match="complete"):
            resume(trained)

    # --- scripts of the user's own ---

    def test_a_script_that_knows_only_azure_ml_logs_its_metrics(self, scripted: Run) -> None:
        metrics = scripted.latest_metrics()
        assert metrics["rate"] == -0.5
        assert metrics["a list"] is not None

    def test_a_script_gets_its_own_arguments(self, scripted: Run) -> None:
        seen = json.loads(scripted.file("seen.json").read_text())
        assert seen["argv"] == ["--text", "two words", "--rate", "-0.5", "--empty", ""]

    def test_a_script_imports_its_neighbours(self, scripted: Run) -> None:
        seen = json.loads(scripted.file("seen.json").read_text())
        assert seen["neighbour"] == "tutorial.neighbour"
        assert seen["package"] == "from the package"

    def test_a_script_starts_an_executable_file_beside_it(self, scripted: Run) -> None:
        seen = json.loads(scripted.file("seen.json").read_text())
        assert seen["said"] == "started by its name, twice\n"

    def test_a_script_starts_worker_processes(self, scripted: Run) -> None:
        seen = json.loads(scripted.file("seen.json").read_text())
        assert sum(seen["batch"]) == sum(range(8))

    def test_chainer_finds_the_data_that_travelled(self, scripted: Run) -> None:
        seen = json.loads(scripted.file("seen.json").read_text())
        assert seen["images"] == [512, 128]

    def test_a_directory_tree_of_outputs_is_collected(self, scripted: Run) -> None:
        assert scripted.file("deep/er/file.txt").read_text() == "kept"

    def test_what_is_written_outside_the_outputs_is_collected_too(self, scripted: Run) -> None:
        assert scripted.file("result/log").read_text() == "written elsewhere"
        assert sorted(scripted.files()) == ["deep/er/file.txt", "environment.json", "result/log", "seen.json"]

    def test_a_script_without_a_model_registers_none(self, scripted: Run) -> None:
        info = scripted.info()
        assert info.model is None
        assert any("model.npz" in warning for warning in info.warnings)

    # --- endings ---

    def test_an_exception_fails_the_run_with_its_last_line(self, home: Home, backend: Backend) -> None:
        run = self.submit_script(home, backend, "endings/raises.py")
        info = self.ended(run)
        assert info.status is RunStatus.FAILED
        assert info.failure is not None
        assert info.failure.message == "ValueError: the reason, in its own words"
        assert any("Traceback" in line for line in info.failure.log_tail)
        assert "before.txt" in run.files()

    def test_cancel_ends_a_run_and_again_changes_nothing(self, home: Home, backend: Backend) -> None:
        run = self.submit_script(home, backend, "endings/sleeps.py")
        run.cancel()
        run.cancel()
        info = self.ended(run)
        assert info.status is RunStatus.CANCELED
        run.cancel()
        assert run.info() == info


def arrays(run: Run) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a run's model."""
    with np.load(run.file("model.npz"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
