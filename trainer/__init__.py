"""Train Chainer models on this machine or on Azure ML with the same command.

From Python::

    import trainer

    run = trainer.run(epochs=5)
    run.wait()
    print(run.metrics)
    run.model.fetch("./model")

``run``, ``runs``, ``models`` and ``load`` are the command line's own core; docs/python.md describes them.

This file travels with every job, beside ``trainer.runtime``, so it imports nothing; what it names is imported when it
is used.
"""

__version__ = "0.1.0"
__all__ = ["LoadedModel", "Model", "Run", "TrainerError", "load", "models", "run", "runs"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trainer import notebook as notebook
    from trainer.api import LoadedModel, Model, Run, load, models, run, runs
    from trainer.errors import TrainerError


def __getattr__(name: str) -> object:
    import importlib

    if name == "notebook":  # a module, which nobody should have to import by itself
        return importlib.import_module(f"{__name__}.notebook")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    try:
        api = importlib.import_module(f"{__name__}.api")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.api":
            raise
        # An AttributeError would be turned into a message without this one by ``from trainer import run``.
        raise ImportError(
            f"trainer.{name} can't be used inside a job: only trainer.runtime travels with it. Use it where the job is "
            "submitted from.",
            name=f"{__name__}.api",
        ) from None
    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
