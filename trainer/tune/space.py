"""The search space: which flags a study sets, and how a value of each is drawn.

Every kind maps a number u, uniform on (0, 1), to a value, by the inverse of its distribution function. What draws the
numbers (:mod:`trainer.tune.sampling`) knows nothing of the kinds. Names and meanings are those of HyperDrive's
parameter expressions (azureml.train.hyperdrive.parameter_expressions); docs/tuning.md has the formulas side by side.

As text, ``NAME=`` and one of

    128,256                       choice
    choice:relu,tanh              the same, where a value would be read as a kind
    uniform:0..1                  u on [0, 1)
    log:1e-4..0.1                 exp of a uniform value between the logarithms
    int:50..400:50                whole numbers from 50 to 400 in steps of 50
    quniform:0..1:0.1             round(uniform / 0.1) * 0.1
    qlog:1..1000:10               round(log / 10) * 10
    normal:0,1                    mean 0, standard deviation 1
    lognormal:0,1                 exp(normal)
    qnormal:0,1:0.5               round(normal / 0.5) * 0.5
    qlognormal:0,1:0.5            round(lognormal / 0.5) * 0.5
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Any

import msgspec

from trainer.errors import UsageError

Value = str | int | float
Space = tuple["Parameter", ...]

# What the scripts' own parsers can be given; no "=" and no space, which would change what `--name=value` means.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_RANGE = ("uniform", "log", "int", "quniform", "qlog")
_NORMAL = ("normal", "lognormal", "qnormal", "qlognormal")
_QUANTISED = ("quniform", "qlog", "qnormal", "qlognormal")
KINDS = ("choice", *_RANGE, *_NORMAL)
_FORMS = {
    "choice": "choice:A,B,C",
    **{kind: f"{kind}:LOW..HIGH" for kind in ("uniform", "log")},
    "int": "int:LOW..HIGH or int:LOW..HIGH:STEP",
    **{kind: f"{kind}:LOW..HIGH:STEP" for kind in ("quniform", "qlog")},
    **{kind: f"{kind}:MEAN,DEVIATION" for kind in ("normal", "lognormal")},
    **{kind: f"{kind}:MEAN,DEVIATION:STEP" for kind in ("qnormal", "qlognormal")},
}
_MOST_POINTS = 1_000_000
_WHOLE = 2**53  # above it a float's neighbours are more than one apart


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One flag of the script, and the distribution that its values are drawn from.

    Attributes:
        name: The flag without its dashes.
        kind: One of :data:`KINDS`.
        values: Of ``choice``, the values.
        low: Least value of a range; of the normal kinds the mean, before ``exp``.
        high: Greatest value of a range; of the normal kinds the standard deviation, before ``exp``.
        step: Of ``int`` and the quantised kinds, what values are multiples of (``int``: counted from ``low``).
    """

    name: str
    kind: str
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float = 1.0

    def at(self, u: float) -> Value:
        """Return the value at ``u``, the inverse of the distribution function.

        Args:
            u: In [0, 1); for the normal kinds above 0.
        """
        if self.kind == "choice":
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        if self.kind == "int":
            count = len(self.grid() or ())
            return int(self.low) + int(self.step) * min(int(u * count), count - 1)
        return self.of_plain(self._plain(u))

    def of_plain(self, value: float) -> Value:
        """Quantise a value, if the kind is a quantised one."""
        if self.kind not in _QUANTISED:
            return value
        multiple = round(value / self.step)
        if self.step.is_integer():
            return multiple * int(self.step)
        # Not multiple * step, which is 0.30000000000000004: the nearest number with the step's own digits.
        return round(multiple * self.step, _digits(self.step))

    def grid(self) -> tuple[Value, ...] | None:
        """Every value, in order, of a kind that can be listed; None for the others."""
        if self.kind == "choice":
            return self.values
        if self.kind == "int":
            return tuple(range(int(self.low), int(self.high) + 1, int(self.step)))
        return None

    def describe(self) -> str:
        """Return it as ``--space`` takes it."""
        low, high, step = (plain(value) for value in (self.low, self.high, self.step))
        if self.kind == "choice":
            return f"{self.name}=choice:{','.join(map(plain, self.values))}"
        between = f"{low},{high}" if self.kind in _NORMAL else f"{low}..{high}"
        stepped = self.kind in _QUANTISED or (self.kind == "int" and self.step != 1)
        return f"{self.name}={self.kind}:{between}{f':{step}' if stepped else ''}"

    def _plain(self, u: float) -> float:
        if self.kind in ("uniform", "quniform"):
            return self.low + (self.high - self.low) * u
        if self.kind in ("log", "qlog"):
            low, high = math.log(self.low), math.log(self.high)
            return min(max(math.exp(low + (high - low) * u), self.low), self.high)
        drawn = NormalDist(self.low, self.high).inv_cdf(u)
        return math.exp(drawn) if self.kind in ("lognormal", "qlognormal") else drawn


