"""The body that the STOW-RS client writes: read back by the product's reader and by the standard library's."""

import email.message

import pytest

from stowkeeper.stow.media_types import StoreForm, store_body
from stowkeeper.stow.multipart_reader import MultipartReader, PartBegan, PartData
from stowkeeper.stow.multipart_writer import MultipartWriter, new_boundary

PARTS = [b"first", b"", b"\r\n--x\r\nthird\r\n", bytes(range(256)) * 3]


def body_of(writer: MultipartWriter, parts: list[bytes]) -> bytes:
    return b"".join(writer.opening(index) + part for index, part in enumerate(parts)) + writer.closing


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_written_is_read_again(count: int) -> None:
    writer = MultipartWriter("abc123")
    body = body_of(writer, PARTS[:count])
    reader = MultipartReader(store_body(writer.content_type, None).boundary)
    contents: list[bytes] = []
    for event in [*reader.feed(body), *reader.finish()]:
        if isinstance(event, PartBegan):
            assert event.fields == {"content-type": "application/dicom"}
            assert event.defect == ""
            contents.append(b"")
        elif isinstance(event, PartData):
            contents[-1] += bytes(event.data)
    assert contents == PARTS[:count]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_length_is_known_ahead(count: int) -> None:
    writer = MultipartWriter("abc123")
    parts = PARTS[:count]
    assert writer.length([len(part) for part in parts]) == len(body_of(writer, parts))


def test_the_parameters_are_quoted() -> None:
    content_type = MultipartWriter("abc123").content_type
    assert content_type == 'multipart/related; type="application/dicom"; boundary="abc123"'
    assert store_body(content_type, None).form is StoreForm.INSTANCES
    message = email.message.Message()
    message["Content-Type"] = content_type
    assert message.get_boundary() == "abc123"


def test_a_boundary_that_stands_in_a_head_is_drawn_again() -> None:
    drawn = iter(["one", "two", "three"])
    assert new_boundary([b"..one..", b"two"], lambda: next(drawn)) == "three"


def test_a_boundary_is_random_and_fits_without_quotes() -> None:
    boundaries = {new_boundary([]) for _ in range(100)}
    assert len(boundaries) == 100
    assert all(boundary.isalnum() and len(boundary) <= 70 for boundary in boundaries)
