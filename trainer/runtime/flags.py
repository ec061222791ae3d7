"""The training flags: name, type, range, default and help of each, once.

The command line of ``trainer run``, the configuration, the request and the parser of
``chainer_mnist.py`` are made from this table, so a value is accepted or refused by all of them alike.
"""

from __future__ import annotations

import argparse
import math
import re
from typing import Any, NamedTuple


class Flag(NamedTuple):
    """A training flag.

    Attributes:
        name: As typed after two dashes; also the key in the configuration and the request.
        type: ``int``, ``float`` or ``str``.
        default: Its value where it isn't given.
        help: What it is, beginning in lower case, without the default and a full stop.
        short: The one-letter form, with its dash; empty for none.
        metavar: Stands for the value in help.
        default_text: How help names the default; empty for the value itself.
        minimum: Least value.
        maximum: Greatest value.
        above: Every value is greater than this.
        below: Every value is less than this.
        pattern: Regular expression that a text matches as a whole.
        forms: What ``pattern`` allows, in words.
    """

    name: str
    type: type[int | float | str]
    default: int | float | str | None
    help: str
    short: str = ""
    metavar: str = "N"
    default_text: str = ""
    minimum: int | float | None = None
    maximum: int | float | None = None
    above: int | float | None = None
    below: int | float | None = None
    pattern: str = ""
    forms: str = ""

    @property
    def expected(self) -> str:
        """What a value must be, in words: "a whole number of at least 1"."""
        if self.pattern:
            return self.forms
        words = ["a whole number" if self.type is int else "a finite number"]
        if self.above is not None:
            words.append(f"above {self.above}")
        elif self.minimum is not None:
            bounded = self.maximum is not None or self.below is not None
            words.append(f"from {self.minimum}" if bounded else f"of at least {self.minimum}")
        if self.maximum is not None:
            words.append(f"to {self.maximum}")
        if self.below is not None:
            words.append(f"to below {self.below}")
        return " ".join(words)

    def check(self, value: Any) -> Any:  # noqa: ANN401  # anything in; an int, a float or a str out
        """Return ``value`` as the flag's type.

        Raises:
            ValueError: It has another type or is out of range; the message begins with the value
                and goes on with what is expected.
        """
        if not self._fits(value):
            shown = repr(value) if isinstance(value, str) else value
            raise ValueError(f"{shown} is not {self.expected}")
        return value if self.type is str else self.type(value)

    def parse(self, text: str) -> Any:  # noqa: ANN401  # an int, a float or a str
        """Return the value that ``text``, a word of a command line or a variable, stands for.

        Raises:
            ValueError: As :meth:`check` does.
        """
        try:
            value = self.type(text)
        except ValueError:
            value = text
        return self.check(value)

    def _fits(self, value: Any) -> bool:  # noqa: ANN401  # anything that a file or a caller holds
        if self.type is str:
            return isinstance(value, str) and re.fullmatch(self.pattern or ".*", value) is not None
        # True is an int to Python, and a whole number is a float to everyone.
        if isinstance(value, bool) or not isinstance(value, (int, float) if self.type is float else int):
            return False
        return (
            not (self.type is float and not _is_finite(value))
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


TRAINING = (
    Flag("epochs", int, 10, "passes over the training set", "-e", minimum=1),
    Flag("batchsize", int, 128, "examples in a minibatch", "-b", minimum=1),
    Flag("units", int, 100, "units in each hidden layer", minimum=1),
    Flag("lr", float, 0.01, "learning rate", metavar="X", above=0),
    Flag("momentum", float, 0.9, "momentum of MomentumSGD", metavar="X", minimum=0, below=1),
    Flag("seed", int, 0, "seed of every random number generator", minimum=0, maximum=2**32 - 1),
    Flag(
        "device",
        str,
        "auto",
        "where it runs: auto, cpu, cuda or cuda:N",
        metavar="D",
        pattern=r"auto|cpu|cuda(:[0-9]{1,3})?",
        forms="auto, cpu, cuda or cuda:N",
    ),
    Flag("threads", int, None, "BLAS threads", default_text="TRAINER_THREADS, else 1", minimum=1),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the training flags, and ``--gpu_id``, which says what ``--device`` says as a number.

    Args:
        parser: Made with ``ArgumentDefaultsHelpFormatter`` shows the defaults in its help.
    """
    for flag in TRAINING:
        names = [f"--{flag.name}", *([flag.short] if flag.short else [])]
        # With %(default) in it, the formatter adds no default of its own; ".0" prints nothing.
        shown = f" (default: {flag.default_text})%(default).0s" if flag.default_text else ""
        group = parser.add_mutually_exclusive_group() if flag.name == "device" else parser
        group.add_argument(
            *names, type=_argument(flag), default=flag.default, metavar=flag.metavar, help=flag.help + shown
        )
        if flag.name == "device":
            group.add_argument(
                "--gpu_id",
                "-g",
                dest="device",
                type=_device_of,
                default=argparse.SUPPRESS,
                metavar="N",
                help="the device as a number; -1 is cpu",
            )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int above every float
        return False


def _argument(flag: Flag) -> Any:  # noqa: ANN401  # a type in argparse's sense
    def argument(text: str) -> object:
        try:
            return flag.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


def _device_of(gpu_id: str) -> str:
    try:
        number = int(gpu_id)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{gpu_id!r} is not a whole number") from None
    return "cpu" if number < 0 else f"cuda:{number}"