def plain(value: Value) -> str:
    """Return a value as it stands on the script's command line: every digit of a number, no more."""
    return value if isinstance(value, str) else repr(int(value)) if _is_whole(value) else repr(value)


def arguments(values: Mapping[str, Value]) -> tuple[str, ...]:
    """Return values as words of a command line.

    As ``--name=value``: of two words, argparse takes a second like ``-1e-05`` for another flag.
    """
    return tuple(f"--{name}={value if isinstance(value, str) else repr(value)}" for name, value in values.items())


def parse(text: str) -> Parameter:
    """Read one ``--space``.

    Raises:
        UsageError: It is none, or an empty range, a logarithm of zero, and the like.
    """
    name, equals, rest = text.partition("=")
    if not equals or not rest.strip():
        raise UsageError(f"--space {text!r} is not NAME=VALUES.", "For example: --space lr=log:1e-3..0.3")
    kind, colon, body = rest.strip().partition(":")
    if not colon or kind not in KINDS:
        if colon and re.fullmatch(r"[a-z]+", kind) and ".." in body:
            raise UsageError(f"--space {text!r}: there is no kind {kind!r}.", f"Kinds: {', '.join(KINDS)}.")
        if ".." in rest and "," not in rest:
            raise UsageError(
                f"--space {text!r} names no kind.",
                f"Write {name}=uniform:{rest}, {name}=log:{rest} or {name}=int:{rest}.",
            )
        kind, body = "choice", rest.strip()
    if kind == "choice":
        words = [word.strip() for word in body.split(",")]
        return parameter(name, {"choice": [_read(word) for word in words]})
    numbers, _, step = body.partition(":")
    parts = numbers.split(",") if kind in _NORMAL else numbers.split("..")
    table: dict[str, Any] = {kind: [_number(part, name, kind) for part in parts]}
    if step:
        table["step"] = _number(step, name, kind)
    return parameter(name, table)


def parameter(name: str, given: object) -> Parameter:
    """Make a parameter of what a table holds for it.

    Args:
        name: The flag; leading dashes are dropped.
        given: A list of choices; a text as :func:`parse` takes it after ``=``; or a table of one kind and perhaps
            ``step``, such as ``{"int": [50, 400], "step": 50}``.

    Raises:
        UsageError: It can't be drawn from.
    """
    name = name.strip().lstrip("-")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:60]!r} can't name a flag.", "Use letters, digits, '_', '-' and '.'.")
    if isinstance(given, str):
        return parse(f"{name}={given}")
    if isinstance(given, list):
        given = {"choice": given}
    if (
        not isinstance(given, dict)
        or len(kinds := [key for key in given if key != "step"]) != 1
        or kinds[0] not in KINDS
    ):
        raise UsageError(
            f"The space of {name} is not a list of values, or a table of one kind.", f"Kinds: {', '.join(KINDS)}."
        )
    kind, body = kinds[0], given[kinds[0]]
    if not isinstance(body, list):
        raise UsageError(f"{name}: {kind} needs a list.", f"Write it as {_FORMS[kind]}.")
    if kind == "choice":
        return _choice(name, body, given)
    return _drawn(name, kind, body, given.get("step"))


def read_space(parameters: Iterable[Parameter]) -> Space:
    """Put parameters together.

    Raises:
        UsageError: There is none, or two have one name.
    """
    space = tuple(parameters)
    names = [each.name for each in space]
    if not names:
        raise UsageError(
            "There is nothing to tune.", "Give --space at least once, for example: --space lr=log:1e-3..0.3"
        )
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--space {name} is given twice.", "Keep one of the two.")
    return space


def read_point(text: str, space: Space) -> dict[str, Value]:
    """Read one ``--try``: ``lr=0.1,batchsize=128``.

    Raises:
        UsageError: It doesn't give every parameter a value that its distribution can take.
    """
    given: dict[str, Value] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = name.strip().lstrip("-")
        if not equals or not value.strip():
            raise UsageError(f"--try {text!r} is not NAME=VALUE,NAME=VALUE.", "For example: --try lr=0.1,batchsize=128")
        given[name] = _read(value.strip())
    known = {each.name: each for each in space}
    for name in given:
        if name not in known:
            raise UsageError(f"--try {text!r}: {name!r} is not in the space.", f"It has: {', '.join(known)}.")
    for name, each in known.items():
        if name not in given:
            raise UsageError(f"--try {text!r} gives no {name}.", "Give every parameter of the space a value.")
        given[name] = _member(each, given[name], text)
    return {name: given[name] for name in known}


