"""The head of a file: written as the standard says, read as files are."""

import io
import struct

import pydicom
import pytest
from data_set_bytes import BUNDLED, ELE, ILE, bundled_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filereader import _read_file_meta_info

from stowkeeper.dicom import part10
from stowkeeper.dicom.limits import FILE_META_LENGTH_MAX
from stowkeeper.dicom.part10 import (
    PREFIX,
    InvalidFileMeta,
    MoreNeeded,
    NotPart10,
    Part10Error,
    encode_file_meta,
    read_file_meta,
)
from stowkeeper.dicom.transfer_syntaxes import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
from support.examples import examples

DATA_SET = ELE.element(0x00080018, b"UI", b"1.2.3.4\0")

ELEMENTS = [
    (0x00020001, b"OB", b"\0\1"),
    (0x00020002, b"UI", b"1.2.840.10008.5.1.4.1.1.2"),
    (0x00020003, b"UI", b"1.2.3.4"),
    (0x00020010, b"UI", EXPLICIT_VR_LITTLE_ENDIAN.encode()),
    (0x00020012, b"UI", b"2.25.1"),
    (0x00020013, b"SH", b"STOWKEEPER_0"),
    (0x00020016, b"AE", b"SOURCE1"),
    (0x00020017, b"AE", b"SENDING"),
    (0x00020018, b"AE", b"RECEIVING"),
    (0x00020100, b"UI", b"2.25.17"),
    (0x00020102, b"OB", b"private"),
]


def group(*elements, length=None, layout=ELE):
    """A file with group 0002 as given; `length` puts a group length in front."""
    body = b"".join(layout.element(*element) for element in elements)
    if length is not None:
        body = layout.element(0x00020000, b"UL", struct.pack("<I", length)) + body
    return PREFIX + body


def ask(head, **options):
    """Return what is read, or how many bytes are needed."""
    try:
        return read_file_meta(memoryview(head), **options)
    except MoreNeeded as more:
        return more.total


SYNTAX = (0x00020010, b"UI", b"1.2.840.10008.1.2.1\0")
GROUP_SIZE = len(ELE.element(*SYNTAX))


# ---- writing


def test_what_is_written_is_what_the_standard_says():
    head = PREFIX + encode_file_meta(ELEMENTS)
    assert head[:128] == bytes(128)
    assert head[128:132] == b"DICM"
    assert head[132:144] == b"\2\0\0\0UL\4\0" + struct.pack("<I", len(head) - 144)
    assert b"\2\0\3\0UI\x08\x001.2.3.4\0" in head  # UI is padded with NUL
    assert b"\2\0\x16\0AE\x08\0SOURCE1 " in head  # AE with a blank
    assert b"\2\0\2\1OB\0\0\x08\0\0\0private\0" in head  # OB with NUL
    assert len(head) % 2 == 0


def test_pydicom_reads_what_is_written():
    file = io.BytesIO(PREFIX + encode_file_meta(ELEMENTS) + DATA_SET)
    data_set = pydicom.dcmread(file)
    assert data_set.file_meta.FileMetaInformationGroupLength == file.getvalue().index(DATA_SET) - 144
    assert data_set.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert data_set.file_meta.ImplementationVersionName == "STOWKEEPER_0"
    assert data_set.file_meta.SourceApplicationEntityTitle == "SOURCE1"
    assert data_set.file_meta.PrivateInformation == b"private\0"
    assert data_set.SOPInstanceUID == "1.2.3.4"


def test_what_is_written_is_read_again():
    head = PREFIX + encode_file_meta(ELEMENTS)
    meta = read_file_meta(head + DATA_SET)
    assert meta.length == len(head)
    assert meta.media_storage_sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert meta.media_storage_sop_instance_uid == "1.2.3.4"
    assert meta.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN
    assert meta.implementation_class_uid == "2.25.1"
    assert meta.implementation_version_name == "STOWKEEPER_0"
    assert meta.source_application_entity_title == "SOURCE1"
    assert meta.sending_application_entity_title == "SENDING"
    assert meta.receiving_application_entity_title == "RECEIVING"
    assert meta.private_information_creator_uid == "2.25.17"
    assert meta.private_information == b"private\0"
    assert encode_file_meta(meta.elements[1:]) == head[132:]


def test_a_value_too_long_for_its_vr_is_refused():
    assert encode_file_meta([(0x00020013, b"SH", bytes(0xFFFE))])
    with pytest.raises(ValueError, match=r"\(0002,0013\) has 65536 bytes, its VR allows 65534 at most"):
        encode_file_meta([(0x00020013, b"SH", bytes(0xFFFF))])


