"""Metadata in the Native DICOM Model (PS3.19 Annex A): one XML document, the metadata of one instance.

Expat reads it as a stream. Document types are refused as soon as they begin, so there are no entities to expand and
nothing outside of the document to fetch; depth, size and counts are bounded. Tags and values are taken by their place
alone, and tags that the model does not have are refused, since what they hold would be lost.

Namespaces are looked up here: expat would write their whole name before every prefixed field, so that a megabyte of XML
with a long one took it seconds in which nothing else ran, and thirty megabytes hours.
"""

import re
from dataclasses import dataclass, field
from typing import Final, TypeVar
from xml.parsers import expat

from stowkeeper.dicom.elements import format_tag
from stowkeeper.stow.limits_of_metadata import (
    METADATA_BYTES_MAX,
    METADATA_VALUES_MAX,
    XML_DEPTH_MAX,
    XML_TAG_BYTES_MAX,
)
from stowkeeper.stow.metadata import (
    VALUE_REPRESENTATIONS,
    BulkReference,
    DataSet,
    Element,
    ElementDefectError,
    InstanceMetadata,
    Level,
    MetadataError,
    Reading,
)
from stowkeeper.stow.metadata_values import TEXT_VRS, decode_inline, encode_values, read_reference, read_tag

Value = TypeVar("Value")

NATIVE_MODEL_NAMESPACE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"

_NAME_PARTS: Final = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_DATA_SET: Final = frozenset({"DicomAttribute"})
_INSIDE: Final = {
    "": frozenset({"NativeDicomModel"}),
    "NativeDicomModel": _DATA_SET,
    "Item": _DATA_SET,
    "DicomAttribute": frozenset({"Value", "Item", "PersonName", "BulkData", "InlineBinary"}),
    "PersonName": frozenset(_NAME_GROUPS),
    **dict.fromkeys(_NAME_GROUPS, frozenset(_NAME_PARTS)),
}
"""What may stand in what."""

_WITH_TEXT: Final = frozenset({"Value", "InlineBinary", *_NAME_PARTS})
_VERBATIM_VRS: Final = frozenset(b"LO LT PN SH ST UC UT".split())
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_SURROUNDING: Final = " \t\r\n"


@dataclass(slots=True)
class _Attribute:
    """A DicomAttribute that has begun."""

    tag: int
    vr: bytes
    private_creator: str
    values: dict[int, str] = field(default_factory=dict)
    items: dict[int, DataSet] = field(default_factory=dict)
    binary: str | None = None
    reference: BulkReference | None = None
    name: dict[str, dict[str, str]] = field(default_factory=dict)
    defect: ElementDefectError | None = None


