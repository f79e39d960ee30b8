"""The two families of error at the wire: the peer broke the rules, or we did."""

from stowkeeper.upperlayer.reasons import AbortReason


class UpperLayerError(Exception):
    """Base of both families."""


class PeerProtocolError(UpperLayerError):
    """The peer sent what PS3.8 does not allow; the association can't go on.

    `reason` is what the A-ABORT tells the peer, `text` what a log line tells us. The text names lengths, types
    and states, never content.
    """

    def __init__(self, reason: AbortReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class LocalProtocolError(UpperLayerError):
    """The caller asked for something that the state of the association, or the wire format, does not allow."""
