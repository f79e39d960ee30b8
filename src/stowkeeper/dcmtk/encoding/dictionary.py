"""Data dictionaries: which VR an element has where the stream does not say.

Two come to the same shape: the dictionary of pydicom, which the product carries, and files in DCMTK's own format, as
the environment variable DCMDICTPATH names them. A line of such a file has a tag, a VR, a name, a VM and a version,
with tabs between; groups and elements may be ranges, of even numbers (`6000-60FF`), of odd ones (`6001-o-60FF`) or of
all (`0000-u-FFFF`); private tags name their creator: `(0029,"CREATOR",10)` for any block, an element from 1000H on for
that element alone. Lines that begin with # are comments.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any, Final, Self

from stowkeeper.dcmtk.encoding.value_representations import (
    AMBIGUOUS_BYTES,
    AMBIGUOUS_NUMBERS,
    BY_NAME,
    LOOKUP_TABLE,
    NO_VR,
    PIXELS,
    UNREADABLE,
    UNREGISTERED,
    ValueRepresentation,
)
from stowkeeper.dicom.elements import PIXEL_DATA


class DictionaryError(ValueError):
    """A line of a dictionary file cannot be read; the text says which and why."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Groups or elements that an entry is for."""

    low: int
    high: int
    parity: int | None = None
    """0 for even ones alone, 1 for odd ones alone."""

    def __contains__(self, number: int) -> bool:
        return self.low <= number <= self.high and (self.parity is None or number & 1 == self.parity)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a dictionary says of a tag, or of a range of tags. A public entry has no creator."""

    groups: _Numbers
    elements: _Numbers
    creator: str
    vr: ValueRepresentation

    def is_part_of(self, other: "Entry") -> bool:
        """Tell whether the range of this entry lies within that of another one."""
        return (
            self.creator == other.creator
            and other.groups.low <= self.groups.low <= self.groups.high <= other.groups.high
            and other.elements.low <= self.elements.low <= self.elements.high <= other.elements.high
        )


class Dictionary:
    """Finds VRs by tag, and of private elements also by creator."""

    __slots__ = ("_found", "_ranges", "_single")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._single: dict[tuple[str, int], ValueRepresentation] = {}
        self._ranges: list[Entry] = []
        for entry in entries:
            groups, elements = entry.groups, entry.elements
            if groups.low == groups.high and elements.low == elements.high:
                self._single[entry.creator, groups.low << 16 | elements.low] = entry.vr
            else:
                self._add_range(entry)
        self._found = lru_cache(maxsize=16_384)(self._find)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a dictionary in DCMTK's format; several files are one when their texts are joined by line ends.

        Raises DictionaryError.
        """
        return cls(_entries_of_text(text))

    def vr_of(self, tag: int, creator: str = "") -> ValueRepresentation:
        """Return the VR of a tag, UNREGISTERED when it has none here.

        `creator` is that of a private element, empty when it is unknown. Where no entry has that creator, those
        without one count.
        """
        vr = self._found(tag, creator)
        return self._found(tag, "") if creator and vr is UNREGISTERED else vr

    def _add_range(self, entry: Entry) -> None:
        """Put a range before the first one that it is a part of, since the first that fits is taken."""
        place = next(
            (i for i, other in enumerate(self._ranges) if entry.is_part_of(other)), len(self._ranges)
        )
        self._ranges.insert(place, entry)

    def _find(self, tag: int, creator: str) -> ValueRepresentation:
        found = self._single.get((creator, tag))
        if found is None and creator:
            found = self._single.get((creator, tag & 0xFFFF00FF))
        if found is not None:
            return found
        group, element = tag >> 16, tag & 0xFFFF
        for entry in self._ranges:
            if (
                entry.creator == creator
                and group in entry.groups
                and (element in entry.elements or (creator and element & 0xFF in entry.elements))
            ):
                return entry.vr
        return UNREGISTERED


# The dictionary of pydicom

_ALL_NUMBERS: Final = _Numbers(0, 0xFFFF)
_PRIVATE_GROUPS: Final = _Numbers(0x0001, 0xFFFF, 1)

_MEANT: Final = {
    "US or SS": AMBIGUOUS_NUMBERS,
    "US or OW": LOOKUP_TABLE,
    "US or SS or OW": LOOKUP_TABLE,
    "OB or OW": AMBIGUOUS_BYTES,
    "OB_OW": AMBIGUOUS_BYTES,
    "NONE": NO_VR,
}

_BESIDES: Final = (
    # Group lengths and private creators, which pydicom knows without a table (PS3.5 §7.2, §7.8.1).
    Entry(_ALL_NUMBERS, _Numbers(0, 0), "", BY_NAME[b"UL"]),
    Entry(_PRIVATE_GROUPS, _Numbers(0x0010, 0x00FF), "", BY_NAME[b"LO"]),
    # Repeating image group of the retired PS3.5 §7.4 of 1998.
    Entry(_Numbers(0x0020, 0x0020), _Numbers(0x3100, 0x31FF, 0), "", BY_NAME[b"CS"]),
    # Current Frame Functional Groups Sequence of a data stream, which no stored object has.
    Entry(_Numbers(0x0006, 0x0006), _Numbers(0x0001, 0x0001), "", BY_NAME[b"SQ"]),
    Entry(_Numbers(PIXEL_DATA >> 16, PIXEL_DATA >> 16), _Numbers(0x0010, 0x0010), "", PIXELS),
)

