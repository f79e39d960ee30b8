"""Store responses as we write them: the bytes of both encodings, and the HTTP status that goes with them."""

import io
import json
import warnings
import xml.etree.ElementTree as ET

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag

from stowkeeper.stow.limits import ERROR_COMMENT_CHARACTERS_MAX, WORDS_CHARACTERS_MAX
from stowkeeper.stow.media_types import DICOM_JSON, DICOM_XML
from stowkeeper.stow.reasons import FailureReason, WarningReason
from stowkeeper.stow.response import (
    FailedInstance,
    OtherFailure,
    StoredInstance,
    StoreResult,
    read_response,
    status_of,
    write_response,
)
from support.examples import examples

STORED = StoredInstance("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
WARNED = StoredInstance(
    "1.2.840.10008.5.1.4.1.1.2", "1.2.4", "http://a/b?c&d", WarningReason.COERCED, "It was changed"
)
FAILED = FailedInstance(
    "1.2.840.10008.5.1.4.1.1.4", "1.2.5", FailureReason.STUDY_MISMATCH, 'Not <this> & not "that"'
)
OTHER = OtherFailure(FailureReason.CANNOT_UNDERSTAND, "No DICM")
ALL = StoreResult((STORED, WARNED), (FAILED,), (OTHER,), "http://a/studies/1")


# The bytes


def test_json_is_one_object_with_all_that_is_told():
    written = write_response(ALL, DICOM_JSON)

    assert json.loads(written) == {
        "00081190": {"vr": "UR", "Value": ["http://a/studies/1"]},
        "00081198": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.4"]},
                    "00081155": {"vr": "UI", "Value": ["1.2.5"]},
                    "00081197": {"vr": "US", "Value": [0xC409]},
                    "00741048": {
                        "vr": "SQ",
                        "Value": [{"00000902": {"vr": "LO", "Value": ['Not <this> & not "that"']}}],
                    },
                }
            ],
        },
        "00081199": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
                    "00081155": {"vr": "UI", "Value": ["1.2.3"]},
                    "00081190": {"vr": "UR"},
                },
                {
                    "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
                    "00081155": {"vr": "UI", "Value": ["1.2.4"]},
                    "00081190": {"vr": "UR", "Value": ["http://a/b?c&d"]},
                    "00081196": {"vr": "US", "Value": [0xB000]},
                    "00741048": {
                        "vr": "SQ",
                        "Value": [{"00000902": {"vr": "LO", "Value": ["It was changed"]}}],
                    },
                },
            ],
        },
        "0008119A": {
            "vr": "SQ",
            "Value": [
                {
                    "00081197": {"vr": "US", "Value": [0xC000]},
                    "00741048": {"vr": "SQ", "Value": [{"00000902": {"vr": "LO", "Value": ["No DICM"]}}]},
                }
            ],
        },
    }


def test_xml_is_the_native_model_with_tag_vr_and_keyword_everywhere():
    result = StoreResult((STORED,), (FAILED,))

    assert write_response(result, DICOM_XML).decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
        '<DicomAttribute tag="00081190" vr="UR" keyword="RetrieveURL"></DicomAttribute>'
        '<DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence"><Item number="1">'
        '<DicomAttribute tag="00081150" vr="UI" keyword="ReferencedSOPClassUID">'
        '<Value number="1">1.2.840.10008.5.1.4.1.1.4</Value></DicomAttribute>'
        '<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID">'
        '<Value number="1">1.2.5</Value></DicomAttribute>'
        '<DicomAttribute tag="00081197" vr="US" keyword="FailureReason"><Value number="1">50185</Value></DicomAttribute>'
        '<DicomAttribute tag="00741048" vr="SQ" keyword="FailedAttributesSequence"><Item number="1">'
        '<DicomAttribute tag="00000902" vr="LO" keyword="ErrorComment">'
        '<Value number="1">Not &lt;this&gt; &amp; not &quot;that&quot;</Value></DicomAttribute>'
        "</Item></DicomAttribute>"
        "</Item></DicomAttribute>"
        '<DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence"><Item number="1">'
        '<DicomAttribute tag="00081150" vr="UI" keyword="ReferencedSOPClassUID">'
        '<Value number="1">1.2.840.10008.5.1.4.1.1.2</Value></DicomAttribute>'
        '<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID">'
        '<Value number="1">1.2.3</Value></DicomAttribute>'
        '<DicomAttribute tag="00081190" vr="UR" keyword="RetrieveURL"></DicomAttribute>'
        "</Item></DicomAttribute>"
        "</NativeDicomModel>"
    )


