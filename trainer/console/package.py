"""What would travel, and what a submission would do."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from trainer.console.output import facts, print_json, say, size, table, warn

if TYPE_CHECKING:
    from trainer.backend import Plan
    from trainer.snapshot import Limits
    from trainer.submission import Prepared


def print_package(prepared: Prepared, limits: Limits | None, *, as_json: bool) -> None:
    """List a snapshot's files, with its size, its digest and the limits of a backend if it has any."""
    snapshot, job = prepared.snapshot, prepared.job
    within = limits is None or (len(snapshot.files) <= limits.files and snapshot.size <= limits.size)
    if as_json:
        print_json(
            {
                "files": [
                    {"path": file.path, "size": file.size, "sha256": file.sha256, "executable": file.executable}
                    for file in snapshot.files
                ],
                "count": len(snapshot.files),
                "size": snapshot.size,
                "limits": limits and {"files": limits.files, "size": limits.size, "within": within},
                "digest": snapshot.digest,
                "dataset": job.dataset,
                "dataset_note": job.dataset_note,
                "ignore_file": snapshot.ignore_file,
                "notes": snapshot.notes,
            }
        )
        return
    table(("BYTES", "PATH"), ((f"{file.size:,}", file.path) for file in snapshot.files), right=("BYTES",))
    say()
    excess = "" if within else "  TOO MUCH"
    facts(
        [
            (
                "Files",
                f"{len(snapshot.files):,}" + (f" of {limits.files:,} that {limits.whose} takes" if limits else ""),
            ),
            ("Size", size(snapshot.size) + (f" of {size(limits.size)}" if limits else "") + excess),
            ("Chosen by", snapshot.ignore_file or "no ignore file"),
            ("Data set", job.dataset or "none"),
            ("Digest", f"sha256 {snapshot.digest}"),
        ]
    )
    for text in (*snapshot.notes, *([job.dataset_note] if job.dataset_note else ())):
        warn(text)


def _label(name: str) -> str:
    return (name[:1].upper() + name[1:]).replace("_", " ")


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Show what a submission would do."""
    if as_json:
        print_json(plan)
        return
    rows = [
        ("Backend", plan.backend),
        ("Command", shlex.join(plan.command)),
        ("Files", f"{plan.files:,}, {size(plan.size)}"),
        ("Digest", f"sha256 {plan.digest}"),
        ("Data set", plan.dataset or "none"),
    ]
    for label, value in plan.details.items():
        lines = [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
        rows.append((_label(label), "\n".join(lines)))
    facts(rows)
    for text in plan.warnings:
        warn(text)
