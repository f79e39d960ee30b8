"""PDUs to bytes and back: by properties, by bytes written out by hand, by requests of real senders, by pynetdicom."""

import contextlib
import dataclasses
import struct
from pathlib import Path

import pynetdicom.pdu
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upperlayer_samples import CT, context, identities, p_data, pdv, request, requests, responses, small_pdus

from stowkeeper.upperlayer.decode import decode_pdu
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.errors import LocalProtocolError, PeerProtocolError
from stowkeeper.upperlayer.items import (
    AsynchronousOperationsWindow,
    ContextResult,
    OutgoingUserIdentity,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserIdentityResponse,
    UserIdentityType,
    UserInformation,
)
from stowkeeper.upperlayer.limits import ITEMS_MAX
from stowkeeper.upperlayer.pdu import (
    PDV,
    REJECTED_CALLED_AE_TITLE,
    REJECTED_LOCAL_LIMIT_EXCEEDED,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PDataTF,
    PDUType,
    ReleaseRP,
    ReleaseRQ,
)
from stowkeeper.upperlayer.reasons import AbortReason, PresentationResult
from support.examples import examples

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus" / "pdu"


def decode(data):
    pdu_type, length = struct.unpack_from(">BxI", data)
    assert length == len(data) - 6
    return decode_pdu(pdu_type, memoryview(data)[6:])


def item(item_type, content, second=0):
    return struct.pack(">BBH", item_type, second, len(content)) + content


FIXED_FIELDS = bytes([0, 1, 0, 0]) + b"CALLED".ljust(16) + b"CALLING".ljust(16) + bytes(32)


def associate(pdu_type, *items, fixed=FIXED_FIELDS):
    body = fixed + b"".join(items)
    return struct.pack(">BxI", pdu_type, len(body)) + body


# --- there and back


@settings(max_examples=examples(50))
@given(requests)
def test_a_request_comes_back(pdu):
    assert decode(encode_pdu(pdu)) == pdu


@settings(max_examples=examples(50))
@given(responses)
def test_a_response_comes_back(pdu):
    assert decode(encode_pdu(pdu)) == pdu


@settings(max_examples=examples(50))
@given(small_pdus)
def test_the_other_pdus_come_back(pdu):
    assert decode(encode_pdu(pdu)) == pdu


