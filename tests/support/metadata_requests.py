"""Instances as a metadata store request brings them: DICOM JSON by pydicom, Native DICOM XML by a writer of its own, and parts."""

import base64
import io
import json
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from stowkeeper.dicom.part10 import (
    FILE_META_INFORMATION_VERSION,
    IMPLEMENTATION_CLASS_UID,
    MEDIA_STORAGE_SOP_CLASS_UID,
    MEDIA_STORAGE_SOP_INSTANCE_UID,
    PREFIX,
    TRANSFER_SYNTAX_UID,
    encode_file_meta,
)
from stowkeeper.services.building.bulk_parts import BulkPart, BulkParts
from stowkeeper.services.building.frame_media import media_type_of
from stowkeeper.services.building.instances import BuiltInstance, build_instance
from stowkeeper.stow.json_model import read_json_model
from stowkeeper.stow.media_types import MediaType
from stowkeeper.stow.metadata import InstanceMetadata
from stowkeeper.stow.native_model import NATIVE_MODEL_NAMESPACE, NativeModelReader

BULK_BYTES = 256
"""Values of more bytes go into parts of their own."""
PIXEL_DATA = 0x7FE00010
NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})


@dataclass
class Request:
    """Metadata and bulk data of one instance."""

    metadata: str = ""
    parts: list[BulkPart] = field(default_factory=list)
    pixels: str = ""
    """Where compressed pixel data are, '' where there are none."""

    def add(
        self, value: bytes, location: str, media_type: str = "application/octet-stream", **parameters: str
    ) -> str:
        """Add a part, and return its location."""
        self.parts.append(bulk_part(value, location, media_type, **parameters))
        return location

    def add_bulk(self, element: DataElement) -> str:
        """Add the value of an element as pydicom's `bulk_data_element_handler` does."""
        return self.add(element.value, f"bulk/{len(self.parts)}")


def bulk_part(
    value: bytes, location: str = "here", media_type: str = "application/octet-stream", **parameters: str
) -> BulkPart:
    named = {name.replace("_", "-"): text for name, text in parameters.items()}
    return BulkPart(
        content_location=location,
        media_type=MediaType(media_type, named),
        file=io.BytesIO(value),
        length=len(value),
    )


def frames_of(source: Dataset) -> list[bytes]:
    """Return the encapsulated frames of an instance."""
    count = int(source.get("NumberOfFrames", 1) or 1)
    return list(generate_frames(source.PixelData, number_of_frames=count))


def as_request(source: Dataset, write: Callable[[Dataset, Request], str]) -> Request:
    """Take an instance apart. Its pixel data are parts of their own media type, one for each frame."""
    request = Request()
    syntax = source.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and PIXEL_DATA in source:
        frames = frames_of(source)
        source = deepcopy(source)
        del source[PIXEL_DATA]
        request.pixels = "at:pixels"
        for frame in frames:
            request.add(frame, request.pixels, media_type_of(syntax), transfer_syntax=syntax)
    request.metadata = write(source, request)
    return request


def as_json(source: Dataset, request: Request) -> str:
    """Write DICOM JSON."""
    elements = source.to_json_dict(BULK_BYTES, request.add_bulk)
    if request.pixels:
        elements["7FE00010"] = {"vr": "OB", "BulkDataURI": request.pixels}
    return json.dumps([elements])


def as_xml(source: Dataset, request: Request) -> str:
    """Write a Native DICOM Model."""
    elements = "".join(_attributes(source, request))
    if request.pixels:
        elements += (
            f'<DicomAttribute tag="7FE00010" vr="OB"><BulkData uri="{request.pixels}"/></DicomAttribute>'
        )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{NATIVE_MODEL_NAMESPACE}">{elements}</NativeDicomModel>'


def _attributes(data_set: Dataset, request: Request) -> Iterator[str]:
    for element in data_set:
        private = ""
        tag = int(element.tag)
        if element.tag.is_private and not element.tag.is_private_creator:
            creator = data_set.get((element.tag.group, element.tag.element >> 8))
            if creator is not None and isinstance(creator.value, str):
                private = f" privateCreator={quoteattr(creator.value)}"
        head = f'<DicomAttribute tag="{tag:08X}" vr="{element.VR}" keyword="{element.keyword}"{private}>'
        yield f"{head}{''.join(_values(element, request))}</DicomAttribute>"


def _values(element: DataElement, request: Request) -> Iterator[str]:
    value: Any = element.value
    if element.VR == "SQ":
        for number, item in enumerate(value, 1):
            yield f'<Item number="{number}">{"".join(_attributes(item, request))}</Item>'
    elif element.VR in BINARY_VRS:
        if value and len(value) > BULK_BYTES:
            yield f"<BulkData uri={quoteattr(request.add_bulk(element))}/>"
        elif value:
            yield f"<InlineBinary>{base64.b64encode(value).decode()}</InlineBinary>"
    elif not element.is_empty:
        values: Iterable[Any] = value if isinstance(value, MultiValue | list) else [value]
        for number, one in enumerate(values, 1):
            if isinstance(one, PersonName):
                yield f'<PersonName number="{number}">{_name(one)}</PersonName>'
            else:
                yield f'<Value number="{number}">{_escaped(_text(element.VR, one))}</Value>'


def _escaped(text: str) -> str:
    return escape(text, {"\r": "&#13;"})  # a parser makes line feeds of the others


