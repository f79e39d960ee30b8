"""The headers of JPEG 2000 and of its high throughput form (ITU-T T.800 §A, ITU-T T.814 §A).

A codestream may be wrapped in the boxes of a file (JP2, JPX, JPH). What is encapsulated is the codestream alone (PS3.5 §8.2.4).
"""

from typing import Final

from stowkeeper.dicom.transfer_syntaxes import (
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_2000_MULTI_COMPONENT,
    JPEG_2000_MULTI_COMPONENT_LOSSLESS,
)
from stowkeeper.services.building.bitstreams import Bitstream, Header, unreadable
from stowkeeper.services.building.boxes import boxes
from stowkeeper.services.building.bulk_parts import BulkPart
from stowkeeper.services.building.limits import COMPONENTS_MAX, MARKERS_MAX

_SIGNATURE_BOX: Final = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_START: Final = b"\xff\x4f\xff\x51"
_CODING_STYLE: Final = 0xFF52
_CAPABILITIES: Final = 0xFF50
_START_OF_TILE: Final = 0xFF90
_HIGH_THROUGHPUT: Final = 1 << 17
"""The bit of the capabilities that says that Part 15 is used."""


def read_jpeg_2000(part: BulkPart) -> Bitstream:
    """Read what `image/jp2` may be. Raises BuildError."""
    return _read(part, (JPEG_2000_LOSSLESS, JPEG_2000), is_high_throughput=False)


def read_jpeg_2000_multi_component(part: BulkPart) -> Bitstream:
    """Read what `image/jpx` may be. Raises BuildError."""
    syntaxes = (JPEG_2000_MULTI_COMPONENT_LOSSLESS, JPEG_2000_MULTI_COMPONENT)
    return _read(part, syntaxes, is_high_throughput=False)


def read_high_throughput_jpeg_2000(part: BulkPart) -> Bitstream:
    """Read what `image/jphc` may be. Raises BuildError."""
    return _read(part, (HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K), is_high_throughput=True)


def _read(part: BulkPart, syntaxes: tuple[str, ...], *, is_high_throughput: bool) -> Bitstream:
    """Read a codestream. The last of `syntaxes` is the one in which samples may have been lost."""
    begin, length = _codestream(part)
    header = Header(part, begin)
    if header.some_at(0, 4) != _START:
        raise unreadable("it is neither a codestream of JPEG 2000 nor a file with one")
    width, height, left, top = (header.number_at(8 + 4 * place, 4) for place in range(4))
    samples = header.number_at(40, 2)
    if not 1 <= samples <= COMPONENTS_MAX or width <= left or height <= top:
        raise unreadable("its size is none")
    depth = header.number_at(42, 1)
    has_high_throughput, is_transformed, is_reversible = _coding(header)
    if has_high_throughput != is_high_throughput:
        kind, other = ("high throughput", "image/jphc") if has_high_throughput else ("plain", "image/jp2")
        raise unreadable(f"it is {kind} JPEG 2000, whose media type is {other}")
    photometric_interpretation = ""
    if samples == 1:
        photometric_interpretation = "MONOCHROME2"
    elif samples == 3 and is_transformed:
        photometric_interpretation = "YBR_RCT" if is_reversible else "YBR_ICT"
    elif samples == 3:
        photometric_interpretation = "RGB"
    return Bitstream(
        transfer_syntaxes=syntaxes if is_reversible else syntaxes[-1:],
        begin=begin,
        length=length,
        rows=height - top,
        columns=width - left,
        samples=samples,
        bits=(depth & 0x7F) + 1,
        is_signed=bool(depth & 0x80),
        photometric_interpretation=photometric_interpretation,
    )


def _codestream(part: BulkPart) -> tuple[int, int]:
    """Return offset and length of the codestream in its part."""
    if Header(part).some_at(0, 12) != _SIGNATURE_BOX:
        return 0, part.length
    found = [box for box in boxes(part, 0, part.length) if box.kind == b"jp2c"]
    if len(found) != 1:
        raise unreadable(f"the file has {len(found)} codestreams, and each frame is a part of its own")
    return found[0].begin, found[0].end - found[0].begin


def _coding(header: Header) -> tuple[bool, bool, bool]:
    """Tell whether the code is high throughput, the components are transformed, and the wavelet is reversible."""
    has_high_throughput = False
    at = 2
    for _ in range(MARKERS_MAX):
        marker, length = header.number_at(at, 2), header.number_at(at + 2, 2)
        if marker == _START_OF_TILE or marker < 0xFF00 or length < 2:
            break
        if marker == _CAPABILITIES:
            has_high_throughput = bool(header.number_at(at + 4, 4) & _HIGH_THROUGHPUT)
        elif marker == _CODING_STYLE and length >= 12:
            return has_high_throughput, header.number_at(at + 8, 1) == 1, header.number_at(at + 13, 1) == 1
        at += 2 + length
    raise unreadable("it does not say how it is coded")
