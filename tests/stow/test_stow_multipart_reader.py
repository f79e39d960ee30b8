"""Bodies of multipart/related as clients send them, and as they must not harm us: what is told of each, in whatever pieces."""

import gc
import time
import tracemalloc
from collections import deque
from dataclasses import dataclass

import pytest

from stowkeeper.stow.limits import (
    BOUNDARY_BYTES_MAX,
    PADDING_BYTES_MAX,
    PART_FIELDS_MAX,
    PART_HEAD_BYTES_MAX,
    PREAMBLE_BYTES_MAX,
)
from stowkeeper.stow.multipart_reader import (
    MultipartError,
    MultipartReader,
    PartBegan,
    PartData,
    PartEnded,
)

HEAD = b"Content-Type: application/dicom\r\n\r\n"
FIELDS = {"content-type": "application/dicom"}
NOT_CLOSED = "the body ends without its closing boundary"


@dataclass
class Part:
    fields: dict[str, str]
    content: bytes = b""
    defect: str = ""
    is_whole: bool = True


def pieces(body, size):
    return [body[start : start + size] for start in range(0, len(body), size)]


def read(body, boundary="b", size=0):
    """Return the parts of a body that came in pieces of a size, all at once for 0, and why it has no end, '' where it has one."""
    reader, parts, words = MultipartReader(boundary), [], ""

    def take(events):
        for event in events:
            match event:
                case PartBegan(fields, defect):
                    parts.append(Part(dict(fields), b"", defect, is_whole=False))
                case PartData(data):
                    parts[-1].content += data
                case PartEnded():
                    parts[-1].is_whole = True

    try:
        for piece in pieces(body, size or len(body) or 1):
            take(reader.feed(piece))
        take(reader.finish())
    except MultipartError as error:
        words = str(error)
    assert reader.is_closed is (not words)
    return parts, words


def pass_over(events):
    """Let a reader find all events there are, and keep none."""
    deque(events, maxlen=0)


def read_pieces(reader, given):
    return [event for piece in given for event in reader.feed(piece)]


def assert_parts(body, *parts, boundary="b"):
    """Hold a body that is closed against its parts, at once and byte by byte."""
    for size in (0, 1, 2, 7):
        assert read(body, boundary, size) == (list(parts), "")


# What clients send


@pytest.mark.parametrize(
    "begin", [b"", b"\r\n", b"\r\n\r\n", b"For programs that know no multipart.\r\n", b"--\r\n--bb\r\n"]
)
@pytest.mark.parametrize(
    "end", [b"", b"\r\n", b"\r", b"\n", b" \t ", b" \r\n", b"\r\nepilogue", b"\r\n--b\r\n\r\nx\r\n--b--"]
)
def test_what_stands_before_and_behind_is_passed_over(begin, end):
    body = begin + b"--b\r\n" + HEAD + b"\0first\r\n\r\n--b\r\n" + HEAD + b"--second\r\n--b--" + end

    assert_parts(body, Part(FIELDS, b"\0first\r\n"), Part(FIELDS, b"--second"))


