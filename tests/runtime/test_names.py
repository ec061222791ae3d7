"""What a training script gets from ``from trainer import runtime as rt``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainer import runtime as rt
from trainer.runtime import compat

compat.apply()


@pytest.mark.parametrize("name", rt.__all__)
def test_every_name_is_there(name: str) -> None:
    assert callable(getattr(rt, name))


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rt.nothing  # type: ignore[attr-defined]


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys; from trainer import runtime; print([m for m in ('numpy', 'chainer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("raised", "status", "shown"),
    [
        ("rt.RuntimeFault('it is full', 'empty it')", 3, "error: it is full\nhint: empty it\n"),
        ("rt.RuntimeFault('it is full')", 3, "error: it is full\n"),
        ("OSError(28, 'No space left on device')", 3, "error: [Errno 28] No space left on device\nhint: "),
        ("SystemExit(5)", 5, ""),
        ("ValueError('a mistake')", 1, "Traceback"),
    ],
)
def test_main_shows_what_the_user_can_put_right(raised: str, status: int, shown: str) -> None:
    code = f"from trainer import runtime as rt\ndef main():\n    raise {raised}\nrt.main(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(shown)
    assert ("Traceback" in done.stderr) is (shown == "Traceback")
