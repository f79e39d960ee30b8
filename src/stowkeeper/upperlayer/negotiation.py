"""Association negotiation: a request and a policy in, an answer out (PS3.8 §7.1.1, §9.3.3, PS3.7 Annex D).

Pure functions. What a peer got wrong is handled here and nowhere else:

- even context ids are echoed; a context id proposed twice is answered once, for its first proposal;
- a context without abstract syntax, or with one that is no UID, is refused as abstract syntax not supported; one
  without transfer syntax as transfer syntaxes not supported;
- a role proposal of neither SCU nor SCP counts as none made; a role that was not proposed is never given;
- who proposes no role is SCU; where that is not allowed its context is refused, since it would have no role in it;
- missing user information is a peer without wishes.

When no context can be accepted the association is accepted all the same (PS3.8 §7.1.1.14): its answer tells for
each context why, which a rejection can't. Only a request without any context is rejected.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from stowkeeper.dicom.commitment_information import COMMITMENT_TRANSFER_SYNTAXES
from stowkeeper.dicom.sop_classes import STORAGE_APPLICATION_INFORMATION, is_known_not_storage
from stowkeeper.dicom.transfer_syntaxes import SHIPPED_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import (
    DICOM_APPLICATION_CONTEXT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    STORAGE_COMMITMENT_PUSH_MODEL,
    VERIFICATION,
    is_acceptable_uid,
)
from stowkeeper.upperlayer.items import (
    REQUESTOR_ROLES_DEFAULT,
    AsynchronousOperationsWindow,
    ContextResult,
    OutgoingUserIdentity,
    ProposedContext,
    Roles,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserIdentityResponse,
    UserIdentityType,
    UserInformation,
)
from stowkeeper.upperlayer.limits import (
    MAX_PDU_LENGTH_LOCAL_DEFAULT,
    OPERATIONS_WINDOW_DEFAULT,
    PDU_LENGTH_PEER_CEILING,
    PDU_LENGTH_PEER_FLOOR,
    PDU_LENGTH_PEER_IF_UNLIMITED,
    PDU_LENGTH_PEER_IF_UNSAID,
)
from stowkeeper.upperlayer.pdu import (
    PROTOCOL_VERSION,
    REJECTED_APPLICATION_CONTEXT,
    REJECTED_CALLED_AE_TITLE,
    REJECTED_CALLING_AE_TITLE,
    REJECTED_NO_REASON,
    REJECTED_PROTOCOL_VERSION,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
)
from stowkeeper.upperlayer.reasons import PresentationResult


def is_storage(abstract_syntax: str) -> bool:
    """Whether an abstract syntax is taken for storage: any UID that is not known to be something else."""
    return is_acceptable_uid(abstract_syntax) and not is_known_not_storage(abstract_syntax)


def is_accepted_as_shipped(abstract_syntax: str) -> bool:
    """Whether an abstract syntax is accepted as shipped: storage, its commitment, and verification."""
    return abstract_syntax in {VERIFICATION, STORAGE_COMMITMENT_PUSH_MODEL} or is_storage(abstract_syntax)


SHIPPED_TRANSFER_SYNTAXES_BY_CLASS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {STORAGE_COMMITMENT_PUSH_MODEL: COMMITMENT_TRANSFER_SYNTAXES}
)
"""Classes whose data sets we read ourselves, so that they come in what we read."""

SHIPPED_ROLES: Final[Mapping[str, Roles]] = MappingProxyType(
    {STORAGE_COMMITMENT_PUSH_MODEL: Roles(scu=True, scp=True)}
)
"""Who asks for storage commitment is its SCU; who opens an association to report on what we asked for is its SCP (PS3.4 §J.3.1)."""


def refuse_nothing(_abstract_syntax: str) -> PresentationResult | None:
    """Refuse no context beyond those whose abstract syntax is not accepted."""
    return None


def accept_user_names(identity: UserIdentity) -> bool:
    """Take an identity that is a user name, with a passcode or without.

    The name is recorded and nothing is verified: no passcode is kept to verify it by. Tickets, assertions and
    tokens are not understood, so they are not confirmed.
    """
    return identity.type in {UserIdentityType.USERNAME, UserIdentityType.USERNAME_AND_PASSCODE}


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptancePolicy:
    """What an acceptor agrees to.

    A context is accepted when `accepts_abstract_syntax` says so, `refusal` (asked next, for what changes from hour
    to hour, such as a full disk) gives no result to refuse it with, and one of its transfer syntaxes is in
    `transfer_syntaxes`, or is unknown to us while `accept_unknown_transfer_syntaxes` is set. Of several the first
    as proposed is chosen, unless `preference` holds one of them: then the one that stands first in `preference`.
    `transfer_syntaxes_by_class` has those of single abstract syntaxes, and nothing else is taken for them;
    `prefers_own_order` chooses the one that stands first in our list, whatever `preference` is.

    `rejection_if_all_refused` rejects the association when no context is left; None accepts it.

    `roles` are those that a requestor may take, by abstract syntax; `default_roles` for all others. AE titles are
    compared without padding and with case; None lets any pass. `maximum_length` (bytes, 0 for unlimited) is
    announced. `operations_window` is the most operations that are outstanding each way, 0 for unlimited.
    `application_information` answers SOP class extended negotiation by abstract syntax (PS3.7 §D.3.3.5), and
    `storage_information` that of every other storage class (PS3.4 §B.3.1).
    """

    accepts_abstract_syntax: Callable[[str], bool] = is_accepted_as_shipped
    refusal: Callable[[str], PresentationResult | None] = refuse_nothing
    rejection_if_all_refused: AssociateRJ | None = None
    transfer_syntaxes: tuple[str, ...] = SHIPPED_TRANSFER_SYNTAXES
    accept_unknown_transfer_syntaxes: bool = False
    preference: tuple[str, ...] | None = None
    transfer_syntaxes_by_class: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: SHIPPED_TRANSFER_SYNTAXES_BY_CLASS
    )
    prefers_own_order: bool = False
    roles: Mapping[str, Roles] = field(default_factory=lambda: SHIPPED_ROLES)
    default_roles: Roles = REQUESTOR_ROLES_DEFAULT
    called_ae_titles: frozenset[str] | None = None
    calling_ae_titles: frozenset[str] | None = None
    maximum_length: int = MAX_PDU_LENGTH_LOCAL_DEFAULT
    operations_window: int = OPERATIONS_WINDOW_DEFAULT
    application_information: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    storage_information: bytes = STORAGE_APPLICATION_INFORMATION
    accepts_user_identity: Callable[[UserIdentity], bool] = accept_user_names
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID
    implementation_version_name: str = IMPLEMENTATION_VERSION_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedContext:
    """A presentation context in which messages may be sent.

    `requestor_roles` are what the association requestor may be in it; the acceptor has the other side of each.
    """

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    requestor_roles: Roles = REQUESTOR_ROLES_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The association is to be accepted, by this response."""

    response: AssociateAC


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The association is to be rejected; `words` tell a log reader why."""

    rejection: AssociateRJ
    words: str


def negotiate(request: AssociateRQ, policy: AcceptancePolicy) -> Accepted | Rejected:
    """Answer a request.

    Checks in this order, each with its rejection (result, source, reason): protocol version (1,2,2), application
    context (1,1,2), called AE title (1,1,7), calling AE title (1,1,3), no context proposed (1,1,1), every context
    refused (the policy's own).
    """
    rejected = _rejected(request, policy)
    if rejected is not None:
        return rejected
    proposed = _first_of_each_id(request.presentation_contexts)
    transfer_syntaxes = frozenset(policy.transfer_syntaxes)
    roles = _proposed_roles(request.user_information)
    results = tuple(
        _context_result(context, policy, transfer_syntaxes, roles) for context in proposed.values()
    )
    classes = {proposed[result.context_id].abstract_syntax for result in results if result.is_accepted}
    if not classes and policy.rejection_if_all_refused is not None:
        return Rejected(
            rejection=policy.rejection_if_all_refused,
            words=f"none of the {len(results)} presentation contexts could be accepted",
        )
    return Accepted(
        response=AssociateAC(
            presentation_contexts=results,
            user_information=_user_information(request.user_information, policy, classes),
            echoed_fields=request.fields_to_echo(),
        )
    )


def provider_rejection(request: AssociateRQ) -> AssociateRJ | None:
    """Say whether the upper layer itself can serve a request: protocol version bit 0 is set (PS3.8 §9.3.2).

    Further bits may be set: they name versions that do not exist yet.
    """
    return None if request.protocol_version & PROTOCOL_VERSION else REJECTED_PROTOCOL_VERSION


def _rejected(request: AssociateRQ, policy: AcceptancePolicy) -> Rejected | None:
    rejection = provider_rejection(request)
    if rejection is not None:
        return Rejected(
            rejection=rejection, words=f"protocol version {request.protocol_version:04X}H lacks bit 0"
        )
    if request.application_context != DICOM_APPLICATION_CONTEXT:
        return Rejected(
            rejection=REJECTED_APPLICATION_CONTEXT,
            words=f"the application context is {request.application_context!r}",
        )
    if policy.called_ae_titles is not None and request.called_ae_title not in policy.called_ae_titles:
        return Rejected(
            rejection=REJECTED_CALLED_AE_TITLE,
            words=f"the called AE title {request.called_ae_title!r} is none of ours",
        )
    if policy.calling_ae_titles is not None and request.calling_ae_title not in policy.calling_ae_titles:
        return Rejected(
            rejection=REJECTED_CALLING_AE_TITLE,
            words=f"the calling AE title {request.calling_ae_title!r} is not among those allowed",
        )
    if not request.presentation_contexts:
        return Rejected(rejection=REJECTED_NO_REASON, words="no presentation context was proposed")
    return None


# --- presentation contexts


def _first_of_each_id(contexts: Iterable[ProposedContext]) -> dict[int, ProposedContext]:
    first: dict[int, ProposedContext] = {}
    for context in contexts:
        first.setdefault(context.context_id, context)
    return first


def _context_result(
    context: ProposedContext,
    policy: AcceptancePolicy,
    accepted: frozenset[str],
    proposed_roles: Mapping[str, Roles],
) -> ContextResult:
    if not is_acceptable_uid(context.abstract_syntax) or not policy.accepts_abstract_syntax(
        context.abstract_syntax
    ):
        return ContextResult(
            context_id=context.context_id, result=PresentationResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        )
    refusal = policy.refusal(context.abstract_syntax)
    if refusal is not None:
        return ContextResult(context_id=context.context_id, result=refusal)
    chosen = _choose_transfer_syntax(context, policy, accepted)
    if chosen is None:
        return ContextResult(
            context_id=context.context_id, result=PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
        )
    allowed = policy.roles.get(context.abstract_syntax, policy.default_roles)
    if not allowed.scu and context.abstract_syntax not in proposed_roles:
        return ContextResult(context_id=context.context_id, result=PresentationResult.NO_REASON)
    return ContextResult(
        context_id=context.context_id, result=PresentationResult.ACCEPTANCE, transfer_syntax=chosen
    )


def _choose_transfer_syntax(
    context: ProposedContext, policy: AcceptancePolicy, accepted: frozenset[str]
) -> str | None:
    of_class = policy.transfer_syntaxes_by_class.get(context.abstract_syntax)
    candidates = [
        uid
        for uid in context.transfer_syntaxes
        if uid in (accepted if of_class is None else of_class)
        or (
            policy.accept_unknown_transfer_syntaxes
            and of_class is None
            and uid not in TRANSFER_SYNTAXES
            and is_acceptable_uid(uid)
        )
    ]
    preference = policy.preference
    if policy.prefers_own_order:
        preference = policy.transfer_syntaxes if of_class is None else of_class
    if preference is not None:
        offered = set(candidates)
        for preferred in preference:
            if preferred in offered:
                return preferred
    return candidates[0] if candidates else None


def accepted_contexts(request: AssociateRQ, response: AssociateAC) -> Mapping[int, AcceptedContext]:
    """Bring together what was proposed and what was accepted, by context id.

    Both sides use it. An acceptance of a context, or with a transfer syntax, that was not proposed is left out:
    nothing can be sent in it.
    """
    roles = _requestor_roles(request.user_information, response.user_information)
    proposed = _first_of_each_id(request.presentation_contexts)
    contexts = {}
    for result in response.presentation_contexts:
        context = proposed.get(result.context_id)
        if context is not None and result.is_accepted and result.transfer_syntax in context.transfer_syntaxes:
            contexts[result.context_id] = AcceptedContext(
                context_id=result.context_id,
                abstract_syntax=context.abstract_syntax,
                transfer_syntax=result.transfer_syntax,
                requestor_roles=roles.get(context.abstract_syntax, REQUESTOR_ROLES_DEFAULT),
            )
    return MappingProxyType(contexts)


# --- user information


def _user_information(
    wishes: UserInformation, policy: AcceptancePolicy, classes: set[str]
) -> UserInformation:
    """Answer the requestor's user information; `classes` are those with an accepted context."""
    return UserInformation(
        maximum_length=policy.maximum_length,
        implementation_class_uid=policy.implementation_class_uid,
        implementation_version_name=policy.implementation_version_name,
        operations_window=_window(wishes.operations_window, policy.operations_window),
        role_selections=_role_selections(wishes, policy, classes),
        extended_negotiations=_extended_negotiations(wishes, policy, classes),
        user_identity_response=_user_identity_response(wishes.user_identity, policy),
    )


def _window(proposed: AsynchronousOperationsWindow | None, most: int) -> AsynchronousOperationsWindow | None:
    """Agree to what was proposed, at most `most` each way (PS3.7 §D.3.3.3). 0 is unlimited on either side."""
    if proposed is None:
        return None
    return AsynchronousOperationsWindow(
        invoked=_smaller_limit(proposed.invoked, most), performed=_smaller_limit(proposed.performed, most)
    )


def _smaller_limit(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other


def _proposed_roles(wishes: UserInformation) -> dict[str, Roles]:
    return {
        selection.sop_class_uid: Roles(scu=selection.scu_role, scp=selection.scp_role)
        for selection in wishes.role_selections
        if selection.scu_role or selection.scp_role
    }


def _role_selections(
    wishes: UserInformation, policy: AcceptancePolicy, classes: set[str]
) -> tuple[RoleSelection, ...]:
    selections = []
    for sop_class_uid, proposed in _proposed_roles(wishes).items():
        if sop_class_uid in classes:
            allowed = policy.roles.get(sop_class_uid, policy.default_roles)
            selections.append(
                RoleSelection(
                    sop_class_uid=sop_class_uid,
                    scu_role=proposed.scu and allowed.scu,
                    scp_role=proposed.scp and allowed.scp,
                )
            )
    return tuple(selections)


def _requestor_roles(wishes: UserInformation, answer: UserInformation) -> dict[str, Roles]:
    """Say which roles were agreed, by abstract syntax: proposed and returned (PS3.7 §D.3.3.4)."""
    proposed = _proposed_roles(wishes)
    agreed = {}
    for selection in answer.role_selections:
        asked = proposed.get(selection.sop_class_uid)
        if asked is not None:
            agreed[selection.sop_class_uid] = Roles(
                scu=asked.scu and selection.scu_role, scp=asked.scp and selection.scp_role
            )
    return agreed


def _extended_negotiations(
    wishes: UserInformation, policy: AcceptancePolicy, classes: set[str]
) -> tuple[SOPClassExtendedNegotiation, ...]:
    """Answer where asked, for the classes of the policy and for storage classes (PS3.4 §B.3.1)."""
    asked = dict.fromkeys(negotiation.sop_class_uid for negotiation in wishes.extended_negotiations)
    information = {
        uid: policy.application_information.get(uid, policy.storage_information if is_storage(uid) else None)
        for uid in asked
        if uid in classes
    }
    return tuple(
        SOPClassExtendedNegotiation(sop_class_uid=uid, application_information=answer)
        for uid, answer in information.items()
        if answer is not None
    )


def _user_identity_response(
    identity: UserIdentity | OutgoingUserIdentity | None, policy: AcceptancePolicy
) -> UserIdentityResponse | None:
    if (
        isinstance(identity, UserIdentity)
        and identity.response_requested
        and policy.accepts_user_identity(identity)
    ):
        return UserIdentityResponse()
    return None


def effective_max_pdu_length(announced: int | None) -> int:
    """Say how long a P-DATA-TF to a peer may be at most, by the maximum length that it announced.

    Always even and within the floor and ceiling of `limits`: 0 (unlimited), absurd and missing values come to a
    number that can be worked with. Bytes, as in the PDU-length field.
    """
    if announced is None:
        return PDU_LENGTH_PEER_IF_UNSAID
    if announced == 0:
        return PDU_LENGTH_PEER_IF_UNLIMITED
    return max(PDU_LENGTH_PEER_FLOOR, min(announced, PDU_LENGTH_PEER_CEILING)) & ~1
