"""A body of metadata and bulk data, laid down in files without names until it is whole: only then instances can be built of it.

The metadata come first, and say what the parts behind them are for; a part may be referred to by any instance. So all of it has to
be there. In memory are places and names alone. The files vanish with the process, whatever ends it.
"""

import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from stowkeeper.services.building.bulk_parts import BulkPart, BulkParts
from stowkeeper.services.store_request_limits import (
    SPOOL_WRITE_BYTES,
    SPOOLED_NAMES_LETTERS_MAX,
)
from stowkeeper.stow.json_model import read_json_model
from stowkeeper.stow.limits_of_metadata import XML_PIECE_BYTES
from stowkeeper.stow.media_types import (
    DICOM_JSON,
    DICOM_XML,
    OCTET_STREAM,
    MediaType,
    StoreBody,
    StoreForm,
    encoding_defect,
    parse_media_type,
)
from stowkeeper.stow.metadata import InstanceMetadata, MetadataError
from stowkeeper.stow.multipart_reader import Event, PartBegan, PartData
from stowkeeper.stow.native_model import NativeModelReader


class SpoolError(Exception):
    """The disk has no room for the body, or cannot be written; the text says so."""


@dataclass(slots=True, kw_only=True)
class _Opened:
    """The part that is being read. With a `defect` its bytes are passed over."""

    number: int
    is_metadata: bool
    content_location: str
    media_type: MediaType
    offset: int
    length: int = 0
    defect: str = ""


