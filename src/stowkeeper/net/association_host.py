"""What an association needs of the server that it belongs to."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from stowkeeper.net.buffers import BufferPool
from stowkeeper.net.data_set_room import DataSetRoom
from stowkeeper.net.handlers import AssociationFacts, Handlers
from stowkeeper.upperlayer.negotiation import Accepted, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ

if TYPE_CHECKING:
    from stowkeeper.net.association import AssociationProtocol


PeerAddress = tuple[Any, ...]
"""Whose a connection is: the address as the system gave it with the connection, or a ProxiedPeer. The address stands first.

Asked for later the system has none, where the peer is gone already.
"""


class AssociationLimits(Protocol):
    """What an association needs of the options of its server."""

    @property
    def maximum_length(self) -> int:
        """Return the largest P-DATA-TF that the peer may send, in bytes."""
        ...

    @property
    def association_request_seconds(self) -> float:
        """Return the time of the ARTIM timer (PS3.8 §9.1.4)."""
        ...

    @property
    def idle_seconds(self) -> float:
        """Return how long a peer may be silent between messages; 0 is no limit."""
        ...

    @property
    def message_seconds(self) -> float:
        """Return after how long the progress of a message is looked at; 0 is never."""
        ...

    @property
    def message_bytes_per_second_min(self) -> int:
        """Return how fast a message has to come."""
        ...

    @property
    def send_seconds(self) -> float:
        """Return how long a peer may leave answers unread."""
        ...


class AssociationHost(Protocol):
    """The server that an association belongs to, as the association sees it."""

    buffers: BufferPool
    buffered: set["AssociationProtocol"]
    data_set_room: DataSetRoom

    @property
    def options(self) -> AssociationLimits:
        """Return what bounds the association."""
        ...

    @property
    def handlers(self) -> Handlers:
        """Return who decides and stores."""
        ...

    def time(self) -> float:
        """Return monotonic time in seconds."""
        ...

    def admit(self, protocol: "AssociationProtocol", peer: Any) -> AssociationFacts | None:  # noqa: ANN401 - the shape is the address family's
        """Count a new connection; None when there are too many to even answer."""
        ...

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Decide on an association."""
        ...

    def forget(self, protocol: "AssociationProtocol") -> None:
        """Take note that a connection is gone."""
        ...

    def call_soon_threadsafe(self, callback: Callable[..., None], *arguments: object) -> None:
        """Call back on the thread of the association, from any thread."""
        ...
