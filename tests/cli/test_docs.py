"""The reference in docs/cli.md is what the parsers say."""

import importlib.util
import re
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
    page = (ROOT / "docs" / "cli.md").read_text()
    assert script.MARK in page
    assert script.updated(page) == page, "run scripts/cli_reference.py"
    assert all(f"### trainer {name}\n" in page for name in COMMANDS)


def test_every_setting_is_documented_with_its_default() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \|[^|]+\| `?([^`|]+?)`? \|$", (ROOT / "docs" / "configuration.md").read_text(), re.M
    )
    expected = {name.replace("_", "-"): "-" if s.default is None else str(s.default) for name, s in SETTINGS.items()}
    assert dict(rows) == expected
