"""Association negotiation as `storescp` and `dcmrecv` do it: a request and the rules of a command line in, an answer out.

Pure functions, on the values of the upper layer. Both tools let the acceptor's order of transfer syntaxes decide and
look at every context for itself; they differ in what they reject. Roles and extended negotiation are answered only
where a profile says so, and nothing else of the user information is answered at all.

Two kinds of request that DCMTK leaves without any answer, those without presentation context and those with an empty AE
title, are rejected here: their sender learns why, and nobody has to wait for a timeout.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from stowkeeper.dcmtk.preferences import Preference, accepted_transfer_syntaxes
from stowkeeper.dcmtk.profile_file import NegotiationProfile
from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES
from stowkeeper.dicom.sop_classes import SOP_CLASSES, Origin, is_known_not_storage, is_non_patient_storage
from stowkeeper.dicom.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.dicom.uid import (
    DICOM_APPLICATION_CONTEXT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    VERIFICATION,
    is_acceptable_uid,
)
from stowkeeper.upperlayer.items import (
    ContextResult,
    ProposedContext,
    Roles,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserInformation,
)
from stowkeeper.upperlayer.negotiation import Accepted, Rejected, provider_rejection
from stowkeeper.upperlayer.pdu import (
    REJECTED_APPLICATION_CONTEXT,
    REJECTED_CALLED_AE_TITLE,
    REJECTED_CALLING_AE_TITLE,
    REJECTED_NO_REASON,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
)
from stowkeeper.upperlayer.reasons import (
    PresentationResult,
    RejectResult,
    RejectSource,
    UserRejectionReason,
)

MAX_PDU_LENGTH_DEFAULT: Final = 16_384
"""Bytes of a P-DATA-TF that both tools announce to take unless -pdu says otherwise."""

DEFAULT_STORAGE_CLASSES: Final = frozenset(
    uid
    for uid in (row.partition(" ")[0] for row in STORAGE_CLASSES.splitlines())
    if not is_non_patient_storage(uid)
)
"""The storage classes that `storescp` accepts without a profile: all it knows whose objects belong to a patient."""

REJECTED_APPLICATION_CONTEXT_FOR_NOW: Final = AssociateRJ(
    result=RejectResult.TRANSIENT,
    source=RejectSource.SERVICE_USER,
    reason=UserRejectionReason.APPLICATION_CONTEXT_NAME_NOT_SUPPORTED,
)
"""How `dcmrecv` rejects another application context: as if a later try might fare better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorescpRules:
    """What the command line of `storescp` says about associations.

    With a `profile` (-xf) neither `preference` (+x…) nor `promiscuous` (-pm) counts. `refuse` is --refuse,
    `reject_without_implementation_class` is --reject: those whose request lacks an implementation class UID. `maximum_length` (-pdu) is
    announced, in bytes.
    """

    profile: NegotiationProfile | None = None
    preference: Preference = Preference.UNCOMPRESSED
    promiscuous: bool = False
    refuse: bool = False
    reject_without_implementation_class: bool = False
    maximum_length: int = MAX_PDU_LENGTH_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class DcmrecvRules:
    """What the command line of `dcmrecv` says about associations.

    Without a `profile` (-xf) only verification is accepted. `ae_title` (-aet) is the one called AE title that is let
    in, None for any (-uca). `maximum_length` (-pdu) is announced, in bytes.
    """

    profile: NegotiationProfile | None = None
    ae_title: str | None = None
    maximum_length: int = MAX_PDU_LENGTH_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRemark:
    """A role that was not granted as proposed, for the log; `refused` when its context was refused for it."""

    sop_class_uid: str
    refused: bool
    words: str


Offer = Callable[[str], tuple[str, ...] | None]
"""The transfer syntaxes that are accepted for an abstract syntax; None when that is not accepted at all."""


def negotiate_storescp(request: AssociateRQ, rules: StorescpRules) -> Accepted | Rejected:
    """Answer a request as `storescp` does: an association none of whose contexts is accepted is accepted too."""
    rejected = _rejected_by_storescp(request, rules)
    if rejected is not None:
        return rejected
    if rules.profile is not None:
        offer: Offer = rules.profile.transfer_syntaxes_by_abstract_syntax().get
    else:
        offer = _offer_without_profile(accepted_transfer_syntaxes(rules.preference), rules.promiscuous)
    return Accepted(response=_response(request, offer, rules.profile, rules.maximum_length))


