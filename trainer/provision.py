"""Chainer, put into this environment where it is missing.

The package index has Chainer as source alone. Its ``setup.py`` imports ``pkg_resources``, which setuptools 82 removed.
An isolated build takes the newest setuptools, and what a distribution requires can't say how another one is built. So
this distribution doesn't require Chainer, and a plain installation succeeds: the first run has pip, or uv, build it
with an older setuptools. The extra ``chainer`` requires it, for those who constrain builds.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from trainer.errors import ConfigError, NoLocksError
from trainer.locks import locked
from trainer.runtime.versions import installed_version

CHAINER = "7.8.1"
"""Chainer's last release, which the compatibility layer is made for."""

# Of chainer-7.8.1.tar.gz, as the package index lists it.
_SHA256 = "179f06176f8d7a42385bc7811956db04e68213cfe30f5081491b9e2b6ff70de8"
_REQUIREMENTS = f"chainer=={CHAINER} --hash=sha256:{_SHA256}\n"
_CONSTRAINTS = "setuptools<82\n"
BY_HAND = (
    "By hand: echo 'setuptools<82' > build.txt; PIP_CONSTRAINT=build.txt PIP_BUILD_CONSTRAINT=build.txt "
    f"pip install chainer=={CHAINER}"
)


def ensure_chainer(say: Callable[[str], None]) -> None:
    """Install Chainer if it is not installed.

    Args:
        say: Told of it, in one line, before it starts.

    Raises:
        ConfigError: It can't be installed, or another release of Chainer is.
    """
    if _present():
        return
    with _one_at_a_time():
        if _present():  # whoever held the lock installed it
            return
        say(f"Chainer {CHAINER} is not installed here: building it from its source, once.")
        _install()
        importlib.invalidate_caches()
        if not _present():
            raise ConfigError(f"Chainer {CHAINER} was installed, and {sys.executable} doesn't find it.", BY_HAND)


def _present() -> bool:
    found = installed_version("chainer")
    if found is not None and not found.startswith(CHAINER):
        raise ConfigError(
            f"Chainer {found} is installed, and {CHAINER} is needed.",
            "Remove it and start again: pip uninstall chainer",
        )
    # Without metadata, a source tree on PYTHONPATH.
    return found is not None or find_spec("chainer") is not None


def _install() -> None:
    with tempfile.TemporaryDirectory(prefix="trainer-chainer-") as scratch:
        requirements, constraints = Path(scratch) / "requirements.txt", Path(scratch) / "constraints.txt"
        requirements.write_text(_REQUIREMENTS)
        constraints.write_text(_CONSTRAINTS)
        # What Chainer requires is among what this distribution requires.
        arguments = ["install", "--no-deps", "--require-hashes", "-r", str(requirements)]
        # Older releases of pip take the constraints of a build from the first variable, newer ones from the second.
        environment = {**os.environ, "PIP_CONSTRAINT": str(constraints), "PIP_BUILD_CONSTRAINT": str(constraints)}
        done = subprocess.run(
            _installer(constraints, arguments),
            env=environment,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        raise ConfigError(f"Chainer {CHAINER} can't be installed: {_reason(done.stdout)}", BY_HAND)


def _installer(constraints: Path, arguments: list[str]) -> list[str]:
    """The command line that installs into this environment."""
    if find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    uv = os.environ.get("UV") or shutil.which("uv")  # uv tells its children where it is
    if uv:
        return [uv, "pip", *arguments, "--build-constraints", str(constraints), "--python", sys.executable]
    raise ConfigError(
        f"Chainer {CHAINER} is not installed here, and there is neither pip nor uv to install it.",
        f"Install uv, or pip into this environment: {sys.executable} -m ensurepip",
    )


def _reason(output: str) -> str:
    """The installer's last line that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["the installer said nothing"]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines)[-1]


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    import platformdirs

    folder = platformdirs.user_cache_path("trainer")
    with ExitStack() as held:
        # Two installers at once do the same thing, so a cache that can't be written is no reason to fail.
        with suppress(OSError, NoLocksError):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / "chainer.lock"))
        yield
