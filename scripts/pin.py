"""Write exact pins of every dependency, for uv into ``pyproject.toml`` and for pip into ``constraints.txt``.

    uv run scripts/pin.py            newest versions that fit together
    uv run scripts/pin.py --check    exit 1 if the pins don't cover what pyproject.toml asks for

A lock file would pin too, but it names the package registry that it was made from; these lines name only
packages. uv reads ``[tool.uv] constraint-dependencies`` at every ``uv run`` and ``uv sync``. ``constraints.txt`` has
the same pins but for setuptools: older pips apply one file to what they install and to what they build with, and
building Chainer needs an older setuptools.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The other distributions of the workspace, which its resolution reads.
MEMBERS = ("azureml-emulator",)
QUIET = ("--no-hashes", "--no-annotate", "--no-header")
BEGIN = "# Written by scripts/pin.py."
PINS = re.compile(rf"^{re.escape(BEGIN)}\nconstraint-dependencies = \[\n(?:  .*\n)*\]\n", re.MULTILINE)
FOR_BUILDING = re.compile(r"^build-constraint-dependencies = \[\"(setuptools[^\"]*)\"\]$", re.MULTILINE)
HEAD = """\
# Written by scripts/pin.py from the pins in pyproject.toml: what README.md's pip steps install and build with.
# No hashes: pip checks either all requirements by hash or none, and a clone's own directory has no hash.
"""
PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z0-9,_-]+\])?==[^ ;]+( ; .+)?")


def resolve(pyproject: str) -> list[str]:
    """Pins of all extras and groups, for every supported Python, as ``name==version ; marker``."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("error: uv is not on the PATH\nhint: pip install uv")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "pyproject.toml").write_text(pyproject)
        for member in MEMBERS:
            (Path(scratch) / member).mkdir()
            shutil.copy(ROOT / member / "pyproject.toml", Path(scratch) / member)
        export = subprocess.run(
            [uv, "export", "--quiet", "--all-extras", "--all-groups", "--no-emit-workspace", *QUIET],
            cwd=scratch,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    pins = [line.strip() for line in export.splitlines() if PIN.fullmatch(line.strip())]
    return sorted({simplified(pin) for pin in pins}, key=str.lower)


def simplified(pin: str) -> str:
    """A pin as a constraint: without extras, and with a marker only where Pythons differ.

    An extra can't stand in a constraint. A constraint installs nothing, so on which platform a package
    is wanted doesn't matter here; which version fits which Python does.
    """
    requirement, _, marker = pin.partition(" ; ")
    requirement = re.sub(r"\[[^\]]*\]==", "==", requirement)
    return f"{requirement} ; {marker}" if "python_full_version" in marker else requirement


def for_pip(pins: list[str], building: str) -> str:
    """The text of constraints.txt.

    Args:
        pins: Those of pyproject.toml.
        building: The pin of setuptools.
    """
    kept = [pin for pin in pins if not pin.startswith("setuptools==")]
    return HEAD + "".join(f"{pin}\n" for pin in sorted([*kept, building], key=str.lower))


def building_pin(pyproject: str) -> str:
    """The newest setuptools that what is built from source can be built with."""
    found = FOR_BUILDING.search(pyproject)
    assert found is not None
    command = [str(shutil.which("uv")), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "-"]
    with tempfile.TemporaryDirectory() as elsewhere:  # here uv would read the pins in pyproject.toml
        found_by_uv = subprocess.run(
            command, cwd=elsewhere, input=found[1], check=True, stdout=subprocess.PIPE, text=True
        )
    return found_by_uv.stdout.strip()


def pinned_in(pyproject: str) -> list[str]:
    """The pins that are there."""
    block = PINS.search(pyproject)
    return re.findall(r'^  "(.+)",$', block.group(0), re.MULTILINE) if block else []


def main() -> None:
    """Write the pins, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    path = ROOT / "pyproject.toml"
    text = path.read_text()
    bare = PINS.sub("", text)
    if parser.parse_args().check:
        pinned = set(pinned_in(text))
        missing = [pin for pin in resolve(text) if pin not in pinned]
        if missing:
            sys.exit("error: not pinned: " + ", ".join(missing) + "\nhint: uv run scripts/pin.py")
        return
    pins = resolve(bare)
    lines = "".join([f"{BEGIN}\nconstraint-dependencies = [\n", *(f'  "{pin}",\n' for pin in pins), "]\n"])
    written = bare.replace("[tool.uv]\n", "[tool.uv]\n" + lines, 1)
    path.write_text(written)
    (ROOT / "constraints.txt").write_text(for_pip(pins, building_pin(text)))
    print(f"{len(pins)} pins written", file=sys.stderr)


if __name__ == "__main__":
    main()
