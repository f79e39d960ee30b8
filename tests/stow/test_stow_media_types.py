"""What a store request says of its body and of the response it wants: every spelling that means one thing, and no other."""

import time

import pytest

from stowkeeper.stow.limits import (
    ACCEPT_ENTRIES_MAX,
    BOUNDARY_BYTES_MAX,
    MEDIA_TYPE_CHARACTERS_MAX,
    MEDIA_TYPE_PARAMETERS_MAX,
)
from stowkeeper.stow.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    BoundaryError,
    MediaType,
    StoreBody,
    StoreForm,
    UnsupportedBodyError,
    parse_media_type,
    preferred_response_type,
    store_body,
)
from stowkeeper.stow.multipart_reader import MultipartReader

# Reading one


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("application/dicom", {}),
        (" Application/DICOM\t", {}),
        ("application/dicom;", {}),
        ("application/dicom; ;;\t", {}),
        ("application/dicom;a=b", {"a": "b"}),
        ("application/dicom ; a = b ", {"a": "b"}),
        ("application/dicom; A=B", {"a": "B"}),
        ('application/dicom; a="b"', {"a": "b"}),
        ('application/dicom; a="b; c=\\"d\\\\, e"; f=g', {"a": 'b; c="d\\, e', "f": "g"}),
        ('application/dicom; a=""', {"a": ""}),
        ("application/dicom; type=application/dicom", {"type": "application/dicom"}),
        ("application/dicom; boundary='()+_,-./:=?", {"boundary": "'()+_,-./:=?"}),
        ("application/dicom; transfer-syntax=*", {"transfer-syntax": "*"}),
        ("application/dicom; a*=utf-8''b", {"a*": "utf-8''b"}),
        ("application/dicom; a=\xe4", {"a": "\xe4"}),
    ],
)
def test_any_spelling_is_read(text, parameters):
    assert parse_media_type(text) == MediaType(DICOM, parameters)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it does not begin with a type and a subtype"),
        ("dicom", "it does not begin with a type and a subtype"),
        ("application/", "it does not begin with a type and a subtype"),
        ("/dicom", "it does not begin with a type and a subtype"),
        ("; a=b", "it does not begin with a type and a subtype"),
        ("application/dicom, application/dicom", "one of its parameters is malformed"),
        ("application/dicom application/dicom", "one of its parameters is malformed"),
        ("application/dicom; a", "one of its parameters is malformed"),
        ("application/dicom; a=", "one of its parameters is malformed"),
        ("application/dicom; =b", "one of its parameters is malformed"),
        ('application/dicom; a="b', "one of its parameters is malformed"),
        ('application/dicom; a="b\\"', "one of its parameters is malformed"),
        ('application/dicom; a="b"c', "one of its parameters is malformed"),
        ('application/dicom; a=b"c"', "one of its parameters is malformed"),
        ("application/dicom; a=b c", "one of its parameters is malformed"),
        ("application/dicom; a=b; a=b", "it has a parameter twice"),
        ("application/dicom; a=b; A=c", "it has a parameter twice"),
        ("application/dicom; a=b\0", "it has control characters in it"),
        ("application/dicom; a=b\r\nc: d", "it has control characters in it"),
        (
            "application/dicom; a=" + "b" * MEDIA_TYPE_CHARACTERS_MAX,
            f"it is longer than {MEDIA_TYPE_CHARACTERS_MAX} characters",
        ),
        (
            "application/dicom"
            + "".join(f"; p{number}=1" for number in range(MEDIA_TYPE_PARAMETERS_MAX + 1)),
            f"it has more than {MEDIA_TYPE_PARAMETERS_MAX} parameters",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(text, words):
    with pytest.raises(ValueError) as refused:
        parse_media_type(text)
    assert str(refused.value) == words


def test_as_many_parameters_as_are_allowed_are_read():
    text = "a/b" + "".join(f"; p{number}=1" for number in range(MEDIA_TYPE_PARAMETERS_MAX))
    assert len(parse_media_type(text).parameters) == MEDIA_TYPE_PARAMETERS_MAX


# What the body is


@pytest.mark.parametrize(
    "kind", ["; type=application/dicom", '; type="application/dicom"', "; TYPE=Application/DICOM", ""]
)
@pytest.mark.parametrize(
    "boundary", ["; boundary=abc", '; boundary="abc"', ";Boundary = abc", ';boundary="a\\bc"']
)
@pytest.mark.parametrize("order", [1, -1])
def test_every_quoting_of_type_and_boundary_is_the_same(kind, boundary, order):
    text = "multipart/related" + "".join([kind, boundary][::order])

    assert store_body(text, None) == StoreBody(StoreForm.INSTANCES, "abc")


@pytest.mark.parametrize(
    ("text", "body"),
    [
        # As these clients were seen to write it.
        (
            'multipart/related; type="application/dicom"; boundary="0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"',
            StoreBody(StoreForm.INSTANCES, "0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1"),
        ),
        (
            'multipart/related; type="application/dicom"; boundary=myboundary',
            StoreBody(StoreForm.INSTANCES, "myboundary"),
        ),
        ("multipart/related;type=application/dicom;boundary=XXXX", StoreBody(StoreForm.INSTANCES, "XXXX")),
        ('multipart/related; boundary=**; type="application/dicom+json"', StoreBody(StoreForm.JSON, "**")),
        (
            'multipart/related; type="application/dicom+xml"; start="<1@a>"; boundary=b',
            StoreBody(StoreForm.XML, "b", "<1@a>"),
        ),
        (
            'multipart/related; type="application/dicom; transfer-syntax=1.2.840.10008.1.2.1"; boundary=b',
            StoreBody(StoreForm.INSTANCES, "b"),
        ),
        ('multipart/related; boundary="a b"', StoreBody(StoreForm.INSTANCES, "a b")),
        ("application/dicom", StoreBody(StoreForm.ONE_INSTANCE)),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.1", StoreBody(StoreForm.ONE_INSTANCE)),
    ],
)
def test_each_form_is_known(text, body):
    assert store_body(text, None) == body


@pytest.mark.parametrize("encoding", [None, "", " ", "identity", "Identity"])
def test_a_body_without_content_encoding_is_taken(encoding):
    assert store_body("application/dicom", encoding) == StoreBody(StoreForm.ONE_INSTANCE)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_a_compressed_body_is_not(encoding):
    with pytest.raises(UnsupportedBodyError, match="the body has a Content-Encoding; send it as it is"):
        store_body("application/dicom", encoding)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "the request has no Content-Type; send application/dicom, or multipart/related"),
        (" ", "the request has no Content-Type; send application/dicom, or multipart/related"),
        (
            "dicom",
            "the Content-Type cannot be read: it does not begin with a type and a subtype; send application/dicom",
        ),
        ("application/octet-stream", "the Content-Type is none that can be stored; send application/dicom"),
        ("application/zip", "the Content-Type is none that can be stored; send application/dicom"),
        (
            "multipart/mixed; boundary=b",
            "the Content-Type is none that can be stored; send application/dicom",
        ),
        ("multipart/form-data; boundary=b", "curl: -H 'Content-Type: application/dicom' --data-binary @FILE"),
        (
            "application/x-www-form-urlencoded",
            "curl: -H 'Content-Type: application/dicom' --data-binary @FILE",
        ),
        (
            "application/dicom+json",
            'first part of multipart/related, whose type is "application/dicom\\+json"',
        ),
        ("application/dicom+xml", 'first part of multipart/related, whose type is "application/dicom\\+xml"'),
        (
            "multipart/related; type=image/jpeg; boundary=b",
            "the type of multipart/related is none that can be stored",
        ),
        (
            'multipart/related; type=""; boundary=b',
            "the type of multipart/related is none that can be stored",
        ),
        (
            "multipart/related; type=application/dicomx; boundary=b",
            "the type of multipart/related is none that can be",
        ),
        (
            "multipart/related-not; =",
            "the Content-Type cannot be read: one of its parameters is malformed; send",
        ),
    ],
)
def test_what_is_not_stored_is_answered_with_what_is(text, words):
    with pytest.raises(UnsupportedBodyError, match=words):
        store_body(text, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("multipart/related", "the Content-Type is multipart/related, but names no boundary"),
        (
            "multipart/related; type=application/dicom",
            "the Content-Type is multipart/related, but names no boundary",
        ),
        ('multipart/related; boundary=""', "the Content-Type is multipart/related, but names no boundary"),
        (
            "multipart/related; boundary=",
            "the Content-Type cannot be read: one of its parameters is malformed",
        ),
        (
            'Multipart/Related; boundary="b',
            "the Content-Type cannot be read: one of its parameters is malformed",
        ),
        (
            "multipart/related; boundary=b; boundary=c",
            "the Content-Type cannot be read: it has a parameter twice",
        ),
        (
            "multipart/related; boundary=b\0",
            "the Content-Type cannot be read: it has control characters in it",
        ),
        (
            f"multipart/related; boundary={'b' * (BOUNDARY_BYTES_MAX + 1)}",
            "the boundary is longer than 256 characters",
        ),
    ],
)
def test_a_boundary_that_is_missing_or_unclear_is_bad_syntax(text, words):
    with pytest.raises(BoundaryError) as refused:
        store_body(text, None)
    assert str(refused.value) == words


