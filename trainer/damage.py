"""What is damaged on the disk, and setting it aside: moved to ``damaged/<time>/``, never deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer import recordfile
from trainer.errors import TrainerError
from trainer.failures import reason
from trainer.home import Home


@dataclass(frozen=True)
class Damage:
    """Something that is not what trainer wrote.

    Attributes:
        name: Whose: a run's id, or ``name:version``.
        found: What is wrong, in a sentence.
        repair: Sets it aside and returns what was done, in a sentence; None while a process may still mend it.
    """

    name: str
    found: str
    repair: Callable[[], str] | None

    def set_aside(self) -> str:
        """Set it aside, and say what was done or why it could not be."""
        if self.repair is None:
            return "Left as it is: the run goes on. Look again when it has ended."
        try:
            return self.repair()
        except (OSError, TrainerError) as error:
            return f"It could not be set aside: {reason(error)}"


def moved(home: Home, path: Path) -> str:
    """Set something aside, and say so."""
    target = recordfile.set_aside(home.path, path)
    return f"Moved to {target}." if target else "It is gone."