class NativeModelReader:
    """Reads one document: `feed` it every piece, then `finish`."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.EntityDeclHandler = self._refuse_doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._take_text
        self._size = 0
        self._reading = Reading()
        self._path: list[str] = []
        self._is_native: dict[str, list[bool]] = {"": [True]}
        self._declared: list[tuple[str, ...]] = []
        self._levels: list[Level] = []
        self._attributes: list[_Attribute | None] = []
        self._numbers: list[int] = []
        self._text: list[str] = []
        self._error: MetadataError | None = None
        self._found: InstanceMetadata | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises MetadataError, after which there is no more to feed."""
        self._size += len(piece)
        if self._size > METADATA_BYTES_MAX:
            raise MetadataError(
                f"the XML has more than {METADATA_BYTES_MAX} bytes: send its long values as bulk data"
            )
        self._parse(piece, is_last=False)

    def finish(self) -> InstanceMetadata:
        """Return what was read, now that the document has ended. Raises MetadataError."""
        self._parse(b"", is_last=True)
        if self._found is None:
            raise MetadataError("there is no XML document")
        return self._found

    def _parse(self, piece: bytes, *, is_last: bool) -> None:
        if self._error is None:
            try:
                self._parser.Parse(piece, is_last)
            except MetadataError as error:
                self._error = error
            except (expat.ExpatError, ValueError, LookupError):
                # Its words may repeat what the document says; the place does not.
                line, column = self._parser.ErrorLineNumber, self._parser.ErrorColumnNumber
                self._error = MetadataError(f"there is no XML in line {line}, column {column}")
        if self._error is None and self._size - self._parser.CurrentByteIndex > XML_TAG_BYTES_MAX:
            # It would be read again from its beginning with each piece.
            self._error = MetadataError(
                f"the XML has a tag or a comment of more than {XML_TAG_BYTES_MAX} bytes"
            )
        if self._error is not None:
            raise self._error

    def _refuse_doctype(self, *_: object) -> None:
        raise MetadataError("the XML has a document type declaration, which is not taken")

    # What expat tells

    def _start(self, qualified: str, fields: dict[str, str]) -> None:
        prefix, _, name = qualified.rpartition(":")
        self._declared.append(self._declare(fields) if fields else ())
        natives = self._is_native.get(prefix)
        outer = self._path[-1] if self._path else ""
        if not natives or not natives[-1] or name not in _INSIDE.get(outer, ()):
            raise MetadataError(
                f"line {self._parser.CurrentLineNumber} of the XML has a tag that the Native DICOM Model has not there"
            )
        if len(self._path) >= XML_DEPTH_MAX:
            raise MetadataError(f"the XML has more than {XML_DEPTH_MAX} tags inside one another")
        self._path.append(name)
        self._text.clear()
        if name == "NativeDicomModel":
            self._levels.append(Level(is_item=False))
        elif name == "DicomAttribute":
            self._reading.count_element()
            self._attributes.append(self._begin_attribute(fields))
        elif name == "Item":
            self._begin_value(fields)
            self._levels.append(Level(is_item=True))
        elif name in {"Value", "PersonName"}:
            self._begin_value(fields)
        elif name == "BulkData":
            self._take_reference(fields)

    def _declare(self, fields: dict[str, str]) -> tuple[str, ...]:
        """Remember of each prefix that a tag declares whether it is our namespace or none; return the prefixes, '' among them.

        That holds until the tag ends (Namespaces in XML §6).
        """
        prefixes = []
        for name, uri in fields.items():
            field, _, prefix = name.partition(":")
            if field == "xmlns":
                self._is_native.setdefault(prefix, []).append(uri in {"", NATIVE_MODEL_NAMESPACE})
                prefixes.append(prefix)
        return tuple(prefixes)

    def _take_text(self, text: str) -> None:
        if self._path[-1] in _WITH_TEXT:
            self._text.append(text)
        elif text.strip(_SURROUNDING):
            raise MetadataError(
                f"line {self._parser.CurrentLineNumber} of the XML has text where only tags belong"
            )

    def _end(self, _: str) -> None:
        name = self._leave()
        attribute = self._attributes[-1] if self._attributes else None
        text = "".join(self._text)
        self._text.clear()
        if name == "NativeDicomModel":
            self._found = self._reading.finish(self._levels.pop())
        elif name == "DicomAttribute":
            self._attributes.pop()
            if attribute is not None:
                self._end_attribute(attribute)
        elif name == "Item":
            item = self._levels.pop().finish(self._reading)
            number = self._numbers.pop()
            if attribute is not None:
                self._put(attribute, attribute.items, number, item)
        elif name == "Value":
            number = self._numbers.pop()
            if attribute is not None:
                self._put(attribute, attribute.values, number, text)
        elif name == "PersonName":
            number = self._numbers.pop()
            if attribute is not None:
                self._put(attribute, attribute.values, number, _person_name(attribute.name))
                attribute.name = {}
        elif attribute is not None and name in _NAME_PARTS:
            parts = attribute.name.setdefault(self._path[-1], {})
            if parts.setdefault(name, text) is not text:
                attribute.defect = ElementDefectError(
                    f"{format_tag(attribute.tag)} has a part of a name twice"
                )
        elif attribute is not None and name == "InlineBinary":
            if attribute.binary is not None:
                attribute.defect = _several_ways(attribute.tag)
            attribute.binary = text

    def _leave(self) -> str:
        """Go out of a tag, and of the namespaces that it declared; return its name."""
        for prefix in self._declared.pop():
            self._is_native[prefix].pop()
        return self._path.pop()

    # Attributes

    def _begin_attribute(self, fields: dict[str, str]) -> _Attribute | None:
        """Return the attribute that begins; None where it cannot be told which."""
        try:
            tag = read_tag(fields.get("tag", ""))
        except ElementDefectError as defect:
            self._reading.note(defect)
            return None
        vr = VALUE_REPRESENTATIONS.get(fields.get("vr", ""))
        attribute = _Attribute(tag, vr or b"UN", fields.get("privateCreator", "").strip(" "))
        if vr is None:
            attribute.defect = ElementDefectError(
                f"{format_tag(tag)} has no value representation that is known"
            )
        return attribute

    def _begin_value(self, fields: dict[str, str]) -> None:
        self._reading.count_values(1)
        attribute = self._attributes[-1]
        text = fields.get("number", "")
        if _NUMBER.fullmatch(text):
            self._numbers.append(int(text))
            return
        taken = 0 if attribute is None else len(attribute.values) + len(attribute.items)
        self._numbers.append(taken + 1)
        if text and attribute is not None:
            attribute.defect = ElementDefectError(
                f"{format_tag(attribute.tag)} has a value whose number is none"
            )

    def _take_reference(self, fields: dict[str, str]) -> None:
        attribute = self._attributes[-1]
        if attribute is None:
            return
        if attribute.reference is not None:
            attribute.defect = _several_ways(attribute.tag)
        try:
            attribute.reference = read_reference(
                attribute.tag, attribute.vr, fields.get("uri") or fields.get("uuid")
            )
        except ElementDefectError as defect:
            attribute.defect = defect

    @staticmethod
    def _put(attribute: _Attribute, values: dict[int, Value], number: int, value: Value) -> None:
        if number in values:
            attribute.defect = ElementDefectError(
                f"{format_tag(attribute.tag)} has two values of the same number"
            )
        values[number] = value

    def _end_attribute(self, attribute: _Attribute) -> None:
        try:
            if attribute.defect is not None:
                raise attribute.defect
            element = Element(attribute.vr, self._value_of(attribute))
            self._levels[-1].add(attribute.tag, element, self._reading, attribute.private_creator)
        except ElementDefectError as defect:
            self._reading.note(defect)

    def _value_of(self, attribute: _Attribute) -> bytes | BulkReference | tuple[DataSet, ...]:
        tag, vr = attribute.tag, attribute.vr
        ways = (bool(attribute.values), bool(attribute.items), attribute.binary is not None)
        if sum(ways) + (attribute.reference is not None) > 1:
            raise _several_ways(tag)
        if attribute.reference is not None:
            return attribute.reference
        if attribute.binary is not None:
            return decode_inline(tag, vr, attribute.binary)
        if vr == b"SQ":
            if attribute.values:
                raise ElementDefectError(f"{format_tag(tag)} is a sequence and has values")
            return tuple(item for _, item in sorted(attribute.items.items()))
        if attribute.items:
            raise ElementDefectError(f"{format_tag(tag)} has items and is no sequence")
        return encode_values(tag, vr, self._in_order(attribute))

    def _in_order(self, attribute: _Attribute) -> list[str | None]:
        """Return the values by their numbers; one that is left out is empty."""
        if not attribute.values:
            return []
        last = max(attribute.values)
        self._reading.count_values(min(last - len(attribute.values), METADATA_VALUES_MAX + 1))
        values: list[str | None] = [None] * last
        for number, text in attribute.values.items():
            is_verbatim = attribute.vr in _VERBATIM_VRS
            values[number - 1] = text if is_verbatim else text.strip(_SURROUNDING)
        if attribute.vr not in TEXT_VRS and None in values:
            raise ElementDefectError(f"{format_tag(attribute.tag)} leaves a number out")
        return values


def _several_ways(tag: int) -> ElementDefectError:
    return ElementDefectError(f"{format_tag(tag)} has its value in several ways at once")


def _person_name(name: dict[str, dict[str, str]]) -> str:
    """Return a name as PN has it (PS3.5 §6.2.1)."""
    groups = []
    for group in _NAME_GROUPS:
        parts = name.get(group, {})
        groups.append("^".join(parts.get(part, "") for part in _NAME_PARTS).rstrip("^"))
    return "=".join(groups).rstrip("=")