@given(
    st.lists(
        st.tuples(
            st.integers(0x00020001, 0x0002FFFF),
            st.sampled_from([b"UI", b"SH", b"AE", b"OB", b"UN", b"UT", b"UL", b"ZZ"]),
            st.integers(0, 40).map(lambda half: b"x" * (2 * half)),
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=examples(100))
def test_any_elements_are_read_as_they_were_written(elements):
    head = PREFIX + encode_file_meta(elements)
    meta = read_file_meta(head)
    assert list(meta.elements[1:]) == elements
    assert meta.length == len(head)


# ---- reading real files


@pytest.mark.parametrize("path", list(bundled_files()), ids=lambda path: str(path.relative_to(BUNDLED)))
def test_every_bundled_file_is_read_as_pydicom_reads_it(path):
    data = path.read_bytes()
    meta = read_file_meta(data, whole=True)
    file = io.BytesIO(data)
    file.seek(132)
    expected = _read_file_meta_info(file)
    assert meta.length == file.tell()
    assert meta.transfer_syntax_uid == expected.get("TransferSyntaxUID", "")
    assert meta.media_storage_sop_class_uid == (expected.get("MediaStorageSOPClassUID") or "")
    assert meta.media_storage_sop_instance_uid == (expected.get("MediaStorageSOPInstanceUID") or "")
    assert meta.implementation_class_uid == expected.get("ImplementationClassUID", "")
    assert meta.implementation_version_name == expected.get("ImplementationVersionName", "")
    assert meta.source_application_entity_title == expected.get("SourceApplicationEntityTitle", "")
    assert [tag for tag, _, _ in meta.elements] == [int(element.tag) for element in expected]


@pytest.mark.parametrize("path", list(bundled_files())[::9], ids=lambda path: str(path.relative_to(BUNDLED)))
def test_a_head_that_comes_in_parts_asks_for_what_is_missing(path):
    data = path.read_bytes()
    whole = read_file_meta(data, whole=True)
    for size in (0, 1, 131, 132, 139, 150, whole.length - 1):
        totals = [size]
        while (answer := ask(data[: totals[-1]])) != whole:
            totals.append(answer)
        assert totals == sorted(set(totals))
        assert totals[-1] <= whole.length + 8
        assert len(totals) <= 5 or whole.elements[0][0] != part10.GROUP_LENGTH


# ---- reading what is odd


def test_a_group_length_may_be_missing():
    meta = read_file_meta(group(SYNTAX) + DATA_SET)
    assert meta.length == 132 + GROUP_SIZE
    assert meta.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN


def test_a_group_length_may_be_of_another_size():
    head = PREFIX + ELE.element(0x00020000, b"UL", b"\xff\0") + ELE.element(*SYNTAX)
    assert read_file_meta(head + DATA_SET).length == len(head)
    empty = PREFIX + ELE.element(0x00020000, b"UL", b"\xff\0")
    assert read_file_meta(empty, whole=True).length == len(empty)


@pytest.mark.parametrize("length", [0, 1, GROUP_SIZE, GROUP_SIZE + 8, 1000, 0xFFFFFFFF])
def test_a_wrong_group_length_is_not_believed(length):
    head = group((0x00020001, b"OB", b"\0\1"), SYNTAX, length=length)
    assert read_file_meta(head + DATA_SET).length == len(head)


def test_a_right_group_length_spares_a_look_behind_the_head():
    head = group(SYNTAX, length=GROUP_SIZE)
    assert read_file_meta(head).length == len(head)
    with pytest.raises(MoreNeeded) as more:
        read_file_meta(group(SYNTAX))
    assert more.value.total == 132 + GROUP_SIZE + 8
    assert read_file_meta(group(SYNTAX), whole=True).length == 132 + GROUP_SIZE


def test_the_group_length_tells_how_much_to_read():
    with pytest.raises(MoreNeeded) as more:
        read_file_meta(group(SYNTAX, length=GROUP_SIZE)[:150])
    assert more.value.total == 144 + GROUP_SIZE
    with pytest.raises(MoreNeeded) as more:  # ... unless it cannot be true
        read_file_meta(group(SYNTAX, length=FILE_META_LENGTH_MAX)[:150])
    assert more.value.total == 152


def test_a_deflated_data_set_may_begin_like_group_0002():
    deflated = (0x00020010, b"UI", DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN.encode())
    head = group(deflated, length=len(ELE.element(*deflated)))
    assert read_file_meta(head + b"\2\0\x10\0UI\0\0more").length == len(head)


def test_implicit_vr_is_read_too():
    head = group(SYNTAX, (0x00020016, b"AE", b"ODD"), length=99, layout=ILE)
    meta = read_file_meta(head + ILE.element(0x00080018, b"UI", b"1.2.3.4\0"))
    assert meta.length == len(head)
    assert meta.elements[1:] == (SYNTAX, (0x00020016, b"AE", b"ODD"))
    assert meta.source_application_entity_title == "ODD"


def test_odd_lengths_and_any_padding_are_let_pass():
    meta = read_file_meta(
        group(
            (0x00020003, b"UI", b"1.2.3  "),
            (0x00020010, b"UI", b"1.2.840.10008.1.2 \0"),
            (0x00020016, b"AE", b" A\0\0\0"),
        )
        + DATA_SET
    )
    assert meta.media_storage_sop_instance_uid == "1.2.3"
    assert meta.transfer_syntax_uid == "1.2.840.10008.1.2"
    assert meta.source_application_entity_title == "A"


def test_the_first_of_two_elements_counts():
    assert read_file_meta(group(SYNTAX, (0x00020010, b"UI", b"1.2.3")) + DATA_SET).transfer_syntax_uid == (
        EXPLICIT_VR_LITTLE_ENDIAN
    )


def test_a_preamble_is_only_dispensable_on_request():
    body = group(SYNTAX)[132:] + DATA_SET + bytes(200)
    for bare, start in ((b"DICM" + body, 4), (body, 0)):
        with pytest.raises(NotPart10):
            read_file_meta(bare)
        assert read_file_meta(bare, preamble_required=False).length == start + GROUP_SIZE
    for other in (DATA_SET, b"", b"GIF89a" + bytes(200)):
        with pytest.raises(NotPart10, match="no DICM prefix at offset 128"):
            read_file_meta(other, preamble_required=False, whole=True)


# ---- reading what is wrong


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (PREFIX, "no file meta information stands at offset 132"),
        (PREFIX + DATA_SET, "no file meta information stands at offset 132"),
        (group(SYNTAX)[:-1], r"the file ends inside \(0002,0010\) at offset 132"),
        (group(SYNTAX)[:145], r"the file ends inside \(0002,0010\) at offset 132"),
        (group((0x00020102, b"OB", b"ab"))[:-5], r"the file ends inside \(0002,0102\) at offset 132"),
        (
            group(SYNTAX, (0x00020016, b"a\0", b"ab")),
            r"the VR of \(0002,0016\) at offset 160 is not two uppercase letters",
        ),
        (
            PREFIX + ELE.header(0x00020102, b"OB", FILE_META_LENGTH_MAX) + bytes(FILE_META_LENGTH_MAX),
            f"the file meta information is longer than {FILE_META_LENGTH_MAX} bytes",
        ),
        (
            PREFIX + ELE.header(0x00020102, b"OB", 0xFFFFFFFF),
            r"the file ends inside \(0002,0102\) at offset 132",
        ),
    ],
)
def test_a_head_that_is_none_says_why(head, problem):
    with pytest.raises(InvalidFileMeta, match=problem):
        read_file_meta(head, whole=True)


def test_a_head_longer_than_allowed_is_not_asked_for():
    with pytest.raises(InvalidFileMeta, match="is longer than"):
        read_file_meta(PREFIX + ELE.header(0x00020102, b"OB", 0xFFFFFFFF))
    longest = FILE_META_LENGTH_MAX - 132 - 12
    with pytest.raises(MoreNeeded) as more:
        read_file_meta(PREFIX + ELE.header(0x00020102, b"OB", longest))
    assert more.value.total == FILE_META_LENGTH_MAX


@given(st.binary(max_size=200), st.booleans(), st.booleans())
@settings(max_examples=examples(200))
def test_any_bytes_are_read_or_refused(data, whole, preamble_required):
    for head in (data, PREFIX + data, PREFIX + b"\2\0" + data):
        try:
            answer = ask(head, whole=whole, preamble_required=preamble_required)
        except Part10Error:
            continue
        if isinstance(answer, int):
            assert not whole
            assert len(head) < answer <= FILE_META_LENGTH_MAX
        else:
            assert answer.length <= len(head)
