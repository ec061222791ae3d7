"""Every error that trainer raises on purpose.

    TrainerError                 message, hint, exit_code
    ├── RunFailedError      1    the job ran and failed, or its result can't be trusted
    │   └── IntegrityError  1    bytes that differ from their recorded SHA-256, or a hostile file
    ├── UsageError          2    the command's own words are off
    ├── ConfigError         3    configuration is missing or wrong
    │   ├── MissingExtraError    an optional dependency is not installed
    │   ├── DamagedRecordError   a file that trainer keeps is not what it wrote
    │   ├── NoLocksError         a file system without locks
    │   └── SignInError          the backend's sign-in failed
    ├── RefusedError        4    the backend refused: quota, VM size, limits
    ├── NotFoundError       5    no such run, model, version or file
    └── InterruptedRunError 130  Ctrl-C

``message`` is one line that says what happened, ``hint`` one line that says what to do. Secrets that another's words
bring along are taken out here: see :mod:`trainer.redaction`.
"""

from __future__ import annotations

from pathlib import Path

from trainer.redaction import redact

DISTRIBUTION = "chainer-trainer"
"""What the package index calls this program; another project there has the name ``trainer``."""


def must_be(what: str, expected: str, value: object) -> str:
    """The message about a value that can't be used.

    Args:
        what: The flag, variable or key.
        expected: What it takes, such as ``a whole number of at least 1``.
        value: What was given.
    """
    return f"{what} must be {expected}, not {str(value) if isinstance(value, int | float) else repr(value)}."


class TrainerError(Exception):
    """Base of the tree.

    Args:
        message: What happened, in one line.
        hint: What to do about it, in one line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = redact(message), redact(hint)
        super().__init__(self.message)


class RunFailedError(TrainerError):
    """The job ran and failed."""

    exit_code = 1


class IntegrityError(RunFailedError):
    """A file is not what it claims to be."""


class UsageError(TrainerError):
    """A flag, name or argument is unusable."""

    exit_code = 2


class ConfigError(TrainerError):
    """Configuration or environment is missing or wrong."""

    exit_code = 3


class MissingExtraError(ConfigError):
    """An optional dependency is not installed.

    Args:
        what: What was wanted, for example ``"The azureml backend"``.
        extra: The extra of this package that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra '{extra}', which is not installed.",
            f"In a clone: uv sync --extra {extra}    With pip: {_pip_install(extra)}",
        )


def _pip_install(extra: str) -> str:
    """The pip command that brings an extra's packages, whether or not a package index knows this one."""
    import re
    from importlib.metadata import PackageNotFoundError, requires

    if extra == "emulator":  # a distribution of its own, in the same repository
        return "pip install ./azureml-emulator"
    try:
        marked = [line.partition(";") for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:  # a checkout on the path, never installed
        return f"pip install -e '.[{extra}]'"
    wanted = [name.strip() for name, _, marker in marked if re.search(rf"extra == ['\"]{extra}['\"]", marker)]
    return " ".join(["pip install", *(f"'{name}'" for name in wanted)])


class DamagedRecordError(ConfigError):
    """A file that trainer keeps can't be read, or is not what it wrote.

    Args:
        path: The file.
        why: What is wrong with it, without a full stop.
        hint: What else to do about it.
    """

    def __init__(self, path: str | Path, why: str, hint: str = "") -> None:
        remedy = "Restore it from a copy, or have it set aside: trainer doctor --repair"
        super().__init__(f"{path} is damaged: {why}.", remedy + hint)
        self.path = Path(path)
        self.why = why


class NoLocksError(ConfigError):
    """The file system has no locks, so nothing can tell whether a run's processes are alive.

    Args:
        path: What should be locked.
        why: The system's own words.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"The file system of {path.parent} has no locks ({why}).",
            "Keep runs and models on another one: set TRAINER_HOME to a directory on a local disk.",
        )
        self.why = why


class SignInError(ConfigError):
    """The backend did not accept who we are."""


class RefusedError(TrainerError):
    """The backend refused the job before running it."""

    exit_code = 4


class NotFoundError(TrainerError):
    """No such run, model, version or file."""

    exit_code = 5


class InterruptedRunError(TrainerError):
    """Ctrl-C ended the command."""

    exit_code = 130
