"""Codes by which PS3.8 says why: results, sources and reasons, as data and in words.

A peer may send any value in these fields; fields that come from the wire are therefore plain integers, and
`words` describes those that no enumeration knows too.
"""

from enum import IntEnum


class AbortSource(IntEnum):
    """Who aborted (PS3.8 §9.3.8)."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why the service provider aborted (PS3.8 §9.3.8). Means nothing when the service user did."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class RejectResult(IntEnum):
    """Whether a later try may fare better (PS3.8 §9.3.4)."""

    PERMANENT = 1
    TRANSIENT = 2


class RejectSource(IntEnum):
    """Who rejected the association (PS3.8 §9.3.4)."""

    SERVICE_USER = 1
    SERVICE_PROVIDER_ACSE = 2
    SERVICE_PROVIDER_PRESENTATION = 3


class UserRejectionReason(IntEnum):
    """Why the service user rejected."""

    NO_REASON_GIVEN = 1
    APPLICATION_CONTEXT_NAME_NOT_SUPPORTED = 2
    CALLING_AE_TITLE_NOT_RECOGNIZED = 3
    CALLED_AE_TITLE_NOT_RECOGNIZED = 7


class ACSERejectionReason(IntEnum):
    """Why the service provider rejected, in its association control function."""

    NO_REASON_GIVEN = 1
    PROTOCOL_VERSION_NOT_SUPPORTED = 2


class PresentationRejectionReason(IntEnum):
    """Why the service provider rejected, in its presentation function."""

    TEMPORARY_CONGESTION = 1
    LOCAL_LIMIT_EXCEEDED = 2


REJECTION_REASONS: dict[int, type[IntEnum]] = {
    RejectSource.SERVICE_USER: UserRejectionReason,
    RejectSource.SERVICE_PROVIDER_ACSE: ACSERejectionReason,
    RejectSource.SERVICE_PROVIDER_PRESENTATION: PresentationRejectionReason,
}
"""Which enumeration tells the reason, by the source of the rejection."""


class PresentationResult(IntEnum):
    """What became of one proposed presentation context (PS3.8 §9.3.3.2)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


def words(codes: type[IntEnum] | None, value: int) -> str:
    """Say a code in words, also one that the standard does not define."""
    try:
        if codes is not None:
            return codes(value).name.lower().replace("_", " ")
    except ValueError:
        pass
    return f"reserved value {value}"