@pytest.mark.parametrize(
    "boundary", ["b" * BOUNDARY_BYTES_MAX, "\xe4" * BOUNDARY_BYTES_MAX, "\t", " ", '\\"']
)
def test_each_boundary_that_is_found_can_be_read_by(boundary):
    quoted = boundary.replace("\\", "\\\\").replace('"', '\\"')
    body = store_body(f'multipart/related; boundary="{quoted}"', None)

    assert body.boundary == boundary
    MultipartReader(body.boundary)


# What the response is


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ([], DICOM_JSON),
        ([""], DICOM_JSON),
        (["*/*"], DICOM_JSON),
        (["*"], DICOM_JSON),
        (["application/*"], DICOM_JSON),
        (["application/json"], DICOM_JSON),
        (["application/dicom+json"], DICOM_JSON),
        (["Application/DICOM+JSON; charset=utf-8"], DICOM_JSON),
        (["application/dicom"], DICOM_JSON),
        (['multipart/related; type="application/dicom"'], DICOM_JSON),
        (["multipart/related"], DICOM_JSON),
        (["multipart/*"], DICOM_JSON),
        (['multipart/related; type="application/dicom+json"'], DICOM_JSON),
        (["application/dicom+xml"], DICOM_XML),
        (["application/xml"], DICOM_XML),
        (["text/xml"], DICOM_XML),
        (["text/*"], DICOM_XML),
        (['multipart/related; type="application/dicom+xml"'], DICOM_XML),
        (["multipart/related; type=application/dicom+xml; transfer-syntax=*"], DICOM_XML),
        (["text/html", "application/dicom+xml"], DICOM_XML),
        # The one named first of two that are wanted alike, and any that is named before one that is merely let in.
        (["application/dicom+json, application/dicom+xml"], DICOM_JSON),
        (["application/dicom+xml, application/dicom+json"], DICOM_XML),
        (["application/dicom+xml", "application/dicom+json"], DICOM_XML),
        (["*/*, application/dicom+xml"], DICOM_XML),
        (["application/dicom, application/dicom+xml"], DICOM_XML),
        # What Java sends when nobody asked it to.
        (["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"], DICOM_JSON),
        # What browsers send.
        (["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"], DICOM_XML),
        # Weights.
        (["application/dicom+json;q=0.5, application/dicom+xml"], DICOM_XML),
        (["application/dicom+json;q=0.5, application/dicom+xml;q=.4"], DICOM_JSON),
        (["application/dicom+json;q=0, */*"], DICOM_XML),
        (["application/dicom+xml;q=0, */*"], DICOM_JSON),
        (["application/dicom+json; q=0.1, */*"], DICOM_XML),
        (["application/dicom+json; q=2, application/dicom+xml;q=1"], DICOM_JSON),
        (["application/dicom+xml; q=high, application/dicom+json;q=0.9"], DICOM_XML),
        (["application/dicom+xml; q=., application/dicom+json;q=0.9"], DICOM_XML),
        (["application/dicom+xml; q=nan, application/dicom+json;q=0.9"], DICOM_XML),
        (["application/dicom+xml; q=1, application/dicom+json;q=2"], DICOM_XML),
        (["application/dicom+xml; q=0.5, *"], DICOM_JSON),
        # Entries that cannot be read count for nothing, and harm none.
        (["application/dicom+xml;;q, garbage, ,;, application/dicom+json"], DICOM_JSON),
        (['text/html; a="b, application/dicom+json", application/dicom+xml'], DICOM_XML),
        (["garbage"], DICOM_JSON),
        (['"application/dicom+xml'], DICOM_JSON),
        (['text/html; a="b, application/dicom+json'], DICOM_JSON),
        # Nothing that can be had.
        (["text/html"], None),
        (["application/pdf, image/*"], None),
        (["application/octet-stream"], None),
        (['multipart/related; type="application/octet-stream"'], None),
        (["*/*;q=0"], None),
        (["application/dicom+json;q=0.0"], None),
        (["application/dicom+json;q=0, application/dicom+xml;q=0, */*"], None),
    ],
)
def test_the_response_is_what_the_accept_asks_for(accept, chosen):
    assert preferred_response_type(accept, None) == chosen


