"""pydicom's bundled test files: real and odd instances to send, cut into file meta and data set without any library."""

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pydicom

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"

_LONG_VRS = frozenset(
    {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledFile:
    """One Part 10 file: what its file meta says, and its data set as it lies in the file."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes

    @property
    def name(self) -> str:
        """Return its name within the folder."""
        return self.path.relative_to(FOLDER).as_posix()


@cache
def bundled_files() -> tuple[BundledFile, ...]:
    """Return every file with file meta that names its class, its instance and its transfer syntax."""
    found = []
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            meta, start = file_meta(content)
            if all(tag in meta for tag in (0x00020002, 0x00020003, 0x00020010)):
                found.append(
                    BundledFile(
                        path=path,
                        sop_class_uid=_uid(meta[0x00020002]),
                        sop_instance_uid=_uid(meta[0x00020003]),
                        transfer_syntax_uid=_uid(meta[0x00020010]),
                        data_set=content[start:],
                    )
                )
    return tuple(found)


def file_meta(content: bytes) -> tuple[dict[int, bytes], int]:
    """Return the elements of group 0002 of a Part 10 file, and where its data set begins; none for other files."""
    elements: dict[int, bytes] = {}
    at = 132
    if content[128:132] != b"DICM":
        return elements, 0
    while content[at : at + 2] == b"\2\0":
        group, element, vr, length = struct.unpack_from("<HH2sH", content, at)
        at += 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", content, at)
            at += 4
        elements[group << 16 | element] = content[at : at + length]
        at += length
    return elements, at


def data_set_of_file(path: Path) -> bytes:
    """Return the data set of a Part 10 file as it lies there."""
    content = path.read_bytes()
    return content[file_meta(content)[1] :]


def _uid(value: bytes) -> str:
    return value.decode("ascii").rstrip("\0 ")
