"""Runs side by side: lists with metrics, conditions, order, columns; diff, tags, names; rerun, clean and delete."""

import csv
import io
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Project
from tests.cli.test_terminal import run_on_terminal
from trainer.history import INDEX_FILE
from trainer.submission import changed_arguments

SCRIPT = """
import os, sys
from azureml.core import Run
run = Run.get_context()
value = float(sys.argv[sys.argv.index("--lr") + 1])
for step in range(1, 4):
    run.log("Accuracy", value / step, step=step)
    run.log("Loss", step - value, step=step)
run.log("odd name", 1)
if value > 0.8:
    raise ValueError("too large")
"""


@pytest.fixture(scope="module")
def compared_once(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Project:
    """Three runs of a script: two that end well, one that fails."""
    top = tmp_path_factory.mktemp("compared")
    project = Project(top / "project", tiny_data, top)
    name = project.script(SCRIPT)
    for rate, code in (("0.25", 0), ("0.5", 0), ("0.9", 1)):
        words = ("run", "--script", name, "--tag", f"kind={'odd' if rate == '0.5' else 'even'}", "--no-register")
        ran = project.trainer(*words, "--", "--lr", rate, "--quiet")
        assert ran.returncode == code, ran.stderr
    return project


@pytest.fixture
def compared(compared_once: Project, tmp_path: Path) -> Project:
    project = Project(tmp_path / "project", compared_once.data, tmp_path)
    shutil.copytree(compared_once.path / ".trainer", project.path / ".trainer", symlinks=True)
    return project


def rows(project: Project, *words: str) -> list[dict[str, Any]]:
    done = project.trainer("runs", "--json", *words)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def rates(project: Project, *words: str) -> list[str]:
    return [row["parameters"]["lr"] for row in rows(project, *words)]


def test_json_has_all_of_it(compared_once: Project) -> None:
    newest = rows(compared_once)[0]
    assert newest["parameters"] == {"lr": "0.9", "quiet": "yes"}
    assert newest["arguments"] == ["--lr", "0.9", "--quiet"]
    assert newest["metrics"] == {"Accuracy": pytest.approx(0.3), "Loss": pytest.approx(2.1), "odd name": 1}
    assert newest["best"] == {"Accuracy": 0.9, "Loss": pytest.approx(0.1), "odd name": 1}
    assert newest["tags"] == {"kind": "even"}
    assert newest["failure"]["message"] == "ValueError: too large"
    assert newest["status"] == "Failed"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), ["0.9", "0.5", "0.25"]),
        (("--reverse",), ["0.25", "0.5", "0.9"]),
        (("--sort", "accuracy"), ["0.9", "0.5", "0.25"]),
        (("--sort", "best:loss"), ["0.9", "0.5", "0.25"]),
        (("--sort", "lr"), ["0.25", "0.5", "0.9"]),
        (("--sort", "lr", "--reverse", "--limit", "1"), ["0.9"]),
        (("--where", "accuracy>0.1"), ["0.9", "0.5"]),
        (("--where", "best:accuracy >= 0.5 and status=completed"), ["0.5"]),
        (("--where", "status != failed", "--where", "kind=even"), ["0.25"]),
        (("--where", "failure~TOO"), ["0.9"]),
        (("--where", "oddname=1", "--limit", "2"), ["0.9", "0.5"]),
        (("--where", "lr<0.01"), []),
    ],
)
def test_choosing(compared_once: Project, words: tuple[str, ...], found: list[str]) -> None:
    assert rates(compared_once, *words) == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--where", "accuracy"), "'accuracy' is not a condition."),
        (("--where", "nothing>1"), "No run has a 'nothing'."),
        (("--sort", "nothing"), "No run has a 'nothing'."),
        (("--columns", "run,nothing"), "No run has a 'nothing'."),
        (("--columns", ","), "--columns names no column."),
        (("--csv", "--json"), "--csv and --json are two formats."),
    ],
)
def test_what_can_not_be_chosen(compared_once: Project, words: tuple[str, ...], said: str) -> None:
    done = compared_once.trainer("runs", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_shows_what_differs(compared_once: Project) -> None:
    head, newest, *_ = compared_once.trainer("runs").stdout.splitlines()
    columns = re.split(r"  +", head)
    assert columns[:7] == ["RUN", "STATUS", "TOOK", "ACCURACY", "LOSS", "BEST ACCURACY", "LR"]
    assert "QUIET" not in columns
    assert columns[-1] == "FAILURE"
    assert newest.endswith("ValueError: too large")


def test_csv(compared_once: Project) -> None:
    text = compared_once.trainer("runs", "--csv", "--columns", "run,lr,accuracy,failure").stdout
    first, *others = csv.reader(io.StringIO(text))
    assert first == ["run", "lr", "Accuracy", "failure"]
    assert [row[1] for row in others] == ["0.9", "0.5", "0.25"]
    assert float(others[0][2]) == pytest.approx(0.3)
    assert others[1][3] == ""


def test_diff(compared_once: Project) -> None:
    newest, middle, _ = (row["run_id"] for row in rows(compared_once))
    found = json.loads(compared_once.trainer("runs", "diff", middle, newest, "--json").stdout)
    assert found["parameters"] == [{"name": "lr", "a": "0.5", "b": "0.9"}]
    assert {item["name"] for item in found["job"]} == {"status", "failure"}
    assert found["files"] == found["environment"] == []
    assert {item["name"] for item in found["metrics"]} == {"Accuracy", "best:Accuracy", "Loss", "best:Loss"}
    shown = compared_once.trainer("runs", "diff", middle, newest).stdout
    assert re.search(r"^PARAMETER +\S+ +\S+\nlr +0\.5 +0\.9$", shown, re.MULTILINE)


def test_diff_of_files(compared: Project) -> None:
    name = compared.script(SCRIPT + "# changed\n")
    assert compared.trainer("run", "--script", name, "--", "--lr", "0.5", "--quiet").returncode == 0
    newest, _, other, _ = (row["run_id"] for row in rows(compared))
    found = json.loads(compared.trainer("runs", "diff", other, newest, "--json").stdout)
    assert [item["name"] for item in found["files"]] == ["script.py"]
    assert found["parameters"] == []


def test_curves_together(compared_once: Project, tmp_path: Path) -> None:
    ids = [row["run_id"] for row in rows(compared_once)]
    picture = tmp_path / "curves.png"
    done = compared_once.trainer("show", *ids, "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert done.stdout.startswith("Accuracy\n")
    assert all(done.stdout.count(run_id[9:]) >= 3 for run_id in ids), "in two sets of axes, and the table"


def test_tags_notes_and_names(compared: Project) -> None:
    run_id = rows(compared)[0]["run_id"]
    assert compared.trainer("runs", "tag", run_id, "stage=final", "seen", "--remove", "kind").returncode == 0
    assert compared.trainer("runs", "note", run_id, "warm start\nof two").returncode == 0
    assert compared.trainer("runs", "rename", run_id, "baseline").returncode == 0
    row = rows(compared, "--where", "note~warm")[0]
    assert (row["tags"], row["name"]) == ({"stage": "final", "seen": "yes"}, "baseline")
    assert json.loads(compared.trainer("show", "baseline", "--json").stdout)["run_id"] == run_id
    assert compared.trainer("runs", "rename", "baseline", "").returncode == 0
    assert compared.trainer("show", "baseline").returncode == 5


@pytest.mark.parametrize("name", ["latest", " ", "20261126-041427-a2macn"])
def test_names_that_name_no_run(compared_once: Project, name: str) -> None:
    assert compared_once.trainer("runs", "rename", "latest", name).returncode == 2


def test_a_name_is_given_once(compared: Project) -> None:
    first, second, _ = (row["run_id"] for row in rows(compared))
    assert compared.trainer("runs", "rename", first, "mine").returncode == 0
    assert compared.trainer("runs", "rename", second, "mine").returncode == 2


def test_rerun(compared: Project) -> None:
    assert compared.trainer("rerun", rows(compared)[2]["run_id"], "--", "--lr", "0.75").returncode == 0
    newest = rows(compared)[0]
    assert newest["arguments"] == ["--lr", "0.75", "--quiet"]
    assert newest["snapshot"] == rows(compared)[3]["snapshot"]
    assert newest["resumed_from"] is None


def test_at_80_columns_ids_are_whole_and_lines_fit(compared: Project) -> None:
    # Runs of scripts with options of their own, as a second script's would be.
    for number, run in enumerate(sorted(compared.runs.iterdir())):
        job = json.loads((run / "job.json").read_bytes())
        job["arguments"] += ["--output_directory", "./outputs", f"--option{number}", "x" * 9, "--seed", str(number)]
        (run / "job.json").write_text(json.dumps(job))
    (compared.path / ".trainer" / INDEX_FILE).unlink(missing_ok=True)
    seen = run_on_terminal(compared, ["runs"], COLUMNS="80")
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in seen.splitlines()]
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(run.name) for line in lines) for run in compared.runs.iterdir())
    said = " ".join(lines)
    assert re.search(r"RUN +STATUS +(TOOK +)?ACCURACY +LOSS .*LR ", said)
    assert "option0" in said.partition("No room for")[2], "what tells least is left out first, and named"
    assert "…" not in said


