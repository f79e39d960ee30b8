"""Messages from and to command sets, for every command of PS3.7 and for those that nobody knows."""

import dataclasses
import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import dimse_messages, dimse_primitives
from pynetdicom.dsutils import decode as decode_by_pynetdicom
from pynetdicom.dsutils import encode as encode_by_pynetdicom

from stowkeeper.dicom.status import Status
from stowkeeper.dimse import command_set as cs
from stowkeeper.dimse import messages
from stowkeeper.dimse.command_set import decode_command_set, encode_command_set
from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.limits import ERROR_COMMENT_LENGTH_MAX, UID_ELEMENTS_CACHED_MAX
from stowkeeper.dimse.messages import (
    CCancelRequest,
    CEchoRequest,
    CEchoResponse,
    CStoreRequest,
    CStoreResponse,
    NActionRequest,
    NActionResponse,
    NCreateRequest,
    NCreateResponse,
    NDeleteRequest,
    NDeleteResponse,
    NEventReportRequest,
    NEventReportResponse,
    NGetRequest,
    NGetResponse,
    NSetRequest,
    NSetResponse,
    Priority,
    Request,
    UnknownRequest,
    UnknownResponse,
    command_name,
    encode,
    parse_message,
    response_to_unknown,
    shorten_error_comment,
)
from support.examples import examples

CT = "1.2.840.10008.5.1.4.1.1.2"
INSTANCE = "1.2.826.0.1.3680043.8.498.1"

number = st.integers(min_value=0, max_value=0xFFFF)
uid = st.from_regex(r"[0-9.]{1,64}", fullmatch=True)
text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=16)
tags = st.lists(st.integers(min_value=0, max_value=0xFFFFFFFF), max_size=5).map(tuple)
flag = st.booleans()
maybe = st.none


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def of(message_type, **fields):
    return st.builds(message_type, has_data_set=flag, **fields)


def request(message_type, kind="affected", **fields):
    identifiers = {f"{kind}_sop_class_uid": uid, f"{kind}_sop_instance_uid": uid}
    return of(message_type, message_id=number, **{**identifiers, **fields})


def response(message_type, **fields):
    errors = {"error_comment": maybe() | text, "error_id": maybe() | number, "offending_elements": tags}
    return of(
        message_type,
        responds_to=number,
        status=number,
        affected_sop_class_uid=maybe() | uid,
        **errors,
        **fields,
    )


def instance_response(message_type, **fields):
    return response(message_type, affected_sop_instance_uid=maybe() | uid, **fields)


every_request = st.one_of(
    of(CEchoRequest, message_id=number, affected_sop_class_uid=uid),
    request(
        CStoreRequest,
        priority=number,
        move_originator_ae_title=maybe() | text,
        move_originator_message_id=maybe() | number,
    ),
    request(NEventReportRequest, event_type_id=number),
    request(NCreateRequest, affected_sop_instance_uid=maybe() | uid),
    request(NGetRequest, "requested", attribute_identifier_list=tags),
    request(NSetRequest, "requested"),
    request(NActionRequest, "requested", action_type_id=number),
    request(NDeleteRequest, "requested"),
    of(
        UnknownRequest,
        command_field=st.sampled_from([0x0010, 0x0020, 0x0021, 0x0002, 0x7FFF]),
        message_id=number,
        affected_sop_class_uid=maybe() | uid,
    ),
)
every_other_message = st.one_of(
    of(CCancelRequest, responds_to=number),
    response(CEchoResponse),
    instance_response(CStoreResponse),
    instance_response(NEventReportResponse, event_type_id=maybe() | number),
    instance_response(NGetResponse),
    instance_response(NSetResponse),
    instance_response(NActionResponse, action_type_id=maybe() | number),
    instance_response(NCreateResponse),
    instance_response(NDeleteResponse),
    response(UnknownResponse, command_field=st.sampled_from([0x8010, 0x8020, 0x8021, 0xFFFF])),
)


@pytest.mark.slow
@settings(max_examples=examples(120))
@given(every_request | every_other_message)
def test_every_message_survives_the_wire(message):
    assert parse_message(decode_command_set(encode(message))) == message


