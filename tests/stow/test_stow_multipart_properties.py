"""The multipart reader against all bodies: however they are cut, as a plain reading of the rules, and as Python's email package."""

import email
import email.policy
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from stowkeeper.stow.limits import PADDING_BYTES_MAX
from stowkeeper.stow.multipart_reader import MultipartError, MultipartReader, PartBegan, PartData, PartEnded
from support.examples import examples

BOUNDARIES = [
    "b",
    "abc",
    "-",
    "--",
    "b--",
    "**",
    "a b",
    " ",
    "'()+_,-./:=?",
    "0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1",
]


@st.composite
def bodies(draw):
    """Draw a boundary and a body of what matters to it, in any order."""
    boundary = draw(st.sampled_from(BOUNDARIES))
    line = b"--" + boundary.encode()
    tokens = st.one_of(
        st.sampled_from([b"\r\n" + line + b"\r\n", b"\r\n" + line + b"\r\n\r\n", b"\r\n" + line + b"--"]),
        st.sampled_from(
            [line, b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"-", b"--", b" ", b"\t", b":", line + line, line[:-1]]
        ),
        st.sampled_from(
            [
                b"Content-Type: application/dicom\r\n",
                b"A: 1\r\n",
                b"a: 2\r\n",
                b"A:\r\n 1\r\n",
                b"no colon\r\n",
            ]
        ),
        st.sampled_from([b" " * PADDING_BYTES_MAX, b" " * (PADDING_BYTES_MAX + 1)]),
        st.binary(max_size=4),
    )
    return boundary, draw(st.sampled_from([line, b""])) + b"".join(draw(st.lists(tokens, max_size=24)))


def cut(body, places):
    """Cut a body at places, some of which may be the same."""
    ends = sorted(place % (len(body) + 1) for place in places)
    return [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]


def read(boundary, pieces):
    """Return what a reader tells: (fields, defect, content) of each whole part, and whether the body was closed."""
    reader, parts, open_part = MultipartReader(boundary), [], None
    is_closed = True
    try:
        for piece in [*pieces, None]:
            for event in reader.finish() if piece is None else reader.feed(piece):
                match event:
                    case PartBegan(fields, defect):
                        assert open_part is None
                        open_part = [dict(fields), defect, b""]
                    case PartData(data):
                        assert data
                        open_part[2] += data
                    case PartEnded():
                        parts.append(tuple(open_part))
                        open_part = None
    except MultipartError:
        is_closed = False
    assert open_part is None or not is_closed
    return parts, is_closed


def read_by_the_rules(boundary, body):
    """Return (head, content) of each whole part, and whether the body was closed: by RFC 2046 §5.1.1, on the body as a whole.

    A line break before the body is supposed. Head is what stands before the blank line, content what stands behind it.
    """
    text = b"\r\n" + body
    line = re.escape(b"\r\n--" + boundary.encode())
    blanks = rb"[ \t]{0,%d}" % PADDING_BYTES_MAX
    delimiter = re.compile(line + rb"(?:(--)" + blanks + rb"(?:(?=\r\n)|[\r\n]?\Z)|" + blanks + rb"(?=\r\n))")
    parts, begin = [], None
    for found in delimiter.finditer(text):
        if begin is not None:
            blank_line = text.find(b"\r\n\r\n", begin, found.start() + 2)
            head = text[begin + 2 : found.start() if blank_line < 0 else blank_line]
            content = b"" if blank_line < 0 else text[blank_line + 4 : found.start()]
            parts.append((head, content))
        if found[1]:
            return parts, True
        begin = found.end()
    return parts, False


@settings(max_examples=examples(100), deadline=None)
@given(bodies(), st.lists(st.integers(min_value=0), max_size=8))
def test_any_split_gives_the_same_events(given_body, places):
    boundary, body = given_body
    whole = read(boundary, [body])

    assert read(boundary, cut(body, places)) == whole
    assert read(boundary, [body[place : place + 1] for place in range(len(body))]) == whole