@pytest.mark.parametrize("again", ["rerun", "resume"])
def test_what_starts_a_run_again_is_checked_as_run_is(compared: Project, tmp_path: Path, again: str) -> None:
    run_id = rows(compared)[2]["run_id"]
    words = (again, run_id, *(() if again == "rerun" else ("--", "--resume", "x")))
    done = compared.trainer(again, "--detach", "--logs", *words[1:])
    assert (done.returncode, "error: --logs shows nothing with --detach." in done.stderr) == (2, True), done.stderr
    metadata = tmp_path / "site" / "chainer-7.7.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: chainer\nVersion: 7.7.0\n")
    (compared.runs / run_id / "outputs" / "state.npz").touch()
    done = compared.trainer(*words, env={"PYTHONPATH": str(tmp_path / "site")})
    assert (done.returncode, "error: Chainer 7.7.0 is installed" in done.stderr) == (3, True), done.stderr
    assert len(rows(compared)) == 3


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ((), ("--lr", "0.1", "-q", "x")),
        (("--lr", "1"), ("--lr", "1", "-q", "x")),
        (("--new", "--lr", "1", "y"), ("--lr", "1", "-q", "x", "--new", "y")),
        (("-q",), ("--lr", "0.1", "-q", "x")),
        (("--lr=2",), ("--lr", "0.1", "-q", "x", "--lr=2")),
    ],
)
def test_changed_arguments(changes: tuple[str, ...], found: tuple[str, ...]) -> None:
    assert changed_arguments(("--lr", "0.1", "-q", "x"), changes) == found