@pytest.mark.slow
@settings(max_examples=examples(120))
@given(every_request, number)
def test_every_request_makes_its_response(message, status):
    answer = message.respond(status, error_comment="why\tnot", error_id=3, offending_elements=(0x00080018,))

    assert parse_message(decode_command_set(encode(answer))) == answer
    assert answer.command_field == message.command_field | 0x8000
    assert type(answer) is message.response_type
    assert (answer.responds_to, answer.status) == (message.message_id, status)
    assert (answer.error_comment, answer.error_id, answer.offending_elements) == ("why?not", 3, (0x00080018,))
    assert answer.has_data_set is False
    asked = getattr(message, "affected_sop_class_uid", getattr(message, "requested_sop_class_uid", None))
    assert answer.affected_sop_class_uid == asked
    if not isinstance(message, CEchoRequest | UnknownRequest):
        asked = getattr(
            message, "affected_sop_instance_uid", getattr(message, "requested_sop_instance_uid", None)
        )
        assert answer.affected_sop_instance_uid == asked
    for type_id in ("event_type_id", "action_type_id"):
        assert getattr(answer, type_id, None) == getattr(message, type_id, None)


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(every_request, every_other_message)
def test_only_requests_other_than_cancel_expect_a_response(asked, other):
    assert asked.expects_response is True
    assert other.expects_response is False


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(instance_response(CStoreResponse))
def test_the_fast_writer_of_store_responses_says_what_the_table_says(message):
    plain = dataclasses.replace(
        message, error_comment=None, error_id=None, offending_elements=(), has_data_set=False
    )

    assert encode(plain) == messages._encode_by_table(plain) == messages._encode_store_response(plain)
    assert encode(message) == messages._encode_by_table(message)


@pytest.mark.parametrize(
    "extra", [{"error_comment": "x"}, {"error_id": 0}, {"offending_elements": (1,)}, {"has_data_set": True}]
)
def test_any_error_element_goes_by_the_table(extra):
    message = CStoreResponse(responds_to=1, status=0xC000, **extra)

    assert parse_message(decode_command_set(encode(message))) == message


@settings(max_examples=examples(100))
@given(
    st.dictionaries(
        st.sampled_from(
            [
                cs.MESSAGE_ID,
                cs.AFFECTED_SOP_CLASS_UID,
                cs.AFFECTED_SOP_INSTANCE_UID,
                cs.PRIORITY,
                cs.MOVE_ORIGINATOR_AE_TITLE,
                cs.MOVE_ORIGINATOR_MESSAGE_ID,
                cs.COMMAND_DATA_SET_TYPE,
            ]
        ),
        st.binary(max_size=6),
    )
)
def test_the_fast_reader_of_store_requests_says_what_the_table_says(values):
    command = cs.CommandSet({cs.COMMAND_FIELD: b"\1\0", **values})
    layout = messages._LAYOUTS[0x0001]
    try:
        by_table = layout.message_type(
            has_data_set=messages._announces_data_set(command, 0x0001),
            **messages._read_fields(command, 0x0001, layout.fields),
        )
    except PeerError:
        with pytest.raises(PeerError, match="C-STORE-RQ without"):
            parse_message(command)
    else:
        assert parse_message(command) == by_table


def test_a_store_request_as_real_senders_write_it():
    """Blanks and NULs around UIDs, elements out of order, a retired element, a private data set type."""
    command = (
        element(0x0000, struct.pack("<I", 9999))
        + element(0x1000, INSTANCE.encode() + b" ")
        + element(0x0002, CT.encode() + b"\0\0\0")
        + element(0x0001, struct.pack("<I", 170))
        + element(0x0100, b"\1\0")
        + element(0x0110, b"\x34\x12")
        + element(0x0800, b"\2\1")
        + element(0x1030, b"ARCHIVE         ")
        + element(0x1031, b"\x09\0")
    )

    assert parse_message(decode_command_set(command)) == CStoreRequest(
        message_id=0x1234,
        has_data_set=True,
        affected_sop_class_uid=CT,
        affected_sop_instance_uid=INSTANCE,
        priority=Priority.MEDIUM,
        move_originator_ae_title="ARCHIVE",
        move_originator_message_id=9,
    )


def store_request(**changes) -> CStoreRequest:
    fields = {"message_id": 1, "affected_sop_class_uid": CT, "affected_sop_instance_uid": INSTANCE, **changes}
    return CStoreRequest(has_data_set=True, **fields)


