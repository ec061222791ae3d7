"""Run a training script as ``python`` would, with the runtime's layers in place.

::

    python -m trainer.runtime.launch SCRIPT [ARGS...]
    python -m trainer.runtime.launch -m MODULE [ARGS...]
    python DIR/trainer/runtime/launch.py [SETTINGS...] SCRIPT [ARGS...]

The last form needs nothing installed but NumPy and Chainer: it is how a node starts a job, DIR
being the folder in the snapshot that holds this package (``trainer.runtime.layout``). The settings are ``--collect=``,
which ``trainer.runtime.collecting`` is told, ``--kernels=``, which ``trainer.runtime.kernels`` is, and
``--checkpoints=``, ``--checkpoint-seconds=`` and ``--attempt=``, which ``trainer.runtime.azureml_checkpoints`` is.
The script sees the ``sys.argv``, ``sys.path`` and ``__main__`` that
``python SCRIPT ARGS...`` would give it; its exit status, its tracebacks and
the signals that end it are the same too.

Exit status of its own: 2 for wrong usage, 3 for a :class:`~trainer.runtime.faults.RuntimeFault`.
"""

# ruff: noqa: E402
from __future__ import annotations

import sys

# What plain Python has loaded when a script starts, and not what the launcher adds to it.
_LOADED = frozenset(sys.modules)
if __name__ == "__main__" and not sys.flags.safe_path:
    # The working directory, in front for `python -m`, or this file's folder: neither is to answer the imports below.
    del sys.path[0]

import builtins
import io
import os
import runpy
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

USAGE = "usage: python -m trainer.runtime.launch SCRIPT [ARGS...] | -m MODULE [ARGS...]"

SETTINGS = ("collect", "kernels", "checkpoints", "checkpoint-seconds", "attempt")

_THIS_FILE = Path(__file__).absolute()
_RUNTIME_DIR = _THIS_FILE.parent
_ROOT = str(_RUNTIME_DIR.parent.parent)


def main(argv: list[str] | None = None) -> None:
    """Run the script named by ``argv`` (default: this process's arguments).

    Returns when the script has ended normally; raises whatever the script raises.
    """
    args = sys.argv[1:] if argv is None else argv
    if args and args[0] in ("-h", "--help"):
        sys.stdout.write(USAGE + "\n")
        sys.exit(0)
    settings = {}
    while args and args[0].startswith(tuple(f"--{name}=" for name in SETTINGS)):
        name, _, value = args[0].removeprefix("--").partition("=")
        settings[name], args = value, args[1:]
    as_module = args[:1] == ["-m"]
    if len(args) < 1 + as_module:
        _stop(2, USAGE)
    target, *arguments = args[as_module:]
    if not as_module and not Path(target).is_file():
        _stop(2, f"error: there is no script {target!r} in {Path.cwd()}", USAGE)

    folder = Path.cwd() if as_module else Path(target).resolve().parent
    _import_layers(folder)
    _trim_tracebacks()
    _arrange_path(folder)

    from trainer.runtime import azureml_mirror
    from trainer.runtime.faults import RuntimeFault
    from trainer.runtime.service_values import joined

    sys.argv[:] = [target, *joined(arguments)]
    try:
        _install_layers(folder, settings.get("collect"), settings.get("kernels"))
        if not as_module:
            sys.argv += _checkpoints(Path(target), settings)
        try:
            if as_module:
                runpy.run_module(target, run_name="__main__", alter_sys=True)
            else:
                _run_script(target)
        finally:
            azureml_mirror.flush()
    except RuntimeFault as fault:
        _stop(3, f"error: {fault.message}", *([f"hint: {fault.hint}"] if fault.hint else []))


def _stop(status: int, *lines: str) -> None:
    sys.stderr.write("".join(line + "\n" for line in lines))
    sys.exit(status)


def _import_layers(folder: Path) -> None:
    """Import all of the runtime that a script needs, before its folder is on the search path."""
    # Not this file's folder: the script's `import datasets` would find the runtime's.
    sys.path[:] = [entry for entry in sys.path if Path(entry).absolute() != _RUNTIME_DIR]
    sys.path.insert(0, _ROOT)
    from trainer.runtime import faults, ranks  # noqa: F401  # bound to this root before the path changes again
    from trainer.runtime.shadowing import standard_library_first

    ranks.begin()
    sys.path.remove(_ROOT)
    elsewhere = [entry for entry in sys.path if Path(entry).absolute() != folder]
    with standard_library_first(str(folder), elsewhere, _LOADED):
        from trainer.runtime import (  # noqa: F401
            compat,
            executables,
            fast,
            kernels,
            reporting,
            service_values,
            threads,
            tracking,
        )
        from trainer.runtime.compat import removed_names  # noqa: F401

        if tracking.is_wanted():
            from trainer.runtime import log_batch  # noqa: F401


