"""Register a run as soon as a starting gun is fired, and print the version. A process of its own in the tests.

Arguments: the home, the run's folder, the model's name, the backend's name. The starting gun is standard input's end.
"""

import sys
from pathlib import Path

import msgspec

from trainer.backend import load_backend
from trainer.home import Home
from trainer.runfolder import RunFolder


def main(home: str, run: str, name: str, backend: str = "azureml") -> None:
    store = load_backend(backend, Home(Path(home), Path(home).parent), {"emulator": True}).store()
    store.versions(name)
    print("ready", flush=True)
    sys.stdin.read()
    print(msgspec.json.encode(store.register(RunFolder(Path(run)), name)).decode(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
