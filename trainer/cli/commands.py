"""The table of commands. Nothing of a command is imported until it is named."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from argparse import ArgumentParser

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


GROUPS: dict[str, tuple[Command, ...]] = {
    "Train": (
        Command("run", "train", "Train a model: submit a job, follow it, register its model."),
        Command("resume", "train", "Continue a run from its last checkpoint."),
        Command("tune", "tune", "Search for the best values of a script's flags with many runs."),
        Command("rerun", "train", "Run again what a run was given, with some arguments changed."),
        Command("package", "train", "Show what would travel: files, bytes, limits, digest."),
    ),
    "Runs": (
        Command("runs", "runlist", "List and compare the runs of this project; tag and name them."),
        Command("show", "runs", "Show a run: status, metrics, learning curves. Or several, to compare."),
        Command("view", "view", "Show the runs on a page in the browser: table, live curves, logs, files."),
        Command("logs", "runs", "Print the output of a run's script."),
        Command("attach", "runs", "Follow a run, or a study at Azure ML, that is under way."),
        Command("cancel", "runs", "Stop a run or a study."),
        Command("studies", "studies", "List the studies of this project, newest first."),
        Command("clean", "tidy", "Remove old, failed or all but the best runs."),
    ),
    "Models": (
        Command("models", "models", "List the registered models, or the versions of one."),
        Command("fetch", "models", "Copy a registered model into a directory."),
        Command("register", "models", "Register the model of a completed run, or of a study's best."),
        Command("delete", "models", "Delete a model version, whose number is not reused, or a run."),
        Command("evaluate", "evaluate", "Measure a model: accuracy, loss, confusion matrix."),
        Command("predict", "evaluate", "Classify images with a model."),
        Command("serve", "serve", "Answer HTTP requests with a model."),
        Command("export", "export", "Write a model as ONNX or safetensors, compared with the original."),
    ),
    "Services": (
        Command("deploy", "deploy", "Deploy a registered model as a service that answers HTTP."),
        Command("services", "deploy", "List the deployed services; show one, its keys or its log."),
        Command("score", "score", "Ask a service what it takes pictures or numbers for."),
        Command("undeploy", "deploy", "End a service and remove it."),
    ),
    "This machine": (
        Command("doctor", "doctor", "Check what works on this machine, and show the fix for what does not."),
        Command("config", "config", "Show the configuration in force, and where each value comes from."),
        Command("data", "data", "List, download and verify data sets."),
        Command("emulator", "emulator", "Start the loopback Azure ML service in the foreground."),
        Command("docs", "docs", "Print a page of the documentation, or list the pages."),
        Command("completion", "completion", "Print the shell code that completes commands."),
    ),
}

COMMANDS: dict[str, Command] = {command.name: command for group in GROUPS.values() for command in group}

# What other programs call some of them, for a hint.
OTHER_NAMES = {"ls": "runs", "list": "runs", "ps": "runs", "train": "run", "stop": "cancel"}


def full_parser(line: str = "") -> ArgumentParser:
    """Return the whole command line as one parser, for the shell's completion.

    Args:
        line: What has been typed. Only the command that it names gets its arguments; without it all do.
    """
    from trainer.backend import backend_names
    from trainer.cli.parsing import Parser

    parser = Parser(prog="trainer")
    parser.add_argument("--version", action="store_true")
    choices = parser.add_subparsers(parser_class=Parser)
    named = [*line.split(), "", ""][1]
    for command in COMMANDS.values():
        inner = choices.add_parser(
            command.name, summary=command.summary, prog=f"trainer {command.name}", help=command.summary
        )
        if not line or command.name == named:
            command.configure(inner)
            if line:
                inner.add_backend_options(backend_names())
    return parser


def overview() -> str:
    """Return what ``trainer --help`` prints."""
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
        f"  {'-h, --help':{width}}  Show this help; 'trainer COMMAND --help' shows a command's options.",
        f"  {'--version':{width}}  Print the version.",
        "",
        "First steps:  trainer run    trainer models    trainer doctor    trainer docs",
    ]
    return "\n".join(lines)
