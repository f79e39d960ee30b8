"""The messages of PS3.7 as values: what a command says, without its encoding.

Field names are the standard's, in full. A UID that is None was absent; an empty one was sent without characters.
Neither is judged here: the service decides what it refuses, and every request makes its own answer by `respond`.
`messages` reads and writes them.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final

from stowkeeper.dicom.uid import UID_LENGTH_MAX
from stowkeeper.dimse.command_set import is_encodable
from stowkeeper.dimse.limits import ERROR_COMMENT_LENGTH_MAX

RESPONSE_BIT: Final = 0x8000
"""Set in the Command Field of every response (PS3.7 §E.1)."""


class Priority(IntEnum):
    """Values of Priority (0000,0700) (PS3.7 §9.3.1.1); a provider may pay no heed."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


def shorten_error_comment(text: str) -> str | None:
    """Make an Error Comment of any text: printable ASCII, at most 64 characters, None when nothing is left.

    Other characters become "?", a backslash (which would part two values) becomes "/", blanks at the ends go, and a
    text that is too long ends in "...".
    """
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text.strip()).replace("\\", "/")
    if len(plain) > ERROR_COMMENT_LENGTH_MAX:
        plain = plain[: ERROR_COMMENT_LENGTH_MAX - 3].rstrip() + "..."
    return plain or None


