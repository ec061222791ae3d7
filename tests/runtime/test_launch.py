"""A launched script is run as ``python SCRIPT`` would run it: each test compares the two."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.runtime import launch

LAUNCH = [sys.executable, "-m", "trainer.runtime.launch"]
BY_PATH = [sys.executable, launch.__file__]


def run(command: list[str], folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **env}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def both(script: str, folder: Path, *args: str) -> tuple[subprocess.CompletedProcess[str], ...]:
    """The script run by Python, and by the launcher in both of its forms."""
    (folder / "script.py").write_text(script)
    commands = ([sys.executable], LAUNCH, BY_PATH)
    return tuple(run([*command, "script.py", *args], folder) for command in commands)


def same(script: str, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    plain, *launched = both(script, folder, *args)
    for done in launched:
        assert (done.returncode, done.stdout, done.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    return plain


def test_arguments_and_module_attributes(tmp_path: Path) -> None:
    script = """
import sys
print(sys.argv, __name__, __file__, __spec__, __package__, __doc__, type(__loader__).__name__)
print(sys.modules["__main__"].__file__, sorted(globals()))
"""
    done = same('"""Doc."""\n' + script, tmp_path, "-m", "--flag", "a b", "-h")
    assert "'-m', '--flag', 'a b', '-h'" in done.stdout


def test_the_search_path_starts_with_the_scripts_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "helper.py").write_text("WHO = 'sibling'")
    (tmp_path / "sub" / "script.py").write_text("import sys, helper\nprint(sys.path[0], helper.WHO)")
    plain, *launched = (run([*c, "sub/script.py"], tmp_path) for c in ([sys.executable], LAUNCH, BY_PATH))
    assert plain.stdout == f"{tmp_path / 'sub'} sibling\n"
    assert [done.stdout for done in launched] == [plain.stdout] * 2


def test_no_module_of_the_runtime_hides_one_of_the_scripts(tmp_path: Path) -> None:
    # The runtime's folder holds a datasets, a threads and a training of its own.
    (tmp_path / "threads.py").write_text("WHO = 'theirs'")
    done = same("import threads\nprint(threads.WHO)", tmp_path)
    assert done.stdout == "theirs\n"
    (tmp_path / "script.py").write_text("import datasets")
    assert "No module named 'datasets'" in run([*BY_PATH, "script.py"], tmp_path).stderr


def test_a_script_may_have_a_module_of_our_name(tmp_path: Path) -> None:
    (tmp_path / "trainer.py").write_text("WHO = 'theirs'")
    (tmp_path / "script.py").write_text("""
import multiprocessing
import trainer, chainer

def work(_):
    import trainer, chainer
    return trainer.WHO, chainer.__version__

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(trainer.WHO, pool.map(work, [0]))
""")
    done = run([*BY_PATH, "script.py"], tmp_path)
    assert done.stdout == "theirs [('theirs', '7.8.1')]\n", done.stderr


def test_neighbours_named_like_the_standard_library_do_not_stop_anything(tmp_path: Path) -> None:
    for name in ("random", "token", "select", "json", "inspect", "types"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a neighbour took the place of Python's own')")
    (tmp_path / "script.py").write_text("""
import subprocess, sys
import chainer
import numpy
print(chainer.__version__, numpy.random.RandomState(0).randint(10))
print(subprocess.run([sys.executable, "child.py"], capture_output=True, text=True).stdout.strip())
""")
    (tmp_path / "child.py").write_text("import chainer\nprint('child', chainer.__version__)")
    for command in (LAUNCH, BY_PATH):
        # A neighbour called types.py stops `python -m` itself, before anything of ours runs.
        (tmp_path / "types.py").unlink(missing_ok=True)
        done = run([*command, "script.py"], tmp_path)
        assert done.stdout == "7.8.1 5\nchild 7.8.1\n", done.stderr


def test_a_script_imports_its_neighbours_whatever_their_name(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("WHO = 'neighbour'")
    (tmp_path / "token.py").write_text("WHO = 'neighbour, too'")
    done = same("import random, token\nprint(random.WHO, token.WHO)", tmp_path)
    assert done.stdout == "neighbour neighbour, too\n"
    (tmp_path / "script.py").write_text("import random, chainer\nprint(random.WHO, chainer.__version__)")
    for command in (LAUNCH, BY_PATH):
        assert run([*command, "script.py"], tmp_path).stdout == "neighbour 7.8.1\n"


def test_the_launchers_future_imports_are_not_the_scripts(tmp_path: Path) -> None:
    script = """
import argparse, dataclasses

@dataclasses.dataclass
class Options:
    epochs: int = 3

parser = argparse.ArgumentParser()
for field in dataclasses.fields(Options):
    parser.add_argument("--" + field.name, type=field.type, default=field.default)
print(parser.parse_args())
"""
    assert same(script, tmp_path, "--epochs", "5").stdout == "Namespace(epochs=5)\n"
    assert same("from __future__ import annotations\nx: unknown = 1\nprint(x)", tmp_path).stdout == "1\n"


def test_names_that_numpy_removed_are_the_scripts_alone(tmp_path: Path) -> None:
    library = tmp_path / "lib" / "site-packages" / "library.py"
    library.parent.mkdir(parents=True)
    library.write_text("import numpy\nHAS = [hasattr(numpy, name) for name in ('int', 'float', 'NaN', 'product')]")
    (tmp_path / "neighbour.py").write_text("import numpy as np\nCOUNT = np.int(3.7)\nfrom numpy import object as kind")
    (tmp_path / "script.py").write_text("""
