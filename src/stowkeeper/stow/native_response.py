"""A store response in the Native DICOM Model (PS3.19 §A.1), from and to the form that DICOM JSON gives it (PS3.18 Annex F).

Reading declares nothing and fetches nothing: a document type, and with it every entity, is refused. What is no attribute, item or
value of the model is passed over.
"""

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from stowkeeper.stow.limits import RESPONSE_XML_DEPTH_MAX

NAMESPACE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

_ROOT: Final = "NativeDicomModel"
_KEYWORDS: Final = {
    "00000902": "ErrorComment",
    "00081150": "ReferencedSOPClassUID",
    "00081155": "ReferencedSOPInstanceUID",
    "00081190": "RetrieveURL",
    "00081196": "WarningReason",
    "00081197": "FailureReason",
    "00081198": "FailedSOPSequence",
    "00081199": "ReferencedSOPSequence",
    "0008119A": "OtherFailuresSequence",
    "00741048": "FailedAttributesSequence",
}
_TAGS: Final = {keyword: tag for tag, keyword in _KEYWORDS.items()}
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class NativeResponseError(ValueError):
    """The XML is malformed, declares a document type, or is no Native DICOM Model."""


def write_native_response(
    beginning: Mapping[str, Mapping[str, object]],
    sequences: Iterable[tuple[str, Iterator[Mapping[str, Mapping[str, object]]]]],
) -> bytes:
    """Write a store response: its first attributes, then its sequences. What XML has no way to write becomes U+FFFD."""
    written = [f'<?xml version="1.0" encoding="UTF-8"?><{_ROOT} xmlns="{NAMESPACE}">', _written(beginning)]
    for tag, items in sequences:
        written.append(f'<DicomAttribute tag="{tag}" vr="SQ" keyword="{_KEYWORDS[tag]}">')
        written += (_value(*each) for each in enumerate(items, 1))
        written.append("</DicomAttribute>")
    return "".join([*written, f"</{_ROOT}>"]).encode()


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


def read_native_response(body: bytes) -> dict[str, object]:
    """Read a response, with the namespace of the model or without; raise NativeResponseError where it is none."""
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse_document_type
    parser.StartElementHandler = reader.begin
    parser.CharacterDataHandler = reader.take
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(body, True)  # noqa: FBT003 - it has no name: these bytes are all
    except NativeResponseError:
        raise
    except (expat.ExpatError, LookupError, ValueError):
        raise NativeResponseError("its XML is malformed") from None
    return reader.data_set


@dataclass(frozen=True, slots=True)
class _Attribute:
    """An attribute whose values are being read."""

    values: list[object]


@dataclass(frozen=True, slots=True)
class _Text:
    """A value that is being read, and where it goes."""

    attribute: _Attribute
    pieces: list[str] = field(default_factory=list)


class _Reader:
    """Takes the events of a parser. Each open element stands in `_open` for what it is to us, None for nothing."""

    def __init__(self) -> None:
        self.data_set: dict[str, object] = {}
        self._open: list[dict[str, object] | _Attribute | _Text | None] = []

    def refuse_document_type(self, *_: object) -> None:
        raise NativeResponseError("it declares a document type")

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        if len(self._open) == RESPONSE_XML_DEPTH_MAX:
            raise NativeResponseError(f"its elements are nested deeper than {RESPONSE_XML_DEPTH_MAX}")
        if self._open:
            self._open.append(self._child(name, attributes))
        elif name == _ROOT:
            self._open.append(self.data_set)
        else:
            raise NativeResponseError("it is no Native DICOM Model")

    def _child(self, name: str, attributes: dict[str, str]) -> dict[str, object] | _Attribute | _Text | None:
        above = self._open[-1]
        if isinstance(above, dict) and name == "DicomAttribute":
            tag = attributes.get("tag") or _TAGS.get(attributes.get("keyword", ""), "")
            attribute = _Attribute([])
            above[tag.upper()] = {"vr": attributes.get("vr", ""), "Value": attribute.values}
            return attribute
        if isinstance(above, _Attribute) and name == "Item":
            item: dict[str, object] = {}
            above.values.append(item)
            return item
        if isinstance(above, _Attribute) and name == "Value":
            return _Text(above)
        return None

    def take(self, text: str) -> None:
        if isinstance(self._open[-1], _Text):
            self._open[-1].pieces.append(text)

    def end(self, _: str) -> None:
        ended = self._open.pop()
        if isinstance(ended, _Text):
            ended.attribute.values.append("".join(ended.pieces))
