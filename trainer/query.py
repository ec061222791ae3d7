"""Choosing among runs: conditions, order and columns, by the names that people type."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from trainer.errors import UsageError
from trainer.history import RunRow, differing, main_metrics, smaller_is_better

Value = str | float | None

# How many a message lists.
_MOST_NAMES = 40
_BEST, _LAST, _PARAMETER, _TAG = "best:", "last:", "param:", "tag:"
_FIELDS: dict[str, Callable[[RunRow], Value]] = {
    "run": lambda row: row.info.run_id,
    "name": lambda row: row.name,
    # A trial that a policy of its study has stopped is Canceled; told apart from one that a user has.
    "status": lambda row: "Stopped" if row.info.stopped else str(row.info.status),
    "backend": lambda row: row.info.backend,
    "experiment": lambda row: row.info.experiment,
    "script": lambda row: row.script,
    "dataset": lambda row: row.info.dataset,
    "model": lambda row: f"{row.info.model.name}:{row.info.model.version}" if row.info.model else None,
    "created": lambda row: row.info.created,
    "started": lambda row: row.info.started,
    "ended": lambda row: row.info.ended,
    "took": lambda row: row.info.ended - (row.info.started or row.info.created) if row.info.ended else None,
    "failure": lambda row: row.info.failure.message if row.info.failure else None,
    "tags": lambda row: " ".join(f"{name}={value}" for name, value in row.tags.items()) or None,
    "note": lambda row: row.note,
    "resumed": lambda row: row.info.resumed_from,
}
FIELDS = tuple(_FIELDS)
"""The names of a run's own facts; metrics, parameters and tags have names of their own."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*(?P<name>[^<>=!~]+?)\s*(?P<operator>>=|<=|!=|==|=|>|<|~)\s*(?P<value>.*?)\s*")


class Column:
    """A value of every run, by a name that somebody typed.

    Fields of a run come first, then metrics (``accuracy`` is its last value, ``best:accuracy`` its best), then
    parameters, then tags. Case does not count. ``last:``, ``param:`` and ``tag:`` choose where a name is several.

    Attributes:
        name: What it is called in JSON and as a heading.
        better: How the better of two values is told: ``smaller``, ``larger``, or an empty text.
        is_number: Whether it is a measurement.
        is_parameter: Whether it is an option of the script's command line.

    Args:
        typed: The name.
        rows: The runs that it is to be found in.

    Raises:
        UsageError: No run has anything of this name.
    """

    def __init__(self, typed: str, rows: Sequence[RunRow]) -> None:
        word = typed.strip().lstrip("-")
        self.name, self.better, self.is_number, self.is_parameter = word, "", False, False
        self._read: Callable[[RunRow], Value]
        prefix = next((p for p in (_BEST, _LAST, _PARAMETER, _TAG) if word.lower().startswith(p)), "")
        bare = word[len(prefix) :].strip()
        if not prefix and bare.lower().replace(" ", "").replace("_", "") in _FIELDS:
            self.name = bare.lower().replace(" ", "").replace("_", "")
            self._read = _FIELDS[self.name]
            self.is_number = self.name in ("created", "started", "ended", "took")
            return
        if prefix in ("", _BEST, _LAST) and (metric := _known(bare, (row.metrics for row in rows))):
            self.name = f"{_BEST}{metric}" if prefix == _BEST else metric
            self.better, self.is_number = "smaller" if smaller_is_better(metric) else "larger", True
            self._read = lambda row: _metric(row, metric, best=prefix == _BEST)
            return
        if prefix in ("", _PARAMETER) and (option := _known(bare, (row.parameters for row in rows))):
            self.name, self.is_parameter = option, True
            self._read = lambda row: row.parameters.get(option)
            return
        if prefix in ("", _TAG) and (tag := _known(bare, (row.tags for row in rows))):
            self.name = tag
            self._read = lambda row: row.tags.get(tag)
            return
        names = _names(rows)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        raise UsageError(f"No run has a {word!r}.", f"There are: {', '.join(names[:_MOST_NAMES])}{more}.")

    def value(self, row: RunRow) -> Value:
        """Return the value of one run; None where it has none."""
        return self._read(row)


