"""``python -m bench``: this program beside its peers, as a Markdown page and a picture."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench import commands, epochs, gpu, machine, networks, page, ranks, serving, startup, threads, tuning
from bench.page import Section


def _epoch(args: argparse.Namespace, _: Path) -> Iterator[Section]:
    for units in (100, 1000):
        # In a process of its own: commands started from a large one would be charged its memory.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            samples, notes = pool.submit(epochs.measure, args.data, units, args.repeats).result()
        title = f"Training part of an epoch, {units} units"
        yield Section(title, samples, epochs.FLOOR, "times the products", "\n\n".join(notes), in_picture=True)


def _networks(args: argparse.Namespace, _: Path) -> Iterator[Section]:
    for title, samples, notes in networks.measure(args.repeats):
        reference = networks.PYTORCH if networks.PYTORCH in samples else networks.FAST
        yield Section(title, samples, reference, f"times {reference}", "\n\n".join(notes), in_picture=True)


def _command(args: argparse.Namespace, folder: Path) -> Iterator[Section]:
    samples, notes = commands.measure_training(args.data, args.epochs, args.repeats, folder)
    title = f"Whole command, {args.epochs} epochs"
    yield Section(title, samples, commands.OURS, "times trainer run", "\n\n".join(notes), in_picture=True)


def _scripts(args: argparse.Namespace, folder: Path) -> Iterator[Section]:
    for script, samples in commands.measure_scripts(args.data, args.repeats, folder).items():
        yield Section(f"Unmodified script: {script}", samples, "through the launcher", "times the launcher")


def _threads(args: argparse.Namespace, folder: Path) -> Iterator[Section]:
    samples = threads.measure(args.data, args.repeats, folder, len(os.sched_getaffinity(0)))
    yield Section("BLAS threads, one epoch", samples, "100 units, idle machine, 1 thread", "times the first row")


def _startup(args: argparse.Namespace, folder: Path) -> Iterator[Section]:
    samples = startup.measure(args.repeats, folder)
    yield Section("Start-up", samples, startup.NOTHING, f"times {startup.NOTHING}")


def _tune(args: argparse.Namespace, folder: Path) -> Iterator[Section]:
    trials = 40
    for epochs_each in (5, None):
        what = "the notebook's space" if epochs_each is None else f"{epochs_each} epochs per trial"
        samples = tuning.measure(epochs_each, trials, args.repeats, folder / str(epochs_each))
        title = f"A study of {trials} trials, 2 at once, {what}"
        pace = tuning.per_hour(samples, trials)
        yield Section(title, samples, tuning.OURS, f"times {tuning.OURS}", pace, in_picture=True)


def _serve(args: argparse.Namespace, folder: Path) -> Iterator[Section]:
    text, notes = serving.measure(folder, args.peers, args.repeats, args.load)
    yield Section("Scoring over HTTP", text="\n\n".join([text, *notes]))


def _gpu(args: argparse.Namespace, _: Path) -> Iterator[Section]:
    for units in (100, 1000):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            samples, notes = pool.submit(gpu.measure, args.data, units, args.repeats).result()
        title = f"Training part of an epoch on a GPU, {units} units"
        if not samples:
            yield Section("Training part of an epoch on a GPU", text="\n\n".join(notes))
            return
        text = "\n\n".join([*notes, gpu.images_per_second(samples)])
        yield Section(title, samples, epochs.OURS, f"times {epochs.OURS}", text, in_picture=True)


def _ranks(args: argparse.Namespace, folder: Path) -> Iterator[Section]:
    most = len(os.sched_getaffinity(0))
    for units in (100, 1000):
        samples, notes = ranks.measure(args.data, units, args.repeats, folder / str(units), args.peers, most)
        title = f"Training part of an epoch by ranks, {units} units"
        text = "\n\n".join(notes)
        yield Section(title, samples, ranks.REFERENCE, f"times {ranks.REFERENCE}", text, in_picture=True)


PARTS: Mapping[str, Callable[[argparse.Namespace, Path], Iterator[Section]]] = {
    "epoch": _epoch,
    "networks": _networks,
    "command": _command,
    "scripts": _scripts,
    "threads": _threads,
    "startup": _startup,
    "tune": _tune,
    "ranks": _ranks,
    "serve": _serve,
    "gpu": _gpu,
}


def main() -> None:
    """Measure the parts asked for, and write ``measurements.md`` and ``measurements.png`` anew with them."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's four gzipped IDX files")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default: 5)")
    parser.add_argument("--epochs", type=int, default=10, help="of a whole command (default: 10)")
    parser.add_argument(
        "--peers", type=Path, default=Path(".bench-peers"), help="peers' environments (default: %(default)s)"
    )
    parser.add_argument("--load", type=float, default=60.0, help="seconds of 64 connections (default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/performance"),
        help="folder, whose parts that are not measured stay (default: %(default)s)",
    )
    args = parser.parse_args()
    # As whoever repeats it would type it; where the folders are says nothing.
    chosen = [f"--part {part}" for part in args.part or ()]
    command = " ".join(["python -m bench --data DIR", *chosen, f"--repeats {args.repeats}"])
    args.data, args.peers = args.data.resolve(), args.peers.resolve()
    with tempfile.TemporaryDirectory() as name:
        for part in args.part or PARTS:
            described, load = machine.describe(), machine.load()
            sections = []
            for section in PARTS[part](args, Path(name) / part):
                sections.append(section)
                print(f"### {section.title}\n\n{section.markdown()}\n", file=sys.stderr, flush=True)
            # After each part: one that fails costs no other's figures.
            written = page.update(args.output, {part: page.Part(sections, command, described, load)}, list(PARTS))
    print(written)


if __name__ == "__main__":
    main()