def test_the_index_is_rebuilt_when_stale(compared: Project) -> None:
    index = compared.path / ".trainer" / INDEX_FILE
    for path in compared.runs.iterdir():  # older than the clock's grain
        os.utime(path, (time.time() - 60,) * 2)
    assert len(rows(compared)) == 3
    assert len(json.loads(index.read_bytes())["entries"]) == 3
    newest = rows(compared)[0]["run_id"]
    compared.trainer("runs", "note", newest, "later")
    assert rows(compared)[0]["note"] == "later", "a folder that has changed is read again"
    index.write_text("{broken")
    assert rows(compared)[0]["note"] == "later"
    shutil.rmtree(compared.runs / newest)
    assert len(rows(compared)) == 2


def test_clean_says_first_and_asks(compared: Project) -> None:
    done = compared.trainer("clean", "--status", "failed")
    assert done.returncode == 0
    assert re.search(r"1 run, [\d.]+ kB\.", done.stderr)
    assert "add: --yes" in done.stderr
    assert len(rows(compared)) == 3
    assert compared.trainer("clean", "--status", "failed", "--yes").returncode == 0
    assert [row["status"] for row in rows(compared)] == ["Completed", "Completed"]


def test_clean_keeps_the_best(compared: Project) -> None:
    assert compared.trainer("clean", "--keep-best", "1", "--by", "loss", "--yes").returncode == 0
    assert rates(compared) == ["0.9"]


def test_clean_by_age(compared: Project) -> None:
    assert compared.trainer("clean", "--older-than", "1d", "--yes").returncode == 0
    assert len(rows(compared)) == 3
    assert compared.trainer("clean", "--older-than", "0m", "--yes").returncode == 0
    assert rows(compared) == []


@pytest.mark.parametrize(
    "words", [(), ("--older-than", "soon"), ("--status", "running"), ("--keep-best", "-1"), ("--registered",)]
)
def test_clean_needs_to_be_told(compared_once: Project, words: tuple[str, ...]) -> None:
    assert compared_once.trainer("clean", *words, "--yes").returncode == 2
    assert len(rows(compared_once)) == 3


def test_a_registered_run_is_spared(trained: Project) -> None:
    done = trained.trainer("clean", "--older-than", "0m", "--yes")
    assert "1 more have a registered model and stay" in done.stderr
    run_id = rows(trained)[0]["run_id"]
    refused = trained.trainer("delete", run_id)
    assert refused.returncode == 4
    assert f"trainer delete {run_id} --force" in refused.stderr
    assert trained.trainer("delete", run_id, "--force").returncode == 0
    assert rows(trained) == []
    assert trained.trainer("models").stdout.count("chainer-dnn-mnist") == 1


def test_delete_still_takes_models(trained: Project) -> None:
    asked = trained.trainer("delete", "chainer-dnn-mnist")
    assert asked.returncode == 2
    assert "trainer delete chainer-dnn-mnist:1" in asked.stderr
    assert trained.trainer("delete", "chainer-dnn-mnist:1").returncode == 0
    assert len(rows(trained)) == 1