def where(rows: Sequence[RunRow], conditions: Iterable[str]) -> list[RunRow]:
    """Return the rows that fulfil every condition.

    Args:
        rows: The runs.
        conditions: Each ``NAME OPERATOR VALUE``, such as ``accuracy>0.9``, ``status=Failed`` or ``note~warm``;
            ``and`` joins several in one text. ``~`` is "contains". A run without a value fulfils only ``!=``.

    Raises:
        UsageError: One can't be read, or names what no run has.
    """
    kept = list(rows)
    for text in (part for condition in conditions for part in re.split(r"\s+and\s+", condition)):
        found = _CONDITION.fullmatch(text)
        if not found:
            raise UsageError(f"{text!r} is not a condition.", 'For example: --where "accuracy>0.9"')
        column, sign, wanted = Column(found["name"], rows), found["operator"], found["value"].strip("'\"")
        kept = [row for row in kept if _fulfils(column.value(row), sign, wanted)]
    return kept


def ordered_by(rows: Sequence[RunRow], name: str, *, reverse: bool = False) -> list[RunRow]:
    """Return the rows by a column: metrics with the best first, anything else rising; without a value last.

    Raises:
        UsageError: No run has anything of this name.
    """
    column = Column(name, rows)
    having = [row for row in rows if column.value(row) is not None]
    without = [row for row in rows if column.value(row) is None]
    falling = (column.better == "larger") is not reverse
    return sorted(having, key=lambda row: _key(column.value(row)), reverse=falling) + without


def default_columns(rows: Sequence[RunRow]) -> list[Column]:
    """Return what a list shows unasked: what tells these runs apart."""
    metrics = main_metrics(rows)[:2]
    names = ["run", "status", "took", *metrics]
    names += [f"{_BEST}{metric}" for metric in metrics[:1]]
    names += [f"{_PARAMETER}{name}" for name in differing(rows)]
    names += [name for name in ("name", "tags") if any(_FIELDS[name](row) for row in rows)]
    names += [name for name in ("experiment", "script") if len({_FIELDS[name](row) for row in rows}) > 1]
    names += ["model", "backend", "created", "dataset"]
    names += [name for name in ("note", "failure") if any(_FIELDS[name](row) for row in rows)]
    return [Column(name, rows) for name in names]


def chosen_columns(text: str, rows: Sequence[RunRow]) -> list[Column]:
    """Return the columns that a comma-separated list names."""
    names = [name for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("--columns names no column.", "For example: --columns run,accuracy,lr")
    return [Column(name, rows) for name in names]


def _metric(row: RunRow, name: str, *, best: bool) -> float | None:
    summary = row.metrics.get(name)
    return None if summary is None else summary.best if best else summary.last


def _known(word: str, names: Iterable[Iterable[str]]) -> str | None:
    """The name that was meant: as typed, else whatever its case, with blanks or underscores."""
    folded = None
    for group in names:
        for name in group:
            if name == word:
                return name
            if folded is None and _fold(name) == _fold(word):
                folded = name
    return folded


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _names(rows: Sequence[RunRow]) -> list[str]:
    """What a column can be called: tags, metrics and parameters first, which nobody can look up."""
    rows = list(rows)
    found = dict.fromkeys(name for row in rows for name in row.tags)
    for row in rows:
        found |= dict.fromkeys((*row.metrics, *row.parameters))
    return list(found | dict.fromkeys(FIELDS))


def _fulfils(value: Value, sign: str, wanted: str) -> bool:
    if value is None:
        return sign == "!=" and wanted != ""
    if sign == "~":
        return wanted.casefold() in str(value).casefold()
    left, right = _number(value), _number(wanted)
    if left is not None and right is not None:
        return _OPERATORS[sign](left, right)
    return _OPERATORS[sign](str(value).casefold(), wanted.casefold())


def _number(value: Value) -> float | None:
    try:
        return float(value) if value is not None else None
    except ValueError:
        return None


def _key(value: Value) -> tuple[int, float, str]:
    number = _number(value)
    return (0, number, "") if number is not None and number == number else (1, 0.0, str(value).casefold())