@pytest.mark.parametrize(
    ("query", "accept", "chosen"),
    [
        ("application/dicom+xml", [], DICOM_XML),
        ("application/dicom+xml", ["application/dicom+json"], DICOM_XML),
        # A plus that nobody escaped has become a blank.
        ("application/dicom xml", ["application/dicom+json"], DICOM_XML),
        ("application/dicom json", ["application/dicom+xml"], DICOM_JSON),
        ("application/dicom+json;q=0.1,application/dicom+xml", [], DICOM_XML),
        ("*/*", ["application/dicom+xml"], DICOM_JSON),
        ("text/html", ["application/dicom+json"], None),
        ("", ["application/dicom+xml"], DICOM_XML),
        ("garbage", ["application/dicom+xml"], DICOM_XML),
    ],
)
def test_the_query_outranks_the_field(query, accept, chosen):
    assert preferred_response_type(accept, query) == chosen


def test_entries_beyond_the_bound_count_for_nothing():
    others = ["text/html"] * (ACCEPT_ENTRIES_MAX - 1)

    assert preferred_response_type([",".join([*others, "application/dicom+xml"])], None) == DICOM_XML
    assert preferred_response_type([",".join([*others, "text/html", "application/dicom+xml"])], None) is None


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 50_000, '"' * 50_001, "," * 100_000, "a/b;" * 25_000, "a/b; " + " " * 100_000]
)
def test_a_long_accept_takes_no_time(text):
    begin = time.thread_time()
    preferred_response_type([text], text)
    assert time.thread_time() - begin < 1