def echoed_uid(uid: str | None) -> str | None:
    """Return the UID of a request as its response may carry it: trimmed, and None when VR UI cannot hold it.

    A response need not repeat UIDs; where it does they equal those of the request (PS3.7 Table 9.1-1), so a UID that
    is malformed but can be sent is repeated as it came.
    """
    return uid if uid is not None and is_encodable(uid, UID_LENGTH_MAX) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer to an operation or a notification.

    `status` is one of PS3.7 Annex C, as a number since a peer may send any. `offending_elements` are tags as 32-bit
    numbers ggggeeee.
    """

    command_field: ClassVar[int]
    expects_response: ClassVar[bool] = False

    responds_to: int
    status: int
    affected_sop_class_uid: str | None = None
    error_comment: str | None = None
    error_id: int | None = None
    offending_elements: tuple[int, ...] = ()
    has_data_set: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceResponse(Response):
    """An answer that may name the SOP Instance."""

    affected_sop_instance_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An operation to be performed or a notification to be taken."""

    command_field: ClassVar[int]
    expects_response: ClassVar[bool] = True
    response_type: ClassVar[type[Response]]

    message_id: int
    has_data_set: bool = False

    def respond(
        self,
        status: int,
        *,
        error_comment: str | None = None,
        error_id: int | None = None,
        offending_elements: tuple[int, ...] = (),
    ) -> Response:
        """Return the answer to this request, with its identifiers as far as they can be repeated.

        `error_comment` may be any text (see `shorten_error_comment`), but must not tell of the patient.
        """
        return self.response_type(
            responds_to=self.message_id,
            status=status,
            error_comment=shorten_error_comment(error_comment) if error_comment else None,
            error_id=error_id,
            offending_elements=offending_elements,
            **self._echo(),
        )

    def _echo(self) -> dict[str, Any]:
        """Return the identifiers that the response takes from this request; those of a bare request are none."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectedInstanceRequest(Request):
    """A request that names its SOP Class and Instance as the affected ones."""

    affected_sop_class_uid: str | None
    affected_sop_instance_uid: str | None

    def _echo(self) -> dict[str, Any]:
        return {
            "affected_sop_class_uid": echoed_uid(self.affected_sop_class_uid),
            "affected_sop_instance_uid": echoed_uid(self.affected_sop_instance_uid),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedInstanceRequest(Request):
    """A request that names its SOP Class and Instance as the requested ones; its response calls them affected."""

    requested_sop_class_uid: str | None
    requested_sop_instance_uid: str | None

    def _echo(self) -> dict[str, Any]:
        return {
            "affected_sop_class_uid": echoed_uid(self.requested_sop_class_uid),
            "affected_sop_instance_uid": echoed_uid(self.requested_sop_instance_uid),
        }


# C-STORE (PS3.7 §9.3.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CStoreResponse(InstanceResponse):
    """C-STORE-RSP (PS3.7 Table 9.3-2)."""

    command_field: ClassVar[int] = 0x8001


@dataclass(frozen=True, slots=True, kw_only=True)
class CStoreRequest(AffectedInstanceRequest):
    """C-STORE-RQ (PS3.7 Table 9.3-1).

    The standard demands a data set; `has_data_set` is False when the command denies it, which the service refuses.
    """

    command_field: ClassVar[int] = 0x0001
    response_type: ClassVar[type[Response]] = CStoreResponse

    priority: int = Priority.MEDIUM
    move_originator_ae_title: str | None = None
    move_originator_message_id: int | None = None

    def respond(
        self,
        status: int,
        *,
        error_comment: str | None = None,
        error_id: int | None = None,
        offending_elements: tuple[int, ...] = (),
    ) -> CStoreResponse:
        """Return the answer, as `Request.respond` does; spelled out, since every instance received passes here."""
        return CStoreResponse(
            responds_to=self.message_id,
            status=status,
            affected_sop_class_uid=echoed_uid(self.affected_sop_class_uid),
            affected_sop_instance_uid=echoed_uid(self.affected_sop_instance_uid),
            error_comment=shorten_error_comment(error_comment) if error_comment else None,
            error_id=error_id,
            offending_elements=offending_elements,
        )


# C-ECHO (PS3.7 §9.3.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class CEchoResponse(Response):
    """C-ECHO-RSP (PS3.7 Table 9.3-13)."""

    command_field: ClassVar[int] = 0x8030


@dataclass(frozen=True, slots=True, kw_only=True)
class CEchoRequest(Request):
    """C-ECHO-RQ (PS3.7 Table 9.3-12)."""

    command_field: ClassVar[int] = 0x0030
    response_type: ClassVar[type[Response]] = CEchoResponse

    affected_sop_class_uid: str | None

    def _echo(self) -> dict[str, Any]:
        return {"affected_sop_class_uid": echoed_uid(self.affected_sop_class_uid)}


# C-CANCEL (PS3.7 §9.3.2.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class CCancelRequest:
    """C-CANCEL-RQ: asks to end the operation whose message id is `responds_to`, and is itself never answered."""

    command_field: ClassVar[int] = 0x0FFF
    expects_response: ClassVar[bool] = False

    responds_to: int
    has_data_set: bool = False


# The normalized services (PS3.7 §10.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class NEventReportResponse(InstanceResponse):
    """N-EVENT-REPORT-RSP (PS3.7 Table 10.3-2)."""

    command_field: ClassVar[int] = 0x8100

    event_type_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NEventReportRequest(AffectedInstanceRequest):
    """N-EVENT-REPORT-RQ (PS3.7 Table 10.3-1)."""

    command_field: ClassVar[int] = 0x0100
    response_type: ClassVar[type[Response]] = NEventReportResponse

    event_type_id: int | None

    def _echo(self) -> dict[str, Any]:
        return {
            "affected_sop_class_uid": echoed_uid(self.affected_sop_class_uid),
            "affected_sop_instance_uid": echoed_uid(self.affected_sop_instance_uid),
            "event_type_id": self.event_type_id,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NGetResponse(InstanceResponse):
    """N-GET-RSP (PS3.7 Table 10.3-4)."""

    command_field: ClassVar[int] = 0x8110


@dataclass(frozen=True, slots=True, kw_only=True)
class NGetRequest(RequestedInstanceRequest):
    """N-GET-RQ (PS3.7 Table 10.3-3). An empty list of tags (32-bit numbers ggggeeee) asks for all attributes."""

    command_field: ClassVar[int] = 0x0110
    response_type: ClassVar[type[Response]] = NGetResponse

    attribute_identifier_list: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NSetResponse(InstanceResponse):
    """N-SET-RSP (PS3.7 Table 10.3-6)."""

    command_field: ClassVar[int] = 0x8120


@dataclass(frozen=True, slots=True, kw_only=True)
class NSetRequest(RequestedInstanceRequest):
    """N-SET-RQ (PS3.7 Table 10.3-5)."""

    command_field: ClassVar[int] = 0x0120
    response_type: ClassVar[type[Response]] = NSetResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class NActionResponse(InstanceResponse):
    """N-ACTION-RSP (PS3.7 Table 10.3-8)."""

    command_field: ClassVar[int] = 0x8130

    action_type_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NActionRequest(RequestedInstanceRequest):
    """N-ACTION-RQ (PS3.7 Table 10.3-7)."""

    command_field: ClassVar[int] = 0x0130
    response_type: ClassVar[type[Response]] = NActionResponse

    action_type_id: int | None

    def _echo(self) -> dict[str, Any]:
        return {
            "affected_sop_class_uid": echoed_uid(self.requested_sop_class_uid),
            "affected_sop_instance_uid": echoed_uid(self.requested_sop_instance_uid),
            "action_type_id": self.action_type_id,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NCreateResponse(InstanceResponse):
    """N-CREATE-RSP (PS3.7 Table 10.3-10); it names the instance when the provider chose its UID."""

    command_field: ClassVar[int] = 0x8140


@dataclass(frozen=True, slots=True, kw_only=True)
class NCreateRequest(AffectedInstanceRequest):
    """N-CREATE-RQ (PS3.7 Table 10.3-9); without an instance UID the provider chooses one."""

    command_field: ClassVar[int] = 0x0140
    response_type: ClassVar[type[Response]] = NCreateResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class NDeleteResponse(InstanceResponse):
    """N-DELETE-RSP (PS3.7 Table 10.3-12)."""

    command_field: ClassVar[int] = 0x8150


@dataclass(frozen=True, slots=True, kw_only=True)
class NDeleteRequest(RequestedInstanceRequest):
    """N-DELETE-RQ (PS3.7 Table 10.3-11)."""

    command_field: ClassVar[int] = 0x0150
    response_type: ClassVar[type[Response]] = NDeleteResponse


# Everything else: C-FIND, C-GET, C-MOVE, and commands that no edition names


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownResponse(Response):
    """A response to an operation that this room does not perform; `command_field` has the response bit."""

    command_field: int  # type: ignore[misc]  # the only response whose instances differ in it


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownRequest(Request):
    """A request for an operation that this room does not perform; it is answered 0211H, unrecognized operation.

    Its response has the same command field with the response bit, and the SOP Class if there was one.
    """

    command_field: int  # type: ignore[misc]  # the only request whose instances differ in it
    response_type: ClassVar[type[Response]] = UnknownResponse

    affected_sop_class_uid: str | None = None

    def _echo(self) -> dict[str, Any]:
        return {
            "command_field": self.command_field | RESPONSE_BIT,
            "affected_sop_class_uid": echoed_uid(self.affected_sop_class_uid),
        }
