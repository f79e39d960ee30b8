"""The seven PDUs of PS3.8 §9.3 as values. `str()` of each gives the standard's name."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from stowkeeper.dicom.ae_title import encode_ae_title
from stowkeeper.dicom.uid import DICOM_APPLICATION_CONTEXT
from stowkeeper.upperlayer.items import ContextResult, ProposedContext, UserInformation
from stowkeeper.upperlayer.reasons import (
    REJECTION_REASONS,
    AbortReason,
    AbortSource,
    ACSERejectionReason,
    PresentationRejectionReason,
    RejectResult,
    RejectSource,
    UserRejectionReason,
    words,
)

PDU_HEADER_LENGTH: Final = 6
"""PDU type, a reserved byte and the PDU length."""

PDV_HEADER_LENGTH: Final = 6
"""PDV item length, presentation context id and message control header (PS3.8 §9.3.5.1, §E.2)."""

PROTOCOL_VERSION: Final = 1
"""Bit 0, the only version there is (PS3.8 §9.3.2)."""

ECHOED_FIELDS_LENGTH: Final = 64
"""Both AE titles and the reserved field behind them: bytes 11-74 of A-ASSOCIATE-RQ and -AC."""


class PDUType(IntEnum):
    """First byte of a PDU."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07

    def __str__(self) -> str:
        return self.name.replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRQ:
    """A-ASSOCIATE-RQ (PS3.8 §9.3.2).

    AE titles are without padding. `echoed_fields` are bytes 11-74 as they came, which the answer returns
    unchanged; empty in a request of our own.
    """

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[ProposedContext, ...]
    user_information: UserInformation
    application_context: str = DICOM_APPLICATION_CONTEXT
    protocol_version: int = PROTOCOL_VERSION
    echoed_fields: bytes = field(default=b"", compare=False, repr=False)

    def __str__(self) -> str:
        return str(PDUType.A_ASSOCIATE_RQ)

    def fields_to_echo(self) -> bytes:
        """Give bytes 11-74 for the A-ASSOCIATE-AC that answers this request (PS3.8 §9.3.3)."""
        return self.echoed_fields or (
            encode_ae_title(self.called_ae_title) + encode_ae_title(self.calling_ae_title) + bytes(32)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateAC:
    """A-ASSOCIATE-AC (PS3.8 §9.3.3). Its AE title fields mean nothing; they only return those of the request."""

    presentation_contexts: tuple[ContextResult, ...]
    user_information: UserInformation
    application_context: str = DICOM_APPLICATION_CONTEXT
    protocol_version: int = PROTOCOL_VERSION
    echoed_fields: bytes = field(default=bytes(ECHOED_FIELDS_LENGTH), repr=False)

    def __str__(self) -> str:
        return str(PDUType.A_ASSOCIATE_AC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRJ:
    """A-ASSOCIATE-RJ (PS3.8 §9.3.4): result, source and reason, which may be values that nobody defined."""

    result: int
    source: int
    reason: int

    def __str__(self) -> str:
        return str(PDUType.A_ASSOCIATE_RJ)

    @property
    def words(self) -> str:
        """The rejection in words, with its numbers."""
        return (
            f"rejected ({self.result},{self.source},{self.reason}): {words(RejectResult, self.result)},"
            f" by {words(RejectSource, self.source)},"
            f" {words(REJECTION_REASONS.get(self.source), self.reason)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PDV:
    """A presentation data value with its message control header (PS3.8 §9.3.5.1, §E.2)."""

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PDataTF:
    """P-DATA-TF, whole (PS3.8 §9.3.5).

    For tools and tests: the receive path streams `PDVFragment` events and never builds one.
    """

    pdvs: tuple[PDV, ...]

    def __str__(self) -> str:
        return str(PDUType.P_DATA_TF)


@dataclass(frozen=True, slots=True)
class ReleaseRQ:
    """A-RELEASE-RQ (PS3.8 §9.3.6)."""

    def __str__(self) -> str:
        return str(PDUType.A_RELEASE_RQ)


@dataclass(frozen=True, slots=True)
class ReleaseRP:
    """A-RELEASE-RP (PS3.8 §9.3.7)."""

    def __str__(self) -> str:
        return str(PDUType.A_RELEASE_RP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """A-ABORT (PS3.8 §9.3.8): source and reason, which may be values that nobody defined."""

    source: int = AbortSource.SERVICE_USER
    reason: int = AbortReason.NOT_SPECIFIED

    def __str__(self) -> str:
        return str(PDUType.A_ABORT)

    @property
    def words(self) -> str:
        """The abort in words, with its numbers."""
        if self.source == AbortSource.SERVICE_USER:
            return f"aborted ({self.source},{self.reason}): by {words(AbortSource, self.source)}"
        return (
            f"aborted ({self.source},{self.reason}): by {words(AbortSource, self.source)},"
            f" {words(AbortReason, self.reason)}"
        )


PDU = AssociateRQ | AssociateAC | AssociateRJ | PDataTF | ReleaseRQ | ReleaseRP | Abort


REJECTED_NO_REASON: Final = AssociateRJ(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_USER,
    reason=UserRejectionReason.NO_REASON_GIVEN,
)
REJECTED_APPLICATION_CONTEXT: Final = AssociateRJ(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_USER,
    reason=UserRejectionReason.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED,
)
REJECTED_CALLING_AE_TITLE: Final = AssociateRJ(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_USER,
    reason=UserRejectionReason.CALLING_AE_TITLE_NOT_RECOGNIZED,
)
REJECTED_CALLED_AE_TITLE: Final = AssociateRJ(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_USER,
    reason=UserRejectionReason.CALLED_AE_TITLE_NOT_RECOGNIZED,
)
REJECTED_PROTOCOL_VERSION: Final = AssociateRJ(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_PROVIDER_ACSE,
    reason=ACSERejectionReason.PROTOCOL_VERSION_NOT_SUPPORTED,
)
REJECTED_TEMPORARY_CONGESTION: Final = AssociateRJ(
    result=RejectResult.TRANSIENT,
    source=RejectSource.SERVICE_PROVIDER_PRESENTATION,
    reason=PresentationRejectionReason.TEMPORARY_CONGESTION,
)
REJECTED_LOCAL_LIMIT_EXCEEDED: Final = AssociateRJ(
    result=RejectResult.TRANSIENT,
    source=RejectSource.SERVICE_PROVIDER_PRESENTATION,
    reason=PresentationRejectionReason.LOCAL_LIMIT_EXCEEDED,
)
