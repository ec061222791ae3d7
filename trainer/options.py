"""Options: how a backend declares what a user may set, and how text becomes a value.

A backend declares a struct, and everything that lets a user set one of its fields is made of it: the flags of
each command that takes ``--backend``, the table ``[tool.trainer.NAME]``, the variables, the lines of
``trainer config``, shell completion and the reference in the docs::

    class CloudOptions(Options):
        region: Annotated[str, option("Where jobs run.", metavar="NAME")] = "eu"
        nodes: Annotated[int, option("Number of nodes.", ge=1, le=8)] = 1

The settings that every backend has (``trainer.config``) are described by the same :class:`Option`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from trainer.errors import UsageError, must_be
from trainer.home import expanded

_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a backend's options. Every field has a default and is annotated with :func:`option`.

    A field's type is ``str``, ``int``, ``float``, ``bool``, ``pathlib.Path`` or a ``Literal`` of texts, or one of
    them or None. What a single field's type and bounds can't say is checked in ``__post_init__``,
    which raises a :class:`~trainer.errors.UsageError`.
    """


def option(
    text: str,
    *,
    metavar: str = "",
    default_text: str = "",
    for_registry: bool = False,
    for_services: bool = False,
    kept_with: str = "",
    excludes: str = "",
    complete: Callable[[], list[str]] | None = None,
    **bounds: Any,
) -> Meta:
    """Describe a field of a backend's options, inside ``Annotated``.

    Args:
        text: What it is, a sentence.
        metavar: Stands for the value in help; made from the type where it is left out.
        default_text: How help names the default, where the value itself says too little.
        for_registry: The backend's model registry needs it too, so that ``models``, ``fetch`` and the
            other commands that only ask the registry take it as well. It is kept in the record of a run,
            so it must be no secret.
        for_services: It is about deployed services: ``deploy`` takes it, and the commands that train do not.
        kept_with: Not empty: the backend keeps the value in the record of a run, in its detail under the same name, and
            what follows on the run gets it again. But for where the command line gives this field, or the one that is
            named here, which may be this one.
        excludes: The field that says the same in another way. Of the two, that counts which is said closer to the
            command line; both on one command line, or in one file, are refused.
        complete: Gives the values that a shell may offer.
        bounds: Of :class:`msgspec.Meta`: ``ge``, ``gt``, ``le``, ``lt``, ``min_length``, ``max_length``, ``pattern``.
    """
    extra = {
        **{"metavar": metavar, "default_text": default_text, "complete": complete},
        **{"for_registry": for_registry, "for_services": for_services, "kept_with": kept_with, "excludes": excludes},
    }
    return Meta(description=text, extra=extra, **bounds)


class Option(NamedTuple):
    """One thing that a user may set.

    Attributes:
        name: Its name as a Python identifier.
        type: What msgspec checks a value against.
        default: Its value where it isn't given.
        help: What it is, a sentence.
        metavar: Stands for the value in help.
        default_text: How help names the default; empty for the value itself.
        for_registry: See :func:`option`.
        for_services: See :func:`option`.
        kept_with: See :func:`option`.
        excludes: See :func:`option`.
        complete: Gives the values that a shell may offer, or None.
    """

    name: str
    type: Any
    default: Any
    help: str
    metavar: str = ""
    default_text: str = ""
    for_registry: bool = False
    for_services: bool = False
    kept_with: str = ""
    excludes: str = ""
    complete: Callable[[], list[str]] | None = None

    @property
    def flag(self) -> str:
        """As typed on a command line: ``--vm-size``."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value."""
        return _bare(self.type) is bool

    @property
    def is_path(self) -> bool:
        """Whether the value is a path, which in a file counts from where the file lies."""
        return _bare(self.type) is Path

    @property
    def choices(self) -> tuple[str, ...]:
        """Every value of a ``Literal``; empty for another type."""
        return _choices(self.type)

    @property
    def expected(self) -> str:
        """What a value must be, in words: "a whole number from 1 to 8"."""
        return _expected(self.type)

    def parse(self, text: str) -> Any:  # noqa: ANN401  # what the type says
        """Return the value that ``text``, a word of a command line or a variable, stands for.

        Raises:
            ValueError: It stands for none; the message begins with the text and goes on with what is expected.
        """
        value: object = _WORDS.get(text.lower(), text) if self.is_switch else text
        return self._convert(value, strict=self.is_switch)

    def check(self, value: object) -> Any:  # noqa: ANN401  # what the type says
        """Return ``value``, from a file or a caller, as the option's type.

        Raises:
            ValueError: As :meth:`parse` does.
        """
        return self._convert(value, strict=True)

    def _convert(self, value: object, *, strict: bool) -> Any:  # noqa: ANN401
        try:
            return msgspec.convert(value, self.type, strict=strict, dec_hook=_path)
        except msgspec.ValidationError:
            raise ValueError(f"{value!r} is not {self.expected}") from None


