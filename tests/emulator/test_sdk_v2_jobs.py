"""SDK v2 in one process, asked many things: jobs, models, faults, and what it shares with SDK v1."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from azureml_emulator import Emulator, Endpoint, FaultAction, FaultRule, Settings
from tests.emulator.clients import Http, Sdk, SdkError, SdkV2, processes_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An emulator of this file's own."""
    settings = Settings(phase_duration=0.0, cancel_grace=2.0)
    with Emulator(tmp_path_factory.mktemp("state"), settings=settings) as endpoint:
        yield endpoint
        assert endpoint.unknown_requests() == []


@pytest.fixture(autouse=True)
def _no_faults(endpoint: Endpoint) -> Iterator[None]:
    yield
    endpoint.clear_faults()


@pytest.fixture(scope="module")
def v2(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SdkV2]:
    session = SdkV2(endpoint, tmp_path_factory.mktemp("v2"))
    yield session
    session.close()


@pytest.fixture(scope="module")
def v1(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdk]:
    session = Sdk(endpoint, tmp_path_factory.mktemp("v1"))
    yield session
    session.close()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "hello é.txt").write_text("hello\n")
    return folder


# Jobs


def test_inputs_outputs_and_files(v2: SdkV2, tmp_path: Path, code: Path) -> None:
    data = tmp_path / "data"
    (data / "inner").mkdir(parents=True)
    (data / "inner" / "a b.txt").write_text("deep")
    (data / "one.csv").write_text("1,2")
    name = v2.submit(
        command_line=(
            "cat 'hello é.txt' && cp -r ${{inputs.folder}}/inner ${{outputs.made}}/"
            " && cat ${{inputs.file}} > ${{outputs.file}} && echo $WORD ${{inputs.number}}"
            " && echo out > outputs/o.txt && echo log > logs/l.txt"
        ),
        code=str(code),
        inputs={
            "folder": {"type": "uri_folder", "path": str(data)},
            "file": {"type": "uri_file", "path": str(data / "one.csv")},
            "number": 3,
        },
        outputs={"made": {"type": "uri_folder"}, "file": {"type": "uri_file"}},
        environment_variables={"WORD": "said"},
        display_name="shown",
        tags={"a": "b"},
    )
    assert v2.wait(name=name) == "Completed", v2.download(name=name, target=str(tmp_path / "why"))
    files = v2.download(name=name, target=str(tmp_path / "all"), all=True)
    assert files.pop("artifacts/user_logs/std_log.txt") == "hello\nsaid 3\n"
    assert files == {
        "artifacts/logs/l.txt": "log\n",
        "artifacts/outputs/o.txt": "out\n",
        "named-outputs/file/file": "1,2",
        "named-outputs/made/inner/a b.txt": "deep",
    }
    found = v2.get(name=name)
    assert (found["display_name"], found["tags"], found["experiment"]) == ("shown", {"a": "b"}, "tests-v2")
    # One job's output is another's input.
    after = v2.submit(
        command_line="cat '${{inputs.before}}/inner/a b.txt'",
        inputs={"before": {"type": "uri_folder", "path": f"azureml://jobs/{name}/outputs/made"}},
    )
    assert v2.wait(name=after) == "Completed"
    assert v2.download(name=after, target=str(tmp_path / "after")) == {"artifacts/user_logs/std_log.txt": "deep"}


