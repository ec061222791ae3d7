"""The runtime's error.

The runtime travels to machines where the rest of ``trainer`` is absent, so it cannot use
``trainer.errors``; the core turns a :class:`RuntimeFault` into its own error tree.
"""

from __future__ import annotations


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
