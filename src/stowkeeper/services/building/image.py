"""The attributes that describe pixels (PS3.3 §C.7.6.3): what the metadata say, and what a bitstream says where they do not."""

import re
from dataclasses import dataclass
from typing import Final

from stowkeeper.dicom.elements import format_tag
from stowkeeper.services.building.bitstreams import Bitstream
from stowkeeper.services.building.errors import BuildError
from stowkeeper.stow.metadata import DataSet, Element
from stowkeeper.stow.reasons import FailureReason

NUMBER_OF_FRAMES: Final = 0x00280008
_SAMPLES_PER_PIXEL: Final = 0x00280002
_PHOTOMETRIC_INTERPRETATION: Final = 0x00280004
_PLANAR_CONFIGURATION: Final = 0x00280006
_ROWS: Final = 0x00280010
_COLUMNS: Final = 0x00280011
_BITS_ALLOCATED: Final = 0x00280100
_BITS_STORED: Final = 0x00280101
_HIGH_BIT: Final = 0x00280102
_PIXEL_REPRESENTATION: Final = 0x00280103

_NAMES: Final = {
    _SAMPLES_PER_PIXEL: "Samples per Pixel",
    _PHOTOMETRIC_INTERPRETATION: "Photometric Interpretation",
    _ROWS: "Rows",
    _COLUMNS: "Columns",
    _BITS_ALLOCATED: "Bits Allocated",
    _BITS_STORED: "Bits Stored",
    _HIGH_BIT: "High Bit",
    _PIXEL_REPRESENTATION: "Pixel Representation",
}
"""What no image can be shown without (PS3.3 Table C.7-11a, type 1), by tag."""

_COUNT: Final = re.compile(rb" *\+?0*([1-9][0-9]{0,9}) *\0?")


@dataclass(frozen=True, slots=True)
class Description:
    """What the metadata say of their pixels."""

    data_set: DataSet

    def number(self, tag: int) -> int | None:
        """Return the one number of a US element, None where it is absent or empty. Raises BuildError."""
        element = self.data_set.get(tag)
        if element is None or element.value == b"":
            return None
        if element.vr != b"US" or not isinstance(element.value, bytes) or len(element.value) != 2:
            raise does_not_match(f"{format_tag(tag)} is not one number with VR US")
        return int.from_bytes(element.value, "little")

    @property
    def frames(self) -> int | None:
        """Number of Frames, None where it is absent or empty. Raises BuildError."""
        element = self.data_set.get(NUMBER_OF_FRAMES)
        if element is None or element.value == b"":
            return None
        match = _COUNT.fullmatch(element.value) if isinstance(element.value, bytes) else None
        if element.vr != b"IS" or match is None:
            raise does_not_match("Number of Frames (0028,0008) is not one number above 0 with VR IS")
        return int(match[1])

    @property
    def native_length(self) -> int:
        """Bytes that the pixels have when they are not compressed (PS3.5 §8.1.1). Raises BuildError."""
        return ((self.frames or 1) * self.native_frame_bits + 7) // 8

    @property
    def native_frame_bits(self) -> int:
        """Bits of one frame that is not compressed: frames follow each other without a gap. Raises BuildError."""
        self.expect_complete({})
        rows, columns = self.number(_ROWS) or 0, self.number(_COLUMNS) or 0
        samples, bits = self.number(_SAMPLES_PER_PIXEL) or 0, self.number(_BITS_ALLOCATED) or 0
        if not rows or not columns or not samples or not (bits == 1 or bits in range(8, 65, 8)):
            raise does_not_match(
                "Rows, Columns, Samples per Pixel or Bits Allocated is a number that none can be"
            )
        if samples == 3 and self.data_set[_PHOTOMETRIC_INTERPRETATION].value == b"YBR_FULL_422":
            samples = 2  # chrominance of every second column only (PS3.3 §C.7.6.3.1.2)
        return rows * columns * samples * bits

    @property
    def bits_allocated(self) -> int | None:
        """Bits Allocated, None where it is absent. Raises BuildError."""
        return self.number(_BITS_ALLOCATED)

    def expect_complete(self, derived: DataSet) -> None:
        """Raise BuildError where neither the metadata nor `derived` have what pixels need."""
        missing = [
            f"{name} {format_tag(tag)}"
            for tag, name in _NAMES.items()
            if tag not in derived and (tag not in self.data_set or not self.data_set[tag].value)
        ]
        if missing:
            raise does_not_match(
                f"the metadata lack {', '.join(missing)}, and the bulk data do not tell it either"
            )

    def derive(self, found: Bitstream) -> dict[int, Element]:
        """Return what the metadata lack and the bitstream tells (PS3.18 Table 10.5.2-1).

        Raises:
            BuildError: both tell a size, and not the same one.

        """
        allocated = None
        if found.bits is not None:
            allocated = self.bits_allocated or (8 if found.bits <= 8 else 16 if found.bits <= 16 else 32)
        stored = self.number(_BITS_STORED) or found.bits
        numbers = {
            _SAMPLES_PER_PIXEL: found.samples,
            _PLANAR_CONFIGURATION: 0 if (found.samples or 0) > 1 else None,
            _ROWS: found.rows,
            _COLUMNS: found.columns,
            _BITS_ALLOCATED: allocated,
            _BITS_STORED: found.bits,
            _HIGH_BIT: stored - 1 if stored else None,
            _PIXEL_REPRESENTATION: None if found.is_signed is None else int(found.is_signed),
        }
        derived = {}
        for tag, number in numbers.items():
            said = self.number(tag)
            if said is None and number is not None:
                if number > 0xFFFF:
                    raise does_not_match("the image is larger than Rows and Columns can say")
                derived[tag] = Element(b"US", number.to_bytes(2, "little"))
            elif tag in {_ROWS, _COLUMNS, _SAMPLES_PER_PIXEL} and number not in {None, said}:
                raise does_not_match(
                    f"the metadata have another number of {_NAMES[tag]} {format_tag(tag)} than the bulk data"
                )
        if found.photometric_interpretation and not self._says(_PHOTOMETRIC_INTERPRETATION):
            derived[_PHOTOMETRIC_INTERPRETATION] = Element(b"CS", found.photometric_interpretation.encode())
        return derived

    def _says(self, tag: int) -> bool:
        return tag in self.data_set and bool(self.data_set[tag].value)


def does_not_match(words: str) -> BuildError:
    """Return that the metadata are not what an instance needs."""
    return BuildError(FailureReason.DOES_NOT_MATCH, words)
