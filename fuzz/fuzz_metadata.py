"""Metadata of store requests from anyone, in DICOM JSON and Native DICOM XML, and instances built of them.

What begins with `<` is read as XML, the rest as JSON. What is read is built with one part of bulk data; the corpus is in
`corpus/metadata`. Nothing but the errors that the rooms name may come, and a built data set is read to its end by our own scanner.
"""

import io
import re
import sys

from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.services.building.bulk_parts import BulkPart, BulkParts
from stowkeeper.services.building.errors import BuildError
from stowkeeper.services.building.instances import build_instance, name_instance
from stowkeeper.stow.json_model import read_json_model
from stowkeeper.stow.media_types import OCTET_STREAM, MediaType
from stowkeeper.stow.metadata import InstanceMetadata, MetadataError
from stowkeeper.stow.native_model import NativeModelReader

WORDS = re.compile(r"[\x20-\x7e]+")
"""Words about metadata repeat nothing of them: they are plain text."""
INSTANCES_MAX = 20


def target(data: bytes) -> None:
    """Raise only on a defect of ours."""
    bulk = BulkPart(
        content_location="here",
        media_type=MediaType(OCTET_STREAM, {}),
        file=io.BytesIO(bytes(64)),
        length=64,
    )
    try:
        for count, metadata in enumerate(read(data)):
            build(metadata, BulkParts([bulk]))
            if count == INSTANCES_MAX:
                break
    except MetadataError as error:
        words = str(error)
    else:
        return
    assert WORDS.fullmatch(words), words


def read(data: bytes):
    """Give the instances of either model."""
    if not data.lstrip().startswith(b"<"):
        yield from read_json_model(data)
        return
    reader = NativeModelReader()
    for start in range(0, len(data), 100):
        reader.feed(data[start : start + 100])
    yield reader.finish()


def build(metadata: InstanceMetadata, parts: BulkParts) -> None:
    """Build an instance, and read what comes of it."""
    named = name_instance(metadata.data_set)
    assert len(named.sop_instance_uid) <= 64
    assert not metadata.defect or WORDS.fullmatch(metadata.defect), metadata.defect
    words = ""
    try:
        built = build_instance(metadata, parts)
    except BuildError as error:
        words = error.words
        built = None
    if built is None:
        assert WORDS.fullmatch(words), words
        return
    scanner = HeaderScanner(built.transfer_syntax_uid, frozenset({0x00080018}))
    for piece in built.pieces:
        scanner.feed(memoryview(piece))
    scan = scanner.finish()
    assert scan.problem is None, scan.problem


def main() -> None:
    try:
        import atheris  # noqa: PLC0415 - the corpus is replayed without it
    except ImportError:
        sys.exit("This fuzzer needs atheris: pip install atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
