"""Bodies of store requests, and what their answers say."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BOUNDARY = "b0und4ry"
DICOM = "application/dicom"
RELATED = f'multipart/related; type="{DICOM}"; boundary="{BOUNDARY}"'


def part(content: bytes, fields: Mapping[str, str] | None = None) -> bytes:
    """Return a part with the delimiter before it; its type is that of a DICOM file unless `fields` are given."""
    given = {"Content-Type": DICOM} if fields is None else fields
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"\r\n--{BOUNDARY}\r\n{head}\r\n".encode() + content


def body_of(*contents: bytes) -> bytes:
    """Return a whole body with files as its parts."""
    return b"".join(part(content) for content in contents) + closing()


def closing() -> bytes:
    """Return the closing delimiter."""
    return f"\r\n--{BOUNDARY}--".encode()


def in_pieces(body: bytes, size: int) -> Iterator[bytes]:
    """Yield a body in pieces of a size, as a client that sends it chunked."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer in DICOM JSON says: UIDs of what is stored, UID and reason of what is not, reasons of other failures."""

    stored: list[str]
    failed: list[tuple[str, int]]
    others: list[int]
    words: list[str]
    warnings: list[int | None]


def answer_of(content: bytes) -> Answer:
    """Read an answer in DICOM JSON."""
    found = json.loads(content)
    assert isinstance(found, dict)
    stored = _items(found, "00081199")
    failed = _items(found, "00081198")
    others = _items(found, "0008119A")
    return Answer(
        stored=[_value(item, "00081155") for item in stored],
        failed=[(_value(item, "00081155"), _value(item, "00081197")) for item in failed],
        others=[_value(item, "00081197") for item in others],
        words=[words for item in (*stored, *failed, *others) for words in _words(item)],
        warnings=[_value(item, "00081196") for item in stored],
    )


def _items(data_set: Mapping[str, Any], tag: str) -> Sequence[Mapping[str, Any]]:
    if tag not in data_set:
        return ()
    items: list[Mapping[str, Any]] = data_set[tag]["Value"]
    assert items, f"{tag} is there and has no item"
    return items


def _value(item: Mapping[str, Any], tag: str) -> Any:
    return item[tag]["Value"][0] if tag in item and "Value" in item[tag] else None


def _words(item: Mapping[str, Any]) -> Iterator[str]:
    for inner in _items(item, "00741048"):
        yield _value(inner, "00000902")
