"""The reference in docs/cli.md is what the parsers say."""

import importlib.util
from pathlib import Path

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