@pytest.mark.parametrize("padding", [b" ", b"\t", b" \t" * (PADDING_BYTES_MAX // 2)])
def test_blanks_may_stand_behind_a_boundary(padding):
    body = b"--b" + padding + b"\r\n" + HEAD + b"x\r\n--b" + padding + b"\r\n\r\ny\r\n--b--" + padding

    assert_parts(body, Part(FIELDS, b"x"), Part({}, b"y"))


@pytest.mark.parametrize(
    "boundary", ["**", "a b", "'()+_,-./:=?", "-", "--", "b--", "\xe4", "L" * BOUNDARY_BYTES_MAX]
)
def test_boundaries_of_any_letters_are_taken(boundary):
    line = b"--" + boundary.encode("latin-1")

    assert_parts(b"%b\r\n%bx\r\n%b--" % (line, HEAD, line), Part(FIELDS, b"x"), boundary=boundary)


@pytest.mark.parametrize("boundary", ["", "L" * (BOUNDARY_BYTES_MAX + 1), "a\r", "a\nb", "a\0b"])
def test_what_can_be_no_boundary_is_refused(boundary):
    with pytest.raises(ValueError, match=r"^a boundary has "):
        MultipartReader(boundary)


# Content that looks like a boundary


@pytest.mark.parametrize(
    "content",
    [
        b"\n--b\r\n",
        b"\r--b--\r\n",
        b"\r\n--",
        b"\r\n--c\r\n",
        b"\r\n--bc\r\n",
        b"\r\n--b-",
        b"\r\n--b-\r\n",
        b"\r\n--b---",
        b"\r\n--b--b",
        b"\r\n--b--\nb",
        b"\r\n--b\n",
        b"\r\n--b\r",
        b"\r\n--b\rb",
        b"\r\n--b \rb",
        b"\r\n--b -\r\n",
        b"\r\n--b" + b" " * (PADDING_BYTES_MAX + 1) + b"\r\n",
        b"\r\n--b--" + b" " * (PADDING_BYTES_MAX + 1) + b"\r\n",
        b"\r\n --b\r\n",
        b"\r\n-- b\r\n",
        b"\r\n--B\r\n",
        b"\r\n\r\n\r\n",
        b"\r",
        b"\r\n",
    ],
)
def test_what_is_nearly_a_boundary_is_content_at_every_split(content):
    body = b"--b\r\n\r\n" + content + b"\r\n--b\r\n" + HEAD + content + b"\r\n--b--"
    expected = [Part({}, content), Part(FIELDS, content)], ""

    for split in range(len(body) + 1):
        reader = MultipartReader("b")
        events = [*reader.feed(body[:split]), *reader.feed(body[split:]), *reader.finish()]
        contents = [b"".join(event.data for event in events if isinstance(event, PartData))]
        assert contents == [content * 2]
        assert [event.fields for event in events if isinstance(event, PartBegan)] == [{}, FIELDS]
    assert read(body, size=1) == expected


def test_a_boundary_that_begins_another_one_does_not_split_it():
    body = b"--abc\r\n\r\nx\r\n--abcd\r\n\r\ny\r\n--abcd--\r\n--abc--"

    assert_parts(body, Part({}, b"x\r\n--abcd\r\n\r\ny\r\n--abcd--"), boundary="abc")


def test_a_body_inside_a_part_is_content():
    inner = b"--c\r\n\r\nx\r\n--c--"
    body = b"--b\r\nContent-Type: multipart/related; boundary=c\r\n\r\n" + inner + b"\r\n--b--"

    assert_parts(body, Part({"content-type": "multipart/related; boundary=c"}, inner))


# Parts with little in them


def test_parts_without_content_without_fields_and_without_either():
    body = b"--b\r\n" + HEAD + b"\r\n--b\r\n\r\n\r\n--b\r\n\r\n--b\r\n--b\r\n\r\nx\r\n--b--"

    assert_parts(body, Part(FIELDS), Part({}), Part({}), Part({}), Part({}, b"x"))


def test_a_part_may_end_behind_its_fields_without_a_blank_line():
    assert_parts(b"--b\r\nA: 1\r\n--b\r\nA: 2\r\n\r\n--b--", Part({"a": "1"}), Part({"a": "2"}))


@pytest.mark.parametrize("body", [b"--b--", b"\r\n--b--\r\n", b"text\r\n--b--text\r\n--b--"])
def test_a_body_may_have_no_parts(body):
    assert_parts(body)


# Fields


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        (b"Content-Type: application/dicom", FIELDS),
        (b"CONTENT-TYPE:application/dicom \t", FIELDS),
        (b"content-type \t:\t application/dicom", FIELDS),
        (b"Content-Type: application/dicom\r\nContent-Type: application/dicom", FIELDS),
        (b"Content-Type: application/dicom\r\ncontent-TYPE: application/dicom", FIELDS),
        (b"A: a;\r\n b\r\n \t c\r\nD:\r\n d", {"a": "a; b c", "d": "d"}),
        (b"A:", {"a": ""}),
        (b"A: b: c", {"a": "b: c"}),
        ("A: \xe4".encode(), {"a": "\xe4"}),
        ("A: \xe4".encode("latin-1"), {"a": "\xe4"}),
        (b"!#$%&'*+.^_`|~09: 1", {"!#$%&'*+.^_`|~09": "1"}),
    ],
)
def test_fields_are_read(head, fields):
    assert_parts(b"--b\r\n" + head + b"\r\n\r\nx\r\n--b--", Part(fields, b"x"))


@pytest.mark.parametrize(
    ("head", "defect"),
    [
        (b"no colon", "one of its fields is malformed"),
        (b": no name", "one of its fields is malformed"),
        (b"a b: c", "one of its fields is malformed"),
        (b"a\0: c", "one of its fields is malformed"),
        (b"a: c\0", "one of its fields is malformed"),
        (b"a: b\nc: d", "one of its fields is malformed"),
        (b"a: b\rc: d", "one of its fields is malformed"),
        (b" folded: first", "one of its fields is malformed"),
        (b"\xe4: c", "one of its fields is malformed"),
        ("\u212a: it is k in lower case".encode(), "one of its fields is malformed"),
        (b"A: 1\r\nb: 1\r\na: 2", "it has the same field twice, with another value"),
        (
            b"\r\n".join(b"f%d: 1" % number for number in range(PART_FIELDS_MAX + 1)),
            f"it has more than {PART_FIELDS_MAX} fields",
        ),
        (b"\r\n".join([b"f: 1"] * (PART_FIELDS_MAX + 1)), f"it has more than {PART_FIELDS_MAX} fields"),
    ],
)
def test_fields_that_cannot_be_read_harm_their_part_alone(head, defect):
    body = b"--b\r\n" + head + b"\r\n\r\nx\r\n--b\r\n" + HEAD + b"y\r\n--b--"

    assert_parts(body, Part({}, b"x", defect), Part(FIELDS, b"y"))


def test_as_many_fields_as_are_allowed_are_read():
    fields = {f"f{number}": str(number) for number in range(PART_FIELDS_MAX)}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()

    assert_parts(b"--b\r\n" + head + b"\r\nx\r\n--b--", Part(fields, b"x"))


@pytest.mark.slow
@pytest.mark.parametrize("behind", [b"\r\n\r\nx", b""])
@pytest.mark.parametrize("size", [0, 1, 1000, PART_HEAD_BYTES_MAX])
def test_a_head_has_a_bound_however_it_comes(behind, size):
    longest = PART_HEAD_BYTES_MAX - len(b"\r\na: ")
    for length, defect in (
        (longest, ""),
        (longest + 1, f"its fields are longer than {PART_HEAD_BYTES_MAX} bytes"),
    ):
        head = b"a: " + b"v" * length
        body = b"--b\r\n" + head + behind + b"\r\n--b\r\n" + HEAD + b"y\r\n--b--"
        fields, content = ({}, head + behind) if defect else ({"a": "v" * length}, behind[4:])
        assert read(body, size=size) == ([Part(fields, content, defect), Part(FIELDS, b"y")], "")


# Bodies that end where they should not, or begin nowhere


def test_a_body_cut_off_anywhere_tells_no_part_whole_that_is_not():
    body = b"\r\n--b\r\n" + HEAD + b"first\r\n--b\r\n" + HEAD + b"second\r\n--b--"
    behind_first = body.index(b"first") + len(b"first\r\n--b\r\n")
    for end in range(len(body)):
        for size in (0, 1):
            parts, words = read(body[:end], size=size)
            assert words
            assert len([part for part in parts if part.is_whole]) == (end >= behind_first)
            assert all(part.content == b"first" for part in parts if part.is_whole)
            assert words == NOT_CLOSED or end < len(b"\r\n--b\r\n")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"\r\n", "the boundary that the Content-Type names is not at the beginning of the body"),
        (
            b"--c\r\n\r\nx\r\n--c--",
            "the boundary that the Content-Type names is not at the beginning of the body",
        ),
        (
            b"x--b\r\n\r\nx",
            "the boundary that the Content-Type names begins no part: it stands on no line of its own",
        ),
        (
            b"--bc\r\n\r\nx",
            "the boundary that the Content-Type names begins no part: it stands on no line of its own",
        ),
        (b"--b\nA: b\n\nx\n--b--\n", "its lines end in LF alone; boundaries and fields of parts need CR LF"),
        (b"\n--b\nA: b\n\nx\n--b--", "its lines end in LF alone; boundaries and fields of parts need CR LF"),
        (b"--b\r\nA: b\n\nx\n--b--\n", NOT_CLOSED),
        (b"--b\r\n\r\nx", NOT_CLOSED),
        (b"--b\r\n\r\nx\r\n--b\r\n", NOT_CLOSED),
        (b"--b\r\n\r\nx\r\n--b", NOT_CLOSED),
        (b"--b\r\n\r\nx\r\n--b-", NOT_CLOSED),
        (b"--b\r\n\r\nx\r\n--b--x", NOT_CLOSED),
        (b"--b\r\n\r\nx\r\n--b---", NOT_CLOSED),
        (b"--b\r\n\r\nx\r\n--b--\nx", NOT_CLOSED),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 5])
