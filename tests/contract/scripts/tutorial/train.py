"""A script in the style of Azure ML's Chainer tutorial, which knows nothing of this project."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import chainer
import neighbour
from azureml.core.run import Run
from chainer.iterators import MultiprocessIterator
from package import text

run = Run.get_context()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text")
    parser.add_argument("--empty")
    parser.add_argument("--rate", type=float)
    args = parser.parse_args()

    run.log("rate", args.rate)
    run.log_list("a list", [0.25, 0.75])

    train, test = chainer.datasets.get_mnist()
    iterator = MultiprocessIterator(list(range(8)), 8, repeat=False, shuffle=False, n_processes=2)
    batch = next(iterator)
    iterator.finalize()

    said = subprocess.run([str(Path(__file__).with_name("tools") / "say.sh"), "twice"], capture_output=True, text=True)

    outputs = Path("outputs")
    (outputs / "deep" / "er").mkdir(parents=True, exist_ok=True)
    (outputs / "deep" / "er" / "file.txt").write_text("kept")
    seen = {
        "argv": sys.argv[1:],
        "neighbour": neighbour.NAME,
        "package": text.TEXT,
        "batch": batch,
        "said": said.stdout,
        "images": [len(train), len(test)],
    }
    Path("result").mkdir()
    Path("result", "log").write_text("written elsewhere")
    (outputs / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
