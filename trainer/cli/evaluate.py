"""``trainer evaluate`` and ``predict``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import modeluse
from trainer.cli.completers import model_files
from trainer.cli.context import store_of
from trainer.cli.parsing import Parser, add_backend, add_dataset, add_json, complete_with
from trainer.console.download import DownloadProgress
from trainer.console.output import BOLD, DIM, facts, inline, note, paint, print_json, say, warn
from trainer.console.predictions import judged, print_judged
from trainer.errors import UsageError

if TYPE_CHECKING:
    from trainer.modeluse import Evaluation, Prediction

_NAME_MAX = 16


def add_evaluate(parser: Parser) -> None:
    """Declare ``trainer evaluate``."""
    _add_model(parser, "to measure")
    add_dataset(parser, "Whose test images to use (default: those of the data set it was trained on).")
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="Save the confusion matrix as a picture.")
    _add_rest(parser)


def evaluate_command(
    *, model: str, dataset: str | None, network: str | None, plot: Path | None, as_json: bool, **flags: Any
) -> None:
    """Measure a model."""
    if plot is not None:
        modeluse.check_picture(plot)
    opened = modeluse.open_model(model, lambda: store_of(flags), network)
    found = modeluse.evaluate(opened, dataset, progress=DownloadProgress())
    if plot is not None:
        modeluse.plot_confusion(found, plot)
        note(f"Confusion matrix: {plot}")
    if as_json:
        print_json(found)
    else:
        print_evaluation(found)


def add_predict(parser: Parser) -> None:
    """Declare ``trainer predict``."""
    _add_model(parser, "to ask")
    parser.add_argument(
        "images",
        metavar="FILE",
        nargs="+",
        help="PNG or JPEG files of one digit each, of any size; or what it was trained on: pictures, CSV or npy files.",
    )
    parser.epilog = (
        "An image of a digit is prepared as MNIST's were: made grey, inverted if the ink is dark, cut out, scaled into "
        "20 of 28 pixels, and centred by its mass. One of the model's own size on black is used as it is."
    )
    _add_rest(parser)


def predict_command(*, model: str, images: list[str], network: str | None, as_json: bool, **flags: Any) -> None:
    """Classify images."""
    paths = [_image(name) for name in images]
    opened = modeluse.open_model(model, lambda: store_of(flags), network)
    found = modeluse.predict(opened, paths)
    for item in found:
        for text in item.notes:
            warn(f"{item.path}: {text}")
    if as_json:
        print_json(found)
    else:
        print_predictions(found, opened.classes)


def _image(name: str) -> Path:
    if name == "-" or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        what = "Standard input" if name == "-" else f"The address {name}"
        raise UsageError(f"{what} can't be read as an image.", "Save it to a file, and give the file.")
    path = Path(name)
    if path.is_dir():
        raise UsageError(f"{path} is a directory.", f"Give its files: {path}/*.png")
    return path


def print_evaluation(found: Evaluation) -> None:
    """Print accuracy, loss, and the confusion matrix with one row per true class."""
    facts(
        [
            ("Model", inline(found.model)),
            ("Data set", inline(f"{found.dataset}, {found.count:,} test examples")),
            ("Accuracy", paint(f"{found.accuracy:.4f}", BOLD)),
            ("Loss", f"{found.loss:.4f}"),
        ]
    )
    say()
    labels = [inline(score.name)[:_NAME_MAX] for score in found.classes]
    width = max(len(f"{max(map(max, found.confusion)):,}"), *map(len, labels)) + 1
    say(paint("true \\ predicted" + "".join(label.rjust(width) for label in labels) + "   recall", BOLD))
    for score, row in zip(found.classes, found.confusion, strict=True):
        cells = "".join(_cell(count, width, hit=label == score.label) for label, count in enumerate(row))
        recall = "-" if score.recall is None else f"{score.recall:.3f}"
        say(f"{inline(score.name)[:_NAME_MAX]:>16}{cells}{recall:>9}")
    if found.trained_on and found.trained_on != found.dataset:
        note(f"The model was trained on {found.trained_on}.")


def print_predictions(found: list[Prediction], classes: Sequence[str]) -> None:
    """Print one line per image: class, probability, and the runner-up.

    Args:
        found: What was predicted.
        classes: The names of the classes.
    """
    rows = [(item.path, *judged(item.label, item.probability, item.probabilities, classes)) for item in found]
    print_judged("EXAMPLE", rows)


def _cell(count: int, width: int, *, hit: bool) -> str:
    text = (f"{count:,}" if count else ".").rjust(width)
    return paint(text, BOLD) if hit else paint(text, DIM) if not count else text


def _add_model(parser: Parser, doing: str) -> None:
    what = f"The model {doing}: NAME, NAME:VERSION, an unambiguous beginning of a name, 'latest', or a file."
    complete_with(parser.add_argument("model", metavar="MODEL", help=what), model_files)
    own = "The function that makes its network (default: as recorded with the model)."
    parser.add_argument("--network", metavar="FILE.py:NAME", help=own)


def _add_rest(parser: Parser) -> None:
    add_backend(parser, "Whose registry", registry=True)
    add_json(parser)
