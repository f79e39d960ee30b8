"""Small data sets in the Native DICOM Model (PS3.19 §A.1), from and to the form that DICOM JSON gives them (PS3.18 Annex F).

They are store responses, and requests and results of storage commitment. Reading declares nothing and fetches nothing: a document
type, and with it every entity, is refused. What is no attribute, item or value of the model is passed over.
"""

import html
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final
from xml.parsers import expat

from stowkeeper.stow.limits import RESPONSE_XML_DEPTH_MAX
from stowkeeper.stow.limits_of_metadata import XML_PIECE_BYTES, XML_TAG_BYTES_MAX

NAMESPACE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

_ROOT: Final = "NativeDicomModel"
_KEYWORDS: Final = {
    "00000902": "ErrorComment",
    "00081110": "ReferencedStudySequence",
    "00081112": "ReferencedInstancesBySOPClassSequence",
    "00081115": "ReferencedSeriesSequence",
    "0008114A": "ReferencedInstanceSequence",
    "00081150": "ReferencedSOPClassUID",
    "00081155": "ReferencedSOPInstanceUID",
    "00081190": "RetrieveURL",
    "00081196": "WarningReason",
    "00081197": "FailureReason",
    "00081198": "FailedSOPSequence",
    "00081199": "ReferencedSOPSequence",
    "0008119A": "OtherFailuresSequence",
    "0008119B": "FailedStudySequence",
    "0020000D": "StudyInstanceUID",
    "0020000E": "SeriesInstanceUID",
    "00741048": "FailedAttributesSequence",
}
_TAGS: Final = {keyword: tag for tag, keyword in _KEYWORDS.items()}
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class NativeResponseError(ValueError):
    """The XML is malformed, declares a document type, or is no Native DICOM Model."""


class TooManyValuesError(NativeResponseError):
    """There are more items and values than are taken; nothing else is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeBounds:
    """What is taken of a document: `values_max` items and values, and `letters_max` letters of each value.

    Where `tags` are named, what is in other attributes is passed over and counts for nothing.
    """

    tags: frozenset[str] = frozenset()
    values_max: int = sys.maxsize
    letters_max: int = sys.maxsize


def write_native_response(
    beginning: Mapping[str, Mapping[str, object]],
    sequences: Iterable[tuple[str, Iterator[Mapping[str, Mapping[str, object]]]]] = (),
) -> bytes:
    """Write a data set: its first attributes, then its sequences. What XML has no way to write becomes U+FFFD."""
    document = BytesIO()  # ten thousand items are several megabytes each time they are copied

    def write(text: str) -> None:
        document.write(text.encode())

    write(f'<?xml version="1.0" encoding="UTF-8"?><{_ROOT} xmlns="{NAMESPACE}">')
    write(_written(beginning))
    for tag, items in sequences:
        write(f'<DicomAttribute tag="{tag}" vr="SQ" keyword="{_KEYWORDS[tag]}">')
        for each in enumerate(items, 1):
            write(_value(*each))
        write("</DicomAttribute>")
    write(f"</{_ROOT}>")
    return document.getvalue()


def _written(data_set: Mapping[str, Mapping[str, object]]) -> str:
    return "".join(
        f'<DicomAttribute tag="{tag}" vr="{element["vr"]}" keyword="{_KEYWORDS[tag]}">{_values(element)}</DicomAttribute>'
        for tag, element in data_set.items()
    )


def _values(element: Mapping[str, object]) -> str:
    values = element.get("Value")
    return "".join(_value(*each) for each in enumerate(values, 1)) if isinstance(values, list) else ""


def _value(number: int, value: object) -> str:
    if isinstance(value, Mapping):
        return f'<Item number="{number}">{_written(value)}</Item>'
    text = str(int(value)) if isinstance(value, int) else html.escape(_NOT_IN_XML.sub("\ufffd", str(value)))
    return f'<Value number="{number}">{text}</Value>'


def read_native_response(body: bytes, bounds: NativeBounds | None = None) -> dict[str, object]:
    """Read a data set, with the namespace of the model or without; raise NativeResponseError where it is none."""
    reader = _Reader(bounds or NativeBounds())
    # Not with namespaces: their whole names would be written before every prefixed field, for hours if they are long.
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse_document_type
    parser.StartElementHandler = reader.begin
    parser.CharacterDataHandler = reader.take
    parser.EndElementHandler = reader.end
    try:
        _parse(parser, body)
    except NativeResponseError:
        raise
    except (expat.ExpatError, LookupError, ValueError):
        raise NativeResponseError("its XML is malformed") from None
    return reader.data_set


def _parse(parser: expat.XMLParserType, body: bytes) -> None:
    for begin in range(0, len(body), XML_PIECE_BYTES):
        end = min(begin + XML_PIECE_BYTES, len(body))
        parser.Parse(body[begin:end], False)  # noqa: FBT003 - it has no name: more may follow
        if end - parser.CurrentByteIndex > XML_TAG_BYTES_MAX:
            raise NativeResponseError("it has a tag or a comment that is too long")
    parser.Parse(b"", True)  # noqa: FBT003 - it has no name: these bytes were all


@dataclass(frozen=True, slots=True)
class _Attribute:
    """An attribute whose values are being read."""

    values: list[object]


@dataclass(slots=True)
class _Text:
    """A value that is being read, where it goes, and how many letters of it are taken still."""

    attribute: _Attribute
    pieces: list[str] = field(default_factory=list)
    room: int = 0


class _Reader:
    """Takes the events of a parser. Each open element stands in `_open` for what it is to us, None for nothing."""

    def __init__(self, bounds: NativeBounds) -> None:
        self._bounds = bounds
        self._values = 0
        self.data_set: dict[str, object] = {}
        self._open: list[dict[str, object] | _Attribute | _Text | None] = []

    def refuse_document_type(self, *_: object) -> None:
        raise NativeResponseError("it declares a document type")

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if len(self._open) == RESPONSE_XML_DEPTH_MAX:
            raise NativeResponseError(f"it is nested too deep: {RESPONSE_XML_DEPTH_MAX} elements at most")
        if self._open:
            self._open.append(self._child(name, attributes))
        elif name == _ROOT:
            self._open.append(self.data_set)
        else:
            raise NativeResponseError("it is no Native DICOM Model")

    def _child(self, name: str, attributes: dict[str, str]) -> dict[str, object] | _Attribute | _Text | None:
        above = self._open[-1]
        if isinstance(above, dict) and name == "DicomAttribute":
            tag = (attributes.get("tag") or _TAGS.get(attributes.get("keyword", ""), "")).upper()
            if self._bounds.tags and tag not in self._bounds.tags:
                return None
            attribute = _Attribute([])
            above[tag] = {"vr": attributes.get("vr", ""), "Value": attribute.values}
            return attribute
        if isinstance(above, _Attribute) and name == "Item":
            self._count()
            item: dict[str, object] = {}
            above.values.append(item)
            return item
        if isinstance(above, _Attribute) and name == "Value":
            self._count()
            return _Text(above, room=self._bounds.letters_max)
        return None

    def _count(self) -> None:
        self._values += 1
        if self._values > self._bounds.values_max:
            raise TooManyValuesError(f"it has more than {self._bounds.values_max} items and values")

    def take(self, text: str) -> None:
        value = self._open[-1]
        if isinstance(value, _Text) and value.room:
            value.pieces.append(text[: value.room])
            value.room -= len(value.pieces[-1])

    def end(self, _: str) -> None:
        ended = self._open.pop()
        if isinstance(ended, _Text):
            ended.attribute.values.append("".join(ended.pieces))
