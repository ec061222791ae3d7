"""``trainer export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.cli.completers import model_files
from trainer.cli.context import store_of
from trainer.cli.networks import add_network
from trainer.cli.parsing import Parser, add_backend, add_json, complete_with
from trainer.console.output import inline, note, print_json, say, size

_FORMATS = ("onnx", "safetensors")


def add_export(parser: Parser) -> None:
    """Declare ``trainer export``."""
    what = "The model: NAME, NAME:VERSION, an unambiguous beginning of a name, 'latest', or a file."
    complete_with(parser.add_argument("model", metavar="MODEL", help=what), model_files)
    parser.add_argument(
        "--format", choices=_FORMATS, required=True, help="ONNX: network and weights. safetensors: weights alone."
    )
    add_network(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="Write this file (default: ./NAME-VERSION.FORMAT), or into this directory.",
    )
    parser.add_argument("--force", action="store_true", help="Replace the file.")
    parser.add_argument(
        "--tolerance",
        metavar="X",
        type=float,
        default=1e-4,
        help="Largest difference of a score in onnxruntime, beyond which nothing is written (default: 0.0001).",
    )
    add_backend(parser, "Whose registry", registry=True)
    add_json(parser)
    parser.epilog = "trainer docs export describes the files and how they are checked."


def export_command(
    *,
    model: str,
    format: str,  # the flag's name
    model_file: str | None,
    input_shape: tuple[int, ...],
    network: str | None,
    output: Path | None,
    force: bool,
    tolerance: float,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write a model in another format."""
    from trainer.export.exporting import ExportSettings, check, export

    settings = check(
        ExportSettings(
            format=format,
            output=output,
            model_file=model_file,
            input_shape=input_shape,
            network=network,
            tolerance=tolerance,
            force=force,
        )
    )
    found = export(model, lambda: store_of(flags), settings)
    if as_json:
        print_json(found)
        return
    say(str(found.path))
    if found.difference is None:
        note(f"{inline(found.model)}: {found.tensors} arrays, read back and equal bit for bit, {size(found.size)}")
    else:
        note(
            f"{inline(found.model)}: in onnxruntime the scores differ by {found.difference:.1e} at most, "
            f"over {found.compared:,} {inline(found.inputs)}; {size(found.size)}"
        )
