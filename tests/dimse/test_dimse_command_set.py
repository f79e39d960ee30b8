"""The codec of group 0000: what peers send is read as far as it can be, what we send is strict."""

import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.dsutils import decode as decode_by_pynetdicom

from stowkeeper.dimse import command_set as cs
from stowkeeper.dimse.command_set import CommandSet, decode_command_set, encode_command_set
from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.limits import COMMAND_SET_LENGTH_MAX
from support.examples import examples

numbers = st.integers(min_value=1, max_value=0xFFFF)
even_values = st.binary(max_size=40).map(lambda value: value + b"\0" * (len(value) % 2))


def element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


@settings(max_examples=examples(100))
@given(st.dictionaries(numbers, even_values, max_size=20))
def test_what_is_encoded_decodes_to_the_same_values(values):
    encoded = encode_command_set(values)

    assert decode_command_set(encoded).values == values
    assert struct.unpack_from("<HHII", encoded) == (0, 0, 4, len(encoded) - 12)


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(numbers, st.binary(max_size=11)), max_size=12))
def test_elements_are_read_in_any_order_with_any_length_and_the_last_of_a_repeated_one_counts(elements):
    encoded = b"".join(element(number, value) for number, value in elements)

    assert decode_command_set(encoded).values == dict(elements)


@settings(max_examples=examples(100))
@given(st.binary(max_size=64))
def test_arbitrary_bytes_decode_or_are_the_peers_error(data):
    try:
        values = decode_command_set(data).values
    except PeerError:
        return
    assert sum(8 + len(value) for value in values.values()) <= len(data)


@pytest.mark.parametrize("group_length", [b"", b"\xff" * 4, b"\1\0", b"\0" * 4])
def test_a_wrong_or_repeated_group_length_is_not_believed(group_length):
    encoded = (
        element(0, group_length)
        + element(cs.MESSAGE_ID, b"\7\0")
        + element(0, group_length)
        + element(2, b"1.2\0")
    )

    assert decode_command_set(encoded).values == {cs.MESSAGE_ID: b"\7\0", cs.AFFECTED_SOP_CLASS_UID: b"1.2\0"}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_values_are_copies_of_any_kind_of_buffer(kind):
    memory = bytearray(element(cs.MESSAGE_ID, b"\7\0"))

    command = decode_command_set(kind(memory))
    memory[:] = bytes(len(memory))

    assert command.values == {cs.MESSAGE_ID: b"\7\0"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (element(0x0018, b"1.2\0", group=8), r"\(0008,0018\).*group 0000"),
        (element(2, b"1.2\0") + b"\0\0\2", "ends within an element header, at byte 12"),
        (element(2, b"1.2\0")[:-1], r"\(0000,0002\) says it has 4 bytes, 3 are left"),
        (struct.pack("<HHI", 0, 2, 0xFFFFFFFF), r"\(0000,0002\) says it has 4294967295 bytes, 0 are left"),
        (struct.pack("<HH2sH", 0, 0x0002, b"UI", 4) + b"1.2\0", r"\(0000,0002\) says"),
    ],
    ids=["other group", "truncated header", "truncated value", "undefined length", "explicit VR"],
)
def test_what_is_no_sequence_of_command_elements_is_the_peers_error(data, words):
    with pytest.raises(PeerError, match=words):
        decode_command_set(data)


def test_the_length_is_bounded_both_ways():
    value = bytes(COMMAND_SET_LENGTH_MAX - 12 - 8)
    longest = encode_command_set({0x7000: value})
    assert len(longest) == COMMAND_SET_LENGTH_MAX
    assert decode_command_set(longest).values == {0x7000: value}

    with pytest.raises(PeerError, match="65538 bytes is longer than 65536"):
        decode_command_set(longest + b"\0\0")
    with pytest.raises(LocalError, match="longer than 65536"):
        encode_command_set({0x7000: value + b"\0\0"})


