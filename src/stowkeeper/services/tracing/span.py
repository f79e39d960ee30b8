"""One span of a trace, before anybody knows how it is sent. Ids are derived, so that nothing of a trace has to be stored.

A trace is one association, or one store request by HTTP: its id is made of the association's id. The ids of the spans are made of
what their rows are named by. So what another thread, another process, or the same archive a week later tells of an instance
comes to lie in the trace of the association that brought it, below the request that it came by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final

from blake3 import blake3

from stowkeeper.services.tracing.limits import TEXT_LETTERS_MAX

Attribute = str | int | float | bool

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class SpanKind(StrEnum):
    """What a span is in a conversation: we were asked, we asked, or neither."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span: `start` and `end` are nanoseconds since 1970 (UTC).

    `parent_id` is 0 for the root of a trace. `failure` says why what it tells of failed, None where it did not. `link` are trace id
    and span id of another span that it belongs to, of another trace perhaps. Nothing in it identifies a patient.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    kind: SpanKind
    start: int
    end: int
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    failure: str | None = None
    link: tuple[int, int] | None = None


@lru_cache(maxsize=1024)
def trace_id_of(association_id: str) -> int:
    """Return the id of the trace of an association: the first 16 bytes of the BLAKE3 of its id."""
    return int.from_bytes(blake3(_bytes(association_id)).digest(16), "big")


def span_id_of(kind: str, *names: str | int) -> int:
    """Return the id of the span that is of such a kind and about what has these names."""
    return int.from_bytes(blake3(_bytes("\0".join((kind, *map(str, names))))).digest(8), "big")


def association_span_id(association_id: str) -> int:
    """Return the id of the root of an association's trace."""
    return span_id_of("association", association_id)


def request_span_id(receipt_id: str) -> int:
    """Return the id of the span of the request by which an instance came that was kept."""
    return span_id_of("request", receipt_id)


def is_wanted(trace_id: int, share: float) -> bool:
    """Tell whether a trace belongs to the share that is told: whoever asks, and whenever, is told the same."""
    return (trace_id & ((1 << 64) - 1)) < round(share * (1 << 64))


def nanoseconds(at: str, seconds: float = 0.0) -> int:
    """Return a time of the database, UTC in ISO 8601, and some seconds after it, in nanoseconds since 1970."""
    return max((datetime.fromisoformat(at) - _EPOCH) // _MICROSECOND * 1000, 0) + round(seconds * 1e9)


def text(value: str) -> str:
    """Return a text as it is sent: bounded."""
    return value[:TEXT_LETTERS_MAX]


def told(**values: Attribute | None) -> dict[str, Attribute]:
    """Return attributes by their names, in which two underscores stand for a dot, without those that say nothing."""
    return {
        name.replace("__", "."): text(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None and value != ""
    }


def hexadecimal(status: int | None) -> str:
    """Return a status or a failure reason as DICOM writes it; nothing for none."""
    return "" if status is None else f"{status:04X}H"


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")