def _name(name: PersonName) -> str:
    groups = []
    for group, text in zip(NAME_GROUPS, str(name).split("="), strict=False):
        parts = zip(NAME_PARTS, text.split("^"), strict=False)
        groups.append(
            f"<{group}>{''.join(f'<{part}>{escape(one)}</{part}>' for part, one in parts)}</{group}>"
        )
    return "".join(groups)


def _text(vr: str, value: Any) -> str:
    if vr == "AT":
        return f"{int(value):08X}"
    return getattr(value, "original_string", None) or str(value)


def read_json(text: str | bytes) -> InstanceMetadata:
    (metadata,) = read_json_model(text.encode() if isinstance(text, str) else text)
    return metadata


def read_xml(text: str | bytes) -> InstanceMetadata:
    reader = NativeModelReader()
    reader.feed(text.encode() if isinstance(text, str) else text)
    return reader.finish()


READERS = {"json": (as_json, read_json), "xml": (as_xml, read_xml)}
"""How an instance is taken apart and read again, by the name of the form."""


def build(metadata: InstanceMetadata, parts: Iterable[BulkPart] = ()) -> tuple[BuiltInstance, bytes]:
    """Build an instance, and return it with its data set."""
    built = build_instance(metadata, BulkParts(parts))
    return built, b"".join(built.pieces)


def part10(built: BuiltInstance, data_set: bytes) -> bytes:
    """Return the file that an instance makes."""
    return (
        PREFIX
        + encode_file_meta(
            [
                (FILE_META_INFORMATION_VERSION, b"OB", b"\0\1"),
                (MEDIA_STORAGE_SOP_CLASS_UID, b"UI", built.sop_class_uid.encode()),
                (MEDIA_STORAGE_SOP_INSTANCE_UID, b"UI", built.sop_instance_uid.encode()),
                (TRANSFER_SYNTAX_UID, b"UI", built.transfer_syntax_uid.encode()),
                (IMPLEMENTATION_CLASS_UID, b"UI", b"2.25.1"),
            ]
        )
        + data_set
    )


def rebuilt(source: Dataset, form: str) -> tuple[BuiltInstance, bytes, Dataset]:
    """Take an instance apart, build it again, and return also what pydicom reads of it."""
    write, read = READERS[form]
    request = as_request(source, write)
    built, data_set = build(read(request.metadata), request.parts)
    return built, data_set, dcmread(io.BytesIO(part10(built, data_set)))


def identifiers(**others: Any) -> dict[str, Any]:
    """Return the DICOM JSON of an instance with no more than its identifiers, and `others`, whose names begin with "t"."""
    return {
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.7"]},
        "00080018": {"vr": "UI", "Value": ["1.2.3.4"]},
        "0020000D": {"vr": "UI", "Value": ["1.2.3.5"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3.6"]},
        **{name[1:]: element for name, element in others.items()},
    }


def description(
    rows: int = 2, columns: int = 2, *, frames: int | None = None, bits: int = 8
) -> dict[str, Any]:
    """Return the DICOM JSON of elements that describe gray pixels."""
    numbers = {
        "00280002": 1,
        "00280010": rows,
        "00280011": columns,
        "00280100": bits,
        "00280101": bits,
        "00280102": bits - 1,
        "00280103": 0,
    }
    elements: dict[str, Any] = {f"t{tag}": {"vr": "US", "Value": [number]} for tag, number in numbers.items()}
    elements["t00280004"] = {"vr": "CS", "Value": ["MONOCHROME2"]}
    if frames is not None:
        elements["t00280008"] = {"vr": "IS", "Value": [frames]}
    return elements


def box(kind: bytes, *content: bytes) -> bytes:
    """Return a box of a file of MPEG-4 or JPEG 2000."""
    whole = b"".join(content)
    return struct.pack(">I4s", 8 + len(whole), kind) + whole


def mpeg_4_file(
    entry: bytes, configuration: bytes, *, rows: int = 480, columns: int = 640, frames: int = 25
) -> bytes:
    """Return a file of MPEG-4 with a video track that says what it is, and no pictures."""
    sample = bytes(24) + struct.pack(">HH", columns, rows) + bytes(50) + configuration
    table = box(
        b"stbl",
        box(b"stsd", bytes(4), struct.pack(">I", 1), box(entry, sample)),
        box(b"stsz", bytes(8), struct.pack(">I", frames)),
    )
    sound = box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"soun", bytes(12)), box(b"minf", box(b"stbl"))))
    video = box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"vide", bytes(12)), box(b"minf", table)))
    return box(b"ftyp", b"isom", bytes(4)) + box(b"mdat", bytes(100)) + box(b"moov", sound, video)


def mpeg_2_stream(*, level: int = 8, rows: int = 480, columns: int = 640) -> bytes:
    """Return the beginning of a video in MPEG-2, Main profile."""
    size = (columns << 12 | rows).to_bytes(3, "big")
    indication = 4 << 4 | level
    extension = bytes((0x10 | indication >> 4, (indication & 0x0F) << 4, 0))
    return b"\0\0\1\xb3" + size + bytes(5) + b"\0\0\1\xb5" + extension + bytes(3)


def spooled(content: bytes, length: int) -> BulkPart:
    """Return a part of `length` bytes that begins with `content`, in a file that takes no room on the disk."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content)
    file.truncate(length)
    return BulkPart(content_location="here", media_type=MediaType("video/mpeg", {}), file=file, length=length)
