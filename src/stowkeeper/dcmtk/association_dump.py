"""What `storescp` and `dcmrecv` show of associations and messages in their logs, line by line.

The labels, their order and their indentation are those of DCMTK's programs, since scripts look for them. An association
is shown with +v, or at the level debug; messages at debug. What a peer chose is shown with control characters escaped, so
that it stays on its line. Of a user identity only its kind is told: names, passcodes and tickets never are.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Final

from stowkeeper.dcmtk.profile_names import NAMES_BY_UID
from stowkeeper.dicom.status import StatusCategory, category_of
from stowkeeper.dicom.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from stowkeeper.dimse.message_types import (
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    Priority,
    Request,
)
from stowkeeper.dimse.messages import Message, command_name
from stowkeeper.upperlayer.items import (
    ContextResult,
    ProposedContext,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserIdentityType,
    UserInformation,
)
from stowkeeper.upperlayer.pdu import AssociateAC, AssociateRJ, AssociateRQ
from stowkeeper.upperlayer.reasons import PresentationResult


class Direction(Enum):
    """Whether a message came from the peer or goes to it."""

    INCOMING = "INCOMING"
    OUTGOING = "OUTGOING"


def shown(text: str) -> str:
    """Return a text of a peer's with everything escaped that is not printable."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


# --- associations


_RESULTS: Final[Mapping[int, str]] = {
    PresentationResult.ACCEPTANCE: "Accepted",
    PresentationResult.USER_REJECTION: "User Rejection",
    PresentationResult.NO_REASON: "No Reason",
    PresentationResult.ABSTRACT_SYNTAX_NOT_SUPPORTED: "Abstract Syntax Not Supported",
    PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED: "Transfer Syntaxes Not Supported",
}

_BOTH: Final = "SCP/SCU"
"""What a proposal of neither role is taken for, too."""

_IDENTITIES: Final = {
    UserIdentityType.USERNAME: "1: Username",
    UserIdentityType.USERNAME_AND_PASSCODE: "2: Username/Password",
    UserIdentityType.KERBEROS: "3: Kerberos",
    UserIdentityType.SAML: "4: SAML",
    UserIdentityType.JWT: "5: JWT",
}


def request_lines(request: AssociateRQ, maximum_length: int) -> list[str]:
    """Return the lines of a request before it is answered. `maximum_length` is what we will announce, in bytes."""
    ours = UserInformation(
        maximum_length=maximum_length,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
    )
    proposed = _roles(request.user_information.role_selections, _BOTH)
    contexts = (line for context in request.presentation_contexts for line in _proposed(context, proposed))
    return list(_association_lines("RQ", request, ours, "", contexts))


def acceptance_lines(request: AssociateRQ, response: AssociateAC) -> list[str]:
    """Return the lines of an association that is accepted."""
    proposed = _roles(request.user_information.role_selections, _BOTH)
    accepted = _roles(response.user_information.role_selections, "None")
    abstract_syntaxes: dict[int, str] = {}
    for context in request.presentation_contexts:
        abstract_syntaxes.setdefault(context.context_id, context.abstract_syntax)
    contexts = (
        line
        for result in response.presentation_contexts
        for line in _answered(result, abstract_syntaxes.get(result.context_id, ""), proposed, accepted)
    )
    responding = request.called_ae_title
    return list(_association_lines("AC", request, response.user_information, responding, contexts))


def rejection_line(rejection: AssociateRJ) -> str:
    """Return the line of an association that is rejected: result, source and reason, in numbers and words."""
    return f"Association {rejection.words}"


