"""When and how the layer lands: once, late, in every process, whatever was imported before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.runtime import compat

ROOT = Path(compat.__file__).parents[3]
SITE = ROOT / "trainer" / "runtime" / "site"


def python(code: str, folder: Path, *flags: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", code],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_applying_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from trainer.runtime import compat
compat.apply()
print([name for name in ("numpy", "chainer", "cupy") if name in sys.modules])
"""
    assert python(code, tmp_path) == "[]"


def test_applying_twice_is_applying_once(tmp_path: Path) -> None:
    code = """
import sys
from trainer.runtime import compat
compat.apply()
finders = len(sys.meta_path)
compat.apply()
assert len(sys.meta_path) == finders
import chainer
forward = chainer.functions.array.pad_sequence.PadSequence.forward
compat.apply()
assert chainer.functions.array.pad_sequence.PadSequence.forward is forward
print(chainer.__version__)
"""
    assert python(code, tmp_path) == "7.8.1"


def test_one_line_does_it_after_a_failed_import(tmp_path: Path) -> None:
    # As in a notebook whose first cell has just failed.
    code = """
try:
    import chainer
except (ImportError, AttributeError):
    pass
else:
    raise SystemExit("not needed")
import trainer.runtime.compat.auto
import chainer
import chainer.backends.cuda, chainer.functions, chainer.links
chainer.links.Linear(2, 2)
print("works")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "not needed" in done.stderr or done.stdout.strip() == "works", done.stderr


def test_modules_that_are_already_imported_are_changed(tmp_path: Path) -> None:
    code = """
from trainer.runtime import compat
from trainer.runtime.compat import hook, importing
# On the versions where Chainer imports by itself, a script may have done so.
hook.install(importing.PATCHES)
import sys, chainer
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__module__ != hook.__name__]
before = chainer.reporter.Summary.add, chainer.serializers.npz.load_npz
compat.apply()
assert chainer.reporter.Summary.add is not before[0]
assert chainer.serializers.npz.load_npz is not before[1]
assert chainer.serializers.load_npz is chainer.serializers.npz.load_npz
"""
    python(code, tmp_path)


def test_patched_modules_show_chainers_source(tmp_path: Path) -> None:
    code = """
import trainer.runtime.compat.auto, inspect, chainer, importlib.util
from chainer.functions.array import as_strided
assert "def debug_print" in inspect.getsource(chainer.variable)
assert inspect.getsource(chainer.variable.Variable.debug_print).lstrip().startswith("def debug_print")
assert importlib.util.find_spec("chainer.variable").origin.endswith("variable.py")
assert chainer.__spec__.loader.get_filename("chainer") == chainer.__file__
"""
    python(code, tmp_path)


def test_a_patch_for_a_missing_module_does_no_harm(tmp_path: Path) -> None:
    code = """
from trainer.runtime.compat import hook
from trainer.runtime.compat.hook import Patch
hook.install([Patch("x", "no_such_module_here", "none", "any", after=print)])
try:
    import no_such_module_here
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert python(code, tmp_path) == "no_such_module_here"


def test_a_module_that_fails_is_not_patched(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('broken')")
    code = """
import sys
sys.path.insert(0, "")
from trainer.runtime.compat import hook
from trainer.runtime.compat.hook import Patch
hook.install([Patch("x", "broken", "none", "any", after=lambda module: print("patched"))])
try:
    import broken
except ValueError as error:
    print(error, "broken" in sys.modules)
"""
    assert python(code, tmp_path) == "broken False"


WORKERS = """
import multiprocessing, os, sys, subprocess

def version(_):
    import chainer
    return chainer.__version__

if __name__ == "__main__":
    {line}
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.map(version, [0])[0])
    child = "import chainer; print('subprocess', chainer.__version__)"
    print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout.strip())
"""
EXPECTED = ["fork 7.8.1", "spawn 7.8.1", "forkserver 7.8.1", "subprocess 7.8.1"]


def test_workers_of_a_script_with_the_one_line_get_it(tmp_path: Path) -> None:
    # Where the line stands only in the main part, workers don't run it themselves.
    script = tmp_path / "script.py"
    script.write_text(WORKERS.format(line="import trainer.runtime.compat.auto"))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == EXPECTED, done.stderr


def test_workers_of_a_launched_script_get_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WORKERS.format(line="pass"))
    command = [sys.executable, "-m", "trainer.runtime.launch", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == EXPECTED, done.stderr


def test_children_without_chainer_import_nothing_of_ours(tmp_path: Path) -> None:
    code = "import sys; print([m for m in sys.modules if m.startswith(('trainer', 'chainer', 'numpy'))])"
    assert python(code, tmp_path, PYTHONPATH=str(SITE)) == "[]"


def test_the_search_path_of_children_is_not_changed(tmp_path: Path) -> None:
    code = "import sys; print(sys.path)"
    assert python(code, tmp_path, PYTHONPATH=str(SITE)) == python(code, tmp_path, PYTHONPATH="")
    imported = "import sys; before = list(sys.path); import chainer; assert sys.path == before, sys.path"
    python(imported, tmp_path, PYTHONPATH=str(SITE))


def test_the_sitecustomize_that_ours_hides_runs_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.theirs = 42\n")
    code = "import sitecustomize; print(theirs, sitecustomize.__file__); import chainer"
    path = os.pathsep.join([str(SITE), str(tmp_path)])
    assert python(code, tmp_path, PYTHONPATH=path) == f"42 {tmp_path / 'sitecustomize.py'}"


def test_a_broken_sitecustomize_of_theirs_is_reported_as_python_does(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import no_such_module_at_all\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SITE), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", "print(1)"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert "no_such_module_at_all" in done.stderr


def test_children_get_the_layer_once_in_pythonpath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    compat.apply_to_children()
    compat.apply_to_children()
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(SITE), "/somewhere"])
