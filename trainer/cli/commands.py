"""The table of commands. Nothing of a command is imported until it is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from trainer.cli.parsing import Parser


class Command(NamedTuple):
    """One command.

    Attributes:
        name: What is typed.
        module: The module in ``trainer.cli`` that holds it.
        summary: What it does, in one line.
    """

    name: str
    module: str
    summary: str

    def parser(self) -> Parser:
        """Make the command's parser; its ``handler`` default is the function that runs it."""
        from trainer.cli.parsing import Parser

        parser = Parser(prog=f"trainer {self.name}", summary=self.summary)
        self.configure(parser)
        return parser

    def configure(self, parser: Parser) -> None:
        """Add the command's arguments to a parser."""
        module = importlib.import_module(f"trainer.cli.{self.module}")
        name = self.name.replace("-", "_")
        getattr(module, f"add_{name}")(parser)
        parser.set_defaults(handler=getattr(module, f"{name}_command"))


Handler = Callable[..., "int | None"]

GROUPS: dict[str, tuple[Command, ...]] = {
    "Train": (
        Command("run", "train", "Train a model: submit a job, follow it, register its model."),
        Command("resume", "train", "Continue a run from its last checkpoint."),
        Command("package", "train", "Show what would travel: files, bytes, limits, digest."),
    ),
    "Runs": (
        Command("runs", "runs", "List the runs of this project, newest first."),
        Command("show", "runs", "Show a run: status, metrics, learning curves."),
        Command("logs", "following", "Print what a run's script printed."),
        Command("attach", "following", "Follow a run again."),
        Command("cancel", "following", "Stop a run."),
    ),
    "Models": (
        Command("models", "models", "List registered models, or the versions of one."),
        Command("fetch", "models", "Copy a registered model into a directory."),
        Command("delete", "models", "Delete a model version; its number is not used again."),
        Command("evaluate", "usage", "Measure a model: accuracy, loss, confusion matrix."),
        Command("predict", "usage", "Classify images with a model."),
    ),
    "This machine": (
        Command("doctor", "machine", "Say what works here, and the exact fix for what does not."),
        Command("config", "machine", "Show the configuration in force, and where each value is from."),
        Command("data", "data", "List, download and verify data sets."),
        Command("emulator", "emulator", "Start the loopback Azure ML service in the foreground."),
        Command("completion", "completion", "Print the code that completes commands in a shell."),
    ),
}

COMMANDS: dict[str, Command] = {command.name: command for group in GROUPS.values() for command in group}


def overview() -> str:
    """What ``trainer --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: trainer COMMAND [OPTIONS]",
        "",
        "Train Chainer models on this machine or on Azure ML with the same command.",
    ]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {command.name:{width}}  {command.summary}" for command in commands)]
    lines += [
        "",
        "Options:",
        f"  {'-h, --help':{width}}  Show this; 'trainer COMMAND --help' shows a command's options.",
        f"  {'--version':{width}}  Print the version.",
        "",
        "First steps:  trainer run    trainer models    trainer doctor",
    ]
    return "\n".join(lines)


def closest(word: str, words: list[str]) -> str | None:
    """The one of ``words`` that ``word`` was probably meant to be."""
    import difflib

    return next(iter(difflib.get_close_matches(word, words, 1, 0.6)), None)


def known(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; an option left out is None."""
    return {name: value for name, value in options.items() if value is not None}
