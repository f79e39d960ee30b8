"""What the header of a compressed image or video tells: its size, its samples, and the transfer syntaxes that it fits."""

from dataclasses import dataclass

from stowkeeper.services.building.bulk_parts import BulkPart
from stowkeeper.services.building.errors import BuildError
from stowkeeper.services.building.limits import HEAD_BYTES
from stowkeeper.stow.reasons import FailureReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitstream:
    """A compressed frame, or a video. What its header does not tell is None or ''.

    `begin` and `length` are where it lies in its part, which may be wrapped in a file format. `transfer_syntaxes` are those
    that it may be kept in, the one to be taken where nobody says another first.
    """

    transfer_syntaxes: tuple[str, ...]
    begin: int
    length: int
    rows: int | None = None
    columns: int | None = None
    samples: int | None = None
    bits: int | None = None
    is_signed: bool | None = None
    photometric_interpretation: str = ""
    frames: int | None = None


class Header:
    """The first bytes of a part, or of what begins at `begin` in it, read as they are asked for."""

    def __init__(self, part: BulkPart, begin: int = 0) -> None:
        self._part = part
        self._begin = begin
        self._window = b""
        self._window_at = 0
        self.length = part.length - begin

    def bytes_at(self, at: int, count: int) -> bytes:
        """Return `count` bytes. Raises BuildError where the bitstream ends before."""
        found = self.some_at(at, count)
        if len(found) < count:
            raise unreadable("it ends inside its header")
        return found

    def some_at(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes, fewer at the end."""
        begin = at - self._window_at
        if begin < 0 or begin + count > len(self._window):
            self._window = self._part.read(self._begin + at, max(count, HEAD_BYTES))
            self._window_at, begin = at, 0
        return self._window[begin : begin + count]

    def number_at(self, at: int, count: int) -> int:
        """Return a number of `count` bytes, the highest first."""
        return int.from_bytes(self.bytes_at(at, count), "big")


def unreadable(words: str) -> BuildError:
    """Return that a part is not the bitstream that its media type says; `words` go on with "it"."""
    return BuildError(
        FailureReason.CANNOT_UNDERSTAND, f"a part of bulk data is not what its media type says: {words}"
    )


def not_taken(words: str) -> BuildError:
    """Return that a bitstream is one that no transfer syntax here is for."""
    return BuildError(FailureReason.TRANSFER_SYNTAX, words)
