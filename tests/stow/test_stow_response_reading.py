"""Store responses as servers send them, read for a client: what is kept, what is not, and what is no response at all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.stow.limits import RESPONSE_BYTES_MAX, RESPONSE_XML_DEPTH_MAX, WORDS_CHARACTERS_MAX
from stowkeeper.stow.media_types import DICOM_JSON, DICOM_XML
from stowkeeper.stow.response import (
    FailedInstance,
    OtherFailure,
    ResponseError,
    StoredInstance,
    StoreResult,
    read_response,
    write_response,
)
from support.examples import examples

CT = "1.2.840.10008.5.1.4.1.1.2"


def json_of(data_set):
    return json.dumps(data_set).encode()


def xml_of(content, root="NativeDicomModel"):
    return f'<?xml version="1.0" encoding="UTF-8"?><{root}>{content}</{root.partition(" ")[0]}>'.encode()


uids = st.from_regex(r"[0-9.]{1,64}", fullmatch=True)
words = st.lists(st.text("abcXYZ\xe4\xdf<>&\"'/.,", min_size=1, max_size=20), max_size=6).map(" ".join)
codes = st.integers(0, 0xFFFF)
results = st.builds(
    StoreResult,
    stored=st.lists(
        st.builds(StoredInstance, uids, uids, st.just("http://a/b?c&d"), st.none() | codes, words), max_size=3
    ).map(tuple),
    failed=st.lists(st.builds(FailedInstance, uids, uids, codes, words), max_size=3).map(tuple),
    others=st.lists(st.builds(OtherFailure, codes, words), max_size=3).map(tuple),
    retrieve_url=st.sampled_from(["", "https://host/dicom-web/studies/1.2"]),
)


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(results, st.sampled_from([DICOM_JSON, DICOM_XML]))
def test_what_we_write_is_read_as_it_was(result, media_type):
    assert read_response(write_response(result, media_type), media_type) == result


# Other servers


def test_orthanc_with_its_character_set_and_without_failures():
    body = json_of(
        {
            "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
            "00081190": {"vr": "UR", "Value": ["http://localhost:8042/dicom-web/studies/1.2"]},
            "00081198": {"vr": "SQ"},
            "00081199": {
                "vr": "SQ",
                "Value": [
                    {
                        "00081150": {"vr": "UI", "Value": [CT]},
                        "00081155": {"vr": "UI", "Value": ["1.2.3"]},
                        "00081190": {
                            "vr": "UR",
                            "Value": ["http://localhost:8042/dicom-web/studies/1.2/instances/1.2.3"],
                        },
                    }
                ],
            },
        }
    )
    assert read_response(body, "application/dicom+json") == StoreResult(
        stored=(StoredInstance(CT, "1.2.3", "http://localhost:8042/dicom-web/studies/1.2/instances/1.2.3"),),
        retrieve_url="http://localhost:8042/dicom-web/studies/1.2",
    )


def test_dcm4chee_in_xml_without_a_namespace():
    body = xml_of(
        """
  <DicomAttribute keyword="RetrieveURL" tag="00081190" vr="UR"><Value number="1">http://a/studies/1</Value></DicomAttribute>
  <DicomAttribute keyword="FailedSOPSequence" tag="00081198" vr="SQ">
    <Item number="1">
      <DicomAttribute keyword="ReferencedSOPClassUID" tag="00081150" vr="UI">
        <Value number="1">1.2.840.10008.5.1.4.1.1.2</Value>
      </DicomAttribute>
      <DicomAttribute keyword="ReferencedSOPInstanceUID" tag="00081155" vr="UI"><Value number="1">1.2.4</Value></DicomAttribute>
      <DicomAttribute keyword="FailureReason" tag="00081197" vr="US"><Value number="1">50185</Value></DicomAttribute>
    </Item>
  </DicomAttribute>
  <DicomAttribute keyword="ReferencedSOPSequence" tag="00081199" vr="SQ">
    <Item number="1">
      <DicomAttribute keyword="ReferencedSOPClassUID" tag="00081150" vr="UI"/>
      <DicomAttribute keyword="ReferencedSOPInstanceUID" tag="00081155" vr="UI"><Value number="1"> 1.2.3\n</Value></DicomAttribute>
      <DicomAttribute keyword="WarningReason" tag="00081196" vr="US"><Value number="1">45056</Value></DicomAttribute>
      <DicomAttribute keyword="OriginalAttributesSequence" tag="04000561" vr="SQ"><Item number="1">
        <DicomAttribute keyword="ModifiedAttributesSequence" tag="04000550" vr="SQ"><Item number="1">
          <DicomAttribute keyword="PatientName" tag="00100010" vr="PN"><PersonName number="1"><Alphabetic>
            <FamilyName>X</FamilyName></Alphabetic></PersonName></DicomAttribute></Item></DicomAttribute>
      </Item></DicomAttribute>
    </Item>
  </DicomAttribute>""",
        root='NativeDicomModel xml:space="preserve"',
    )
    assert read_response(body, "application/dicom+xml;charset=UTF-8") == StoreResult(
        stored=(StoredInstance("", "1.2.3", warning=0xB000),),
        failed=(FailedInstance(CT, "1.2.4", 0xC409),),
        retrieve_url="http://a/studies/1",
    )


def test_azure_with_its_comments():
    item = {"00081150": {"vr": "UI", "Value": [CT]}, "00081155": {"vr": "UI", "Value": ["1.2.3"]}}
    comments = {
        "vr": "SQ",
        "Value": [
            {"00000902": {"vr": "LO", "Value": ["DICOM100: (0010,0020) - Invalid."]}},
            {"00000902": {"vr": "LO", "Value": ["DICOM100: (0010,0030) - Invalid."]}},
        ],
    }
    body = json_of(
        {
            "00081190": {"vr": "UR", "Value": ["http://a/v2/studies/1"]},
            "00081198": {
                "vr": "SQ",
                "Value": [item | {"00081197": {"vr": "US", "Value": [43264]}, "00741048": comments}],
            },
            "00081199": {
                "vr": "SQ",
                "Value": [item | {"00081196": {"vr": "US", "Value": [1]}, "00741048": comments}],
            },
        }
    )
    both = "DICOM100: (0010,0020) - Invalid. DICOM100: (0010,0030) - Invalid."
    assert read_response(body, DICOM_JSON) == StoreResult(
        (StoredInstance(CT, "1.2.3", "", 1, both),),
        (FailedInstance(CT, "1.2.3", 43264, both),),
        (),
        "http://a/v2/studies/1",
    )


def test_google_with_its_private_text():
    body = xml_of(
        '<DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence"><Item number="1">'
        '<DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.3</Value></DicomAttribute>'
        '<DicomAttribute tag="00081197" vr="US"><Value number="1">272</Value></DicomAttribute>'
        '<DicomAttribute tag="00090010" vr="LO" privateCreator="GOOGLE"><Value number="1">GOOGLE</Value></DicomAttribute>'
        '<DicomAttribute tag="00091001" vr="UT" privateCreator="GOOGLE"><Value number="1">already exists</Value></DicomAttribute>'
        "</Item></DicomAttribute>",
        root='NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"',
    )
    assert read_response(body, DICOM_XML) == StoreResult(
        failed=(FailedInstance("", "1.2.3", 272, "already exists"),)
    )


def test_an_array_with_an_object_for_each_study_is_merged():
    one = StoreResult((StoredInstance(CT, "1.2.3"),))
    two = StoreResult(
        (StoredInstance(CT, "1.2.4"),),
        (FailedInstance(CT, "1.2.5", 0x0110),),
        (OtherFailure(0xC000),),
        "http://a",
    )
    body = b"[" + write_response(one, DICOM_JSON) + b", " + write_response(two, DICOM_JSON) + b"]"

    assert read_response(body, "application/json") == StoreResult(
        (*one.stored, *two.stored), two.failed, two.others, "http://a"
    )


@pytest.mark.parametrize(
    "sequence",
    [
        None,
        {},
        {"vr": "SQ"},
        {"vr": "SQ", "Value": []},
        {"vr": "SQ", "Value": None},
        {"vr": "SQ", "Value": [None, 1, "x"]},
        [],
        "x",
    ],
)
def test_a_sequence_of_nothing_is_none(sequence):
    stored = {"vr": "SQ", "Value": {"00081155": {"vr": "UI", "Value": ["1.2"]}}}
    body = json_of({"00081198": sequence, "00081199": stored, "0008119a": sequence})

    assert read_response(body, DICOM_JSON) == StoreResult((StoredInstance("", "1.2"),))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([42752], 42752),
        ([42752.0], 42752),
        (["42752"], 42752),
        ([" 42752 "], 42752),
        (42752, 42752),
        (["A700", 42752], 42752),
        ([0], 0),
        ([], 0x0110),
        ([-1], 0x0110),
        ([65536], 0x0110),
        ([float("inf")], 0x0110),
        ([float("nan")], 0x0110),
        (["9" * 5000], 0x0110),
        ([None], 0x0110),
        ([{}], 0x0110),
    ],
)
def test_reasons_of_any_shape_are_numbers_of_16_bits(values, reason):
    item = {"00081155": {"vr": "UI", "Value": ["1.2\0"]}, "00081197": {"vr": "US", "Value": values}}
    body = json_of({"00081198": {"vr": "SQ", "Value": [item]}})

    assert read_response(body, DICOM_JSON) == StoreResult(failed=(FailedInstance("", "1.2", reason),))


def test_text_of_a_server_is_harmless_in_a_terminal():
    item = {
        "00081155": {"vr": "UI", "Value": ["1.2\x1b[2J"]},
        "00000902": {"vr": "LO", "Value": ["a\r\n\x9b1mb" + "c" * 5000]},
    }
    body = json_of({"0008119A": {"vr": "SQ", "Value": [item]}, "00081190": {"Value": ["http://a\n/b"]}})
    read = read_response(body, DICOM_JSON)

    assert read.retrieve_url == "http://a /b"
    assert read.others[0].words.startswith("a 1mbc")
    assert len(read.others[0].words) == WORDS_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"\xef\xbb\xbf {}", DICOM_JSON),
        (b"\n[]", DICOM_JSON),
        (b"{}", "text/plain"),
        (b'{"00081199": null}', DICOM_XML),
        (b"\xef\xbb\xbf" + xml_of(""), DICOM_XML),
        (b"  <NativeDicomModel/>", DICOM_JSON),
        (b"<NativeDicomModel/>", ""),
    ],
)
def test_the_body_tells_its_encoding_itself(body, media_type):
    assert read_response(body, media_type) == StoreResult()


# What is no response

BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the response is empty"),
        (b" \r\n", "the response is empty"),
        (b"Internal Server Error", "the response is neither DICOM JSON nor XML"),
        (b'"text"', "the response is neither DICOM JSON nor XML"),
        (b"{", "the response cannot be read: it is no JSON"),
        (b"{}x", "the response cannot be read: it is no JSON"),
        (b'{"\xff": 1}', "the response cannot be read: it is no JSON"),
        (b"[" * 100_000, "the response cannot be read: it is no JSON"),
        (b'{"a":' * 100_000, "the response cannot be read: it is no JSON"),
        (b'{"title": "Conflict", "status": 409}', "the response names no element of a store response"),
        (b'[{"00081190": {}}, 1]', "the response names no element of a store response"),
        (b"[[]]", "the response names no element of a store response"),
        (b"<html><body/></html>", "the response cannot be read: it is no Native DICOM Model"),
        (b"<NativeDicomModel>", "the response cannot be read: its XML is malformed"),
        (b"<NativeDicomModel/>x", "the response cannot be read: its XML is malformed"),
        (b"<NativeDicomModel>&a;</NativeDicomModel>", "the response cannot be read: its XML is malformed"),
        (
            b'<?xml version="1.0" encoding="no-such"?><NativeDicomModel/>',
            "the response cannot be read: its XML is malformed",
        ),
        (
            b'<?xml version="1.0" encoding="utf-7"?><NativeDicomModel/>',
            "the response cannot be read: its XML is malformed",
        ),
        (
            BOMB.encode() + b"<NativeDicomModel>&b;</NativeDicomModel>",
            "the response cannot be read: it declares a document type",
        ),
        (
            b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><NativeDicomModel/>',
            "the response cannot be read: it declares a document type",
        ),
        (
            xml_of("<a>" * RESPONSE_XML_DEPTH_MAX + "</a>" * RESPONSE_XML_DEPTH_MAX),
            f"the response cannot be read: it is nested too deep: {RESPONSE_XML_DEPTH_MAX} elements at most",
        ),
        (b"<a>" * 100_000, "the response cannot be read: it is no Native DICOM Model"),
        (bytes(RESPONSE_BYTES_MAX + 1), f"the response is longer than {RESPONSE_BYTES_MAX} bytes"),
    ],
)
def test_what_is_no_response_is_refused_in_words(body, words):
    with pytest.raises(ResponseError) as refused:
        read_response(body, DICOM_JSON)
    assert str(refused.value) == words


def test_a_response_in_parts_is_refused():
    with pytest.raises(ResponseError, match="the response has parts"):
        read_response(b"\r\n--b\r\n", 'Multipart/Related; type="application/dicom+xml"; boundary=b')


def test_what_is_nested_as_deep_as_is_allowed_is_read():
    depth = RESPONSE_XML_DEPTH_MAX - 1
    assert read_response(xml_of("<a>" * depth + "</a>" * depth), DICOM_XML) == StoreResult()


DAMAGEABLE = StoreResult(
    (StoredInstance(CT, "1.2.3", "http://a/1"), StoredInstance(CT, "1.2.4", "http://a/2", 0xB000, "changed")),
    (FailedInstance(CT, "1.2.5", 0xC409, "no"),),
    (OtherFailure(0xC000, "words"),),
    "http://a",
)


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from([DICOM_JSON, DICOM_XML]), st.data())
def test_a_damaged_response_is_read_or_refused(media_type, data):
    body = bytearray(write_response(DAMAGEABLE, media_type))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body)))
        body[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=4))
    try:
        read = read_response(bytes(body), media_type)
    except ResponseError:
        return
    assert all(0 <= failed.reason <= 0xFFFF for failed in (*read.failed, *read.others))
    assert all(instance.words.isprintable() for instance in (*read.stored, *read.failed, *read.others))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "00081198", "00081199", "0008119A", "00081155", "00081197", "x"]),
            inner,
        )
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(json_values)
def test_json_of_any_shape_is_read_or_refused(value):
    try:
        read = read_response(json_of(value), DICOM_JSON)
    except ResponseError:
        return
    assert all(0 <= failed.reason <= 0xFFFF for failed in (*read.failed, *read.others))
