"""A DICOM instance out of its metadata and its bulk data (PS3.18 §10.5.2).

The metadata are never trusted: identifiers have to be there, what describes the pixels has to fit them, and references
mean parts of the same request only. Nothing is made up that the standard does not have derived: no UID is generated.

What is built is a data set in explicit VR little endian, given piece by piece; file meta information is for who keeps it.
Memory is that of the metadata, whatever the size of the bulk data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from stowkeeper.dicom.byte_order import NUMBER_SIZES
from stowkeeper.dicom.elements import PIXEL_DATA, format_tag
from stowkeeper.dicom.transfer_syntaxes import EXPLICIT_VR_BIG_ENDIAN
from stowkeeper.dicom.uid import is_acceptable_uid, strip_uid
from stowkeeper.services.building.bitstreams import not_taken
from stowkeeper.services.building.bulk_parts import BulkParts
from stowkeeper.services.building.document import resolve_document
from stowkeeper.services.building.encoding import encode_data_set
from stowkeeper.services.building.errors import BuildError
from stowkeeper.services.building.image import does_not_match
from stowkeeper.services.building.limits import FRAGMENT_BYTES_MAX
from stowkeeper.services.building.pixel_data import resolve_pixel_data
from stowkeeper.services.building.sources import InParts, Sourced, SourcedDataSet, Span
from stowkeeper.stow.media_types import OCTET_STREAM
from stowkeeper.stow.metadata import BulkReference, DataSet, Element, InstanceMetadata
from stowkeeper.stow.reasons import FailureReason

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
STUDY_INSTANCE_UID: Final = 0x0020000D
SERIES_INSTANCE_UID: Final = 0x0020000E
_NAMES: Final = {
    SOP_CLASS_UID: "SOP Class UID",
    SOP_INSTANCE_UID: "SOP Instance UID",
    STUDY_INSTANCE_UID: "Study Instance UID",
    SERIES_INSTANCE_UID: "Series Instance UID",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltInstance:
    """An instance that can be kept. Iterate over `pieces` once, while the files of the bulk data are open."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    pieces: Iterator[bytes]
    """The encoded data set without file meta information. Raises OSError where bulk data cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedInstance:
    """What an instance is called in a response; '' where its metadata have no such UID that could be repeated."""

    sop_class_uid: str
    sop_instance_uid: str


def name_instance(data_set: DataSet) -> NamedInstance:
    """Return what an instance is called, whether it can be built or not. Never raises."""
    return NamedInstance(
        sop_class_uid=_uid(data_set, SOP_CLASS_UID), sop_instance_uid=_uid(data_set, SOP_INSTANCE_UID)
    )


def build_instance(metadata: InstanceMetadata, parts: BulkParts) -> BuiltInstance:
    """Build an instance.

    Raises:
        BuildError: it cannot be built; nothing of it has been given then.

    """
    _note_references(metadata.data_set, parts)
    if metadata.defect:
        raise BuildError(FailureReason.CANNOT_UNDERSTAND, f"the metadata have a defect: {metadata.defect}")
    data_set = metadata.data_set
    uids = {tag: _expected_uid(data_set, tag) for tag in _NAMES}
    pixel_data = resolve_pixel_data(data_set, parts)
    replaced = pixel_data.elements | resolve_document(data_set, parts)
    elements = {
        tag: _resolve(tag, element, parts)
        for tag, element in data_set.items()
        if tag not in replaced and tag not in pixel_data.without
    }
    built = dict(sorted((elements | replaced).items()))
    return BuiltInstance(
        sop_class_uid=uids[SOP_CLASS_UID],
        sop_instance_uid=uids[SOP_INSTANCE_UID],
        study_instance_uid=uids[STUDY_INSTANCE_UID],
        transfer_syntax_uid=pixel_data.transfer_syntax_uid,
        pieces=encode_data_set(built),
    )


def _note_references(data_set: DataSet, parts: BulkParts) -> None:
    for element in data_set.values():
        if isinstance(element.value, BulkReference):
            parts.refer(element.value.uri)
        elif isinstance(element.value, tuple):
            for item in element.value:
                _note_references(item, parts)


def _expected_uid(data_set: DataSet, tag: int) -> str:
    uid = _uid(data_set, tag)
    if uid:
        return uid
    element = data_set.get(tag)
    is_absent = element is None or not element.value
    reason = (
        FailureReason.INVALID_INSTANCE
        if tag == SOP_INSTANCE_UID and not is_absent
        else FailureReason.DOES_NOT_MATCH
    )
    fault = "is missing" if is_absent else "is no UID with VR UI"
    raise BuildError(reason, f"{_NAMES[tag]} {format_tag(tag)} {fault}")


def _uid(data_set: DataSet, tag: int) -> str:
    element = data_set.get(tag)
    if element is None or element.vr != b"UI" or not isinstance(element.value, bytes):
        return ""
    uid = strip_uid(element.value)
    return uid if is_acceptable_uid(uid) else ""


def _resolve(tag: int, element: Element, parts: BulkParts) -> Sourced:
    """Return an element whose value is at hand, or in a part that there is."""
    if isinstance(element.value, BulkReference):
        part = parts.take(element.value.uri)
        if part.media_type.name not in {"", OCTET_STREAM}:
            raise not_taken(
                f"the bulk data of {format_tag(tag)} are of another media type than {OCTET_STREAM}"
            )
        if part.media_type.parameters.get("transfer-syntax") == EXPLICIT_VR_BIG_ENDIAN:
            raise not_taken(f"the bulk data of {format_tag(tag)} are big endian, which only files may be")
        value = InParts([Span(part, 0, part.length)])
        _expect_length(tag, element.vr, part.length)
        return Sourced(element.vr, value)
    if isinstance(element.value, bytes):
        _expect_length(tag, element.vr, len(element.value))
        return Sourced(element.vr, element.value)
    return Sourced(element.vr, tuple(_resolve_item(item, parts) for item in element.value))


def _resolve_item(item: DataSet, parts: BulkParts) -> SourcedDataSet:
    return {tag: _resolve(tag, element, parts) for tag, element in item.items()}


def _expect_length(tag: int, vr: bytes, length: int) -> None:
    size = NUMBER_SIZES.get(vr, 1)
    if length % size and not (tag == PIXEL_DATA and vr == b"OW"):
        raise does_not_match(f"{format_tag(tag)} has {length} bytes, and numbers of {size}")
    if length > FRAGMENT_BYTES_MAX:
        raise does_not_match(f"{format_tag(tag)} has more than {FRAGMENT_BYTES_MAX} bytes")
