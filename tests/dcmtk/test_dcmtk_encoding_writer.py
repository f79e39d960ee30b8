"""Data sets written in another form: what is expected stands here byte for byte; no DCMTK is needed."""

import io
import struct
import tracemalloc
import zlib
from dataclasses import replace
from random import Random

import encoding_samples as samples
import pytest
from encoding_chance import chance_data_set
from encoding_dictionary import dictionary_of_tests
from encoding_trees import (
    BIG_ENDIAN,
    CODE,
    DEFLATED,
    EXPLICIT,
    GE_PIXELS,
    HEAD,
    IMAGE,
    IMPLICIT,
    JPEG,
    NAME,
    PATIENT,
    PIXELS,
    STUDY,
    UNCOMPRESSED,
    UNDEFINED,
    USUAL,
    El,
    Raw,
    Sq,
    encode,
    header,
    item,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dcmtk.encoding import limits, plan, source, structure, values, vr_choice
from stowkeeper.dcmtk.encoding.errors import EncodingError
from stowkeeper.dcmtk.encoding.form import DCMRECV_FORM, STORESCP_FORM, GroupLengths
from stowkeeper.dcmtk.encoding.writer import write_data_set
from stowkeeper.dicom.limits import SEQUENCE_DEPTH_MAX
from support.examples import examples

FORMS = (
    STORESCP_FORM,
    DCMRECV_FORM,
    replace(STORESCP_FORM, transfer_syntax=EXPLICIT, padding=(64, 6)),
    replace(STORESCP_FORM, transfer_syntax=BIG_ENDIAN, convert_un=True, new_vr=False),
    replace(
        STORESCP_FORM, transfer_syntax=IMPLICIT, group_length=GroupLengths.CREATE, explicit_lengths=False
    ),
)


def write(data, syntax=EXPLICIT, form=STORESCP_FORM, *, in_front=0):
    """Write a data set from memory to memory."""
    target = io.BytesIO(bytes(in_front))
    target.seek(in_front)
    dictionary = dictionary_of_tests() if syntax == IMPLICIT or form.convert_un else None
    write_data_set(io.BytesIO(data), syntax, form, target, dictionary)
    return target.getvalue()[in_front:]


def inflate(data):
    """Inflate a bare deflate stream."""
    return zlib.decompress(data, wbits=-15)


def group_length(group, nodes, syntax=EXPLICIT):
    """Return the right group length in front of what it counts."""
    return El(group << 16, b"UL", (len(encode(nodes, syntax)),))


# Transfer syntaxes


@pytest.mark.parametrize("source_syntax", UNCOMPRESSED)
@pytest.mark.parametrize("target_syntax", UNCOMPRESSED)
def test_every_uncompressed_transfer_syntax_becomes_every_other(source_syntax, target_syntax):
    tree = (*HEAD, Sq(0x00081032, [CODE, []]), NAME, PATIENT, El(0x00209165, b"AT", (0x18, 0x1020)), *IMAGE)
    tree += (El(0x00720074, b"FD", (1.5, 2.5)), PIXELS)
    form = replace(STORESCP_FORM, transfer_syntax=target_syntax)
    written = write(encode(tree, source_syntax), source_syntax, form)
    if target_syntax == DEFLATED:
        written, target_syntax = inflate(written), EXPLICIT
    assert written == encode(tree, target_syntax)


def test_big_endian_pixels_of_the_private_syntax_are_turned_around():
    data = encode(IMAGE, IMPLICIT) + header(0x7FE00010, b"OW", 4, IMPLICIT) + b"\1\2\3\4"
    assert write(data, GE_PIXELS) == data
    little = write(data, GE_PIXELS, replace(STORESCP_FORM, transfer_syntax=EXPLICIT))
    assert little == encode((*IMAGE, El(0x7FE00010, b"OW", b"\2\1\4\3")), EXPLICIT)


def test_fragments_stay_as_they_are_in_their_own_syntax():
    tree = (*HEAD, Sq(0x7FE00010, [b"", b"abc", b"de"], is_open=True, vr=b"OW"))
    even = (*HEAD, Sq(0x7FE00010, [b"", b"abc\0", b"de"], is_open=True, vr=b"OB"))
    assert write(encode(tree, JPEG), JPEG) == encode(even, JPEG)


def test_the_level_of_compression():
    data = encode((*HEAD, El(0x7FE00010, b"OW", b"ab" * 5000)), EXPLICIT)
    sizes = [
        len(write(data, form=replace(STORESCP_FORM, transfer_syntax=DEFLATED, compression_level=level)))
        for level in (0, 1, 9)
    ]
    assert sizes[0] > len(data) > sizes[1] >= sizes[2]


def test_what_follows_a_deflate_stream_is_left_out():
    data = encode(USUAL, DEFLATED)
    assert inflate(write(data + b"\0trailer", DEFLATED)) == encode(USUAL, EXPLICIT)


def test_a_data_set_begins_where_the_file_stands():
    received = io.BytesIO(b"in front" + encode(USUAL, EXPLICIT))
    received.seek(8)
    target = io.BytesIO()
    write_data_set(received, EXPLICIT, STORESCP_FORM, target)
    assert target.getvalue() == encode(USUAL, EXPLICIT)


# Order, lengths, padding


def test_elements_are_sorted_and_the_first_of_each_stays():
    shuffled = (*HEAD, PIXELS, PATIENT, El(0x00100020, b"LO", b"4712"), NAME)
    assert write(encode(shuffled, EXPLICIT)) == encode((*HEAD, NAME, PATIENT, PIXELS), EXPLICIT)


@pytest.mark.parametrize("explicit_lengths", [True, False])
@pytest.mark.parametrize("received_open", [True, False])
def test_lengths_of_sequences_and_items(explicit_lengths, received_open):
    def tree(is_open):
        inner = Sq(0x00400260, [CODE, []], is_open, is_open)
        return (*HEAD, Sq(0x00081032, [[PATIENT, inner], [NAME]], is_open, is_open), NAME)

    form = replace(STORESCP_FORM, explicit_lengths=explicit_lengths)
    assert write(encode(tree(received_open), EXPLICIT), form=form) == encode(
        tree(not explicit_lengths), EXPLICIT
    )


def test_group_lengths_that_are_there_become_right():
    wrong = El(0x00100000, b"UL", (4711,))
    data = encode((*HEAD, wrong, NAME, PATIENT, STUDY), EXPLICIT)
    right = group_length(0x0010, (NAME, PATIENT))
    assert write(data) == encode((*HEAD, right, NAME, PATIENT, STUDY), EXPLICIT)


def test_group_lengths_are_made_in_items_too():
    form = replace(STORESCP_FORM, group_length=GroupLengths.CREATE)
    code = (group_length(0x0008, CODE), *CODE)
    sequence = Sq(0x00081032, [code])
    first = group_length(0x0008, (*HEAD, sequence))
    expected = (first, *HEAD, sequence, group_length(0x0010, (NAME,)), NAME)
    assert write(encode((*HEAD, Sq(0x00081032, [CODE]), NAME), EXPLICIT), form=form) == encode(
        expected, EXPLICIT
    )


def test_dcmrecv_counts_bytes_before_it_pads_them():
    odd = El(0x00091001, b"OB", b"abc")
    data = encode((El(0x00090000, b"UL", (1,)), odd, El(0x00091002, b"OW", b"ab")), EXPLICIT)
    for form, count in ((DCMRECV_FORM, 29), (replace(STORESCP_FORM, explicit_lengths=False), 30)):
        length = El(0x00090000, b"UL", (count,))
        expected = (length, El(0x00091001, b"OB", b"abc\0"), El(0x00091002, b"OW", b"ab"))
        assert write(data, form=form) == encode(expected, EXPLICIT)


def test_group_lengths_are_removed():
    form = replace(STORESCP_FORM, group_length=GroupLengths.REMOVE)
    tree = (El(0x00080000, b"UL", (1,)), *HEAD, Sq(0x00081032, [[El(0x00080000, b"UL", (1,)), *CODE]]))
    assert write(encode(tree, EXPLICIT), form=form) == encode((*HEAD, Sq(0x00081032, [CODE])), EXPLICIT)


def test_a_group_too_long_for_a_group_length_has_none(monkeypatch):
    monkeypatch.setattr(plan, "LENGTH_MAX", 20)
    tree = (El(0x00080000, b"UL", (1,)), *HEAD, El(0x00100000, b"UL", (1,)), NAME)
    expected = (*HEAD, group_length(0x0010, (NAME,)), NAME)
    assert write(encode(tree, EXPLICIT)) == encode(expected, EXPLICIT)


def test_what_is_too_long_for_a_length_has_none(monkeypatch):
    monkeypatch.setattr(plan, "LENGTH_MAX", 30)
    tree = (Sq(0x00081032, [[El(0x00080104, b"LO", b"abcd")], CODE]), NAME)
    short = item(12, EXPLICIT) + encode([El(0x00080104, b"LO", b"abcd")], EXPLICIT)
    long = item(UNDEFINED, EXPLICIT) + encode(CODE, EXPLICIT) + item(0, EXPLICIT, 0xFFFEE00D)
    expected = header(0x00081032, b"SQ", UNDEFINED, EXPLICIT) + short + long + item(0, EXPLICIT, 0xFFFEE0DD)
    assert write(encode(tree, EXPLICIT)) == expected + encode([NAME], EXPLICIT)


PADDING = El(0xFFFCFFFC, b"OB", bytes(10))


def test_padding_is_removed_or_kept():
    tree = (*HEAD, Sq(0x00081032, [(*CODE, PADDING)]), NAME, PADDING)
    assert write(encode(tree, EXPLICIT)) == encode((*HEAD, Sq(0x00081032, [CODE]), NAME), EXPLICIT)
    kept = (*HEAD, Sq(0x00081032, [(*CODE, PADDING)], is_open=True, items_open=True), NAME, PADDING)
    assert write(encode(tree, EXPLICIT), form=DCMRECV_FORM) == encode(kept, EXPLICIT)


@pytest.mark.parametrize("in_front", [0, 340, 346])
def test_padding_fills_the_file_and_the_items(in_front):
    form = replace(STORESCP_FORM, padding=(64, 16))
    data = encode((*HEAD, Sq(0x00081032, [CODE, []]), NAME, PADDING), EXPLICIT)
    written = write(data, form=form, in_front=in_front)
    assert (in_front + len(written)) % 64 == 0
    length = -len(encode(CODE, EXPLICIT)) % 16
    length += 0 if length >= 12 else 16
    start = encode(
        (*HEAD, Sq(0x00081032, [(*CODE, El(0xFFFCFFFC, b"OB", bytes(length - 12))), []])), EXPLICIT
    )
    assert written.startswith(start)
    without = write(data, form=replace(form, with_meta=False), in_front=in_front)
    assert len(without) % 64 == 0


def test_padding_to_odd_lengths_changes_nothing():
    tree = (El(0x00080000, b"UL", (4711,)), *HEAD, NAME, PADDING)
    data = encode(tree, EXPLICIT)
    assert write(data, form=replace(STORESCP_FORM, padding=(3, 4))) == data


# Values and VRs


@pytest.mark.parametrize(
    ("received", "corrected", "kept"),
    [
        (b"ab", b"ab", b"ab"),
        (b"ab    ", b"ab", b"ab    "),
        (b"abc ", b"abc ", b"abc "),
        (b"abc   ", b"abc ", b"abc   "),
        (b"    ", b"", b"    "),
        (b"abc", b"abc\0", b"abc "),
        (b"ab ", b"ab \0", b"ab  "),
        (b"abc\0", b"abc\0", b"abc\0"),
        (b"a" + b" " * 199_999, b"a ", None),
    ],
)
@pytest.mark.parametrize("vr", [b"LT", b"UT"])
def test_texts(received, corrected, kept, vr):
    if len(received) > 0xFFFF:
        vr = b"UT"  # the other has no room for it
    data = encode((El(0x00104000, vr, received),), EXPLICIT)
    assert write(data) == encode((El(0x00104000, vr, corrected),), EXPLICIT)
    expected = received if kept is None else kept
    assert write(data, form=DCMRECV_FORM) == encode((El(0x00104000, vr, expected),), EXPLICIT)


@pytest.mark.parametrize(
    ("received", "corrected", "kept"),
    [
        (b"1.2\0", b"1.2\0", b"1.2\0"),
        (b"1.2 ", b"1.2\0", b"1.2 "),
        (b" 1\t.2\0 ", b"1.2\0", b" 1\t.2\0 \0"),
        (b"1.2\0\0\0", b"1.2\0", b"1.2\0\0\0"),
        (b"  ", b"", b"  "),
        (b"1.2", b"1.2\0", b"1.2\0"),
    ],
)
def test_uids(received, corrected, kept):
    data = encode((El(0x00081155, b"UI", received),), EXPLICIT)
    assert write(data) == encode((El(0x00081155, b"UI", corrected),), EXPLICIT)
    assert write(data, form=DCMRECV_FORM) == encode((El(0x00081155, b"UI", kept),), EXPLICIT)


@pytest.mark.parametrize(
    ("vr", "corrected", "kept"),
    [
        (b"OB", b"abc\0", b"abc\0"),
        (b"UN", b"abc\0", b"abc\0"),
        (b"OW", b"abc", b"abc"),
        (b"US", b"abc\0", b"abc"),
    ],
)
def test_odd_lengths(vr, corrected, kept):
    data = encode((El(0x00091001, vr, b"abc"),), EXPLICIT)
    assert write(data) == encode((El(0x00091001, vr, corrected),), EXPLICIT)
    assert write(data, form=DCMRECV_FORM) == encode((El(0x00091001, vr, kept),), EXPLICIT)


def test_new_vrs_become_ob():
    names = b"OD OF OL OV SV UC UN UR UT UV ZZ".split()
    tree = [El(0x00091000 + n, vr, b"12345678") for n, vr in enumerate(names)]
    form = replace(STORESCP_FORM, new_vr=False)
    expected = [El(one.tag, b"OB", one.value) for one in tree]
    assert write(encode(tree, EXPLICIT), form=form) == encode(expected, EXPLICIT)


def test_numbers_that_become_bytes_are_little_endian():
    form = replace(STORESCP_FORM, new_vr=False)
    data = encode([El(0x00660016, b"OF", (1.5,))], BIG_ENDIAN)
    value = struct.pack("<f", 1.5)
    assert write(data, BIG_ENDIAN, form) == encode([El(0x00660016, b"OB", value)], BIG_ENDIAN)


def test_a_value_too_long_for_its_vr_becomes_un():
    form = replace(STORESCP_FORM, transfer_syntax=BIG_ENDIAN)
    value = b"\1\2" * 40_000
    data = encode([El(0x00283006, b"OW", value), El(0x00189073, b"FD", value)], IMPLICIT)
    swapped = b"\2\1" * 40_000
    expected = encode([El(0x00283006, b"OW", swapped), El(0x00189073, b"UN", value)], BIG_ENDIAN)
    assert write(data[80_008:] + data[:80_008], IMPLICIT, form) == expected[80_012:] + expected[:80_012]


def test_a_group_length_that_is_no_number_is_changed_at_its_beginning():
    # DCMTK does so in the last group; there may be more than a short header has room for.
    value = struct.pack("<20000I", *range(20_000))
    data = encode([El(0x00280000, b"UN", value), *IMAGE], IMPLICIT)
    count = len(encode(IMAGE, BIG_ENDIAN))
    expected = encode([El(0x00280000, b"UN", struct.pack("<I", count) + value[4:]), *IMAGE], BIG_ENDIAN)
    assert write(data, IMPLICIT, replace(STORESCP_FORM, transfer_syntax=BIG_ENDIAN)) == expected
    double = El(0x00280000, b"UL", (1, 2))
    expected = encode([El(0x00280000, b"UL", (count, 2)), *IMAGE], BIG_ENDIAN)
    assert write(encode([double, *IMAGE], BIG_ENDIAN), BIG_ENDIAN) == expected


def test_un_is_converted_where_the_dictionary_knows_better():
    sequence = encode([Sq(0x00081032, [CODE])], IMPLICIT)[8:]
    tree = [El(0x00081032, b"UN", sequence), El(0x00280010, b"UN", b"\1\2"), El(0x00091001, b"UN", b"ab")]
    form = replace(STORESCP_FORM, convert_un=True)
    expected = [Sq(0x00081032, [CODE]), El(0x00280010, b"US", b"\2\1"), El(0x00091001, b"UN", b"ab")]
    data = encode(sorted(tree, key=lambda one: one.tag), BIG_ENDIAN)
    assert write(data, BIG_ENDIAN, form) == encode(sorted(expected, key=lambda one: one.tag), BIG_ENDIAN)
    assert write(data, BIG_ENDIAN) == data


def test_un_of_undefined_length_is_a_sequence():
    received = Sq(0x00091001, [CODE], is_open=True, vr=b"UN", content=IMPLICIT)
    assert write(encode([received], BIG_ENDIAN), BIG_ENDIAN) == encode([Sq(0x00091001, [CODE])], BIG_ENDIAN)


# Errors


@pytest.mark.parametrize(
    ("data", "syntax", "words"),
    [
        (b"", EXPLICIT, "the data set holds no elements"),
        (b"abcd", EXPLICIT, "the data set ends at 4 inside the header of an element at offset 0"),
        (encode(USUAL, EXPLICIT)[:-2], EXPLICIT, "2 bytes before the end of the value of (7FE0,0010)"),
        (
            encode([Sq(0x00081032, [CODE])], EXPLICIT)[:-2],
            EXPLICIT,
            "2 bytes before the end of the value of (0008,0104)",
        ),
        (
            encode([Sq(0x00081032, [CODE], is_open=True)], EXPLICIT)[:-4],
            EXPLICIT,
            "the data set ends at 60 inside the sequence (0008,1032) at offset 12",
        ),
        (
            encode([Sq(0x00081032, [CODE], is_open=True)], EXPLICIT)[:-18],
            EXPLICIT,
            "the data set ends at 46 inside an item of the sequence (0008,1032)",
        ),
        (encode([NAME, Raw(item(0, EXPLICIT))], EXPLICIT), EXPLICIT, "(FFFE,E000) at offset 16 stands where"),
        (
            encode([NAME, Raw(item(0, EXPLICIT, 0xFFFEE00D)), NAME], EXPLICIT),
            EXPLICIT,
            "(FFFE,E00D) at offset 16 ends the data set, 40 bytes were received",
        ),
        (
            header(0x00081032, b"SQ", 16, EXPLICIT) + encode([NAME], EXPLICIT),
            EXPLICIT,
            "(0010,0010) at offset 12 stands where an item or the delimiter of the sequence (0008,1032) should",
        ),
        (
            encode([Sq(0x00081032, [[El(0x00080100, b"SH", b"abcd", length=6)]]), NAME], EXPLICIT),
            EXPLICIT,
            "(0008,0100) at offset 20 has 6 bytes, its item has 4 left",
        ),
        (header(0x00091001, b"UT", UNDEFINED, EXPLICIT), EXPLICIT, "VR UT, which allows no undefined length"),
        (header(0x00091001, b"pi", 0, EXPLICIT), EXPLICIT, "VR pi, which no element has"),
        (encode([El(0x00283010, b"OW", b"abcd")], EXPLICIT), EXPLICIT, "is a sequence, but has VR OW"),
        (encode([PIXELS], JPEG), JPEG, "is not encapsulated, as JPEG Baseline"),
        (
            encode([Sq(0x7FE00010, [b"ab"], is_open=True, vr=b"OB")], EXPLICIT),
            EXPLICIT,
            "is encapsulated, which its transfer syntax does not allow",
        ),
        (
            header(0x7FE00010, b"OB", UNDEFINED, JPEG) + item(4, JPEG) + b"ab",
            JPEG,
            "the pixel fragment at offset 12",
        ),
        (b"\xff\xff\xff", DEFLATED, "the deflate stream is damaged after 0 inflated bytes"),
        (encode(USUAL, DEFLATED)[:-20], DEFLATED, "the deflate stream ends before its last block does"),
        (encode(USUAL, EXPLICIT), "1.2.3", "the transfer syntax 1.2.3 is not known"),
    ],
)
def test_what_cannot_be_read_is_named(data, syntax, words):
    with pytest.raises(EncodingError) as caught:
        write(data, syntax)
    assert words in str(caught.value)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("target", UNCOMPRESSED)
def test_compressed_pixel_data_is_not_decoded(target):
    data = encode([*HEAD, Sq(0x7FE00010, [b"", b"ab"], is_open=True, vr=b"OB")], JPEG)
    with pytest.raises(
        EncodingError, match=r"\(7FE0,0010\) at offset .* is compressed: pixel data in JPEG Baseline"
    ):
        write(data, JPEG, replace(STORESCP_FORM, transfer_syntax=target))


def test_without_pixel_data_a_compressed_syntax_is_converted():
    form = replace(STORESCP_FORM, transfer_syntax=IMPLICIT)
    assert write(encode([*HEAD, NAME], JPEG), JPEG, form) == encode([*HEAD, NAME], IMPLICIT)


# Bounds


def nested(depth):
    """Return a data set with sequences inside one another."""
    tree = list(CODE)
    for _ in range(depth):
        tree = [Sq(0x00400260, [tree], is_open=True)]
    return tree


def test_the_deepest_sequences():
    written = write(encode(nested(SEQUENCE_DEPTH_MAX), EXPLICIT))
    assert written[:8] == encode([Sq(0x00400260)], EXPLICIT)[:8]
    with pytest.raises(EncodingError, match="nested deeper than 64"):
        write(encode(nested(SEQUENCE_DEPTH_MAX + 1), EXPLICIT))


def test_too_many_elements(monkeypatch):
    monkeypatch.setattr(structure, "NODES_MAX", len(USUAL) + 1)  # the data set itself is one
    write(encode(USUAL, EXPLICIT))
    with pytest.raises(EncodingError, match="the data set has more than 12 elements"):
        write(encode((*USUAL, PADDING), EXPLICIT))


def test_too_much_to_sort(monkeypatch):
    monkeypatch.setattr(structure, "SORTED_ELEMENTS_MAX", len(USUAL))
    assert write(encode((*HEAD, PIXELS, *USUAL), EXPLICIT)) == encode(USUAL, EXPLICIT)
    monkeypatch.setattr(structure, "SORTED_ELEMENTS_MAX", len(USUAL) - 1)
    assert write(encode(USUAL, EXPLICIT)) == encode(USUAL, EXPLICIT)
    with pytest.raises(EncodingError, match="more than 10 elements of a data set or item are not in order"):
        write(encode((*HEAD, PIXELS, *USUAL), EXPLICIT))


def test_too_much_to_inflate(monkeypatch):
    size = len(encode(USUAL, EXPLICIT))
    monkeypatch.setattr(source, "INFLATED_BYTES_MAX", size)
    write(encode(USUAL, DEFLATED), DEFLATED)
    monkeypatch.setattr(source, "INFLATED_BYTES_MAX", size - 1)
    with pytest.raises(EncodingError, match=f"inflates to more than {size - 1} bytes"):
        write(encode(USUAL, DEFLATED), DEFLATED)


@pytest.mark.parametrize("inflated_in_memory", [1, limits.INFLATED_IN_MEMORY_BYTES])
def test_what_is_inflated_leaves_no_file(monkeypatch, tmp_path, inflated_in_memory):
    monkeypatch.setattr(source, "INFLATED_IN_MEMORY_BYTES", inflated_in_memory)
    path = tmp_path / "received"
    path.write_bytes(encode(USUAL, DEFLATED))
    target = io.BytesIO()
    with path.open("rb") as file:
        write_data_set(file, DEFLATED, replace(STORESCP_FORM, transfer_syntax=EXPLICIT), target)
    assert target.getvalue() == encode(USUAL, EXPLICIT)
    assert list(tmp_path.iterdir()) == [path]


def outcome(data, syntax, form):
    """Return what is written, or why nothing is."""
    try:
        return write(data, syntax, form)
    except EncodingError as error:
        return str(error)


@pytest.mark.slow
def test_small_pieces_make_no_difference(monkeypatch):
    received = [encode(tree, BIG_ENDIAN) for _, tree in samples.samples()]
    received = [data for data in received if len(data) < 3000]
    forms = [STORESCP_FORM, replace(STORESCP_FORM, transfer_syntax=EXPLICIT)]
    usual = [outcome(data, BIG_ENDIAN, form) for data in received for form in forms]
    monkeypatch.setattr(source, "READ_AHEAD_BYTES", 13)
    monkeypatch.setattr(values, "READ_AHEAD_BYTES", 3)
    monkeypatch.setattr(values, "COPY_BYTES", 8)
    assert [outcome(data, BIG_ENDIAN, form) for data in received for form in forms] == usual


def test_a_private_creator_that_no_dictionary_has(monkeypatch):
    creator = El(0x00290010, b"LO", b"STOWKEEPER TEST ")
    tree = (creator, *(El(tag, b"UN", b"ab    ") for tag in (0x00290FFF, 0x00291000, 0x00291002)))
    form = replace(STORESCP_FORM, convert_un=True)
    known = (*tree[:2], El(0x00291000, b"LO", b"ab"), El(0x00291002, b"LO", b"ab"))
    assert write(encode(tree, EXPLICIT), form=form) == encode(known, EXPLICIT)
    monkeypatch.setattr(vr_choice, "PRIVATE_CREATOR_BYTES_MAX", 15)
    assert write(encode(tree, EXPLICIT), form=form) == encode(tree, EXPLICIT)


@pytest.mark.slow
@given(
    seed=st.integers(0, 1 << 32),
    syntax=st.sampled_from(UNCOMPRESSED),
    form=st.sampled_from(list(FORMS)),
    places=st.lists(st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=8)), max_size=6),
)
@settings(max_examples=examples(400), deadline=None)
def test_any_bytes_are_written_or_refused(seed, syntax, form, places):
    data = bytearray(encode(chance_data_set(Random(seed)), syntax))
    for place, damage in places:
        data[place : place + len(damage)] = damage
    written = outcome(bytes(data), syntax, form)
    assert isinstance(written, bytes | str)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("syntax", "vr"), [(EXPLICIT, b"OW"), (BIG_ENDIAN, b"OW"), (EXPLICIT, b"UT"), (DEFLATED, b"OB")]
)
def test_memory_does_not_grow_with_a_value(tmp_path, syntax, vr):
    size = 1 << 26
    path = tmp_path / "received"
    with path.open("wb") as file:
        stream = zlib.compressobj(1, wbits=-15)
        put = file.write if syntax != DEFLATED else lambda data: file.write(stream.compress(data))
        plain = EXPLICIT if syntax == DEFLATED else syntax
        put(encode([Sq(0x00081032, [CODE], is_open=True)], plain) + header(0x00091001, vr, size, plain))
        for _ in range(size >> 16):
            put(b"ab" * (1 << 15))
        if syntax == DEFLATED:
            file.write(stream.flush())
    target = "little" if syntax == BIG_ENDIAN else None
    form = replace(STORESCP_FORM, transfer_syntax=EXPLICIT if target else None, compression_level=1)
    with path.open("rb") as file, (tmp_path / "written").open("wb") as written:
        tracemalloc.start()
        try:
            write_data_set(file, syntax, form, written)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < (3 << 20) + (limits.INFLATED_IN_MEMORY_BYTES * 2 if syntax == DEFLATED else 0)
