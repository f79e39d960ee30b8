"""Just enough of DER (X.690) to look into certificates and keys that OpenSSL reads too: tags, lengths, numbers, times.

Python's `ssl` tells neither the size of a key nor how a certificate is signed. Nothing here verifies anything.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from stowkeeper.net.limits import DER_LENGTH_BYTES_MAX, DER_OBJECT_IDENTIFIER_BYTES_MAX

INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30


class DERError(ValueError):
    """The bytes are not what they should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One value: its tag, and its contents."""

    tag: int
    content: bytes

    def parts(self) -> tuple["Element", ...]:
        """Return the values that a constructed one holds."""
        return tuple(elements(self.content))

    def integer(self) -> int:
        """Return a number."""
        self._must_be(INTEGER)
        return int.from_bytes(self.content, "big", signed=True)

    def object_identifier(self) -> str:
        """Return an object identifier with dots (X.690 §8.19)."""
        self._must_be(OBJECT_IDENTIFIER)
        if not self.content or len(self.content) > DER_OBJECT_IDENTIFIER_BYTES_MAX or self.content[-1] & 0x80:
            raise DERError("an object identifier is cut short or far too long")
        arcs: list[int] = []
        arc = 0
        for octet in self.content:
            arc = arc << 7 | octet & 0x7F
            if not octet & 0x80:
                arcs.append(arc)
                arc = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))

    def bits(self) -> bytes:
        """Return the whole octets of a bit string."""
        self._must_be(BIT_STRING)
        return self.content[1:]

    def time(self) -> dt.datetime:
        """Return a time, with UTC as its zone (RFC 5280 §4.1.2.5)."""
        text = self.content.decode("ascii", "replace")
        if self.tag == UTC_TIME and len(text) == 13:
            text = ("20" if text[:2] < "50" else "19") + text
        elif self.tag != GENERALIZED_TIME:
            raise DERError("a time is missing")
        try:
            return dt.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC)
        except ValueError:
            raise DERError("a time is malformed") from None

    def _must_be(self, tag: int) -> None:
        if self.tag != tag:
            raise DERError(f"a value has tag {self.tag:02X}H where {tag:02X}H belongs")


def elements(data: bytes) -> Iterator[Element]:
    """Yield the values that follow each other in `data`. Raises DERError where they do not fill it."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise DERError("a value is cut short")
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            if not 0 < count <= DER_LENGTH_BYTES_MAX:
                raise DERError("a length is not in DER")
            length = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + length > len(data):
            raise DERError("a value is cut short")
        yield Element(tag=tag, content=data[at : at + length])
        at += length


def only_element(data: bytes) -> Element:
    """Return the one value that `data` is. Raises DERError."""
    found = tuple(elements(data))
    if len(found) != 1:
        raise DERError("it is not one value")
    return found[0]
