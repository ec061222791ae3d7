"""The filter and sort expressions of run queries.

The SDK writes a subset of OData: comparisons of a field with an unquoted value or null, joined by ``and`` and ``or``,
with parentheses. Anything else is refused rather than ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from azureml_emulator.errors import bad_request
from azureml_emulator.store.runs import Run

Predicate = Callable[[Run], bool]

# A tag's name may have spaces in it, and the SDK neither quotes nor escapes it. Its values are in quotes, or null.
_TAG_COMPARISON = re.compile(
    r"\s*((?:tags|properties|runtypev2/traits)/.+?) (eq|ne) (null|\".*?\")\s*(?=\)|$| and | or )",
    re.IGNORECASE | re.DOTALL,
)
_COMPARISON = re.compile(r"\s*(\S+) (eq|ne|ge|gt|le|lt) (.*?)\s*(?=\)|$| and | or )")
_FIELDS: dict[str, Callable[[Run], str | None]] = {
    "runid": lambda run: run.run_id,
    "parentrunid": lambda run: run.parent_run_id,
    "status": lambda run: run.status.value,
    "runtype": lambda run: run.run_type,
    "target": lambda run: run.target,
    "createdutc": lambda run: run.created_utc,
    "runtypev2/orchestrator": lambda run: run.run_type_v2.orchestrator if run.run_type_v2 else None,
}
_SORT_FIELDS: dict[str, Callable[[Run], str]] = {
    "starttimeutc": lambda run: run.start_time_utc or "",
    "endtimeutc": lambda run: run.end_time_utc or "",
    "createdutc": lambda run: run.created_utc,
    "runid": lambda run: run.run_id,
}


def run_filter(expression: str | None) -> Predicate:
    """Compile a filter expression to a predicate.

    Raises:
        ServiceError: 400, the expression is outside the subset.
    """
    if not expression:
        return lambda _run: True
    parser = _Parser(expression)
    predicate = parser.disjunction()
    if parser.rest.strip():
        raise bad_request(f"The filter {expression!r} is not emulated, from {parser.rest!r} on.")
    return predicate


def sort_runs(runs: list[Run], orders: list[str] | None) -> list[Run]:
    """Sort runs by expressions such as ``StartTimeUtc desc``.

    Raises:
        ServiceError: 400, a field that can't be sorted by.
    """
    for order in reversed(orders or []):
        field, _, direction = order.partition(" ")
        key = _SORT_FIELDS.get(field.lower())
        if key is None:
            raise bad_request(f"Sorting by {field!r} is not emulated.")
        runs = sorted(runs, key=key, reverse=direction.strip().lower() == "desc")
    return runs


class _Parser:
    def __init__(self, text: str) -> None:
        self.rest = text

    def disjunction(self) -> Predicate:
        terms = [self._conjunction()]
        while self._skip("or "):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else lambda run: any(term(run) for term in terms)

    def _conjunction(self) -> Predicate:
        terms = [self._term()]
        while self._skip("and "):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else lambda run: all(term(run) for term in terms)

    def _term(self) -> Predicate:
        if self._skip("("):
            inner = self.disjunction()
            if not self._skip(")"):
                raise bad_request(f"The filter lacks a parenthesis at {self.rest!r}.")
            return inner
        match = _TAG_COMPARISON.match(self.rest) or _COMPARISON.match(self.rest)
        if match is None:
            raise bad_request(f"The filter is not emulated, from {self.rest!r} on.")
        self.rest = self.rest[match.end() :]
        return _comparison(*match.groups())

    def _skip(self, word: str) -> bool:
        stripped = self.rest.lstrip()
        if not stripped.startswith(word):
            return False
        self.rest = stripped[len(word) :]
        return True


def _comparison(field: str, operator: str, value: str) -> Predicate:
    literal = None if value == "null" else _unquoted(value)
    if field.lower().startswith("runtypev2/traits/"):
        # The SDK asks for a trait by "ne null or eq null".
        trait = field[len("runtypev2/traits/") :]
        return lambda run: run.run_type_v2 is not None and trait in run.run_type_v2.traits
    group, _, name = field.partition("/")
    if group.lower() in ("tags", "properties") and name and operator in ("eq", "ne"):
        return _mapping_comparison(group.lower(), name, operator, literal)
    read = _FIELDS.get(field.lower())
    if read is None:
        raise bad_request(f"Filtering by {field!r} is not emulated.")
    if operator == "eq":
        return lambda run: read(run) == literal
    if operator == "ne":
        return lambda run: read(run) != literal
    if field.lower() != "createdutc" or literal is None:
        raise bad_request(f"Comparing {field!r} by {operator} is not emulated.")
    # The SDK writes a naive datetime with a space; both forms compare as text once they look alike.
    moment = literal.replace(" ", "T")
    compare: dict[str, Predicate] = {
        "ge": lambda run: run.created_utc >= moment,
        "gt": lambda run: run.created_utc > moment,
        "le": lambda run: run.created_utc <= moment,
        "lt": lambda run: run.created_utc < moment,
    }
    return compare[operator]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _mapping_comparison(mapping: str, name: str, operator: str, literal: str | None) -> Predicate:
    """Compare a tag or a property. The answer is no where there is none of that name, even with null.

    The SDK asks for the existence of a tag by "ne null or eq null".
    """
    equal = operator == "eq"

    def predicate(run: Run) -> bool:
        values = run.tags if mapping == "tags" else run.properties
        return name in values and (values[name] == literal) is equal

    return predicate
