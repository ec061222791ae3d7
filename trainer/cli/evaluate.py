"""``trainer evaluate`` and ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.cli.parsing import Parser, add_backend, add_backend_options, add_dataset, add_json, complete_with


def add_evaluate(parser: Parser) -> None:
    """Declare ``trainer evaluate``."""
    _add_model(parser, "to measure")
    add_dataset(parser, "On this data set's test images (default: the one it was trained on).")
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="Draw the confusion matrix into a picture.")
    _add_rest(parser)


def add_predict(parser: Parser) -> None:
    """Declare ``trainer predict``."""
    _add_model(parser, "to ask")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", type=Path, help="PNG or JPEG files of one digit each, of any size."
    )
    parser.epilog = "How an image is prepared: docs/cli.md."
    _add_rest(parser)


def evaluate_command(*, model: str, dataset: str | None, plot: Path | None, as_json: bool, **flags: Any) -> None:
    """Measure a model."""
    from trainer.cli.context import store_of
    from trainer.console.download import DownloadProgress
    from trainer.console.measured import print_evaluation
    from trainer.console.output import note, print_json
    from trainer.modeluse import check_picture, evaluate, open_model

    if plot is not None:
        check_picture(plot)
    found = evaluate(open_model(model, lambda: store_of(flags)), dataset, progress=DownloadProgress())
    if plot is not None:
        from trainer.modeluse import plot_confusion

        plot_confusion(found, plot)
        note(f"Confusion matrix: {plot}")
    if as_json:
        print_json(found)
    else:
        print_evaluation(found)


def predict_command(*, model: str, images: list[Path], as_json: bool, **flags: Any) -> None:
    """Classify images."""
    from trainer.cli.context import store_of
    from trainer.console.measured import print_predictions
    from trainer.console.output import print_json
    from trainer.modeluse import open_model, predict

    found = predict(open_model(model, lambda: store_of(flags)), images)
    if as_json:
        print_json(found)
    else:
        print_predictions(found)


def _add_model(parser: Parser, doing: str) -> None:
    from trainer.cli.completion import model_files

    what = f"The model {doing}: NAME, NAME:VERSION, an unambiguous beginning of a name, 'latest', or a file."
    complete_with(parser.add_argument("model", metavar="MODEL", help=what), model_files)


def _add_rest(parser: Parser) -> None:
    add_backend(parser, "Whose registry")
    add_backend_options(parser, registry=True)
    add_json(parser)
