"""The parser that every command uses, and the arguments that several share.

Standard ``argparse``: importing Typer or Click takes longer than everything else that
``trainer runs`` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from trainer.backend import DEFAULT_BACKEND, backend_names, backend_options, bundled_names
from trainer.cli.completers import backends, datasets, run_ids
from trainer.errors import TrainerError, UsageError
from trainer.options import Option
from trainer.runtime.flags import TRAINING

# What the tutorial's script and other programs call some options, for a hint.
_OTHER_NAMES = {
    **{"--gpu": "--device cuda", "--gpus": "--device cuda", "--gpu_id": "--device cuda", "-g": "--device cuda"},
    **{"--cpu": "--device cpu", "--learning-rate": "--lr", "--learning_rate": "--lr", "-e": "--epochs"},
    **{"-b": "--batchsize", "--batch-size": "--batchsize", "--data": "--dataset", "--follow": "--logs"},
}


class Help(argparse.HelpFormatter):
    """Help laid out the same on every supported Python."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_usage(self, usage: str | None, actions: Iterable[argparse.Action], *_: object) -> str:
        # argparse lists every option in brackets: a screenful for `trainer run`.
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
        self.add_argument("-h", "--help", action="help", help="Show this help.")
        self._passes_on = False
        self._registry_only: bool | None = None
        self._services = False
        self._added: set[str] = set()
        self._words: Sequence[str] = ()

    def pass_on_rest(self) -> None:
        """Pass everything after ``--`` to the script."""
        self._passes_on = True
        how = "-- SCRIPT ARGS: everything after two dashes is passed to the script unchanged."
        self.epilog = f"{how} {self.epilog or ''}".rstrip()

    def take_backend_options(self, *, registry: bool, services: bool = False) -> None:
        """Take the options that backends declare.

        They become arguments when a word asks for one (or for help): most command lines name none, and importing every
        backend that is installed takes time.

        Args:
            registry: Only those that a model registry needs.
            services: Those about deployed services as well.
        """
        self._registry_only = registry
        self._services = services

    def add_backend_options(self, names: Iterable[str]) -> None:
        """Add the options of some backends, each in a group of its own. Their values stay text.

        Of two backends that declare the same option, the first one's help is shown.
        """
        if self._registry_only is None:
            return
        for name in names:
            if name in self._added:
                continue
            self._added.add(name)
            try:
                options = [option for option in backend_options(name) if self._takes(option)]
            except TrainerError:
                continue  # a broken backend is reported when it is used
            again = [option.flag for option in options if option.flag in self._option_string_actions]
            new = [option for option in options if option.flag not in again]
            if new or again:
                group = self.add_argument_group(
                    f"options of the backend {name}", f"Also: {', '.join(again)}." if again else None
                )
                for option in new:
                    _add_option(group, option)

    def _takes(self, option: Option) -> bool:
        return self._services if option.for_services else option.for_registry or not self._registry_only

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting, so that every error is shown in one place."""
        if message.startswith("argument [ACTION]: invalid choice: "):
            # An action that can be left out: whoever typed something else did not mean one.
            word = message.removeprefix("argument [ACTION]: invalid choice: ").split("'")[1]
            self._refuse(next((w for w in self._words if not w.startswith("-")), "--") if word == "--" else word)
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
        self._words = words
        self._add_what_is_asked_for(words)
        options, surplus = self.parse_known_args(words)
        if surplus:
            self._refuse(next((word for word in surplus if word != "--"), "--"))
        if self._passes_on:
            options.script_args = tuple(rest)
        return options

    def _add_what_is_asked_for(self, words: Sequence[str]) -> None:
        if self._registry_only is None:
            return
        if not {"-h", "--help"}.isdisjoint(words):
            self.add_backend_options(backend_names())
            return
        asked = {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}
        # The backend that is named first: another may declare the same flag without a value.
        sources: tuple[Callable[[], list[str]], ...] = (lambda: _named(words), bundled_names, backend_names)
        for names in sources:
            if asked - self._option_string_actions.keys():
                self.add_backend_options(names())

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            if word.endswith(".py") and "--script" in self._option_string_actions:
                raise UsageError(f"Unexpected argument {word!r}.", f"Did you mean: {self.prog} --script {word}")
            dashes = " Arguments of the script follow two dashes: -- ARGS" if self._passes_on else ""
            raise UsageError(f"Unexpected argument {word!r}.", f"See: {self.prog} --help.{dashes}")
        typed = word.partition("=")[0]
        meant = _OTHER_NAMES.get(typed)
        if meant is None or meant.split()[0] not in self._option_string_actions:
            meant = closest(typed, self._option_string_actions)
        hint = f"Did you mean {meant}? See: {self.prog} --help" if meant else f"See: {self.prog} --help"
        raise UsageError(f"There is no option {word}.", hint)


def _named(words: Sequence[str]) -> list[str]:
    """The backend that the command line names, if there is such a backend."""
    following = zip(words, [*words[1:], ""], strict=True)
    named = [value if word == "--backend" else word for word, value in following if word.startswith("--backend")]
    return [name for name in (word.removeprefix("--backend=") for word in named) if name in backend_names()]


def _add_option(parser: Group, option: Option) -> None:
    if option.is_switch:
        parser.add_argument(option.flag, action="store_true", default=None, help=option.help)
        return
    shown = option.default_text or option.default
    text = option.help if shown is None else f"{option.help.removesuffix('.')} (default: {shown})."
    action = parser.add_argument(option.flag, metavar=option.metavar, help=text.replace("%", "%%"))
    if option.complete is not None:
        values = option.complete
        complete_with(action, lambda **_: values())


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


def add_backend(
    parser: Parser, what: str, default: str = DEFAULT_BACKEND, *, registry: bool = False, services: bool = False
) -> None:
    """Add ``--backend``, and the options that backends declare.

    Args:
        parser: The command's.
        what: What the backend is for.
        default: How help names the default.
        registry: Only the options that a model registry needs.
        services: Those about deployed services as well.
    """
    action = parser.add_argument("--backend", metavar="NAME", help=f"{what} (default: {default}).")
    complete_with(action, backends)
    parser.take_backend_options(registry=registry, services=services)


def add_training(parser: Group) -> None:
    """Add the training flags of the script that is included. Their values stay text; the configuration reads it."""
    for flag in TRAINING:
        shown = flag.default_text or flag.default
        text = f"{flag.help[:1].upper()}{flag.help[1:]} (default: {shown})."
        action = parser.add_argument(f"--{flag.name}", metavar=flag.metavar, help=text)
        if flag.name == "device":
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
