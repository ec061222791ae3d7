"""What starting a command imports. Time is measured by hand (docs/cli.md): a busy machine would fail a test of it."""

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import Project

HEAVY = {
    *("chainer", "numpy", "cupy", "azure", "azureml", "rich", "requests", "matplotlib", "mlxtend", "PIL", "pathspec"),
    *("onnx", "onnxruntime", "safetensors"),
    *("typer", "click", "argcomplete", "platformdirs", "psutil", "trainer.data", "trainer.snapshot"),
}
PROBE = """
import sys
from trainer.cli import main
code = main(sys.argv[1:])
import json
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_after(project: Project, *words: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        cwd=project.path,
        env=project.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    assert "trainer.cli" in modules
    return set(modules)


@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), ("runs",), ("runs", "--json"), ("models",), ("models", "chainer-dnn-mnist")]
)
def test_short_commands_import_nothing_heavy(trained_once: Project, words: tuple[str, ...]) -> None:
    assert modules_after(trained_once, *words) & HEAVY == set()


def test_help_imports_no_parser(trained_once: Project) -> None:
    assert modules_after(trained_once, "--help") & {"argparse", "msgspec", "dataclasses", "trainer.config"} == set()


def test_the_probe_can_fail(trained_once: Project) -> None:
    assert {"trainer.data", "trainer.snapshot"} <= modules_after(
        trained_once, "package", "--dataset", str(trained_once.data)
    )


def test_dry_run_imports_no_azureml(trained_once: Project) -> None:
    found = modules_after(trained_once, "run", "--dry-run", "--dataset", str(trained_once.data))
    assert found & {"azureml", "chainer", "rich"} == set()


INTERRUPTED = """
import sys
from chainer_trainer import main

class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == "trainer.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder)
sys.exit(main())
"""


def test_an_interrupt_during_the_imports_is_told_as_any_other(project: Project) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        cwd=project.path,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (130, "error: Interrupted.\n")
