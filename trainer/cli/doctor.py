"""What ``trainer doctor`` prints."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from trainer.console.output import BOLD, GREEN, RED, YELLOW, paint, say

if TYPE_CHECKING:
    from trainer.doctor import Report

_MARKS = {"ok": ("ok", GREEN), "note": ("note", YELLOW), "fault": ("FAULT", RED)}


def print_report(report: Report) -> None:
    """Print every finding, and under it its fix."""
    width = max(len(finding.name) for finding in report.findings)
    for area, findings in groupby(report.findings, key=lambda finding: finding.area):
        say(paint(area.capitalize(), BOLD))
        for finding in findings:
            word, colour = _MARKS[finding.state]
            say(f"  {paint(word.ljust(5), colour)}  {finding.name:{width}}  {finding.found}")
            if finding.fix:
                say(f"  {'':5}  {'':{width}}  fix: {finding.fix}")
    faults = sum(finding.state == "fault" for finding in report.findings)
    say()
    say("Training works here." if report.works else f"Training does not work here: {faults} fault(s) above.")
