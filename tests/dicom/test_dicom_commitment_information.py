"""What storage commitment requests and reports say: read and written, as they should be and as peers write them."""

import io
from dataclasses import replace
from random import Random

import pydicom
import pytest
from data_set_bytes import EBE, ELE, ILE, ITEM, ITEM_END, LAYOUTS, SYNTAX_OF, TREE, bundled_files
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filewriter import write_dataset

from stowkeeper.dicom import commitment_information as module
from stowkeeper.dicom.commitment_information import (
    COMMITMENT_TRANSFER_SYNTAXES,
    FAILED_SOP_SEQUENCE,
    FAILURE_REASON,
    REFERENCED_SOP_CLASS_UID,
    REFERENCED_SOP_INSTANCE_UID,
    REFERENCED_SOP_SEQUENCE,
    RETRIEVE_AE_TITLE,
    TRANSACTION_UID,
    ActionInformation,
    CommitmentInformationError,
    EventInformation,
    FailedReference,
    Reference,
    decode_action_information,
    decode_event_information,
    encode_action_information,
    encode_event_information,
)
from stowkeeper.dicom.elements import UNDEFINED_LENGTH
from stowkeeper.dicom.limits import SEQUENCE_DEPTH_MAX
from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
TWO = (Reference(CT, "1.2.3"), Reference(MR, "1.2.4"))
REQUEST = ActionInformation("2.25.1", TWO)

uids = st.text("0123456789.", min_size=1, max_size=64)
references = st.builds(Reference, uids, uids)
requests = st.builds(ActionInformation, uids, st.lists(references, min_size=1, max_size=5).map(tuple))
titles = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\"), max_size=16
).map(lambda title: title.strip(" "))
reports = st.builds(
    EventInformation,
    uids,
    st.lists(references, max_size=4).map(tuple),
    st.lists(st.builds(FailedReference, references, st.integers(0, 0xFFFF)), max_size=4).map(tuple),
    titles,
).filter(lambda report: report.committed or report.failed)
syntaxes = st.sampled_from(COMMITMENT_TRANSFER_SYNTAXES)


def uid(layout, tag, text):
    value = text.encode() if isinstance(text, str) else text
    return layout.element(tag, b"UI", value + b"\0" * (len(value) % 2))


def item(layout, sop_class=CT, sop_instance="1.2.3", more=b""):
    return (
        uid(layout, REFERENCED_SOP_CLASS_UID, sop_class)
        + uid(layout, REFERENCED_SOP_INSTANCE_UID, sop_instance)
        + more
    )


def request(layout, *items, before=b"", transaction="2.25.1", **lengths):
    head = uid(layout, TRANSACTION_UID, transaction)
    return before + head + layout.sequence(REFERENCED_SOP_SEQUENCE, *items, **lengths)


def decode(data, layout=ELE):
    return decode_action_information(data, SYNTAX_OF[layout])


def decode_event(data, layout=ELE):
    return decode_event_information(data, SYNTAX_OF[layout])


# What we write, we and others read


@pytest.mark.slow
@given(requests, syntaxes)
def test_a_request_is_read_as_it_was_written(information, syntax):
    assert decode_action_information(encode_action_information(information, syntax), syntax) == information


@pytest.mark.slow
@given(reports, syntaxes)
def test_a_report_is_read_as_it_was_written(information, syntax):
    assert decode_event_information(encode_event_information(information, syntax), syntax) == information


def parse(data, syntax):
    """Read as pydicom does."""
    implicit, little = syntax == SYNTAX_OF[ILE], syntax != SYNTAX_OF[EBE]
    return pydicom.filereader.read_dataset(io.BytesIO(data), implicit, little)


