"""What a slip of the fingers, or of another program's words, is answered with."""

import json

import pytest

from tests.cli.conftest import Project


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["ls"], "There is no command 'ls'.", "Did you mean: trainer runs?"),
        (["train"], "There is no command 'train'.", "Did you mean: trainer run?"),
        (["run", "train.py"], "Unexpected argument 'train.py'.", "Did you mean: trainer run --script train.py"),
        (["run", "--gpu", "0"], "There is no option --gpu.", "Did you mean --device cuda? See: trainer run --help"),
        (["run", "--epoch", "3"], "There is no option --epoch.", "Did you mean --epochs? See: trainer run --help"),
        (
            ["run", "--detach", "--logs"],
            "--logs shows nothing with --detach.",
            "Leave one out, and see the output with: trainer logs -f",
        ),
        (
            ["run", "--script", "notes.md"],
            "notes.md is not a Python file.",
            "Give --script a file whose name ends in .py.",
        ),
        (["run", "--script", "."], ". is a directory.", "Give --script the path of a Python file."),
        (
            ["run", "--dataset", "notes.md"],
            "notes.md is a file.",
            "Give a CSV or npz file, a directory of pictures per class, or one that holds the four IDX files.",
        ),
        (
            ["predict", "some-model", "https://example.com/7.png"],
            "The address https://example.com/7.png can't be read as an image.",
            "Save it to a file, and give the file.",
        ),
        (
            ["predict", "some-model", "-"],
            "Standard input can't be read as an image.",
            "Save it to a file, and give the file.",
        ),
        (["predict", "some-model", "."], ". is a directory.", "Give its files: ./*.png"),
        (["config", "--backend", "nope"], "There is no backend 'nope'.", "Choose one of: azureml, azureml-v2, local."),
        (
            ["models", "my model"],
            "'my model' is not a valid model name.",
            "Use up to 254 letters, digits, '_', '-' and single '.', beginning with a letter or digit.",
        ),
    ],
)
def test_it_is_told_what_is_wrong_and_what_to_type(project: Project, words: list[str], message: str, hint: str) -> None:
    (project.path / "notes.md").write_text("# Notes\n")
    ran = project.trainer(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"error: {message}\nhint: {hint}\n"
    assert not project.runs.exists()


def test_streams_that_are_closed_are_no_bug(trained: Project) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        done = trained.trainer("-c", f'"$@" runs --limit 1 {closed}', "-", *trained.command, command=["sh"])
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


def test_one_version_can_be_shown_and_a_deleted_one_is_not_recommended(trained: Project) -> None:
    shown = trained.trainer("models", "chainer-dnn-mnist:1")
    assert shown.returncode == 0, shown.stderr
    facts = dict(line.split(None, 1) for line in shown.stdout.splitlines())
    assert facts["Model"] == "chainer-dnn-mnist:1"
    assert facts["Tags"] == "colour=blue"
    assert len(facts["SHA256"]) == 64
    assert "Accuracy" in facts["Metrics"]
    missing = trained.trainer("models", "chainer-dnn-mnist:7")
    assert missing.returncode == 5
    assert "error: There is no version 7 of 'chainer-dnn-mnist' in the local registry.\n" in missing.stderr
    assert "trainer evaluate chainer-dnn-mnist:1" in trained.trainer("show", "latest").stdout
    assert trained.trainer("delete", "chainer-dnn-mnist:1").returncode == 0
    after = trained.trainer("show", "latest").stdout
    assert "chainer-dnn-mnist:1 (deleted)" in after
    assert "trainer evaluate" not in after
    assert "pid" not in after.lower()


def test_a_traceback_names_files_that_stay(project: Project) -> None:
    script = project.script("import os\nos.makedirs('outputs', exist_ok=True)\nraise ValueError('boo')\n")
    ran = project.trainer("run", "--script", script, "--dataset", "none")
    assert ran.returncode == 1
    run = next(project.runs.iterdir())
    file = run / "snapshot" / script
    assert f'File "{file}", line 3' in ran.stderr
    assert f'File "{file}", line 3' in project.trainer("logs", "latest").stdout
    assert file.is_file()


def test_what_was_said_of_the_data_is_said_once(project: Project) -> None:
    where = {"TRAINER_DATA_DIR": str(project.path / "data")}
    ran = project.trainer("run", "--epochs", "1", env=where)
    assert ran.returncode == 0, ran.stderr
    assert (ran.stdout + ran.stderr).count("Full MNIST is not cached") == 1
    assert "Full MNIST is not cached" in project.trainer("show", "latest", env=where).stdout


def test_delete_completes_to_what_it_takes(trained: Project) -> None:
    line = "trainer delete chain"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": "/x"}
    asked["_ARGCOMPLETE_STDOUT_FILENAME"] = str(trained.path / "completions")
    trained.trainer(env=asked)
    assert "chainer-dnn-mnist" in (trained.path / "completions").read_text()
    assert ":1" in (trained.path / "completions").read_text()


def test_a_program_reads_all_runs_and_a_person_the_newest(trained: Project) -> None:
    first = next(trained.runs.iterdir())
    for number in range(25):
        folder = trained.runs / f"20260101-{number:06}-aaaaaa"
        folder.mkdir()
        (folder / "status.json").write_text((first / "status.json").read_text().replace(first.name, folder.name))
    assert len(json.loads(trained.trainer("runs", "--json").stdout)) == 26
    shown = trained.trainer("runs")
    assert len(shown.stdout.splitlines()) == 1 + 20
    assert "6 more: trainer runs --limit 0" in shown.stderr
