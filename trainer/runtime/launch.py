"""Runs a training script as ``python`` would, with the runtime's layers in place.

::

    python -m trainer.runtime.launch SCRIPT [ARGS...]
    python -m trainer.runtime.launch -m MODULE [ARGS...]
    python DIR/trainer/runtime/launch.py SCRIPT [ARGS...]

The last form needs nothing installed but NumPy and Chainer: it is how a node starts a job, DIR
being the folder that the snapshot was unpacked into. The script sees the ``sys.argv``, ``sys.path``
and ``__main__`` that ``python SCRIPT ARGS...`` would give it; its exit status, its tracebacks and
the signals that end it are the same too.

Exit status of its own: 2 for wrong usage, 3 for a :class:`~trainer.runtime.faults.RuntimeFault`.
"""

from __future__ import annotations

import builtins
import io
import os
import runpy
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

USAGE = "usage: python -m trainer.runtime.launch SCRIPT [ARGS...] | -m MODULE [ARGS...]"

_THIS_FILE = os.path.abspath(__file__)
_RUNTIME_DIR = os.path.dirname(_THIS_FILE)
_ROOT = os.path.dirname(os.path.dirname(_RUNTIME_DIR))


def main(argv: list[str] | None = None) -> None:
    """Runs the script named by ``argv`` (default: this process's arguments).

    Returns when the script has ended normally; raises whatever the script raises.
    """
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help") or (args[0] == "-m" and len(args) == 1):
        asked = bool(args) and args[0] != "-m"
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    as_module = args[0] == "-m"
    target, *arguments = args[1:] if as_module else args
    if not as_module and not os.path.isfile(target):
        print(f"error: no script {target!r} in {os.getcwd()}", file=sys.stderr)
        print(USAGE, file=sys.stderr)
        sys.exit(2)

    _arrange_path(os.getcwd() if as_module else os.path.dirname(os.path.abspath(target)))
    _install_layers()
    _trim_tracebacks()

    from trainer.runtime.faults import RuntimeFault

    try:
        if as_module:
            sys.argv[1:] = arguments
            runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = [target, *arguments]
            _run_script(target)
    except RuntimeFault as fault:
        print(f"error: {fault.message}", file=sys.stderr)
        if fault.hint:
            print(f"hint: {fault.hint}", file=sys.stderr)
        sys.exit(3)


def _arrange_path(first: str) -> None:
    # Python has put this file's folder (run by path) or the working directory (run by -m) in front.
    # The former would let `import datasets` find one of ours.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _RUNTIME_DIR]
    sys.path.insert(0, _ROOT)
    import trainer.runtime.faults  # noqa: F401  # bound to this root before the path changes again

    sys.path.remove(_ROOT)
    if not sys.flags.safe_path:
        if __package__ and sys.path and os.path.abspath(sys.path[0] or ".") == os.getcwd():
            del sys.path[0]
        sys.path.insert(0, first)
    if _ROOT not in sys.path:
        sys.path.append(_ROOT)


def _install_layers() -> None:
    from trainer.runtime import compat

    compat.apply()
    compat.apply_to_children()
    try:
        from trainer.runtime import reporting
    except ImportError:
        return
    reporting.install()


def _run_script(path: str) -> None:
    with io.open_code(path) as file:
        source = file.read()
    # A module of its own, left in place: worker processes, pickles and atexit functions look for
    # the script under the name __main__, some of them after the script has ended.
    module = ModuleType("__main__")
    module.__dict__.update(
        __file__=path,
        __builtins__=builtins,
        __loader__=SourceFileLoader("__main__", path),
        __cached__=None,
    )
    sys.modules["__main__"] = module
    exec(compile(source, path, "exec"), module.__dict__)


def _trim_tracebacks() -> None:
    previous = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        frame = traceback
        while frame is not None and _is_launcher(frame.tb_frame.f_code.co_filename):
            frame = frame.tb_next
        # None: the script never started (a syntax error, say); Python shows no frames then either.
        previous(kind, error.with_traceback(frame), frame)

    sys.excepthook = excepthook


def _is_launcher(filename: str) -> bool:
    return os.path.abspath(filename) == _THIS_FILE or filename in (runpy.__file__, "<frozen runpy>")


if __name__ == "__main__":
    main()