@LAYOUTS
def test_pydicom_reads_what_we_write(layout):
    syntax = SYNTAX_OF[layout]
    found = parse(encode_action_information(REQUEST, syntax), syntax)
    assert found.TransactionUID == "2.25.1"
    assert [each.ReferencedSOPInstanceUID for each in found.ReferencedSOPSequence] == ["1.2.3", "1.2.4"]
    assert [element.tag for element in found] == [TRANSACTION_UID, REFERENCED_SOP_SEQUENCE]
    report = EventInformation("2.25.1", TWO[:1], (FailedReference(TWO[1], 0x0112),), "ARCHIVE")
    found = parse(encode_event_information(report, syntax), syntax)
    assert (found.RetrieveAETitle, found.ReferencedSOPSequence[0].ReferencedSOPClassUID) == ("ARCHIVE", CT)
    (failed,) = found.FailedSOPSequence
    assert (failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID) == (MR, "1.2.4")
    assert failed.FailureReason == 0x0112
    assert list(found.keys()) == sorted(found.keys())


@LAYOUTS
@pytest.mark.parametrize("undefined", [False, True])
def test_what_pydicom_writes_is_read(layout, undefined):
    made = Dataset()
    made.TransactionUID = "2.25.1"
    made.RetrieveAETitle = ["FIRST", "SECOND"]
    made.StorageMediaFileSetID = "DISC"
    made.ReferencedSOPSequence = [Dataset(), Dataset()]
    for each, reference in zip(made.ReferencedSOPSequence, TWO, strict=True):
        each.ReferencedSOPClassUID = reference.sop_class_uid
        each.ReferencedSOPInstanceUID = reference.sop_instance_uid
        each.is_undefined_length_sequence_item = undefined
    made["ReferencedSOPSequence"].is_undefined_length = undefined
    stream = pydicom.filebase.DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = layout is ILE, layout is not EBE
    write_dataset(stream, made)
    assert decode(stream.getvalue(), layout) == REQUEST
    assert decode_event(stream.getvalue(), layout) == EventInformation("2.25.1", TWO, (), "FIRST")


