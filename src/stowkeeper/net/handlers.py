"""What the network room is given: who may associate, and what to do with a message."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from stowkeeper.dicom.status import Status
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest, Request, Response
from stowkeeper.dimse.messages import Message
from stowkeeper.upperlayer.items import ContextResult
from stowkeeper.upperlayer.negotiation import Accepted, AcceptedContext, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ


@dataclass(slots=True, kw_only=True)
class StoreTally:
    """How many instances of an association were kept and answered so, and how many refused."""

    kept: int = 0
    refused: int = 0


@dataclass(slots=True, kw_only=True)
class AssociationFacts:
    """What is known of an association, for handlers, ledger and log.

    `tls` names version and cipher suite where there is TLS, `tls_peer` the subject of the certificate that was verified.
    `results` are the answers to the presentation contexts that were proposed, empty until the association is accepted.
    `end` is released, aborted, lost, rejected, refused or shutdown; `words` says why, without patient data.
    `was_aborted_by_peer` tells whose A-ABORT it was, `timed_out` that it ended since nothing came. `may_wait` tells that the
    association has a thread of its own, so that what is done for it may wait there. `proxy_address` is that of the proxy
    whose PROXY header said who the peer is, empty where the peer came by itself.
    """

    association_id: str
    peer_address: str
    opened_at_nanoseconds: int
    proxy_address: str = ""
    tls: str = ""
    tls_peer: str = ""
    request: AssociateRQ | None = None
    calling_ae_title: str = ""
    called_ae_title: str = ""
    rejection: tuple[int, int, int] | None = None
    results: tuple[ContextResult, ...] = ()
    contexts_accepted: int = 0
    contexts_refused: int = 0
    messages: int = 0
    bytes_received: int = 0
    stores: StoreTally = field(default_factory=StoreTally)
    end: str = ""
    words: str = ""
    was_aborted_by_peer: bool = False
    timed_out: bool = False
    may_wait: bool = False
    is_accepted: bool = False
    closed_at_nanoseconds: int = 0

    def note_request(self, request: AssociateRQ) -> None:
        """Take down what was asked for, and by whom."""
        self.request = request
        self.calling_ae_title = request.calling_ae_title
        self.called_ae_title = request.called_ae_title


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """What to answer to a C-STORE request."""

    status: int
    error_comment: str = ""
    offending_elements: tuple[int, ...] = ()


class StoreOperation(Protocol):
    """One C-STORE in progress. None of its methods waits."""

    def write(self, piece: memoryview, release: Callable[[], None] | None) -> None:
        """Take the next bytes of the data set; call `release`, from any thread, when they are not needed."""
        ...

    def pdv_ended(self) -> None:
        """Know that the bytes up to here came in one PDV (PS3.8 §9.3.5.1)."""
        ...

    def flush(self) -> None:
        """Hand over what was written since the last flush."""
        ...

    def commit(self) -> None:
        """Know that the data set is complete; the answer follows."""
        ...

    def abort(self, words: str) -> None:
        """Know that there will be no answer: the data set will not be completed, or nobody can be told any more."""
        ...

    def answered(self, answer: StoreAnswer) -> None:
        """Know that the answer was handed to the network, on the event loop. Whether it arrives nobody here knows."""
        ...


class Handlers(Protocol):
    """The decisions and deeds of a server, passed in by who builds it.

    What takes a message, and the operations that `store` returns, may raise PeerError: the association is aborted for it.
    """

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Decide on an association request."""
        ...

    def store(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        request: CStoreRequest,
        answer: Callable[[StoreAnswer], None],
    ) -> StoreOperation:
        """Begin a C-STORE. `answer` may be called from any thread, once, after `commit`."""
        ...

    def store_refused(
        self, facts: AssociationFacts, context: AcceptedContext, request: CStoreRequest, answer: StoreAnswer
    ) -> None:
        """Take note of a C-STORE that was answered without `store`: the request itself broke the rules."""
        ...

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:
        """Return how long a data set may be that comes with a message other than a C-STORE request.

        It is held in memory. With 0 it is discarded unread, and `other_message` is called before it has come. A request
        with a longer one is answered 0213H, resource limitation, and `other_message` is not called.
        """
        ...

    def other_message(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        message: Message,
        data_set: bytes,
        answer: Callable[[Response], None],
    ) -> Response | None:
        """Answer a message that is no C-STORE request, given with its whole data set. See `answer_verification`.

        A response that is returned is sent at once. With None there is none, unless the message is a request: then
        `answer` is to be called later, from any thread, once, even when the association has ended meanwhile: nobody hears it
        then, but until it is called the memory of the data set counts as taken. A request that is not answered yet counts in the
        operations window, and the peer's release waits for it.
        """
        ...

    def association_opened(self, facts: AssociationFacts) -> None:
        """Take note that an association was accepted or rejected."""
        ...

    def association_ended(self, facts: AssociationFacts) -> None:
        """Take note that an association, or a connection without one, came to its end. The connection may linger."""
        ...

    def association_closed(self, facts: AssociationFacts) -> None:
        """Take note that its connection is closed, too."""
        ...


def answer_verification(message: Message) -> Response | None:
    """Answer a message that is no C-STORE request, as a server does that performs C-STORE and C-ECHO only.

    Responses that nobody awaits, and C-CANCEL, get no answer (PS3.7 §9.3.2.3).
    """
    if isinstance(message, CEchoRequest):
        return message.respond(Status.SUCCESS)
    if isinstance(message, Request) and message.expects_response:
        return message.respond(
            Status.UNRECOGNIZED_OPERATION, error_comment="this server performs C-STORE and C-ECHO only"
        )
    return None
