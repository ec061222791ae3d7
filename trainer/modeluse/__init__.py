"""Using a trained model: evaluate it, classify images with it, draw its learning curves.

Models are read by :mod:`trainer.modelfile` and run in NumPy, so using one needs neither Chainer nor a GPU, and
nothing in a model's file is ever executed. What draws and computes is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.modeluse.curves import curves_text, curves_together
    from trainer.modeluse.evaluation import ClassScore, Evaluation, evaluate
    from trainer.modeluse.network import Network
    from trainer.modeluse.plots import check_picture, plot_confusion, plot_curves, plot_together
    from trainer.modeluse.prediction import Prediction, predict
    from trainer.modeluse.source import LoadedModel, open_model

__all__ = [
    "ClassScore",
    "Evaluation",
    "LoadedModel",
    "Network",
    "Prediction",
    "check_picture",
    "curves_text",
    "curves_together",
    "evaluate",
    "open_model",
    "plot_confusion",
    "plot_curves",
    "plot_together",
    "predict",
]

_HOMES = {
    "ClassScore": "evaluation",
    "Evaluation": "evaluation",
    "LoadedModel": "source",
    "Network": "network",
    "Prediction": "prediction",
    "check_picture": "plots",
    "curves_text": "curves",
    "curves_together": "curves",
    "evaluate": "evaluation",
    "open_model": "source",
    "plot_confusion": "plots",
    "plot_curves": "plots",
    "plot_together": "plots",
    "predict": "prediction",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
