"""What every test stands on: an environment of its own, and data small enough to train on in a moment."""

import contextlib
import os
import signal
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import settings

from trainer.home import Home

pytest.register_assert_rewrite("tests.contract")

# A deadline for each example asserts on time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_OURS = ("TRAINER_", "AZUREML_")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Start one worker more than there are cores: there is always a test that waits for a service, a job or a page."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return 1 + (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: one that begins last would be waited for by all the other workers."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the user's settings, fills the user's cache or takes both of a small machine's cores."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OURS)]:
            patch.delenv(name)
        # As users have it: what is imported leaves its bytecode beside it.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.setenv(name, "1")
        # A shell's background job ignores it, and so would every process that a test interrupts.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    # ``--emulator`` starts one for a project, and it stays: here the projects are over.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "azureml_emulator" in words and any(str(tmp_path_factory.getbasetemp()) in word for word in words):
                process.kill()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home in a project of its own."""
    return Home(tmp_path / "project" / ".trainer", tmp_path / "project")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of four IDX files: 512 training and 128 test images of ten learnable classes."""
    directory = tmp_path_factory.mktemp("data") / "tiny"
    directory.mkdir()
    write_idx_set(directory, train=512, test=128)
    return directory


def write_idx_set(directory: Path, *, train: int, test: int, seed: int = 0) -> None:
    """Write the four files of a data set whose classes are ten fixed patterns under noise."""
    random = np.random.default_rng(seed)
    patterns = random.integers(0, 160, size=(10, 28, 28))
    for prefix, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        images = patterns[labels] + random.integers(0, 96, size=(count, 28, 28))
        header = struct.pack(">iiii", 0x803, count, 28, 28)
        (directory / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.astype(np.uint8).tobytes())
        header = struct.pack(">ii", 0x801, count)
        (directory / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.astype(np.uint8).tobytes())
