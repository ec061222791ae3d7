"""The ``trainer`` command, under a module name that nobody else has.

``trainer`` and ``backends`` are likely names of folders beside a user's own code, which PYTHONPATH or the working
directory put in front of ours. So the command starts here, and takes both from beside this file::

    trainer ...                                  the console script calls main()
    python -P chainer_trainer.py -m MODULE ...   runs one of our modules, whatever else is on the path
"""

from __future__ import annotations

import gc
import runpy
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

_OURS = "trainer"
_DISTRIBUTION = "chainer-trainer"
# In trainer/__init__.py; no other package has it there.
_MARK = b"This file travels with every job, beside ``trainer.runtime``"


def main() -> int:
    """Run the command line. Returns the exit code."""
    try:
        _take_ours()
        from trainer.cli import main as run
    except KeyboardInterrupt:  # from here on, run() answers it
        sys.exit(_interrupted())

    try:
        return run()
    finally:
        _leave_garbage()


def _interrupted() -> int:
    """Say what ``trainer.cli`` says of Ctrl-C; returns its exit code."""
    print("error: Interrupted.", file=sys.stderr)  # noqa: T201
    return 130


def _take_ours() -> None:
    """Import our ``trainer`` package, so that no other of that name is found later."""
    # Imports make tens of thousands of objects that stay: by default, each 700 more of them are searched for garbage.
    gc.set_threshold(50_000)
    beside = Path(__file__).resolve().parent
    spec = PathFinder.find_spec(_OURS, [str(beside)])
    if spec is None or spec.loader is None:
        sys.exit(f"error: the package {_OURS} is missing in {beside}\nhint: install it again")
    _refuse_a_strangers(beside / _OURS / "__init__.py")
    module = module_from_spec(spec)
    sys.modules[_OURS] = module
    spec.loader.exec_module(module)


def _refuse_a_strangers(path: Path) -> None:
    """End the program if another distribution, such as the package index's ``trainer``, has put its files over ours."""
    try:
        ours = _MARK in path.read_bytes()
    except OSError:
        ours = False
    if not ours:
        print(  # noqa: T201
            f"error: {path} is not ours: another distribution named trainer was installed over this one.\n"
            f"hint: pip uninstall trainer; pip install --force-reinstall --no-deps {_DISTRIBUTION}",
            file=sys.stderr,
        )
        sys.exit(3)


def _run_module(name: str) -> None:
    _take_ours()
    from trainer.backend import bundled_names

    bundled_names()  # takes our ``backends`` too
    sys.argv[:] = sys.argv[2:]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:
        _leave_garbage()


def _leave_garbage() -> None:
    """Spare the interpreter's end three searches of everything for what is only alive through itself."""
    gc.freeze()


if __name__ == "__main__":
    if sys.argv[1:2] == ["-m"]:
        _run_module(sys.argv[2])
    else:
        sys.exit(main())
