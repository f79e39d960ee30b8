"""Files from anyone: their head is read or refused in words, and what was read is written and read again.

The corpus in `corpus/part10` holds heads as files have them, odd ones, and broken ones.
"""

import re
import sys

from stowkeeper.dicom.limits import FILE_META_LENGTH_MAX
from stowkeeper.dicom.part10 import (
    GROUP_LENGTH,
    PREFIX,
    FileMeta,
    MoreNeeded,
    Part10Error,
    encode_file_meta,
    read_file_meta,
)

TEXT = re.compile(r"[A-Za-z0-9 (),:]+")


def target(data: bytes) -> None:
    """Raise only on a defect of ours."""
    for preamble_required in (True, False):
        whole = read(data, whole=True, preamble_required=preamble_required)
        part = read(data, whole=False, preamble_required=preamble_required)
        if isinstance(part, int):
            assert len(data) < part <= FILE_META_LENGTH_MAX
        else:
            assert part == whole
        if isinstance(whole, FileMeta):
            check(whole, data)


def read(data: bytes, *, whole: bool, preamble_required: bool) -> FileMeta | int | None:
    """Return what is read, or the bytes needed; None when it is refused, in words that show nothing of the file."""
    try:
        return read_file_meta(data, whole=whole, preamble_required=preamble_required)
    except MoreNeeded as more:
        return more.total
    except Part10Error as error:
        problem = str(error)
    assert TEXT.fullmatch(problem), problem
    return None


def check(meta: FileMeta, data: bytes) -> None:
    """Write the elements and read them again: all but the group length and padding are the same."""
    assert 8 <= meta.length <= len(data)
    assert all(value in data for _, _, value in meta.elements)
    elements = [element for element in meta.elements if element[0] != GROUP_LENGTH]
    try:
        head = PREFIX + encode_file_meta(elements)
    except ValueError:
        # Implicit VR has room for values that explicit VR has not.
        assert any(len(value) > 0xFFFE for _, _, value in elements)
        return
    again = read_file_meta(head)
    assert again.length == len(head)
    for (tag, vr, value), before in zip(again.elements[1:], elements, strict=True):
        assert (tag, vr, value[: len(before[2])]) == before
        assert len(value) == len(before[2]) + len(before[2]) % 2


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