def test_sequences_without_items_are_not_written():
    for report, absent in (
        (EventInformation("1.2", TWO, ()), FAILED_SOP_SEQUENCE),
        (EventInformation("1.2", (), (FailedReference(TWO[0], 0x0110),)), REFERENCED_SOP_SEQUENCE),
    ):
        found = parse(encode_event_information(report, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)
        assert absent not in found
        assert RETRIEVE_AE_TITLE not in found


@pytest.mark.parametrize(
    ("change", "element"),
    [
        ({"transaction_uid": ""}, TRANSACTION_UID),
        ({"transaction_uid": "1" * 65}, TRANSACTION_UID),
        ({"committed": (Reference("none", "1.2"),)}, REFERENCED_SOP_CLASS_UID),
        ({"committed": (Reference(CT, "1.2 "),)}, REFERENCED_SOP_INSTANCE_UID),
        ({"failed": (FailedReference(TWO[0], 0x10000),)}, FAILURE_REASON),
        ({"failed": (FailedReference(TWO[0], -1),)}, FAILURE_REASON),
        ({"retrieve_ae_title": "A" * 17}, RETRIEVE_AE_TITLE),
        ({"committed": ()}, REFERENCED_SOP_SEQUENCE),
    ],
)
def test_what_cannot_be_said_is_not_written(change, element):
    report = replace(EventInformation("1.2", TWO, ()), **change)
    with pytest.raises(CommitmentInformationError) as caught:
        encode_event_information(report, EXPLICIT_VR_LITTLE_ENDIAN)
    assert caught.value.element == element
    assert not caught.value.too_many


# What peers write


@LAYOUTS
@pytest.mark.parametrize("lengths", [{}, {"undefined": False}, {"items_undefined": False}])
def test_lengths_may_be_defined_or_not(layout, lengths):
    data = request(layout, item(layout), item(layout, MR, "1.2.4"), **lengths)
    assert decode(data, layout) == REQUEST


@pytest.mark.parametrize("padding", [b"\0", b" ", b"", b"\0\0 ", b" \0"])
def test_uids_may_be_padded_in_any_way(padding):
    padded = uid(ELE, REFERENCED_SOP_CLASS_UID, CT.encode() + padding) + ELE.element(
        REFERENCED_SOP_INSTANCE_UID, b"UI", padding + b"1.2.3" + padding
    )
    data = ELE.element(TRANSACTION_UID, b"UI", b"2.25.1" + padding) + ELE.sequence(
        REFERENCED_SOP_SEQUENCE, padded
    )
    assert decode(data) == replace(REQUEST, references=TWO[:1])


@LAYOUTS
@pytest.mark.parametrize("undefined", [False, True])
def test_foreign_elements_are_passed_over(layout, undefined):
    nested = layout.sequence(
        0x00081111,
        uid(layout, TRANSACTION_UID, "9.9")
        + layout.sequence(REFERENCED_SOP_SEQUENCE, item(layout, sop_instance="9.9"), undefined=undefined),
        undefined=undefined,
        items_undefined=undefined,
    )
    more = (
        layout.element(0x00880130, b"SH", b"DISC")
        + uid(layout, 0x00880140, "1.2.5")
        + layout.element(0x00091001, b"OB", bytes(300))
        + nested
        + layout.sequence(0x00091002, nested, undefined=undefined)
    )
    group_length = layout.element(0x00080000, b"UL", bytes(4))
    data = request(layout, item(layout, more=more), before=group_length + nested) + more
    assert decode(data, layout) == replace(REQUEST, references=TWO[:1])


def test_unknown_vrs_are_passed_over():
    strange = b"\x09\0\1\x10ZZ\0\0\4\0\0\0abcd"
    assert decode(request(ELE, item(ELE, more=strange), before=strange)).references == TWO[:1]


@pytest.mark.parametrize("undefined", [False, True])
def test_a_sequence_of_unknown_vr_holds_implicit_items(undefined):
    head = uid(ELE, TRANSACTION_UID, "2.25.1")
    body = ILE.sequence(REFERENCED_SOP_SEQUENCE, item(ILE), item(ILE, MR, "1.2.4"), undefined=undefined)
    length = UNDEFINED_LENGTH if undefined else len(body) - 8
    data = head + ELE.header(REFERENCED_SOP_SEQUENCE, b"UN", length) + body[8:]
    assert decode(data) == REQUEST
    # The same where it is passed over: an implicit header in it read as an explicit one would lead astray.
    foreign = ELE.sequence(0x00091003, item(ILE), vr=b"UN")
    assert decode(foreign + request(ELE, item(ELE), item(ELE, MR, "1.2.4"))) == REQUEST


def test_elements_may_come_in_any_order():
    sequence = ELE.sequence(
        REFERENCED_SOP_SEQUENCE,
        uid(ELE, REFERENCED_SOP_INSTANCE_UID, "1.2.3") + uid(ELE, REFERENCED_SOP_CLASS_UID, CT),
    )
    assert decode(sequence + uid(ELE, TRANSACTION_UID, "2.25.1")).references == TWO[:1]


def test_an_instance_named_twice_is_there_twice():
    assert decode(request(ELE, item(ELE), item(ELE))).references == (TWO[0], TWO[0])


def test_uids_that_only_the_standard_minds_are_taken():
    # Leading zeros come from real senders, and such instances are kept.
    assert decode(request(ELE, item(ELE, sop_instance="1.02.3"))).references[0].sop_instance_uid == "1.02.3"


# Reports of peers


@LAYOUTS
def test_a_sequence_without_items_is_as_good_as_none(layout):
    empty = layout.sequence(FAILED_SOP_SEQUENCE, undefined=False)
    assert decode_event(request(layout, item(layout), before=empty), layout).failed == ()
    none_committed = request(layout, before=layout.sequence(FAILED_SOP_SEQUENCE, item(layout)))
    report = decode_event(none_committed, layout)
    assert (report.committed, report.failed) == ((), (FailedReference(TWO[0], 0x0110),))
    assert decode_event(uid(layout, TRANSACTION_UID, "1.2"), layout) == EventInformation("1.2", (), ())


@LAYOUTS
def test_the_failure_reason_is_read_in_its_byte_order(layout):
    reason = layout.element(FAILURE_REASON, b"US", (0x0119).to_bytes(2, "big" if layout is EBE else "little"))
    data = layout.sequence(FAILED_SOP_SEQUENCE, item(layout, more=reason)) + uid(layout, TRANSACTION_UID, "1")
    assert decode_event(data, layout).failed == (FailedReference(TWO[0], 0x0119),)


@pytest.mark.parametrize("value", [b"\1", b"\1\2\3\4"])
def test_a_failure_reason_that_is_no_number_is_refused(value):
    data = ELE.sequence(FAILED_SOP_SEQUENCE, item(ELE, more=ELE.element(FAILURE_REASON, b"US", value)))
    with pytest.raises(CommitmentInformationError, match="Failure Reason") as caught:
        decode_event(uid(ELE, TRANSACTION_UID, "1.2") + data)
    assert caught.value.element == FAILURE_REASON


@pytest.mark.parametrize(
    ("top", "inner", "found"),
    [
        (b"TOP ", b"ITEM", "TOP"),
        (None, b"ITEM", "ITEM"),
        (b"    ", b"ITEM", "ITEM"),
        (b"ONE\\TWO ", None, "ONE"),
        (b"A" * 17, None, ""),
        (b"BELL\7", None, ""),
        (b"\xc4rzte ", None, ""),
        (b"A" * 100_000, None, ""),
        (None, None, ""),
    ],
)
def test_the_retrieve_ae_title_stands_at_the_top_or_in_the_items(top, inner, found):
    def title(value):
        if value is None:
            return b""
        if len(value) > 0xFFFF:
            return b"\x08\0\x54\0UN\0\0" + len(value).to_bytes(4, "little") + value
        return ELE.element(RETRIEVE_AE_TITLE, b"AE", value)

    data = request(ELE, item(ELE), item(ELE, more=title(inner)), before=title(top))
    assert decode_event(data).retrieve_ae_title == found


# What is refused

PLAIN = request(ELE, item(ELE), item(ELE, MR, "1.2.4"), undefined=False, items_undefined=False)
SEQUENCE = ELE.sequence(REFERENCED_SOP_SEQUENCE, item(ELE))
TRANSACTION = uid(ELE, TRANSACTION_UID, "2.25.1")


def refused(data, syntax=EXPLICIT_VR_LITTLE_ENDIAN):
    with pytest.raises(CommitmentInformationError) as caught:
        decode_action_information(data, syntax)
    return caught.value


@pytest.mark.parametrize(
    ("data", "element", "words"),
    [
        (b"", TRANSACTION_UID, "the Transaction UID (0008,1195) is missing"),
        (SEQUENCE, TRANSACTION_UID, "the Transaction UID (0008,1195) is missing"),
        (uid(ELE, TRANSACTION_UID, "") + SEQUENCE, TRANSACTION_UID, "is empty"),
        (uid(ELE, TRANSACTION_UID, b"\0\0") + SEQUENCE, TRANSACTION_UID, "is empty"),
        (uid(ELE, TRANSACTION_UID, "1.2\\1.3") + SEQUENCE, TRANSACTION_UID, "is no UID"),
        (uid(ELE, TRANSACTION_UID, "1" * 65) + SEQUENCE, TRANSACTION_UID, "is no UID"),
        (uid(ELE, TRANSACTION_UID, b"1.\xb2") + SEQUENCE, TRANSACTION_UID, "is no UID"),
        (TRANSACTION, REFERENCED_SOP_SEQUENCE, "the Referenced SOP Sequence (0008,1199) has no items"),
        (request(ELE), REFERENCED_SOP_SEQUENCE, "has no items"),
        (request(ELE, undefined=False), REFERENCED_SOP_SEQUENCE, "has no items"),
        (request(ELE, b""), REFERENCED_SOP_CLASS_UID, "is missing"),
        (
            request(ELE, item(ELE), uid(ELE, REFERENCED_SOP_CLASS_UID, CT)),
            REFERENCED_SOP_INSTANCE_UID,
            "missing",
        ),
        (request(ELE, item(ELE, sop_instance="")), REFERENCED_SOP_INSTANCE_UID, "is empty"),
        (request(ELE, item(ELE, sop_class="")), REFERENCED_SOP_CLASS_UID, "is empty"),
        (request(ELE, item(ELE, sop_class="CT")), REFERENCED_SOP_CLASS_UID, "is no UID"),
        (request(ELE, item(ELE, sop_instance="1" * 65)), REFERENCED_SOP_INSTANCE_UID, "is no UID"),
        (TRANSACTION + TRANSACTION + SEQUENCE, TRANSACTION_UID, "(0008,1195) is there twice"),
        (TRANSACTION + SEQUENCE + SEQUENCE, REFERENCED_SOP_SEQUENCE, "(0008,1199) is there twice"),
        (request(ELE, item(ELE) + item(ELE)), REFERENCED_SOP_CLASS_UID, "is there twice"),
        (
            TRANSACTION + ELE.element(REFERENCED_SOP_SEQUENCE, b"OB", b"ab"),
            REFERENCED_SOP_SEQUENCE,
            "is no seq",
        ),
        (
            TRANSACTION + ELE.element(REFERENCED_SOP_SEQUENCE, b"UI", b"12"),
            REFERENCED_SOP_SEQUENCE,
            "is no seq",
        ),
        (TRANSACTION + ELE.header(0x00081190, b"UT", UNDEFINED_LENGTH), 0x00081190, "has no length"),
        (ELE.sequence(TRANSACTION_UID, b"") + SEQUENCE, TRANSACTION_UID, "is no sequence"),
        (TRANSACTION + SEQUENCE + ELE.mark(ITEM_END), None, "the end of an item that belongs nowhere"),
        (TRANSACTION + ELE.mark(ITEM, 0) + SEQUENCE, None, "an item that belongs nowhere"),
        (TRANSACTION + b"\x08\0\x50\x11\x01\x02\0\0", 0x00081150, "has no value representation"),
        (PLAIN[:-1], REFERENCED_SOP_SEQUENCE, "reaches beyond"),
        (SEQUENCE + TRANSACTION[:-2], TRANSACTION_UID, "reaches beyond"),
        (PLAIN + ELE.element(0x00091001, b"LO", b"ACME")[:-1], 0x00091001, "reaches beyond"),
        (PLAIN + b"\0", None, "inside the header of an element"),
        (TRANSACTION + SEQUENCE[:-8], REFERENCED_SOP_SEQUENCE, "the data set ends inside the sequence"),
        (TRANSACTION + SEQUENCE[:-16], None, "inside an item"),
        (
            TRANSACTION + ELE.header(REFERENCED_SOP_SEQUENCE, b"SQ", 8) + item(ELE)[:8],
            REFERENCED_SOP_SEQUENCE,
            "item",
        ),
    ],
)
def test_what_is_not_clear_is_refused(data, element, words):
    problem = refused(data)
    assert words in str(problem)
    assert problem.element == element
    assert not problem.too_many


def test_words_name_no_value_that_came():
    data = request(ELE, item(ELE, sop_instance="DOE^JANE"), transaction="2.25.77")
    assert "DOE" not in str(refused(data))
    assert "2.25.77" not in str(refused(data))


@LAYOUTS
def test_no_beginning_of_a_request_is_taken_for_one(layout):
    data = request(layout, item(layout), item(layout, MR, "1.2.4"))
    for end in range(len(data)):
        refused(data[:end], SYNTAX_OF[layout])


@LAYOUTS
def test_no_defined_length_reaches_out_of_what_holds_it(layout):
    # A sequence that claims one byte less than its items have, and an item that claims two more.
    inner = item(layout)
    for forged, length in (
        (layout.mark(ITEM, len(inner)) + inner, 7 + len(inner)),
        (layout.mark(ITEM, len(inner) + 2) + inner, 8 + len(inner)),
    ):
        data = (
            uid(layout, TRANSACTION_UID, "1.2")
            + layout.header(REFERENCED_SOP_SEQUENCE, b"SQ", length)
            + forged
        )
        assert "reaches beyond" in str(refused(data + bytes(8), SYNTAX_OF[layout]))


@LAYOUTS
def test_no_value_reaches_out_of_its_item(layout):
    # What follows, the next item, would pass for padding and more of the UID.
    forged = layout.header(REFERENCED_SOP_INSTANCE_UID, b"UI", 14) + b"1.2.3\0"
    first = uid(layout, REFERENCED_SOP_CLASS_UID, CT) + forged
    for undefined in (False, True):
        data = request(layout, first, item(layout), undefined=undefined, items_undefined=False)
        assert "reaches beyond" in str(refused(data, SYNTAX_OF[layout]))


@LAYOUTS
def test_nesting_has_an_end(layout):
    def nested(depth):
        inner = b""
        for _ in range(depth):
            inner = layout.sequence(0x00091002, inner)
        return request(layout, item(layout), before=inner)

    assert decode(nested(SEQUENCE_DEPTH_MAX), layout).references == TWO[:1]
    problem = refused(nested(SEQUENCE_DEPTH_MAX + 1), SYNTAX_OF[layout])
    assert "deep" in str(problem)
    # However deep: Python's own stack is not what ends it.
    refused(layout.header(0x00091002, b"SQ", UNDEFINED_LENGTH) * 50_000, SYNTAX_OF[layout])
    opening = layout.header(0x00091002, b"SQ", UNDEFINED_LENGTH) + layout.mark(ITEM, UNDEFINED_LENGTH)
    assert "deep" in str(refused(opening * 50_000, SYNTAX_OF[layout]))


@pytest.mark.parametrize("syntax", [DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.3", ""])
def test_other_transfer_syntaxes_are_refused(syntax):
    assert "transfer syntax" in str(refused(PLAIN, syntax))
    for encode, information in (
        (encode_action_information, REQUEST),
        (encode_event_information, EventInformation("1.2", TWO, ())),
    ):
        with pytest.raises(CommitmentInformationError, match="transfer syntax"):
            encode(information, syntax)


def test_data_sets_of_other_kinds_are_refused():
    assert refused(TREE).element == TRANSACTION_UID
    files = list(bundled_files())[:40]
    assert len(files) == 40
    for path in files:
        problem = refused(path.read_bytes()[132:])
        assert problem.args


def test_too_many_references_are_told_from_bad_ones(monkeypatch):
    monkeypatch.setattr(module, "REFERENCES_MAX", 3)
    three = request(ELE, item(ELE), item(ELE), item(ELE))
    assert len(decode(three).references) == 3
    assert refused(request(ELE, *[item(ELE)] * 4)).too_many
    both = ELE.sequence(FAILED_SOP_SEQUENCE, item(ELE), item(ELE)) + request(ELE, item(ELE), item(ELE))
    with pytest.raises(CommitmentInformationError) as caught:
        decode_event(both)
    assert caught.value.too_many
    with pytest.raises(CommitmentInformationError) as caught:
        encode_action_information(ActionInformation("1.2", TWO * 2), EXPLICIT_VR_LITTLE_ENDIAN)
    assert caught.value.too_many


@given(st.integers(0, 2**32), syntaxes)
def test_damage_is_an_error_or_another_request(seed, syntax):
    source = Random(seed)
    data = bytearray(encode_action_information(REQUEST, syntax))
    for _ in range(source.randrange(1, 4)):
        data[source.randrange(len(data))] = source.randrange(256)
    try:
        found = decode_action_information(bytes(data), syntax)
    except CommitmentInformationError:
        return
    assert decode_action_information(encode_action_information(found, syntax), syntax) == found


@pytest.mark.slow
@LAYOUTS
def test_ten_thousand_references_are_read(layout):
    many = tuple(Reference(CT, f"1.2.826.0.1.3680043.8.498.{number:038}") for number in range(10_000))
    data = encode_action_information(ActionInformation("2.25.1", many), SYNTAX_OF[layout])
    assert decode(data, layout).references == many
