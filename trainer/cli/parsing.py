"""The parser that every command uses, and the arguments that several share.

Standard ``argparse``: importing Typer or Click takes longer than everything else that
``trainer runs`` does (docs/cli.md has the figures).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from trainer.cli.completers import backends, datasets, run_ids
from trainer.errors import UsageError


class Help(argparse.HelpFormatter):
    """Help laid out the same on every supported Python."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_usage(self, usage: str | None, actions: Iterable[argparse.Action], *_: object) -> str:
        # Twenty-five options in brackets say less than this.
        words = [f"usage: {usage or self._prog}"]
        words += [self._format_args(action, action.dest.upper()) for action in actions if not action.option_strings]
        return " ".join([words[0], "[OPTIONS]", *words[1:]]) + "\n\n"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # Python 3.13's layout: "-o, --output DIR" where older ones repeat DIR.
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        metavar = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {metavar}"


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose errors are :class:`~trainer.errors.UsageError`.

    Args:
        prog: How the command is typed.
        summary: What it does.
    """

    def __init__(self, prog: str, summary: str = "", **options: Any) -> None:
        options.setdefault("description", summary or None)
        super().__init__(prog=prog, formatter_class=Help, allow_abbrev=False, add_help=False, **options)
        self.add_argument("-h", "--help", action="help", help="Show this.")
        self._passes_on = False

    def pass_on_rest(self) -> None:
        """Let everything after ``--`` be the script's."""
        self._passes_on = True
        self.epilog = "-- SCRIPT ARGS: everything after two dashes is passed to the script as it is."

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that every error is shown in one place."""
        raise UsageError(f"{message[:1].upper()}{message[1:].rstrip('.')}.", f"See: {self.prog} --help")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse ``words``.

        Raises:
            UsageError: They don't fit.
        """
        rest: Sequence[str] = ()
        if self._passes_on and "--" in words:
            cut = words.index("--")
            words, rest = words[:cut], words[cut + 1 :]
        options, surplus = self.parse_known_args(words)
        if surplus:
            self._refuse(next((word for word in surplus if word != "--"), "--"))
        if self._passes_on:
            options.script_args = tuple(rest)
        return options

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            if word.endswith(".py") and "--script" in self._option_string_actions:
                raise UsageError(f"Unexpected argument {word!r}.", f"Did you mean: {self.prog} --script {word}")
            dashes = " Arguments of the script follow two dashes: -- ARGS" if self._passes_on else ""
            raise UsageError(f"Unexpected argument {word!r}.", f"See: {self.prog} --help.{dashes}")
        meant = closest(word.partition("=")[0], self._option_string_actions)
        hint = f"Did you mean {meant}? See: {self.prog} --help" if meant else f"See: {self.prog} --help"
        raise UsageError(f"There is no option {word}.", hint)


def closest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of ``words`` that ``word`` was probably meant to be."""
    import difflib  # for errors only

    return next(iter(difflib.get_close_matches(word, list(words), 1, 0.6)), None)


def complete_with(action: argparse.Action, completer: Callable[..., Any]) -> None:
    """Let the shell complete an argument's values (argcomplete's convention)."""
    action.completer = completer  # type: ignore[attr-defined]


Group = argparse._ActionsContainer


def add_json(parser: Group, what: str = "Print JSON on standard output.") -> None:
    """Add ``--json``, with the destination ``as_json``."""
    parser.add_argument("--json", dest="as_json", action="store_true", help=what)


def add_reference(parser: Group, doing: str) -> None:
    """Add the argument RUN, with the destination ``reference``."""
    what = f"The run {doing}: its id, an unambiguous beginning or end of it, or 'latest'."
    complete_with(parser.add_argument("reference", metavar="RUN", help=what), run_ids)


def add_backend(parser: Group, what: str, default: str = "local") -> None:
    """Add ``--backend``."""
    complete_with(parser.add_argument("--backend", metavar="NAME", help=f"{what} (default: {default})."), backends)


def add_backend_options(parser: argparse.ArgumentParser, *, registry: bool = False) -> None:
    """Add what is handed to a backend that takes it.

    Args:
        parser: The command's.
        registry: Only what a model registry needs.
    """
    group = parser.add_argument_group("for a backend of that kind (azureml)")
    if not registry:
        group.add_argument("--compute", metavar="NAME", help="The compute cluster (default: gpu-cluster).")
        group.add_argument(
            "--vm-size", metavar="SIZE", help="Its nodes' VM size (default: STANDARD_NC6, or its successor)."
        )
        group.add_argument("--max-nodes", metavar="N", type=int, help="Most nodes it may have (default: 4).")
        group.add_argument(
            "--idle-minutes", metavar="N", type=int, help="Minutes until an idle node is given back (default: 5)."
        )
    group.add_argument("--workspace-config", metavar="PATH", help="The workspace's config.json.")
    group.add_argument(
        "--emulator", action="store_true", default=None, help="Use the loopback service, starting it if need be."
    )


def add_device(parser: Group) -> None:
    """Add ``--device``."""
    action = parser.add_argument("--device", metavar="D", help="auto, cpu, cuda or cuda:N (default: auto).")
    complete_with(action, lambda **_: ["auto", "cpu", "cuda"])


def add_dataset(parser: Group, what: str) -> None:
    """Add ``--dataset``."""
    complete_with(parser.add_argument("--dataset", metavar="D", help=what), datasets)


def tag(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name.strip(), value