def _member(each: Parameter, value: Value, text: str) -> Value:
    """The value as the parameter itself would draw it."""
    listed = each.grid()
    if listed is not None:
        for candidate in listed:
            if candidate == value or plain(candidate) == plain(value):
                return candidate
        raise UsageError(f"--try {text!r}: {each.name} can't be {value}.", f"The space has {each.describe()}.")
    if isinstance(value, str):
        raise UsageError(f"--try {text!r}: {each.name} must be a number.", f"The space has {each.describe()}.")
    if each.kind in _RANGE and each.kind not in _QUANTISED and not each.low <= value <= each.high:
        raise UsageError(f"--try {text!r}: {each.name} can't be {value}.", f"The space has {each.describe()}.")
    return value if each.kind in _QUANTISED else float(value)


def _choice(name: str, body: list[Any], given: dict[str, Any]) -> Parameter:
    if "step" in given:
        raise UsageError(f"{name}: a choice has no step.", "Leave it out.")
    if not body or any(value == "" for value in body):
        raise UsageError(f"{name}: a value of the choice is missing.", f"Write it as {name}=128,256.")
    for value in body:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"{name}: {value!r} is neither a number nor a text.", "Give plain values.")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name}: {value} is not finite.", "Give finite values.")
        if isinstance(value, str) and ("\0" in value or "\n" in value):
            raise UsageError(f"{name}: a value holds a control character.", "Leave it out.")
    if len({plain(value) for value in body}) < len(body):
        raise UsageError(f"{name}: a value is listed twice.", "Keep one of the two.")
    return Parameter(name=name, kind="choice", values=tuple(body))


def _drawn(name: str, kind: str, body: list[Any], step: object) -> Parameter:
    numbers = [*body, *([] if step is None else [step])]
    if len(body) != 2 or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise UsageError(f"{name}: {kind} takes two numbers.", f"Write it as {name}={_FORMS[kind]}.")
    if not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"{name}: a bound is not finite.", "Give finite numbers.")
    low, high, size = float(body[0]), float(body[1]), 1.0 if step is None else float(numbers[2])
    if step is None and kind in _QUANTISED:
        raise UsageError(f"{name}: {kind} needs a step.", f"Write it as {name}={_FORMS[kind]}.")
    if step is not None and kind not in ("int", *_QUANTISED):
        raise UsageError(f"{name}: {kind} has no step.", f"Write it as {name}={_FORMS[kind]}.")
    if size <= 0:
        raise UsageError(f"{name}: the step is {plain(size)}.", "Give a step above 0.")
    if kind in _NORMAL:
        if high <= 0:
            raise UsageError(f"{name}: the standard deviation is {plain(high)}.", "Give one above 0.")
    elif low >= high:
        raise UsageError(f"{name}: the range {plain(low)}..{plain(high)} is empty.", "Give a lower and a higher bound.")
    if kind in ("log", "qlog") and low <= 0:
        raise UsageError(f"{name}: the logarithm of {plain(low)} doesn't exist.", "Give a lower bound above 0.")
    if kind == "int":
        if not all(number.is_integer() and abs(number) < _WHOLE for number in (low, high, size)):
            raise UsageError(f"{name}: int takes whole numbers.", f"Write it as {name}={_FORMS[kind]}.")
        if (high - low) // size >= _MOST_POINTS:
            raise UsageError(f"{name}: int has more than {_MOST_POINTS:,} values.", "Give a larger step.")
    if kind in ("lognormal", "qlognormal") and low + 40 * high > 700:  # exp(710) is no float
        raise UsageError(f"{name}: exp of that distribution is too large for a number.", "Give smaller ones.")
    return Parameter(name=name, kind=kind, low=low, high=high, step=size)


def _read(word: str) -> Value:
    """A word of a command line as a number, if it is one as a person writes it."""
    if re.fullmatch(r"[+-]?[0-9]+", word) and abs(int(word)) < _WHOLE and str(int(word)) == word:
        return int(word)
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", word) and not re.fullmatch(r"0[0-9]+", word):
        value = float(word)
        return value if math.isfinite(value) else word
    return word


def _number(word: str, name: str, kind: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise UsageError(f"{name}: {word.strip()!r} is not a number.", f"Write it as {name}={_FORMS[kind]}.") from None
    return int(value) if math.isfinite(value) and value.is_integer() and abs(value) < _WHOLE else value


def _is_whole(value: float) -> bool:
    return isinstance(value, int) or (value.is_integer() and abs(value) < 1e15)


def _digits(step: float) -> int:
    """How many digits after the point a step has."""
    _, _, exponent = f"{step:.17e}".partition("e")
    text = repr(step)
    mantissa = text.partition("e")[0].partition(".")[2]
    return max(0, len(mantissa.rstrip("0")) - (int(exponent) if "e" in text else 0))
