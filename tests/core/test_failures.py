"""The one line that says why a script failed."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.failures import failure, reason

CHAINED = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
KeyError: 'first'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
    raise package.module.OddError("second")
package.module.OddError: second
with a second line
bye"""


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (CHAINED, "package.module.OddError: second"),
        ("Traceback (most recent call last):\n  File x\nKeyboardInterrupt", "KeyboardInterrupt"),
        ("usage: x\nx.py: error: unrecognized arguments: --no", "x.py: error: unrecognized arguments: --no"),
        ("error: No data.\nhint: Get some.", "No data."),
        ("loading\nno data found", "no data found (exit status 1)"),
        ("train error: 0.3\n" * 9 + "no data found\n\n", "no data found (exit status 1)"),
        ("10 %\r20 %\rno room", "no room (exit status 1)"),
        ("", "The script ended with exit status 1."),
        ("Traceback (most recent call last):", "The script ended with exit status 1."),
    ],
)
def test_from_the_log(log: str, message: str) -> None:
    assert failure(1, log.splitlines()).message == message


@pytest.mark.parametrize("source", ["def f(:\n", "import no_such_module\n", "assert 1 == 2, 'no'\n", "[][1]\n"])
def test_pythons_own_last_line(source: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(source)
    done = subprocess.run([sys.executable, str(tmp_path / "x.py")], stderr=subprocess.PIPE, text=True, check=False)
    lines = done.stderr.splitlines()
    assert failure(done.returncode, lines).message == lines[-1]


def test_the_message_of_sys_exit(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("import sys\nprint('loading')\nsys.exit('no data found')\n")
    done = subprocess.run([sys.executable, str(tmp_path / "x.py")], stderr=subprocess.PIPE, text=True, check=False)
    assert failure(done.returncode, done.stderr.splitlines()).message == "no data found (exit status 1)"
    # Any other exit status was chosen by the script, and says nothing about its last line.
    assert failure(3, ["epoch 3"]).message == "The script ended with exit status 3."


def test_a_full_disk_is_named() -> None:
    assert reason(OSError(errno.ENOSPC, "No space left on device", "/x")).startswith("the disk is full: ")


def test_a_deep_traceback_is_found_and_the_tail_stays_short(tmp_path: Path) -> None:
    lines = ["Traceback (most recent call last):", *["  File x"] * 150, "Odd: reason"]
    found = failure(1, lines)
    assert found.message == "Odd: reason"
    assert len(found.log_tail) == 20


def test_a_signal_outweighs_an_old_traceback() -> None:
    assert failure(-signal.SIGSEGV, CHAINED.splitlines()).message == "The script was ended by SIGSEGV."
    assert "memory" in failure(-signal.SIGKILL, []).message
    assert "signal 63" in failure(-63, []).message


def test_an_endless_line_is_cut() -> None:
    assert len(failure(1, ["Traceback (most recent call last):", "  File x", "E: " + "x" * 10**6]).message) == 500
