"""Which service is meant by a name, and the backend that it is on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from trainer.backend import load_backend
from trainer.config import load_config
from trainer.deploy import records
from trainer.deploy.service import ServiceInfo, Services
from trainer.errors import NotFoundError, UsageError
from trainer.home import Home


def services_of(home: Home, flags: Mapping[str, Any]) -> Services:
    """Return the services of the backend that the flags and the configuration name.

    Raises:
        RefusedError: It has none.
    """
    config = load_config(home, flags)
    return load_backend(config["backend"], home, config.options()).services()


def find_service(home: Home, name: str, flags: Mapping[str, Any]) -> tuple[Services, ServiceInfo]:
    """Return a service, asked for now, with those of its backend.

    One that was deployed from here is found by its record, wherever it is. Another is looked for on the backend that
    the flags and the configuration name.

    Args:
        home: Holds the records.
        name: The service's name.
        flags: ``backend`` and the backend's options, as the command line gave them; None stands for not given.

    Raises:
        NotFoundError: There is none.
        UsageError: There are several, on several backends.
    """
    given = {flag: value for flag, value in flags.items() if value is not None}
    recorded, _ = records.known(home, given.get("backend"))
    fitting = [service for service in recorded if service.name == name]
    if given.keys() - {"backend"} or not fitting:
        services = services_of(home, flags)
        try:
            return services, services.get(name)
        except NotFoundError as error:
            near = difflib.get_close_matches(name, {service.name for service in recorded}, 1)
            raise NotFoundError(error.message, f"Did you mean {near[0]}?" if near else error.hint) from error
    if len(fitting) > 1:
        backends = sorted({service.backend for service in fitting})
        raise UsageError(
            f"There are {len(fitting)} services {name!r}, on {' and '.join(backends)}.",
            "Say which: --backend NAME, with its options",
        )
    services = load_backend(fitting[0].backend, home).services()
    return services, services.refresh(fitting[0])
