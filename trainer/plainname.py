"""Names that every registry takes, made of the names that people give to their files."""

from __future__ import annotations

import re
import unicodedata


def plain_name(text: str, *, marks: str = "_-", longest: int = 200) -> str:
    """Return ``text`` in ASCII letters and digits; empty if nothing of it can be written so.

    Letters with accents lose them (``Größe`` is ``Grosse``); a hyphen stands for everything else.

    Args:
        text: The name of a file, a folder or a script.
        marks: What else than letters and digits may stay, but for the ends.
        longest: Characters that are kept.
    """
    # Compatibility decomposition (Unicode Standard Annex 15), which has nothing for these.
    text = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    text = "".join(character for character in text if not unicodedata.combining(character))
    return re.sub(rf"[^A-Za-z0-9{re.escape(marks)}]+", "-", text).strip(marks)[:longest]


_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
)
