"""What people say of a run after the fact: a name, a note, tags. The run's own record stays as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from trainer import recordfile
from trainer.errors import ConfigError, DamagedRecordError, UsageError
from trainer.runfolder import USER_FILE, RunFolder
from trainer.runids import RUN_ID
from trainer.runtime.atomic import write_bytes
from trainer.runtime.layout import LABELS_FILE

LONGEST = 1000


class UserLabels(msgspec.Struct, frozen=True, kw_only=True):
    """What people have added to a run, stored as ``user.json`` in its folder.

    Attributes:
        name: What it is called besides its id, or None.
        note: Any text, or None.
        tags: Tags set later; None takes away one that the run was started with.
    """

    name: str | None = None
    note: str | None = None
    tags: dict[str, str | None] = {}


class ScriptLabels(msgspec.Struct, frozen=True, kw_only=True):
    """What the script itself has tagged its run with, ``labels.json``."""

    tags: dict[str, str | None] = {}
    properties: dict[str, str] = {}


_USER = msgspec.json.Decoder(UserLabels)
_SCRIPT = msgspec.json.Decoder(ScriptLabels)


def user_labels(path: Path) -> UserLabels:
    """Return what people have added to the run in the folder ``path``; nothing if its file is missing or damaged."""
    return _decoded(path / USER_FILE, _USER) or UserLabels()


def all_tags(path: Path, given: Mapping[str, str], user: UserLabels | None = None) -> dict[str, str]:
    """Return a run's tags: those it was started with, its script's, and the user's, the later ones counting.

    Args:
        path: The run's folder.
        given: The job's.
        user: What :func:`user_labels` gives, if it is known already.
    """
    script = _decoded(path / LABELS_FILE, _SCRIPT) or ScriptLabels()
    merged = {**given, **script.tags, **(user_labels(path) if user is None else user).tags}
    return {name: value for name, value in merged.items() if value is not None}


def change_labels(folder: RunFolder, **fields: Any) -> UserLabels:
    """Set ``name``, ``note`` or ``tags`` of a run; tags are merged into those that are there.

    Raises:
        UsageError: A text is too long, or the name looks like a run's id.
        ConfigError: The folder can't be written.
    """
    name = fields.get("name")
    if name is not None and (not name.strip() or RUN_ID.fullmatch(name) or name == "latest"):
        raise UsageError(f"{name!r} can't name a run.", "Choose a name that is no run's id.")
    if any(len(text) > LONGEST for text in _texts(fields)):
        raise UsageError(f"A name, note or tag has more than {LONGEST:,} characters.", "Say it in fewer.")
    with folder.locked("user"):
        old = user_labels(folder.path)
        if "tags" in fields:
            fields["tags"] = {**old.tags, **fields["tags"]}
        new = msgspec.structs.replace(old, **fields)
        try:
            write_bytes(folder.path / USER_FILE, msgspec.json.format(msgspec.json.encode(new), indent=2) + b"\n")
        except OSError as error:
            raise ConfigError(
                f"Can't write {folder.path / USER_FILE}: {error.strerror}.", "Make it writable."
            ) from error
    return new


def _texts(fields: Mapping[str, Any]) -> list[str]:
    tags = fields.get("tags", {})
    return [text for text in (fields.get("name"), fields.get("note"), *tags, *tags.values()) if text is not None]


def _decoded(path: Path, decoder: msgspec.json.Decoder[Any]) -> Any:  # noqa: ANN401
    try:
        return recordfile.read(path, decoder)
    except (OSError, DamagedRecordError):
        return None