@pytest.mark.parametrize(
    ("raw", "seen", "echoed"),
    [
        (None, None, None),
        (b"", "", None),
        (b" \0", "", None),
        (b"1.2.x ", "1.2.x", "1.2.x"),
        (b"1.02..3\0", "1.02..3", "1.02..3"),
        (b"1" * 64, "1" * 64, "1" * 64),
        (b"1" * 65, "1" * 65, None),
        (b"1.2\xe9", "1.2é", None),
        (b"1.\n2", "1.\n2", None),
    ],
)
def test_an_odd_instance_uid_reaches_the_service_and_is_answered_with_it_where_it_can_be(raw, seen, echoed):
    values = {cs.COMMAND_FIELD: b"\1\0", cs.MESSAGE_ID: b"\1\0", cs.COMMAND_DATA_SET_TYPE: b"\1\0"}
    if raw is not None:
        values[cs.AFFECTED_SOP_INSTANCE_UID] = raw

    message = parse_message(cs.CommandSet(values))
    answer = message.respond(Status.INVALID_SOP_INSTANCE, error_comment="UID is not one")

    assert message.affected_sop_instance_uid == seen
    assert message.affected_sop_class_uid is None
    assert parse_message(decode_command_set(encode(answer))) == CStoreResponse(
        responds_to=1, status=0x0117, affected_sop_instance_uid=echoed, error_comment="UID is not one"
    )


@pytest.mark.parametrize(
    ("command_field", "missing", "words"),
    [
        (0x0001, cs.MESSAGE_ID, r"C-STORE-RQ without message id \(0000,0110\)"),
        (0x0001, cs.COMMAND_DATA_SET_TYPE, r"C-STORE-RQ without command data set type \(0000,0800\)"),
        (0x0030, cs.MESSAGE_ID, "C-ECHO-RQ without message id"),
        (0x0030, cs.COMMAND_DATA_SET_TYPE, "C-ECHO-RQ without command data set type"),
        (0x8001, cs.STATUS, r"C-STORE-RSP without status \(0000,0900\)"),
        (
            0x8130,
            cs.MESSAGE_ID_BEING_RESPONDED_TO,
            r"N-ACTION-RSP without message id being responded to \(0000,0120\)",
        ),
        (0x0FFF, cs.MESSAGE_ID_BEING_RESPONDED_TO, "C-CANCEL-RQ without message id being responded to"),
        (0x0020, cs.MESSAGE_ID, "C-FIND-RQ without message id"),
        (0x8020, cs.STATUS, "C-FIND-RSP without status"),
        (0x0042, cs.COMMAND_DATA_SET_TYPE, "command 0042H without command data set type"),
        (0x0001, cs.COMMAND_FIELD, r"without a Command Field \(0000,0100\)"),
    ],
)
def test_what_framing_cannot_do_without_is_demanded(command_field, missing, words):
    values = {
        cs.COMMAND_FIELD: cs.encode_number(command_field),
        cs.MESSAGE_ID: b"\1\0",
        cs.MESSAGE_ID_BEING_RESPONDED_TO: b"\1\0",
        cs.COMMAND_DATA_SET_TYPE: b"\1\1",
        cs.STATUS: b"\0\0",
    }
    parse_message(cs.CommandSet(values))

    for absent in ({k: v for k, v in values.items() if k != missing}, {**values, missing: b""}):
        with pytest.raises(PeerError, match=words):
            parse_message(cs.CommandSet(absent))


@pytest.mark.parametrize(
    "message",
    [
        store_request(affected_sop_class_uid=None),
        store_request(affected_sop_instance_uid=None),
        store_request(affected_sop_instance_uid="1" * 65),
        store_request(message_id=0x10000),
        store_request(move_originator_ae_title="SEVENTEEN LETTERS"),
        CEchoRequest(message_id=1, affected_sop_class_uid=None),
        NActionRequest(
            message_id=1, requested_sop_class_uid=None, requested_sop_instance_uid="1.2", action_type_id=1
        ),
        CStoreResponse(responds_to=0x10000, status=0),
        CStoreResponse(responds_to=1, status=-1),
        CStoreResponse(responds_to=1, status=0, affected_sop_class_uid=""),
        CStoreResponse(responds_to=1, status=0, affected_sop_instance_uid="1" * 65),
        CStoreResponse(responds_to=1, status=0xC000, error_comment="x" * 65),
        CStoreResponse(responds_to=1, status=0xC000, offending_elements=(1 << 32,)),
    ],
)
def test_what_the_standard_demands_of_a_message_is_demanded_of_us(message):
    with pytest.raises(LocalError):
        encode(message)


