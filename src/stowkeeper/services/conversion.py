"""The outgoing copy of a data set in a transfer syntax that its file is not in.

Possible between the uncompressed transfer syntaxes of the standard, and from lossless compression to uncompressed
where a decoder is installed. Nothing is compressed, nothing that was compressed with loss is decompressed, SOP
Instance UIDs stay, and the file is only read.
"""

import io
import os
import shlex
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, BinaryIO, Final

from stowkeeper.dicom.limits import INFLATED_BYTES_MAX
from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    TRANSFER_SYNTAXES,
)
from stowkeeper.services.limits import CONVERSION_PIECE_BYTES, DECODER_WORDS_LETTERS_MAX
from stowkeeper.services.reencoding import ConversionError, Layout, NativePixelData, Reencoding

CONVERSION_TARGETS: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
"""What can be converted to, the best first: explicit VR keeps the VR of private elements."""

_LAYOUTS: Final = {
    uid: Layout(
        explicit=not TRANSFER_SYNTAXES[uid].implicit_vr, little_endian=TRANSFER_SYNTAXES[uid].little_endian
    )
    for uid in CONVERSION_TARGETS
}

_JPEG_2000_PACKAGES: Final = "numpy pylibjpeg pylibjpeg-openjpeg"
_DECODER_PACKAGES: Final = {
    RLE_LOSSLESS: "numpy pylibjpeg pylibjpeg-rle",
    JPEG_LS_LOSSLESS: "numpy pyjpegls",
    JPEG_2000_LOSSLESS: _JPEG_2000_PACKAGES,
    HTJ2K_LOSSLESS: _JPEG_2000_PACKAGES,
    HTJ2K_LOSSLESS_RPCL: _JPEG_2000_PACKAGES,
}
"""What to install for a decoder, of the extra `codecs` of this package. Named one by one: how the package itself was
installed, and so how its extra would be asked for, cannot be seen from here."""

_PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
_PLANAR_CONFIGURATION: Final = 0x00280006
_VALUE_LENGTH_MAX: Final = 0xFFFFFFFE

_IMAGE_KEYWORDS: Final = {
    "rows": "Rows",
    "columns": "Columns",
    "samples_per_pixel": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "photometric_interpretation": "PhotometricInterpretation",
}
"""What a decoder has to know, by the name it knows it by."""


def conversion_obstacle(source: str) -> str | None:
    """Say why a data set in this transfer syntax cannot be converted to an uncompressed one; None when it can."""
    if source in _LAYOUTS:
        return None
    syntax = TRANSFER_SYNTAXES.get(source)
    if syntax is None:
        return "it is in a transfer syntax that is not known, which cannot be converted"
    if not syntax.encapsulated:
        return f"{syntax.name} cannot be converted"
    if not syntax.lossless:
        how = "was" if syntax.lossless is False else "may have been"
        return f"it {how} compressed with loss, so no uncompressed copy is made"
    return _missing_decoder(source)


def can_convert(source: str) -> bool:
    """Tell whether a data set in this transfer syntax can be converted to an uncompressed one."""
    return conversion_obstacle(source) is None


def convert(file: BinaryIO, offset: int, source: str, target: str) -> Iterator[bytes]:
    """Give the data set that begins at `offset` of a Part 10 file in another transfer syntax, piece by piece.

    `file` is the caller's to close, after the last piece. The data set comes out with an even length.

    Raises:
        ConversionError: the conversion is not possible, or the data set does not parse or decode.

    """
    obstacle = conversion_obstacle(source)
    if obstacle is not None:
        raise ConversionError(obstacle)
    file.seek(offset)
    if source in _LAYOUTS:
        stream = _inflated(file) if TRANSFER_SYNTAXES[source].deflated else file
        pieces = Reencoding(stream, _LAYOUTS[source], _LAYOUTS[target]).pieces()
    else:
        explicit = Layout(explicit=True, little_endian=True)
        pixel_data = _decoded_pixel_data(file, source)
        file.seek(offset)
        pieces = Reencoding(file, explicit, _LAYOUTS[target], pixel_data).pieces()
    return _deflated(pieces) if TRANSFER_SYNTAXES[target].deflated else pieces


# Deflate (PS3.5 §A.5)


