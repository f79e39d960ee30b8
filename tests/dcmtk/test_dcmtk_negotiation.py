"""Negotiation by the rules of a command line: contexts, roles, extended negotiation and rejections of both tools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.negotiation import (
    DEFAULT_STORAGE_CLASSES,
    DcmrecvRules,
    StorescpRules,
    is_accepted_promiscuously,
    negotiate_dcmrecv,
    negotiate_storescp,
    role_remarks,
)
from stowkeeper.dcmtk.preferences import Preference
from stowkeeper.dcmtk.profile_file import NegotiationProfile, ProfileContext
from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES
from stowkeeper.dicom.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, VERIFICATION
from stowkeeper.upperlayer.items import (
    AsynchronousOperationsWindow,
    ProposedContext,
    Roles,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserInformation,
)
from stowkeeper.upperlayer.negotiation import Accepted, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
HANGING_PROTOCOL = "1.2.840.10008.5.1.4.38.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PRIVATE = "1.2.840.113619.4.26"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG, J2K = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"
NEITHER, SCU, SCP, BOTH = (0, 0), (1, 0), (0, 1), (1, 1)


def context(context_id, abstract_syntax, *transfer_syntaxes):
    return ProposedContext(
        context_id=context_id,
        abstract_syntax=abstract_syntax,
        transfer_syntaxes=transfer_syntaxes or (EXPLICIT,),
    )


def request(*contexts, user=None, **more):
    values = {"called_ae_title": "CALLED", "calling_ae_title": "CALLING", **more}
    information = {"maximum_length": 16384, "implementation_class_uid": "1.2.3", **(user or {})}
    return AssociateRQ(
        presentation_contexts=contexts, user_information=UserInformation(**information), **values
    )


def roles_of(*proposals):
    return {
        "role_selections": tuple(
            RoleSelection(sop_class_uid=uid, scu_role=bool(scu), scp_role=bool(scp))
            for uid, (scu, scp) in proposals
        )
    }


def profile(*abstract_syntaxes, syntaxes=(EXPLICIT, IMPLICIT), roles=None, information=None):
    return NegotiationProfile(
        name="P",
        contexts=tuple(
            ProfileContext(abstract_syntax=uid, transfer_syntaxes=syntaxes) for uid in abstract_syntaxes
        ),
        roles={uid: Roles(scu=bool(scu), scp=bool(scp)) for uid, (scu, scp) in (roles or {}).items()},
        application_information=information or {},
    )


def results(answer):
    assert isinstance(answer, Accepted), answer
    return {
        found.context_id: (found.result, found.transfer_syntax)
        for found in answer.response.presentation_contexts
    }


def storescp(*contexts, user=None, **rules):
    return results(negotiate_storescp(request(*contexts, user=user), StorescpRules(**rules)))


def rejection(answer):
    assert isinstance(answer, Rejected), answer
    assert answer.words
    return answer.rejection.result, answer.rejection.source, answer.rejection.reason


# --- storescp without a profile


def test_the_classes_accepted_without_a_profile():
    assert len(DEFAULT_STORAGE_CLASSES) == 202
    known = {row.split()[0] for row in STORAGE_CLASSES.splitlines()}
    assert len(known - DEFAULT_STORAGE_CLASSES) == 9
    assert storescp(context(1, CT), context(3, VERIFICATION), context(5, HANGING_PROTOCOL)) == {
        1: (0, EXPLICIT),
        3: (0, EXPLICIT),
        5: (3, IMPLICIT),
    }


def test_the_order_of_the_acceptor_decides():
    for proposal in ((IMPLICIT, BIG, EXPLICIT), (EXPLICIT, IMPLICIT, BIG)):
        assert storescp(context(1, CT, *proposal), preference=Preference.BIG_ENDIAN) == {1: (0, BIG)}
    assert storescp(context(1, CT, IMPLICIT, JPEG, J2K), preference=Preference.ACCEPT_ALL) == {1: (0, J2K)}


def test_every_context_is_looked_at_for_itself():
    assert storescp(
        context(1, CT, JPEG),
        context(3, CT, EXPLICIT),
        context(5, VERIFICATION, JPEG),
        preference=Preference.JPEG_8_BIT,
    ) == {1: (0, JPEG), 3: (0, EXPLICIT), 5: (0, JPEG)}


def test_refusals_and_the_syntax_they_name():
    assert storescp(context(1, "1.2.3"), context(3, CT, JPEG), context(5, ""), context(7, CT)) == {
        1: (3, IMPLICIT),
        3: (4, IMPLICIT),
        5: (3, IMPLICIT),
        7: (0, EXPLICIT),
    }
    nothing_proposed = ProposedContext(context_id=1, abstract_syntax=CT, transfer_syntaxes=())
    assert storescp(nothing_proposed) == {1: (4, IMPLICIT)}


def test_an_association_without_accepted_context_is_accepted():
    assert storescp(context(1, "1.2.3")) == {1: (3, IMPLICIT)}


def test_of_an_id_proposed_twice_the_first_is_answered():
    assert storescp(context(1, CT), context(1, "1.2.3"), context(4, CT)) == {
        1: (0, EXPLICIT),
        4: (0, EXPLICIT),
    }


@pytest.mark.parametrize(
    ("uid", "accepted"),
    [
        ("1.2.3.4.5", True),
        (PRIVATE, True),
        ("1.2.40.0.13.0.5.1.4.1.2.2.2", True),  # private, of another service
        ("1.2.840.10008.5.1.4.1.1.99999", True),
        ("1.2.840.10008.5.1.4.1.1.40", True),
        (STUDY_ROOT_FIND, False),
        (HANGING_PROTOCOL, False),
        ("1.2.840.10008.1.20.1", False),
        ("1.2.840.10008.1.2.1", False),
        ("1.2.840.10008.5.1.1.9", False),
        ("abc", False),
        ("", False),
    ],
)
def test_promiscuous_acceptance(uid, accepted):
    assert is_accepted_promiscuously(uid) is accepted
    assert storescp(context(1, uid)) == {1: (3, IMPLICIT)}
    expected = (0, EXPLICIT) if accepted else (3, IMPLICIT)
    assert storescp(context(1, uid), promiscuous=True) == {1: expected}


def test_promiscuous_acceptance_takes_the_same_transfer_syntaxes():
    rules = {"promiscuous": True, "preference": Preference.IMPLICIT_ONLY}
    assert storescp(context(1, "1.2.3", EXPLICIT), context(3, "1.2.3", IMPLICIT), **rules) == {
        1: (4, IMPLICIT),
        3: (0, IMPLICIT),
    }


def test_what_the_answer_says_of_us_and_what_it_leaves_out():
    wishes = {
        "operations_window": AsynchronousOperationsWindow(invoked=4, performed=4),
        "user_identity": UserIdentity(
            type=1, primary_name="X", response_requested=True, primary_length=1, secondary_length=0
        ),
        "extended_negotiations": (
            SOPClassExtendedNegotiation(sop_class_uid=CT, application_information=b"\2"),
        ),
        **roles_of((CT, BOTH)),
    }
    asked = request(context(1, CT), user=wishes, echoed_fields=bytes(range(64)))
    answer = negotiate_storescp(asked, StorescpRules(maximum_length=4096))
    assert answer.response.user_information == UserInformation(
        maximum_length=4096,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
    )
    assert answer.response.echoed_fields == bytes(range(64))


# --- profiles


def test_a_profile_stands_in_the_place_of_the_built_in_list():
    only_ct = profile(CT, syntaxes=(JPEG, EXPLICIT))
    assert storescp(
        context(1, CT, EXPLICIT, JPEG),
        context(3, VERIFICATION),
        context(5, CT, IMPLICIT),
        profile=only_ct,
        preference=Preference.ACCEPT_ALL,
        promiscuous=True,
    ) == {1: (0, JPEG), 3: (3, IMPLICIT), 5: (4, IMPLICIT)}


ROLE_MATRIX = {
    # (proposed, configured): (result, what the answer grants)
    (None, None): (0, None),
    (None, SCU): (0, None),
    (None, SCP): (2, None),
    (None, BOTH): (0, None),
    (SCU, None): (0, None),
    (SCU, SCU): (0, SCU),
    (SCU, SCP): (0, NEITHER),
    (SCU, BOTH): (0, SCU),
    (SCP, None): (0, None),
    (SCP, SCU): (0, NEITHER),
    (SCP, SCP): (0, SCP),
    (SCP, BOTH): (0, SCP),
    (BOTH, None): (0, None),
    (BOTH, SCU): (0, SCU),
    (BOTH, SCP): (0, SCP),
    (BOTH, BOTH): (0, BOTH),
    (NEITHER, None): (0, None),
    (NEITHER, SCU): (0, SCU),
    (NEITHER, SCP): (0, SCP),
    (NEITHER, BOTH): (0, BOTH),
}


@pytest.mark.parametrize(("roles", "outcome"), ROLE_MATRIX.items())
@pytest.mark.parametrize("tool", ["storescp", "dcmrecv"])
def test_the_role_matrix(tool, roles, outcome):
    proposed, configured = roles
    expected, granted = outcome
    rules = profile(CT, MR, roles={} if configured is None else {CT: configured})
    asked = request(
        context(1, CT), context(3, MR), user=roles_of() if proposed is None else roles_of((CT, proposed))
    )
    if tool == "storescp":
        answer = negotiate_storescp(asked, StorescpRules(profile=rules))
    else:
        answer = negotiate_dcmrecv(asked, DcmrecvRules(profile=rules))
    assert results(answer)[1] == (expected, IMPLICIT if expected else EXPLICIT)
    selections = answer.response.user_information.role_selections
    assert [(found.sop_class_uid, (found.scu_role, found.scp_role)) for found in selections] == (
        [] if granted is None else [(CT, granted)]
    )
    remarks = role_remarks(asked, rules)
    assert [remark.refused for remark in remarks] == (
        [True] if expected else [False] if granted == NEITHER else []
    )


def test_a_role_is_answered_once_for_each_class_and_the_first_proposal_counts():
    rules = profile(CT, MR, roles={CT: BOTH, MR: BOTH})
    asked = request(
        context(1, CT),
        context(3, CT),
        context(5, MR, JPEG),
        user=roles_of((CT, SCP), (CT, SCU), (MR, SCU), ("1.2", SCU)),
    )
    answer = negotiate_storescp(asked, StorescpRules(profile=rules))
    assert answer.response.user_information.role_selections == (
        RoleSelection(sop_class_uid=CT, scu_role=False, scp_role=True),
    )


def test_a_missing_role_is_told_after_a_missing_transfer_syntax():
    rules = profile(CT, roles={CT: SCP})
    assert storescp(context(1, CT, JPEG), context(3, CT), profile=rules) == {
        1: (4, IMPLICIT),
        3: (2, IMPLICIT),
    }


def test_extended_negotiation_is_answered_verbatim_for_accepted_classes_in_the_order_of_the_profile():
    rules = profile(CT, MR, VERIFICATION, information={MR: b"\1\2", VERIFICATION: b"\3", CT: b"\0"})
    asked = request(
        context(1, CT),
        context(3, MR, JPEG),
        context(5, MR),
        context(7, VERIFICATION, JPEG),
        user={
            "extended_negotiations": (
                SOPClassExtendedNegotiation(sop_class_uid=CT, application_information=b"\7"),
            )
        },
    )
    answer = negotiate_storescp(asked, StorescpRules(profile=rules))
    assert [
        (found.sop_class_uid, found.application_information)
        for found in answer.response.user_information.extended_negotiations
    ] == [(MR, b"\1\2"), (CT, b"\0")]


def test_no_remarks_without_roles():
    asked = request(context(1, CT), user=roles_of((CT, SCP)))
    assert role_remarks(asked, None) == role_remarks(asked, profile(CT)) == ()


# --- dcmrecv without a profile


def test_dcmrecv_without_a_profile_verifies_only():
    answer = negotiate_dcmrecv(
        request(context(1, CT, IMPLICIT), context(3, VERIFICATION, EXPLICIT, IMPLICIT)),
        DcmrecvRules(maximum_length=8192),
    )
    assert results(answer) == {1: (3, IMPLICIT), 3: (0, IMPLICIT)}
    assert answer.response.user_information.maximum_length == 8192


@pytest.mark.parametrize("proposed", [context(1, CT, IMPLICIT), context(1, VERIFICATION, EXPLICIT)])
def test_dcmrecv_rejects_where_nothing_is_accepted(proposed):
    assert rejection(negotiate_dcmrecv(request(proposed), DcmrecvRules())) == (1, 1, 1)


# --- rejections

REJECTIONS = {
    # what is odd: (request, storescp, dcmrecv)
    "nothing": ({}, None, None),
    "protocol version": ({"protocol_version": 2}, (1, 2, 2), (1, 2, 2)),
    "later version too": ({"protocol_version": 3}, None, None),
    "application context": ({"application_context": "1.2.3"}, (1, 1, 2), (2, 1, 2)),
    "version before application context": (
        {"application_context": "1.2.3", "protocol_version": 0},
        (1, 2, 2),
        (1, 2, 2),
    ),
    "empty called title": ({"called_ae_title": ""}, (1, 1, 7), (1, 1, 7)),
    "empty calling title": ({"calling_ae_title": ""}, (1, 1, 3), (1, 1, 3)),
    "no context": ({"presentation_contexts": ()}, (1, 1, 1), (1, 1, 1)),
    "no implementation class": ({"user_information": UserInformation()}, None, None),
}


@pytest.mark.parametrize(("odd", "by_storescp", "by_dcmrecv"), REJECTIONS.values(), ids=REJECTIONS)
def test_rejections(odd, by_storescp, by_dcmrecv):
    values = {
        "called_ae_title": "CALLED",
        "calling_ae_title": "CALLING",
        "presentation_contexts": (context(1, VERIFICATION, IMPLICIT),),
        "user_information": UserInformation(implementation_class_uid="1.2"),
        **odd,
    }
    asked = AssociateRQ(**values)
    for answer, expected in (
        (negotiate_storescp(asked, StorescpRules()), by_storescp),
        (negotiate_dcmrecv(asked, DcmrecvRules()), by_dcmrecv),
    ):
        if expected is None:
            assert isinstance(answer, Accepted)
        else:
            assert rejection(answer) == expected


def test_refuse_comes_before_everything_but_the_version():
    rules = StorescpRules(refuse=True)
    assert rejection(negotiate_storescp(request(context(1, CT)), rules)) == (1, 1, 1)
    assert rejection(negotiate_storescp(request(application_context="1.2.3"), rules)) == (1, 1, 1)
    assert rejection(negotiate_storescp(request(protocol_version=2), rules)) == (1, 2, 2)


@pytest.mark.parametrize("name", [None, ""])
def test_reject_lets_nobody_in_without_implementation_class(name):
    rules = StorescpRules(reject_without_implementation_class=True)
    nameless = request(context(1, CT), user={"implementation_class_uid": name})
    assert rejection(negotiate_storescp(nameless, rules)) == (1, 1, 1)
    assert isinstance(negotiate_storescp(request(context(1, CT)), rules), Accepted)


@pytest.mark.parametrize(
    ("title", "called", "accepted"),
    [
        ("FOO", "FOO", True),
        ("FOO  ", "FOO", True),
        ("FOO", "foo", False),
        ("FOO", "FOOL", False),
        ("", "FOO", False),
        (None, "FOO", True),
    ],
)
def test_dcmrecv_lets_in_whoever_calls_its_title(title, called, accepted):
    asked = request(context(1, VERIFICATION, IMPLICIT), called_ae_title=called)
    answer = negotiate_dcmrecv(asked, DcmrecvRules(ae_title=title))
    if accepted:
        assert isinstance(answer, Accepted)
    else:
        assert rejection(answer) == (1, 1, 7)


# --- anything


uids = st.sampled_from([CT, MR, VERIFICATION, HANGING_PROTOCOL, STUDY_ROOT_FIND, PRIVATE, "1.2.3", "", "x"])
syntaxes = st.sampled_from([IMPLICIT, EXPLICIT, BIG, JPEG, J2K, "1.2", ""])
role_pairs = st.tuples(st.integers(0, 1), st.integers(0, 1))


@pytest.mark.slow
@given(
    st.lists(
        st.builds(
            ProposedContext,
            context_id=st.integers(0, 255),
            abstract_syntax=uids,
            transfer_syntaxes=st.lists(syntaxes, max_size=4).map(tuple),
        ),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.tuples(uids, role_pairs), max_size=4),
    st.sampled_from(Preference),
    st.booleans(),
    st.one_of(st.none(), st.dictionaries(uids, role_pairs, max_size=3)),
)
def test_an_answer_fits_its_request(contexts, proposals, preference, promiscuous, configured):
    rules = (
        None
        if configured is None
        else profile(CT, MR, VERIFICATION, roles=configured, information={CT: b"\1"})
    )
    asked = request(*contexts, user=roles_of(*proposals))
    answer = negotiate_storescp(
        asked, StorescpRules(profile=rules, preference=preference, promiscuous=promiscuous)
    )
    assert isinstance(answer, Accepted)
    first = {}
    for proposed in contexts:
        first.setdefault(proposed.context_id, proposed)
    assert [found.context_id for found in answer.response.presentation_contexts] == list(first)
    accepted = set()
    for found in answer.response.presentation_contexts:
        if found.is_accepted:
            assert found.transfer_syntax in first[found.context_id].transfer_syntaxes
            accepted.add(first[found.context_id].abstract_syntax)
        else:
            assert found.transfer_syntax == IMPLICIT
    information = answer.response.user_information
    named = [found.sop_class_uid for found in information.role_selections]
    assert len(set(named)) == len(named)
    assert set(named) <= accepted & {uid for uid, _ in proposals}
    assert {found.sop_class_uid for found in information.extended_negotiations} <= accepted
    received = negotiate_dcmrecv(asked, DcmrecvRules(profile=rules))
    if rules is not None:
        assert isinstance(received, Accepted) is bool(accepted)
        if accepted:
            assert received == answer
