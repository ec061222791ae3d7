"""``trainer score``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from trainer.cli.completers import service_names
from trainer.cli.parsing import Parser, add_backend, add_json, complete_with
from trainer.console.output import print_json
from trainer.console.predictions import judged, print_judged
from trainer.deploy import asking
from trainer.deploy.finding import find_service
from trainer.errors import RefusedError, UsageError
from trainer.home import find_home


def add_score(parser: Parser) -> None:
    """Declare ``trainer score``."""
    complete_with(parser.add_argument("name", metavar="SERVICE", help="The service to ask."), service_names)
    parser.add_argument("images", metavar="FILE", nargs="*", type=Path, help="PNG or JPEG files, one input each.")
    parser.add_argument(
        "--data", metavar="FILE", help="Send this file's JSON as it is; - for standard input. For any score script."
    )
    add_backend(parser, "Whose service", "the one that it is on", registry=True)
    add_json(parser, "Print the service's answer, or a list of answers to many pictures, as JSON.")
    parser.epilog = "trainer docs serving describes the JSON that services without a score script of their own take."


def score_command(*, name: str, images: list[Path], data: str | None, as_json: bool, **flags: Any) -> None:
    """Ask a service, and print class and probabilities."""
    if bool(images) == (data is not None):
        raise UsageError("Give either pictures or --data.", f"For example: trainer score {name} digit.png")
    # Before anybody is asked: what can't be sent costs nothing.
    bodies = [(None, asking.check_json(_data(data), data))] if data is not None else _pictures(images)
    services, service = find_service(find_home(), name, flags)
    if service.url is None:
        raise RefusedError(
            f"{service.name} is {service.state} and can't be asked.{f' {service.error}' if service.error else ''}",
            f"See: trainer services {name}",
        )
    keys = services.keys(service)
    key = keys[0] if keys else None
    words = shlex.join([name, *(("--backend", service.backend) if flags.get("backend") else ())])
    answers = [(paths, asking.ask(service.url, key, body, words=words)) for paths, body in bodies]
    if as_json:
        print_json(answers[0][1] if len(answers) == 1 else [answer for _, answer in answers])
        return
    print_answers(answers)


def print_answers(answers: list[tuple[list[str] | None, Any]]) -> None:
    """Print one line per input: class, probability, and the runner-up; what a script of another kind answers as JSON.

    Args:
        answers: The names of the inputs, or None where they have none, and the answer.
    """
    rows = []
    for names, answer in answers:
        found = asking.predictions(answer)
        if found is None or (names is not None and len(names) != len(found.predictions)):
            print_json(answer)
            continue
        for number, item in enumerate(found.predictions):
            name = f"input {number}" if names is None else names[number]
            rows.append((name, *judged(item.label, item.probability, item.probabilities, found.classes)))
    if rows:
        print_judged("INPUT", rows)


def _pictures(images: list[Path]) -> list[tuple[list[str] | None, bytes]]:
    return [([str(path) for path in paths], body) for paths, body in asking.picture_bodies(images)]


def _data(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"Can't read {name}: {error.strerror}.", "Check the path in --data.") from error