@settings(max_examples=examples(50))
@given(
    st.lists(
        st.builds(
            PDV,
            context_id=st.integers(0, 255),
            is_command=st.booleans(),
            is_last=st.booleans(),
            data=st.binary(max_size=30),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_p_data_comes_back(pdvs):
    assert decode(encode_pdu(PDataTF(pdvs=tuple(pdvs)))) == PDataTF(pdvs=tuple(pdvs))


def test_str_is_the_name_in_the_standard():
    assert [
        str(pdu)
        for pdu in (request(), REJECTED_CALLED_AE_TITLE, PDataTF(pdvs=()), ReleaseRQ(), ReleaseRP(), Abort())
    ] == [
        "A-ASSOCIATE-RQ",
        "A-ASSOCIATE-RJ",
        "P-DATA-TF",
        "A-RELEASE-RQ",
        "A-RELEASE-RP",
        "A-ABORT",
    ]
    assert str(AssociateAC(presentation_contexts=(), user_information=UserInformation())) == "A-ASSOCIATE-AC"


# --- bytes written out by hand (PS3.8 §9.3, PS3.7 §D.3.3)

REQUEST_BYTES = bytes.fromhex(
    "01 00 000000f9"  # A-ASSOCIATE-RQ, 249 bytes
    "0001 0000"  # protocol version 1
    "53544f574b4545504552202020202020"  # STOWKEEPER
    "4d4f44414c4954592020202020202020"  # MODALITY
    + "00"
    * 32
    + "10 00 0015 312e322e3834302e31303030382e332e312e312e31"  # application context
    "20 00 002e 01 000000"  # presentation context 1
    "30 00 0011 312e322e3834302e31303030382e312e31"  # Verification, 17 bytes
    "40 00 0011 312e322e3834302e31303030382e312e32"  # Implicit VR Little Endian
    "50 00 0066"  # user information
    "51 00 0004 00001000"  # maximum length 4096
    "52 00 0005 312e322e33"  # implementation class UID 1.2.3
    "53 00 0004 0008 0001"  # eight invoked, one performed
    "54 00 0009 0005 312e322e34 01 00"  # role selection 1.2.4: SCU
    "55 00 0003 414243"  # implementation version name ABC
    "56 00 000a 0005 312e322e34 020003"  # extended negotiation of 1.2.4
    "57 00 0017 0005 312e322e34 0005 312e322e35 0007 0005 312e322e36"  # common extended negotiation
    "58 00 000c 02 01 0003 626f62 0003 736563"  # user identity: bob, passcode sec
)


def test_a_request_byte_by_byte():
    pdu = AssociateRQ(
        called_ae_title="STOWKEEPER",
        calling_ae_title="MODALITY",
        presentation_contexts=(context(1, "1.2.840.10008.1.1", "1.2.840.10008.1.2"),),
        user_information=UserInformation(
            maximum_length=4096,
            implementation_class_uid="1.2.3",
            operations_window=AsynchronousOperationsWindow(invoked=8, performed=1),
            role_selections=(RoleSelection(sop_class_uid="1.2.4", scu_role=True, scp_role=False),),
            implementation_version_name="ABC",
            extended_negotiations=(
                SOPClassExtendedNegotiation(sop_class_uid="1.2.4", application_information=b"\x02\x00\x03"),
            ),
            common_extended_negotiations=(
                SOPClassCommonExtendedNegotiation(
                    sop_class_uid="1.2.4",
                    service_class_uid="1.2.5",
                    related_general_sop_class_uids=("1.2.6",),
                ),
            ),
            user_identity=OutgoingUserIdentity(
                type=UserIdentityType.USERNAME_AND_PASSCODE,
                primary=b"bob",
                secondary=b"sec",
                response_requested=True,
            ),
        ),
    )
    assert encode_pdu(pdu) == REQUEST_BYTES
    kept = UserIdentity(
        type=2, primary_name="bob", response_requested=True, primary_length=3, secondary_length=3
    )
    expected = dataclasses.replace(
        pdu, user_information=dataclasses.replace(pdu.user_information, user_identity=kept)
    )
    assert decode(REQUEST_BYTES) == expected


def test_a_response_byte_by_byte():
    response = bytes.fromhex(
        "02 00 00000098 0001 0000"
        + "aa" * 64  # as received
        + "10 00 0015 312e322e3834302e31303030382e332e312e312e31"
        "21 00 0019 01 00 00 00 40 00 0011 312e322e3834302e31303030382e312e32"  # accepted
        "21 00 0008 03 00 03 00 40 00 0000"  # abstract syntax not supported
        "50 00 000e 51 00 0004 00000000 59 00 0002 0000"
    )
    pdu = AssociateAC(
        presentation_contexts=(
            ContextResult(
                context_id=1, result=PresentationResult.ACCEPTANCE, transfer_syntax="1.2.840.10008.1.2"
            ),
            ContextResult(context_id=3, result=3, transfer_syntax=""),
        ),
        user_information=UserInformation(maximum_length=0, user_identity_response=UserIdentityResponse()),
        echoed_fields=b"\xaa" * 64,
    )
    assert encode_pdu(pdu) == response
    assert decode(response) == pdu


@pytest.mark.parametrize(
    ("pdu", "data"),
    [
        (AssociateRJ(result=1, source=2, reason=7), "03 00 00000004 00 01 02 07"),
        (ReleaseRQ(), "05 00 00000004 00000000"),
        (ReleaseRP(), "06 00 00000004 00000000"),
        (Abort(source=2, reason=6), "07 00 00000004 0000 02 06"),
        (
            PDataTF(pdvs=(PDV(context_id=5, is_command=True, is_last=True, data=b"\x01\x02"),)),
            "04 00 00000008 00000004 05 03 0102",
        ),
    ],
)
def test_small_pdus_byte_by_byte(pdu, data):
    assert encode_pdu(pdu) == bytes.fromhex(data)
    assert decode(bytes.fromhex(data)) == pdu


# --- other implementations


def test_pynetdicom_reads_our_request_as_we_mean_it():
    theirs = pynetdicom.pdu.A_ASSOCIATE_RQ()
    theirs.decode(REQUEST_BYTES)
    assert (theirs.called_ae_title, theirs.calling_ae_title) == ("STOWKEEPER", "MODALITY")
    assert theirs.application_context_name == "1.2.840.10008.3.1.1.1"
    [proposed] = theirs.presentation_context
    assert (proposed.context_id, proposed.abstract_syntax) == (1, "1.2.840.10008.1.1")
    assert proposed.transfer_syntax == ["1.2.840.10008.1.2"]
    information = theirs.user_information
    assert information.maximum_length == 4096
    assert information.async_ops_window.max_operations_invoked == 8
    assert information.role_selection["1.2.4"].scu_role == 1
    [extended] = information.ext_neg
    assert (extended.uid, extended.app_info) == ("1.2.4", b"\x02\x00\x03")
    [common] = information.common_ext_neg
    assert common.related_general_sop_class_identification == ["1.2.6"]
    assert information.user_identity.secondary_field == b"sec"
    assert theirs.encode() == REQUEST_BYTES


REAL_REQUESTS = (
    "echoscu_3_6_7",
    "storescu_3_6_7",
    "storescu_128_contexts",
    "dcmsend_3_6_7",
    "pynetdicom_3_0_4",
)


def real_request(name):
    return (CORPUS / f"request_{name}").read_bytes()[2:]  # behind the two bytes that steer the fuzz target


@pytest.mark.parametrize("name", REAL_REQUESTS)
def test_requests_of_real_senders_are_read_as_pynetdicom_reads_them(name):
    data = real_request(name)
    ours = decode(data)
    theirs = pynetdicom.pdu.A_ASSOCIATE_RQ()
    theirs.decode(data)
    assert (ours.called_ae_title, ours.calling_ae_title) == (
        theirs.called_ae_title.strip(),
        theirs.calling_ae_title.strip(),
    )
    assert [
        (proposed.context_id, proposed.abstract_syntax, list(proposed.transfer_syntaxes))
        for proposed in ours.presentation_contexts
    ] == [
        (proposed.context_id, proposed.abstract_syntax, proposed.transfer_syntax)
        for proposed in theirs.presentation_context
    ]
    assert ours.user_information.maximum_length == theirs.user_information.maximum_length
    assert ours.user_information.implementation_class_uid == theirs.user_information.implementation_class_uid


def test_a_real_request_with_every_negotiation_item():
    information = decode(real_request("pynetdicom_3_0_4")).user_information
    assert information.maximum_length == 16383
    assert information.operations_window == AsynchronousOperationsWindow(invoked=16, performed=0)
    assert information.role_selections == (RoleSelection(sop_class_uid=CT, scu_role=True, scp_role=True),)
    assert information.extended_negotiations == (
        SOPClassExtendedNegotiation(sop_class_uid=CT, application_information=bytes([2, 0, 3, 0, 1, 0])),
    )
    assert information.common_extended_negotiations[0].service_class_uid == "1.2.840.10008.4.2"
    assert information.user_identity == UserIdentity(
        type=2, primary_name="mallory", response_requested=True, primary_length=7, secondary_length=11
    )


# --- secrets


@settings(max_examples=examples(50))
@given(identities, st.binary(min_size=6, max_size=20), st.binary(min_size=6, max_size=20))
def test_no_secret_is_kept(identity, primary, secondary):
    primary, secondary = b"\xf0" + primary, b"\xf1" + secondary
    identity = dataclasses.replace(identity, primary=primary, secondary=secondary)
    pdu = decode(encode_pdu(request(user_identity=identity)))
    kept = pdu.user_information.user_identity
    named = identity.type in {UserIdentityType.USERNAME, UserIdentityType.USERNAME_AND_PASSCODE}
    assert kept == UserIdentity(
        type=identity.type,
        primary_name=primary.decode("utf-8", "replace") if named else None,
        response_requested=identity.response_requested,
        primary_length=len(primary),
        secondary_length=len(secondary),
    )
    assert repr(secondary)[2:-1] not in repr(identity)
    assert repr(primary)[2:-1] not in repr(identity)
    assert repr(identity) in repr(request(user_identity=identity))


def test_a_server_response_is_not_kept():
    data = associate(2, item(0x50, item(0x59, b"\x00\x06TICKET")))
    information = decode(data).user_information
    assert information.user_identity_response == UserIdentityResponse(server_response_length=6)
    assert "TICKET" not in repr(information)


def test_what_was_received_without_its_secret_is_not_sent_on():
    received = UserIdentity(
        type=2, primary_name="bob", response_requested=False, primary_length=3, secondary_length=9
    )
    with pytest.raises(LocalProtocolError, match="OutgoingUserIdentity"):
        encode_pdu(request(user_identity=received))
    with pytest.raises(LocalProtocolError, match="dropped"):
        encode_pdu(request(user_identity_response=UserIdentityResponse(server_response_length=1)))


# --- what real peers get wrong and still mean


def test_padding_of_every_kind_is_taken_off():
    data = associate(
        1,
        item(0x10, b"1.2.840.10008.3.1.1.1\x00"),
        item(
            0x20,
            bytes([2, 9, 9, 9]) + item(0x30, b"1.2.840.10008.1.1\x00") + item(0x40, b" 1.2.840.10008.1.2  "),
        ),
        item(0x50, item(0x52, b"1.2.3\x00\x00") + item(0x55, b"NAME\x00 ")),
        fixed=bytes([0, 1, 7, 7]) + b"  PACS\x00".ljust(16, b"\x00") + b"CT 1".ljust(16) + b"\xff" * 32,
    )
    pdu = decode(data)
    assert (pdu.called_ae_title, pdu.calling_ae_title) == ("PACS", "CT 1")
    assert pdu.application_context == "1.2.840.10008.3.1.1.1"
    assert pdu.presentation_contexts == (context(2, "1.2.840.10008.1.1", "1.2.840.10008.1.2"),)
    assert pdu.user_information.implementation_class_uid == "1.2.3"
    assert pdu.user_information.implementation_version_name == "NAME"


def test_bytes_11_to_74_are_kept_for_the_answer():
    fixed = bytes([0, 1, 0, 0]) + bytes(range(64))
    pdu = decode(associate(1, fixed=fixed))
    assert pdu.fields_to_echo() == bytes(range(64))
    assert request(called="A", calling="B").fields_to_echo() == b"A".ljust(16) + b"B".ljust(16) + bytes(32)


def test_unknown_items_are_skipped_wherever_they_stand():
    unknown = item(0x99, b"whatever", second=0xFF)
    data = associate(
        1,
        unknown,
        item(0x20, bytes([1, 0, 0, 0]) + unknown + item(0x30, CT.encode()) + unknown),
        item(0x50, unknown + item(0x51, bytes(4)) + unknown),
        unknown,
    )
    pdu = decode(data)
    assert [proposed.abstract_syntax for proposed in pdu.presentation_contexts] == [CT]
    assert pdu.user_information == UserInformation(maximum_length=0)


def test_missing_items_are_missing_and_no_fault():
    pdu = decode(associate(1))
    assert (pdu.application_context, pdu.presentation_contexts) == ("", ())
    assert pdu.user_information == UserInformation()
    assert (
        decode(associate(1, item(0x20, bytes([7, 0, 0, 0])))).presentation_contexts[0].abstract_syntax == ""
    )


def test_a_context_may_come_without_transfer_syntax():
    pdu = decode(associate(1, item(0x20, bytes([7, 0, 0, 0]) + item(0x30, CT.encode()))))
    assert pdu.presentation_contexts[0].transfer_syntaxes == ()


def test_fixed_sub_items_may_be_longer_than_their_fields():
    data = associate(1, item(0x50, item(0x51, bytes([0, 0, 1, 0, 9])) + item(0x53, bytes([0, 1, 0, 2, 9]))))
    information = decode(data).user_information
    assert information.maximum_length == 256
    assert information.operations_window == AsynchronousOperationsWindow(invoked=1, performed=2)


def test_a_common_extended_negotiation_may_end_before_its_general_classes():
    content = b"\x00\x051.2.4\x00\x051.2.5"
    [common] = decode(
        associate(1, item(0x50, item(0x57, content)))
    ).user_information.common_extended_negotiations
    assert common.related_general_sop_class_uids == ()


def test_an_unknown_user_identity_type_keeps_no_name():
    identity = decode(
        associate(1, item(0x50, item(0x58, b"\x09\x00\x00\x05TOKEN\x00\x00")))
    ).user_information.user_identity
    assert (identity.type, identity.primary_name, identity.primary_length) == (9, None, 5)


def test_an_abort_cut_short_is_an_abort():
    assert decode_pdu(PDUType.A_ABORT, memoryview(b"")) == Abort()


# --- what is no PDU


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(associate(1, fixed=bytes(67)), id="fixed fields cut short"),
        pytest.param(associate(2, fixed=bytes(67)), id="fixed fields of a response cut short"),
        pytest.param(associate(1, b"\x10\x00\x00"), id="item header cut short"),
        pytest.param(associate(1, b"\x10\x00\x00\x05ABCD"), id="item beyond the PDU"),
        pytest.param(associate(1, b"\x20\x00\xff\xff" + bytes(99)), id="context beyond the PDU"),
        pytest.param(associate(1, item(0x20, bytes(3))), id="context without its fields"),
        pytest.param(associate(2, item(0x21, bytes(3))), id="result without its fields"),
        pytest.param(
            associate(1, item(0x20, bytes(4) + b"\x30\x00\x00\x02A")), id="syntax beyond its context"
        ),
        pytest.param(associate(1, item(0x50, b"\x51\x00\x00\x05" + bytes(4))), id="sub-item beyond its item"),
        pytest.param(associate(1, item(0x50, item(0x51, bytes(3)))), id="maximum length cut short"),
        pytest.param(associate(1, item(0x50, item(0x53, bytes(3)))), id="window cut short"),
        pytest.param(associate(1, item(0x50, item(0x54, b"\x00\x05A"))), id="role selection cut short"),
        pytest.param(associate(1, item(0x50, item(0x54, b"\x00\x01A\x01"))), id="one role only"),
        pytest.param(associate(1, item(0x50, item(0x56, b"\x00\x09A"))), id="extended negotiation cut short"),
        pytest.param(
            associate(1, item(0x50, item(0x57, b"\x00\x01A\x00\x01B\x00\x09"))),
            id="general classes cut short",
        ),
        pytest.param(
            associate(1, item(0x50, item(0x57, b"\x00\x01A\x00\x01B\x00\x03\x00\x09A"))),
            id="general class cut short",
        ),
        pytest.param(associate(1, item(0x50, item(0x58, b"\x01\x00\x00\x05A"))), id="user name cut short"),
        pytest.param(
            associate(1, item(0x50, item(0x58, b"\x02\x00\x00\x01A\x00\x05"))), id="passcode cut short"
        ),
        pytest.param(associate(2, item(0x50, item(0x59, b"\x00\x05A"))), id="server response cut short"),
        pytest.param(b"\x03\x00\x00\x00\x00\x03" + bytes(3), id="rejection cut short"),
        pytest.param(p_data(), id="P-DATA without PDV"),
        pytest.param(p_data(b"\x00\x00\x00\x02\x01"), id="PDV header cut short"),
        pytest.param(p_data(b"\x00\x00\x00\x01\x01\x00"), id="PDV length below two"),
        pytest.param(p_data(b"\x00\x00\x00\x05\x01\x00AB"), id="PDV beyond its PDU"),
        pytest.param(p_data(pdv(b"AB"), b"\x00"), id="a byte behind the last PDV"),
    ],
)
def test_a_forged_length_is_an_invalid_parameter(data):
    with pytest.raises(PeerProtocolError) as caught:
        decode(data)
    assert caught.value.reason is AbortReason.INVALID_PDU_PARAMETER_VALUE
    assert caught.value.text


def test_an_unknown_type_is_an_unrecognized_pdu():
    with pytest.raises(PeerProtocolError) as caught:
        decode_pdu(0x47, memoryview(b""))
    assert caught.value.reason is AbortReason.UNRECOGNIZED_PDU


def test_the_fullest_request_with_a_reason_fits_and_not_much_more():
    syntaxes = b"".join(item(0x40, b"1.2.840.10008.1.2.4.%d" % number) for number in range(46))
    contexts = b"".join(
        item(0x20, bytes([number]) + bytes(3) + item(0x30, b"1.2.3") + syntaxes)
        for number in range(1, 256, 2)
    )
    assert len(decode(associate(1, contexts)).presentation_contexts) == 128
    assert 128 * (2 + 46) < ITEMS_MAX == 8192


def test_items_are_counted_on_all_levels():
    fits = item(0x99, b"") * (ITEMS_MAX - 2) + item(0x50, item(0x98, b""))
    assert decode(associate(1, fits)).presentation_contexts == ()
    for one_more in (
        item(0x97, b"") + fits,
        item(0x99, b"") * (ITEMS_MAX - 1) + item(0x20, bytes(4) + item(0x30, b"1")),
        item(0x50, item(0x57, struct.pack(">HHH", 0, 0, 2 * ITEMS_MAX - 2) + bytes(2 * ITEMS_MAX - 2))),
    ):
        with pytest.raises(PeerProtocolError, match=f"more than {ITEMS_MAX} items"):
            decode(associate(1, one_more))


@settings(max_examples=examples(200))
@given(st.sampled_from(sorted(PDUType)), st.binary(max_size=300))
def test_any_body_is_a_value_or_the_peers_fault(pdu_type, body):
    with contextlib.suppress(PeerProtocolError):
        decode_pdu(pdu_type, memoryview(body))


@settings(max_examples=examples(200))
@given(st.integers(6, len(REQUEST_BYTES) - 1), st.integers(0, 255))
def test_any_damage_is_a_value_or_the_peers_fault(place, value):
    data = bytearray(REQUEST_BYTES)
    data[place] = value
    with contextlib.suppress(PeerProtocolError):
        decode(bytes(data))


# --- what does not fit


@pytest.mark.parametrize(
    "pdu",
    [
        pytest.param(request(maximum_length=1 << 32), id="maximum length"),
        pytest.param(request(maximum_length=-1), id="negative"),
        pytest.param(request(context(256)), id="context id"),
        pytest.param(request(context(1, "1.2\u0416")), id="no UID"),
        pytest.param(request(context(1, "1" * 70000)), id="item too long"),
        pytest.param(request(called="SEVENTEEN LETTERS"), id="called AE title"),
        pytest.param(AssociateRJ(result=256, source=1, reason=1), id="rejection"),
        pytest.param(PDataTF(pdvs=()), id="no PDV"),
        pytest.param(
            AssociateAC(presentation_contexts=(), user_information=UserInformation(), echoed_fields=b""),
            id="nothing to echo",
        ),
    ],
)
def test_what_does_not_fit_its_field_is_our_fault(pdu):
    with pytest.raises(LocalProtocolError):
        encode_pdu(pdu)


# --- words


def test_rejections_and_aborts_speak():
    assert REJECTED_LOCAL_LIMIT_EXCEEDED.words == (
        "rejected (2,3,2): transient, by service provider presentation, local limit exceeded"
    )
    assert AssociateRJ(result=9, source=8, reason=7).words == (
        "rejected (9,8,7): reserved value 9, by reserved value 8, reserved value 7"
    )
    assert Abort(source=2, reason=2).words == "aborted (2,2): by service provider, unexpected pdu"
    assert Abort(source=0, reason=6).words == "aborted (0,6): by service user"
    assert ContextResult(context_id=1, result=4).words == "transfer syntaxes not supported"
