"""Metadata in the DICOM JSON Model (PS3.18 Annex F): an array of objects, each the metadata of one instance.

Python's parser does the reading, but never of more than one instance at a time, and only after a look that costs no
memory has told that the text is neither too long, nor too deep, nor of too many pieces. So however many instances an
array has, memory is that of the largest one; and a text of ten thousand brackets is refused, and not recursed into.

What is not as the Annex says, and can only mean one thing, is taken: a number as a text and a text as a number where
the VR has numbers, a name as a plain text, one object without an array around it.
"""

import json
import re
from collections.abc import Iterator
from mmap import mmap
from typing import Any, Final

from stowkeeper.dicom.elements import format_tag
from stowkeeper.stow.limits_of_metadata import JSON_DEPTH_MAX, METADATA_BYTES_MAX, METADATA_TOKENS_MAX
from stowkeeper.stow.metadata import (
    VALUE_REPRESENTATIONS,
    DataSet,
    Element,
    ElementDefectError,
    InstanceMetadata,
    Level,
    MetadataError,
    Reading,
)
from stowkeeper.stow.metadata_values import (
    decode_inline,
    encode_values,
    read_reference,
    read_tag,
)

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_BLANKS: Final = re.compile(rb"[ \t\r\n]*+")
# A text without escapes in one step; a quotation mark alone begins any other one.
_TOKEN: Final = re.compile(rb'"[^"\\]*+"|["{}\[\],]')
# The number of repetitions is bounded, because each of them costs memory until the match is done.
_ESCAPES: Final = re.compile(rb'(?:[^"\\]*+\\.){0,10000}+[^"\\]*+(?P<end>"?)', re.DOTALL)
_QUOTATION_MARK: Final = b'"'[0]
_OPENING: Final = frozenset(b"{[")
_CLOSING: Final = frozenset(b"}]")
_VALUE_FORMS: Final = ("Value", "InlineBinary", "BulkDataURI")
_DESCRIPTIONS: Final = frozenset({"vr", "keyword", "name", "privateCreator", *_VALUE_FORMS})
"""What an object of an element may have without a value being in it: some writers repeat the dictionary."""
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


def read_json_model(data: bytes | mmap) -> Iterator[InstanceMetadata]:
    """Give the metadata of each instance, in the order of the text.

    `data` is the whole text, in memory or mapped from a file. It is read as the iteration goes on: where
    it fails, those before have been given. An object that is JSON and no instance is a defect, and spares those behind it.

    Raises:
        MetadataError: the text is no JSON, no array of objects, or one of its objects is too long to find its end.

    """
    at = _skip_blanks(data, len(_BYTE_ORDER_MARK) if data[:3] == _BYTE_ORDER_MARK else 0)
    if data[at : at + 1] == b"{":
        end = _end_of_object(data, at)
        yield _read_object(data, at, end)
        _expect_end(data, end)
        return
    if data[at : at + 1] != b"[":
        raise MetadataError("the metadata are no JSON array of objects")
    at = _skip_blanks(data, at + 1)
    if data[at : at + 1] == b"]":
        _expect_end(data, at + 1)
        return
    while True:
        if data[at : at + 1] != b"{":
            raise MetadataError(f"at byte {at} of the JSON there should be an object")
        end = _end_of_object(data, at)
        yield _read_object(data, at, end)
        at = _skip_blanks(data, end)
        mark = data[at : at + 1]
        at = _skip_blanks(data, at + 1)
        if mark == b"]":
            _expect_end(data, at)
            return
        if mark != b",":
            raise MetadataError(f"at byte {at - 1} of the JSON its array should go on or end")


# The look before the reading


def _skip_blanks(data: bytes | mmap, at: int) -> int:
    match = _BLANKS.match(data, at)
    return at if match is None else match.end()


def _expect_end(data: bytes | mmap, at: int) -> None:
    if _skip_blanks(data, at) != len(data):
        raise MetadataError(f"something stands behind the JSON, at byte {at}")


def _end_of_object(data: bytes | mmap, begin: int) -> int:
    """Return where the object that begins at `begin` ends, having looked that it is within all bounds."""
    depth = tokens = 0
    limit = begin + METADATA_BYTES_MAX
    at = begin
    while True:
        match = _TOKEN.search(data, at, limit)
        if match is None:
            break
        begin, at = match.span()
        mark = data[begin]
        if mark in _CLOSING:
            depth -= 1
            if depth == 0:
                return at
            continue
        tokens += 1
        if tokens > METADATA_TOKENS_MAX:
            raise MetadataError(f"the JSON of one instance has more than {METADATA_TOKENS_MAX} pieces")
        if mark in _OPENING:
            depth += 1
            if depth > JSON_DEPTH_MAX:
                raise MetadataError(f"the JSON has more than {JSON_DEPTH_MAX} brackets inside one another")
        elif mark == _QUOTATION_MARK and at - begin == 1:
            at = _end_of_text(data, at, limit)
            if at < 0:
                break
    if len(data) > limit:
        raise MetadataError(
            f"the JSON of one instance has more than {METADATA_BYTES_MAX} bytes: send its long values as bulk data"
        )
    raise MetadataError("the JSON ends inside an object")