def test_delete_a_run_by_the_end_of_its_id(compared: Project) -> None:
    run_id = rows(compared)[0]["run_id"]
    assert json.loads(compared.trainer("delete", run_id[-6:], "--json").stdout) == {"run_id": run_id, "deleted": True}
    assert not (compared.runs / run_id).exists()
    assert not list(compared.runs.glob(".deleted-*"))


def test_a_run_under_way_is_not_deleted(project: Project) -> None:
    name = project.script("import time\ntime.sleep(60)\n")
    run_id = project.trainer("run", "--detach", "--script", name).stdout.strip()
    done = project.trainer("delete", run_id)
    assert done.returncode == 2
    assert f"trainer cancel {run_id}" in done.stderr
    project.trainer("cancel", run_id)


def test_a_command_that_is_shown_can_be_copied(trained: Project) -> None:
    """What is copied off a narrow terminal runs as it stands, though it takes two lines."""
    run = next(trained.runs.iterdir())
    # As if it had run elsewhere: the commands name the backend.
    for path, backend in ((run / "status.json", '"azureml-v2"'),):
        status = json.loads(path.read_bytes())
        status["backend"], status["detail"] = json.loads(backend), {"flags": ["--emulator"]}
        path.write_text(json.dumps(status))
    seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run_on_terminal(trained, ["show", "latest"], COLUMNS="64"))
    assert max(map(len, seen.splitlines())) <= 64
    following = re.sub(r"\\\r?\n +", "", seen[seen.index("Next") + 4 :]).splitlines()
    commands = [line.strip() for line in following if line.strip()]
    name = f"{json.loads((run / 'status.json').read_bytes())['model']['name']}:1"
    flags = f"{name} --backend azureml-v2 --emulator"
    assert commands == [
        f"trainer evaluate {flags}",
        f"trainer predict {flags} IMAGE.png",
        f"trainer fetch {flags} -o ./model",
    ]
    assert "\\\n" in seen.replace("\r", ""), "one of them goes on in a second line"


def test_a_command_within_a_sentence_stays_in_one_line(project: Project) -> None:
    seen = run_on_terminal(project, ["studies"], COLUMNS="80").replace("\r", "")
    assert any(line.endswith("trainer tune --space lr=log:1e-3..0.3 --trials 12") for line in seen.splitlines())


def test_reasons_of_failure_are_told_where_their_column_has_no_room(compared_once: Project) -> None:
    seen = run_on_terminal(compared_once, ["runs"], COLUMNS="64").replace("\r", "")
    failed = next(row["run_id"] for row in rows(compared_once) if row["status"] == "Failed")
    assert f"\n{failed[9:]} failed: ValueError: too large\n" in seen
    assert "failure" not in seen.partition("No room for")[2]


def test_diff_says_a_best_value_that_is_the_last_once(compared: Project) -> None:
    newest, middle, _ = (row["run_id"] for row in rows(compared))
    for number, run_id in enumerate((newest, middle), 5):
        with (compared.runs / run_id / "metrics.jsonl").open("a") as stream:
            stream.write(json.dumps({"name": "Accuracy", "value": number, "step": 4, "time": 4}) + "\n")
    (compared.path / ".trainer" / INDEX_FILE).unlink(missing_ok=True)
    shown = compared.trainer("runs", "diff", middle, newest).stdout.partition("METRIC")[2]
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["Accuracy", "Loss", "best:Loss"]


def test_wide_characters_take_two_columns(compared: Project) -> None:
    first, second, _ = (row["run_id"] for row in rows(compared))
    assert compared.trainer("runs", "rename", first, "手書き数字").returncode == 0
    assert compared.trainer("runs", "rename", second, "baseline10").returncode == 0
    listed = compared.trainer("runs", "--columns", "name,run").stdout.splitlines()
    assert listed[1] == f"手書き数字  {first}"
    assert listed[2] == f"baseline10  {second}"


def test_names_of_scripts_lose_their_accents_alone(project: Project) -> None:
    name = project.script("raise SystemExit(3)\n", "Größe zwei é.py")
    assert project.trainer("run", "--script", name).returncode == 1
    row = rows(project)[0]
    assert row["experiment"] == "Grosse-zwei-e"
    shown = project.trainer("show", "latest").stdout
    assert shown.partition("Next")[2].split() == ["trainer", "logs", row["run_id"]], "there is nothing to resume"
    again = project.trainer("resume", "latest")
    assert again.returncode == 5
    assert f"hint: Start again: trainer rerun {row['run_id']}" in again.stderr
