"""Measurements as Markdown tables, and one picture of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.measuring import Samples

_OURS = ("this program", "trainer run --backend local", "through the launcher")


def table(samples: Mapping[str, Samples], reference: str, relation: str) -> str:
    """A Markdown table, one row a subject.

    Args:
        samples: What was measured.
        reference: The subject that the last column relates to.
        relation: Heading of that column, which has (this row) / (the reference).
    """
    has_peak = any(each.peak for each in samples.values())
    head = ["", "median s", "least", "most", "CPU s", *(["peak MiB"] if has_peak else []), relation]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    base = samples[reference]
    for name, each in samples.items():
        cells = [
            name,
            f"{each.median:.3g}",
            f"{each.least:.3g}",
            f"{max(each.wall):.3g}",
            f"{each.cpu_median:.3g}",
            *([f"{max(each.peak):.0f}"] if has_peak else []),
            f"{each.median / base.median:.2f} (CPU {each.cpu_median / base.cpu_median:.2f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(panels: Mapping[str, Mapping[str, Samples]], path: Path) -> bool:
    """Bars of the medians with whiskers from least to most.

    Args:
        panels: Title to samples.
        path: The PNG to write.

    Returns:
        False if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(panels), 1, figsize=(8, 0.8 + sum(0.9 + 0.32 * len(p) for p in panels.values())))
    for axis, (title, samples) in zip([axes] if len(panels) == 1 else axes, panels.items(), strict=True):
        names = list(samples)
        medians = [samples[name].median for name in names]
        spread = [
            [samples[name].median - samples[name].least for name in names],
            [max(samples[name].wall) - samples[name].median for name in names],
        ]
        colors = ["#b04a2f" if name.startswith(_OURS) else "#8fa3b0" for name in names]
        axis.barh(names, medians, xerr=spread, color=colors, error_kw={"ecolor": "#444444", "capsize": 2})
        axis.invert_yaxis()
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("seconds", fontsize=9)
        axis.tick_params(labelsize=9)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return True