def _end_of_text(data: bytes | mmap, at: int, limit: int) -> int:
    """Return where a text with escapes ends whose quotation mark stands before `at`; -1 where it does not."""
    while True:
        match = _ESCAPES.match(data, at, limit)
        if match is None or match.end() == at:
            return -1
        at = match.end()
        if match["end"]:
            return at


# The reading


class _RepeatedNameError(ElementDefectError):
    """An object of the JSON has the same name twice, and readers differ on which counts (RFC 8259 §4)."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedNameError("an object has the same name twice")
    return found


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=str.encode, parse_constant=str.encode
)
"""Numbers stay as they are written, with all their digits: in bytes, which no text of the JSON becomes."""


def _read_object(data: bytes | mmap, begin: int, end: int) -> InstanceMetadata:
    try:
        found = _decoder.decode(data[begin:end].decode())
    except _RepeatedNameError as defect:
        return InstanceMetadata(data_set={}, defect=str(defect))
    except UnicodeDecodeError:
        raise MetadataError("the JSON is not in UTF-8") from None
    except (ValueError, RecursionError):  # a number of thousands of digits is a bare ValueError
        raise MetadataError(f"between bytes {begin} and {end} stands no JSON") from None
    reading = Reading()
    level = Level(is_item=False)
    try:
        _read_elements(found, level, reading)
    except MetadataError as error:
        return InstanceMetadata(data_set={}, defect=str(error))
    return reading.finish(level)


def _read_elements(found: dict[str, Any], level: Level, reading: Reading) -> None:
    for name, content in found.items():
        reading.count_element()
        try:
            tag = read_tag(name)
            level.add(tag, _read_element(tag, content, reading), reading)
        except ElementDefectError as defect:
            reading.note(defect)


def _read_element(tag: int, content: object, reading: Reading) -> Element:
    if not isinstance(content, dict):
        raise ElementDefectError(f"{format_tag(tag)} is no object")
    name = content.get("vr")
    vr = VALUE_REPRESENTATIONS.get(name) if isinstance(name, str) else None
    if vr is None:
        raise ElementDefectError(f"{format_tag(tag)} has no value representation that is known")
    given = [form for form in _VALUE_FORMS if content.get(form) is not None]
    if not given:
        if not content.keys() <= _DESCRIPTIONS:  # "value", say: what it holds would be lost without a word
            raise ElementDefectError(f"{format_tag(tag)} has no value but a name that the JSON Model has not")
        return Element(vr, () if vr == b"SQ" else b"")
    if len(given) > 1:
        raise ElementDefectError(f"{format_tag(tag)} has its value in several ways at once")
    value = content[given[0]]
    if given[0] == "InlineBinary":
        return Element(vr, decode_inline(tag, vr, value))
    if given[0] == "BulkDataURI":
        return Element(vr, read_reference(tag, vr, value))
    if not isinstance(value, list):
        raise ElementDefectError(f"the Value of {format_tag(tag)} is no array")
    reading.count_values(len(value))
    if vr == b"SQ":
        return Element(vr, tuple(_read_item(tag, item, reading) for item in value))
    if vr == b"PN":
        value = [_person_name(tag, name) for name in value]
    return Element(vr, encode_values(tag, vr, value))


def _read_item(tag: int, item: object, reading: Reading) -> DataSet:
    if item is None:
        return {}
    if not isinstance(item, dict):
        raise ElementDefectError(f"an item of {format_tag(tag)} is no object")
    level = Level(is_item=True)
    _read_elements(item, level, reading)
    return level.finish(reading)


def _person_name(tag: int, name: object) -> object:
    if not isinstance(name, dict):
        return name
    groups = [name.get(group) or "" for group in _NAME_GROUPS]
    if not name.keys() <= set(_NAME_GROUPS):
        raise ElementDefectError(f"{format_tag(tag)} has a name with parts that the JSON Model has not")
    if not all(type(group) is str for group in groups):
        raise ElementDefectError(f"{format_tag(tag)} has a name that is no text")
    return "=".join(groups).rstrip("=")