_REPEATING_GROUP = re.compile(r"([0-9A-F]{2})xx([0-9A-F]{4})")
_PRIVATE_TAG = re.compile(r"([0-9A-F]{4})xx([0-9A-F]{2})|([0-9A-F]{4})([0-9A-F]{4})")
_PRIVATE_REPEATING_GROUP = re.compile(r"([0-9A-F]{2})xxxx([0-9A-F]{2})")


@lru_cache(maxsize=1)
def shipped_dictionary() -> Dictionary:
    """Return the dictionary that the product carries: that of pydicom, with its private part.

    The first call takes a tenth of a second; the others cost nothing.
    """
    return Dictionary((*_public_entries(), *_BESIDES, *_private_entries()))


def _tables_of_pydicom(module: str) -> dict[str, Any]:
    """Run a module of pydicom that holds nothing but tables, without the package around it, which takes long to load."""
    package = PathFinder.find_spec("pydicom")
    folders = None if package is None else package.submodule_search_locations
    spec = PathFinder.find_spec(module, folders)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"pydicom has no module {module}", name=f"pydicom.{module}")
    tables = module_from_spec(spec)
    spec.loader.exec_module(tables)
    return vars(tables)


def _public_entries() -> Iterator[Entry]:
    tables = _tables_of_pydicom("_dicom_dict")
    for tag, (name, *_) in tables["DicomDictionary"].items():
        yield _entry(_Numbers(tag >> 16, tag >> 16), _Numbers(tag & 0xFFFF, tag & 0xFFFF), "", name)
    for mask, (name, *_) in tables["RepeatersDictionary"].items():
        matched = _REPEATING_GROUP.fullmatch(mask)
        if matched:
            group, element = (int(part, 16) for part in matched.groups())
            yield _entry(_Numbers(group << 8, group << 8 | 0xFF, 0), _Numbers(element, element), "", name)


def _private_entries() -> Iterator[Entry]:
    private_dictionaries = _tables_of_pydicom("_private_dict")["private_dictionaries"]
    for creator, tags in private_dictionaries.items():
        for mask, (name, *_) in tags.items():
            matched = _PRIVATE_TAG.fullmatch(mask)
            repeating = _PRIVATE_REPEATING_GROUP.fullmatch(mask)
            if matched:
                group, element = (int(part, 16) for part in matched.groups() if part)
                yield _entry(_Numbers(group, group), _Numbers(element, element), creator, name)
            elif repeating:
                group, element = (int(part, 16) for part in repeating.groups())
                groups = _Numbers(group << 8, group << 8 | 0xFF, 1)
                yield _entry(groups, _Numbers(element, element), creator, name)


def _entry(groups: _Numbers, elements: _Numbers, creator: str, name: str) -> Entry:
    vr = _MEANT.get(name) or BY_NAME.get(name.encode("ascii"), UNREGISTERED)
    return Entry(groups, elements, creator, vr)


# Dictionary files

_TAG_FIELD = re.compile(r'\(([^,"]+),\s*(?:"([^"]*)"\s*,)?([^,")]+)\)')
_NUMBERS_FIELD = re.compile(r"([0-9a-fA-F]{1,4})(?:-(?:([oeuOEU])-)?([0-9a-fA-F]{1,4}))?")
_PARITIES: Final = {"o": 1, "e": 0, "u": None, "": 0}


def _entries_of_text(text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        if not 3 <= len(fields) <= 5:
            raise DictionaryError(
                f"line {number} of the dictionary has {len(fields)} fields between tabs, 3 to 5 are needed"
            )
        matched = _TAG_FIELD.fullmatch(fields[0])
        groups = matched and _numbers(matched[1])
        elements = matched and _numbers(matched[3])
        if not matched or not groups or not elements:
            raise DictionaryError(f"line {number} of the dictionary has no tag that can be read: {fields[0]}")
        vr = BY_NAME.get(fields[1].encode("latin-1", "replace"))
        if vr is None or vr is UNREADABLE:
            raise DictionaryError(f"line {number} of the dictionary has no VR that is known: {fields[1]}")
        yield Entry(groups, elements, matched[2] or "", vr)


def _numbers(text: str) -> _Numbers | None:
    matched = _NUMBERS_FIELD.fullmatch("".join(text.split()))
    if not matched:
        return None
    low = int(matched[1], 16)
    if matched[3] is None:
        return _Numbers(low, low)
    return _Numbers(low, int(matched[3], 16), _PARITIES[(matched[2] or "").lower()])
