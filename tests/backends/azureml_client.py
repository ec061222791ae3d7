"""A client, to be killed: ``submit HOME DIARY SECONDS BACKEND`` or ``attach HOME RUN``."""

import sys
from pathlib import Path

from trainer.backend import load_backend
from trainer.home import Home
from trainer.listing import open_run
from trainer.submission import JobRequest, prepare, submit

TINY = Path(__file__).parent / "scripts" / "tiny" / "train.py"


def main(action: str, place: str, *words: str) -> None:
    home = Home(Path(place), Path(place).parent)
    if action == "submit":
        diary, seconds, backend = words
        request = JobRequest(
            script=TINY,
            script_args=(diary, seconds),
            dataset="none",
            model_name=f"killed-{backend}",
        )
        submit(prepare(request, home), load_backend(backend, home, {"emulator": True}), home)
        return
    info = open_run(home, words[0]).wait()
    print(info.status, info.model.version if info.model else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
