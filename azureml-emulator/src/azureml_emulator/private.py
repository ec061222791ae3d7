"""Files and directories that are for their owner only.

Whoever can read the state directory can sign tokens, and whoever can write to it can have code run: so every directory
in it has mode 0700 and every file 0600, whatever the umask, and a directory that is not so already is refused.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from azureml_emulator.errors import EmulatorError

UMASK = 0o077
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
_OTHERS = 0o077
_WRITABLE_BY_OTHERS = 0o022


def write_atomically(path: Path, data: bytes | str, mode: int = FILE_MODE) -> None:
    """Replace ``path`` with ``data`` so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data.encode() if isinstance(data, str) else data
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def make_directory(path: Path) -> None:
    """Make a private directory, or see that the one that is there is private.

    Raises:
        EmulatorError: It belongs to someone else, others can get into it, or it can't be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=DIRECTORY_MODE)
    except FileExistsError:
        check_directory(path)
    except OSError as error:
        raise EmulatorError(f"{path} can't be made: {error.strerror}.", "Use another state directory.") from error
    else:
        # A umask may have taken some of the owner's own bits.
        path.chmod(DIRECTORY_MODE)


def check_directory(path: Path) -> None:
    """See that an existing directory is its owner's, and that this is its owner's process.

    Raises:
        FileNotFoundError: There is none.
        EmulatorError: It is not.
    """
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmulatorError(f"{path} is no directory.", "Use another state directory.")
    if found.st_uid != os.geteuid():
        raise EmulatorError(
            f"{path} belongs to another user (id {found.st_uid}), who could have code run as you.",
            "Use a state directory of your own.",
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & _WRITABLE_BY_OTHERS:
        raise EmulatorError(
            f"Others may write to {path} (mode {mode:04o}), and so have code run as you.",
            "Use a state directory that is not there yet: it is made private.",
        )
    if mode & _OTHERS:
        raise EmulatorError(
            f"{path} is open to others (mode {mode:04o}), who could read the key that signs tokens.",
            f"Make it private with: chmod 700 {shlex.quote(str(path))}. "
            "A state directory that is not there yet is made so.",
        )


def make_file(path: Path) -> None:
    """Make an empty private file, or make the one that is there private.

    Raises:
        EmulatorError: It is a link, or belongs to someone else.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
    _check_file(path)
    path.chmod(FILE_MODE)


def read_file(path: Path) -> bytes:
    """Read a private file.

    Raises:
        FileNotFoundError: There is none.
        EmulatorError: It is a link, belongs to someone else, or others can read or write it.
    """
    found = _check_file(path)
    if found.st_mode & _OTHERS:
        raise EmulatorError(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}).",
            "Remove it; the emulator makes a new one.",
        )
    return path.read_bytes()


def _check_file(path: Path) -> os.stat_result:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise EmulatorError(f"{path} is not a file of yours.", "Use another state directory.")
    return found


def tighten(path: Path) -> None:
    """Take every right of others from a file or directory, if it is there and one's own."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        if found.st_mode & _OTHERS and not stat.S_ISLNK(found.st_mode):
            path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)


def tighten_all(root: Path) -> None:
    """Do so with everything below ``root``: clients write files there with a umask of their own."""
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            tighten(Path(folder, name))


@contextlib.contextmanager
def umask() -> Iterator[None]:
    """Make what this process and its children write private, for the length of a block."""
    before = os.umask(UMASK)
    try:
        yield
    finally:
        os.umask(before)
