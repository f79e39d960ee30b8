"""What a sender does to a receiver, as data: the steps of a scenario, which go as JSON into a private network.

A step names the connection that it is about, so that a scenario can have several at a time. `differential_player.py`
carries them out and says for each what came of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from support.raw_peer import APPLICATION_CONTEXT, CT_IMAGE_STORAGE, EXPLICIT_VR_LITTLE_ENDIAN

CALLING_AE_TITLE, CALLED_AE_TITLE = "RAWPEER", "RECEIVER"
PIECE = 16_000
"""Bytes of a data set in one PDV, where a step does not say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something done on a connection."""

    connection: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Associate(Step):
    """Connect and ask for an association; contexts are (id, abstract syntax, transfer syntaxes).

    `asks_identity` adds what no receiver of DCMTK answers: user identity and a window of asynchronous operations.
    """

    contexts: Sequence[tuple[int, str, Sequence[str]]] = (
        (1, CT_IMAGE_STORAGE, (EXPLICIT_VR_LITTLE_ENDIAN,)),
    )
    calling: str = CALLING_AE_TITLE
    called: str = CALLED_AE_TITLE
    maximum_length: int | None = 16384
    application_context: str = APPLICATION_CONTEXT
    version: int = 1
    roles: Sequence[tuple[str, int, int]] = ()
    extended: Sequence[tuple[str, bytes]] = ()
    asks_identity: bool = False
    has_implementation: bool = True
    uid_padding: bytes = b""
    seconds: float | None = None
    """How long an answer is awaited, where it is known that none may come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store(Step):
    """Send one object and await the answer; a UID of None leaves it out of the command."""

    uid: str | None
    data: bytes
    context_id: int = 1
    sop_class: str | None = CT_IMAGE_STORAGE
    message_id: int = 1
    piece: int = PIECE
    has_data_set: bool = True
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo(Step):
    """Send a C-ECHO-RQ and await the answer."""

    context_id: int = 3
    message_id: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Send(Step):
    """Send bytes as they are, on a new connection where there is none."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive(Step):
    """Await one PDU."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitEnd(Step):
    """Read PDUs until the receiver closes the connection."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Step):
    """Ask for release, await the answer and close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort(Step):
    """Send an A-ABORT and close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Step):
    """Close the connection, without a word or by a reset."""

    by_reset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NextMillisecond(Step):
    """Wait until the clock shows another millisecond, so that names made of it come in the order of sending.

    It is one that is far enough from the next second, in milliseconds.
    """

    not_after: int = 950


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitEvents(Step):
    """Wait until the commands that the receiver runs have written so many lines."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitFolder(Step):
    """Wait until so many regular files with a name that begins so are below the output directory."""

    prefix: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is sent, under a name for the report."""

    name: str
    steps: tuple[Step, ...]


NOTHING = Scenario(name="nothing", steps=())


def as_json(step: Step) -> dict[str, Any]:
    """Return a step in types that JSON knows; bytes become hexadecimal digits."""
    values = {field.name: _plain(getattr(step, field.name)) for field in fields(step)}
    return {"step": type(step).__name__, **values}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
