"""The names of a data set's files. Imports no NumPy: the command line reads this module."""

from __future__ import annotations

from pathlib import Path

from trainer.runtime.faults import RuntimeFault

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""The four files of a data set, as MNIST names them; each may end in ``.gz``."""

ABOUT = "dataset.json"
"""What else is known of a data set that was made from other files: the names of its classes, how values were scaled."""

NAMES = ("auto", "mnist", "fashion-mnist", "mnist-5k")
"""What is a data set's name and never a directory's."""


def find_file(directory: Path, name: str) -> Path | None:
    """Return the file of this name, gzipped or not, or None.

    A plain file is preferred. ``train-images.idx3-ubyte`` is understood too: some archives unpack to it.
    """
    # Arrays of other dimensions than MNIST's are called after theirs.
    names = [name.replace("-idx3-", f"-idx{count}-") for count in (3, 4, 2, 5)] if "-idx3-" in name else [name]
    stems = [stem for name in names for stem in (name, name.replace("-idx", ".idx"))]
    paths = (directory / f"{stem}{suffix}" for suffix in ("", ".gz") for stem in stems)
    return next((path for path in paths if path.exists()), None)


def find_files(directory: Path) -> dict[str, Path]:
    """Return the four files of a data set, by the names in :data:`FILES`.

    Raises:
        RuntimeFault: One is missing.
    """
    found = {}
    for name in FILES:
        path = find_file(directory, name)
        if path is None:
            raise RuntimeFault(
                f"{directory} has no {name} and no {name}.gz.",
                f"A data set is four IDX files: {', '.join(FILES)}, gzipped or not.",
            )
        found[name] = path
    return found