def negotiate_dcmrecv(request: AssociateRQ, rules: DcmrecvRules) -> Accepted | Rejected:
    """Answer a request as `dcmrecv` does: an association none of whose contexts is accepted is rejected."""
    rejected = _rejected_by_dcmrecv(request, rules)
    if rejected is not None:
        return rejected
    if rules.profile is not None:
        offer: Offer = rules.profile.transfer_syntaxes_by_abstract_syntax().get
    else:
        offer = {VERIFICATION: (IMPLICIT_VR_LITTLE_ENDIAN,)}.get
    response = _response(request, offer, rules.profile, rules.maximum_length)
    if not any(result.is_accepted for result in response.presentation_contexts):
        return Rejected(
            rejection=REJECTED_NO_REASON,
            words=f"none of the {len(response.presentation_contexts)} presentation contexts could be accepted",
        )
    return Accepted(response=response)


def is_accepted_promiscuously(abstract_syntax: str) -> bool:
    """Tell whether -pm lets an abstract syntax in that is not accepted anyway: one that nobody has registered.

    What DICOM has given to another service, to objects without patient or to something that is no SOP class stays
    refused. Private classes are accepted, whatever they may be for.
    """
    if not is_acceptable_uid(abstract_syntax):
        return False
    known = SOP_CLASSES.get(abstract_syntax)
    if known is not None and known.origin is Origin.PRIVATE:
        return True
    return not is_known_not_storage(abstract_syntax) and not is_non_patient_storage(abstract_syntax)


def role_remarks(request: AssociateRQ, profile: NegotiationProfile | None) -> tuple[RoleRemark, ...]:
    """Say where the roles that a request proposes and those of a profile do not meet, once for each SOP class."""
    if profile is None or not profile.roles:
        return ()
    proposed = _proposed_roles(request.user_information)
    remarks = []
    for uid in dict.fromkeys(context.abstract_syntax for context in request.presentation_contexts):
        allowed = profile.roles.get(uid)
        if allowed is None:
            continue
        if _lacks_role(proposed.get(uid), allowed):
            words = "the requestor keeps the default role of SCU, and only that of SCP is configured"
            remarks.append(RoleRemark(sop_class_uid=uid, refused=True, words=words))
        elif uid in proposed and not any(_granted(proposed[uid], allowed)):
            words = "none of the roles proposed is configured, so none is granted"
            remarks.append(RoleRemark(sop_class_uid=uid, refused=False, words=words))
    return tuple(remarks)


# --- rejections


def _rejected_by_storescp(request: AssociateRQ, rules: StorescpRules) -> Rejected | None:
    rejected = _rejected_by_provider(request)
    if rejected is not None:
        return rejected
    if rules.refuse:
        return Rejected(rejection=REJECTED_NO_REASON, words="every association is refused (--refuse)")
    if request.application_context != DICOM_APPLICATION_CONTEXT:
        return _other_application_context(request, REJECTED_APPLICATION_CONTEXT)
    if rules.reject_without_implementation_class and not request.user_information.implementation_class_uid:
        return Rejected(
            rejection=REJECTED_NO_REASON, words="the request has no implementation class UID (--reject)"
        )
    return _rejected_where_dcmtk_is_silent(request)


def _rejected_by_dcmrecv(request: AssociateRQ, rules: DcmrecvRules) -> Rejected | None:
    rejected = _rejected_by_provider(request)
    if rejected is not None:
        return rejected
    if request.application_context != DICOM_APPLICATION_CONTEXT:
        return _other_application_context(request, REJECTED_APPLICATION_CONTEXT_FOR_NOW)
    if rules.ae_title is not None and request.called_ae_title != rules.ae_title.strip(" "):
        return Rejected(
            rejection=REJECTED_CALLED_AE_TITLE,
            words=f"the called AE title {request.called_ae_title!r} is not ours",
        )
    return _rejected_where_dcmtk_is_silent(request)


def _rejected_by_provider(request: AssociateRQ) -> Rejected | None:
    rejection = provider_rejection(request)
    if rejection is None:
        return None
    return Rejected(
        rejection=rejection, words=f"protocol version {request.protocol_version:04X}H lacks bit 0"
    )


def _other_application_context(request: AssociateRQ, rejection: AssociateRJ) -> Rejected:
    return Rejected(rejection=rejection, words=f"the application context is {request.application_context!r}")


