"""C-STORE requests like the one before: what is read by a pattern is what is read without one."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dimse.assembler import MessageAssembler
from stowkeeper.dimse.command_set import (
    AFFECTED_SOP_INSTANCE_UID,
    MESSAGE_ID,
    decode_command_set,
    encode_element,
)
from stowkeeper.dimse.messages import CStoreRequest, encode, encode_store_response, parse_message
from stowkeeper.dimse.store_request_pattern import StoreRequestPattern
from stowkeeper.upperlayer.events import PDVFragment
from support.examples import examples

STORE = CStoreRequest(
    message_id=2,
    has_data_set=True,
    affected_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    affected_sop_instance_uid="1.2.3",
)


def pattern_of(request=STORE):
    encoded = encode(request)
    return StoreRequestPattern.of(encoded, request)


def test_message_id_and_instance_are_read_and_the_rest_is_known():
    other = dataclasses.replace(STORE, message_id=515, affected_sop_instance_uid="1.9.3")

    assert pattern_of().read(encode(other)) == other


@pytest.mark.parametrize(
    "changes",
    [
        {"affected_sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"},
        {"affected_sop_instance_uid": "1.2.3.4.5"},
        {"priority": 2},
        {"has_data_set": False},
        {"move_originator_ae_title": "MOVER", "move_originator_message_id": 9},
    ],
)
def test_a_request_that_differs_elsewhere_is_not_read_by_it(changes):
    assert pattern_of().read(encode(dataclasses.replace(STORE, **changes))) is None


def test_elements_out_of_order_or_twice_make_no_pattern():
    encoded = encode(STORE)
    for more in (encode_element(MESSAGE_ID, b"\3\0"), encode_element(AFFECTED_SOP_INSTANCE_UID, b"1.2.9")):
        assert StoreRequestPattern.of(encoded + more, STORE) is None
    assert StoreRequestPattern.of(encode_element(MESSAGE_ID, b"\3\0\0\0"), STORE) is None


uids = st.text("0123456789. ", max_size=12) | st.none()
commands = st.builds(
    lambda message_id, sop_class, sop_instance, originator, more: (
        encode_element(0x0002, sop_class)
        + encode_element(0x0100, b"\1\0")
        + encode_element(0x0110, message_id)
        + encode_element(0x0800, b"\0\0")
        + encode_element(0x1000, sop_instance)
        + encode_element(0x1030, originator)
        + more
    ),
    st.binary(min_size=1, max_size=4),
    st.sampled_from([b"1.2.3", b"1.2.4", b""]),
    st.binary(max_size=6),
    st.sampled_from([b"", b"MOVER"]),
    st.sampled_from([b"", encode_element(0x0110, b"\7\0"), encode_element(0x1031, b"\7\0")]),
)


@settings(max_examples=examples(150))
@given(st.lists(commands, min_size=1, max_size=6))
def test_an_assembler_reads_each_request_as_if_it_were_the_first(encoded):
    assembler = MessageAssembler({1})
    for command in encoded:
        pdv = PDVFragment(1, is_command=True, data=memoryview(command), starts=True, ends=True, is_last=True)
        end = PDVFragment(1, is_command=False, data=memoryview(b""), starts=True, ends=True, is_last=True)

        assert assembler.receive(pdv).message == parse_message(decode_command_set(command))
        assert assembler.receive(end).is_last


@settings(max_examples=examples(100))
@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), uids, st.text(max_size=70) | uids)
def test_the_response_that_is_encoded_at_once_is_that_of_the_request(message_id, status, sop_class, instance):
    request = dataclasses.replace(
        STORE, message_id=message_id, affected_sop_class_uid=sop_class, affected_sop_instance_uid=instance
    )

    assert encode_store_response(request, status) == encode(request.respond(status))