def _association_lines(
    kind: str, request: AssociateRQ, ours: UserInformation, responding: str, contexts: Iterable[str]
) -> Iterator[str]:
    theirs = request.user_information
    yield f"====================== BEGIN A-ASSOCIATE-{kind} ====================="
    yield f"Our Implementation Class UID:      {ours.implementation_class_uid or ''}"
    yield f"Our Implementation Version Name:   {ours.implementation_version_name or ''}"
    yield f"Their Implementation Class UID:    {shown(theirs.implementation_class_uid or '')}"
    yield f"Their Implementation Version Name: {shown(theirs.implementation_version_name or '')}"
    yield f"Application Context Name:    {shown(request.application_context)}"
    yield f"Calling Application Name:    {shown(request.calling_ae_title)}"
    yield f"Called Application Name:     {shown(request.called_ae_title)}"
    yield f"Responding Application Name: {shown(responding)}"
    yield f"Our Max PDU Receive Size:    {ours.maximum_length or 0}"
    yield f"Their Max PDU Receive Size:  {theirs.maximum_length or 0}"
    yield "Presentation Contexts:"
    yield from contexts
    yield from _extended_negotiations("Requested Extended Negotiation: ", theirs.extended_negotiations)
    yield from _extended_negotiations("Accepted Extended Negotiation:  ", ours.extended_negotiations)
    yield from _identity(theirs)
    yield "User Identity Negotiation Response:  none"
    yield f"======================= END A-ASSOCIATE-{kind} ======================"


def _proposed(context: ProposedContext, proposed: Mapping[str, str]) -> Iterator[str]:
    yield from _context_head(context.context_id, "Proposed", context.abstract_syntax, proposed)
    yield "    Proposed Transfer Syntax(es):"
    yield from (f"      {_named(uid)}" for uid in context.transfer_syntaxes)


def _answered(
    result: ContextResult, abstract_syntax: str, proposed: Mapping[str, str], accepted: Mapping[str, str]
) -> Iterator[str]:
    words = _RESULTS.get(result.result, result.words)
    yield from _context_head(result.context_id, words, abstract_syntax, proposed)
    role = accepted.get(abstract_syntax, "Default") if result.is_accepted else "Default"
    yield f"    Accepted SCP/SCU Role: {role}"
    if result.is_accepted:
        yield f"    Accepted Transfer Syntax: {_named(result.transfer_syntax)}"


def _context_head(
    context_id: int, result: str, abstract_syntax: str, proposed: Mapping[str, str]
) -> Iterator[str]:
    yield f"  Context ID:        {context_id} ({result})"
    yield f"    Abstract Syntax: {_named(abstract_syntax)}"
    yield f"    Proposed SCP/SCU Role: {proposed.get(abstract_syntax, 'Default')}"


def _named(uid: str) -> str:
    name = NAMES_BY_UID.get(uid)
    return shown(uid) if name is None else f"={name}"


def _roles(selections: Iterable[RoleSelection], neither: str) -> dict[str, str]:
    """Return the words for the roles of each SOP class; of two selections for one the first counts."""
    names = {(True, True): _BOTH, (True, False): "SCU", (False, True): "SCP", (False, False): neither}
    words: dict[str, str] = {}
    for selection in selections:
        words.setdefault(selection.sop_class_uid, names[selection.scu_role, selection.scp_role])
    return words


def _extended_negotiations(label: str, negotiations: Iterable[SOPClassExtendedNegotiation]) -> Iterator[str]:
    lines = [line for negotiation in negotiations for line in _extended_negotiation(negotiation)]
    if lines:
        yield label.rstrip()
        yield from lines
    else:
        yield f"{label}none"


def _extended_negotiation(negotiation: SOPClassExtendedNegotiation) -> Iterator[str]:
    uid = negotiation.sop_class_uid
    information = ", ".join(f"0x{byte:02x}" for byte in negotiation.application_information)
    yield f"  ={NAMES_BY_UID.get(uid, 'Unknown-UID')} ({shown(uid)})"
    yield f"    [{information}]"


def _identity(theirs: UserInformation) -> Iterator[str]:
    identity = theirs.user_identity
    if identity is None:
        yield "Requested User Identity Negotiation: none"
        return
    yield "Requested User Identity Negotiation:"
    try:
        yield f"  Authentication mode {_IDENTITIES[UserIdentityType(identity.type)]}"
    except ValueError:
        yield "  Authentication mode: Unknown"
    yield f"  Positive Response requested: {'Yes' if identity.response_requested else 'No'}"


# --- messages


