"""The page and the picture of all measurements; a part that is measured again replaces its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench import report
from bench.measuring import Samples
from trainer.runtime.atomic import write_bytes

RECORD = "measurements.json"


class Section(msgspec.Struct, frozen=True):
    """A heading and what stands under it.

    Attributes:
        title: The heading.
        samples: Subject to what was measured of it; empty where ``text`` has a table of another form.
        reference: The subject that the others relate to.
        relation: What the last column says, (a subject) / (the reference).
        text: Markdown that follows the table.
        in_picture: Whether it is a panel of the picture.
    """

    title: str
    samples: Mapping[str, Samples] = {}
    reference: str = ""
    relation: str = ""
    text: str = ""
    in_picture: bool = False

    def markdown(self) -> str:
        """Return the section as Markdown, without its heading."""
        table = report.table(self.samples, self.reference, self.relation) if self.samples else ""
        return "\n\n".join(filter(None, (table, self.text)))


class Part(msgspec.Struct, frozen=True):
    """What one part of the bench has measured.

    Attributes:
        sections: In order.
        command: That measured it.
        machine: On what, in a sentence.
        load: The machine's load average before.
    """

    sections: list[Section]
    command: str
    machine: str
    load: str


def update(folder: Path, measured: Mapping[str, Part], order: Sequence[str]) -> Path:
    """Write ``measurements.json``, ``.md`` and ``.png``; parts that were not measured now stay as they were.

    Args:
        folder: Where they are, and are read from first; made if missing.
        measured: The parts measured now, by name.
        order: The names of all parts in the page's order.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    known = msgspec.json.decode(record.read_bytes(), type=dict[str, Part]) if record.exists() else {}
    parts = {name: part for name in order if (part := measured.get(name) or known.get(name))}
    write_bytes(record, msgspec.json.format(msgspec.json.encode(parts), indent=1) + b"\n")
    blocks = ["# Measurements"]
    machine = ""
    for part in parts.values():
        if part.machine != machine:
            blocks.append(part.machine)
            machine = part.machine
        blocks.extend(f"### {section.title}\n\n{section.markdown()}" for section in part.sections)
        blocks.append(f"By `{part.command}`; load average at the start {part.load}.")
    panels = {
        section.title: section.samples for part in parts.values() for section in part.sections if section.in_picture
    }
    if panels and not report.picture(panels, folder / "measurements.png"):
        blocks.append("matplotlib is not installed: there is no picture.")
    page = folder / "measurements.md"
    write_bytes(page, ("\n\n".join(blocks) + "\n").encode())
    return page
