"""Pixel Data (7FE0,0010) of a built instance, and the transfer syntax that follows from it (PS3.18 §10.5.2, PS3.5 §A.4)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from stowkeeper.dicom.elements import PIXEL_DATA
from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES,
)
from stowkeeper.services.building.bitstreams import Bitstream, not_taken, unreadable
from stowkeeper.services.building.bulk_parts import BulkPart, BulkParts
from stowkeeper.services.building.frame_media import FRAME_MEDIA, FrameMedia, media_type_of
from stowkeeper.services.building.image import NUMBER_OF_FRAMES, Description, does_not_match
from stowkeeper.services.building.limits import BASIC_OFFSET_MAX, FRAGMENT_BYTES_MAX
from stowkeeper.services.building.sources import Encapsulated, InParts, Sourced, Span
from stowkeeper.stow.media_types import OCTET_STREAM
from stowkeeper.stow.metadata import BulkReference, DataSet, Element

EXTENDED_OFFSET_TABLE: Final = 0x7FE00001
EXTENDED_OFFSET_TABLE_LENGTHS: Final = 0x7FE00002
_OFFSET_TABLES: Final = (EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS)
_PIXEL_VRS: Final = frozenset((b"OB", b"OW"))
_ITEM_START: Final = b"\xfe\xff\x00\xe0"
_ITEM_HEADER_BYTES: Final = 8
_NATIVE: Final = frozenset({"", "*", EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN})
_DECODED_BY_SENDER: Final = frozenset({"image/gif", "image/png"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelData:
    """What pixel data make of an instance: its transfer syntax, and elements that take the place of its own."""

    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN
    elements: dict[int, Sourced] = field(default_factory=dict)
    without: tuple[int, ...] = ()
    """Tags of elements of the metadata that are left out: they speak of another encoding."""


def resolve_pixel_data(data_set: DataSet, parts: BulkParts) -> PixelData:
    """Find the pixel data of an instance, if it has any.

    Raises:
        BuildError: they are missing, are not what they are said to be, or are not described.

    """
    element = data_set.get(PIXEL_DATA)
    if element is None:
        return PixelData()
    if element.vr not in _PIXEL_VRS | {b"UN"} or isinstance(element.value, tuple):
        raise does_not_match("Pixel Data (7FE0,0010) has another VR than OB or OW")
    description = Description(data_set)
    if isinstance(element.value, bytes):
        _expect_native(description, len(element.value), element.value[:4])
        value = Sourced(_native_vr(element, description), element.value)
        return PixelData(elements={PIXEL_DATA: value}, without=_OFFSET_TABLES)
    return _in_parts(description, element, element.value, parts)


def _in_parts(
    description: Description, element: Element, reference: BulkReference, parts: BulkParts
) -> PixelData:
    frames = parts.take_frames(reference.uri)
    names = {_media_name(part) for part in frames}
    wishes = {part.media_type.parameters.get("transfer-syntax", "") for part in frames} - {"", "*"}
    if len(names) > 1 or len(wishes) > 1:
        raise does_not_match("the frames of one image are of several media types or transfer syntaxes")
    name, wish = names.pop(), next(iter(wishes), "")
    if name == OCTET_STREAM:
        value = InParts([Span(part, 0, part.length) for part in frames])
        _expect_native(description, value.length, frames[0].read(0, 4))
        _expect_native_frames(description, frames)
        native = Sourced(_native_vr(element, description), value)
        return PixelData(elements={PIXEL_DATA: native}, without=_OFFSET_TABLES)
    media = FRAME_MEDIA.get(name)
    if media is None:
        raise not_taken(_words_on_media(name))
    found = [media.read(part) for part in frames]
    syntax = _transfer_syntax(found, wish)
    derived = _described(description, found, media)
    return _encapsulated(frames, found, media, syntax, derived)


def _media_name(part: BulkPart) -> str:
    """Return what a part is: by its transfer syntax, where its media type says no more than that it is bytes."""
    name = part.media_type.name or OCTET_STREAM
    wish = part.media_type.parameters.get("transfer-syntax", "")
    if name != OCTET_STREAM or wish in _NATIVE:
        return name
    media_name = media_type_of(wish)
    if not media_name:
        raise not_taken("bulk data are in a transfer syntax that no instance is built in")
    return media_name


def _words_on_media(name: str) -> str:
    if name in _DECODED_BY_SENDER:
        return (
            f"pixel data as {name} would have to be decoded, which is not done here: send them uncompressed"
        )
    return "pixel data are of a media type that is not taken; PS3.18 Table 8.7.3-5 has those that are"


# Native


def _expect_native(description: Description, length: int, begin: bytes) -> None:
    expected = description.native_length
    if length < expected or (begin == _ITEM_START and length != expected):
        raise does_not_match(
            f"the pixel data have {length} bytes, the attributes that describe them ask for {expected} uncompressed "
            "ones; a compressed image is a part of its own media type"
        )
    if length > FRAGMENT_BYTES_MAX:
        raise does_not_match(f"uncompressed pixel data cannot have more than {FRAGMENT_BYTES_MAX} bytes")


def _expect_native_frames(description: Description, parts: Sequence[BulkPart]) -> None:
    """Expect a whole frame of each part, where there are several: padding between them would shift all that follows."""
    if len(parts) == 1:
        return
    bits = description.native_frame_bits
    if len(parts) != (description.frames or 1) or any(part.length * 8 != bits for part in parts):
        raise does_not_match(
            f"the pixel data come in {len(parts)} parts, which are not the {description.frames or 1} frames of "
            f"{bits} bits each that the attributes describe: send one part, or each frame as a part of its own"
        )


def _native_vr(element: Element, description: Description) -> bytes:
    """Return OB or OW as PS3.5 §8.1.2 has them."""
    if (description.bits_allocated or 0) > 8:
        return b"OW"
    return element.vr if element.vr in _PIXEL_VRS else b"OB"


# Encapsulated


def _transfer_syntax(found: Sequence[Bitstream], wish: str) -> str:
    """Return the transfer syntax that all frames fit, the one that the sender names if it is one of them."""
    fitting = [
        uid
        for uid in found[0].transfer_syntaxes
        if all(uid in frame.transfer_syntaxes for frame in found[1:])
    ]
    if not fitting:
        raise not_taken("the frames of one image are compressed in ways that no transfer syntax has together")
    if wish and wish not in fitting:
        raise not_taken(
            "bulk data say another transfer syntax than their bitstream has, which is "
            + " or ".join(TRANSFER_SYNTAXES[uid].name for uid in fitting)
        )
    return wish or fitting[0]


def _described(description: Description, found: Sequence[Bitstream], media: FrameMedia) -> dict[int, Sourced]:
    """Return what the metadata lack to describe the pixels."""
    first = found[0]
    shapes = {(frame.rows, frame.columns, frame.samples) for frame in found}
    if len(shapes) > 1:
        raise does_not_match("the frames of one image are of several sizes")
    derived = description.derive(first)
    said = description.frames
    count = first.frames if media.is_video else len(found)
    if media.is_video and len(found) > 1:
        raise does_not_match("a video is one part, and not several")
    if said is None and count is None:
        raise does_not_match(
            "the metadata lack Number of Frames (0028,0008), and the video does not tell it either"
        )
    if said is None and count is not None and (count > 1 or media.is_video):
        derived[NUMBER_OF_FRAMES] = Element(b"IS", str(count).encode())
    elif not media.is_video and count != (said or 1):
        raise does_not_match(
            f"the metadata have {said} frames, and the request {count}; each frame is a part of its own"
        )
    description.expect_complete(derived)
    return {
        tag: Sourced(element.vr, element.value)
        for tag, element in derived.items()
        if isinstance(element.value, bytes)
    }


def _encapsulated(
    parts: Sequence[BulkPart],
    found: Sequence[Bitstream],
    media: FrameMedia,
    syntax: str,
    elements: dict[int, Sourced],
) -> PixelData:
    fragments = [Span(part, frame.begin, frame.length) for part, frame in zip(parts, found, strict=True)]
    if not all(fragment.length for fragment in fragments):
        raise unreadable("it has no bytes")
    longest = max(fragment.length for fragment in fragments)
    if longest > FRAGMENT_BYTES_MAX:
        fragmentable = f"{syntax.removesuffix('.1')}.1" if media.is_video else ""
        if fragmentable not in found[0].transfer_syntaxes:
            raise not_taken(
                f"a frame or video has {longest} bytes, and a fragment {FRAGMENT_BYTES_MAX} at most"
            )
        syntax, fragments = fragmentable, _cut(fragments[0])
    offsets = b""
    without = _OFFSET_TABLES
    if not media.is_video:
        offsets = _offset_tables(fragments, elements)
    elements[PIXEL_DATA] = Sourced(b"OB", Encapsulated(fragments, offsets))
    return PixelData(transfer_syntax_uid=syntax, elements=elements, without=without)


def _cut(whole: Span) -> list[Span]:
    """Cut a video into fragments (PS3.5 §A.4.5 to §A.4.11, the fragmentable syntaxes)."""
    step = (
        FRAGMENT_BYTES_MAX // 4 * 2
    )  # even, since a fragment is padded, and bytes between two of them would harm
    return [
        Span(whole.part, whole.begin + at, min(step, whole.length - at))
        for at in range(0, whole.length, step)
    ]


def _offset_tables(frames: Sequence[Span], elements: dict[int, Sourced]) -> bytes:
    """Return the Basic Offset Table; where it is too small for the image, empty, with an extended one in `elements`."""
    offsets, at = [], 0
    for frame in frames:
        offsets.append(at)
        at += _ITEM_HEADER_BYTES + frame.length + frame.length % 2
    if offsets[-1] <= BASIC_OFFSET_MAX:
        return struct.pack(f"<{len(offsets)}I", *offsets)
    lengths = [frame.length + frame.length % 2 for frame in frames]
    elements[EXTENDED_OFFSET_TABLE] = Sourced(b"OV", struct.pack(f"<{len(offsets)}Q", *offsets))
    elements[EXTENDED_OFFSET_TABLE_LENGTHS] = Sourced(b"OV", struct.pack(f"<{len(lengths)}Q", *lengths))
    return b""