@settings(max_examples=examples(150), deadline=None)
@given(bodies())
@example(("--", b"----\r\n\r\n------\r\n"))
@example(("b--", b"--b--\r\n\r\n\r\n--b----"))
def test_a_body_is_read_by_the_rules(given_body):
    boundary, body = given_body
    parts, is_closed = read(boundary, [body])
    expected, expected_closed = read_by_the_rules(boundary, body)

    assert is_closed is expected_closed
    assert [content for _, _, content in parts] == [content for _, content in expected]
    for (fields, defect, _), (head, _) in zip(parts, expected, strict=True):
        assert not (fields and defect)
        assert bool(head) is bool(fields or defect)


tokens = st.text("!#$%&'*+.^_`|~09azAZ-", min_size=1, max_size=8)
values = st.text('azAZ09 ;=/"\t:', max_size=12).map(lambda text: text.strip(" \t"))
contents = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"-", b"--", b" ", b":", b"x", b"\0"]), max_size=20).map(
        b"".join
    ),
)


@st.composite
def well_formed(draw):
    """Draw a boundary, the parts of a body, each with its fields and its content, and the body."""
    boundary = draw(st.sampled_from(["limit", "0f3cf5c0-70e0-41ef", "=_b", "0" * 70]))
    line = b"--" + boundary.encode()
    # The email package ends lines at CR and at LF too, so what it takes for a boundary must be nowhere in the content.
    content = contents.filter(lambda data: line not in data)
    # Names that differ by case alone are one name to us, and two to nobody else.
    fields = st.lists(st.tuples(tokens, values), max_size=4, unique_by=lambda item: item[0].lower())
    parts = draw(st.lists(st.tuples(fields, content), min_size=1, max_size=5))
    body = bytearray(draw(st.sampled_from([b"", b"\r\n", b"preamble\r\n"])))
    for part_fields, data in parts:
        padding = draw(st.sampled_from([b"", b" ", b"\t "]))
        head = "".join(f"{name}: {value}\r\n" for name, value in part_fields).encode()
        body += line + padding + b"\r\n" + head + b"\r\n" + data + b"\r\n"
    body += line + b"--" + draw(st.sampled_from([b"", b"\r\n", b" \r\n", b"\r\nepilogue"]))
    return boundary, parts, bytes(body)


@settings(max_examples=examples(50), deadline=None)
@given(well_formed(), st.lists(st.integers(min_value=0), max_size=6))
def test_what_is_written_well_is_read_as_it_was_and_as_the_email_package_reads_it(written, places):
    boundary, given_parts, body = written

    parts, is_closed = read(boundary, cut(body, places))

    assert is_closed
    assert parts == [
        ({name.lower(): value for name, value in fields}, "", data) for fields, data in given_parts
    ]
    head = f'Content-Type: multipart/related; boundary="{boundary}"\r\n\r\n'.encode()
    message = email.message_from_bytes(head + body, policy=email.policy.compat32)
    for (fields, _, data), oracle in zip(parts, message.get_payload(), strict=True):
        assert {name.lower(): value.strip(" \t") for name, value in oracle.items()} == fields
        assert oracle.get_payload(decode=True) == data


@settings(max_examples=examples(150), deadline=None)
@given(
    st.binary(max_size=60).filter(lambda content: b"limit" not in content),
    st.lists(st.integers(min_value=0), max_size=4),
    st.data(),
)
def test_content_with_a_boundary_text_in_it_at_any_place_stays_whole(content, places, data):
    line = b"\r\n--limit"
    lookalikes = [
        b"\r\n--limits",
        b"\r\n--limi",
        b"\n--limit\r\n",
        b"\r\n--limit-",
        b"\r\n--limit x",
        b"\r\n--limit\n",
        b"--limit--",
    ]
    place = data.draw(st.integers(0, len(content)))
    content = content[:place] + b"x" + data.draw(st.sampled_from(lookalikes)) + b"y" + content[place:]
    body = line + b"\r\n\r\n" + content + line + b"--"

    assert read("limit", cut(body, places)) == ([({}, "", content)], True)
