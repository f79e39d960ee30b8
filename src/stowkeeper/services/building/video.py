"""The headers of the videos that DICOM has: MPEG-2, MPEG-4 AVC/H.264 and HEVC/H.265 (PS3.5 §8.2.5 to §8.2.8).

They come bare or in a file of MPEG-4, and are kept unchanged. What tells the transfer syntax are profile and level.
"""

import re
from typing import Final

from stowkeeper.dicom.transfer_syntaxes import (
    HEVC_M10P51,
    HEVC_MP51,
    MPEG2_MPHL,
    MPEG2_MPHL_FRAGMENTABLE,
    MPEG2_MPML,
    MPEG2_MPML_FRAGMENTABLE,
    MPEG4_HP41,
    MPEG4_HP41_BD,
    MPEG4_HP41_BD_FRAGMENTABLE,
    MPEG4_HP41_FRAGMENTABLE,
    MPEG4_HP42_2D,
    MPEG4_HP42_2D_FRAGMENTABLE,
    MPEG4_HP42_3D,
    MPEG4_HP42_3D_FRAGMENTABLE,
    MPEG4_HP42_STEREO,
    MPEG4_HP42_STEREO_FRAGMENTABLE,
)
from stowkeeper.services.building.bitstreams import Bitstream, not_taken, unreadable
from stowkeeper.services.building.boxes import Box, box_in, boxes
from stowkeeper.services.building.bulk_parts import BulkPart
from stowkeeper.services.building.limits import SEARCHED_BYTES_MAX

_MAIN: Final = (MPEG2_MPML, MPEG2_MPML_FRAGMENTABLE)
_HIGH: Final = (MPEG2_MPHL, MPEG2_MPHL_FRAGMENTABLE)
_LEVEL_4_1: Final = (
    MPEG4_HP41,
    MPEG4_HP41_FRAGMENTABLE,
    MPEG4_HP41_BD,
    MPEG4_HP41_BD_FRAGMENTABLE,
)
_LEVEL_4_2: Final = (
    MPEG4_HP42_2D,
    MPEG4_HP42_2D_FRAGMENTABLE,
    MPEG4_HP42_3D,
    MPEG4_HP42_3D_FRAGMENTABLE,
)
_STEREO: Final = (MPEG4_HP42_STEREO, MPEG4_HP42_STEREO_FRAGMENTABLE)
_SEQUENCE: Final = b"\0\0\1\xb3"
_SEQUENCE_EXTENSION: Final = b"\0\0\1\xb5"
_PROFILES_OF_H264: Final = frozenset({66, 77, 100})
_STEREO_PROFILES: Final = frozenset({118, 128})
_START_CODE: Final = re.compile(rb"\x00\x00\x01")
_EMULATION: Final = re.compile(rb"\x00\x00\x03")


def read_mpeg_2(part: BulkPart) -> Bitstream:
    """Read what `video/mpeg` may be, bare or in a program or transport stream. Raises BuildError."""
    head = part.read(0, SEARCHED_BYTES_MAX)
    at = head.find(_SEQUENCE)
    extension = head.find(_SEQUENCE_EXTENSION, at)
    if at < 0 or len(head) < at + 8:
        raise unreadable("it has no sequence header of MPEG-2")
    if extension < 0 or len(head) < extension + 7 or head[extension + 4] >> 4 != 1:
        raise not_taken("a video is MPEG-1, which is not taken; MPEG-2, MPEG-4 AVC/H.264 and HEVC are")
    columns = head[at + 4] << 4 | head[at + 5] >> 4
    rows = (head[at + 5] & 0x0F) << 8 | head[at + 6]
    indication = (head[extension + 4] & 0x0F) << 4 | head[extension + 5] >> 4
    columns |= ((head[extension + 5] & 0x01) << 1 | head[extension + 6] >> 7) << 12
    rows |= (head[extension + 6] >> 5 & 0x03) << 12
    profile, level = indication >> 4 & 0x07, indication & 0x0F
    if profile not in {4, 5} or level not in {4, 6, 8, 10}:
        raise not_taken("a video is MPEG-2 of another profile than Main, which is not taken")
    syntaxes = _MAIN + _HIGH if level >= 8 else _HIGH
    return _bitstream(part, syntaxes, rows, columns)


def read_mpeg_4(part: BulkPart) -> Bitstream:
    """Read what `video/mp4` may be. Raises BuildError."""
    return _read_mpeg_4(part, "H.264")


def read_hevc(part: BulkPart) -> Bitstream:
    """Read what `video/H265` may be. Raises BuildError."""
    return _read_mpeg_4(part, "HEVC")


