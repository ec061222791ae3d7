"""Run the drills and print the figures of the table in docs/reliability.md.

    uv run python -m tests.drills                  all, more than an hour on two cores
    uv run python -m tests.drills kills-outputs    some of them
    uv run python -m tests.drills --scale 0.01     all, to try them out

A module of this folder that has ``DRILLS``, a tuple of :class:`tests.drills.drill.Drill`, takes part.
The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback

from tests.drills.apart import drills, run_apart
from tests.drills.drill import NotHereError


def main(words: list[str]) -> int:
    """Run the drills that are named, or all of them."""
    known = drills()
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description="The drills of docs/reliability.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"One of: {', '.join(known)}.")
    parser.add_argument("--scale", type=float, default=1.0, help="Do it less often (default: 1).")
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.names if name not in known]
    if unknown:
        parser.error(f"there is no drill {unknown[0]!r}")
    broken = 0
    print("| Promise | Drill | Tried | Broken |\n|---|---|---|---|", flush=True)
    for name in chosen.names or known:
        drill = known[name]
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="drill-") as scratch:
            try:
                done = run_apart(name, scratch, chosen.scale)
                tried = ", ".join(f"{count:,} {what}" for what, count in done.items())
                outcome = "0"
            except NotHereError as error:
                tried, outcome = f"not here: {error}", ""
            except Exception:
                traceback.print_exc()
                tried, outcome = "see above", "**yes**"
                broken += 1
        print(f"| {drill.promise} | `{name}` | {tried} | {outcome} |", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