def _arrange_path(folder: Path) -> None:
    if not sys.flags.safe_path:
        if __name__ != "__main__" and __package__ and sys.path and Path(sys.path[0]).absolute() == Path.cwd():
            del sys.path[0]
        sys.path.insert(0, str(folder))
    if _ROOT not in sys.path:
        sys.path.append(_ROOT)

    give_way()


def give_way() -> None:
    """Make ``import trainer`` find the script's own module of that name, if ``sys.path`` has one.

    It is an obvious name for a neighbour of a training script, and scripts need not know of this one. The modules of
    the runtime stay imported as ``trainer.runtime...``, and import each other by those names: Python looks a
    submodule up before it looks for the parent.
    """
    ours = sys.modules.get("trainer")
    spec = PathFinder.find_spec("trainer")
    if ours is None or spec is None:
        return
    is_another_copy = any((Path(folder) / "runtime").is_dir() for folder in spec.submodule_search_locations or ())
    if spec.origin != ours.__file__ and not is_another_copy:
        del sys.modules["trainer"]


def _install_layers(folder: Path, collect: str | None, choice: str | None) -> None:
    from trainer.runtime import compat, executables, fast, kernels, layout, recording, reporting
    from trainer.runtime.compat import removed_names

    os.environ[removed_names.SCRIPT_DIR_VARIABLE] = str(folder)
    layout.tell_resume_dir()
    executables.restore()
    compat.apply()
    compat.apply_to_children()
    reporting.record(fast=sorted(fast.install()))
    used = kernels.install(choice)
    if used is not None:
        reporting.record(kernels=used)
    reporting.install(collect)
    recording.install()


def _checkpoints(script: Path, settings: dict[str, str]) -> tuple[str, ...]:
    """On Azure ML, see to the job's checkpoints; return what is added to the script's arguments."""
    from trainer.runtime import azureml_checkpoints, layout, reporting

    if not reporting.on_azure():
        return ()
    seconds = float(settings.get("checkpoint-seconds", azureml_checkpoints.SECONDS))
    attempt = int(settings.get("attempt", "1"))
    words = azureml_checkpoints.begin(script.resolve(), settings.get("checkpoints"), attempt, seconds)
    layout.tell_resume_dir()
    return words


def _run_script(path: str) -> None:
    # Absolute, as Python has had it since 3.9; sys.argv[0] stays as it was typed.
    path = str(Path(path).absolute())
    with io.open_code(path) as file:
        source = file.read()
    from trainer.runtime import threads

    threads.begin(source)
    # A module of its own, left in place: worker processes, pickles and atexit functions look for
    # the script under the name __main__, some of them after the script has ended.
    module = ModuleType("__main__")
    module.__dict__.update(
        __file__=path,
        __builtins__=builtins,
        __loader__=SourceFileLoader("__main__", path),
        __cached__=None,
        __annotations__={},
    )
    sys.modules["__main__"] = module
    # dont_inherit: this file's __future__ imports are not the script's.
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  # it is what this module is for


def _trim_tracebacks() -> None:
    from trainer.runtime.hints import hint_on

    previous = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        frame = _below_launcher(traceback)
        # None: the script never started (a syntax error, say); Python shows no frames then either.
        previous(kind, error.with_traceback(frame), frame)
        hint = hint_on(f"{kind.__name__}: {error}")
        if hint:
            sys.stderr.write(f"hint: {hint}\n")

    sys.excepthook = excepthook


def _below_launcher(traceback: TracebackType | None) -> TracebackType | None:
    """The frames below this file's and its runpy's; a node's own starter may lie above them."""
    below, frame = traceback, traceback
    while frame is not None:
        filename, frame = frame.tb_frame.f_code.co_filename, frame.tb_next
        if Path(filename).absolute() == _THIS_FILE:
            below = frame
    while below is not None and below.tb_frame.f_code.co_filename in (runpy.__file__, "<frozen runpy>"):
        below = below.tb_next
    return below


def _main_as_rank() -> None:
    try:
        main()
    except BaseException as error:
        ranks = sys.modules.get("trainer.runtime.ranks")
        if ranks is not None:
            ranks.end_badly(error)
        raise


if __name__ == "__main__":
    _main_as_rank()
