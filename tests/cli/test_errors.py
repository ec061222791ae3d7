"""Errors as a user sees them: never a traceback, unless asked for."""

import errno
import json
import re
from pathlib import Path

import pytest

import trainer.cli.runlist
import trainer.cli.train
from trainer.cli import main
from trainer.runtime.faults import RuntimeFault


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[pytest.MonkeyPatch]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return monkeypatch  # type: ignore[return-value]


def break_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def find_home(start: Path | None = None) -> None:
        raise error

    monkeypatch.setattr(trainer.cli.runlist, "find_home", find_home)


def test_a_fault_of_ours_is_one_line_and_a_file(broken: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    break_with(broken, ZeroDivisionError("two\nlines"))
    assert main(["runs", "--json"]) == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 2
    assert "This is a bug in trainer: ZeroDivisionError: two." in err
    saved = re.search(r"(\S+\.txt)", err)
    assert saved is not None
    text = Path(saved[1]).read_text()
    assert text.startswith("trainer runs --json\n")
    assert "Traceback (most recent call last)" in text
    assert json.loads(out)["error"]["exit_code"] == 1


def test_the_file_does_not_hold_the_scripts_arguments(
    broken: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def configured(options: object) -> None:
        raise ZeroDivisionError

    broken.setattr(trainer.cli.train, "configured", configured)
    assert main(["run", "--", "--password", "hunter2"]) == 1
    saved = re.search(r"(\S+\.txt)", capsys.readouterr().err)
    assert saved is not None
    assert Path(saved[1]).read_text().startswith("trainer run\n")
    assert "hunter2" not in Path(saved[1]).read_text().splitlines()[0]


def test_debugging_shows_the_traceback(broken: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    break_with(broken, ZeroDivisionError("x"))
    broken.setenv("TRAINER_DEBUG", "1")
    assert main(["runs"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/full"), 3, "error: No space left on device: /full."),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 3, "error: Permission denied: /x."),
        (RuntimeFault("bad thing", "do this"), 3, "error: Bad thing.\nhint: do this"),
        (KeyboardInterrupt(), 130, "error: Interrupted."),
    ],
)
def test_the_surroundings_are_no_bug(
    broken: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    break_with(broken, error)
    assert main(["runs"]) == code
    assert capsys.readouterr().err.startswith(message)