def data_sets(value):
    """Yield an object of DICOM JSON and each item in it."""
    yield value
    for element in value.values():
        for each in element.get("Value", []):
            if isinstance(each, dict):
                yield from data_sets(each)


def test_tags_are_in_order_and_nothing_is_there_that_is_empty():
    for result in (ALL, StoreResult(), StoreResult(failed=(FailedInstance("", "", 0x0110),))):
        for data_set in data_sets(json.loads(write_response(result, DICOM_JSON))):
            assert list(data_set) == sorted(data_set)
            assert all(element.get("Value", ["absent"]) for element in data_set.values())
    assert json.loads(write_response(StoreResult(), DICOM_JSON)) == {"00081190": {"vr": "UR"}}
    assert b"Sequence" not in write_response(StoreResult(), DICOM_XML)


def in_pydicom(written):
    """Read DICOM JSON as pydicom does, which warns of a value that its VR does not allow."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return pydicom.Dataset.from_json(json.loads(written))


def from_xml(elements):
    """Read the native model as the Python dicomweb-client does: by keyword alone, and with text in every value."""
    data_set = pydicom.Dataset()
    for element in elements:
        tag, vr, keyword = (element.attrib[name] for name in ("tag", "vr", "keyword"))
        assert keyword_for_tag(tag) == keyword
        assert dictionary_VR(tag) == vr
        if vr == "SQ":
            value = [from_xml(item) for item in element]
        else:
            value = [each.text.strip() for each in element]
            value = [int(each) for each in value] if vr == "US" else value
            (value,) = value or [""]
        setattr(data_set, keyword, value)
    return data_set


@pytest.mark.parametrize(
    "result",
    [
        ALL,
        StoreResult((STORED,)),
        StoreResult(others=(OTHER, OTHER)),
        StoreResult(),
        StoreResult(failed=(FAILED,) * 3),
    ],
)
def test_both_encodings_say_the_same_to_a_client(result):
    by_json = in_pydicom(write_response(result, DICOM_JSON))
    by_xml = from_xml(ET.parse(io.BytesIO(write_response(result, DICOM_XML))).getroot())

    assert by_json == by_xml
    assert len(by_json.get("ReferencedSOPSequence", [])) == len(result.stored)
    assert [item.FailureReason for item in by_json.get("FailedSOPSequence", [])] == [
        each.reason for each in result.failed
    ]


@pytest.mark.parametrize(
    ("words", "comments"),
    [
        ("", []),
        (" \n", []),
        ("short", ["short"]),
        ("a" * 64, ["a" * 64]),
        ("a" * 32 + " " + "b" * 32, ["a" * 32, "b" * 32]),
        ("a" * 65, ["a" * 64, "a"]),
        (
            ("word " * 30).strip(),
            [" ".join(["word"] * count) for count in (13, 13, 4)],
        ),
        ("a" * 30 + " " + "b" * 34 + " c", ["a" * 30, "b" * 34 + " c"]),
        ("a\\b\tc\x00d\ne", ["a/b c d e"]),
    ],
)
def test_words_are_cut_to_what_an_error_comment_holds(words, comments):
    written = write_response(StoreResult(others=(OtherFailure(0xC000, words),)), DICOM_JSON)
    (item,) = in_pydicom(written).OtherFailuresSequence

    assert [each.ErrorComment for each in item.get("FailedAttributesSequence", [])] == comments


def test_words_have_a_bound():
    result = StoreResult(others=(OtherFailure(0xC000, "word " * WORDS_CHARACTERS_MAX),))
    (other,) = read_response(write_response(result, DICOM_JSON), DICOM_JSON).others

    assert WORDS_CHARACTERS_MAX - 5 < len(other.words) <= WORDS_CHARACTERS_MAX


texts = st.text(st.characters(codec=None), max_size=200)


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(texts, st.sampled_from([DICOM_JSON, DICOM_XML]))
def test_no_text_breaks_a_response(text, media_type):
    result = StoreResult(
        (StoredInstance(text, text, text, 0xB000, text),), (FailedInstance(text, text, 0, text),)
    )

    written = write_response(result, media_type)

    read = read_response(written, media_type)
    assert (len(read.stored), read.stored[0].warning, len(read.failed), read.failed[0].reason) == (
        1,
        0xB000,
        1,
        0,
    )
    comments = [
        each
        for data_set in data_sets(json.loads(write_response(result, DICOM_JSON)))
        for each in comments_of(data_set)
    ]
    assert all(0 < len(each) <= ERROR_COMMENT_CHARACTERS_MAX for each in comments)
    if media_type == DICOM_XML:
        ET.fromstring(written)


def comments_of(data_set):
    return data_set.get("00000902", {}).get("Value", [])


def test_another_media_type_is_refused():
    with pytest.raises(ValueError, match=r"a response is application/dicom\+json or application/dicom\+xml"):
        write_response(ALL, "text/html")


# The status

NO_ROOM = FailedInstance("1.2", "1.3", FailureReason.OUT_OF_RESOURCES)
UNREADABLE = OtherFailure(FailureReason.CANNOT_UNDERSTAND)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (StoreResult((STORED,)), 200),
        (StoreResult((STORED,) * 3), 200),
        (StoreResult((STORED, WARNED)), 202),
        (StoreResult((STORED,), (FAILED,)), 202),
        (StoreResult((STORED,), (), (UNREADABLE,)), 202),
        (StoreResult((STORED,), (NO_ROOM,)), 202),
        (StoreResult((WARNED,), (FAILED,), (UNREADABLE,)), 202),
        (StoreResult(), 400),
        (StoreResult((), (), (UNREADABLE,)), 400),
        (StoreResult((), (), (UNREADABLE,) * 2), 400),
        (StoreResult((), (), (UNREADABLE, OtherFailure(FailureReason.PROCESSING_FAILURE))), 409),
        (StoreResult((), (), (OtherFailure(FailureReason.TRANSFER_SYNTAX),)), 409),
        (StoreResult((), (FailedInstance("", "", FailureReason.CANNOT_UNDERSTAND),)), 409),
        (StoreResult((), (FAILED,)), 409),
        (StoreResult((), (FAILED,), (UNREADABLE,)), 409),
        (StoreResult((), (NO_ROOM,)), 503),
        (StoreResult((), (NO_ROOM, FailedInstance("1.2", "1.3", 0xA7FF))), 503),
        (StoreResult((), (), (OtherFailure(FailureReason.OUT_OF_RESOURCES),)), 503),
        (StoreResult((), (NO_ROOM,), (UNREADABLE,)), 409),
        (StoreResult((), (NO_ROOM, FAILED)), 409),
    ],
)
def test_the_status_is_that_of_the_outcomes(result, status):
    assert status_of(result) == status


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (StoreResult((STORED, WARNED)), 200),
        (StoreResult((WARNED,), (FAILED,)), 202),
        (StoreResult((WARNED,), (), (UNREADABLE,)), 202),
        (StoreResult((), (FAILED,)), 409),
    ],
)
def test_mere_warnings_may_count_as_success(result, status):
    assert status_of(result, warnings_are_successes=True) == status