_STORE_STATUSES: Final = {
    0x0000: "Success",
    0x0118: "Invalid SOP Class",
    0x0122: "Refused: SOP Class not supported",
    0x0124: "Refused: Not authorized",
    0x0210: "Duplicate invocation",
    0x0211: "Unrecognized operation",
    0x0212: "Mistyped argument",
    0xB000: "Warning: Coercion of Data Elements",
    0xB006: "Warning: Elements discarded",
    0xB007: "Warning: Data Set does not match SOP Class",
}
_STORE_STATUS_RANGES: Final = (
    (0xA700, 0xA7FF, "Refused: Out of resources"),
    (0xA900, 0xA9FF, "Error: Data Set does not match SOP Class"),
    (0xC000, 0xCFFF, "Error: Cannot understand"),
)
_CATEGORIES: Final = {
    StatusCategory.SUCCESS: "Success",
    StatusCategory.WARNING: "Warning",
    StatusCategory.FAILURE: "Failure",
    StatusCategory.CANCEL: "Cancel",
    StatusCategory.PENDING: "Pending",
}
_PRIORITIES: Final[Mapping[int, str]] = {
    Priority.LOW: "low",
    Priority.MEDIUM: "medium",
    Priority.HIGH: "high",
}


def message_lines(message: Message, direction: Direction, context_id: int) -> list[str]:
    """Return the lines of a message in a presentation context: what its command says, nothing of its data set.

    Of messages that neither program serves only what all of them have is shown.
    """
    return [
        f"===================== {direction.value} DIMSE MESSAGE ====================",
        *(_labelled(label, value) for label, value in _fields(message, context_id)),
        "======================= END DIMSE MESSAGE =======================",
    ]


def store_status_words(status: int) -> str:
    """Say the status of a C-STORE-RSP in words."""
    known = _STORE_STATUSES.get(status)
    if known is not None:
        return known
    within = (words for first, last, words in _STORE_STATUS_RANGES if first <= status <= last)
    return next(within, _CATEGORIES[category_of(status)])


def _labelled(label: str, value: str) -> str:
    return f"{label:<30}: {value}"


def _fields(message: Message, context_id: int) -> Iterator[tuple[str, str]]:
    yield "Message Type", command_name(message.command_field).replace("-RQ", " RQ").replace("-RSP", " RSP")
    yield "Presentation Context ID", str(context_id)
    match message:
        case CStoreRequest():
            yield from _store_request(message)
        case CEchoRequest():
            yield "Message ID", str(message.message_id)
            yield _data_set(message.has_data_set)
        case CStoreResponse():
            yield from _response(message)
            yield "Affected SOP Instance UID", shown(message.affected_sop_instance_uid or "none")
            yield _data_set(message.has_data_set)
            yield "DIMSE Status", f"0x{message.status:04x}: {store_status_words(message.status)}"
        case CEchoResponse():
            yield from _response(message)
            yield _data_set(message.has_data_set)
            yield "DIMSE Status", f"0x{message.status:04x}: {_CATEGORIES[category_of(message.status)]}"
        case _:
            yield from _other(message)


def _store_request(message: CStoreRequest) -> Iterator[tuple[str, str]]:
    yield "Message ID", str(message.message_id)
    yield "Affected SOP Class UID", _class_name(message.affected_sop_class_uid)
    yield "Affected SOP Instance UID", shown(message.affected_sop_instance_uid or "none")
    yield _data_set(message.has_data_set)
    yield "Priority", _PRIORITIES.get(message.priority, str(message.priority))
    if message.move_originator_ae_title is not None:
        yield "Move Originator AE Title", shown(message.move_originator_ae_title)
    if message.move_originator_message_id is not None:
        yield "Move Originator ID", str(message.move_originator_message_id)


def _response(message: CStoreResponse | CEchoResponse) -> Iterator[tuple[str, str]]:
    yield "Message ID Being Responded To", str(message.responds_to)
    yield "Affected SOP Class UID", _class_name(message.affected_sop_class_uid)


def _other(message: Message) -> Iterator[tuple[str, str]]:
    if isinstance(message, Request):
        yield "Message ID", str(message.message_id)
    yield _data_set(message.has_data_set)


def _class_name(uid: str | None) -> str:
    return "none" if not uid else NAMES_BY_UID.get(uid) or shown(uid)


def _data_set(is_present: bool) -> tuple[str, str]:
    return "Data Set", "present" if is_present else "none"
