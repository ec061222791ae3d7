"""Runs through the real SDK: submit, follow, fail, cancel, cap, queue, MPI, snapshots, queries."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.emulator.clients import PROGRAMS, Sdk, SdkError, processes_of


@pytest.fixture(scope="module")
def finished(sdk: Sdk) -> str:
    """A run that has completed."""
    source = str(Path(__file__).parent / "programs" / "job")
    run_id: str = sdk.submit(source=source, arguments=["--epochs", 3], tags={"kind": "finished"})
    assert sdk.wait(run_id=run_id) == "Completed"
    return run_id


def test_a_completed_run_has_metrics_files_logs(sdk: Sdk, finished: str, tmp_path: Path) -> None:
    assert sdk.metrics(run_id=finished) == {"Batch size": 128, "Accuracy": [0.9, 0.95, pytest.approx(0.9666667)]}
    files = sdk.files(run_id=finished)
    assert {"outputs/model.npz", "user_logs/std_log.txt"} <= set(files)
    assert "epoch 3 accuracy 0.967" in sdk.log_text(run_id=finished)
    target = tmp_path / "model.npz"
    sdk.download(run_id=finished, name="outputs/model.npz", target=str(target))
    with np.load(target, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["l1/W"], np.arange(6.0).reshape(2, 3))


def test_details_name_the_snapshot_and_the_logs(sdk: Sdk, finished: str) -> None:
    details = sdk.details(run_id=finished)
    assert details["properties"]["ContentSnapshotId"]
    assert "user_logs/std_log.txt" in details["logFiles"]


def test_a_failing_script_fails_the_run_with_its_own_words(sdk: Sdk, job_source: str) -> None:
    run_id = sdk.submit(source=job_source, arguments=["--epochs", 1, "--fail"])
    assert sdk.wait(run_id=run_id) == "Failed"
    assert "RuntimeError: asked to fail" in sdk.details(run_id=run_id)["error"]["error"]["message"]
    assert "Traceback (most recent call last)" in sdk.log_text(run_id=run_id)
    with pytest.raises(SdkError, match=r"^ActivityFailedException.*(.|\n)*asked to fail"):
        sdk.stream(run_id=run_id)


def test_streaming_shows_the_output_as_it_comes(sdk: Sdk, job_source: str) -> None:
    run_id = sdk.submit(source=job_source, arguments=["--epochs", 3, "--sleep", 1])
    sdk.stream(run_id=run_id)
    assert sdk.output.index("epoch 1 accuracy") < sdk.output.index("epoch 3 accuracy")


def test_cancel_stops_the_process_and_keeps_its_files(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import pathlib, subprocess, time\n"
        "from azureml.core import Run\n"
        "pathlib.Path('outputs/partial.txt').write_text('kept')\n"
        "subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
        "run = Run.get_context(allow_offline=False)\n"
        "run.log('Ready', 1)\n"
        "time.sleep(300)\n"
    )
    run_id = sdk.submit(source=str(tmp_path))
    sdk.wait_for_metric(run_id=run_id, name="Ready")
    names = set()
    for process in processes_of(run_id):
        with contextlib.suppress(psutil.NoSuchProcess):
            names.add(process.name())
    assert "sleep" in names
    sdk.cancel(run_id=run_id)
    assert sdk.wait(run_id=run_id) == "Canceled"
    sdk.cancel(run_id=run_id)
    assert sdk.status(run_id=run_id) == "Canceled"
    assert "outputs/partial.txt" in sdk.files(run_id=run_id)
    assert processes_of(run_id) == [], "a process that the script had started went on"


def test_a_run_over_its_time_cap_is_cancelled(sdk: Sdk, job_source: str) -> None:
    run_id = sdk.submit(source=job_source, arguments=["--epochs", 1000, "--sleep", 1], seconds=6)
    assert sdk.wait(run_id=run_id) == "Canceled"
    assert "maximum duration" in sdk.details(run_id=run_id)["warnings"][0]["message"]


def test_runs_queue_for_nodes(sdk: Sdk, job_source: str) -> None:
    sdk.create_cluster(name="single", max_nodes=1)
    runs = [sdk.submit(source=job_source, target="single", command=["sleep", "1"]) for _ in range(2)]
    assert [sdk.wait(run_id=run_id) for run_id in runs] == ["Completed", "Completed"]
    (_, first_end), (second_start, _) = (sdk.times(run_id=run_id) for run_id in runs)
    assert first_end <= second_start


def test_more_nodes_than_the_cluster_has_are_refused(sdk: Sdk, job_source: str) -> None:
    with pytest.raises(SdkError, match=r"ExperimentExecutionException(.|\n)*NodeCountExceeded"):
        sdk.submit(source=job_source, nodes=9, mpi=1)


@pytest.mark.slow
def test_mpi_runs_every_rank(sdk: Sdk, job_source: str) -> None:
    run_id = sdk.submit_estimator(source=job_source, nodes=2, per_node=1, arguments={"--flag": 3})
    assert sdk.wait(run_id=run_id) == "Completed"
    assert sdk.metrics(run_id=run_id) == {"Total": 3}
    for rank in range(2):
        text = sdk.log_text(run_id=run_id, name=f"user_logs/std_log_process_{rank}.txt")
        assert f"rank {rank} of 2 total 3 arguments ['--flag', '3']" in text


def test_snapshots_are_incremental(sdk: Sdk, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "package").mkdir(parents=True)
    (source / "package" / "__init__.py").write_text("")
    (source / "package" / "constant.py").write_text("VALUE = 41\n")
    show = ["cat", "train.py", "package/constant.py"]
    (source / "train.py").write_text("one\n")
    first = sdk.submit(source=str(source), command=show)
    (source / "train.py").write_text("two\n")
    second = sdk.submit(source=str(source), command=show)
    (source / "package" / "constant.py").write_text("VALUE = 50\n")
    third = sdk.submit(source=str(source), command=show)
    for run_id, text in ((first, "one\nVALUE = 41\n"), (second, "two\nVALUE = 41\n"), (third, "two\nVALUE = 50\n")):
        assert sdk.wait(run_id=run_id) == "Completed"
        assert sdk.log_text(run_id=run_id) == text
    archive = sdk.restore(run_id=second, target=str(tmp_path))
    shutil.unpack_archive(archive, tmp_path / "restored")
    assert (tmp_path / "restored" / "train.py").read_text() == "two\n"


def test_a_submission_as_a_zip_file(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "hello.txt").write_text("hello\n")
    run_id = sdk.submit_as_zip(source=str(tmp_path), command=["cat", "folder/hello.txt"])
    assert sdk.wait(run_id=run_id) == "Completed"
    assert sdk.log_text(run_id=run_id) == "hello\n"


def test_what_a_script_may_do_with_its_run(sdk: Sdk) -> None:
    run_id = sdk.submit(source=str(PROGRAMS / "job"), script="inside.py")
    assert sdk.wait(run_id=run_id) == "Completed", sdk.log_text(run_id=run_id)
    assert "inside:1" in sdk.models(name="inside")
    assert {"outputs/early.txt", "outputs/late.txt", "logs/live.txt"} <= set(sdk.files(run_id=run_id))
    assert sdk.metrics(run_id=run_id) == {"Loss": 0.5}
    assert len(sdk.children(run_id=run_id)) == 1


def test_interactive_runs(sdk: Sdk, tmp_path: Path) -> None:
    result = sdk.interactive_run(directory=str(tmp_path))
    assert result["metrics"] == {
        "loss": [0.5, 0.25],
        "list": [1, 2, 3],
        "row": {"x": 1, "y": 2},
        "table": {"a": [1, 2], "b": [3, 4]},
    }
    assert result["files"] == ["folder/with space é.txt", "many/with space é.txt"]
    assert result["tags"] == {"stage": "done", "other": "1"}
    assert (tmp_path / "back" / "many" / "with space é.txt").read_text() == "content"
    assert sdk.status(run_id=result["id"]) == "Completed"


def test_child_runs(sdk: Sdk) -> None:
    result = sdk.child_runs()
    assert result == {"children": [result["child"]], "child": result["child"], "status": "Failed"}


def test_runs_are_found_by_filter(sdk: Sdk, finished: str) -> None:
    assert finished in sdk.find_runs(experiment="tests")
    assert sdk.find_runs(experiment="tests", tags={"kind": "finished"}) == [finished]
    assert sdk.find_runs(experiment="tests", tags="kind") == [finished]
    assert finished in sdk.find_runs(experiment="tests", type="azureml.scriptrun")
    assert sdk.find_runs(experiment="tests", tags={"kind": "other"}) == []
    assert "tests" in sdk.experiments()


def test_large_files_go_in_blocks(sdk: Sdk, tmp_path: Path) -> None:
    source, target = tmp_path / "big", tmp_path / "back"
    generator = np.random.default_rng(0)
    source.write_bytes(generator.bytes(70 * 1024 * 1024))
    sdk.upload_big(path=str(source), target=str(target))
    assert source.read_bytes() == target.read_bytes()


def test_clusters(sdk: Sdk) -> None:
    sizes = {size.upper() for size in sdk.vm_sizes()}
    assert {"STANDARD_NC4AS_T4_V3", "STANDARD_NC24ADS_A100_V4", "STANDARD_NC40ADS_H100_V5", "STANDARD_NC6"} <= sizes
    with pytest.raises(SdkError, match=r"ComputeTargetException(.|\n)*InvalidVmSize"):
        sdk.create_cluster(name="none", size="STANDARD_ND99")
    status = sdk.create_cluster(name="other", min_nodes=1, max_nodes=2, idle=120)
    assert status["currentNodeCount"] == 1
    assert status["scaleSettings"] == {
        "minNodeCount": 1,
        "maxNodeCount": 2,
        "nodeIdleTimeBeforeScaleDown": "PT120S",
    }
    assert sdk.update_cluster(name="other", max_nodes=3)["scaleSettings"]["maxNodeCount"] == 3
    assert "other" not in sdk.delete_cluster(name="other")


@pytest.mark.slow
def test_parallel_submissions_all_run(sdk: Sdk, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text("hello\n")
    runs = sdk.submit_many(source=str(tmp_path), count=20, command=["cat", "hello.txt"])
    assert len(set(runs)) == 20
    assert [sdk.wait(run_id=run_id) for run_id in runs] == ["Completed"] * 20
    assert [sdk.log_text(run_id=run_id) for run_id in runs] == ["hello\n"] * 20