def test_data_assets(v2: SdkV2, tmp_path: Path) -> None:
    first, second = tmp_path / "one.csv", tmp_path / "two.csv"
    first.write_text("1,2")
    second.write_text("3,4")
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a b.txt").write_text("deep")
    made = v2.register_data(name="table", path=str(first), kind="uri_file")
    assert (made["version"], made["type"]) == ("1", "uri_file")
    assert made["path"].startswith("azureml://subscriptions/")
    assert v2.register_data(name="table", path=str(second), kind="uri_file")["version"] == "2"
    # The same path as an asset of its own: nothing is uploaded.
    assert v2.register_data(name="again", path=made["path"], kind="uri_file")["path"] == made["path"]
    assert v2.register_data(name="tree", path=str(folder), kind="uri_folder", version="v1")["version"] == "v1"
    assert v2.list_data(name="table") == {
        "names": ["again", "table", "tree"],
        "versions": ["2", "1"],
        "latest": "2",
        "tags": {"a": "b"},
    }
    assert v2.archive_data(name="table", version="1") == ["2"]
    with pytest.raises(SdkError, match="cannot be changed"):
        v2.register_data(name="table", path=str(second), kind="uri_file", version="1")
    # An asset is given to a job under its file's own name.
    name = v2.submit(
        command_line="cat ${{inputs.table}} ${{inputs.latest}} ${{inputs.tree}}/inner/a* && echo ${{inputs.table}}",
        inputs={
            "table": {"type": "uri_file", "path": "azureml:table:1"},
            "latest": {"type": "uri_file", "path": "table@latest"},
            "tree": {"type": "uri_folder", "path": "azureml:tree:v1"},
        },
    )
    assert v2.wait(name=name) == "Completed"
    said = v2.download(name=name, target=str(tmp_path / "said"))["artifacts/user_logs/std_log.txt"]
    assert said.startswith("1,23,4deep")
    assert said.endswith("/one.csv\n")
    with pytest.raises(SdkError, match="Data no:1 not found"):
        v2.submit(command_line="true", inputs={"x": {"type": "uri_file", "path": "azureml:no:1"}})
    with pytest.raises(SdkError, match=r"uri_file. or .uri_folder"):
        v2.register_data(name="tab", path=made["path"].rpartition("/")[0], kind="mltable")


def test_a_failed_job_says_why(v2: SdkV2) -> None:
    name = v2.submit(command_line="echo before; exit 3")
    with pytest.raises(SdkError, match=r"JobException(.|\n)*exited with code 3"):
        v2.stream(name=name)
    assert v2.wait(name=name) == "Failed"


def test_cancel_and_time_cap(v2: SdkV2, http2: Http) -> None:
    name = v2.submit(command_line="sleep 300 & sleep 300", name="to-cancel")
    v2.wait_until_running(name=name)
    assert "CANCELED" in v2.cancel(name=name).upper()
    assert processes_of(name) == []
    assert "CANCELED" in v2.cancel(name=name).upper()
    capped = v2.submit(command_line="sleep 300", seconds=1)
    assert v2.wait(name=capped) == "Canceled"
    assert (
        "maximum duration"
        in http2("GET", f"/history/v1.0{http2.workspace}/runs/{capped}").json()["warnings"][0]["message"]
    )