def test_typed_readers_forgive_padding_and_lengths():
    command = CommandSet(
        {
            cs.MESSAGE_ID: b"\7\1",
            cs.STATUS: b"\x11\2\0\0",
            cs.PRIORITY: b"\2",
            cs.ERROR_ID: b"",
            cs.AFFECTED_SOP_CLASS_UID: b" 1.2.3 \0\0",
            cs.AFFECTED_SOP_INSTANCE_UID: b"",
            cs.MOVE_ORIGINATOR_AE_TITLE: b"  MOVER\0\0 ",
            cs.MOVE_DESTINATION: b"  ",
            cs.ERROR_COMMENT: b" caf\xe9 \0",
            cs.OFFENDING_ELEMENT: b"\x10\0\x20\0\x08\0\x18\0\x01",
        }
    )

    assert command.number(cs.MESSAGE_ID) == 0x0107
    assert command.number(cs.STATUS) == 0x0211
    assert command.number(cs.PRIORITY) == 2
    assert command.number(cs.ERROR_ID) is None
    assert command.number(cs.EVENT_TYPE_ID) is None
    assert command.uid(cs.AFFECTED_SOP_CLASS_UID) == "1.2.3"
    assert command.uid(cs.AFFECTED_SOP_INSTANCE_UID) == ""
    assert command.uid(cs.REQUESTED_SOP_CLASS_UID) is None
    assert command.ae_title(cs.MOVE_ORIGINATOR_AE_TITLE) == "MOVER"
    assert command.ae_title(cs.MOVE_DESTINATION) is None
    assert command.text(cs.ERROR_COMMENT) == "café"
    assert command.text(cs.MOVE_DESTINATION) is None
    assert command.tags(cs.OFFENDING_ELEMENT) == (0x00100020, 0x00080018)
    assert command.tags(cs.ATTRIBUTE_IDENTIFIER_LIST) == ()


def test_odd_values_are_padded_as_their_vr_demands_and_elements_ascend():
    encoded = encode_command_set(
        {
            cs.ERROR_COMMENT: b"odd",
            cs.MOVE_ORIGINATOR_AE_TITLE: b"ODD",
            cs.AFFECTED_SOP_CLASS_UID: b"1.2",
            0: b"?",
        }
    )

    assert encoded[12:] == (
        element(cs.AFFECTED_SOP_CLASS_UID, b"1.2\0")
        + element(cs.ERROR_COMMENT, b"odd ")
        + element(cs.MOVE_ORIGINATOR_AE_TITLE, b"ODD ")
    )


@pytest.mark.parametrize("number", [-1, 0x10000, 0x00080018])
def test_only_numbers_of_group_0000_are_encoded(number):
    with pytest.raises(LocalError, match="not the number of a command element"):
        encode_command_set({number: b""})


@pytest.mark.parametrize(
    ("write", "value"),
    [
        (cs.encode_number, -1),
        (cs.encode_number, 0x10000),
        (cs.encode_uid, ""),
        (cs.encode_uid, "1" * 65),
        (cs.encode_uid, "1.2\0"),
        (cs.encode_uid, "1.²"),
        (cs.encode_ae_title, "SEVENTEEN LETTERS"),
        (cs.encode_ae_title, ""),
        (cs.encode_text, "x" * 65),
        (cs.encode_text, "line\n"),
        (cs.encode_tags, [0x1_0000_0000]),
        (cs.encode_tags, [-1]),
    ],
)
def test_values_that_their_vr_cannot_hold_are_our_error(write, value):
    with pytest.raises(LocalError):
        write(value)


def test_values_at_their_limits_are_encoded():
    assert cs.encode_number(0xFFFF) == b"\xff\xff"
    assert cs.encode_uid("1" * 64) == b"1" * 64
    assert cs.encode_ae_title("SIXTEEN LETTERS!") == b"SIXTEEN LETTERS!"
    assert cs.encode_text("x" * 64) == b"x" * 64
    assert cs.encode_tags([0, 0xFFFFFFFF]) == b"\0" * 4 + b"\xff" * 4


def test_another_implementation_reads_the_same_elements():
    encoded = encode_command_set(
        {
            cs.AFFECTED_SOP_CLASS_UID: cs.encode_uid("1.2.840.10008.1.1"),
            cs.COMMAND_FIELD: cs.encode_number(0x8030),
            cs.STATUS: cs.encode_number(0x0110),
            cs.OFFENDING_ELEMENT: cs.encode_tags([0x00080016, 0x00080018]),
            cs.ERROR_COMMENT: cs.encode_text("no"),
        }
    )

    dataset = decode_by_pynetdicom(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)

    assert dataset.CommandGroupLength == len(encoded) - 12
    assert dataset.AffectedSOPClassUID == "1.2.840.10008.1.1"
    assert dataset.CommandField == 0x8030
    assert dataset.Status == 0x0110
    assert list(dataset.OffendingElement) == [0x00080016, 0x00080018]
    assert dataset.ErrorComment == "no"
