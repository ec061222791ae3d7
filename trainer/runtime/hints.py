"""What to do about errors that today's NumPy raises where that of Chainer's time did not."""

from __future__ import annotations

import re

_HOW = "pip install 'numpy<2', on Python 3.11 or 3.12; trainer docs compat says more"
_HINTS = (
    (
        # The message of NumPy 2.4, and those of the years before.
        r"TypeError: only (?:0-dimensional|length-1|size-1) arrays can be converted to Python scalars",
        f"NumPy 2.4 and newer need a.item() or a[0] in the place of int(a) and float(a); for a library: {_HOW}.",
    ),
    (
        r"AttributeError: (?:module 'numpy' has no attribute|`np\.\w+` was removed)",
        f"A library uses a name that NumPy has removed. It needs an older NumPy: {_HOW}.",
    ),
)


def hint_on(error: str) -> str | None:
    """Return a sentence on what to do, or None.

    Args:
        error: The last line of a traceback, ``TypeError: text``.
    """
    return next((hint for pattern, hint in _HINTS if re.match(pattern, error)), None)
