"""Why an association that we asked for is not there, or no more: each error is a sentence for a person.

All of them come from outside: the line, the peer, its answers. What a caller does wrong is a `LocalError` or a
`LocalProtocolError` of the rooms below.
"""

from typing import Final

from stowkeeper.upperlayer.pdu import AssociateRJ
from stowkeeper.upperlayer.reasons import (
    PresentationRejectionReason,
    RejectResult,
    RejectSource,
    UserRejectionReason,
)

_REJECTIONS: Final[dict[tuple[int, int], str]] = {
    (RejectSource.SERVICE_USER, UserRejectionReason.CALLING_AE_TITLE_NOT_RECOGNIZED): (
        "it does not know the calling AE title; have it entered there, or call by one that it knows"
    ),
    (RejectSource.SERVICE_USER, UserRejectionReason.CALLED_AE_TITLE_NOT_RECOGNIZED): (
        "it does not go by the called AE title; ask for its own"
    ),
    (RejectSource.SERVICE_PROVIDER_PRESENTATION, PresentationRejectionReason.TEMPORARY_CONGESTION): (
        "it is too busy; try again later"
    ),
    (RejectSource.SERVICE_PROVIDER_PRESENTATION, PresentationRejectionReason.LOCAL_LIMIT_EXCEEDED): (
        "one of its limits is reached; try again later"
    ),
}


class AssociationError(Exception):
    """Base of all: the text is a sentence that names the peer and holds no patient data."""


class PeerUnreachableError(AssociationError):
    """There is no TCP connection to the peer."""


class TLSRefusedError(PeerUnreachableError):
    """The TLS handshake failed: by us, by the peer, or since one side speaks no TLS."""


class AssociationRejectedError(AssociationError):
    """The peer sent A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""

    def __init__(self, peer: str, rejection: AssociateRJ) -> None:
        hint = _REJECTIONS.get((rejection.source, rejection.reason))
        said = f"{peer}: the association was {rejection.words}"
        super().__init__(f"{said}: {hint}." if hint else f"{said}.")
        self.rejection = rejection

    @property
    def result(self) -> int:
        """Whether the rejection is permanent (1) or transient (2)."""
        return self.rejection.result

    @property
    def source(self) -> int:
        """Who rejected: 1 service user, 2 and 3 service provider."""
        return self.rejection.source

    @property
    def reason(self) -> int:
        """Why; what the number means depends on the source."""
        return self.rejection.reason

    @property
    def is_transient(self) -> bool:
        """Whether the peer says that a later try may fare better."""
        return self.rejection.result == RejectResult.TRANSIENT


class AssociationAbortedError(AssociationError):
    """The association ended by A-ABORT (PS3.8 §9.3.8): the peer's, or ours since the peer broke the rules."""

    def __init__(self, sentence: str, *, source: int, reason: int, by_us: bool) -> None:
        super().__init__(sentence)
        self.source = source
        self.reason = reason
        self.by_us = by_us


class AssociationLostError(AssociationError):
    """The association ended otherwise: the connection broke, the peer released it, or we ended it."""


class PeerTimeoutError(AssociationError):
    """The peer owed an answer, or was to take data, and nothing moved for the time allowed."""