def test_why_a_body_cannot_be_read_is_said(body, words, size):
    parts, said = read(body, size=size)

    assert said == words
    assert not [part for part in parts if part.is_whole and part.content != b"x"]


@pytest.mark.parametrize("size", [0, 1, 1000, PREAMBLE_BYTES_MAX])
def test_a_preamble_has_a_bound_however_it_comes(size):
    part = b"\r\n--b\r\n\r\nx\r\n--b--"
    # The line break that is borrowed before the body counts.
    longest = b"p" * (PREAMBLE_BYTES_MAX - len(b"\r\n"))

    assert read(longest + part, size=size) == ([Part({}, b"x")], "")
    assert read(longest + b"p" + part, size=size) == (
        [],
        "the boundary that the Content-Type names is not at the beginning of the body",
    )


def test_an_endless_preamble_ends_before_the_body_does():
    reader = MultipartReader("b")
    with pytest.raises(MultipartError, match="LF alone"):
        read_pieces(reader, [b"--b\nA: b\n\n"] + [bytes(1000)] * 20)


# What it costs


def test_data_stays_as_it_is_while_it_is_held():
    reader, held = MultipartReader("b"), []
    for piece in pieces(b"--b\r\n\r\n" + bytes(range(256)) * 8 + b"\r\n--b--", 100):
        held += [event.data for event in reader.feed(piece) if isinstance(event, PartData)]

    assert b"".join(held) == bytes(range(256)) * 8
    assert all(data.readonly for data in held)


