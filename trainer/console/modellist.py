"""Registered models as tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from trainer.console.output import moment, number, size, table

if TYPE_CHECKING:
    from trainer.artifacts import ModelVersion


def print_models(versions: list[ModelVersion]) -> None:
    """One line a model: its newest version.

    Args:
        versions: By name, then rising version.
    """
    counts = Counter(version.name for version in versions)
    newest = {version.name: version for version in versions}
    rows = (
        (
            name,
            str(version.version),
            str(counts[name]),
            _accuracy(version),
            version.dataset or "",
            moment(version.created),
        )
        for name, version in newest.items()
    )
    head = ("MODEL", "LATEST", "VERSIONS", "ACCURACY", "DATA SET", "CREATED")
    table(head, rows, right=("LATEST", "VERSIONS", "ACCURACY"))


def print_versions(versions: list[ModelVersion]) -> None:
    """One line a version, newest first."""
    rows = (
        (
            version.reference,
            _accuracy(version),
            version.dataset or "",
            size(version.size),
            version.sha256[:16],
            version.run_id,
            moment(version.created),
            " ".join(f"{name}={value}" for name, value in version.tags.items()),
        )
        for version in reversed(versions)
    )
    head = ("MODEL", "ACCURACY", "DATA SET", "SIZE", "SHA256", "RUN", "CREATED", "TAGS")
    table(head, rows, right=("ACCURACY", "SIZE"))


def _accuracy(version: ModelVersion) -> str:
    return number(version.metrics.get("Accuracy"))
