"""The headers of JPEG (ITU-T T.81 §B.2) and JPEG-LS (ITU-T T.87 §C.2), up to the first scan."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from stowkeeper.dicom.transfer_syntaxes import (
    JPEG_BASELINE_8_BIT,
    JPEG_EXTENDED_12_BIT,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
)
from stowkeeper.services.building.bitstreams import Bitstream, Header, not_taken, unreadable
from stowkeeper.services.building.bulk_parts import BulkPart
from stowkeeper.services.building.limits import MARKERS_MAX

_START_OF_IMAGE: Final = b"\xff\xd8"
_BASELINE: Final = 0xC0
_EXTENDED: Final = 0xC1
_LOSSLESS: Final = 0xC3
_JPEG_LS: Final = 0xF7
_FRAMES: Final = frozenset({*range(0xC0, 0xD0), _JPEG_LS}) - {0xC4, 0xC8, 0xCC}
_SCAN: Final = 0xDA
_ADOBE: Final = 0xEE
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xDA)})


@dataclass(slots=True)
class _Found:
    """What stands before the first scan, and the part of the scan's own header that counts."""

    process: int = 0
    bits: int = 0
    rows: int = 0
    columns: int = 0
    components: bytes = b""
    adobe_transform: int | None = None
    selection: int = 0


def read_jpeg(part: BulkPart) -> Bitstream:
    """Read what `image/jpeg` may be. Raises BuildError."""
    found = _read(Header(part))
    if found.process == _BASELINE:
        syntaxes: tuple[str, ...] = (JPEG_BASELINE_8_BIT, JPEG_EXTENDED_12_BIT)
    elif found.process == _EXTENDED:
        syntaxes = (JPEG_EXTENDED_12_BIT,)
    elif found.process == _LOSSLESS and found.selection == 1:
        syntaxes = (JPEG_LOSSLESS_SV1, JPEG_LOSSLESS)
    elif found.process == _LOSSLESS:
        syntaxes = (JPEG_LOSSLESS,)
    elif found.process == _JPEG_LS:
        raise unreadable("it is JPEG-LS, whose media type is image/jls")
    else:
        raise not_taken(
            "an image is JPEG of a process that is not taken; baseline, extended sequential and lossless are"
        )
    return _bitstream(part, found, syntaxes, _photometric_interpretation(found))


def read_jpeg_ls(part: BulkPart) -> Bitstream:
    """Read what `image/jls` may be. Raises BuildError."""
    found = _read(Header(part))
    if found.process != _JPEG_LS:
        raise unreadable("it is JPEG, whose media type is image/jpeg")
    lossless = (JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS)
    syntaxes = lossless if found.selection == 0 else (JPEG_LS_NEAR_LOSSLESS,)
    photometric_interpretation = "RGB" if len(found.components) // 3 == 3 else ""
    return _bitstream(part, found, syntaxes, photometric_interpretation)


def _bitstream(
    part: BulkPart, found: _Found, transfer_syntaxes: tuple[str, ...], photometric_interpretation: str
) -> Bitstream:
    samples = len(found.components) // 3
    return Bitstream(
        transfer_syntaxes=transfer_syntaxes,
        begin=0,
        length=part.length,
        rows=found.rows or None,  # 0 where a marker behind the first scan tells
        columns=found.columns,
        samples=samples,
        bits=found.bits,
        # What was given to the lossless processes may have been signed; the others and colours are not.
        is_signed=False if samples > 1 or found.process in {_BASELINE, _EXTENDED} else None,
        photometric_interpretation="MONOCHROME2" if samples == 1 else photometric_interpretation,
    )


def _photometric_interpretation(found: _Found) -> str:
    """Tell what three components are: by Adobe's segment, by their names, by the process (PS3.5 §8.2.1)."""
    if len(found.components) != 9:
        return ""
    if found.adobe_transform == 0 or bytes(found.components[::3]) == b"RGB":
        return "RGB"
    if found.process == _LOSSLESS and not found.adobe_transform:
        return "RGB"
    is_subsampled = found.components[1] != found.components[4]
    return "YBR_FULL_422" if is_subsampled else "YBR_FULL"


def _read(header: Header) -> _Found:
    if header.some_at(0, 2) != _START_OF_IMAGE:
        raise unreadable("it does not begin as JPEG and JPEG-LS do")
    found = _Found()
    for marker, at, length in _segments(header):
        if marker in _FRAMES:
            if found.process:
                raise not_taken("an image is hierarchical JPEG, which is not taken")
            found.process = marker
            found.bits = header.number_at(at, 1)
            found.rows = header.number_at(at + 1, 2)
            found.columns = header.number_at(at + 3, 2)
            count = header.number_at(at + 5, 1)
            found.components = header.bytes_at(at + 6, 3 * count)
            if length < 6 + 3 * count or not count or not found.columns or not 2 <= found.bits <= 16:
                raise unreadable("its frame header is damaged")
        elif marker == _ADOBE and length >= 12 and header.bytes_at(at, 5) == b"Adobe":
            found.adobe_transform = header.number_at(at + 11, 1)
        elif marker == _SCAN:
            count = header.number_at(at, 1)
            if not found.process or length < 4 + 2 * count:
                raise unreadable("its scan begins before its frame does")
            found.selection = header.number_at(at + 1 + 2 * count, 1)
            return found
    raise unreadable("it has no scan")


def _segments(header: Header) -> Iterator[tuple[int, int, int]]:
    """Give the marker segments: marker, offset and length of what it holds."""
    at = 2
    for _ in range(MARKERS_MAX):
        if header.number_at(at, 1) != 0xFF:
            raise unreadable("something else stands where a marker belongs")
        marker = header.number_at(at + 1, 1)
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        length = header.number_at(at + 2, 2)
        if length < 2:
            raise unreadable("a marker segment is shorter than its own length")
        yield marker, at + 4, length - 2
        at += 2 + length
    raise unreadable(f"it has more than {MARKERS_MAX} marker segments")
