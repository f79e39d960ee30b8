"""Negotiation: a request and a policy in, an answer out."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upperlayer_samples import CT, accept, context, request, requests

from stowkeeper.dicom.sop_classes import SOP_CLASSES, SOPClassKind
from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_BASELINE_8_BIT,
    SHIPPED_TRANSFER_SYNTAXES,
    TRANSFER_SYNTAXES,
)
from stowkeeper.dicom.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, VERIFICATION
from stowkeeper.upperlayer.decode import decode_pdu
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.items import (
    AsynchronousOperationsWindow,
    ContextResult,
    Roles,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserIdentityResponse,
    UserInformation,
)
from stowkeeper.upperlayer.limits import (
    OPERATIONS_WINDOW_DEFAULT,
    PDU_LENGTH_PEER_CEILING,
    PDU_LENGTH_PEER_FLOOR,
    PDU_LENGTH_PEER_IF_UNLIMITED,
    PDU_LENGTH_PEER_IF_UNSAID,
)
from stowkeeper.upperlayer.negotiation import (
    AcceptancePolicy,
    Accepted,
    AcceptedContext,
    Rejected,
    accepted_contexts,
    effective_max_pdu_length,
    is_accepted_as_shipped,
    is_storage,
    negotiate,
    provider_rejection,
)
from stowkeeper.upperlayer.pdu import REJECTED_LOCAL_LIMIT_EXCEEDED
from stowkeeper.upperlayer.reasons import PresentationResult
from support.examples import examples

MR = "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.1.1"
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_PULL = "1.2.840.10008.1.20.2"
PRIVATE = "1.3.6.1.4.1.99999.1"
JPIP = "1.2.840.10008.1.2.4.94"
UNKNOWN_SYNTAX = "1.3.6.1.4.1.99999.2"


def rejected(asked, **policy):
    answer = negotiate(asked, AcceptancePolicy(**policy))
    assert isinstance(answer, Rejected)
    rejection = answer.rejection
    return (rejection.result, rejection.source, rejection.reason), answer.words


def codes(response):
    return [(result.context_id, int(result.result)) for result in response.presentation_contexts]


# --- rejections


def test_protocol_version_is_bit_0_and_no_other():
    asked = dataclasses.replace(request(), protocol_version=0x0002)
    assert rejected(asked) == ((1, 2, 2), "protocol version 0002H lacks bit 0")
    assert provider_rejection(dataclasses.replace(request(), protocol_version=0xFFFF)) is None
    assert isinstance(
        negotiate(dataclasses.replace(request(), protocol_version=3), AcceptancePolicy()), Accepted
    )


def test_the_application_context_is_the_one_of_dicom():
    for other in ("1.2.840.10008.3.1.1.2", ""):
        code, words = rejected(dataclasses.replace(request(), application_context=other))
        assert code == (1, 1, 2)
        assert repr(other) in words


def test_ae_titles_are_checked_only_when_asked_for():
    asked = request(called="PACS", calling="CT1")
    accept(asked)
    accept(asked, called_ae_titles=frozenset({"PACS", "X"}), calling_ae_titles=frozenset({"CT1"}))
    code, words = rejected(asked, called_ae_titles=frozenset({"pacs"}))
    assert (code, "'PACS'" in words) == ((1, 1, 7), True)
    code, words = rejected(asked, calling_ae_titles=frozenset({"CT2"}))
    assert (code, "'CT1'" in words) == ((1, 1, 3), True)
    assert rejected(asked, called_ae_titles=frozenset(), calling_ae_titles=frozenset())[0] == (1, 1, 7)


def test_a_request_without_contexts_is_rejected():
    assert rejected(dataclasses.replace(request(), presentation_contexts=()))[0] == (1, 1, 1)


def test_an_association_without_any_accepted_context_is_accepted_unless_the_policy_says_otherwise():
    asked = request(context(1, FIND), context(3, COMMITMENT_PULL))
    assert codes(accept(asked)) == [(1, 3), (3, 3)]
    code, words = rejected(asked, rejection_if_all_refused=REJECTED_LOCAL_LIMIT_EXCEEDED)
    assert code == (2, 3, 2)
    assert "none of the 2 presentation contexts" in words


def test_a_full_disk_refuses_storage_and_goes_on_with_the_rest():
    policy = {
        "refusal": lambda uid: PresentationResult.NO_REASON if is_storage(uid) else None,
        "rejection_if_all_refused": REJECTED_LOCAL_LIMIT_EXCEEDED,
    }
    assert codes(accept(request(context(1, CT), context(3, VERIFICATION)), **policy)) == [(1, 2), (3, 0)]
    assert rejected(request(context(1, CT)), **policy)[0] == (2, 3, 2)


# --- presentation contexts


def test_everything_is_accepted_that_is_not_known_to_be_something_else():
    for known in SOP_CLASSES.values():
        expected = known.kind is not SOPClassKind.OTHER or known.uid in {VERIFICATION, COMMITMENT}
        assert is_accepted_as_shipped(known.uid) == expected
    assert is_storage(PRIVATE)
    assert not is_storage(VERIFICATION)
    assert not is_storage(IMPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize("abstract_syntax", ["", "1.2.x", "1" * 65, FIND])
def test_what_is_no_storage_class_is_refused_by_name(abstract_syntax):
    assert codes(accept(request(context(1, abstract_syntax)))) == [(1, 3)]


def test_a_class_can_be_refused_by_configuration():
    assert codes(accept(request(context(1, CT), context(3, MR)), accepts_abstract_syntax=CT.__eq__)) == [
        (1, 0),
        (3, 3),
    ]


def test_the_first_acceptable_transfer_syntax_as_proposed_is_chosen():
    asked = request(context(1, CT, JPIP, UNKNOWN_SYNTAX, EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN))
    [result] = accept(asked).presentation_contexts
    assert result.transfer_syntax == EXPLICIT_VR_BIG_ENDIAN


def test_a_preference_list_decides_where_it_can():
    asked = request(
        context(1, CT, JPEG_BASELINE_8_BIT, EXPLICIT_VR_LITTLE_ENDIAN), context(3, MR, JPEG_BASELINE_8_BIT)
    )
    first, second = accept(
        asked, preference=(JPIP, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    ).presentation_contexts
    assert first.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    assert second.transfer_syntax == JPEG_BASELINE_8_BIT


def test_single_classes_may_have_transfer_syntaxes_of_their_own():
    mine = {CT: (JPEG_BASELINE_8_BIT, IMPLICIT_VR_LITTLE_ENDIAN), MR: (JPIP,)}
    asked = request(
        context(1, CT, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, JPEG_BASELINE_8_BIT),
        context(3, MR, EXPLICIT_VR_LITTLE_ENDIAN),
        context(5, PRIVATE, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN),
    )

    def chosen(**policy):
        results = accept(asked, transfer_syntaxes_by_class=mine, **policy).presentation_contexts
        return [(int(result.result), result.transfer_syntax) for result in results]

    refused = (4, chosen()[1][1])
    assert chosen() == [(0, IMPLICIT_VR_LITTLE_ENDIAN), refused, (0, IMPLICIT_VR_LITTLE_ENDIAN)]
    ours = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    assert chosen(prefers_own_order=True, transfer_syntaxes=ours) == [
        (0, JPEG_BASELINE_8_BIT),
        refused,
        (0, EXPLICIT_VR_LITTLE_ENDIAN),
    ]
    assert chosen(preference=(EXPLICIT_VR_LITTLE_ENDIAN, JPEG_BASELINE_8_BIT))[0] == (0, JPEG_BASELINE_8_BIT)


def test_a_preference_accepts_nothing_that_is_not_accepted():
    asked = request(context(1, CT, JPIP, IMPLICIT_VR_LITTLE_ENDIAN))
    assert (
        accept(asked, preference=(JPIP,)).presentation_contexts[0].transfer_syntax
        == IMPLICIT_VR_LITTLE_ENDIAN
    )


def test_every_shipped_transfer_syntax_is_accepted():
    for uid in SHIPPED_TRANSFER_SYNTAXES:
        assert accept(request(context(1, CT, uid))).presentation_contexts[0].transfer_syntax == uid


def test_unknown_transfer_syntaxes_are_a_setting():
    asked = request(context(1, CT, "no uid", JPIP, UNKNOWN_SYNTAX))
    assert JPIP in TRANSFER_SYNTAXES
    assert codes(accept(asked)) == [(1, 4)]
    [result] = accept(asked, accept_unknown_transfer_syntaxes=True).presentation_contexts
    assert result == ContextResult(context_id=1, result=0, transfer_syntax=UNKNOWN_SYNTAX)


def test_a_context_without_transfer_syntax_is_refused():
    asked = request(dataclasses.replace(context(1, CT), transfer_syntaxes=()))
    [result] = accept(asked).presentation_contexts
    assert result == ContextResult(context_id=1, result=4, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN)


def test_even_ids_are_echoed_and_several_contexts_of_one_class_answered_each():
    asked = request(context(2, CT), context(1, CT), context(0, MR), context(255, CT))
    assert codes(accept(asked)) == [(2, 0), (1, 0), (0, 0), (255, 0)]


def test_an_id_proposed_twice_is_answered_once_for_its_first_proposal():
    asked = request(
        context(1, CT, IMPLICIT_VR_LITTLE_ENDIAN), context(1, FIND), context(1, MR, EXPLICIT_VR_LITTLE_ENDIAN)
    )
    response = accept(asked)
    assert codes(response) == [(1, 0)]
    assert accepted_contexts(asked, response)[1].abstract_syntax == CT


def test_more_than_128_contexts_are_answered():
    asked = request(*(context(number, CT) for number in range(256)))
    assert len(accepted_contexts(asked, accept(asked))) == 256


# --- what both sides agree on


def test_an_accepted_context_tells_all_that_was_agreed():
    asked = request(context(1, CT), context(3, FIND))
    assert dict(accepted_contexts(asked, accept(asked))) == {
        1: AcceptedContext(
            context_id=1,
            abstract_syntax=CT,
            transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN,
            requestor_roles=Roles(scu=True, scp=False),
        )
    }


def test_acceptance_of_what_was_not_proposed_is_left_out():
    asked = request(context(1, CT, IMPLICIT_VR_LITTLE_ENDIAN))
    response = accept(asked)
    foreign = (
        ContextResult(context_id=1, result=0, transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN),
        ContextResult(context_id=5, result=0, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN),
    )
    assert accepted_contexts(asked, dataclasses.replace(response, presentation_contexts=foreign)) == {}


# --- user information


def information(asked, **policy):
    return accept(asked, **policy).user_information


def test_a_peer_without_wishes_gets_three_items():
    assert information(request()) == UserInformation(
        maximum_length=4096,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
    )
    without = dataclasses.replace(request(), user_information=UserInformation())
    assert information(without) == information(request())


@pytest.mark.parametrize(
    ("proposed", "most", "agreed"),
    [
        ((1, 1), 8, (1, 1)),
        ((100, 3), 8, (8, 3)),
        ((0, 0), 8, (8, 8)),
        ((0, 5), 0, (0, 5)),
        ((0, 0), 0, (0, 0)),
    ],
)
def test_the_window_is_the_smaller_one(proposed, most, agreed):
    window = AsynchronousOperationsWindow(invoked=proposed[0], performed=proposed[1])
    answer = information(request(operations_window=window), operations_window=most).operations_window
    assert (answer.invoked, answer.performed) == agreed


def test_the_window_as_shipped():
    window = AsynchronousOperationsWindow(invoked=0, performed=0)
    assert (
        information(request(operations_window=window)).operations_window.invoked == OPERATIONS_WINDOW_DEFAULT
    )


def role(scu, scp, uid=CT):
    return RoleSelection(sop_class_uid=uid, scu_role=scu, scp_role=scp)


@pytest.mark.parametrize("proposed", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("allowed", [(True, False), (False, True), (True, True), (False, False)])
def test_a_role_is_given_when_it_was_proposed_and_is_allowed(proposed, allowed):
    asked = request(role_selections=(role(*proposed),))
    roles = {CT: Roles(scu=allowed[0], scp=allowed[1])}
    response = accept(asked, roles=roles)
    agreed = (proposed[0] and allowed[0], proposed[1] and allowed[1])
    assert response.user_information.role_selections == (role(*agreed),)
    assert accepted_contexts(asked, response)[1].requestor_roles == Roles(scu=agreed[0], scp=agreed[1])
    assert accepted_contexts(asked, response)[3].requestor_roles == Roles(scu=True, scp=False)


def test_roles_are_by_abstract_syntax_and_only_of_accepted_contexts():
    asked = request(
        context(1, CT),
        context(3, COMMITMENT),
        role_selections=(role(False, True, COMMITMENT), role(True, True), role(True, True, MR)),
    )
    assert information(asked).role_selections == (role(False, True, COMMITMENT), role(True, False))
    assert information(asked, roles={}).role_selections == (role(False, False, COMMITMENT), role(True, False))
    refused = information(asked, accepts_abstract_syntax=is_storage).role_selections
    assert refused == (role(True, False),)


@pytest.mark.parametrize("proposed", [(True, False), (False, True), (True, True)])
def test_whoever_takes_part_in_storage_commitment_has_the_role_that_it_proposes(proposed):
    asked = request(context(1, COMMITMENT), role_selections=(role(*proposed, COMMITMENT),))
    answer = accept(asked)
    assert answer.user_information.role_selections == (role(*proposed, COMMITMENT),)
    roles = accepted_contexts(asked, answer)[1].requestor_roles
    assert (roles.scu, roles.scp) == proposed


def test_who_says_nothing_of_roles_asks_for_storage_commitment():
    asked = request(context(1, COMMITMENT))
    answer = accept(asked)
    assert answer.user_information.role_selections == ()
    assert accepted_contexts(asked, answer)[1].requestor_roles == Roles(scu=True, scp=False)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN), IMPLICIT_VR_LITTLE_ENDIAN),
        ((JPEG_BASELINE_8_BIT, UNKNOWN_SYNTAX, EXPLICIT_VR_BIG_ENDIAN), EXPLICIT_VR_BIG_ENDIAN),
        ((DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN),
        ((DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, UNKNOWN_SYNTAX), None),
    ],
)
def test_storage_commitment_comes_in_what_is_read_whatever_else_is_taken(offered, chosen):
    asked = request(context(1, COMMITMENT, *offered), context(3, CT, *offered))
    policy = {"transfer_syntaxes": (JPEG_BASELINE_8_BIT,), "accept_unknown_transfer_syntaxes": True}
    (result, _) = accept(asked, **policy).presentation_contexts
    assert result.result == (0 if chosen else 4)
    assert not result.is_accepted or result.transfer_syntax == chosen


@pytest.mark.parametrize("proposed", [(), (role(False, False),)])
def test_who_proposes_no_role_is_scu_and_refused_where_only_the_scp_is_allowed(proposed):
    asked = request(context(1, CT), context(3, MR), role_selections=proposed)
    assert codes(accept(asked, roles={CT: Roles(scu=False, scp=True)})) == [(1, 2), (3, 0)]
    assert codes(accept(asked, roles={CT: Roles(scu=True, scp=True)})) == [(1, 0), (3, 0)]
    assert codes(accept(asked, default_roles=Roles(scu=False, scp=True))) == [(1, 2), (3, 2)]


def test_a_proposal_of_no_role_counts_as_none():
    asked = request(role_selections=(role(False, False),))
    response = accept(asked)
    assert response.user_information.role_selections == ()
    assert accepted_contexts(asked, response)[1].requestor_roles == Roles(scu=True, scp=False)


def test_a_role_that_was_not_proposed_is_not_agreed():
    asked = request(role_selections=(role(True, False),))
    response = accept(asked)
    generous = dataclasses.replace(
        response,
        user_information=UserInformation(role_selections=(role(True, True), role(True, True, VERIFICATION))),
    )
    contexts = accepted_contexts(asked, generous)
    assert contexts[1].requestor_roles == contexts[3].requestor_roles == Roles(scu=True, scp=False)


def extended(uid):
    return SOPClassExtendedNegotiation(sop_class_uid=uid, application_information=bytes(6))


def test_extended_negotiation_of_storage_is_answered_as_level_2_where_asked():
    asked = request(
        context(1, CT),
        context(3, VERIFICATION),
        context(5, FIND),
        extended_negotiations=(
            extended(CT),
            extended(CT),
            extended(VERIFICATION),
            extended(FIND),
            extended(MR),
        ),
        common_extended_negotiations=(
            SOPClassCommonExtendedNegotiation(sop_class_uid=CT, service_class_uid="1.2.840.10008.4.2"),
        ),
    )
    answer = information(asked, accepts_abstract_syntax=lambda _: True)
    [storage] = answer.extended_negotiations
    assert storage.sop_class_uid == CT
    assert storage.application_information[0] == 2  # level of support: full
    assert len(storage.application_information) == 6
    assert answer.common_extended_negotiations == ()
    assert information(request()).extended_negotiations == ()


def identity(identity_type, requested=True):
    return UserIdentity(
        type=identity_type,
        primary_name="bob",
        response_requested=requested,
        primary_length=3,
        secondary_length=0,
    )


@pytest.mark.parametrize(
    ("identity_type", "answered"), [(1, True), (2, True), (3, False), (4, False), (5, False), (9, False)]
)
def test_a_user_identity_is_confirmed_only_when_asked_for_and_understood(identity_type, answered):
    expected = UserIdentityResponse() if answered else None
    assert information(request(user_identity=identity(identity_type))).user_identity_response == expected
    assert (
        information(request(user_identity=identity(identity_type, requested=False))).user_identity_response
        is None
    )


def test_the_policy_may_confirm_none():
    asked = request(user_identity=identity(1))
    assert information(asked, accepts_user_identity=lambda _: False).user_identity_response is None


# --- the peer's maximum length


@pytest.mark.parametrize(
    ("announced", "effective"),
    [
        (None, PDU_LENGTH_PEER_IF_UNSAID),
        (0, PDU_LENGTH_PEER_IF_UNLIMITED),
        (1, PDU_LENGTH_PEER_FLOOR),
        (7, PDU_LENGTH_PEER_FLOOR),
        (8, 8),
        (9, 8),
        (16383, 16382),
        (131072, 131072),
        (PDU_LENGTH_PEER_CEILING + 1, PDU_LENGTH_PEER_CEILING),
        (0xFFFFFFFF, PDU_LENGTH_PEER_CEILING),
    ],
)
def test_any_announced_maximum_comes_to_one_that_works(announced, effective):
    assert effective_max_pdu_length(announced) == effective


@given(st.integers(0, 0xFFFFFFFF))
def test_the_effective_maximum_is_even_and_within_its_bounds(announced):
    effective = effective_max_pdu_length(announced)
    assert effective % 2 == 0
    assert PDU_LENGTH_PEER_FLOOR <= effective <= PDU_LENGTH_PEER_CEILING
    assert announced == 0 or effective <= max(announced, PDU_LENGTH_PEER_FLOOR)


# --- any request


@pytest.mark.slow
@settings(max_examples=examples(50))
@given(requests, st.booleans())
def test_any_request_has_an_answer_that_can_be_sent(asked, is_dicom):
    if is_dicom:
        asked = dataclasses.replace(
            asked, application_context=request().application_context, protocol_version=1
        )
    data = encode_pdu(asked)
    received = decode_pdu(1, memoryview(data)[6:])
    answer = negotiate(received, AcceptancePolicy(accept_unknown_transfer_syntaxes=True))
    if isinstance(answer, Rejected):
        assert answer.words
        encode_pdu(answer.rejection)
        return
    encoded = encode_pdu(answer.response)
    assert encoded[10:74] == data[10:74]
    assert decode_pdu(2, memoryview(encoded)[6:]) == answer.response
    proposed = {offered.context_id: offered for offered in reversed(received.presentation_contexts)}
    assert {result.context_id for result in answer.response.presentation_contexts} == set(proposed)
    for accepted in accepted_contexts(received, answer.response).values():
        assert accepted.transfer_syntax in proposed[accepted.context_id].transfer_syntaxes
        assert accepted.abstract_syntax == proposed[accepted.context_id].abstract_syntax


def test_extended_negotiation_is_answered_as_the_policy_says_where_asked():
    asked = request(
        context(1, CT),
        context(3, MR),
        context(5, FIND),
        context(7, VERIFICATION),
        extended_negotiations=(extended(CT), extended(MR), extended(FIND), extended(VERIFICATION)),
    )
    own = {CT: b"\1\2", FIND: b"\3", PRIVATE: b"\4"}
    answer = information(asked, accepts_abstract_syntax=lambda _: True, application_information=own)
    found = {item.sop_class_uid: item.application_information for item in answer.extended_negotiations}
    assert found == {CT: b"\1\2", MR: found[MR], FIND: b"\3"}
    assert found[MR][0] == 2
    nothing_asked = request(context(1, CT))
    assert information(nothing_asked, application_information=own).extended_negotiations == ()
