"""A dictionary file in DCMTK's format with what the shipped dictionary says, and some private elements for tests.

With it in DCMDICTPATH, DCMTK's programs know no more and no less than the product does.
"""

from collections.abc import Iterator
from functools import cache

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._private_dict import private_dictionaries

from stowkeeper.dcmtk.encoding.dictionary import Dictionary

CREATOR = "STOWKEEPER TEST"
_NAMES = {
    "US or SS": "xs",
    "US or OW": "lt",
    "US or SS or OW": "lt",
    "OB or OW": "ox",
    "OB_OW": "ox",
    "NONE": "na",
}
_PRIVATE = (("00", "LO"), ("01", "US"), ("02", "LO"), ("1003", "SH"), ("04", "SQ"), ("05", "px"))


@cache
def dictionary_text() -> str:
    """Return the text of the file."""
    return "# for tests\n\n" + "\n".join(_lines()) + "\n"


@cache
def dictionary_of_tests() -> Dictionary:
    """Return what the product makes of the file; to read it takes a while."""
    return Dictionary.read(dictionary_text())


def _lines() -> Iterator[str]:
    for tag, (vr, *_) in DicomDictionary.items():
        yield _line(f"({tag >> 16:04X},{tag & 0xFFFF:04X})", "px" if tag == 0x7FE00010 else vr)
    for mask, (vr, *_) in RepeatersDictionary.items():
        if mask[2:4] == "xx" and "x" not in mask[4:]:
            yield _line(f"({mask[:2]}00-{mask[:2]}FF,{mask[4:]})", vr)
    yield _line("(0006,0001)", "SQ")
    yield _line("(0020,3100-31FF)", "CS")
    yield _line("(0001-o-FFFF,0010-u-00FF)", "LO")
    yield _line("(0000-u-FFFF,0000)", "UL")
    for creator, tags in private_dictionaries.items():
        for mask, (vr, *_) in tags.items():
            if "x" not in mask:
                yield _line(f'({mask[:4]},"{creator}",{mask[4:]})', vr)
            elif mask[4:6] == "xx" and "x" not in mask[:4] + mask[6:]:
                yield _line(f'({mask[:4]},"{creator}",{mask[6:]})', vr)
            elif mask[2:6] == "xxxx":
                yield _line(f'({mask[:2]}00-o-{mask[:2]}FF,"{creator}",{mask[6:]})', vr)
    for element, vr in _PRIVATE:
        yield _line(f'(0029,"{CREATOR}",{element})', vr)


def _line(tag: str, vr: str) -> str:
    return f"{tag}\t{_NAMES.get(vr, vr)}\tX\t1\tX"
