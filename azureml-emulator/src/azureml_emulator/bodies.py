"""What the bodies of requests and answers have in common. Each body stands beside the table or the routes it is for.

Names and shapes are the ones the SDKs' clients send and accepts; unknown fields are kept, because newer SDKs add some.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel

Item = TypeVar("Item")


class Body(BaseModel):
    """A JSON body with camelCase keys."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class StrictBody(BaseModel):
    """A JSON body with camelCase keys, of which every one is known: a field that is not emulated is refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: object) -> object:
        # A null is a field that is not set, of whatever type.
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class Page(Body, Generic[Item]):
    """One page of a list. A null ``continuationToken`` ends it: the SDK pages on until it sees that."""

    value: list[Item]
    continuation_token: str | None = None
    next_link: str | None = None


class ArmList(Body, Generic[Item]):
    """A whole ARM list. ARM's clients take the mere presence of ``nextLink`` for another page."""

    value: list[Item]


class UserInfo(Body):
    """Who made a thing."""

    user_object_id: str = "emulator"
    user_tenant_id: str = "11111111-1111-1111-1111-111111111111"
    user_name: str = "Emulator User"


def problems(error: ValidationError) -> str:
    """Return what is wrong with a document, in one line."""
    found = []
    for each in error.errors():
        place, message = ".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = "is not emulated"
        found.append(f"{place}: {message}" if place else message)
    return "; ".join(found)
