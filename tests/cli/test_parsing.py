"""What is typed, and what is said about it; nothing here starts a run."""

import json
from pathlib import Path

import pytest

from trainer.cli import main
from trainer.cli.commands import COMMANDS

USAGE = [
    (["rnus"], "There is no command 'rnus'.", "Did you mean: trainer runs?"),
    (["ls"], "There is no command 'ls'.", "Did you mean: trainer runs?"),
    (["list"], "There is no command 'list'.", "Did you mean: trainer runs?"),
    (["train"], "There is no command 'train'.", "Did you mean: trainer run?"),
    (["train.py"], "There is no command 'train.py'.", "Did you mean: trainer run --script train.py"),
    (["run", "train.py"], "Unexpected argument 'train.py'.", "Did you mean: trainer run --script train.py"),
    (["run", "train.py", "--epochs", "3"], "Unexpected argument 'train.py'.", "trainer run --script train.py"),
    (["package", "train.py"], "Unexpected argument 'train.py'.", "Did you mean: trainer package --script train.py"),
    (["xyzzy"], "There is no command 'xyzzy'.", "See: trainer --help"),
    (["--json"], "There is no command '--json'.", "See: trainer --help"),
    (["run", "--epoch", "3"], "There is no option --epoch.", "Did you mean --epochs?"),
    (["run", "--epoch=3"], "There is no option --epoch=3.", "Did you mean --epochs?"),
    (["run", "extra"], "Unexpected argument 'extra'.", "two dashes"),
    (["runs", "extra"], "Unexpected argument 'extra'.", "See: trainer runs --help"),
    (["runs", "--", "extra"], "Unexpected argument 'extra'.", "See: trainer runs --help"),
    (["run", "--epochs", "many"], "--epochs must be a whole number of at least 1, not 'many'.", "Give another."),
    (["run", "--epochs"], "Argument --epochs: expected one argument.", "See: trainer run --help"),
    (["run", "--epochs", "0"], "--epochs must be a whole number of at least 1, not '0'.", ""),
    (["run", "--lr", "nan"], "--lr must be a finite number", ""),
    (["run", "--seed", "-1"], "-1", ""),
    (["run", "--device", "tpu"], "--device must be auto, cpu, cuda or cuda:N, not 'tpu'.", ""),
    (["run", "--backend", "nowhere"], "There is no backend 'nowhere'.", "azureml, azureml-v2, local"),
    (["run", "--compute", "c"], "The local backend has no option --compute.", "azureml"),
    (["run", "--backend", "azureml", "--max-nodes", "0"], "--max-nodes must be a whole number from 1", "Give"),
    (["run", "--backend", "azureml", "--idle-minutes", "x"], "--idle-minutes must be a whole number", "Give"),
    (["run", "--backend", "azureml", "--compute", "-x-"], "Argument --compute: expected one argument.", "See"),
    (["run", "--backend=azureml", "--compute=-x-"], "'-x-' can't name a compute cluster.", "hyphens"),
    (["run", "--backend", "azureml", "--vm-size", "a b"], "'a b' is not a VM size.", "--vm-size"),
    (["models", "--compute", "c"], "There is no option --compute.", "See: trainer models --help"),
    (["run", "--max-minutes", "0"], "--max-minutes must be a whole number of at least 1, not '0'.", "Give"),
    (["run", "--tag", "novalue"], "'novalue' is not NAME=VALUE", "See: trainer run --help"),
    (["run", "--script", "missing.py"], "There is no script missing.py.", "--script"),
    (["run", "--model-name", "../x"], "is not a valid model name", "letters"),
    (["run", "--experiment", "a b"], "is not a valid experiment name", "letters"),
    (["run", "--dataset", "minst"], "There is no data set 'minst'", "Did you mean mnist?"),
    (["run", "--logs", "--no-logs"], "not allowed with", "See: trainer run --help"),
    (["runs", "--limit", "-2"], "--limit must be at least 0 (got -2).", "0 for all"),
    (["show"], "The following arguments are required: RUN", "See: trainer show --help"),
    (["delete", "m"], "Specify a version to delete.", "trainer delete m:1"),
    (["fetch", "m:zero"], "'zero' is not a model version.", "m:3"),
    (["models", "a/b"], "is not a valid model name", "letters"),
    (["data"], "required: ACTION", "See: trainer data --help"),
    (["data", "frobnicate"], "invalid choice: 'frobnicate'", "See: trainer data --help"),
    (["data", "download", "cifar"], "There is no data set 'cifar' to download.", "mnist"),
    (["completion", "tcsh"], "invalid choice: 'tcsh'", "See: trainer completion --help"),
    (["emulator", "--port", "99999"], "--port must be from 0 to 65535 (got 99999).", ""),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize(
    ("words", "message", "hint"), USAGE, ids=lambda value: "_".join(value) if isinstance(value, list) else ""
)
def test_wrong_words(words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out or words == ["--json"]
    first, _, second = err.partition("\nhint: ")
    assert first.startswith("error: ")
    assert message in first
    assert hint in second
    assert not (Path.cwd() / ".trainer").exists(), "a mistake must cost nothing"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["show", "latest"], 5),
        (["logs", "nosuchrun"], 5),
        (["attach", "nosuchrun"], 5),
        (["cancel", "nosuchrun"], 5),
        (["resume", "nosuchrun"], 5),
        (["models", "nosuch"], 5),
        (["fetch", "nosuch"], 5),
        (["delete", "nosuch:1"], 5),
        (["evaluate", "nosuch"], 5),
        (["evaluate", "nosuch.npz"], 5),
        (["predict", "nosuch", "image.png"], 5),
        (["data", "verify", "/nowhere"], 2),
    ],
)
def test_with_json_an_error_is_an_object_too(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json"]) == code
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["exit_code"] == code
    assert err == f"error: {error['message']}\nhint: {error['hint']}\n"
    assert error["type"] in ("NotFoundError", "UsageError")


def test_json_after_the_dashes_is_the_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--script", "missing.py", "--", "--json"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: trainer {name} [OPTIONS]")
    assert COMMANDS[name].summary in out
    assert err == ""


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    with_help = capsys.readouterr().out
    assert all(f"  {name} " in with_help for name in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("trainer ")


def test_commands_that_print_data_take_json(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        main([name, "--help"])
        # data's actions take it; the others print shell code, for eval.
        assert ("--json" in capsys.readouterr().out) == (name not in ("data", "emulator", "completion", "serve")), name


def test_resume_help_says_how_a_script_of_ones_own_continues(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "everything after two dashes is passed to the script unchanged" in shown
    assert "finds the earlier run's outputs in _trainer_job/resume/" in shown


def test_run_help_covers_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--help"])
    shown = capsys.readouterr().out
    flags = (
        "backend script epochs batchsize units lr momentum seed device dataset experiment model-name no-register "
        "detach dry-run json compute vm-size max-nodes max-minutes idle-minutes workspace-config emulator tag threads"
    )
    assert [flag for flag in flags.split() if f"--{flag}" not in shown] == []


def test_empty_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["runs"], ["models"]):
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert "trainer run" in err
        assert main([*words, "--json"]) == 0
        assert capsys.readouterr().out == "[]\n"
