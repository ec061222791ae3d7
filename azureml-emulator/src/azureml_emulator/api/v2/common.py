"""What the routes of SDK v2 share: strict bodies and queries, ARM's resources and ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from fastapi.params import Depends as Dependency

from azureml_emulator.api.common import USER, require_workspace
from azureml_emulator.bodies import Body
from azureml_emulator.errors import ServiceError, bad_request
from azureml_emulator.service import Service

ARM_ACCESS = [*USER, Depends(require_workspace)]
_VERSION = "api-version"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,254}")
View = Annotated[Literal["ActiveOnly", "ArchivedOnly", "All"], Query(alias="listViewType")]


class SystemData(Body):
    """Who made a resource, and when (ISO 8601)."""

    created_at: str
    created_by: str = "Emulator User"
    created_by_type: str = "User"
    last_modified_at: str


class Resource(Body):
    """ARM's envelope of a thing; what is special about it is in ``properties``."""

    id: str
    name: str
    type: str
    properties: dict[str, Any]
    system_data: SystemData


def resource(
    service: Service, path: str, properties: dict[str, Any], *, created: str, modified: str | None = None
) -> Resource:
    """Make a resource.

    Args:
        service: Names the workspace.
        path: Below the workspace, such as ``codes/NAME/versions/1``.
        properties: Its content, in camelCase.
        created: ISO 8601.
        modified: The same; None for as it was made.
    """
    kinds = "/".join(path.split("/")[::2])
    return Resource(
        id=f"{service.settings.workspace_path}/{path}",
        name=path.rpartition("/")[2],
        type=f"Microsoft.MachineLearningServices/workspaces/{kinds}",
        properties=properties,
        system_data=SystemData(created_at=created, last_modified_at=modified or created),
    )


def only_query(*names: str) -> Dependency:
    """Refuse what a query asks for beyond these names: what is not emulated must not be ignored."""

    async def check(request: Request) -> None:
        unknown = sorted(set(request.query_params) - {_VERSION, *names})
        if unknown:
            raise bad_request(f"The emulator does not know the query's {', '.join(unknown)} here.", "NotEmulated")

    guard: Callable[[Request], Coroutine[Any, Any, None]] = check
    depends: Dependency = Depends(guard)
    return depends


def check_name(name: str) -> str:
    """Return the name of an asset, if Azure would take it.

    Raises:
        ServiceError: 400.
    """
    if not NAME.fullmatch(name):
        raise bad_request(f"{name!r} is not a valid name.")
    return name


def immutable(what: str, status: int = 400) -> ServiceError:
    """Make the refusal of a change to something that is fixed."""
    return ServiceError(status, "UserError", f"{what} already exists, and its content cannot be changed.")


def in_view(archived: object, view: str) -> bool:
    """Tell whether a list with that ``listViewType`` has what is archived, or not."""
    return view == "All" or bool(archived) == (view == "ArchivedOnly")
