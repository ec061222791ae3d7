"""Try the extras for Azure ML each alone, and both together, in fresh environments of each Python.

    uv run scripts/check_extras.py                         all nine combinations
    uv run scripts/check_extras.py --python 3.13 --extras azureml-v2

Installs from the package index, with the pins of ``constraints.txt``: the wheels of this project and of its
emulator, and the extras ``chainer``, ``sample``, ``emulator`` and those that are tried. Then ``trainer doctor``
has to find the SDKs that were installed and no other, and ``trainer run --epochs 1`` has to end with a registered
model on the emulator, with the backend of each SDK that is there. A backend whose extra is not there has to name
it. Exit code 1 if any of this fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
COMBINATIONS = ("azureml", "azureml-v2", "azureml,azureml-v2")
SDKS = {"azureml": "azureml-core", "azureml-v2": "azure-ai-ml"}
BESIDE = ("chainer", "sample", "emulator")


def main() -> None:
    """Try what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", action="append", choices=PYTHONS, help="Only this one; may be repeated.")
    parser.add_argument("--extras", action="append", choices=COMBINATIONS, help="Only these; may be repeated.")
    arguments = parser.parse_args()
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("error: uv is not on the PATH\nhint: pip install uv")
    failed = False
    with tempfile.TemporaryDirectory(prefix="trainer-extras-") as scratch:
        top = Path(scratch)
        for package in (ROOT, ROOT / "azureml-emulator"):
            run([uv, "build", "--quiet", "--wheel", "--out-dir", str(top / "dist"), str(package)], ROOT)
        for python in arguments.python or PYTHONS:
            for extras in arguments.extras or COMBINATIONS:
                place = top / f"{python}-{extras.replace(',', '-')}"
                place.mkdir()
                said = tried(uv, python, extras.split(","), top / "dist", place)
                failed |= bool(said[0])
                print(f"{python}  {extras:20}  {'FAILED' if said[0] else 'ran'}  {said[1]}", flush=True)
                for line in said[0]:
                    print(f"    {line}", flush=True)
                shutil.rmtree(place)
    sys.exit(1 if failed else 0)


def tried(uv: str, python: str, extras: Sequence[str], wheels: Path, place: Path) -> tuple[list[str], str]:
    """Try one combination; return what is wrong with it, and what was seen."""
    environment = place / "venv"
    run([uv, "venv", "--quiet", "--python", python, str(environment)], place)
    began = time.monotonic()
    ours, emulator = (next(wheels.glob(f"{name}-*.whl")) for name in ("chainer_trainer", "azureml_emulator"))
    pins = str(ROOT / "constraints.txt")
    install = [uv, "pip", "install", "--quiet", "--python", str(environment), "-c", pins, "--build-constraints", pins]
    run([*install, f"{ours}[{','.join((*BESIDE, *extras))}]", str(emulator)], place)
    installed = time.monotonic() - began
    trainer = str(environment / "bin" / "trainer")
    wrong = [*of_doctor(trainer, extras, place)]
    seconds = []
    try:
        for backend in SDKS:
            began = time.monotonic()
            wrong += of_run(trainer, backend, place, is_there=backend in extras)
            seconds.append(f"{backend} {time.monotonic() - began:.0f} s")
    finally:
        stop_emulator(place)
    versions = json.loads(run([uv, "pip", "list", "--quiet", "--format", "json", "--python", str(environment)], place))
    return wrong, f"{len(versions)} packages in {installed:.0f} s; {', '.join(seconds)}"


def of_doctor(trainer: str, extras: Sequence[str], place: Path) -> list[str]:
    """Return what ``trainer doctor`` says wrongly of the SDKs."""
    findings = json.loads(run([trainer, "doctor", "--json"], place, may_fail=True))["findings"]
    text = json.dumps(findings)
    wrong = [f"doctor: {item['name']}: {item['found']}" for item in findings if item["state"] == "error"]
    for extra, sdk in SDKS.items():
        if (f"{sdk} " in text) != (extra in extras):
            wrong.append(f"doctor: {sdk} is {'not ' * (extra in extras)}found")
    return wrong


def of_run(trainer: str, backend: str, place: Path, *, is_there: bool) -> list[str]:
    """Return what is wrong with a short run."""
    words = [trainer, "run", "--backend", backend, "--emulator", "--epochs", "1", "--dataset", "mnist-5k", "--json"]
    ran = subprocess.run(words, cwd=place, env=variables(), capture_output=True, text=True)
    if not is_there:
        named = f"needs the extra '{backend}'"
        return [] if ran.returncode == 3 and named in ran.stderr else [f"{backend}: {ran.returncode}: {ran.stderr}"]
    if ran.returncode != 0:
        return [f"{backend}: {ran.returncode}", *ran.stderr.splitlines()[-12:]]
    model: dict[str, Any] | None = json.loads(ran.stdout)["model"]
    return [] if model else [f"{backend}: no model was registered"]


def stop_emulator(place: Path) -> None:
    """End the emulator that the runs have started."""
    endpoint = place / ".trainer" / "emulator" / "endpoint.json"
    if endpoint.is_file():
        os.kill(int(json.loads(endpoint.read_text())["pid"]), signal.SIGTERM)


def variables() -> dict[str, str]:
    """Return the environment without what concerns this project."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TRAINER_", "VIRTUAL_ENV"))}


def run(words: Sequence[str], folder: Path, *, may_fail: bool = False) -> str:
    """Run a command and return its output; exit with what it says if it fails."""
    ran = subprocess.run(words, cwd=folder, env=variables(), capture_output=True, text=True)
    if ran.returncode != 0 and not may_fail:
        sys.exit(f"error: {' '.join(words)}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


if __name__ == "__main__":
    main()