@pytest.mark.parametrize("type_id", ["event_type_id", "action_type_id"])
def test_a_type_id_that_a_peer_left_out_is_none_but_we_send_it(type_id):
    if type_id == "event_type_id":
        message = NEventReportRequest(
            message_id=1, affected_sop_class_uid="1.2", affected_sop_instance_uid="1.3", event_type_id=None
        )
        named = {cs.AFFECTED_SOP_CLASS_UID: b"1.2\0", cs.AFFECTED_SOP_INSTANCE_UID: b"1.3\0"}
    else:
        message = NActionRequest(
            message_id=1, requested_sop_class_uid="1.2", requested_sop_instance_uid="1.3", action_type_id=None
        )
        named = {cs.REQUESTED_SOP_CLASS_UID: b"1.2\0", cs.REQUESTED_SOP_INSTANCE_UID: b"1.3\0"}
    framing = {
        cs.COMMAND_FIELD: cs.encode_number(message.command_field),
        cs.MESSAGE_ID: b"\1\0",
        cs.COMMAND_DATA_SET_TYPE: b"\1\1",
    }

    assert parse_message(decode_command_set(encode_command_set({**framing, **named}))) == message
    with pytest.raises(LocalError, match=f"needs {type_id}"):
        encode(message)


@pytest.mark.parametrize("command_field", [0x0010, 0x0020, 0x0021, 0x0042])
@pytest.mark.parametrize("named", [cs.AFFECTED_SOP_CLASS_UID, cs.REQUESTED_SOP_CLASS_UID, None])
def test_an_unknown_request_is_answered_0211(command_field, named):
    values = {
        cs.COMMAND_FIELD: cs.encode_number(command_field),
        cs.MESSAGE_ID: b"\x05\0",
        cs.COMMAND_DATA_SET_TYPE: b"\0\0",
    }
    if named is not None:
        values[named] = b"1.2.840.10008.5.1.4.1.2.2.1\0"

    asked = parse_message(decode_command_set(encode_command_set(values)))
    answer = decode_command_set(response_to_unknown(asked))

    assert type(asked) is UnknownRequest
    assert asked.expects_response
    assert asked.has_data_set
    expected = {
        cs.COMMAND_FIELD: cs.encode_number(command_field | 0x8000),
        cs.MESSAGE_ID_BEING_RESPONDED_TO: b"\x05\0",
        cs.COMMAND_DATA_SET_TYPE: b"\1\1",
        cs.STATUS: b"\x11\2",
    }
    if named is not None:
        expected[cs.AFFECTED_SOP_CLASS_UID] = b"1.2.840.10008.5.1.4.1.2.2.1\0"
    assert answer.values == expected


def test_a_known_request_may_be_answered_0211_as_well():
    asked = NActionRequest(
        message_id=3, requested_sop_class_uid="1.2", requested_sop_instance_uid="1.3", action_type_id=1
    )

    answer = parse_message(decode_command_set(response_to_unknown(asked)))

    assert answer == NActionResponse(
        responds_to=3,
        status=Status.UNRECOGNIZED_OPERATION,
        affected_sop_class_uid="1.2",
        affected_sop_instance_uid="1.3",
        action_type_id=1,
    )


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("", None),
        (" \t ", None),
        ("plain", "plain"),
        ("  ends  ", "ends"),
        ("Größe\n1\\2", "Gr??e?1/2"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 61 + "..."),
        ("x" * 60 + "     y", "x" * 60 + "..."),
    ],
)
def test_an_error_comment_is_made_of_any_text(given_text, expected):
    assert shorten_error_comment(given_text) == expected