def test_logs_are_there_while_the_job_writes_them(v2: SdkV2, http2: Http) -> None:
    name = v2.submit(command_line="echo one > logs/l.txt; echo file > outputs/o.txt; sleep 300")
    url = f"/history/v1.0{http2.workspace}/runs/{name}/details"
    deadline = time.monotonic() + 120
    while "logs/l.txt" not in (found := http2("GET", url).json())["logFiles"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    # The shell makes the file before it writes into it.
    while http2("GET", found["logFiles"]["logs/l.txt"], token=None).text != "one\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found["status"] == "Running"
    v2.cancel(name=name)


@pytest.fixture
def http2(endpoint: Endpoint) -> Http:
    return Http(endpoint)


def test_a_name_is_one_job(v2: SdkV2, code: Path) -> None:
    assert v2.submit_twice(command_line="true", code=str(code), name="Only-One") == ["only-one"] * 2
    # The folder's hash finds the code that is there already, so this is the same job still.
    assert v2.submit(command_line="true", code=str(code), name="only-one") == "only-one"
    assert v2.wait(name="only-one") == "Completed"
    with pytest.raises(SdkError, match=r"A job with this name already exists: only-one"):
        v2.submit(command_line="false", code=str(code), name="only-one")
    with pytest.raises(SdkError, match="ResourceNotFoundError"):
        v2.get(name="nothing")


def test_several_processes(v2: SdkV2, tmp_path: Path) -> None:
    mpi = v2.submit(command_line="echo rank $PMI_RANK of $PMI_SIZE", nodes=2, mpi=1)
    torch = v2.submit(command_line="echo rank $RANK of $WORLD_SIZE on $NODE_RANK", nodes=2, torch=2)
    for name, ranks, text in ((mpi, 2, "rank 1 of 2\n"), (torch, 4, "rank 1 of 4 on 0\n")):
        assert v2.wait(name=name) == "Completed"
        files = v2.download(name=name, target=str(tmp_path / name))
        logs = {key: value for key, value in files.items() if "std_log_process" in key}
        assert len(logs) == ranks
        assert next(value for key, value in logs.items() if key.endswith("process_1.txt")) == text
    with pytest.raises(SdkError, match="NodeCountExceeded"):
        v2.submit(command_line="true", nodes=9, mpi=1)


def test_lists_and_archive(v2: SdkV2) -> None:
    name = v2.submit(command_line="true", tags={"kind": "listed"})
    assert name in v2.names()
    assert v2.names(tag="kind=listed") == [name]
    v2.archive(name=name)
    assert name not in v2.names()
    assert name in v2.names(view="ARCHIVED_ONLY")
    v2.restore(name=name)
    assert name in v2.names()


def test_clusters(v2: SdkV2) -> None:
    assert v2.cluster(name="passing") == "passing"
    found = v2.clusters()
    assert "passing" in found["names"]
    assert found["sizes"] > 20
    assert "passing" not in v2.delete_cluster(name="passing")


def test_environments(v2: SdkV2, tmp_path: Path) -> None:
    conda = tmp_path / "conda.yml"
    conda.write_text("name: x\ndependencies: [python=3.11]\n")
    first = v2.register_environment(name="mine", conda=str(conda))
    assert first["version"] == "1"
    assert first["conda"]["dependencies"] == ["python=3.11"]
    assert v2.register_environment(name="mine", image="python:3.12")["version"] == "2"
    assert v2.environment(name="mine", label="latest")["image"] == "python:3.12"
    assert v2.environments(name="mine") == ["2", "1"]
    assert "mine" in v2.environments()
    with pytest.raises(SdkError, match="cannot be changed"):
        v2.register_environment(name="mine", version="2", image="python:3.13")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM python:3.12\n")
    assert v2.wait(name=v2.submit(command_line="true", build=str(context))) == "Completed"


# Models, and the other SDK


def test_one_registry(v2: SdkV2, v1: Sdk, tmp_path: Path) -> None:
    name = v2.submit(
        command_line="mkdir outputs/deep && echo m > outputs/deep/m.txt && echo n > ${{outputs.named}}/n.txt",
        outputs={"named": {"type": "uri_folder"}},
    )
    assert v2.wait(name=name) == "Completed"
    outputs = f"azureml://jobs/{name}/outputs"
    made = v2.register(name="shared", path=f"{outputs}/artifacts/paths/outputs/deep/", tags={"t": "1"}, description="d")
    assert made["version"] == "1"
    assert f"ExperimentRun/dcid.{name}/outputs/deep" in made["path"]
    assert v2.register(name="shared", path=f"{outputs}/named/paths/n.txt")["version"] == "2"
    local = tmp_path / "local.txt"
    local.write_text("l")
    assert v2.register(name="shared", path=str(local))["version"] == "3"
    assert v2.models(name="shared") == [["shared", "3"], ["shared", "2"], ["shared", "1"]]
    assert v2.model(name="shared", label="latest")["version"] == "3"
    found = v2.model(name="shared", version="1")
    assert (found["tags"], found["description"]) == ({"t": "1"}, "d")
    for version, content in (("1", "m\n"), ("2", "n\n"), ("3", "l")):
        files = v2.download_model(name="shared", version=version, target=str(tmp_path / f"two{version}"))
        assert list(files.values()) == [content]
    # SDK v1 sees them, and what it registers SDK v2 sees.
    assert {"shared:1", "shared:2", "shared:3"} <= set(v1.models(name="shared"))
    source = tmp_path / "job"
    source.mkdir()
    (source / "train.py").write_text("import pathlib; pathlib.Path('outputs/model.npz').write_text('from v1')\n")
    run = v1.submit(source=str(source))
    assert v1.wait(run_id=run) == "Completed"
    assert v1.register(run_id=run, name="shared") == "shared:4"
    files = v2.download_model(name="shared", version="4", target=str(tmp_path / "four"))
    assert list(files.values()) == ["from v1"]
    assert v2.model(name="shared", version="4")["path"].endswith(f"ExperimentRun/dcid.{run}/outputs/model.npz")
    with pytest.raises(SdkError, match="cannot be updated"):
        v2.register(name="shared", path=str(local), version="1")
    with pytest.raises(SdkError, match="ModelNotFound"):
        v2.register(name="shared", path=f"{outputs}/artifacts/paths/outputs/nothing")
    assert v2.archive_model(name="shared", version="3") == [["shared", "4"], ["shared", "2"], ["shared", "1"]]
    assert len(v2.restore_model(name="shared", version="3")) == 4
    assert v2.archive_model(name="shared") == []
    v2.restore_model(name="shared")


def test_each_sdk_reads_the_other_s_runs(v2: SdkV2, v1: Sdk, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import mlflow, sys\n"
        "mlflow.log_param('p', 1)\n"
        "for step in range(2):\n"
        "    mlflow.log_metric('M', 0.5 + step, step=step)\n"
        "print('argument', sys.argv[1])\n"
    )
    second = v2.submit(command_line="python train.py ${{inputs.x}}", code=str(tmp_path), inputs={"x": 7})
    first = v1.submit(source=str(tmp_path), arguments=[7], tags={"kind": "v1"})
    for read in (v2.wait(name=first), v1.wait(run_id=second)):
        assert read == "Completed"
    assert v1.metrics(run_id=first) == v1.metrics(run_id=second) == {"M": [0.5, 1.5]}
    for name in (first, second):
        assert v2.metrics(name=name) == {"metrics": {"M": 1.5}, "params": {"p": "1"}, "status": "FINISHED"}
        assert "argument 7" in v1.log_text(run_id=name)
        assert name in v2.names()
    assert v2.get(name=first)["command"] == "python train.py 7"
    assert v2.get(name=first)["tags"]["kind"] == "v1"
    archive = v1.restore(run_id=second, target=str(tmp_path))
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["train.py"]
    files = v2.download(name=first, target=str(tmp_path / "first"))
    assert any("argument 7" in text for text in files.values())


def test_a_grid(v2: SdkV2, v1: Sdk) -> None:
    name = v2.sweep_grid(command_line="echo value ${{inputs.x}}", values=["a b", "c"])
    assert v2.describe_sweep(name=name)["sampling"] == "grid"
    assert v2.wait(name=name) == "Completed"
    children = v2.names(parent_job_name=name)
    assert sorted(children) == [f"{name}_0", f"{name}_1"]
    assert v2.get(name=f"{name}_0")["command"] == "echo value a b"
    assert sorted(v1.children(run_id=name)) == sorted(children)


# Faults


def lose(route: str, **options: object) -> FaultRule:
    return FaultRule(route=route, action=FaultAction.DROP_ANSWER, times=1, **options)  # type: ignore[arg-type]


def test_the_answer_to_a_submission_is_lost(v2: SdkV2, endpoint: Endpoint) -> None:
    endpoint.set_faults(rules=[lose("PUT */jobs/lost-answer")])
    assert v2.submit(command_line="echo once", name="lost-answer") == "lost-answer"
    assert v2.wait(name="lost-answer") == "Completed"
    assert endpoint.faults().rules[0].times == 0


def test_the_answer_to_a_registration_is_lost(v2: SdkV2, endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("m")
    endpoint.set_faults(rules=[lose("PUT */models/lost/versions/*")])
    assert v2.register(name="lost", path=str(tmp_path / "m"))["version"] == "1"
    assert v2.models(name="lost") == [["lost", "1"]]


def test_refusals_that_pass_are_ridden_out(v2: SdkV2, endpoint: Endpoint) -> None:
    endpoint.set_faults(
        rules=[
            FaultRule(route="PUT */jobs/*", status=503, times=1),
            FaultRule(route="GET */jobs/*", status=429, retry_after=1, times=1),
            FaultRule(route="GET */details", status=500, times=1),
        ]
    )
    name = v2.submit(command_line="sleep 1; echo streamed")
    v2.stream(name=name)
    assert all(rule.times == 0 for rule in endpoint.faults().rules)


def test_expired_signatures(v2: SdkV2, endpoint: Endpoint, code: Path) -> None:
    (code / "other.txt").write_text("so that the code is not there already")
    endpoint.set_faults(expired_sas=True)
    with pytest.raises(SdkError, match="AuthenticationFailed"):
        v2.submit(command_line="true", code=str(code))


# Strictness


def test_what_is_not_emulated_is_refused_with_a_reason(v2: SdkV2) -> None:
    with pytest.raises(SdkError, match="serverless, is not emulated"):
        v2.serverless()
    with pytest.raises(SdkError, match="nowhere"):
        v2.without_environment(name="bad-environment")
    with pytest.raises(SdkError, match="reads no files from elsewhere"):
        v2.submit(command_line="cat ${{inputs.x}}", inputs={"x": {"type": "uri_file", "path": "https://example.org/x"}})
