"""The messages of a peer that are no C-STORE to be performed: from their command over their data set to their answer.

Their data sets are small and say what is asked for, so they are held whole, within the bound of the handler and the
memory that the server has for them. What is refused is taken in all the same, unread: only behind it comes the next message.
"""

from collections.abc import Callable

from stowkeeper.dicom.status import Status
from stowkeeper.dimse.assembler import DataSetFragment
from stowkeeper.dimse.command_set import MESSAGE_ID
from stowkeeper.dimse.message_types import Request, Response
from stowkeeper.dimse.messages import Message, command_name
from stowkeeper.dimse.operations import Admission, PerformedOperations
from stowkeeper.net.association_host import AssociationHost
from stowkeeper.net.data_set_room import RoomTaken
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.net.late_log import network_log
from stowkeeper.upperlayer.negotiation import AcceptedContext


class OtherMessage:
    """One message between its command and its answer.

    `performed` is the request that it is, where it counts as an operation in progress. `data_set` is None when it is not
    collected; `room` is what it takes of the server's memory for that.
    """

    __slots__ = (
        "bytes_max",
        "context",
        "data_set",
        "is_whole",
        "message",
        "performed",
        "response",
        "room",
    )

    def __init__(self, context: AcceptedContext, message: Message, room: RoomTaken) -> None:
        self.context = context
        self.message = message
        self.data_set: bytearray | None = None
        self.bytes_max = 0
        self.room = room
        self.performed: Request | None = None
        self.is_whole = not message.has_data_set
        self.response: Response | None = None


class OtherMessages:
    """Those of one association. `send` takes the responses; `answered` is told of one that did not come at once."""

    __slots__ = ("_answered", "_facts", "_host", "_incoming", "_operations", "_send", "_unanswered")

    def __init__(
        self,
        host: AssociationHost,
        facts: AssociationFacts,
        operations: PerformedOperations,
        send: Callable[[int, Response], None],
        answered: Callable[[], None],
    ) -> None:
        self._host = host
        self._facts = facts
        self._operations = operations
        self._send = send
        self._answered = answered
        self._incoming: OtherMessage | None = None
        self._unanswered: set[OtherMessage] = set()

    @property
    def await_answers(self) -> bool:
        """Whether a request of the peer is not answered yet."""
        return bool(self._unanswered)

    # From the association.

    def begin(self, context: AcceptedContext, message: Message) -> None:
        """Take a message whose command is there. May raise PeerError, as all that calls the handlers."""
        other = OtherMessage(context, message, self._host.data_set_room.take_none())
        self._incoming = other if message.has_data_set else None
        if isinstance(message, Request):
            if self._operations.begin(message) is Admission.DUPLICATE:
                words = "the message id is that of an operation in progress"
                other.response = message.respond(
                    Status.DUPLICATE_INVOCATION, error_comment=words, offending_elements=(MESSAGE_ID,)
                )
                self._send_when_whole(other)
                return
            other.performed = message
            self._unanswered.add(other)
        if message.has_data_set:
            other.bytes_max = self._host.handlers.data_set_bytes_max(context, message)
        if other.bytes_max:
            other.data_set = bytearray()
        else:
            self._hand_over(other, b"")

    def discard(self, context: AcceptedContext, message: Message, response: Response | None) -> None:
        """Take in the data set of a message that is settled, if it has one, then answer it."""
        other = OtherMessage(context, message, self._host.data_set_room.take_none())
        other.response = response
        if message.has_data_set:
            self._incoming = other
        else:
            self._send_when_whole(other)

    def receive(self, fragment: DataSetFragment) -> None:
        """Take the next bytes of the data set. May raise PeerError."""
        other = self._incoming
        if other is None:
            return
        if other.data_set is not None:
            self._collect(other, other.data_set, fragment.view)
        if not fragment.is_last:
            return
        self._incoming = None
        other.is_whole = True
        if other.data_set is None:
            self._send_when_whole(other)
        else:
            data_set, other.data_set = bytes(other.data_set), None
            self._hand_over(other, data_set)

    def abandon(self) -> None:
        """Know that the association is over: what is answered from now on nobody hears."""
        other, self._incoming = self._incoming, None
        self._unanswered.clear()
        if other is not None and other.data_set is not None:
            other.room.give_back()

    # The data set.

    def _collect(self, other: OtherMessage, data_set: bytearray, view: memoryview) -> None:
        count = len(view)
        if len(data_set) + count > other.bytes_max:
            self._refuse(other, f"its data set has more than {other.bytes_max} bytes")
        elif not other.room.take(count):
            self._refuse(other, "there is no memory for its data set now")
        else:
            data_set += view

    def _refuse(self, other: OtherMessage, words: str) -> None:
        """Answer that there are no resources, when the rest has come."""
        message = other.message
        other.data_set = None
        other.room.give_back()
        network_log().warning(
            "association",
            what="a message was refused",
            why=words,
            command=command_name(message.command_field),
            association=self._facts.association_id,
        )
        if isinstance(message, Request):
            other.response = message.respond(Status.RESOURCE_LIMITATION, error_comment=words)

    # The answer.

    def _hand_over(self, other: OtherMessage, data_set: bytes) -> None:
        def answer(response: Response) -> None:
            other.room.give_back()  # here, since the thread of an association that is over hears nothing any more
            self._host.call_soon_threadsafe(self._answer_later, other, response)

        try:
            response = self._host.handlers.other_message(
                self._facts, other.context, other.message, data_set, answer
            )
        except BaseException:
            other.room.give_back()
            raise
        if response is not None or other.performed is None:
            self._settle(other, response)

    def _answer_later(self, other: OtherMessage, response: Response) -> None:
        """Answer a request, on the event loop."""
        self._settle(other, response)
        self._answered()

    def _settle(self, other: OtherMessage, response: Response | None) -> None:
        """Note the answer, the first one there is, and send it behind the end of the message."""
        other.room.give_back()
        if other.response is None:
            other.response = response
            self._send_when_whole(other)

    def _send_when_whole(self, other: OtherMessage) -> None:
        response = other.response
        performed = other.performed
        if not other.is_whole or (response is None and performed is not None):
            return
        if performed is not None:
            self._unanswered.discard(other)
            self._operations.finish(performed.message_id)
        if response is not None:
            self._send(other.context.context_id, response)
