"""Fills the disk that it is given with a run, and prints how the run ended."""

import json
import sys
from pathlib import Path

import msgspec

from backends.local import LocalBackend
from trainer.home import Home
from trainer.submission import JobRequest, prepare, submit

disk, script = map(Path, sys.argv[1:])
home = Home(disk / ".trainer", disk)
backend = LocalBackend(home, {})
run = submit(prepare(JobRequest(script=script, model_name=None), home), backend, home)
info = run.wait(60)
found = msgspec.to_builtins(info) | {"on_disk": run.folder.info().status}
json.dump(found, sys.stdout)
