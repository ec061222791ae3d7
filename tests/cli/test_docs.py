"""The reference in docs/cli.md is what the parsers say."""

import importlib
import importlib.util
from pathlib import Path

import pytest

from trainer.cli.commands import COMMANDS
from trainer.config import SETTINGS

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "scripts" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for path, renewed in script.pages():
        assert path.read_text() == renewed, "run scripts/cli_reference.py"
    commands = (ROOT / "docs" / "cli.md").read_text()
    assert all(f"### trainer {name}\n" in commands for name in COMMANDS)
    settings = (ROOT / "docs" / "configuration.md").read_text()
    assert all(f"| `{name.replace('_', '-')}` |" in settings for name in SETTINGS)


def test_pip_is_given_the_pins_that_uv_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    pin = importlib.import_module("pin")
    pins = pin.pinned_in((ROOT / "pyproject.toml").read_text())
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    building = next(line for line in lines if line.startswith("setuptools=="))
    assert int(building.removeprefix("setuptools==").partition(".")[0]) < 82
    assert (ROOT / "constraints.txt").read_text() == pin.for_pip(pins, building)
    assert "://" not in "".join(lines)
    assert "constraints.txt" in (ROOT / "README.md").read_text()
