"""``trainer deploy``, ``services`` and ``undeploy``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.backend import load_backend
from trainer.cli.completers import model_references, service_names
from trainer.cli.context import backend_of, configured
from trainer.cli.networks import add_network
from trainer.cli.parsing import Parser, add_backend, add_json, complete_with
from trainer.console.output import facts, inline, moment, note, print_json, print_log, say, table, warn
from trainer.deploy import records
from trainer.deploy.finding import find_service, services_of
from trainer.deploy.service import HEALTHY, KEY_NAMES, KeyName, ServiceInfo, ServicePlan, Services
from trainer.errors import NotFoundError, RefusedError, TrainerError, UsageError
from trainer.home import find_home

_LINES_MAX = 5000


def add_deploy(parser: Parser) -> None:
    """Declare ``trainer deploy``."""
    what = "The registered model: NAME, NAME:VERSION, an unambiguous beginning of a name, or 'latest'."
    complete_with(parser.add_argument("model", metavar="MODEL", help=what), model_references)
    parser.add_argument(
        "--script", metavar="FILE", type=Path, help="An Azure ML score script, with init() and run(data)."
    )
    add_network(parser)
    parser.add_argument("--name", metavar="NAME", help="Name of the service (default: the model's, made to fit).")
    parser.add_argument("--overwrite", action="store_true", help="Replace a service of the same name.")
    parser.add_argument("--dry-run", action="store_true", help="Show what would be deployed, and do nothing.")
    add_backend(parser, "Where to deploy", registry=True, services=True)
    add_json(parser)
    parser.epilog = "trainer docs deploying describes services, their keys and updates."


def deploy_command(
    *,
    model: str,
    script: Path | None,
    model_file: str | None,
    input_shape: tuple[int, ...],
    network: str | None,
    name: str | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Deploy a model, and wait until the service is healthy."""
    from dataclasses import replace

    from trainer.deploy.preparing import prepare
    from trainer.modeluse.building import NetworkChoice

    home, config = configured(flags)
    choice = NetworkChoice(network=network, model_file=model_file, input_shape=input_shape)
    deployment = replace(prepare(model, home, name=name, script=script, network=choice), overwrite=overwrite)
    services = backend_of(home, config).services()
    if dry_run:
        plan = services.plan(deployment)
        for text in plan.warnings:
            warn(text)
        if as_json:
            print_json(plan)
        else:
            print_plan(plan)
        return
    before = records.known(home)[0]
    try:
        service = services.deploy(deployment, note)
    except KeyboardInterrupt:
        begun = [service.name for service in records.known(home)[0] if service not in before]
        if begun:
            note(f"What has been asked for goes on without this command. To look: trainer services {begun[0]}")
        else:
            note("Nothing has been deployed.")
        raise
    if as_json:
        print_json(service)
        return
    say(str(service.url))
    words = _named(service)
    note(f"{service.name} is {service.state}: {service.model} on {service.backend}, {service.kind}.")
    if not _is_private(str(service.url)):
        warn(f"{service.url} is plain HTTP: keys and what is scored travel as anyone on the way can read them.")
    asked_with = "digit.png" if service.script is None else "--data BODY.json"  # what a script takes is its own
    note(f"  ask it   trainer score {words} {asked_with}")
    note(f"  by curl  {_curl(words, str(service.url), is_ours=service.script is None)}")
    note(f"  keys     trainer services {words} --keys")
    note(f"  end it   trainer undeploy {words}")


def add_services(parser: Parser) -> None:
    """Declare ``trainer services``."""
    complete_with(
        parser.add_argument("name", metavar="SERVICE", nargs="?", help="Show this one: its name."), service_names
    )
    parser.add_argument("--keys", action="store_true", help="Print the keys of SERVICE, the primary one first.")
    parser.add_argument(
        "--new-key", choices=KEY_NAMES, help="Replace this key of SERVICE by a new one; the old one is dead at once."
    )
    parser.add_argument("--log", metavar="N", type=int, help="Print the last N lines of SERVICE's log.")
    add_backend(parser, "Whose services", "all that were deployed from here", registry=True)
    add_json(parser)


def services_command(
    *, name: str | None, keys: bool, new_key: KeyName | None, log: int | None, as_json: bool, **flags: Any
) -> None:
    """List services, or show one, its keys or its log, or renew a key."""
    if sum((keys, new_key is not None, log is not None)) > 1:
        raise UsageError("--keys, --new-key and --log exclude each other.", "Give one of them.")
    if name is None:
        if keys or new_key is not None or log is not None:
            hint = "Name it: trainer services SERVICE --keys"
            raise UsageError("--keys, --new-key and --log are for one service.", hint)
        _list(as_json=as_json, flags=flags)
        return
    if log is not None and not 1 <= log <= _LINES_MAX:
        raise UsageError(f"--log must be a number of lines from 1 to {_LINES_MAX}, not {log}.", "For example: --log 50")
    services, service = find_service(find_home(), name, flags)
    if keys:
        found = services.keys(service)
        if as_json:
            print_json(found)
        for key in () if as_json else found:
            say(key)
        if not found:
            note(f"{service.name} asks for no key.")
    elif new_key is not None:
        services.renew_key(service, new_key)
        if as_json:
            print_json({"name": service.name, "renewed": new_key})
        else:
            note(f"{service.name} has a new {new_key} key: trainer services {_named(service)} --keys")
    elif log is not None:
        _print_log(services, service, log, as_json=as_json)
    elif as_json:
        print_json(service)
    else:
        print_service(service)


