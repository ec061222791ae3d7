"""The runtime's error, and how a training script shows it.

The runtime travels to machines where the rest of ``trainer`` is absent, so it cannot use
``trainer.errors``; the core turns a :class:`RuntimeFault` into its own error tree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class RuntimeFault(Exception):  # noqa: N818  # a fault of the surroundings, not of the program
    """Something the user can put right.

    Attributes:
        message: What happened, one line.
        hint: What to do about it, one line; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[RuntimeFault], tuple[str, str]]:
        # The default would drop the hint, and worker processes hand exceptions over as pickles.
        return type(self), (self.message, self.hint)


def main(function: Callable[[], object]) -> None:
    """Call ``function``, a script's own ``main``; show what the user can put right in place of a traceback.

    A :class:`RuntimeFault` or an ``OSError`` (a full disk, a folder that can't be written) becomes a line or
    two on stderr and exit status 3. Everything else is a mistake in the script, and stays an exception.
    """
    try:
        function()
    except RuntimeFault as fault:
        message, hint = fault.message, fault.hint
    except OSError as error:
        message, hint = str(error), "free some space, or choose another folder for the output"
    else:
        return
    sys.stderr.write(f"error: {message}\n" + (f"hint: {hint}\n" if hint else ""))
    sys.exit(3)
