"""Encapsulated Document (0042,0011) of a built instance (PS3.3 §C.24.2): a part whose media type is (0042,0012)."""

from typing import Final

from stowkeeper.services.building.bulk_parts import BulkParts
from stowkeeper.services.building.image import does_not_match
from stowkeeper.services.building.limits import FRAGMENT_BYTES_MAX
from stowkeeper.services.building.sources import InParts, Sourced, Span
from stowkeeper.stow.media_types import OCTET_STREAM
from stowkeeper.stow.metadata import BulkReference, DataSet

ENCAPSULATED_DOCUMENT: Final = 0x00420011
_MEDIA_TYPE: Final = 0x00420012
_LENGTH: Final = 0x00420015


def resolve_document(data_set: DataSet, parts: BulkParts) -> dict[int, Sourced]:
    """Return the document, its media type and its length, as far as the metadata have a document.

    Raises:
        BuildError: it is missing, or is not what the metadata say.

    """
    element = data_set.get(ENCAPSULATED_DOCUMENT)
    if element is None:
        return {}
    if element.vr not in {b"OB", b"UN"} or isinstance(element.value, tuple):
        raise does_not_match("Encapsulated Document (0042,0011) has another VR than OB")
    said = _media_type(data_set)
    found = ""
    value: bytes | InParts
    if isinstance(element.value, BulkReference):
        part = parts.take(element.value.uri)
        found = part.media_type.name if part.media_type.name != OCTET_STREAM else ""
        length, last = part.length, part.read(part.length - 1, 1)
        value = InParts([Span(part, 0, length)])
    else:
        value, length, last = element.value, len(element.value), element.value[-1:]
    if not length:
        raise does_not_match("Encapsulated Document (0042,0011) is empty")
    if length > FRAGMENT_BYTES_MAX:
        raise does_not_match(f"a document cannot have more than {FRAGMENT_BYTES_MAX} bytes")
    if not said and not found:
        raise does_not_match("neither MIME Type (0042,0012) nor the part says what the document is")
    if said and found and said.partition(";")[0].strip().lower() != found:
        raise does_not_match("MIME Type (0042,0012) is another one than that of the document")
    elements = {ENCAPSULATED_DOCUMENT: Sourced(b"OB", value)}
    if not said:
        elements[_MEDIA_TYPE] = Sourced(b"LO", found.encode("ascii", "replace"))
    stated = data_set.get(_LENGTH)
    if stated is None or not stated.value:
        elements[_LENGTH] = Sourced(b"UL", length.to_bytes(4, "little"))
    elif not isinstance(stated.value, bytes) or int.from_bytes(stated.value, "little") not in {
        length,
        # A sender may have padded it already.
        length - 1 if length % 2 == 0 and last == b"\0" else length,
    }:
        raise does_not_match("Encapsulated Document Length (0042,0015) is not the length of the document")
    return elements


def _media_type(data_set: DataSet) -> str:
    element = data_set.get(_MEDIA_TYPE)
    if element is None:
        return ""
    if not isinstance(element.value, bytes):
        raise does_not_match("MIME Type (0042,0012) is no text")
    return element.value.decode("utf-8", "replace").strip(" ")
