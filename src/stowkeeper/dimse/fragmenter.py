"""From messages to P-DATA-TF PDUs: the sending half of PS3.8 §9.3.5 and Annex E.

Every PDU made here holds one PDV, of an even length unless an odd data set ends in it. The maximum length that the peer
announced counts the variable field, so six bytes of it go to the PDV's own header; 0 means that there is no maximum.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.limits import PDU_LENGTH_SEND_MAX, PDU_LENGTH_SEND_MIN

Buffer: TypeAlias = bytes | bytearray | memoryview

_P_DATA_TF: Final = 0x04
_COMMAND: Final = 0x01
_LAST: Final = 0x02
_PDV_HEADER_LENGTH: Final = 6

# Type, reserved, PDU length; PDV item length, presentation context id, message control header (PS3.8 Tables 9-22, 9-23).
_pdu_header: Final = struct.Struct(">BxIIBB")


def pdv_data_length_max(max_pdu_length: int) -> int:
    """Return how many bytes of a message one PDU may carry: even, and within our own bound.

    Whoever reads a data set from a file does well to read a multiple of it at a time: every chunk that
    `data_set_pdus` is given ends a PDU.

    Raises:
        PeerError: the peer's maximum is below `PDU_LENGTH_SEND_MIN` and not 0, so nothing can be sent to it.

    """
    if max_pdu_length == 0 or max_pdu_length > PDU_LENGTH_SEND_MAX:
        max_pdu_length = PDU_LENGTH_SEND_MAX
    elif max_pdu_length < PDU_LENGTH_SEND_MIN:
        raise PeerError(
            f"Maximum length of {max_pdu_length} announced by the peer leaves no room for data, "
            f"{PDU_LENGTH_SEND_MIN} is the least (PS3.8 §D.1)"
        )
    return (max_pdu_length - _PDV_HEADER_LENGTH) & ~1


def command_pdu(context_id: int, command: bytes, max_pdu_length: int) -> bytes:
    """Return an encoded command as P-DATA-TF, in one PDU if the peer's maximum allows, else in as many as it takes.

    Raises:
        PeerError: see `pdv_data_length_max`.
        LocalError: a presentation context id outside 0 to 255, or a command of odd or no length.

    """
    length = len(command)
    if not length or length % 2:
        raise LocalError(
            f"An encoded command has an even length and is not empty; this one has {length} bytes"
        )
    step = pdv_data_length_max(max_pdu_length)
    if length <= step:
        return _header(context_id, _COMMAND | _LAST, length) + command
    pieces = []
    for start in range(0, length, step):
        piece = command[start : start + step]
        is_last = start + step >= length
        pieces.append(_header(context_id, _COMMAND | _LAST if is_last else _COMMAND, len(piece)) + piece)
    return b"".join(pieces)


def data_set_pdus(
    context_id: int, chunks: Iterable[Buffer], max_pdu_length: int
) -> Iterator[tuple[bytes, memoryview]]:
    """Yield a whole data set as P-DATA-TF: for each PDU its header and a view into the chunk, to be sent as a pair.

    Values are not copied, but for one byte where a chunk of odd length is not the last: it is carried over behind the
    next header, so that fragments stay even. A data set whose whole length is odd ends in an odd fragment, since its
    bytes are the sender's own and not to be changed here; some receivers abort at that. Without any bytes it is one
    empty last fragment.

    One chunk is taken ahead of the PDU that is yielded, to know which one is the last. So a chunk must stay unchanged
    until the second one after it is taken: two buffers filled in turn suffice.

    Raises:
        PeerError: see `pdv_data_length_max`.
        LocalError: a presentation context id outside 0 to 255.

    """
    return _data_set_pdus(context_id, chunks, pdv_data_length_max(max_pdu_length))


def _data_set_pdus(
    context_id: int, chunks: Iterable[Buffer], step: int
) -> Iterator[tuple[bytes, memoryview]]:
    carried = b""
    previous: memoryview | None = None
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        if not view:
            continue
        if previous is not None:
            odd = (len(carried) + len(previous)) % 2
            even_end = len(previous) - odd
            yield from _chunk_pdus(context_id, carried, previous[:even_end], step, is_last=False)
            carried = bytes(previous[even_end:])
        previous = view
    yield from _chunk_pdus(context_id, carried, previous or memoryview(b""), step, is_last=True)


def chunk_pdus(
    context_id: int, chunk: Buffer, max_pdu_length: int, *, is_last: bool
) -> Iterator[tuple[bytes, memoryview]]:
    """Yield one chunk of a data set as P-DATA-TF, for a caller that fetches chunks itself and knows which is the last.

    The pairs are those of `data_set_pdus`; nothing is taken ahead, so the chunk may be reused once they are sent.

    Raises:
        PeerError: see `pdv_data_length_max`.
        LocalError: a presentation context id outside 0 to 255, or a chunk of odd length that is not the last.

    """
    step = pdv_data_length_max(max_pdu_length)
    view = memoryview(chunk).cast("B")
    if len(view) % 2 and not is_last:
        raise LocalError(
            f"A chunk of {len(view)} bytes may only end a data set: fragments are even (PS3.8 §E.1)"
        )
    return _chunk_pdus(context_id, b"", view, step, is_last=is_last)


def _chunk_pdus(
    context_id: int, carried: bytes, view: memoryview, step: int, *, is_last: bool
) -> Iterator[tuple[bytes, memoryview]]:
    """Cut one chunk, with at most one byte carried over from the chunk before it."""
    start = 0
    end = len(view)
    full_header = _header(context_id, 0, step)
    while end - start + len(carried) > step:
        stop = start + step - len(carried)
        yield full_header + carried, view[start:stop]
        start = stop
        carried = b""
    length = end - start + len(carried)
    if length or is_last:
        yield _header(context_id, _LAST if is_last else 0, length) + carried, view[start:]


def _header(context_id: int, control: int, length: int) -> bytes:
    try:
        return _pdu_header.pack(_P_DATA_TF, length + _PDV_HEADER_LENGTH, length + 2, context_id, control)
    except struct.error:
        raise LocalError(f"{context_id} is not the id of a presentation context") from None