def add_undeploy(parser: Parser) -> None:
    """Declare ``trainer undeploy``."""
    complete_with(parser.add_argument("name", metavar="SERVICE", help="The service to remove."), service_names)
    add_backend(parser, "Whose service", "the one that it is on", registry=True)
    add_json(parser)


def undeploy_command(*, name: str, as_json: bool, **flags: Any) -> None:
    """End a service and remove it. One that is not there any more is no error."""
    try:
        services, service = find_service(find_home(), name, flags)
    except NotFoundError as error:
        if as_json:
            print_json({"name": name, "deleted": False})
        else:
            note(f"{error.message} Nothing to remove. {error.hint}")
        return
    deleted = services.delete(service, note)
    if as_json:
        print_json({"name": name, "backend": service.backend, "deleted": deleted})
    else:
        note(f"{name} is removed from {service.backend}." if deleted else f"{name} was gone from {service.backend}.")


def print_plan(plan: ServicePlan) -> None:
    """Print what a deployment would do."""
    from trainer.console.summary import relative

    pairs = [("Service", plan.name), ("Backend", plan.backend), ("Model", plan.model), ("Score script", plan.script)]
    for label, value in plan.details.items():
        text = "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if label == "folder":
            text = relative(Path(text))  # shorter, and not broken at a blank of a folder above
        pairs.append((label[:1].upper() + label[1:], text))
    facts([(label, "\n".join(inline(line) for line in value.split("\n"))) for label, value in pairs])
    note("Nothing was deployed (--dry-run).")


def print_services(services: Iterable[ServiceInfo]) -> None:
    """Print one line per service."""
    rows = [
        (
            service.name,
            service.backend,
            service.kind,
            service.state,
            service.model,
            service.url or "-",
            moment(service.updated),
        )
        for service in services
    ]
    heads = ("SERVICE", "BACKEND", "KIND", "STATE", "MODEL", "URL", "DEPLOYED")
    # Half an address is none.
    if "URL" in table(heads, rows, drop=("DEPLOYED", "KIND", "URL")):
        note("No room for the addresses: trainer services SERVICE")


def print_service(service: ServiceInfo) -> None:
    """Print what is known of a service; its keys are not."""
    pairs = [
        ("Service", service.name),
        ("Backend", f"{service.backend}, {service.kind}"),
        ("State", service.state),
        ("Model", service.model or "not known"),
        ("Score script", service.script or "ours"),
        ("URL", service.url or "none yet" if service.state != HEALTHY else service.url or "none"),
        ("Created", moment(service.created)),
        ("Deployed", moment(service.updated)),
    ]
    if service.network is not None:
        pairs.insert(5, ("Network", service.network))
    facts([(label, inline(value)) for label, value in pairs])
    if service.error:
        warn(inline(service.error))


def _list(*, as_json: bool, flags: dict[str, Any]) -> None:
    home = find_home()
    unasked = 0
    if any(value is not None for value in flags.values()):
        found = services_of(home, flags).every()
        damaged = records.known(home, flags.get("backend"))[1]
    else:
        recorded, damaged = records.known(home)
        found = []
        for service in recorded:
            now, asked = _as_seen(service)
            found.append(now)
            unasked += not asked
    for problem in damaged:
        note(f"{problem.message} To set it aside: trainer doctor --repair")
    if as_json:
        print_json(found)
    elif not found:
        note("No services. Deploy a model: trainer deploy MODEL")
    else:
        print_services(found)
        for service in found:
            if service.error:
                warn(f"{service.name}: {inline(service.error)}")
    if unasked:
        note("States elsewhere are as they were seen last. To ask: trainer services SERVICE")


def _as_seen(service: ServiceInfo) -> tuple[ServiceInfo, bool]:
    """A service as a list shows it, and whether its backend was asked: one elsewhere takes seconds and a network."""
    try:
        backend = load_backend(service.backend, find_home())
        return (service, False) if backend.remote else (backend.services().refresh(service), True)
    except TrainerError as error:
        from msgspec.structs import replace

        return replace(service, error=error.message), True


def _curl(words: str, url: str, *, is_ours: bool) -> str:
    """A command line that asks a service as any client would; the key is not in it, but how to get it."""
    key = f'"Authorization: Bearer $(trainer services {words} --keys | head -1)"'
    body = """"{\\"images\\": [\\"$(base64 < digit.png | tr -d '\\n')\\"]}\"""" if is_ours else "'{}'"
    return f"curl -H {key} -H 'Content-Type: application/json' -d {body} {url}"


def _is_private(url: str) -> bool:
    """Whether nobody between us and a service can read along."""
    from urllib.parse import urlsplit

    from trainer.serving.settings import is_loopback

    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _named(service: ServiceInfo) -> str:
    """The words by which a command finds a service: its name, and its backend where another has one of that name."""
    found, _ = records.known(find_home())
    only = sum(other.name == service.name for other in found) == 1
    return service.name if only else f"{service.name} --backend {service.backend}"


def _print_log(services: Services, service: ServiceInfo, lines: int, *, as_json: bool) -> None:
    import sys

    text = services.logs(service, lines)
    if as_json:
        print_json({"name": service.name, "log": text})
        return
    if not text:
        raise RefusedError(f"{service.name} has printed nothing yet.", "Try again later.")
    for line in text.splitlines():
        print_log(line, sys.stdout)
