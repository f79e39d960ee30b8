"""Messages to P-DATA-TF: within the peer's maximum, in even fragments, without copies, and readable by others."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import P_DATA_TF

from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.fragmenter import chunk_pdus, command_pdu, data_set_pdus, pdv_data_length_max
from stowkeeper.dimse.limits import PDU_LENGTH_SEND_MAX, PDU_LENGTH_SEND_MIN
from support.examples import examples

maximums = st.sampled_from([0, 8, 9, 10, 13, 16, 31, 64, 16384])


def parse(pdus: bytes):
    """Return (PDU length, context id, control, data) of every PDU, checking the fixed fields."""
    parsed = []
    offset = 0
    while offset < len(pdus):
        kind, reserved, pdu_length, item_length, context_id, control = struct.unpack_from(
            ">BBIIBB", pdus, offset
        )
        assert (kind, reserved) == (4, 0)
        assert item_length == pdu_length - 4
        data = pdus[offset + 12 : offset + 6 + pdu_length]
        assert len(data) == item_length - 2
        parsed.append((pdu_length, context_id, control, data))
        offset += 6 + pdu_length
    return parsed


def assert_fragments(parsed, *, whole, maximum, context, control):
    assert b"".join(data for _, _, _, data in parsed) == whole
    assert all(pdu_length <= (maximum or PDU_LENGTH_SEND_MAX) for pdu_length, _, _, _ in parsed)
    assert all(context_id == context for _, context_id, _, _ in parsed)
    assert [c for _, _, c, _ in parsed] == [control] * (len(parsed) - 1) + [control | 2]
    assert all(len(data) % 2 == 0 for _, _, _, data in parsed[:-1])
    assert whole == b"" or all(data for _, _, _, data in parsed)


@settings(max_examples=examples(100))
@given(st.binary(min_size=1, max_size=100).map(lambda half: half * 2), maximums, st.integers(0, 255))
def test_a_command_is_split_as_the_maximum_demands(encoded, maximum, context):
    parsed = parse(command_pdu(context, encoded, maximum))

    assert_fragments(parsed, whole=encoded, maximum=maximum, context=context, control=1)
    assert len(parsed) == -(-len(encoded) // pdv_data_length_max(maximum))


@settings(max_examples=examples(120))
@given(st.lists(st.binary(max_size=40), max_size=6), maximums)
def test_a_data_set_is_split_as_the_maximum_demands_whatever_its_chunks(chunks, maximum):
    pairs = list(data_set_pdus(5, chunks, maximum))
    parsed = parse(b"".join(header + bytes(view) for header, view in pairs))

    assert_fragments(parsed, whole=b"".join(chunks), maximum=maximum, context=5, control=0)
    assert all(len(header) <= 13 for header, _ in pairs)
    assert len(parsed) == len(pairs)


@settings(max_examples=examples(100))
@given(st.lists(st.binary(max_size=20).map(lambda half: half * 2), min_size=1, max_size=5), maximums)
def test_chunks_given_one_by_one_make_the_same_data_set(chunks, maximum):
    pairs = [
        pair
        for number, chunk in enumerate(chunks, 1)
        for pair in chunk_pdus(5, chunk, maximum, is_last=number == len(chunks))
    ]

    parsed = parse(b"".join(header + bytes(view) for header, view in pairs))
    assert b"".join(data for _, _, _, data in parsed) == b"".join(chunks)
    assert [control for _, _, control, _ in parsed] == [0] * (len(parsed) - 1) + [2]
    assert all(data for _, _, _, data in parsed[:-1])


def test_values_are_views_of_the_chunks():
    chunks = [bytearray(b"abcd"), bytearray(b"efg"), bytearray(b"hijk")]

    pairs = list(data_set_pdus(1, chunks, 8))
    for chunk in chunks:
        chunk[:] = chunk.upper()

    assert [bytes(view) for _, view in pairs] == [b"AB", b"CD", b"EF", b"H", b"IJ", b"K"]
    assert [header[12:] for header, _ in pairs] == [b"", b"", b"", b"g", b"", b""]


def test_two_buffers_filled_in_turn_suffice():
    text = bytes(range(97, 123)) * 3

    def read():
        buffers = [bytearray(5), bytearray(5)]
        for number, start in enumerate(range(0, len(text), 5)):
            buffer = buffers[number % 2]
            piece = text[start : start + 5]
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]

    sent = b"".join(header + view.tobytes() for header, view in data_set_pdus(1, read(), 10))

    assert b"".join(data for _, _, _, data in parse(sent)) == text


def test_a_data_set_without_bytes_is_one_empty_last_fragment():
    for chunks in ([], [b""], [b"", b""]):
        pairs = list(data_set_pdus(3, chunks, 16384))
        assert [(parse(header), bytes(view)) for header, view in pairs] == [([(6, 3, 2, b"")], b"")]


@pytest.mark.parametrize(
    ("maximum", "length"),
    [
        (PDU_LENGTH_SEND_MIN, 2),
        (9, 2),
        (10, 4),
        (16384, 16378),
        (16383, 16376),
        (PDU_LENGTH_SEND_MAX, PDU_LENGTH_SEND_MAX - 6),
        (PDU_LENGTH_SEND_MAX + 1, PDU_LENGTH_SEND_MAX - 6),
        (0xFFFFFFFF, PDU_LENGTH_SEND_MAX - 6),
        (0, PDU_LENGTH_SEND_MAX - 6),
    ],
)
def test_the_data_length_is_even_within_the_maximum_and_our_bound(maximum, length):
    assert pdv_data_length_max(maximum) == length


@pytest.mark.parametrize("maximum", range(1, PDU_LENGTH_SEND_MIN))
def test_a_maximum_that_leaves_no_room_is_the_peers_error(maximum):
    for send in (
        lambda: command_pdu(1, b"ab", maximum),
        lambda: data_set_pdus(1, [b"ab"], maximum),
        lambda: chunk_pdus(1, b"ab", maximum, is_last=True),
    ):
        with pytest.raises(PeerError, match=f"Maximum length of {maximum} announced by the peer"):
            send()


def test_what_cannot_be_sent_is_our_error():
    for encoded in (b"", b"abc"):
        with pytest.raises(LocalError, match="even length"):
            command_pdu(1, encoded, 0)
    with pytest.raises(LocalError, match="256 is not the id of a presentation context"):
        command_pdu(256, b"ab", 0)
    with pytest.raises(LocalError, match="256 is not the id"):
        list(data_set_pdus(256, [b"ab"], 0))
    with pytest.raises(LocalError, match="A chunk of 3 bytes may only end a data set"):
        chunk_pdus(1, b"abc", 0, is_last=False)


def test_pynetdicom_reads_the_pdus():
    encoded = command_pdu(7, b"ab" * 9, 16)

    pdus = []
    while encoded:
        length = 6 + int.from_bytes(encoded[2:6], "big")
        pdu = P_DATA_TF()
        pdu.decode(encoded[:length])
        pdus.append(pdu)
        encoded = encoded[length:]

    items = [item for pdu in pdus for item in pdu.presentation_data_value_items]
    assert [item.context_id for item in items] == [7, 7]
    assert [item.presentation_data_value for item in items] == [b"\x01" + b"ab" * 5, b"\x03" + b"ab" * 4]