class SpooledBody:
    """Lays down one body in a file of a folder. `take` its events, then read `metadata` with `bulk_parts`, then `close`.

    All of it waits for the disk; to begin raises SpoolError. `refusal` says why nothing can be laid down now, '' where it can. `defects` are
    words about parts that mean nothing.
    """

    def __init__(
        self,
        folder: str,
        body: StoreBody,
        *,
        refusal: Callable[[], str],
        part_bytes_max: int,
        parts_max: int,
    ) -> None:
        self._body = body
        self._refusal = refusal
        self._part_bytes_max = part_bytes_max
        self._parts_max = parts_max
        try:
            self._file: BinaryIO = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - `close` does
        except OSError as error:
            raise _spool_error(error) from error
        self._unwritten = bytearray()
        self._end = 0
        self._count = 0
        self._names_letters = 0
        self._open: _Opened | None = None
        self._metadata: list[tuple[int, int]] = []
        self._bulk: list[BulkPart] = []
        self.defects: list[str] = []

    def take(self, event: Event) -> None:
        """Take what the reader found. Raises SpoolError."""
        if isinstance(event, PartBegan):
            self._begin(event.fields, event.defect)
        elif isinstance(event, PartData):
            self._write(event.data)
        else:
            self._end_part()

    def give_up_open(self, words: str) -> None:
        """Forget the part that is being read: it did not come whole."""
        opened, self._open = self._open, None
        if opened is not None:
            self.defects.append(f"part {opened.number}: {opened.defect or words}")

    def _begin(self, fields: Mapping[str, str], defect: str) -> None:
        self._count += 1
        if self._count > self._parts_max:  # passed over, and told once: there may be millions
            if self._count == self._parts_max + 1:
                self.defects.append(f"a request may have {self._parts_max} parts: send the others in another")
            return
        media_type, words = _media_type_of(fields)
        words = encoding_defect(fields) or words
        content_location = fields.get("content-location", "")
        self._names_letters += len(content_location) + len(fields.get("content-type", ""))
        if self._names_letters > SPOOLED_NAMES_LETTERS_MAX:
            content_location, media_type = "", MediaType("", {})
            words = f"the places and types of all parts have more than {SPOOLED_NAMES_LETTERS_MAX} letters together"
        is_metadata = self._is_metadata(fields, media_type)
        if is_metadata and self._body.form is StoreForm.JSON and self._metadata:
            words = "there are metadata in another part already"
        words = defect or words
        if is_metadata and self._body.form is StoreForm.JSON and not words:
            # It is mapped, and mappings begin at a page.
            gap = -self._end % mmap.ALLOCATIONGRANULARITY
            self._unwritten += bytes(gap)
            self._end += gap
        self._open = _Opened(
            number=self._count,
            is_metadata=is_metadata,
            content_location=content_location,
            media_type=media_type,
            offset=self._end,
            defect=words,
        )

    def _is_metadata(self, fields: Mapping[str, str], media_type: MediaType) -> bool:
        """Tell whether a part is metadata: by its type; one without a type is if it is the root (RFC 2387 §3.2)."""
        wanted = DICOM_JSON if self._body.form is StoreForm.JSON else DICOM_XML
        if "content-type" in fields:
            return media_type.name == wanted
        start = self._body.start.strip("<>")
        return fields.get("content-id", "").strip("<> ") == start if start else self._count == 1

    def _write(self, data: memoryview) -> None:
        opened = self._open
        if opened is None or opened.defect:
            return
        opened.length += len(data)
        if 0 < self._part_bytes_max < opened.length:
            opened.defect = f"it is longer than the {self._part_bytes_max} bytes that one part may have"
            return
        self._unwritten += data
        self._end += len(data)
        if len(self._unwritten) >= SPOOL_WRITE_BYTES:
            self._flush()

    def _end_part(self) -> None:
        opened, self._open = self._open, None
        if opened is None:
            return
        if opened.defect:
            self.defects.append(f"part {opened.number}: {opened.defect}")
        elif opened.is_metadata:
            self._metadata.append((opened.offset, opened.length))
        else:
            self._bulk.append(
                BulkPart(
                    content_location=opened.content_location,
                    media_type=opened.media_type,
                    file=self._file,
                    length=opened.length,
                    offset=opened.offset,
                )
            )

    def _flush(self) -> None:
        words = self._refusal()
        if words:
            raise SpoolError(words)
        data, self._unwritten = bytes(self._unwritten), bytearray()
        try:
            self._write_all(data)
        except OSError as error:
            raise _spool_error(error) from error

    def _write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    # When it is whole.

    def finish(self) -> None:
        """Lay down what is left of it. Raises SpoolError."""
        if self._unwritten:
            self._flush()

    def bulk_parts(self) -> BulkParts:
        """Return its bulk data."""
        return BulkParts(self._bulk)

    def metadata(self) -> Iterator[InstanceMetadata]:
        """Give the metadata of each instance. Raises MetadataError, OSError."""
        for offset, length in self._metadata:
            if self._body.form is StoreForm.XML:
                yield self._read_xml(offset, length)
            elif length:
                yield from self._read_json(offset, length)

    def _read_xml(self, offset: int, length: int) -> InstanceMetadata:
        """Read one document. Where that fails it is a defect of its instance, and spares the others."""
        reader = NativeModelReader()
        part = BulkPart(
            content_location="",
            media_type=MediaType(DICOM_XML, {}),
            file=self._file,
            length=length,
            offset=offset,
        )
        at = 0
        try:
            while piece := part.read(at, XML_PIECE_BYTES):
                reader.feed(piece)
                at += len(piece)
            return reader.finish()
        except MetadataError as error:
            return InstanceMetadata(data_set={}, defect=str(error))

    def _read_json(self, offset: int, length: int) -> Iterator[InstanceMetadata]:
        with mmap.mmap(self._file.fileno(), length, offset=offset, access=mmap.ACCESS_READ) as text:
            yield from read_json_model(text)

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()


def _spool_error(error: OSError) -> SpoolError:
    return SpoolError(f"the body cannot be laid down: {error.strerror}")


def _media_type_of(fields: Mapping[str, str]) -> tuple[MediaType, str]:
    """Return the type of a part, and what is wrong with it."""
    text = fields.get("content-type", "")
    if not text:
        return MediaType(OCTET_STREAM, {}), ""
    try:
        return parse_media_type(text), ""
    except ValueError as error:
        return MediaType("", {}), f"its Content-Type cannot be read: {error}"
