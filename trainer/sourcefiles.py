"""Which files of a directory travel with a script: ``.amlignore``, else ``.gitignore``, and a few never.

The rules are Azure ML's (an ``.amlignore`` replaces the ``.gitignore`` files, it doesn't add to them)
and git's (a ``.gitignore`` in a subdirectory counts there, the deepest one wins, and nothing is
brought back from inside an ignored directory).
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import UsageError
from trainer.runtime.layout import OUTPUTS_DIR

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec, Pattern

AMLIGNORE = ".amlignore"
GITIGNORE = ".gitignore"
# Version control, environments and caches: never part of a job, whatever the ignore file says.
_NEVER = (
    *(".git", ".hg", ".svn", ".venv", "__pycache__", ".trainer", "*.py[co]", ".ipynb_checkpoints", ".DS_Store"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".tox", ".nox", "node_modules", "*.egg-info"),
    *(AMLIGNORE, GITIGNORE),
)
# An earlier run's outputs would be collected as this run's own.
_NEVER_AT_THE_TOP = (OUTPUTS_DIR,)
_SECRETS = (".env", ".netrc", ".pypirc")
_MANY_FILES = 20_000
_KINDS_NAMED = 4


@dataclass(frozen=True)
class SourceFiles:
    """What a directory contributes to a snapshot.

    Attributes:
        files: Path inside the snapshot, with forward slashes, to the file it is read from.
        ignore_file: Name of the ignore file in force at the top, or None.
        notes: What was left behind, one line for all that an ignore file names and one for each other thing.
    """

    files: dict[str, Path]
    ignore_file: str | None
    notes: tuple[str, ...] = ()


def source_files(top: Path, exclude: Iterable[Path] = ()) -> SourceFiles:
    """Choose the files below ``top`` that travel.

    A symbolic link to something below ``top`` travels as what it points to; one that leads outside,
    nowhere or back to its own parent stays behind with a note, and so do sockets, pipes and devices.

    Args:
        top: The directory.
        exclude: Directories that never travel.

    Raises:
        UsageError: It is no readable directory, holds more than 20,000 files to send, or a file name
            that can't be sent.
    """
    if not top.is_dir():
        raise UsageError(f"{top} is not a directory.", "Give --source a directory that holds the script.")
    ignore_name = AMLIGNORE if (top / AMLIGNORE).is_file() else GITIGNORE
    walk = _Walk(top.resolve(), ignore_name, frozenset(path.resolve() for path in exclude))
    walk.directory(walk.top, "", [], frozenset())
    ignore_file = walk.ignore_name if (top / walk.ignore_name).is_file() else None
    return SourceFiles(dict(sorted(walk.files.items())), ignore_file, (*walk.ignored.note(ignore_name), *walk.notes))


@dataclass
class _Ignored:
    """What ignore files keep back, by directory and by ending."""

    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)
    seen: int = 0

    def add(self, name: str, path: Path, is_directory: bool) -> None:
        kind = f"{name}/" if is_directory else f"*{path.suffix}" if path.suffix else name
        count, size = self.kinds.get(kind, (0, 0))
        for file in _files_below(path) if is_directory else (path,):
            self.seen += 1
            if self.seen > _MANY_FILES:
                break
            with suppress(OSError):
                size += file.lstat().st_size
                count += 1
        self.kinds[kind] = (count, size)

    def note(self, ignore_name: str) -> tuple[str, ...]:
        kinds = sorted((item for item in self.kinds.items() if item[1][0]), key=lambda item: -item[1][1])
        if not kinds:
            return ()
        at_least = "at least " if self.seen > _MANY_FILES else ""
        some = ", ".join(
            f"{name} ({at_least}{count:,} file{'s' * (count != 1)}, {size / 1e6:,.1f} MB)"
            for name, (count, size) in kinds[:_KINDS_NAMED]
        )
        more = ", ..." if len(kinds) > _KINDS_NAMED else ""
        other = f" To choose otherwise, add a {AMLIGNORE}, which replaces it." if ignore_name != AMLIGNORE else ""
        return (f"{ignore_name} keeps back {some}{more}.{other}",)


def _files_below(folder: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(folder):
        for name in names:
            yield Path(directory, name)


def _own_output() -> frozenset[tuple[int, int]]:
    """The files that this process prints to: ``trainer run 2> err.log``. They change while they are copied."""
    found = set()
    for descriptor in (1, 2):
        with suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                found.add((status.st_dev, status.st_ino))
    return frozenset(found)


@dataclass
class _Walk:
    top: Path
    ignore_name: str
    exclude: frozenset[Path]
    ignored: _Ignored = field(default_factory=_Ignored)
    own_output: frozenset[tuple[int, int]] = field(default_factory=_own_output)
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def directory(
        self, folder: Path, prefix: str, rules: list[tuple[str, GitIgnoreSpec]], above: frozenset[Path]
    ) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(prefix or str(folder), error) from error
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            return  # a virtual environment under another name than .venv
        if folder.resolve() in self.exclude:
            return
        rules = [*rules, *self._rules_here(folder, prefix)]
        above = above | {folder.resolve()}
        for entry in entries:
            self._entry(entry, prefix, rules, above)

    def _rules_here(self, folder: Path, prefix: str) -> list[tuple[str, GitIgnoreSpec]]:
        path = folder / self.ignore_name
        # Azure ML reads one .amlignore, at the top.
        if (prefix and self.ignore_name == AMLIGNORE) or not path.is_file():
            return []
        from pathspec import GitIgnoreSpec

        try:
            return [(prefix, GitIgnoreSpec.from_lines(path.read_text("utf-8", "surrogateescape").splitlines()))]
        except OSError as error:
            raise _unreadable(prefix + self.ignore_name, error) from error
        except ValueError as error:
            raise UsageError(f"{path} has a pattern that can't be read: {error}.", "Correct that line.") from error

    def _entry(
        self, entry: os.DirEntry[str], prefix: str, rules: list[tuple[str, GitIgnoreSpec]], above: frozenset[Path]
    ) -> None:
        name = prefix + entry.name
        if _never(entry.name) or (not prefix and entry.name in _NEVER_AT_THE_TOP):
            return
        try:
            is_directory = entry.is_dir()
        except OSError:  # a link to itself
            is_directory = False
        if _ignored(name, is_directory, rules):
            path = Path(entry.path)
            if not (is_directory and ((path / "pyvenv.cfg").is_file() or path.resolve() in self.exclude)):
                self.ignored.add(name, path, is_directory)
            return
        if entry.name in _SECRETS or entry.name.startswith(".env."):
            self.notes.append(f"{name} stays behind: such files hold secrets.")
            return
        path = Path(entry.path)
        if entry.is_symlink():
            problem = self._link_problem(path, above)
            if problem:
                self.notes.append(f"{name} stays behind: {problem}")
                return
        if is_directory:
            self.directory(path, name + "/", rules, above)
        elif stat.S_ISREG((status := path.stat()).st_mode):
            if (status.st_dev, status.st_ino) not in self.own_output:
                self._add(name, path)
        else:
            self.notes.append(f"{name} stays behind: it is neither a file nor a directory.")

    def _link_problem(self, path: Path, above: frozenset[Path]) -> str | None:
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
            return "it is a link that leads nowhere."
        if target in above:
            return "it is a link to a directory that it lies in."
        if not target.is_relative_to(self.top):
            return f"it is a link to {target}, outside {self.top}."
        return None

    def _add(self, name: str, path: Path) -> None:
        check_name(name)
        self.files[name] = path
        if len(self.files) > _MANY_FILES:
            raise UsageError(
                f"{self.top} holds more than {_MANY_FILES:,} files to send with the script.",
                f"List what the script doesn't need in {self.top / AMLIGNORE}, or give --source a smaller directory.",
            )


def check_name(name: str) -> None:
    """Refuse a path that can't name a file in a snapshot on every backend.

    Raises:
        UsageError: It holds a control character, a backslash or bytes that are not UTF-8.
    """
    unsendable = "\\" in name or any(ord(letter) < 0x20 or 0xD800 <= ord(letter) < 0xE000 for letter in name)
    if unsendable:
        raise UsageError(
            f"The file name {name!a} can't be sent.", "Rename it without control characters or backslashes."
        )


def _never(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _NEVER)


def _ignored(name: str, is_directory: bool, rules: list[tuple[str, GitIgnoreSpec]]) -> bool:
    """Whether the last pattern of the deepest ignore file that matches this very entry ignores it."""
    for prefix, spec in reversed(rules):
        path = name.removeprefix(prefix)
        for pattern in reversed(list(spec.patterns)):
            if pattern.include is not None and _matches(pattern, path, is_directory):
                return pattern.include
    return False


def _matches(pattern: Pattern, path: str, is_directory: bool) -> bool:
    # pathspec lets a pattern match whatever lies below what it matches, which is wrong for a negated one. Its group
    # ps_d is the slash after what matched itself: none, or the one put after a directory.
    found = pattern.match_file(path)
    if found is not None and found.match.groupdict().get("ps_d") is None:
        return True
    found = pattern.match_file(path + "/") if is_directory else None
    return found is not None and "ps_d" in found.match.groupdict() and found.match.start("ps_d") == len(path)


def _unreadable(name: str, error: OSError) -> UsageError:
    return UsageError(
        f"Can't read {name}: {error.strerror}.",
        "Make it readable, or list it in .amlignore if the script doesn't need it.",
    )
