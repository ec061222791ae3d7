"""``trainer doctor``."""

from __future__ import annotations

import sys
from itertools import groupby

from trainer.cli.parsing import Parser, add_json
from trainer.console.output import BOLD, GREEN, RED, YELLOW, inline, paint, print_json, say, width, wrapped
from trainer.doctor import Report, examine
from trainer.home import find_home

_MARKS = {"ok": ("ok", GREEN), "note": ("note", YELLOW), "fault": ("FAULT", RED)}


def add_doctor(parser: Parser) -> None:
    """Declare ``trainer doctor``."""
    parser.epilog = "The exit code is 0 if training works here, else 3."
    help_text = "Move damaged records of runs and models to damaged/ in TRAINER_HOME (.trainer/); nothing is deleted."
    parser.add_argument("--repair", action="store_true", help=help_text)
    add_json(parser)


def doctor_command(*, repair: bool, as_json: bool) -> int:
    """Examine this machine."""
    report = examine(find_home(), repair=repair)
    if as_json:
        print_json(report)
    else:
        print_report(report)
    return 0 if report.works else 3


def print_report(report: Report) -> None:
    """Print every finding, and under it its fix."""
    longest = max(len(finding.name) for finding in report.findings)
    indent = 2 + 5 + 2 + longest + 2

    def show(word: str, name: str, text: str) -> None:
        say(wrapped(f"  {word}  {name:{longest}}  {inline(text)}", width(sys.stdout), indent))

    for area, findings in groupby(report.findings, key=lambda finding: finding.area):
        say(paint(area.capitalize(), BOLD))
        for finding in findings:
            word, colour = _MARKS[finding.state]
            show(paint(word.ljust(5), colour), finding.name, finding.found)
            if finding.fix:
                show(" " * 5, "", f"fix: {finding.fix}")
    faults = sum(finding.state == "fault" for finding in report.findings)
    say()
    many = "fault" if faults == 1 else "faults"
    say("Training works here." if report.works else f"Training does not work here: {faults} {many} above.")
