"""What the user of the upper layer gets to see: indications and confirmations as values.

They tell what happened in the order in which the peer's bytes came. By the time one is read the connection may
be a step further already (an A-ABORT in the same bytes): ask `UpperLayerConnection.state` before answering.
"""

from dataclasses import dataclass
from typing import NamedTuple

from stowkeeper.upperlayer.pdu import AssociateAC, AssociateRJ, AssociateRQ
from stowkeeper.upperlayer.reasons import AbortReason
from stowkeeper.upperlayer.states import State


class PDVFragment(NamedTuple):
    """A contiguous piece of one presentation data value (PS3.8 §9.3.5.1, §E.2).

    `data` is a view into what was given to `receive_data`, valid until that buffer is used again. `starts` and
    `ends` tell the first and the last piece of this PDV (both, when it came whole; an empty PDV is one empty
    piece). `is_last` is the PDV's own flag: it holds the last fragment of the command or data set. The context
    is one that was accepted.

    A named tuple because it is the one event on the hot path, and the cheapest immutable value to make.
    """

    context_id: int
    is_command: bool
    data: memoryview
    starts: bool
    ends: bool
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequested:
    """A peer asks for an association: answer by `accept` or `reject`."""

    request: AssociateRQ


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRefused:
    """The upper layer itself rejected a request that it can't serve (action AE-6). Nothing is to be answered."""

    request: AssociateRQ
    rejection: AssociateRJ


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateAccepted:
    """The peer accepted the association that we asked for."""

    response: AssociateAC


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRejected:
    """The peer rejected the association that we asked for. The connection is to be closed."""

    rejection: AssociateRJ


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequested:
    """The peer asks to end the association: answer by `respond_to_release`.

    `is_collision`: both sides asked at the same time.
    """

    is_collision: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseConfirmed:
    """The peer agreed to end the association that we asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """The association ended without agreement.

    Either an A-ABORT came, with this source and reason. Or, `by_us`, our own upper layer gave up (A-P-ABORT): for a
    `ProtocolFault`, which then stands before this event, or since the connection was lost.
    """

    source: int
    reason: int
    by_us: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolFault:
    """The peer broke the rules of PS3.8, and was told so by an A-ABORT."""

    reason: AbortReason
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ARTIMExpired:
    """The peer took too long: for its request (Sta2) or for closing the connection (Sta13)."""

    state: State


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The transport connection was closed by the peer, or lost."""


UpperLayerEvent = (
    PDVFragment
    | AssociateRequested
    | AssociateRefused
    | AssociateAccepted
    | AssociateRejected
    | ReleaseRequested
    | ReleaseConfirmed
    | Aborted
    | ProtocolFault
    | ARTIMExpired
    | ConnectionClosed
)