ENDLESS = {
    "content": (b"--b\r\n\r\n", bytes(8192)),
    "line breaks": (b"--b\r\n\r\n", b"\r\n" * 4096),
    "half boundaries": (b"--b\r\n\r\n", b"\r\n--b-\r\n--bc" * 600),
    "blanks behind nearly boundaries": (b"--b\r\n\r\n", (b"\r\n--b" + b" " * 250 + b"x") * 32),
    "blanks behind a boundary": (b"--b\r\n\r\n\r\n--b", b" " * 8192),
    "one field": (b"--b\r\nA: ", b"v" * 8192),
    "fields": (b"--b\r\n", b"A: v\r\n" * 1300),
    "epilogue": (b"--b--\r\n", bytes(8192)),
    "parts": (b"", b"--b\r\nA: v\r\n\r\n\r\n" * 500),
    "empty parts": (b"", b"--b\r\n" * 1300),
}
"""What a body begins with, and what it goes on with for ever."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDLESS)
def test_little_is_kept_whatever_comes(kind):
    first, again = ENDLESS[kind]
    reader = MultipartReader("b")
    pass_over(reader.feed(first))
    tracemalloc.start()
    try:
        for _ in range(20):
            # A piece of its own each time: what is kept of it counts.
            pass_over(reader.feed(again[:1000] + again[1000:]))
            kept, _ = tracemalloc.get_traced_memory()
            assert kept < 2 * PART_HEAD_BYTES_MAX
    finally:
        tracemalloc.stop()


def test_nothing_is_kept_behind_the_close():
    reader = MultipartReader("b")
    tracemalloc.start()
    try:
        pass_over(reader.feed(b"--b--\r\n" + bytes(1 << 20)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert reader.is_closed
    assert kept < PART_HEAD_BYTES_MAX


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_long_piece_costs_by_its_length(kind):
    first, again = ENDLESS[kind]

    # Of this thread alone, without the collector: what else the machine does is not measured.
    def seconds(times):
        reader, piece = MultipartReader("b"), again * times
        pass_over(reader.feed(first))
        gc.disable()
        begin = time.thread_time()
        try:
            pass_over(reader.feed(piece))
            return time.thread_time() - begin
        finally:
            gc.enable()

    short = max(min(seconds(2) for _ in range(5)), 1e-4)
    # Sixteen times as long: by the square it would cost 256 times as much.
    assert min(seconds(32) for _ in range(3)) < 100 * short
