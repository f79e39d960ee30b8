"""Values as DCMTK writes them: how texts and odd lengths are padded.

Where input is corrected, blanks at the end of a text go, and white space anywhere in a UID and NULs at its end; one
byte brings an odd length back to an even one. A text of odd length is not touched but for that byte, which is NUL then.
Where input is not corrected, texts and bytes are still padded, and numbers keep an odd length.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from stowkeeper.dcmtk.encoding.limits import COPY_BYTES, READ_AHEAD_BYTES
from stowkeeper.dcmtk.encoding.source import Source
from stowkeeper.dcmtk.encoding.value_representations import Content, ValueRepresentation

WHITE_SPACE: Final = b"\t\n\v\f\r "
"""What is taken out of UIDs."""


def written_length(
    source: Source, offset: int, length: int, vr: ValueRepresentation, *, correct_input: bool
) -> int:
    """Return how many bytes the value of an element has when it is written, padding included."""
    content = vr.content
    if correct_input and length and content is Content.UID:
        return _even(_length_of_uid(source, offset, length))
    if correct_input and not length & 1 and content is Content.TEXT:
        return _even(_length_of_text(source, offset, length))
    keeps_odd_length = content is Content.WORDS or (content is Content.NUMBERS and not correct_input)
    return length if keeps_odd_length else _even(length)


def pieces_of_value(
    source: Source, offset: int, length: int, vr: ValueRepresentation, written: int, *, correct_input: bool
) -> Iterable[bytes]:
    """Give the value of an element as it is written, in the byte order of the source.

    `written` is its written length. No piece but the last cuts a number.
    """
    is_cleaned = correct_input and vr.content is Content.UID
    received = source.pieces(offset, length, COPY_BYTES)
    if written == length and not is_cleaned:
        return received
    # What was taken from the end of a text is what it is padded with: only what was not there is added.
    padding = b" " if vr.content is Content.TEXT and not correct_input else b"\0"
    if is_cleaned:
        received = (piece.translate(None, WHITE_SPACE) for piece in received)
    return _cut_or_padded(received, written, padding)


def _cut_or_padded(pieces: Iterable[bytes], length: int, padding: bytes) -> Iterator[bytes]:
    """Bring pieces to a length; what is added becomes part of the last piece."""
    held = b""
    for piece in pieces:
        if held:
            yield held
        held = piece[:length]
        length -= len(held)
    yield held + padding * length


def _even(length: int) -> int:
    return length + (length & 1)


def _length_of_text(source: Source, offset: int, length: int) -> int:
    end = 0
    at = 0
    for piece in source.pieces(offset, length, READ_AHEAD_BYTES):
        kept = len(piece.rstrip(b" "))
        end = at + kept if kept else end
        at += len(piece)
    return end


def _length_of_uid(source: Source, offset: int, length: int) -> int:
    end = 0
    at = 0
    for received in source.pieces(offset, length, READ_AHEAD_BYTES):
        piece = received.translate(None, WHITE_SPACE)
        kept = len(piece.rstrip(b"\0"))
        end = at + kept if kept else end
        at += len(piece)
    return end
