"""Values that a service appends to a job's command line, as the words that this machine's trials get.

HyperDrive appends each value of a trial as two words, ``--lr`` and ``-1e-05``, and parsers take the second for another
flag. So the command line of a study's job ends with :data:`~trainer.runtime.layout.SERVICE_VALUES`, and the launcher
joins what follows: ``--lr=-1e-05``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainer.runtime.layout import SERVICE_VALUES

_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")


def joined(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the values behind the mark joined to their names; without a mark, as it is.

    Args:
        arguments: ``[..., "--trainer-service-values=units", "--units", "50.0", "--lr", "0.1"]``. The mark names the
            flags whose values are whole numbers, whatever number the service makes of them.
    """
    at = next((i for i, word in enumerate(arguments) if word.startswith(f"{SERVICE_VALUES}=")), None)
    if at is None:
        return list(arguments)
    whole = arguments[at].partition("=")[2].split(",")
    values = arguments[at + 1 :]
    found = list(arguments[:at])
    for name, value in zip(values[::2], values[1::2], strict=False):
        plain = _WHOLE.fullmatch(value) if name.lstrip("-") in whole else None
        found.append(f"{name}={plain[1] if plain else value}")
    return found + list(values[len(values) // 2 * 2 :])
