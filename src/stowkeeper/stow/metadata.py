"""A data set as metadata give it: what both the DICOM JSON Model and the Native DICOM Model are read into.

Values are encoded already, in little endian and without padding, texts in UTF-8. What the metadata do not hold
themselves is a reference to bulk data (PS3.18 §10.5.1.2, PS3.19 §A.1).

Nothing here is believed for being written: elements that cannot be in a data set, twice the same one, and private ones
that name another creator than their block are defects. A defect is about one instance; its words name tags, never a value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stowkeeper.dicom.elements import LONG_VRS, SHORT_VRS, format_tag
from stowkeeper.stow.limits_of_metadata import METADATA_ELEMENTS_MAX, METADATA_VALUES_MAX

VALUE_REPRESENTATIONS: Final = {vr.decode(): vr for vr in SHORT_VRS | LONG_VRS}
"""Those of PS3.5 Table 6.2-1, by name."""

BULK_VRS: Final = frozenset(b"DS FL FD IS LT OB OD OF OL OV OW SL SS ST SV UC UL UN US UT UV".split())
"""Value representations whose value may be a reference to bulk data (PS3.18 §F.2.2)."""

SPECIFIC_CHARACTER_SET: Final = 0x00080005
_LENGTH_TO_END: Final = 0x00080001
_UTF_8: Final = b"ISO_IR 192"
_TEXT_VRS: Final = frozenset(b"SH LO ST LT PN UC UT".split())
_FIRST_BLOCK: Final = 0x10
_LAST_BLOCK: Final = 0xFF


class MetadataError(ValueError):
    """The metadata cannot be read from here on; the text says why, for people, without a value of them."""


class ElementDefectError(ValueError):
    """One data element is not what it should be; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class BulkReference:
    """Where a value is: the Content-Location of a part of the same body. It is compared as text, never fetched."""

    uri: str


@dataclass(frozen=True, slots=True)
class Element:
    """A data element: its value in little endian without padding, a reference to it, or the items of a sequence."""

    vr: bytes
    value: "bytes | BulkReference | tuple[DataSet, ...]"


