"""A body of `multipart/related` with instances (PS3.18 §10.5.2), as a sender writes it: what stands around the files.

The files themselves are the sender's to read. All lengths are known before the first byte goes out, so that the request
has a Content-Length.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Final

BOUNDARY_RANDOM_BYTES: Final = 20
"""Random bytes in a boundary: as many as nobody guesses, so that no file can be made to hold it."""

_CRLF: Final = b"\r\n"
_FIELDS: Final = b"Content-Type: application/dicom\r\n\r\n"


def _random_boundary() -> str:
    return secrets.token_hex(BOUNDARY_RANDOM_BYTES)


def new_boundary(heads: Iterable[bytes], draw: Callable[[], str] = _random_boundary) -> str:
    """Return a boundary that is in none of `heads`, the first bytes of the files; `draw` makes one by chance."""
    known = list(heads)
    while True:
        boundary = draw()
        if not any(boundary.encode() in head for head in known):
            return boundary


class MultipartWriter:
    """Writes what stands around the parts of one body. A boundary has 1 to 70 letters and digits (RFC 2046 §5.1.1)."""

    def __init__(self, boundary: str) -> None:
        self._boundary = boundary
        self._opening = b"--" + boundary.encode("ascii") + _CRLF + _FIELDS
        self.closing: Final = _CRLF + b"--" + boundary.encode("ascii") + b"--" + _CRLF
        """What stands behind the last part."""

    @property
    def content_type(self) -> str:
        """The value of the Content-Type field. Both parameters are quoted: there are servers that want it so."""
        return f'multipart/related; type="application/dicom"; boundary="{self._boundary}"'

    def opening(self, index: int) -> bytes:
        """Return what stands before part number `index`, from 0: the first one has no line break in front."""
        return _CRLF + self._opening if index else self._opening

    def length(self, sizes: Sequence[int]) -> int:
        """Return the bytes of a body with parts of these sizes, of which there is at least one."""
        around = len(self._opening) * len(sizes) + len(_CRLF) * (len(sizes) - 1)
        return around + sum(sizes) + len(self.closing)
