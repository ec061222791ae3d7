"""Configuration: a flag, else TRAINER_*, else ``[tool.trainer]``, else the user's file, else the default.

The names are those of the flags: ``--vm-size`` is TRAINER_VM_SIZE and ``vm-size`` (or ``vm_size``) in a file.
Options of one backend may also stand in a table named after it, ``[tool.trainer.azureml]``, and then win
over the plain ones for that backend.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta, ValidationError, convert

from trainer.backend import DEFAULT_BACKEND
from trainer.errors import ConfigError
from trainer.job import DEFAULT_EXPERIMENT, DEFAULT_MODEL_NAME

if TYPE_CHECKING:
    from trainer.home import Home

Count = Annotated[int, Meta(ge=1)]
Text = Annotated[str, Meta(min_length=1)]


class Setting(NamedTuple):
    """One thing that can be configured.

    Attributes:
        type: What msgspec checks a value against.
        default: Used where nothing says otherwise; None leaves it to the script or the backend.
        about: What it is, in a few words.
        kind: ``job`` for what a run is made of, ``training`` for flags of the training script that ships with
            this package, ``backend`` for what is handed to the backend.
    """

    type: Any
    default: Any
    about: str
    kind: str = "job"


SETTINGS: dict[str, Setting] = {
    "backend": Setting(Text, DEFAULT_BACKEND, "where jobs run"),
    "script": Setting(Text, None, "the training script"),
    "source": Setting(Text, None, "the directory that travels with it"),
    "dataset": Setting(Text, "auto", "the data set"),
    "experiment": Setting(Text, DEFAULT_EXPERIMENT, "groups runs"),
    "model_name": Setting(Text, DEFAULT_MODEL_NAME, "name under which models are registered"),
    "max_minutes": Setting(Count, None, "time cap of a run"),
    "epochs": Setting(Count, None, "passes over the training set", "training"),
    "batchsize": Setting(Count, None, "images in a minibatch", "training"),
    "units": Setting(Count, None, "units in each hidden layer", "training"),
    "lr": Setting(float, None, "learning rate", "training"),
    "momentum": Setting(float, None, "momentum", "training"),
    "seed": Setting(Annotated[int, Meta(ge=0)], None, "random seed", "training"),
    "device": Setting(Text, None, "auto, cpu, cuda or cuda:N", "training"),
    "threads": Setting(Count, None, "CPU threads", "training"),
    "compute": Setting(Text, None, "name of the compute cluster", "backend"),
    "vm_size": Setting(Text, None, "VM size of its nodes", "backend"),
    "max_nodes": Setting(Count, None, "most nodes it may have", "backend"),
    "idle_minutes": Setting(Count, None, "minutes until an idle node is given back", "backend"),
    "workspace_config": Setting(Text, None, "the workspace's config.json", "backend"),
    "emulator": Setting(bool, None, "use the loopback service", "backend"),
}
# Paths in a file count from where the file lies.
_PATHS = ("script", "source", "workspace_config")
# Every way to begin the table tool.trainer: [tool.trainer], [tool] with trainer = ..., tool.trainer.x = ...
_MENTIONED = re.compile(rb"""tool["']?\s*(\.\s*["']?trainer|\]|=)""")
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class Value(NamedTuple):
    """A value and where it is from: ``flag``, ``default``, a variable's name, or a file's path."""

    value: Any
    source: str


@dataclass(frozen=True)
class Config:
    """The configuration in force for one backend.

    Attributes:
        values: Every setting, by name.
    """

    values: Mapping[str, Value]

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        """The value of a setting."""
        return self.values[name].value

    def of_kind(self, kind: str) -> dict[str, Any]:
        """The settings of a kind that have a value."""
        return {
            name: value.value
            for name, value in self.values.items()
            if SETTINGS[name].kind == kind and value.value is not None
        }

    def flags(self, kind: str) -> dict[str, Any]:
        """The settings of a kind that were given as flags."""
        given = self.of_kind(kind)
        return {name: given[name] for name in given if self.values[name].source == "flag"}


def load_config(
    home: Home, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> Config:
    """Find every setting's value.

    Args:
        home: Its project's pyproject.toml is read.
        flags: What the command line gave; None stands for not given.
        environment: By default this process's.

    Raises:
        ConfigError: A file or variable has an unknown key or a wrong type; it is named.
    """
    given = {name: Value(value, "flag") for name, value in (flags or {}).items() if value is not None}
    variables = _from_environment(os.environ if environment is None else environment)
    files = [_read(path, table) for path, table in config_files(home)]
    backend = next(
        (layer["backend"].value for layer in (given, variables, *(f.plain for f in files)) if "backend" in layer),
        DEFAULT_BACKEND,
    )
    layers = [given, variables]
    for file in files:
        layers += [file.tables.get(backend, {}), file.plain]
    values = {
        name: next((layer[name] for layer in layers if name in layer), Value(setting.default, "default"))
        for name, setting in SETTINGS.items()
    }
    return Config(values)


def config_files(home: Home) -> list[tuple[Path, tuple[str, ...]]]:
    """The files that are read if they exist, first wins, each with the table that is ours."""
    return [(home.project / "pyproject.toml", ("tool", "trainer")), (user_file(), ())]


def user_file() -> Path:
    """The user's own configuration file."""
    if sys.platform == "linux":
        # What platformdirs says there (XDG Base Directory Specification), without the time that it takes to import.
        base = os.environ.get("XDG_CONFIG_HOME", "")
        return (Path(base) if base.strip() else Path.home() / ".config") / "trainer" / "config.toml"
    import platformdirs

    return platformdirs.user_config_path("trainer") / "config.toml"


class _File(NamedTuple):
    plain: dict[str, Value]
    tables: dict[str, dict[str, Value]]


def _from_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    found = {}
    for name, setting in SETTINGS.items():
        variable = f"TRAINER_{name.upper()}"
        text = environment.get(variable, "")
        if text:
            value = _WORDS.get(text.lower(), text) if setting.type is bool else text
            found[name] = Value(_checked(value, name, variable, strict=setting.type is bool), variable)
    return found


def _read(path: Path, table: tuple[str, ...]) -> _File:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return _File({}, {})
    except OSError as error:
        raise ConfigError(f"Can't read {path}: {error.strerror}.", "Make it readable.") from error
    if table and not _MENTIONED.search(data):
        return _File({}, {})  # most projects' files are not worth the time that parsing takes
    import tomllib

    try:
        content: Any = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", "Correct it.") from error
    for name in table:
        content = content.get(name, {}) if isinstance(content, dict) else {}
    where = f"{path}, [{'.'.join(table)}]" if table else str(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is not a table.", "Write settings as key = value.")
    plain = {key: value for key, value in content.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    return _File(
        _settings(plain, path, where),
        {name: _backend_table(name, inner, path, where) for name, inner in tables.items()},
    )


def _backend_table(name: str, table: dict[str, Any], path: Path, where: str) -> dict[str, Value]:
    from trainer.backend import backend_names

    if name not in backend_names():
        raise ConfigError(
            f"{where}: there is no backend {name!r} to have a table.", f"Backends: {', '.join(backend_names())}."
        )
    inside = f"{where}, {name}"
    if "backend" in table:
        raise ConfigError(f"{inside}: the key 'backend' has no meaning here.", "Write it above the table.")
    return _settings(table, path, inside)


def _settings(table: dict[str, Any], path: Path, where: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in SETTINGS:
            raise ConfigError(f"{where}: unknown key {key!r}.", _suggestion(name))
        if name in found:
            raise ConfigError(f"{where}: {key!r} is given twice.", "Keep one of the two spellings.")
        checked = _checked(value, key, where, strict=True)
        if name in _PATHS:
            checked = str(path.parent / Path(checked).expanduser())
        found[name] = Value(checked, str(path))
    return found


def _checked(value: object, key: str, where: str, *, strict: bool) -> Any:  # noqa: ANN401
    setting = SETTINGS[key.replace("-", "_")]
    try:
        return convert(value, setting.type, strict=strict)
    except ValidationError as error:
        message = str(error).replace("`", "")
        what = where if where.startswith("TRAINER_") else f"{where}: {key}"
        raise ConfigError(f"{what} = {value!r}: {message[:1].lower()}{message[1:]}.", "Correct it.") from error


def _suggestion(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(SETTINGS), 1)
    known = ", ".join(setting.replace("_", "-") for setting in SETTINGS)
    return f"Did you mean {near[0].replace('_', '-')!r}?" if near else f"Known keys: {known}."