DataSet = Mapping[int, Element]
"""Elements by tag, ascending. Group lengths and file meta information are not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMetadata:
    """The metadata of one instance. With a `defect`, '' otherwise, `data_set` has what could be read beside it."""

    data_set: DataSet
    defect: str = ""


@dataclass(slots=True)
class Reading:
    """What is counted and remembered while the metadata of one instance are read."""

    elements: int = 0
    values: int = 0
    has_other_letters: bool = False
    defect: str = ""

    def count_element(self) -> None:
        """Count an element. Raises MetadataError beyond METADATA_ELEMENTS_MAX."""
        self.elements += 1
        if self.elements > METADATA_ELEMENTS_MAX:
            raise MetadataError(f"an instance has more than {METADATA_ELEMENTS_MAX} data elements")

    def count_values(self, count: int) -> None:
        """Count values or items. Raises MetadataError beyond METADATA_VALUES_MAX."""
        self.values += count
        if self.values > METADATA_VALUES_MAX:
            raise MetadataError(f"an instance has more than {METADATA_VALUES_MAX} values")

    def note(self, defect: ElementDefectError) -> None:
        """Remember the first defect."""
        self.defect = self.defect or str(defect)

    def finish(self, level: "Level") -> InstanceMetadata:
        """Return the instance whose outermost elements `level` has."""
        data_set: DataSet = level.finish(self)
        if self.has_other_letters:
            data_set = _in_utf_8(data_set)
        return InstanceMetadata(data_set=data_set, defect=self.defect)


@dataclass(slots=True)
class Level:
    """The elements of a data set or of an item, as they are read."""

    is_item: bool
    _elements: dict[int, Element] = field(default_factory=dict)
    _without_block: list[tuple[int, str, Element]] = field(default_factory=list)
    _creators: dict[int, str] = field(default_factory=dict)

    def add(self, tag: int, element: Element, reading: Reading, private_creator: str = "") -> None:
        """Take an element. `private_creator` is who the metadata say has made it, '' where they do not.

        Raises:
            ElementDefectError: it cannot be in a data set, or it is there twice.

        """
        group, number = tag >> 16, tag & 0xFFFF
        # Without its block, the first private element of one has the number of a group length.
        is_length = tag == _LENGTH_TO_END or (number == 0 and not (group & 1 and private_creator))
        if is_length or (group == 0x0002 and not self.is_item):
            return  # lengths of something else than what is made of it; file meta information is written anew
        if group in {0x0000, 0x0001, 0x0002, 0x0003, 0x0005, 0x0007, 0xFFFE, 0xFFFF}:
            raise ElementDefectError(f"{format_tag(tag)} is no element of a data set")
        if element.vr in _TEXT_VRS and isinstance(element.value, bytes) and not element.value.isascii():
            reading.has_other_letters = True
        if group & 1 and private_creator:
            if number <= _LAST_BLOCK:
                # PS3.19 §A.1.5 leaves the block out, since it means nothing where the creator is named.
                self._without_block.append((tag, private_creator, element))
                return
            creator = group << 16 | number >> 8
            if self._creators.setdefault(creator, private_creator) != private_creator:
                raise ElementDefectError(f"{format_tag(tag)} has another private creator than its block")
        if tag in self._elements:
            raise ElementDefectError(f"{format_tag(tag)} is there twice")
        self._elements[tag] = element

    def finish(self, reading: Reading) -> dict[int, Element]:
        """Return the elements in ascending order; private ones without a block get one, and each block its creator."""
        for creator, name in self._creators.items():
            self._reserve(creator, name, reading)
        # Creator elements count as they are given, so those that claim a block come before those that need one.
        blocks = {
            (tag >> 16, element.value.rstrip(b" ")): tag & 0xFF
            for tag, element in self._elements.items()
            if _is_creator(tag) and isinstance(element.value, bytes)
        }
        for tag, name, element in self._without_block:
            group, value = tag >> 16, name.encode("utf-8", "replace")
            if _is_creator(tag) and element.value == value:
                continue  # the creator's own element, which the name says already
            block = blocks.get((group, value))
            if block is None:
                block = self._free_block(group)
                if block is None:
                    reading.note(ElementDefectError(f"group {group:04X} has no block for {format_tag(tag)}"))
                    continue
                blocks[group, value] = block
                self._elements[group << 16 | block] = Element(b"LO", value)
                reading.has_other_letters |= not value.isascii()
            placed = group << 16 | block << 8 | tag & 0xFF
            if placed in self._elements:
                reading.note(ElementDefectError(f"{format_tag(tag)} is there twice"))
                continue
            self._elements[placed] = element
        return dict(sorted(self._elements.items()))

    def _reserve(self, creator: int, name: str, reading: Reading) -> None:
        value = name.encode("utf-8", "replace")
        known = self._elements.setdefault(creator, Element(b"LO", value))
        reading.has_other_letters |= not value.isascii()
        if not isinstance(known.value, bytes) or known.value.rstrip(b" ") != value.rstrip(b" "):
            reading.note(
                ElementDefectError(f"{format_tag(creator)} is another private creator than elements say")
            )

    def _free_block(self, group: int) -> int | None:
        taken = {tag >> 8 & 0xFF for tag in self._elements if tag >> 16 == group and tag & 0xFF00}
        taken |= {tag & 0xFF for tag in self._elements if tag >> 16 == group and _is_creator(tag)}
        return next((block for block in range(_FIRST_BLOCK, _LAST_BLOCK + 1) if block not in taken), None)


def _is_creator(tag: int) -> bool:
    return bool(tag >> 16 & 1) and _FIRST_BLOCK <= tag & 0xFFFF <= _LAST_BLOCK


def _in_utf_8(data_set: DataSet) -> DataSet:
    """Return a data set that says of its texts what they are encoded in, whatever they were before they were metadata."""
    elements = {tag: _without_character_sets(element) for tag, element in data_set.items()}
    elements[SPECIFIC_CHARACTER_SET] = Element(b"CS", _UTF_8)
    return dict(sorted(elements.items()))


def _without_character_sets(element: Element) -> Element:
    """Return an element whose items say nothing of character sets, and so have that of the data set (PS3.5 §7.5.3)."""
    if not isinstance(element.value, tuple):
        return element
    items = tuple(
        {tag: _without_character_sets(inner) for tag, inner in item.items() if tag != SPECIFIC_CHARACTER_SET}
        for item in element.value
    )
    return Element(element.vr, items)
