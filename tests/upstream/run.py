"""Runs the CPU part of Chainer's own tests on this interpreter and writes a table of the outcomes.

::

    python tests/upstream/run.py CHAINER [--output TABLE.md] [--jobs N] [--only TEXT] [--no-layer] [--gpu] [--ranks N]

With ``--ranks 2`` it runs ChainerMN's tests in place of the others, by ``mpiexec -n 2``; that takes mpi4py and mpich.

CHAINER is a checkout of https://github.com/chainer/chainer at tag v7.8.1 (the sdist on PyPI carries
no tests). The interpreter needs chainer==7.8.1, numpy, pytest, scipy, h5py, matplotlib, and
setuptools<82 for --no-layer; pytest-xdist for --jobs.

Each failure is looked up in ``known_failures.toml``, which names its cause. The exit status is 1 if
a failure is not listed there, so the command says whether the layer holds on a new NumPy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ranks
from report import load_known, load_outcomes, summarise, write_table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# iDeep, ChainerX and Theano have no releases for these Pythons; "slow" tests take hours.
CPU = "not (gpu or cudnn or slow or ideep or chainerx or multi_gpu or theano)"
RANKS = "not (gpu or nccl or slow or chainerx)"
GPU = "gpu and not (cudnn or slow or ideep or chainerx or multi_gpu or theano)"
INI = """\
[pytest]
filterwarnings = ignore
python_files = test_*.py
python_classes = Test
python_functions = test
markers =
    chainerx: x
    cudnn: x
    gpu: x
    ideep: x
    theano: x
    multi_gpu: x
    nccl: x
    slow: x
    parametrize_device: x
    parametrize_device_name: x
"""


def main() -> int:
    """Parses the command line, runs pytest, writes the table."""
    options = _parse()
    tests = options.chainer.resolve()
    tests = tests / "tests" if (tests / "tests").is_dir() else tests
    folder = "chainermn_tests" if options.ranks else "chainer_tests"
    if not (tests / folder).is_dir():
        print(f"error: no {folder} folder in {tests}", file=sys.stderr)
        print("hint: git clone --branch v7.8.1 https://github.com/chainer/chainer", file=sys.stderr)
        return 2
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes_file = options.outcomes.resolve() if options.outcomes else Path(scratch) / "outcomes.jsonl"
        outcomes_file.unlink(missing_ok=True)
        ini = Path(scratch) / "pytest.ini"
        ini.write_text(INI)
        command = [
            sys.executable, "-m", "pytest", "-c", str(ini), f"--rootdir={tests}", "-p", "plugin",
            "-p", "no:cacheprovider", "-m", RANKS if options.ranks else GPU if options.gpu else CPU,
            "-q", "--tb=short", "--no-header", "--continue-on-collection-errors", "--show-capture=no",
        ]  # fmt: skip
        if options.jobs > 1 and not options.ranks:
            command += ["-n", str(options.jobs)]
        if options.only:
            command += ["-k", options.only]
        log = outcomes_file.with_suffix(".log")
        environment = _environment(options, outcomes_file)
        if options.ranks:
            place = Path(scratch) / "ranks"
            place.mkdir()
            log = place / "ranks.log"
            with outcomes_file.open("w", encoding="utf-8") as lines:
                for outcome in ranks.run(
                    command, tests, options.paths or [folder], environment,
                    ranks=options.ranks, patience=options.patience, scratch=place,
                ):  # fmt: skip
                    lines.write(json.dumps(vars(outcome)) + "\n")
                    lines.flush()
        else:
            command += options.paths or [folder]
            with log.open("w") as file:
                subprocess.run(
                    command, cwd=tests, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False
                )  # fmt: skip
        if not outcomes_file.exists():
            print(log.read_text()[-3000:], file=sys.stderr)
            print("error: pytest ran no test", file=sys.stderr)
            return 2
        summary = summarise(load_outcomes(outcomes_file), load_known(HERE / "known_failures.toml"))
    minutes = (time.monotonic() - started) / 60
    table = write_table(summary, layer=not options.no_layer, minutes=minutes, ranks=options.ranks)
    if options.output:
        options.output.write_text(table)
    print(table)
    return 1 if summary.unknown else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run Chainer's own CPU tests and tabulate the outcomes.")
    parser.add_argument("chainer", type=Path, help="a checkout of Chainer v7.8.1, or its tests folder")
    parser.add_argument("paths", nargs="*", help="files or folders below tests (default: all)")
    parser.add_argument("--output", type=Path, help="write the table here")
    parser.add_argument("--outcomes", type=Path, help="keep the outcomes here, one JSON object a line")
    parser.add_argument("--jobs", type=int, default=1, help="processes (needs pytest-xdist)")
    parser.add_argument("--only", help="pytest's -k expression")
    parser.add_argument("--ranks", type=int, default=0, help="run ChainerMN's tests, by so many ranks of MPI")
    parser.add_argument("--patience", type=float, default=120, help="seconds without a word after which ranks hang")
    parser.add_argument("--gpu", action="store_true", help="the tests that need one GPU, in place of the others")
    parser.add_argument("--no-layer", action="store_true", help="leave Chainer as it is: the baseline")
    parser.add_argument("--full-grid", action="store_true", help="every combination of parameters, not pairwise")
    return parser.parse_args()


def _environment(options: argparse.Namespace, outcomes: Path) -> dict[str, str]:
    path = [str(HERE)]
    if not options.no_layer:
        path.append(str(ROOT / "trainer" / "runtime" / "site"))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "UPSTREAM_OUTCOMES": str(outcomes),
        "CHAINER_TEST_PAIRWISE_PARAMETERIZATION": "never" if options.full_grid else "always",
    }


if __name__ == "__main__":
    sys.exit(main())