@settings(max_examples=examples(100))
@given(st.text(max_size=100))
def test_a_made_error_comment_can_always_be_sent(any_text):
    comment = shorten_error_comment(any_text)

    if comment is not None:
        assert len(cs.encode_text(comment)) <= ERROR_COMMENT_LENGTH_MAX


def test_the_spelled_out_answer_to_a_store_request_is_that_of_every_request():
    for message in (store_request(), store_request(affected_sop_instance_uid="1" * 65)):
        for errors in ({}, {"error_comment": "x" * 70, "error_id": 1, "offending_elements": (0x00080018,)}):
            assert message.respond(0xC000, **errors) == Request.respond(message, 0xC000, **errors)


def test_the_memory_of_encoded_class_uids_is_bounded():
    for root in range(UID_ELEMENTS_CACHED_MAX + 50):
        encode(CStoreResponse(responds_to=1, status=0, affected_sop_class_uid=f"1.2.{root}"))

    assert messages._sop_class_element.cache_info().currsize == UID_ELEMENTS_CACHED_MAX


def test_commands_have_the_names_of_the_standard():
    assert command_name(0x0001) == "C-STORE-RQ"
    assert command_name(0x8100) == "N-EVENT-REPORT-RSP"
    assert command_name(0x0021) == "C-MOVE-RQ"
    assert command_name(0x0042) == "command 0042H"


def test_every_layout_agrees_with_its_message_type():
    for command_field, layout in messages._LAYOUTS.items():
        own = {field.name for field in dataclasses.fields(layout.message_type)} - {"has_data_set"}
        assert {field.name for field in layout.fields} == own
        assert layout.message_type.command_field == command_field
        assert len({field.element for field in layout.fields}) == len(layout.fields)


# pynetdicom as the other side


def test_pynetdicom_reads_our_store_request_and_response():
    asked = decode_by_pynetdicom(BytesIO(encode(store_request(message_id=7, priority=2))), True, True)
    answer = decode_by_pynetdicom(BytesIO(encode(store_request(message_id=7).respond(0xA700))), True, True)

    assert asked.CommandField == 0x0001
    assert asked.MessageID == 7
    assert asked.Priority == 2
    assert asked.CommandDataSetType != 0x0101
    assert (asked.AffectedSOPClassUID, asked.AffectedSOPInstanceUID) == (CT, INSTANCE)
    assert answer.CommandField == 0x8001
    assert answer.MessageIDBeingRespondedTo == 7
    assert answer.CommandDataSetType == 0x0101
    assert answer.Status == 0xA700
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (CT, INSTANCE)


def by_pynetdicom(message_type, primitive) -> bytes:
    message = message_type()
    message.primitive_to_message(primitive)
    command: Dataset = message.command_set
    return encode_by_pynetdicom(command, is_implicit_vr=True, is_little_endian=True)


def test_we_read_the_requests_of_pynetdicom():
    store = dimse_primitives.C_STORE()
    store.MessageID = 11
    store.AffectedSOPClassUID = CT
    store.AffectedSOPInstanceUID = INSTANCE
    store.Priority = 1
    store.MoveOriginatorApplicationEntityTitle = "MOVER"
    store.MoveOriginatorMessageID = 4
    store.DataSet = BytesIO(b"\0\0")
    action = dimse_primitives.N_ACTION()
    action.MessageID = 12
    action.RequestedSOPClassUID = "1.2.840.10008.1.20.1"
    action.RequestedSOPInstanceUID = "1.2.840.10008.1.20.1.1"
    action.ActionTypeID = 1
    action.ActionInformation = BytesIO(b"\0\0")

    assert parse_message(
        decode_command_set(by_pynetdicom(dimse_messages.C_STORE_RQ, store))
    ) == CStoreRequest(
        message_id=11,
        has_data_set=True,
        affected_sop_class_uid=CT,
        affected_sop_instance_uid=INSTANCE,
        priority=Priority.HIGH,
        move_originator_ae_title="MOVER",
        move_originator_message_id=4,
    )
    assert parse_message(
        decode_command_set(by_pynetdicom(dimse_messages.N_ACTION_RQ, action))
    ) == NActionRequest(
        message_id=12,
        has_data_set=True,
        requested_sop_class_uid="1.2.840.10008.1.20.1",
        requested_sop_instance_uid="1.2.840.10008.1.20.1.1",
        action_type_id=1,
    )
