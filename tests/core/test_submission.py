"""From a request to a job, and from an ended run to the one that continues it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    SignInError,
    TrainerError,
    UsageError,
)
from trainer.findrun import find_run
from trainer.handle import Run
from trainer.home import Home
from trainer.job import TrainingJob
from trainer.records import RunInfo, RunStatus
from trainer.runfolder import SUBMISSION_LOCK, RunFolder
from trainer.snapshot import Limits
from trainer.submission import JobRequest, prepare, resume, submit


class Recorded:
    """A backend that starts nothing: what it is asked for is all that these tests look at."""

    name = "recorded"
    limits: Limits | None = None

    remote = False

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.submitted, self.canceled = error, [], []  # type: ignore[var-annotated]
        self.refusal: TrainerError | None = None
        self.leaves: RunStatus | None = None

    def check(self, job: TrainingJob) -> None:
        if self.refusal:
            raise self.refusal

    def submit(self, folder: RunFolder) -> None:
        assert folder.is_locked(SUBMISSION_LOCK)
        self.submitted.append(folder)
        if self.leaves:
            folder.update(status=self.leaves)
        if self.error:
            raise self.error

    def refresh(self, folder: RunFolder) -> RunInfo:
        return folder.info()

    def cancel(self, folder: RunFolder) -> None:
        self.canceled.append(folder)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job" / "train.py"
    path.parent.mkdir()
    path.write_text("print(1)\n")
    return path


def ours(tiny_data: Path, **fields: Any) -> JobRequest:
    return JobRequest(dataset=str(tiny_data), **fields)


class TestRequest:
    def test_our_script_gets_what_the_tutorial_passes(self, home: Home, tiny_data: Path) -> None:
        job = prepare(ours(tiny_data), home).job
        assert job.script == "chainer_mnist.py"
        assert job.arguments == ("--epochs", "10", "--batchsize", "128", "--output_dir", "./outputs")
        assert (job.dataset, len(job.dataset_digest or "")) == ("tiny", 64)

    def test_and_what_was_given(self, home: Home, tiny_data: Path) -> None:
        request = ours(
            tiny_data,
            training={"device": "cuda:1", "epochs": 2, "units": 7, "lr": 0.1, "seed": 3},
            script_args=("--momentum", "0.5"),
        )
        words = " ".join(prepare(request, home).job.arguments)
        assert words == (
            "--epochs 2 --batchsize 128 --output_dir ./outputs --units 7 --lr 0.1 --seed 3 --device cuda:1 "
            "--momentum 0.5"
        )

    def test_another_script_gets_only_its_own(self, home: Home, script: Path) -> None:
        assert prepare(JobRequest(script=script, script_args=("-x", "")), home).job.arguments == ("-x", "")

    def test_flags_of_our_script_are_refused_for_another(self, home: Home, script: Path) -> None:
        with pytest.raises(UsageError, match="--epochs") as caught:
            prepare(JobRequest(script=script, training={"epochs": 3, "seed": 1}), home)
        assert caught.value.hint.endswith("-- --epochs 3 --seed 1")

    @pytest.mark.parametrize(
        "fields",
        [
            {"training": {"epochs": 0}},
            {"training": {"epochs": "3"}},
            {"training": {"epocs": 3}},
            {"training": {"batchsize": -1}},
            {"training": {"units": 0}},
            {"training": {"threads": 0}},
            {"max_minutes": 0},
            {"training": {"lr": 0.0}},
            {"training": {"lr": float("nan")}},
            {"training": {"lr": float("inf")}},
            {"training": {"momentum": 1.0}},
            {"training": {"momentum": -0.1}},
            {"training": {"momentum": float("nan")}},
            {"training": {"seed": -1}},
            {"training": {"seed": 2**32}},
            {"training": {"device": "gpu"}},
            {"training": {"device": "cuda:"}},
            {"experiment": ""},
            {"experiment": "a b"},
            {"experiment": "x" * 256},
            {"model_name": "../x"},
            {"tags": {"a": "\0"}},
            {"script_args": ("\0",)},
            {"dataset": "none"},
            {"dataset": "no-such-set"},
            {"script": Path("no-such.py")},
        ],
    )
    def test_what_is_unusable_is_refused(self, home: Home, tiny_data: Path, fields: Mapping[str, Any]) -> None:
        with pytest.raises(UsageError) as caught:
            prepare(JobRequest(**{"dataset": str(tiny_data), **fields}), home)
        assert caught.value.hint
        assert not home.path.exists()

    def test_runs_kept_beside_the_script_do_not_travel(self, script: Path) -> None:
        home = Home(script.parent / "kept", script.parent)
        (home.runs / "x").mkdir(parents=True)
        (home.runs / "x" / "y").touch()
        assert not [f for f in prepare(JobRequest(script=script), home).snapshot.files if f.path.startswith("kept")]


class TestData:
    """Which data set travels with a script of the user's own. The embedded one is made, none is fetched."""

    @pytest.fixture(autouse=True)
    def no_mirror(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRAINER_DATA_MIRRORS", "off")

    @pytest.mark.parametrize(
        ("source", "dataset"),
        [
            ("print(1)", None),
            ("import chainer\ntrain, test = chainer.datasets.get_mnist()", "mnist-5k"),
            ("from chainer.datasets import get_mnist", "mnist-5k"),
            ("from trainer.runtime import compat, datasets", "mnist-5k"),
            ("budget_mnist = 3", None),
        ],
    )
    def test_travels_if_the_script_asks_for_it(self, home: Home, script: Path, source: str, dataset: str) -> None:
        script.write_text(source)
        assert prepare(JobRequest(script=script), home).job.dataset == dataset

    def test_a_neighbour_may_ask(self, home: Home, script: Path) -> None:
        (script.parent / "data.py").write_text("from chainer.datasets import get_mnist")
        prepared = prepare(JobRequest(script=script), home)
        assert prepared.job.dataset == "mnist-5k"
        assert prepared.job.dataset_note
        assert len([f for f in prepared.snapshot.files if f.path.startswith("_trainer_job/data/mnist-5k/")]) == 4

    def test_none_means_none(self, home: Home, script: Path) -> None:
        script.write_text("get_mnist()")
        assert prepare(JobRequest(script=script, dataset="none"), home).job.dataset is None

    def test_a_named_one_travels_whatever_the_script_says(self, home: Home, script: Path, tiny_data: Path) -> None:
        assert prepare(JobRequest(script=script, dataset=str(tiny_data)), home).job.dataset == "tiny"


class TestSubmit:
    def test_gives_the_job_a_folder(self, home: Home, script: Path) -> None:
        prepared = prepare(JobRequest(script=script), home)
        run = submit(prepared, Recorded(), home)  # type: ignore[arg-type]
        assert run.job == prepared.job
        assert run.info().status is RunStatus.NOT_STARTED
        assert (run.folder.snapshot / "train.py").read_text() == "print(1)\n"

    def test_a_failure_is_on_the_record_and_raised(self, home: Home, script: Path) -> None:
        backend = Recorded(ConfigError("The machine is on fire."))
        with pytest.raises(ConfigError):
            submit(prepare(JobRequest(script=script), home), backend, home)  # type: ignore[arg-type]
        info = find_run(home.runs, "latest").info()
        assert info.status is RunStatus.FAILED
        assert info.failure is not None
        assert info.failure.message == "The machine is on fire."

    @pytest.mark.parametrize("refusal", [RefusedError("No quota."), SignInError("Who are you?")])
    def test_a_refusal_before_anything_was_sent_leaves_no_run(
        self, home: Home, script: Path, refusal: TrainerError
    ) -> None:
        with pytest.raises(type(refusal)):
            submit(prepare(JobRequest(script=script), home), Recorded(refusal), home)  # type: ignore[arg-type]
        assert list(home.runs.iterdir()) == []

    def test_a_refusal_of_what_was_sent_is_on_the_record(self, home: Home, script: Path) -> None:
        backend = Recorded(RefusedError("No quota."))
        backend.leaves = RunStatus.PREPARING
        with pytest.raises(RefusedError):
            submit(prepare(JobRequest(script=script), home), backend, home)  # type: ignore[arg-type]
        info = find_run(home.runs, "latest").info()
        assert (info.status, info.failure and info.failure.message) == (RunStatus.FAILED, "No quota.")

    def test_an_interrupt_cancels(self, home: Home, script: Path) -> None:
        backend = Recorded(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            submit(prepare(JobRequest(script=script), home), backend, home)  # type: ignore[arg-type]
        assert backend.canceled
        assert find_run(home.runs, "latest").info().status is RunStatus.CANCELED

    def test_over_the_limits_nothing_is_written(self, home: Home, script: Path) -> None:
        backend = Recorded()
        backend.limits = Limits("It", 1, 1)
        with pytest.raises(RefusedError):
            submit(prepare(JobRequest(script=script), home), backend, home)  # type: ignore[arg-type]
        assert not home.path.exists()

    def test_what_is_known_not_to_work_writes_nothing(self, home: Home, script: Path) -> None:
        backend = Recorded()
        backend.refusal = RefusedError("Retired.", "Take another.")
        with pytest.raises(RefusedError, match="Retired"):
            submit(prepare(JobRequest(script=script), home), backend, home)  # type: ignore[arg-type]
        assert not home.path.exists()

    def test_is_said_before_any_data_is_looked_for(self, home: Home) -> None:
        backend = Recorded()
        backend.refusal = RefusedError("Retired.", "Take another.")
        with pytest.raises(RefusedError, match="Retired"):
            prepare(JobRequest(dataset="no-such-set"), home, backend=backend)  # type: ignore[arg-type]
        backend.refusal = None
        with pytest.raises(UsageError, match="no-such-set"):
            prepare(JobRequest(dataset="no-such-set"), home, backend=backend)  # type: ignore[arg-type]


class TestResume:
    def ended(self, home: Home, request: JobRequest, status: RunStatus = RunStatus.FAILED) -> Run:
        run = submit(prepare(request, home), Recorded(), home)  # type: ignore[arg-type]
        np.savez(run.folder.outputs / "checkpoint.npz", epoch=np.array(3))
        run.folder.update(status=status)
        return run

    def test_our_script_continues_from_its_checkpoint(self, home: Home, tiny_data: Path) -> None:
        run = self.ended(home, ours(tiny_data, training={"epochs": 4}))
        prepared = resume(run)
        assert prepared.job.arguments == (*run.job.arguments, "--resume", "_trainer_job/resume/checkpoint.npz")
        assert prepared.job.resumed_from == run.run_id
        assert prepared.snapshot.digest != run.info().snapshot
        assert prepared.job.dataset_digest == run.job.dataset_digest

    def test_again_and_again(self, home: Home, tiny_data: Path) -> None:
        second = submit(resume(self.ended(home, ours(tiny_data))), Recorded(), home)  # type: ignore[arg-type]
        np.savez(second.folder.outputs / "checkpoint.npz", epoch=np.array(5))
        second.folder.update(status=RunStatus.CANCELED)
        third = resume(second, ("--epochs", "9"))
        assert third.job.arguments.count("--resume") == 1
        resumed = [file for file in third.snapshot.files if file.path.startswith("_trainer_job/resume/")]
        assert [file.source for file in resumed] == [second.folder.outputs / "checkpoint.npz"]

    def test_uses_the_files_that_the_run_was_given(self, home: Home, script: Path) -> None:
        run = self.ended(home, JobRequest(script=script))
        shutil.rmtree(script.parent)
        prepared = resume(run, ("--resume", "_trainer_job/resume/checkpoint.npz"))
        assert "train.py" in [file.path for file in prepared.snapshot.files]
        assert prepared.job.arguments[-1] == "_trainer_job/resume/checkpoint.npz"

    def test_of_a_script_whose_way_is_unknown_needs_arguments(self, home: Home, script: Path) -> None:
        with pytest.raises(UsageError, match=r"Only train\.py knows") as caught:
            resume(self.ended(home, JobRequest(script=script)))
        assert "_trainer_job/resume/checkpoint.npz" in caught.value.hint

    def test_a_run_that_goes_on(self, home: Home, tiny_data: Path) -> None:
        run = submit(prepare(ours(tiny_data), home), Recorded(), home)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="NotStarted"):
            resume(run)

    def test_a_complete_run_needs_more_epochs(self, home: Home, tiny_data: Path) -> None:
        run = self.ended(home, ours(tiny_data), RunStatus.COMPLETED)
        with pytest.raises(UsageError, match="complete"):
            resume(run)
        assert "20" in resume(run, ("--epochs", "20")).job.arguments

    def test_a_run_without_a_checkpoint(self, home: Home, tiny_data: Path) -> None:
        run = self.ended(home, ours(tiny_data))
        (run.folder.outputs / "checkpoint.npz").unlink()
        with pytest.raises(NotFoundError, match="checkpoint"):
            resume(run)

    def test_a_crafted_checkpoint_is_refused(self, home: Home, tiny_data: Path) -> None:
        run = self.ended(home, ours(tiny_data))
        np.savez(run.folder.outputs / "checkpoint.npz", x=np.array([{"a": 1}], dtype=object))
        with pytest.raises(IntegrityError):
            resume(run)

    def test_a_snapshot_that_was_changed_is_refused(self, home: Home, tiny_data: Path) -> None:
        run = self.ended(home, ours(tiny_data))
        (run.folder.snapshot / "chainer_mnist.py").write_text("print('other')\n")
        with pytest.raises(IntegrityError, match="not those"):
            resume(run)
