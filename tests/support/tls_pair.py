"""Two ends of TLS in memory: the product's acceptor and requestor, and what each says of the other."""

from dataclasses import dataclass

from stowkeeper.net.tls_channel import TLSChannel
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.net.tls_errors import TLSFailure

ROUNDS_MAX = 20
"""Exchanges in which a handshake must be over; TLS 1.2 with a certificate on both sides takes three."""


@dataclass(slots=True, kw_only=True)
class Meeting:
    """A handshake, and how it ended on each side; no failure is an empty text."""

    acceptor: TLSChannel
    requestor: TLSChannel
    acceptor_failure: str = ""
    requestor_failure: str = ""

    @property
    def is_well(self) -> bool:
        """Whether both sides came to an end without a failure."""
        return not self.acceptor_failure and not self.requestor_failure

    def carry(self) -> None:
        """Carry bytes to and fro until none are left."""
        for _ in range(ROUNDS_MAX):
            to_acceptor, to_requestor = self.requestor.data_to_send(), self.acceptor.data_to_send()
            if not to_acceptor and not to_requestor:
                return
            if to_acceptor and not self.acceptor_failure:
                self.acceptor_failure = _failure_of(self.acceptor, to_acceptor)
            if to_requestor and not self.requestor_failure:
                self.requestor_failure = _failure_of(self.requestor, to_requestor)
        raise AssertionError("the two go on and on")


def _failure_of(channel: TLSChannel, data: bytes) -> str:
    try:
        channel.receive(data)
        if channel.is_established:
            assert not channel.read_into(memoryview(bytearray(100)))
    except TLSFailure as failure:
        return failure.words
    return ""


def meet(acceptor: TLSContext, requestor: TLSContext, server_name: str = "localhost") -> Meeting:
    """Let the two shake hands; also an alert that comes after the handshake, as in TLS 1.3, is read."""
    meeting = Meeting(acceptor=TLSChannel(acceptor), requestor=TLSChannel(requestor, server_name))
    meeting.acceptor.begin()
    meeting.requestor.begin()
    meeting.carry()
    return meeting