def _rejected_where_dcmtk_is_silent(request: AssociateRQ) -> Rejected | None:
    if not request.called_ae_title:
        return Rejected(rejection=REJECTED_CALLED_AE_TITLE, words="the called AE title is empty")
    if not request.calling_ae_title:
        return Rejected(rejection=REJECTED_CALLING_AE_TITLE, words="the calling AE title is empty")
    if not request.presentation_contexts:
        return Rejected(rejection=REJECTED_NO_REASON, words="no presentation context was proposed")
    return None


# --- presentation contexts


def _offer_without_profile(transfer_syntaxes: tuple[str, ...], promiscuous: bool) -> Offer:
    def offer(abstract_syntax: str) -> tuple[str, ...] | None:
        accepted = (
            abstract_syntax == VERIFICATION
            or abstract_syntax in DEFAULT_STORAGE_CLASSES
            or (promiscuous and is_accepted_promiscuously(abstract_syntax))
        )
        return transfer_syntaxes if accepted else None

    return offer


def _response(
    request: AssociateRQ, offer: Offer, profile: NegotiationProfile | None, maximum_length: int
) -> AssociateAC:
    proposed: dict[int, ProposedContext] = {}
    for context in request.presentation_contexts:
        proposed.setdefault(context.context_id, context)
    roles = _proposed_roles(request.user_information)
    allowed = {} if profile is None else profile.roles
    results = tuple(_context_result(context, offer, roles, allowed) for context in proposed.values())
    classes = dict.fromkeys(
        proposed[result.context_id].abstract_syntax for result in results if result.is_accepted
    )
    return AssociateAC(
        presentation_contexts=results,
        user_information=UserInformation(
            maximum_length=maximum_length,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            role_selections=tuple(
                _role_selection(uid, _granted(roles[uid], allowed[uid]))
                for uid in classes
                if uid in roles and uid in allowed
            ),
            extended_negotiations=_extended_negotiations(profile, classes),
        ),
        echoed_fields=request.fields_to_echo(),
    )


def _context_result(
    context: ProposedContext, offer: Offer, proposed: Mapping[str, Roles], allowed: Mapping[str, Roles]
) -> ContextResult:
    accepted = offer(context.abstract_syntax)
    if accepted is None:
        return _refusal(context, PresentationResult.ABSTRACT_SYNTAX_NOT_SUPPORTED)
    offered = frozenset(context.transfer_syntaxes)
    chosen = next((uid for uid in accepted if uid in offered), None)
    if chosen is None:
        return _refusal(context, PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED)
    uid = context.abstract_syntax
    if uid in allowed and _lacks_role(proposed.get(uid), allowed[uid]):
        return _refusal(context, PresentationResult.NO_REASON)
    return ContextResult(
        context_id=context.context_id, result=PresentationResult.ACCEPTANCE, transfer_syntax=chosen
    )


def _refusal(context: ProposedContext, result: PresentationResult) -> ContextResult:
    return ContextResult(context_id=context.context_id, result=result)


# --- roles and extended negotiation


def _proposed_roles(wishes: UserInformation) -> dict[str, Roles]:
    """Return the roles that a requestor proposes, by SOP class; of two proposals for one the first counts.

    A proposal of neither role is read as one of both.
    """
    proposed: dict[str, Roles] = {}
    for selection in wishes.role_selections:
        neither = not (selection.scu_role or selection.scp_role)
        roles = Roles(scu=selection.scu_role or neither, scp=selection.scp_role or neither)
        proposed.setdefault(selection.sop_class_uid, roles)
    return proposed


def _lacks_role(proposed: Roles | None, allowed: Roles) -> bool:
    """Tell whether a requestor that proposes no role, and so is SCU, is left without one."""
    return proposed is None and not allowed.scu


def _granted(proposed: Roles, allowed: Roles) -> tuple[bool, bool]:
    """Return which of the proposed roles are granted: SCU, SCP."""
    return proposed.scu and allowed.scu, proposed.scp and allowed.scp


def _role_selection(uid: str, granted: tuple[bool, bool]) -> RoleSelection:
    scu, scp = granted
    return RoleSelection(sop_class_uid=uid, scu_role=scu, scp_role=scp)


def _extended_negotiations(
    profile: NegotiationProfile | None, classes: Mapping[str, None]
) -> tuple[SOPClassExtendedNegotiation, ...]:
    """Return what the profile holds for each class with an accepted context, asked for or not."""
    if profile is None:
        return ()
    return tuple(
        SOPClassExtendedNegotiation(sop_class_uid=uid, application_information=information)
        for uid, information in profile.application_information.items()
        if uid in classes
    )
