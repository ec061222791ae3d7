"""Files that the launcher lets be executed again: those that a snapshot names, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import trainer.runtime


def test_what_the_snapshot_names_can_be_executed_and_nothing_else(tmp_path: Path) -> None:
    job = tmp_path / "work" / "_trainer_job"
    shutil.copytree(Path(trainer.runtime.__file__).parent, job / "trainer" / "runtime")
    (job / "trainer" / "__init__.py").touch()
    work = job.parent
    files = {name: work / name for name in ("run.sh", "sub/tool", "plain.txt", "secret")}
    outside = {name: tmp_path / name for name in ("outside", "folder/inside")}
    for path in (*files.values(), *outside.values()):
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\necho ran\n")
        path.chmod(0o644)
    files["secret"].chmod(0o600)
    (work / "link").symlink_to(outside["outside"])
    (work / "linked").symlink_to(tmp_path / "folder")
    named = ["run.sh", "sub/tool", "secret", "link", "linked/inside", "../outside", str(outside["outside"]), "sub"]
    odd = [*named, "gone", 7, None, "a\0b"]
    (job / "executables.json").write_text(json.dumps(odd))
    (work / "train.py").write_text("import subprocess\nsubprocess.run(['./run.sh'], check=True)\n")
    command = [sys.executable, "_trainer_job/trainer/runtime/launch.py", "train.py"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    modes = {name: path.stat().st_mode & 0o777 for name, path in (files | outside).items()}
    executable, plain = 0o755, 0o644
    assert modes == {
        **{"run.sh": executable, "sub/tool": executable, "secret": 0o700, "plain.txt": plain},
        **{"outside": plain, "folder/inside": plain},
    }
    for damaged in ("", "{}", "[" * 100_000, "\0"):
        (job / "executables.json").write_text(damaged)
        subprocess.run(command, cwd=work, capture_output=True, check=True)
