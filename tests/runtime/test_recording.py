"""What Chainer measures is recorded in a job, by scripts that know nothing of this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.records import Metric
from trainer.runfolder import RunFolder
from trainer.runtime.azureml_mirror import values_of
from trainer.runtime.reporting import Report
from trainer.runtime.series import Thinned

Launch = Callable[..., list[Metric]]

TRAINER = """
import chainer, numpy as np
import chainer.links as L
from chainer import training
from chainer.training import extensions

rng = np.random.RandomState(0)
np.random.seed(0)
data = chainer.datasets.TupleDataset(rng.rand(20, 4).astype("f"), rng.randint(0, 3, 20).astype("i"))
model = L.Classifier(L.Linear(4, 3))
optimizer = chainer.optimizers.SGD().setup(model)
train_iter = chainer.iterators.SerialIterator(data, 5)
test_iter = chainer.iterators.SerialIterator(data, 5, repeat=False, shuffle=False)
trainer = training.Trainer(training.updaters.StandardUpdater(train_iter, optimizer), (3, "epoch"), out="result")
"""
EVALUATOR = "trainer.extend(extensions.Evaluator(test_iter, model))\n"
LOG = "trainer.extend(extensions.LogReport())\n"
NAMES = {"Loss", "Training accuracy", "Validation loss", "Accuracy"}


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Runs a script's text under the launcher, as in a job, and gives what the run's folder has of it."""
    folder, work = tmp_path / "20261123-180501-k3xq2m", tmp_path / "work"
    folder.mkdir()
    work.mkdir()

    def run(text: str, *, status: int = 0, warnings: str = "") -> list[Metric]:
        (work / "script.py").write_text(textwrap.dedent(text))
        environment = os.environ | {"TRAINER_RUN_DIR": str(folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "trainer.runtime.launch", "script.py"]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert warnings in done.stderr
        return RunFolder(folder).metrics()

    return run


def by_name(metrics: list[Metric]) -> dict[str, list[tuple[float | None, int | None]]]:
    found: dict[str, list[tuple[float | None, int | None]]] = {}
    for metric in metrics:
        found.setdefault(metric.name, []).append((metric.step, metric.iteration))
    return found


def test_log_report_and_evaluator(launch: Launch, tmp_path: Path) -> None:
    metrics = launch(TRAINER + EVALUATOR + LOG + "trainer.run()")
    found = by_name(metrics)
    assert set(found) == NAMES | {"Batch size", "Epochs"}
    assert all(found[name] == [(1, 4), (2, 8), (3, 12)] for name in NAMES)
    log = json.loads((tmp_path / "work/result/log").read_text())
    assert [m.value for m in metrics if m.name == "Accuracy"] == [entry["validation/main/accuracy"] for entry in log]
    progress = RunFolder(tmp_path / "20261123-180501-k3xq2m").progress()
    assert progress is not None
    assert (progress.epoch, progress.epochs) == (3, 3)


def test_without_log_report_epochs_are_averaged(launch: Launch) -> None:
    logged = launch(TRAINER + EVALUATOR + LOG + "trainer.run()")
    with_log = [metric.value for metric in logged if metric.name == "Loss"]
    without = launch(TRAINER + EVALUATOR + "trainer.run()")[len(logged) :]
    assert by_name(without)["Loss"] == [(1, 4), (2, 8), (3, 12)]
    assert [metric.value for metric in without if metric.name == "Loss"] == pytest.approx(with_log)


def test_log_by_iterations(launch: Launch) -> None:
    found = by_name(launch(TRAINER + 'trainer.extend(extensions.LogReport(trigger=(1, "iteration")))\ntrainer.run()'))
    assert found["Loss"][:5] == [(0.25, 1), (0.5, 2), (0.75, 3), (1, 4), (1.25, 5)]


def test_a_number_of_iterations_is_known_in_epochs(launch: Launch, tmp_path: Path) -> None:
    text = TRAINER.replace('(3, "epoch")', '(8, "iteration")')
    assert [m.value for m in launch(text + LOG + "trainer.run()") if m.name == "Epochs"] == [2]


def test_a_loop_of_the_scripts_own(launch: Launch) -> None:
    loop = """
for epoch in range(2):
    for i in range(4):
        optimizer.update(model, *chainer.dataset.concat_examples(train_iter.next()))
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for i in range(4):
            model(*chainer.dataset.concat_examples(data[5 * i : 5 * i + 5]))
"""
    found = by_name(launch(TRAINER + loop))
    assert found == {name: [(1, 4), (2, 8)] for name in NAMES}


@pytest.mark.parametrize(
    "own",
    [
        'from azureml.core import Run\nRun.get_context().log("Accuracy", 0.5)\n',
        'from trainer import runtime as rt\nrt.report({"Accuracy": 0.5}, epoch=1, epochs=3)\n',
    ],
    ids=["Run.log", "report"],
)
def test_a_script_that_logs_by_itself_is_left_to_it(launch: Launch, own: str) -> None:
    found = by_name(launch(TRAINER + EVALUATOR + LOG + own + "trainer.run()"))
    assert len(found.pop("Accuracy")) == 1
    assert set(found) <= {"Epochs"}


def test_the_extension_of_ours_is_not_doubled(launch: Launch) -> None:
    own = 'from trainer import runtime as rt\ntrainer.extend(rt.Metrics({"Loss": "main/loss"}))\n'
    found = by_name(launch(TRAINER + LOG + own + "trainer.run()"))
    assert len(found["Loss"]) == 3
    assert set(found) == {"Loss", "Batch size", "Epochs"}


def test_snapshots_hold_nothing_of_it(launch: Launch, tmp_path: Path) -> None:
    launch(
        TRAINER + LOG + "trainer.run()\nassert 'trainer_recorder' in trainer._extensions\n"
        "chainer.serializers.save_npz('after.npz', trainer)"
    )
    import numpy as np

    with np.load(tmp_path / "work/after.npz") as after:
        assert not [name for name in after.files if "recorder" in name]


def test_a_resumed_trainer_records_only_what_is_new(launch: Launch) -> None:
    first = launch(TRAINER + LOG + "trainer.run()\nchainer.serializers.save_npz('s.npz', trainer)")
    text = TRAINER.replace('(3, "epoch")', '(5, "epoch")') + LOG
    second = launch(text + "chainer.serializers.load_npz('s.npz', trainer)\ntrainer.run()")[len(first) :]
    assert by_name(second)["Loss"] == [(4, 16), (5, 20)]


def test_training_goes_on_when_nothing_can_be_recorded(launch: Launch) -> None:
    text = TRAINER + LOG + 'import os\nos.mkdir(os.environ["TRAINER_RUN_DIR"] + "/metrics.jsonl")\ntrainer.run()\n'
    found = launch(text + 'assert os.path.exists("result/log")', warnings="metrics are no longer recorded")
    assert found == []


def test_outside_a_job_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TRAINER + LOG + "trainer.run()\nprint(sorted(trainer._extensions))")
    environment = {name: value for name, value in os.environ.items() if name != "TRAINER_RUN_DIR"}
    command = [sys.executable, "-m", "trainer.runtime.launch", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['LogReport']"]


class _List:
    def __init__(self) -> None:
        self.steps: list[float | None] = []

    def log(self, name: str, value: float | str, step: float | None = None, iteration: int | None = None) -> None:
        self.steps.append(step)

    def progress(self, state: dict[str, float | None]) -> None: ...

    def close(self) -> None: ...


def test_the_rate_is_bounded_and_the_last_value_kept() -> None:
    sink = _List()
    record = Thinned(Report([sink], automatic=True))
    for step in range(1, 100_002):
        record.log("Loss", 1.0, step)
    record.close()
    assert sink.steps[:1000] == list(range(1, 1001))
    assert sink.steps[-1] == 100_001
    assert len(sink.steps) < 5000
    assert sink.steps == sorted(set(sink.steps))


def test_rows_and_tables_are_mirrored_as_they_are_recorded_here() -> None:
    steps: dict[str, int] = {}
    assert values_of("log", "a", (1.5,), {"step": 3}, steps) == [("a", 1.5, 3)]
    assert values_of("log_list", "l", ([1, 2],), {}, steps) == [("l", 1, 0), ("l", 2, 1)]
    assert values_of("log_row", "r", (), {"description": "d", "x": 1}, steps) == [("r/x", 1, 0)]
    assert values_of("log_row", "r", (), {"x": 2}, steps) == [("r/x", 2, 1)]
    assert values_of("log_table", "t", (), {"value": {"a": [5, 6], "b": 7}}, steps) == [
        ("t/a", 5, 0),
        ("t/a", 6, 1),
        ("t/b", 7, 0),
    ]


# MLflow and tensorboardX as far as they matter here: what they were given, and where MLflow would track.
MLFLOW = """
import os
calls = []
def log_metric(key, value, step=None, **named): calls.append((key, value, step))
def log_metrics(metrics, step=None, **named): calls.append((metrics, step))
def log_param(key, value): calls.append((key, value))
def log_params(params): calls.append(params)
"""
TENSORBOARDX = """
class SummaryWriter:
    def __init__(self, logdir=None): self.calls = 0
    def add_scalar(self, tag, scalar_value, global_step=None, walltime=None): self.calls += 1
    def add_scalars(self, main_tag, tag_scalar_dict, global_step=None, walltime=None): self.calls += 1
"""


@pytest.fixture
def loggers(tmp_path: Path) -> Path:
    """The two libraries beside the script."""
    for name, text in {
        "mlflow/__init__.py": "from mlflow.tracking.fluent import *\nfrom mlflow.tracking.fluent import calls",
        "mlflow/tracking/__init__.py": "",
        "mlflow/tracking/fluent.py": MLFLOW,
        "tensorboardX/__init__.py": "from .writer import SummaryWriter",
        "tensorboardX/writer.py": TENSORBOARDX,
    }.items():
        (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / name).write_text(text)
    return tmp_path / "work"


def test_what_is_logged_with_mlflow_is_recorded(launch: Launch, loggers: Path) -> None:
    metrics = launch("""
        import os
        assert "MLFLOW_TRACKING_URI" not in os.environ
        import mlflow
        assert os.environ["MLFLOW_TRACKING_URI"].endswith(os.path.join(os.getcwd(), "outputs", "mlruns"))
        mlflow.log_metric("Loss", 0.5, step=1)
        mlflow.log_metric(key="Loss", value=0.25, step=2)
        mlflow.log_metrics({"Accuracy": 0.5, "F1": 1}, 2)
        mlflow.log_metrics(metrics={"F1": 0.75}, step=3)
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({"units": 50, "act": "relu", "layers": [1, 2]})
        assert len(mlflow.calls) == 6
    """)
    assert [(metric.name, metric.value, metric.step) for metric in metrics] == [
        *[("Loss", 0.5, 1), ("Loss", 0.25, 2), ("Accuracy", 0.5, 2), ("F1", 1, 2), ("F1", 0.75, 3)],
        *[("lr", 0.1, None), ("units", 50, None)],
    ]


def test_mlflow_tracks_where_it_was_told(launch: Launch, loggers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    launch("""
        import os, mlflow
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
        assert "MLFLOW_ALLOW_FILE_STORE" not in os.environ
    """)


def test_scalars_for_tensorboard_are_recorded_at_a_bounded_rate(launch: Launch, loggers: Path) -> None:
    metrics = launch("""
        import numpy as np
        from tensorboardX import SummaryWriter
        writer = SummaryWriter("tb")
        for step in range(3001):
            writer.add_scalar("train/loss", np.float32(step), step)
        writer.add_scalars("both", {"a": 1, "b": 2.5}, global_step=7)
        writer.add_scalar("text", "no number")
        writer.add_scalar(tag="named", scalar_value=4.5)
        assert writer.calls == 3004
    """)
    losses = [metric for metric in metrics if metric.name == "train/loss"]
    assert len(losses) == 1000 + 500 + 250 + 1
    assert (losses[-1].value, losses[-1].step) == (3000, 3000)
    rest = [(metric.name, metric.value, metric.step) for metric in metrics if metric.name != "train/loss"]
    assert rest == [("both/a", 1, 7), ("both/b", 2.5, 7), ("named", 4.5, None)]
