"""Configuration: a flag, else a variable, else ``[tool.trainer]``, else the user's file, else the default.

The names are those of the flags: ``--model-name`` is TRAINER_MODEL_NAME, and ``model-name`` or ``model_name`` in a
file.
An option of a backend may also be set for that backend alone, by TRAINER_AZUREML_VM_SIZE or in a table named after
it, ``[tool.trainer.azureml]``; that wins over the plain form of the same place.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from trainer.backend import DEFAULT_BACKEND, backend_names, backend_options, bundled_names
from trainer.errors import ConfigError, TrainerError, UsageError, must_be
from trainer.home import user_home
from trainer.job import DEFAULT_EXPERIMENT, DEFAULT_MODEL_NAME
from trainer.options import Option
from trainer.runtime.flags import TRAINING, Flag
from trainer.runtime.layout import COLLECT_DEFAULT, COLLECT_EXPECTED, COLLECT_FORM, KERNELS, KERNELS_EXPECTED

if TYPE_CHECKING:
    from trainer.home import Home

_Count = Annotated[int, Meta(ge=1)]
_Text = Annotated[str, Meta(min_length=1)]

# What a run is made of, whatever its script and its backend.
JOB: tuple[Option, ...] = (
    Option("backend", _Text, DEFAULT_BACKEND, "Where jobs run."),
    Option("script", Path, None, "The training script."),
    Option("source", Path, None, "The directory that travels with it."),
    Option("network", _Text, None, "FILE.py:NAME of the network that the included script trains."),
    Option("dataset", _Text, "auto", "The data set."),
    Option("experiment", _Text, None, "Groups runs.", default_text=f"`{DEFAULT_EXPERIMENT}`, or the name of `script`"),
    Option(
        "model_name",
        _Text,
        None,
        "The name under which models are registered.",
        default_text=f"`{DEFAULT_MODEL_NAME}`, or the name of `script`",
    ),
    Option("max_minutes", _Count, None, "The time cap of a run, in minutes."),
    Option(
        "max_restarts",
        Annotated[int, Meta(ge=0, le=1000)],
        None,
        "How many times a run that loses its node or is killed is started again.",
        default_text="0; 3 on low-priority nodes",
    ),
    Option("checkpoints", _Text, None, "Pattern of the outputs that it then continues from, for a script of your own."),
    Option("nodes", _Count, 1, "The nodes that a run has."),
    Option("processes_per_node", _Count, 1, "The ranks, processes that MPI starts, of each node."),
    Option(
        "collect",
        Annotated[str, Meta(pattern=COLLECT_FORM, title=COLLECT_EXPECTED)],
        None,
        "How much of what a script writes outside `outputs/` a run keeps.",
        default_text=f"`{COLLECT_DEFAULT}`",
    ),
    Option(
        "kernels",
        Annotated[str, Meta(pattern=f"^({'|'.join(KERNELS)})$", title=KERNELS_EXPECTED)],
        None,
        "Whose CPU kernels do convolution, pooling and batch normalization.",
        default_text="`off`: Chainer's",
    ),
)
# With the flags of the training script that ships with this package. None of them has a default here: the script's
# own is in force, and a script of the user's own is not given them.
SETTINGS: dict[str, Option | Flag] = {o.name: o for o in JOB} | {flag.name: flag for flag in TRAINING}
# Tables of commands, beside those of the backends; each command reads its own with command_table.
COMMAND_TABLES = ("tune",)
# Every way to begin the table tool.trainer: [tool.trainer], [tool] with trainer = ..., tool.trainer.x = ...
_MENTIONED = re.compile(rb"""tool["']?\s*(\.\s*["']?trainer|\]|=)""")


class Value(NamedTuple):
    """A value and where it is from: ``flag``, ``default``, a variable's name, or a file's path."""

    value: Any
    source: str


@dataclass(frozen=True)
class Config:
    """The configuration in force for one backend.

    Attributes:
        values: Every setting and every option of the backend, by name.
        backend_options: The backend's own options.
    """

    values: Mapping[str, Value]
    backend_options: tuple[Option, ...] = ()

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        """The value of a setting."""
        return self.values[name].value

    def training(self, *, flags_only: bool = False) -> dict[str, Any]:
        """The training flags that have a value.

        Args:
            flags_only: Only those that the command line gave.
        """
        return self._set((flag.name for flag in TRAINING), flags_only=flags_only)

    def is_flag(self, name: str) -> bool:
        """Whether the command line gave a setting."""
        return self.values[name].source == "flag"

    def options(self) -> dict[str, Any]:
        """The backend's options that have been set."""
        return {
            name: value
            for name, value in self._set(option.name for option in self.backend_options).items()
            if self.values[name].source != "default"
        }

    def registry_flags(self) -> list[str]:
        """The words with which another command finds this backend's model registry again: the flags given for it."""
        words = []
        for option in self.backend_options:
            value, source = self.values[option.name]
            if option.for_registry and source == "flag" and value is not False:
                words += [option.flag, *([] if option.is_switch else [str(value)])]
        return words

    def _set(self, names: Iterable[str], *, flags_only: bool = False) -> dict[str, Any]:
        found = {name: self.values[name] for name in names}
        return {
            name: value
            for name, (value, source) in found.items()
            if value is not None and (source == "flag" or not flags_only)
        }


def load_config(
    home: Home, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> Config:
    """Find the value of every setting, and of every option of the backend that is in force.

    Args:
        home: Its project's pyproject.toml is read.
        flags: What the command line gave, as text or as a value of the setting's type; None stands for not given.
        environment: By default this process's.

    Raises:
        ConfigError: A file or variable has an unknown key or an unusable value; it is named.
        UsageError: A flag has an unusable value or is not the backend's, or there is no such backend.
    """
    variables = os.environ if environment is None else environment
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    files = [_read(path, table) for path, table in config_files(home)]
    backend_from = _backend(given, variables, files)
    backend = backend_from.value
    options = {option.name: option for option in _options_of(backend_from)}
    known = SETTINGS | options
    layers = [_from_flags(given, known, backend), _from_environment(variables, known, options, backend)]
    for file in files:
        layers += file.layers(known, backend)
    for option in options.values():
        if option.excludes:
            _choose(option.name, option.excludes, layers)
    values = {
        name: next((layer[name] for layer in layers if name in layer), Value(_default(setting), "default"))
        for name, setting in known.items()
    }
    return Config(values, tuple(options.values()))


def command_table(home: Home, name: str) -> tuple[dict[str, Any], str]:
    """Return a command's own table, ``[tool.trainer.NAME]``, of the first file that has one, unchecked.

    Args:
        home: Its project's pyproject.toml is read.
        name: One of :data:`COMMAND_TABLES`.

    Returns:
        The table, empty where there is none, and where it stands, for messages.

    Raises:
        ConfigError: A file can't be read, or what has the name is no table.
    """
    for file in (_read(path, table) for path, table in config_files(home)):
        if name in file.commands:
            where = f"{file.path}, [{'.'.join((*dict(config_files(home))[file.path], name))}]"
            if not isinstance(file.commands[name], dict):
                raise ConfigError(f"{where} is not a table.", "Write settings as key = value.")
            return dict(file.commands[name]), where
    return {}, ""


def config_files(home: Home) -> list[tuple[Path, tuple[str, ...]]]:
    """The files that are read if they exist, first wins, each with the table that is ours."""
    own = user_file()
    return [(home.project / "pyproject.toml", ("tool", "trainer")), *([(own, ())] if own else [])]


def user_file() -> Path | None:
    """The user's own configuration file; None for a user without a home directory to have it in."""
    if sys.platform == "linux":
        # What platformdirs says there (XDG Base Directory Specification), without the time that it takes to import.
        base = os.environ.get("XDG_CONFIG_HOME", "")
        folder = Path(base) if base.strip() else (directory / ".config" if (directory := user_home()) else None)
        return folder / "trainer" / "config.toml" if folder else None
    import platformdirs

    return platformdirs.user_config_path("trainer") / "config.toml"


def _choose(one: str, other: str, layers: list[dict[str, Value]]) -> None:
    """Of two options that exclude each other, take that out which is said further from the command line."""
    for number, layer in enumerate(layers):
        said = [name for name in (one, other) if name in layer and layer[name].value not in (None, False)]
        if len(said) > 1:
            sources = dict.fromkeys(layer[name].source for name in said)
            if "flag" in sources:
                message = f"{_as_flag(one)} and {_as_flag(other)} exclude each other."
                raise UsageError(message, "Leave one of them out.")
            raise ConfigError(
                f"{', '.join(sources)}: {one} and {other} exclude each other.", "Keep one of the two, or give its flag."
            )
        if said:
            for lower in layers[number + 1 :]:
                lower.pop(other if said == [one] else one, None)
            return


def _as_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _default(setting: Option | Flag) -> Any:  # noqa: ANN401
    return None if isinstance(setting, Flag) else setting.default


def _backend(given: Mapping[str, Any], variables: Mapping[str, str], files: Iterable[_File]) -> Value:
    """The name of the backend in force, looked for where every setting is."""
    if "backend" in given:
        return Value(given["backend"], "flag")
    if variables.get("TRAINER_BACKEND"):
        return Value(variables["TRAINER_BACKEND"], "TRAINER_BACKEND")
    for file in files:
        if "backend" in file.plain:
            return file.value("backend", file.plain["backend"], SETTINGS["backend"], file.where)
    return Value(DEFAULT_BACKEND, "default")


def _options_of(backend: Value) -> tuple[Option, ...]:
    try:
        return backend_options(backend.value)
    except UsageError as error:
        if backend.source == "flag":
            raise
        raise ConfigError(f"{backend.source}: {error.message}", error.hint) from error


def _from_flags(given: Mapping[str, Any], known: Mapping[str, Option | Flag], backend: str) -> dict[str, Value]:
    found = {}
    for name, value in given.items():
        if name not in known:
            raise _not_an_option_of(backend, name)
        setting = known[name]
        try:
            checked = setting.parse(value) if isinstance(value, str) else setting.check(value)
        except ValueError:
            raise UsageError(must_be(f"--{name.replace('_', '-')}", setting.expected, value), "Give another.") from None
        found[name] = Value(checked, "flag")
    return found


def _not_an_option_of(backend: str, name: str) -> UsageError:
    flag = f"--{name.replace('_', '-')}"
    having = [other for other in backend_names() if name in _option_names(other)]
    hint = f"Leave it out, or use --backend {' or '.join(having)}." if having else "Leave it out."
    return UsageError(f"The {backend} backend has no option {flag}.", hint)


def _option_names(backend: str) -> set[str]:
    try:
        return {option.name for option in backend_options(backend)}
    except TrainerError:  # another backend that is broken is no reason to fail
        return set()


def _from_environment(
    variables: Mapping[str, str], known: Mapping[str, Option | Flag], options: Mapping[str, Option], backend: str
) -> dict[str, Value]:
    found = {}
    own = f"TRAINER_{backend.upper().replace('-', '_')}_"
    for name, setting in known.items():
        names = [f"{own}{name.upper()}"] if name in options else []
        for variable in (*names, f"TRAINER_{name.upper()}"):
            text = variables.get(variable, "")
            if text:
                try:
                    found[name] = Value(setting.parse(text), variable)
                except ValueError:
                    raise ConfigError(must_be(variable, setting.expected, text), "Change it, or unset it.") from None
                break
    return found


class _File(NamedTuple):
    """What a file holds: settings for every backend, and tables for one each."""

    path: Path
    where: str
    plain: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]]
    commands: Mapping[str, Any] = {}  # a named tuple's default, never changed

    def layers(self, known: Mapping[str, Option | Flag], backend: str) -> list[dict[str, Value]]:
        """What holds for a backend, its own table first."""
        for name in self.tables:
            if name not in bundled_names() and name not in backend_names():
                raise ConfigError(
                    f"{self.where}: there is no backend {name!r} to have a table.",
                    f"Backends: {', '.join(backend_names())}.",
                )
        inside = f"{self.where}, {backend}"
        table = self.tables.get(backend, {})
        if "backend" in table:
            raise ConfigError(f"{inside}: the key 'backend' has no meaning here.", "Write it above the table.")
        return [self._values(table, known, inside), self._values(self.plain, known, self.where, of_others=True)]

    def _values(
        self, table: Mapping[str, Any], known: Mapping[str, Option | Flag], where: str, *, of_others: bool = False
    ) -> dict[str, Value]:
        found: dict[str, Value] = {}
        seen: set[str] = set()
        for key, value in table.items():
            name = key.replace("-", "_")
            if name in seen:
                raise ConfigError(f"{where}: {key!r} is given twice.", "Keep one of the two spellings.")
            seen.add(name)
            if name in known:
                found[name] = self.value(key, value, known[name], where)
            elif not (of_others and any(name in _option_names(other) for other in backend_names())):
                raise ConfigError(f"{where}: unknown key {key!r}.", _suggestion(name, known))
        return found

    def value(self, key: str, value: object, setting: Option | Flag, where: str) -> Value:
        """A key's value, checked; a path counts from where the file lies."""
        try:
            checked = setting.check(value)
        except ValueError:
            message = must_be(f"{where}: {key}", setting.expected, value)
            raise ConfigError(message, f"Edit {self.path}.") from None
        if isinstance(setting, Option) and setting.is_path:
            checked = self.path.parent / checked
        return Value(checked, str(self.path))


def _read(path: Path, table: tuple[str, ...]) -> _File:
    where = f"{path}, [{'.'.join(table)}]" if table else str(path)
    nothing = _File(path, where, {}, {})
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return nothing
    except OSError as error:
        raise ConfigError(f"Can't read {path}: {error.strerror}.", "Make it readable.") from error
    if table and not _MENTIONED.search(data):
        return nothing  # most projects' files are not worth the time that parsing takes
    import tomllib

    try:
        content: Any = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", f"Edit {path}.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} can't be read: it is nested too deeply.", f"Edit {path}.") from error
    for name in table:
        content = content.get(name, {}) if isinstance(content, dict) else {}
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is not a table.", "Write settings as key = value.")
    plain = {key: value for key, value in content.items() if not isinstance(value, dict) and key not in COMMAND_TABLES}
    tables = {key: value for key, value in content.items() if isinstance(value, dict) and key not in COMMAND_TABLES}
    return _File(path, where, plain, tables, {key: content[key] for key in COMMAND_TABLES if key in content})


def _suggestion(name: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(known), 1)
    listed = ", ".join(setting.replace("_", "-") for setting in known)
    return f"Did you mean {near[0].replace('_', '-')!r}?" if near else f"Known keys: {listed}."