import multiprocessing, sys
import numpy as np
import neighbour
sys.path.append("lib/site-packages")
import library

def work(x):
    return np.float(x)

if __name__ == "__main__":
    print(np.int(7), np.float("1.5"), np.str(1), np.bool(0), neighbour.COUNT, neighbour.kind is object)
    print(np.product([2, 3]), np.in1d([1, 2], [2]), np.NINF, np.trapz([1, 1]), np.float_ is np.float64)
    print(any(library.HAS), hasattr(np, "nothing"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(work, ["2"]))
""")
    for command in (LAUNCH, BY_PATH):
        done = run([*command, "script.py"], tmp_path)
        assert done.stdout.splitlines() == [
            "7 1.5 1 False 3 True",
            "6 [False  True] -inf 1.0 True",
            "False False",
            "[2.0]",
        ], done.stderr


@pytest.mark.parametrize("status", ["0", "7", "None", "'a message'", ""])
def test_exit_status(status: str, tmp_path: Path) -> None:
    same(f"import sys\nsys.exit({status})", tmp_path)


def test_tracebacks_show_the_scripts_frames_only(tmp_path: Path) -> None:
    done = same(
        "def f():\n    1 / 0\n\ntry:\n    f()\nexcept ZeroDivisionError as e:\n    raise KeyError(1) from e", tmp_path
    )
    assert done.returncode == 1
    assert "launch.py" not in done.stderr


def test_syntax_errors(tmp_path: Path) -> None:
    assert same("def f(:\n    pass", tmp_path).returncode == 1


def test_a_scripts_own_excepthook_is_called(tmp_path: Path) -> None:
    done = same("import sys\nsys.excepthook = lambda *e: print('hook', e[1])\nraise ValueError('x')", tmp_path)
    assert done.stdout == "hook x\n"


def test_keyboard_interrupt(tmp_path: Path) -> None:
    done = same("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(60)", tmp_path)
    assert done.returncode == -signal.SIGINT


def test_sigterm(tmp_path: Path) -> None:
    done = same("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nimport time\ntime.sleep(60)", tmp_path)
    assert done.returncode == -signal.SIGTERM


def test_what_runs_after_the_script_still_sees_it(tmp_path: Path) -> None:
    script = """
import atexit, pickle, threading

class Thing:
    pass

def late():
    assert type(pickle.loads(pickle.dumps(Thing()))) is Thing
    print("late")

atexit.register(late)
started = threading.Event()
threading.Thread(target=lambda: (threading.main_thread().join(), late())).start()
"""
    assert same(script, tmp_path).stdout == "late\nlate\n"


def test_a_script_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_bytes("# -*- coding: latin-1 -*-\nprint('\xe9' == chr(233))".encode("latin-1"))
    assert run([*LAUNCH, "script.py"], tmp_path).stdout == "True\n"


def test_a_package_is_run_with_m(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("WHO = 'relative'")
    (package / "main.py").write_text(
        "import sys\nfrom . import other\nimport chainer\nprint(sys.argv[1:], other.WHO, __name__, __package__)\n"
    )
    for command in (LAUNCH, BY_PATH):
        done = run([*command, "-m", "pkg.main", "-x"], tmp_path)
        assert done.stdout == "['-x'] relative __main__ pkg\n", done.stderr


def test_chainer_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import chainer; print(chainer.__version__)")
    for command in (LAUNCH, BY_PATH):
        done = run([command[0], "-W", "error", *command[1:], "script.py"], tmp_path)
        assert done.stdout == "7.8.1\n", done.stderr


def test_azure_mls_run_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from azureml.core.run import Run\nRun.get_context().log('Accuracy', 0.5)\nprint('done')"
    )
    done = run([*LAUNCH, "script.py"], tmp_path, TRAINER_RUN_DIR=str(tmp_path))
    assert done.stdout == "done\n", done.stderr
    assert "Accuracy" in (tmp_path / "metrics.jsonl").read_text()


def test_a_fault_is_two_lines_and_status_3(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from trainer.runtime.faults import RuntimeFault\nraise RuntimeFault('no data', 'get some')"
    )
    done = run([*LAUNCH, "script.py"], tmp_path)
    assert (done.returncode, done.stderr) == (3, "error: no data\nhint: get some\n")


def test_faults_of_the_launcher_itself_are_two_lines_too(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file where a folder belongs")
    (tmp_path / "script.py").write_text("print('not reached')")
    done = run([*LAUNCH, "script.py"], tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("args", [[], ["-m"], ["nowhere.py"], ["."]])
def test_wrong_usage(args: list[str], tmp_path: Path) -> None:
    done = run([*LAUNCH, *args], tmp_path)
    assert done.returncode == 2
    assert "usage: " in done.stderr
    assert "Traceback" not in done.stderr


def test_help(tmp_path: Path) -> None:
    done = run([*LAUNCH, "--help"], tmp_path)
    assert (done.returncode, done.stdout) == (0, launch.USAGE + "\n")


def test_safe_path_is_respected(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "script.py").write_text("import helper")
    done = run([sys.executable, "-P", launch.__file__, "script.py"], tmp_path)
    assert "No module named 'helper'" in done.stderr
