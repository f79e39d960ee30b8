"""An event as others get it: one JSON object, and the values that a command may name."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from stowkeeper.services.events.feed import Event

_NAMES: Final = tuple(field.name for field in fields(Event) if field.name != "kind")

PLACES: Final = ("id", "event", *(name for name in _NAMES if name != "evidence"))
"""The names that a command may use in braces, and, in capitals behind STOWKEEPER_, those of its environment."""


def event_id(archive_id: str, event: Event) -> str:
    """Return the name of an event, the same each time it is delivered and given to no other."""
    return f"{archive_id}:{event.seq}"


def event_object(archive_id: str, event: Event) -> dict[str, Any]:
    """Return an event as an object of plain values; what it has no value for is left out."""
    values: dict[str, Any] = {"id": event_id(archive_id, event), "event": str(event.kind)}
    for name in _NAMES:
        if value := getattr(event, name):
            values[name] = value
    return values


def event_json(archive_id: str, event: Event) -> bytes:
    """Return an event as JSON text in ASCII."""
    return json.dumps(event_object(archive_id, event)).encode("ascii")


def event_values(archive_id: str, event: Event) -> Mapping[str, str]:
    """Return the values of an event by the names of PLACES, as text; empty where it has none."""
    found = event_object(archive_id, event)
    return {name: str(found.get(name, "")) for name in PLACES}