def _read_mpeg_4(part: BulkPart, bare: str) -> Bitstream:
    """Read a file of MPEG-4, or the bare stream that the media type says."""
    if part.read(4, 4) in {b"ftyp", b"moov", b"free", b"skip", b"wide", b"mdat"}:
        return _read_file(part)
    head = part.read(0, SEARCHED_BYTES_MAX)
    for code in _START_CODE.finditer(head):
        unit = _EMULATION.sub(b"\0\0", head[code.end() : code.end() + 64])
        if bare == "H.264" and len(unit) >= 4 and unit[0] & 0x1F == 7:
            return _bitstream(part, _syntaxes_of_h264(unit[1], unit[3]))
        if bare == "HEVC" and len(unit) >= 15 and unit[0] >> 1 & 0x3F == 33:
            return _hevc(part, unit[3] & 0x1F, unit[14])
    raise unreadable(f"it is neither a file of MPEG-4 nor a stream of {bare} that says what it is")


def _read_file(part: BulkPart) -> Bitstream:
    whole = Box(b"", 0, part.length)
    movie = box_in(part, whole, b"moov")
    tracks = (
        [] if movie is None else [box for box in boxes(part, movie.begin, movie.end) if box.kind == b"trak"]
    )
    for track in tracks:
        handler = box_in(part, track, b"mdia", b"hdlr")
        table = box_in(part, track, b"mdia", b"minf", b"stbl")
        if handler is None or table is None or part.read(handler.begin + 8, 4) != b"vide":
            continue
        frames = None
        sizes = box_in(part, table, b"stsz")
        if sizes is not None:
            frames = int.from_bytes(part.read(sizes.begin + 8, 4), "big") or None
        return _read_description(part, box_in(part, table, b"stsd"), frames)
    raise unreadable("the file of MPEG-4 has no video track")


def _read_description(part: BulkPart, description: Box | None, frames: int | None) -> Bitstream:
    """Read the sample entry of a video track (ISO/IEC 14496-12 §12.1.3, ISO/IEC 14496-15 §5.4)."""
    if description is not None:
        for entry in boxes(part, description.begin + 8, description.end):
            size = part.read(entry.begin + 24, 4)
            columns, rows = int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
            inner = Box(entry.kind, entry.begin + 78, entry.end)
            if entry.kind in {b"avc1", b"avc3"}:
                said = _configuration(part, inner, b"avcC", 4)
                return _bitstream(part, _syntaxes_of_h264(said[1], said[3]), rows, columns, frames)
            if entry.kind in {b"hvc1", b"hev1"}:
                said = _configuration(part, inner, b"hvcC", 13)
                return _hevc(part, said[1] & 0x1F, said[12], rows, columns, frames)
    raise not_taken("a file of MPEG-4 holds another video than MPEG-4 AVC/H.264 or HEVC/H.265")


def _configuration(part: BulkPart, entry: Box, kind: bytes, count: int) -> bytes:
    box = box_in(part, entry, kind)
    said = b"" if box is None else part.read(box.begin, min(count, box.end - box.begin))
    if len(said) < count:
        raise unreadable("the file of MPEG-4 does not say how its video is coded")
    return said


def _syntaxes_of_h264(profile: int, level: int) -> tuple[str, ...]:
    if profile in _STEREO_PROFILES and level <= 42:
        return _STEREO
    if profile in _PROFILES_OF_H264 and level <= 41:
        return _LEVEL_4_1 + _LEVEL_4_2
    if profile in _PROFILES_OF_H264 and level <= 42:
        return _LEVEL_4_2
    raise not_taken(
        "a video is MPEG-4 AVC/H.264 of a profile or level that no transfer syntax is for: they end at High 4.2"
    )


def _hevc(
    part: BulkPart,
    profile: int,
    level: int,
    rows: int | None = None,
    columns: int | None = None,
    frames: int | None = None,
) -> Bitstream:
    if profile not in {1, 2} or level > 153:
        raise not_taken(
            "a video is HEVC/H.265 of a profile or level that no transfer syntax is for: they end at Main 10 5.1"
        )
    syntaxes = (HEVC_MP51, HEVC_M10P51) if profile == 1 else (HEVC_M10P51,)
    return _bitstream(part, syntaxes, rows, columns, frames, bits=8 if profile == 1 else 10)


def _bitstream(
    part: BulkPart,
    transfer_syntaxes: tuple[str, ...],
    rows: int | None = None,
    columns: int | None = None,
    frames: int | None = None,
    bits: int = 8,
) -> Bitstream:
    return Bitstream(
        transfer_syntaxes=transfer_syntaxes,
        begin=0,
        length=part.length,
        rows=rows or None,
        columns=columns or None,
        samples=3,
        bits=bits,
        is_signed=False,
        photometric_interpretation="YBR_PARTIAL_420",
        frames=frames,
    )
