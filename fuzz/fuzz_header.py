"""Data sets from anyone: scanned without an error, within bounds, and alike however they were cut.

Byte 0 of an input chooses the transfer syntax, byte 1 how the rest, the data set, is cut into pieces. The corpus in
`corpus/header` holds data sets of every encoding, and broken ones.
"""

import re
import sys

from stowkeeper.dicom.attributes import WANTED, extract
from stowkeeper.dicom.header import HeaderScanner, Scan
from stowkeeper.dicom.limits import CAPTURED_VALUE_MAX, REMARKS_MAX
from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

SYNTAXES = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    "1.2.3.4",
)
INFLATED_BYTES_MAX = 1 << 24
"""Less than the product allows: inputs are small, and inflating takes the fuzzer's time."""

DAMAGED = "the deflate stream is damaged"
"""How much of a damaged stream can be inflated, and so what else is found, depends on how it was cut."""

TEXT = re.compile(r"[A-Za-z0-9 (),:;?]+")
"""What problems, remarks and verdicts are made of. It lets no control character or other script through."""


def target(data: bytes) -> None:
    """Raise only on a defect of ours."""
    if len(data) < 2:
        return
    syntax = SYNTAXES[data[0] % len(SYNTAXES)]
    data_set = data[2:]
    whole = scan(data_set, syntax, len(data_set))
    parts = scan(data_set, syntax, 1 + data[1])
    assert (parts.problem is None) == (whole.problem is None)
    assert parts == whole or DAMAGED in (parts.problem, whole.problem)
    assert whole.size == len(data_set)
    assert whole.problem is None or syntax in SYNTAXES[:-1]
    assert data_set or whole.problem or syntax == SYNTAXES[-1]
    assert all(tag in WANTED and len(value) <= CAPTURED_VALUE_MAX for tag, value in whole.values.items())
    assert len(whole.remarks) <= REMARKS_MAX + 1
    if syntax != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        assert all(value in data_set for value in whole.values.values())
    _, verdicts = extract(whole.values, whole.little_endian)
    for text in (*whole.remarks, *verdicts, whole.problem or "none"):
        assert TEXT.fullmatch(text), text


def scan(data_set: bytes, syntax: str, size: int) -> Scan:
    """Scan in pieces of `size` bytes, each gone when the next one comes."""
    scanner = HeaderScanner(syntax, WANTED, inflated_bytes_max=INFLATED_BYTES_MAX)
    for start in range(0, len(data_set), size or 1):
        piece = bytearray(data_set[start : start + size])
        scanner.feed(memoryview(piece))
        piece.clear()
    return scanner.finish()


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
