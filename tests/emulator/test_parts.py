"""The emulator's parts that need no server: durations, names, filters, nodes, tokens."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azureml_emulator.api.run_filter import run_filter, sort_runs
from azureml_emulator.errors import ServiceError
from azureml_emulator.faults import FaultRule, Faults, FaultSwitchboard
from azureml_emulator.jobs.collect import collect
from azureml_emulator.jobs.nodes import NodePool
from azureml_emulator.jobs.plan import JobPlan, job_environment
from azureml_emulator.jobs.process import Attempt, Outcome, Sight
from azureml_emulator.settings import Settings
from azureml_emulator.state import StateDir, write_atomically
from azureml_emulator.store.artifacts import ArtifactStore, normalise
from azureml_emulator.store.blobs import BlobStore
from azureml_emulator.store.compute import ScaleSettings
from azureml_emulator.store.database import Database
from azureml_emulator.store.runs import Run, RunStatus
from azureml_emulator.times import parse_duration
from azureml_emulator.tokens import Scope, TokenAuthority, TokenError
from azureml_emulator.webservices.front import cut_log

# Names, durations, filters


@given(st.integers(0, 10), st.integers(0, 100), st.integers(0, 100), st.integers(0, 9999))
def test_durations(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"P{days}DT{hours}H{minutes}M{seconds}S"
    assert parse_duration(text, 0) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1800", "PT1800", "soon", "PT-5S"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_duration(text, 0)


@given(st.text())
def test_a_name_stays_in_its_container_or_is_refused(path: str) -> None:
    try:
        clean = normalise(path)
    except ServiceError:
        return
    root = Path("/container")
    assert Path(re.sub("/+", "/", f"{root}/{clean}")).parts[:2] == root.parts
    assert ".." not in clean.split("/")
    assert not clean.startswith("/")
    assert normalise(clean) == clean


TAGS = {"a": "1", "two words": "three (3) and more", "a eq b": "c", "quoted": 'say "yes"'}


def _run(run_id: str = "r", **fields: Any) -> Run:
    given_fields: dict[str, Any] = {"status": RunStatus.RUNNING, "tags": TAGS, "created_utc": "2026-01-02"}
    return Run(
        run_id=run_id,
        run_number=1,
        root_run_id=run_id,
        experiment_id="e",
        data_container_id="d",
        **(given_fields | fields),
    )


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        (None, True),
        ("(ParentRunId eq null)", True),
        ("(Status eq Running)", True),
        ("(Status eq Failed)", False),
        ("(Tags/a eq 1)", True),
        ("(Tags/a ne null or Tags/a eq null)", True),
        ("(Tags/b ne null or Tags/b eq null)", False),
        ("((ParentRunId eq null) and (Tags/a eq 1) and (Status eq Running))", True),
        ("((ParentRunId eq null) and (Tags/a eq 2))", False),
        ("RunId eq x or RunId eq r", True),
        ("(CreatedUtc ge 2026-01-01 10:00:00)", True),
        ("(CreatedUtc ge 2026-01-03)", False),
        ("(RunType eq t or Properties/azureml.runsource eq t)", False),
        ('(Tags/a eq "1")', True),
        ('(Tags/a eq "2")', False),
        ("(Tags/two words ne null or Tags/two words eq null)", True),
        ("(Tags/no words ne null or Tags/no words eq null)", False),
        ('(Tags/two words eq "three (3) and more")', True),
        ('(Tags/two words eq "three")', False),
        ('(Tags/a eq b eq "c")', True),
        ('((ParentRunId eq null) and (Tags/two words eq "three (3) and more") and (Tags/a eq "1"))', True),
        ('(Properties/a property eq "x")', False),
        ('(Tags/quoted eq "say "yes"")', True),
        ("(RunTypeV2/Traits/automl ne null) or (RunTypeV2/Traits/automl eq null)", False),
    ],
)
def test_filters(expression: str | None, matches: bool) -> None:
    assert run_filter(expression)(_run()) is matches


@given(st.text())
def test_a_filter_is_understood_or_refused(expression: str) -> None:
    with contextlib.suppress(ServiceError):
        run_filter(expression)(_run())


def test_runs_are_sorted() -> None:
    runs = [_run(name, start_time_utc=start) for name, start in (("a", "2"), ("b", "3"), ("c", None))]
    assert [run.run_id for run in sort_runs(runs, ["StartTimeUtc desc"])] == ["b", "a", "c"]
    assert [run.run_id for run in sort_runs(runs, ["RunId desc"])] == ["c", "b", "a"]


# Nodes


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=30), st.integers(0, 3))
def test_a_pool_never_exceeds_its_bounds(steps: list[tuple[int, bool]], minimum: int) -> None:
    scale = ScaleSettings(min_node_count=minimum, max_node_count=4, node_idle_time_before_scale_down="PT10S")
    pool, busy, now = NodePool(), [], 0.0
    for nodes, ends in steps:
        now += 3.0
        pool.settle(scale, 0.0, now)
        if ends and busy:
            pool.give_back(busy.pop(), now)
        pool.scale_to(pool.busy + nodes, scale, 0.0, now)
        if pool.take(nodes):
            busy.append(nodes)
        assert pool.busy == sum(busy)
        assert 0 <= pool.size <= 4
    for nodes in busy:
        pool.give_back(nodes, now)
    pool.settle(scale, 0.0, now + 100.0)
    assert pool.size == minimum


def test_nodes_take_their_time_to_start() -> None:
    scale = ScaleSettings(min_node_count=0, max_node_count=2)
    pool = NodePool()
    pool.scale_to(1, scale, 5.0, now=0.0)
    assert not pool.take(1)
    pool.settle(scale, 5.0, now=5.0)
    assert pool.take(1)
    assert pool.counts().running_node_count == 1


# Tokens, faults, environment, plans


def test_a_blob_signature_can_t_be_changed() -> None:
    authority = TokenAuthority(b"k" * 32)
    query = dict(part.split("=", 1) for part in authority.sign_blob("key", "r", 60).split("&"))
    from urllib.parse import unquote

    query = {name: unquote(value) for name, value in query.items()}
    authority.check_blob("key", "r", query)
    for change in ({"sp": "rw"}, {"se": "2999-01-01T00:00:00Z"}, {"sig": "AAAA"}, {"sig": ""}):
        with pytest.raises(TokenError):
            authority.check_blob("key", "r", query | change)
    with pytest.raises(TokenError):
        authority.check_blob("key", "w", query)


@given(st.text())
def test_garbage_is_no_token(text: str) -> None:
    with pytest.raises(TokenError):
        TokenAuthority(b"k" * 32).check(text)


def test_a_token_says_whose_run_it_is() -> None:
    authority = TokenAuthority(b"k" * 32)
    claims = authority.check(authority.issue(Scope.RUN, 60, run_id="r"))
    assert (claims.scope, claims.run_id) == (Scope.RUN, "r")


def test_rules_fire_in_order_and_run_out() -> None:
    switchboard = FaultSwitchboard(
        Faults(rules=[FaultRule(route="GET /a*", status=429, times=1), FaultRule(route="* /a*", status=503)])
    )
    found = [switchboard.next_rule(*request) for request in (("GET", "/a"), ("GET", "/a"), ("PUT", "/b"))]
    assert [rule.status if rule else None for rule in found] == [429, 503, None]


def test_a_job_s_environment_has_no_client_settings(tmp_path: Path) -> None:
    environment = job_environment(
        Settings(),
        inherited={
            "PATH": "/bin",
            "OMP_NUM_THREADS": "1",
            "MSI_ENDPOINT": "x",
            "ARM_CLOUD_METADATA_URL": "x",
            "AZURE_CLIENT_SECRET": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "PYTHONPATH": "x",
            "HTTPS_PROXY": "http://user:x@proxy.example",
            "HTTP_PROXY": "http://proxy.example",
            "HOME": "/root",
        },
        requested={"MINE": "1", "AZUREML_RUN_TOKEN": "stolen"},
        experiment="e",
        experiment_id="i",
        run_id="r",
        token="t",
        token_expiry=0.0,
        base_url="https://127.0.0.1:1",
        tracking_uri="azureml://127.0.0.1:1/mlflow",
        discovery_url="https://127.0.0.1:1/d",
        workspace_id="w",
        ca_bundle=tmp_path / "ca",
        home=tmp_path,
        distributed=False,
    )
    assert "x" not in environment.values()
    assert "HTTPS_PROXY" not in environment
    assert environment["HTTP_PROXY"] == "http://proxy.example"
    assert environment["HOME"] == str(tmp_path)
    assert environment["OMP_NUM_THREADS"] == environment["MINE"] == "1"
    assert environment["AZUREML_RUN_TOKEN"] == "t"
    assert environment["AZUREML_RUN_TOKEN_EXPIRY"] == "1970-01-01T00:00:00Z"
    assert environment["PATH"].endswith(":/bin")


def test_arguments_become_text_as_a_shell_would_have_them() -> None:
    plan = JobPlan.from_wire({"script": "s.py", "target": "c", "arguments": ["--n", 10, "--lr", 0.1, "--f", "a b"]})
    assert plan.script_arguments == ["--n", "10", "--lr", "0.1", "--f", "a b"]
    assert plan.log_names() == ["std_log.txt"]


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param({"communicator": "Mpi", "nodeCount": 2, "mpi": {"processCountPerNode": 3}}, id="estimator"),
        pytest.param({"communicator": "IntelMpi", "mpi": {"nodeCount": 2, "processCountPerNode": 3}}, id="config"),
    ],
)
def test_mpi_has_a_rank_for_each_process_of_each_node(nodes: dict[str, Any], tmp_path: Path) -> None:
    plan = JobPlan.from_wire({"script": "s.py", "target": "c", **nodes})
    command, release = plan.commands(tmp_path)
    at = command.index("-n")
    assert command[at - 2].endswith("mpirun.py")
    assert Path(command[at - 1]).name == "mpiexec"
    assert command[at + 1] == "6"
    assert release[-1] == "release"
    assert len(plan.log_names()) == 6
    assert plan.nodes == 2


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_atomically(target, "old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_supervisor_that_comes_too_late_runs_nothing(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path)
    attempt.create()
    assert attempt.void()
    marker = tmp_path / "ran"
    attempt.prepare([["touch", str(marker)]], {}, log=tmp_path / "log", deadline=None, grace=1.0)
    process = attempt.start()
    assert process.wait(600) == 0
    assert not marker.exists()
    assert attempt.outcome() is None
    assert attempt.process() is None


@pytest.mark.parametrize(
    ("commands", "reason", "code"),
    [
        ([["true"], ["true"]], "exited", 0),
        ([["sh", "-c", "exit 3"], ["touch", "never"]], "exited", 3),
        ([["/no/such/program"]], "could not start", -1),
    ],
)
def test_a_supervisor_writes_how_its_job_ended(
    tmp_path: Path, commands: list[list[str]], reason: str, code: int
) -> None:
    attempt = Attempt(tmp_path)
    attempt.create()
    environment = {"PATH": os.environ["PATH"]}
    attempt.prepare(commands, environment, log=tmp_path / "log", deadline=None, grace=1.0)
    attempt.start().wait(600)
    outcome = attempt.outcome()
    assert outcome is not None
    assert outcome.reason.startswith(reason)
    assert outcome.code == code
    assert not (attempt.work / "never").exists()


def test_collecting_takes_files_of_the_run_and_no_others(tmp_path: Path) -> None:
    state = StateDir.at(tmp_path / "state")
    state.create()
    database = Database(state.database)
    blobs = BlobStore(database, state)
    artifacts = ArtifactStore(database, blobs)
    work = tmp_path / "work"
    for name in ("outputs/a.txt", "outputs/deep/b.txt", "logs/c.txt", "other/d.txt"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    (work / "outputs" / "link").symlink_to("/etc/hostname")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (work / "escape").symlink_to(tmp_path / "outside")
    uploaded = artifacts.reserve("ExperimentRun", "c", "outputs/a.txt")
    blobs.commit_bytes(uploaded.blob_key, b"as uploaded")
    streamed = artifacts.reserve("ExperimentRun", "c", "logs/c.txt")
    blobs.commit_bytes(streamed.blob_key, b"logs")
    collect(work, ["outputs", "logs", "escape", "..", "."], "c", artifacts, blobs)
    found = {item.path: artifacts.blob(item).path.read_bytes() for item in artifacts.list("ExperimentRun", "c")}
    assert found == {
        "outputs/a.txt": b"as uploaded",
        "outputs/deep/b.txt": b"outputs/deep/b.txt",
        "logs/c.txt": b"logs/c.txt",
    }
    database.close()


def test_a_log_that_grows_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "container.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(1000):
            writer.write(b"line %d\n" % number)
            cut_log(log, most=1000)
            assert log.stat().st_size <= 1000
        lines = log.read_bytes().splitlines()
    assert lines[-1] == b"line 999"
    assert lines == [b"line %d" % number for number in range(1000 - len(lines), 1000)]
    assert len(lines) > 40
    cut_log(tmp_path / "missing.log")


def test_an_attempt_that_begins_and_ends_is_never_taken_for_one_that_was_killed(tmp_path: Path) -> None:
    for number in range(10):
        attempt = Attempt(tmp_path / str(number))
        attempt.create()
        attempt.prepare([["true"]], {}, log=attempt.logs / "log.txt", deadline=None, grace=1.0)
        supervisor = attempt.start()
        while (sight := attempt.look()).outcome is None:
            assert sight.alive or not sight.claimed
        assert sight.outcome == Outcome("exited", 0)
        assert supervisor.wait(60) == 0


def test_an_attempt_whose_supervisor_was_killed_says_so(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path)
    attempt.create()
    attempt.prepare([["sleep", "600"]], {}, log=attempt.logs / "log.txt", deadline=None, grace=1.0)
    supervisor = attempt.start()
    while not attempt.look().alive:
        pass
    attempt.kill()
    supervisor.wait(60)
    assert attempt.look() == Sight(claimed=True, alive=False, outcome=None)