def declared(kind: type[Options]) -> tuple[Option, ...]:
    """The options that a struct declares, in its order.

    Raises:
        TypeError: A field has no default, no :func:`option` or a type that no text can stand for; or the struct
            itself can't be made without arguments.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    found = tuple(_declared(kind, field, hints[field.name]) for field in msgspec.structs.fields(kind))
    kind()
    return found


def read_options(kind: type[Options], given: Mapping[str, Any], whose: str) -> Options:
    """Make a backend's options from values; those that are None count as not given.

    Args:
        kind: The struct.
        given: Name to a value of the option's type, or of what a file holds for it.
        whose: The backend's name, for messages.

    Raises:
        UsageError: One is unknown or unusable.
    """
    known = {option.name: option for option in declared(kind)}
    values = {}
    for name, value in given.items():
        if name not in known:
            flag = f"--{name.replace('_', '-')}"
            have = ", ".join(option.flag for option in known.values())
            hint = f"It has: {have}." if have else "It has none; leave it out."
            raise UsageError(f"The {whose} backend has no option {flag}.", hint)
        if value is not None:
            try:
                values[name] = known[name].check(value)
            except ValueError:
                raise UsageError(must_be(known[name].flag, known[name].expected, value), "Give another.") from None
    return kind(**values)


def _declared(kind: type[Options], field: msgspec.structs.FieldInfo, hint: Any) -> Option:  # noqa: ANN401
    where = f"{kind.__module__}.{kind.__name__}.{field.name}"
    meta = next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Meta)), None)
    if meta is None or not meta.description:
        raise TypeError(f"{where} is not described: Annotated[TYPE, option('What it is.')]")
    if field.default is msgspec.NODEFAULT:
        raise TypeError(f"{where} has no default")
    if _bare(hint) not in (str, int, float, bool, Path) and not _choices(hint):
        raise TypeError(f"{where} has a type that no text can stand for")
    about: dict[str, Any] = meta.extra or {}
    choices = list(_choices(hint))
    return Option(
        field.name,
        hint,
        field.default,
        meta.description,
        metavar=about.get("metavar") or _METAVARS.get(_bare(hint), "VALUE"),
        default_text=about.get("default_text", ""),
        for_registry=about.get("for_registry", False),
        for_services=about.get("for_services", False),
        kept_with=about.get("kept_with", ""),
        excludes=about.get("excludes", ""),
        complete=about.get("complete") or ((lambda: choices) if choices else None),
    )


_METAVARS: dict[Any, str] = {int: "N", float: "X", Path: "PATH"}


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, Path):
        return value
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return expanded(Path(value))
    raise ValueError("not a path")


def _bare(hint: Any) -> Any:  # noqa: ANN401  # a type expression
    """A type without its annotations and without ``| None``."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        return _bare(inner[0]) if len(inner) == 1 else hint
    return hint


def _choices(hint: Any) -> tuple[str, ...]:  # noqa: ANN401  # a type expression
    bare = _bare(hint)
    return typing.get_args(bare) if typing.get_origin(bare) is Literal else ()


def _expected(hint: Any) -> str:  # noqa: ANN401  # a type expression
    if choices := _choices(hint):
        return "one of " + ", ".join(choices)
    for meta in getattr(hint, "__metadata__", ()):
        if meta.title:
            return str(meta.title)
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    said = words.get(_bare(hint), "usable")
    for meta in getattr(hint, "__metadata__", ()):
        low = f"above {meta.gt:,}" if meta.gt is not None else f"{meta.ge:,}" if meta.ge is not None else None
        high = f"below {meta.lt:,}" if meta.lt is not None else f"{meta.le:,}" if meta.le is not None else None
        if low is not None and high is not None:
            said += f" from {low} to {high}"
        elif low is not None:
            said += f" {low}" if meta.gt is not None else f" of at least {low}"
        elif high is not None:
            said += f" {high}" if meta.lt is not None else f" of at most {high}"
        if meta.min_length == 1:
            said += " that is not empty"
        if meta.pattern:
            said += f" of the form {meta.pattern}"
    return said
