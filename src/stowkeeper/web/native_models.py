"""What the shapes of the native interface have in common. Names are those of the rows, times UTC in ISO 8601."""

from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from stowkeeper.web.limits import MEMBERS_MAX, PAGE_ROWS, PAGE_ROWS_MAX, REASON_LETTERS_MAX

Item = TypeVar("Item")


class Shape(BaseModel):
    """An object that we send."""

    model_config = ConfigDict(from_attributes=True, extra="ignore")


class Wanted(BaseModel):
    """An object that we are sent: what we do not know in it is a mistake, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_members(cls, value: object) -> object:
        # Each that is not known costs an error of its own, some hundred times what it takes in the body.
        if isinstance(value, dict) and len(value) > MEMBERS_MAX:
            raise ValueError(f"an object has {MEMBERS_MAX} members at most")
        return value


class Page(Shape, Generic[Item]):
    """A piece of a list."""

    items: list[Item]
    next: str | None = Field(
        description="Address of what follows, relative to this server; null at the end of the list."
    )


Limit = Annotated[
    int, Query(ge=1, le=PAGE_ROWS_MAX, description="How many rows of the list to give at most.")
]
"""Type of the parameter `limit` of a list; its default is PAGE_ROWS."""

Cursor = Annotated[
    str | None,
    Query(
        max_length=200,
        description="Where to go on, as `next` of the page before has it. It means nothing to others.",
    ),
]
"""Type of the parameter `cursor` of a list."""

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=REASON_LETTERS_MAX)]
"""Why something is done, for the ledger or the audit trail."""

UID = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]
"""A UID (PS3.5 §9.1), as digits and dots; components may begin with 0, since some peers make such."""


def _to_milliseconds(seconds: float) -> float:
    return round(seconds, 3)


def _to_microseconds(seconds: float) -> float:
    return round(seconds, 6)


MeasuredSeconds = Annotated[float, AfterValidator(_to_milliseconds)]
"""A time that was measured: nothing below a millisecond means anything."""

FineSeconds = Annotated[float, AfterValidator(_to_microseconds)]
"""A time that may be less than a millisecond, as that of a small instance on the disk, where 0 means that nothing was written."""

__all__ = [
    "PAGE_ROWS",
    "UID",
    "Cursor",
    "FineSeconds",
    "Limit",
    "MeasuredSeconds",
    "Page",
    "Reason",
    "Shape",
    "Wanted",
    "next_page",
]


def next_page(path: str, cursor: object | None, **parameters: Any) -> str | None:  # noqa: ANN401 - what a query can say
    """Return the address of the page that follows; None where there is none. Parameters that are None are left out."""
    if cursor is None:
        return None
    said: list[tuple[str, str]] = []
    for name, value in parameters.items():
        if isinstance(value, list | tuple):
            said += [(name, str(one)) for one in value]
        elif value is not None:
            said.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return f"{path}?{urlencode([*said, ('cursor', str(cursor))])}"
