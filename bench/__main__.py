"""``python -m bench``: this program beside its peers, as a Markdown page and a picture."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench import commands, epochs, gpu, machine, networks, ranks, report, serving, startup, threads, tuning
from bench.measuring import Samples

PARTS = ("epoch", "networks", "command", "scripts", "threads", "startup", "tune", "serve", "gpu", "ranks")


def main() -> None:
    """Measure the parts asked for and write ``measurements.md`` and ``measurements.png``."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's four gzipped IDX files")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default: 5)")
    parser.add_argument("--epochs", type=int, default=10, help="of a whole command (default: 10)")
    parser.add_argument(
        "--peers", type=Path, default=Path(".bench-peers"), help="peers' environments (default: %(default)s)"
    )
    parser.add_argument("--load", type=float, default=60.0, help="seconds of 64 connections (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/performance"), help="folder (default: %(default)s)")
    args = parser.parse_args()
    data = args.data.resolve()
    parts = args.part or PARTS
    blocks = [machine.describe()]
    panels: dict[str, Mapping[str, Samples]] = {}

    def add(title: str, samples: Mapping[str, Samples], reference: str, relation: str, notes: list[str]) -> None:
        text = f"### {title}\n\n{report.table(samples, reference, relation)}"
        blocks.append("\n\n".join([text, *notes]))
        print(blocks[-1], file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "epoch" in parts:
            for units, repeats in ((100, args.repeats), (1000, args.repeats)):
                # In a process of its own: commands started from a large one would be charged its memory.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    samples, notes = pool.submit(epochs.measure, data, units, repeats).result()
                title = f"Training part of an epoch, {units} units"
                add(title, samples, epochs.FLOOR, "times the products", notes)
                panels[title] = samples
        if "networks" in parts:
            for title, samples, notes in networks.measure(args.repeats):
                reference = networks.PYTORCH if networks.PYTORCH in samples else networks.FAST
                add(title, samples, reference, f"times {reference}", notes)
                panels[title] = samples
        if "command" in parts:
            samples, notes = commands.measure_training(data, args.epochs, args.repeats, folder / "command")
            title = f"Whole command, {args.epochs} epochs"
            add(title, samples, commands.OURS, "times trainer run", notes)
            panels[title] = samples
        if "scripts" in parts:
            for script, each in commands.measure_scripts(data, args.repeats, folder / "scripts").items():
                add(f"Unmodified script: {script}", each, "through the launcher", "times the launcher", [])
        if "threads" in parts:
            cores = len(os.sched_getaffinity(0))
            samples = threads.measure(data, args.repeats, folder / "threads", cores)
            add("BLAS threads, one epoch", samples, "100 units, idle machine, 1 thread", "times the first row", [])
        if "startup" in parts:
            samples = startup.measure(args.repeats, folder / "startup")
            add("Start-up", samples, startup.NOTHING, f"times {startup.NOTHING}", [])
        if "tune" in parts:
            for epochs_each, trials in ((5, 40), (None, 40)):
                what = "the notebook's space" if epochs_each is None else f"{epochs_each} epochs per trial"
                studies = tuning.measure(epochs_each, trials, args.repeats, folder / f"tune-{epochs_each}")
                title = f"A study of {trials} trials, 2 at once, {what}"
                add(title, studies, tuning.OURS, f"times {tuning.OURS}", [tuning.per_hour(studies, trials)])
                panels[title] = studies
        if "ranks" in parts:
            most = len(os.sched_getaffinity(0))
            for units in (100, 1000):
                place = folder / f"ranks-{units}"
                samples, notes = ranks.measure(data, units, args.repeats, place, args.peers.resolve(), most)
                title = f"Training part of an epoch by ranks, {units} units"
                add(title, samples, ranks.REFERENCE, f"times {ranks.REFERENCE}", notes)
                panels[title] = samples
        if "gpu" in parts:
            for units in (100, 1000):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    samples, notes = pool.submit(gpu.measure, data, units, args.repeats).result()
                if not samples:
                    blocks.extend(notes)
                    break
                title = f"Training part of an epoch on a GPU, {units} units"
                add(title, samples, epochs.OURS, f"times {epochs.OURS}", [*notes, gpu.images_per_second(samples)])
                panels[title] = samples

        if "serve" in parts:
            text, notes = serving.measure(folder / "serve", args.peers.resolve(), args.repeats, args.load)
            blocks.append("\n\n".join(["### Scoring over HTTP", text, *notes]))
            print(blocks[-1], file=sys.stderr, flush=True)

    args.output.mkdir(parents=True, exist_ok=True)
    if panels and not report.picture(panels, args.output / "measurements.png"):
        blocks.append("matplotlib is not installed: there is no picture.")
    page = args.output / "measurements.md"
    command = " ".join(["python -m bench", *sys.argv[1:]]).replace(str(args.data), "DIR")
    page.write_text("\n\n".join(["# Measurements", f"Made by `{command}`.", *blocks]) + "\n")
    print(page)


if __name__ == "__main__":
    main()