class _Inflating(io.RawIOBase):
    """Reads what a deflated stream inflates to."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._stream = zlib.decompressobj(-15)  # a bare stream without zlib header (RFC 1951)
        self._total = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - the type of a writable buffer has no public name
        """Fill `buffer`, or a part of it."""
        while not self._stream.eof:
            deflated = self._stream.unconsumed_tail or self._source.read(CONVERSION_PIECE_BYTES)
            try:
                inflated = self._stream.decompress(deflated, len(buffer))
            except zlib.error:
                raise ConversionError(
                    f"the deflate stream is damaged after {self._total} inflated bytes"
                ) from None
            if inflated:
                self._total += len(inflated)
                if self._total > INFLATED_BYTES_MAX:
                    raise ConversionError(f"the data set inflates to more than {INFLATED_BYTES_MAX} bytes")
                buffer[: len(inflated)] = inflated
                return len(inflated)
            if not deflated:
                raise ConversionError("the deflate stream ends before its last block does")
        return 0


def _inflated(file: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Inflating(file), CONVERSION_PIECE_BYTES)


def _deflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    stream = zlib.compressobj(wbits=-15)
    length = 0
    for piece in pieces:
        deflated = stream.compress(piece)
        if deflated:
            length += len(deflated)
            yield deflated
    deflated = stream.flush()
    yield deflated + b"\0" * ((length + len(deflated)) % 2)


# Decompression


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """What the data set says of its pixels, and where they begin in the file."""

    offset: int
    frames: int
    values: dict[str, Any]

    @property
    def frame_length(self) -> int:
        """Bytes of one decoded frame."""
        values = self.values
        samples = values["rows"] * values["columns"] * values["samples_per_pixel"]
        return int(samples * values["bits_allocated"] // 8)


@lru_cache(maxsize=128)
def _missing_decoder(transfer_syntax: str) -> str | None:
    """Say what to install for a transfer syntax; None when there is a decoder."""
    from pydicom.pixels import get_decoder  # noqa: PLC0415 - pydicom's codecs cost time, and few need them

    name = TRANSFER_SYNTAXES[transfer_syntax].name
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError:
        return f"there is no decoder for {name}"
    if decoder.is_available and find_spec("numpy") is not None:
        return None
    packages = _DECODER_PACKAGES.get(transfer_syntax)
    if packages is not None:
        install = f"{shlex.quote(sys.executable)} -m pip install {packages}"
        return f"no decoder for {name} is installed: `{install}` brings one"
    return f"no decoder for {name} is installed; pydicom knows {'; '.join(decoder.missing_dependencies)}"


def _decoded_pixel_data(file: BinaryIO, transfer_syntax: str) -> NativePixelData | None:
    """Open the decoder; what the first frame comes to is known then, the others follow one by one.

    None when the data set has no pixel data.
    """
    image = _read_image(file)
    if image is None:
        return None
    length = image.frames * image.frame_length
    if length > _VALUE_LENGTH_MAX:
        raise ConversionError(
            f"its pixel data has {length} bytes when uncompressed, an element has 2^32 - 2 at most"
        )
    frames = _decoded_frames(file, image, transfer_syntax)
    try:
        first, photometric_interpretation = next(frames)
    except StopIteration:
        raise ConversionError("the decoder gave no pixels") from None
    elements = {_PHOTOMETRIC_INTERPRETATION: (b"CS", _padded(photometric_interpretation))}
    if image.values["samples_per_pixel"] > 1:
        elements[_PLANAR_CONFIGURATION] = (b"US", b"\0\0")
    return NativePixelData(
        elements=elements,
        vr=b"OB" if image.values["bits_allocated"] <= 8 else b"OW",
        length=length,
        pieces=_chained(first, frames),
    )


def _chained(first: bytes, frames: "Iterator[tuple[bytes, str]]") -> Iterator[bytes]:
    yield first
    for frame, _ in frames:
        yield frame


def _padded(text: str) -> bytes:
    return text.encode("ascii").ljust(len(text) + len(text) % 2)


def _read_image(file: BinaryIO) -> _Image | None:
    from pydicom import dcmread  # noqa: PLC0415 - as above

    keywords = [*_IMAGE_KEYWORDS.values(), "NumberOfFrames"]
    file.seek(0)
    try:
        data_set = dcmread(file, stop_before_pixels=True, force=True, specific_tags=keywords)
        values = {name: data_set[keyword].value for name, keyword in _IMAGE_KEYWORDS.items()}
        frames = int(data_set.get("NumberOfFrames") or 1)
    except KeyError as error:
        raise ConversionError(f"it has no {error}, which decompression needs") from None
    except Exception as error:
        raise ConversionError(f"its image attributes cannot be read ({type(error).__name__})") from error
    start = file.tell()
    header = file.read(12)
    if header[:4] != b"\xe0\x7f\x10\x00":
        return None
    return _Image(offset=start + 12, frames=frames, values=values)


def _decoded_frames(opened: BinaryIO, image: _Image, transfer_syntax: str) -> Iterator[tuple[bytes, str]]:
    """Decode frame after frame: the samples, color by pixel, and their photometric interpretation."""
    import numpy as np  # noqa: PLC0415 - it is an extra
    from pydicom.pixels import get_decoder  # noqa: PLC0415 - as above

    sign = "i" if image.values["pixel_representation"] else "u"
    sample = np.dtype(f"<{sign}{image.values['bits_allocated'] // 8}")
    with open(opened.name, "rb") as file:  # once more: who reads its other elements goes on beside this
        if not os.path.sameopenfile(file.fileno(), opened.fileno()):
            raise ConversionError("another file has taken its place")
        file.seek(image.offset)
        decoded = get_decoder(transfer_syntax).iter_array(
            file,
            number_of_frames=image.frames,
            planar_configuration=0,
            pixel_keyword="PixelData",
            correct_unused_bits=False,
            as_rgb=False,
            **image.values,
        )
        for _ in range(image.frames):
            try:
                frame, properties = next(decoded)
            except StopIteration:
                return
            except Exception as error:
                words = " ".join(str(error).split())[
                    :DECODER_WORDS_LETTERS_MAX
                ]  # of a codestream, not of a patient
                raise ConversionError(f"its pixel data cannot be decoded: {words}") from error
            yield frame.astype(sample, copy=False).tobytes(), str(properties["photometric_interpretation"])
