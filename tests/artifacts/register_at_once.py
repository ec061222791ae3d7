"""Register a run as soon as a starting gun is fired, and print the version. A process of its own in the tests.

Arguments: the registry, the run's folder, the model's name, the starting gun (a pipe that is closed to fire).
"""

import sys
from pathlib import Path

import msgspec

from backends.local_store import LocalStore
from trainer.runfolder import RunFolder


def main(models: str, run: str, name: str) -> None:
    store, folder = LocalStore(Path(models)), RunFolder(Path(run))
    print("ready", flush=True)
    sys.stdin.read()
    print(msgspec.json.encode(store.register(folder, name)).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
