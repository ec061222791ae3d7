"""Download a run's outputs, each by itself: a name that can't be asked for or kept costs that one file."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from backends.azure.errors import first_line, is_transient, retry, status_of
from trainer.runtime.layout import ENVIRONMENT_FILE, MODEL_FILE, OUTPUTS_DIR, RENAMED_OUTPUTS

if TYPE_CHECKING:
    from backends.azure.sdk import FollowedRun
    from trainer.runfolder import RunFolder

_OUTPUTS = f"{OUTPUTS_DIR}/"
# What a path may hold beside letters, digits and "_.-~" (RFC 3986, section 3.3).
_AS_THEY_ARE = "/!$&'()*+,;=:@"
# A file system's answers to a name that it can't give a file; any other error is about more than the name.
_UNUSABLE_NAME = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ}
_LONGEST_ENVIRONMENT = 1 << 20


class _UnusableError(Exception):
    """One output can't be brought here; its text says why."""


def download_outputs(run: FollowedRun, folder: RunFolder) -> list[str]:
    """Download ``outputs/``; the folder's is either the empty one it began with or complete.

    Returns:
        What could not be brought, and what the node had to rename, one sentence for each.

    Raises:
        OSError: The disk is full, or the folder can't be written.
        Exception: The service doesn't answer, or refuses the model's file.
    """
    names = sorted({name for name in retry(lambda: list(run.get_file_names())) if name.startswith(_OUTPUTS)})
    warnings = []
    temporary = Path(tempfile.mkdtemp(prefix=".outputs.", dir=folder.path))
    try:
        for name in names:
            try:
                _download(run, name, temporary)
            except _UnusableError as reason:
                warnings.append(f"The output {name[:200]!r} could not be brought here: {reason}")
        warnings += [f"The output {old} was renamed to {new}: {why}." for old, new, why in _renamed(temporary)]
        temporary.chmod(0o755)
        if any(folder.outputs.iterdir()):
            shutil.rmtree(folder.outputs)
        temporary.replace(folder.outputs)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return warnings


def _download(run: FollowedRun, name: str, root: Path) -> None:
    """Download one output into its place below ``root``.

    Raises:
        _UnusableError: This one can't be had, whatever is tried.
    """
    target = root.joinpath(*_checked_parts(name.removeprefix(_OUTPUTS)))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.open("xb").close()
    except ValueError as error:  # a lone surrogate
        raise _UnusableError("it is not a file's name here.") from error
    except OSError as error:
        if error.errno not in _UNUSABLE_NAME:
            raise
        raise _UnusableError(f"{os.strerror(error.errno)}.") from error
    # The SDK puts the name into a URL as it is, and the service takes what follows # or ? for something else.
    asked = quote(os.fsencode(name), safe=_AS_THEY_ARE)
    try:
        retry(lambda: run.download_file(asked, str(target)))
    except Exception as error:
        target.unlink(missing_ok=True)
        refused = not is_transient(error) and status_of(error) in (400, 404, 405, 409, 410, 414, 422)
        if not refused or name == _OUTPUTS + MODEL_FILE:
            raise
        raise _UnusableError(f"Azure ML does not give it ({first_line(error)})") from error


def _checked_parts(name: str) -> tuple[str, ...]:
    """Split the path of a file below the outputs; refuse one that could lead out of them.

    Raises:
        _UnusableError: It could.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise _UnusableError("it leads out of the outputs.")
    return parts


def _renamed(outputs: Path) -> list[tuple[str, str, str]]:
    """What ``trainer.runtime.output_names`` has written down on the node: old name, new name, reason."""
    try:
        with (outputs / ENVIRONMENT_FILE).open("rb") as stream:
            facts = msgspec.json.decode(stream.read(_LONGEST_ENVIRONMENT), type=dict[str, msgspec.Raw])
        return msgspec.json.decode(facts[RENAMED_OUTPUTS], type=list[tuple[str, str, str]])
    except (OSError, KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
