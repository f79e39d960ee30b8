"""Handlers that take N-ACTION requests with their data sets, and answer them at once, later, or not at all."""

from collections.abc import Callable
from dataclasses import dataclass

from stowkeeper.dimse.message_types import NActionRequest, Response
from stowkeeper.dimse.messages import Message
from stowkeeper.net.handlers import AssociationFacts, answer_verification
from stowkeeper.upperlayer.negotiation import AcceptedContext
from support.server_thread import RecordingHandlers


@dataclass(slots=True, kw_only=True)
class Taken:
    """A message as the handlers got it."""

    facts: AssociationFacts
    context: AcceptedContext
    message: Message
    data_set: bytes
    answer: Callable[[Response], None]

    def respond(self, status: int = 0) -> None:
        """Answer it now, on whatever thread."""
        assert isinstance(self.message, NActionRequest)
        self.answer(self.message.respond(status))


class TakingHandlers(RecordingHandlers):
    """Takes what is no C-STORE and no C-ECHO. `replies` answers N-ACTION at once; without it the test does by `respond`."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_max = 1 << 25
        self.replies = True
        self.asked: list[Message] = []
        self.taken: list[Taken] = []

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:
        self.asked.append(message)
        return self.bytes_max

    def other_message(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        message: Message,
        data_set: bytes,
        answer: Callable[[Response], None],
    ) -> Response | None:
        if not isinstance(message, NActionRequest):
            if isinstance(message, Response):
                self.taken.append(
                    Taken(facts=facts, context=context, message=message, data_set=data_set, answer=answer)
                )
            return answer_verification(message)
        self.taken.append(
            Taken(facts=facts, context=context, message=message, data_set=data_set, answer=answer)
        )
        return message.respond(0) if self.replies else None
