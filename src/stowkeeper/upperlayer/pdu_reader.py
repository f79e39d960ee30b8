"""From bytes in any split to PDUs and pieces of PDVs: framing alone, without any state of the association.

P-DATA-TF is streamed: each contiguous piece of a PDV becomes one `PDVFragment` with a view into what was given.
Of it nothing is kept but an unfinished header, five bytes at most, so memory depends on neither PDU nor PDV size.
All other PDUs are gathered whole, after their length was held against its bound: a forged length allocates
nothing. What is wrong in a PDU is reported once; the rest of that PDU is skipped by its length. A peer that goes on
and on with such PDUs is not heeded any more.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from stowkeeper.upperlayer.errors import PeerProtocolError
from stowkeeper.upperlayer.events import PDVFragment
from stowkeeper.upperlayer.limits import ASSOCIATE_PDU_LENGTH_MAX, FIXED_PDU_LENGTH_MAX, OTHER_PDUS_MAX
from stowkeeper.upperlayer.pdu import PDU_HEADER_LENGTH, PDV_HEADER_LENGTH, PDUType
from stowkeeper.upperlayer.reasons import AbortReason

_PDU_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")
_unpack_both_headers = struct.Struct(">BxIIBB").unpack_from
_BOTH_HEADERS_LENGTH = PDU_HEADER_LENGTH + PDV_HEADER_LENGTH
_P_DATA_TF = int(PDUType.P_DATA_TF)
_UNLIMITED = 0xFFFF_FFFF
_FOREVER = 1 << 62
_TLS_RECORDS = (0x15, 0x16)
"""What an alert and a handshake of TLS begin with: the likely reason for such a PDU type."""

PDU_LENGTHS_MAX: Final[Mapping[int, int]] = MappingProxyType(
    {
        PDUType.A_ASSOCIATE_RQ: ASSOCIATE_PDU_LENGTH_MAX,
        PDUType.A_ASSOCIATE_AC: ASSOCIATE_PDU_LENGTH_MAX,
        PDUType.A_ASSOCIATE_RJ: FIXED_PDU_LENGTH_MAX,
        PDUType.A_RELEASE_RQ: FIXED_PDU_LENGTH_MAX,
        PDUType.A_RELEASE_RP: FIXED_PDU_LENGTH_MAX,
        PDUType.A_ABORT: FIXED_PDU_LENGTH_MAX,
    }
)
"""The longest body of each PDU that is gathered whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePDU:
    """A PDU other than P-DATA-TF. `body` is valid until the buffer it came in is used again."""

    pdu_type: PDUType
    body: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedPDU:
    """A PDU that can't be taken; the rest of it is skipped."""

    fault: PeerProtocolError


Framed = PDVFragment | WholePDU | MalformedPDU


def context_not_accepted(context_id: int) -> PeerProtocolError:
    """Name the fault of a PDV in a presentation context that was not accepted."""
    return _invalid(f"a PDV in presentation context {context_id}, which was not accepted")


def _invalid(text: str) -> PeerProtocolError:
    return PeerProtocolError(AbortReason.INVALID_PDU_PARAMETER_VALUE, text)


class PDUReader:
    """Reads PDUs from a stream of bytes.

    `p_data_length_max` is the maximum length that we announced, 0 for none. `context_ids` are the presentation
    contexts in which P-DATA may come; None, as long as there was no negotiation, lets every id pass.
    """

    __slots__ = (
        "_body",
        "_body_left",
        "_body_type",
        "_context_id",
        "_ignores_p_data",
        "_is_command",
        "_is_last",
        "_others",
        "_p_data_length_max",
        "_partial_header",
        "_pdu_left",
        "_pdv_left",
        "_pdv_starts",
        "_skip_left",
        "context_ids",
        "fragments_only",
    )

    def __init__(self, *, p_data_length_max: int) -> None:
        self.context_ids: frozenset[int] | None = None
        self.fragments_only = True
        """Whether the last `read` gave nothing but fragments."""
        self._p_data_length_max = p_data_length_max or _UNLIMITED
        self._ignores_p_data = False
        self._partial_header = bytearray()  # a PDU header; or, when _pdu_left is set, a PDV header
        self._pdu_left = 0  # bytes of the current P-DATA-TF behind the current PDV
        self._pdv_left = 0  # bytes of the current PDV that are still to come
        self._pdv_starts = False
        self._context_id = 0
        self._is_command = False
        self._is_last = False
        self._body = bytearray()
        self._body_type = PDUType.A_ABORT
        self._body_left = 0
        self._skip_left = 0
        self._others = 0

    @property
    def is_mid_pdu(self) -> bool:
        """Whether the bytes read so far end within a PDU."""
        return bool(
            self._partial_header or self._pdu_left or self._pdv_left or self._body_left or self._skip_left
        )

    def ignore_p_data(self) -> None:
        """Skip every further P-DATA-TF by its length, whatever that is: the association is over."""
        self._ignores_p_data = True
        self._p_data_length_max = 0  # keeps them off the short cut in `read`

    def read(self, data: memoryview) -> list[Framed]:
        """Take the next bytes, split anywhere, and give what they complete or continue."""
        framed: list[Framed] = []
        self.fragments_only = True
        at = 0
        end = len(data)
        while at < end:
            if self._pdv_left:
                at = self._read_pdv(data, at, end, framed)
            elif self._skip_left:
                skipped = min(self._skip_left, end - at)
                self._skip_left -= skipped
                at += skipped
            elif self._body_left:
                at = self._read_body(data, at, end, framed)
            elif self._pdu_left or self._partial_header or end - at < _BOTH_HEADERS_LENGTH:
                at = self._read_header(data, at, end, framed)
            else:
                # The common case, a P-DATA-TF of one PDV that is here whole, in as few steps as can be.
                pdu_type, length, pdv_length, context_id, control = _unpack_both_headers(data, at)
                whole = at + PDU_HEADER_LENGTH + length
                if (
                    pdu_type == _P_DATA_TF
                    and whole <= end
                    and pdv_length + 4 == length <= self._p_data_length_max
                    and pdv_length >= 2
                    and (self.context_ids is None or context_id in self.context_ids)
                ):
                    piece = data[at + _BOTH_HEADERS_LENGTH : whole]
                    framed.append(
                        tuple.__new__(
                            PDVFragment, (context_id, control & 1 == 1, piece, True, True, control & 2 == 2)
                        )
                    )
                    at = whole
                else:
                    self._begin_pdu(framed, pdu_type, length)
                    at += PDU_HEADER_LENGTH
        return framed

    def _read_header(self, data: memoryview, at: int, end: int, framed: list[Framed]) -> int:
        """Read a PDU or PDV header, which may come in pieces; both have six bytes."""
        partial = self._partial_header
        if partial or end - at < PDU_HEADER_LENGTH:
            taken = min(PDU_HEADER_LENGTH - len(partial), end - at)
            partial += data[at : at + taken]
            at += taken
            if len(partial) < PDU_HEADER_LENGTH:
                return at
            header: bytes | memoryview = bytes(partial)
            partial.clear()
        else:
            header = data[at : at + PDU_HEADER_LENGTH]
            at += PDU_HEADER_LENGTH
        if self._pdu_left:
            self._begin_pdv(framed, *_PDV_HEADER.unpack(header))
        else:
            self._begin_pdu(framed, *_PDU_HEADER.unpack(header))
        return at

    def _begin_pdu(self, framed: list[Framed], pdu_type: int, length: int) -> None:
        if pdu_type == _P_DATA_TF and self._ignores_p_data:
            self._skip_left = length
            return
        fault = self._fault_of_header(pdu_type, length)
        if fault is not None:
            self._give_up(framed, length, fault)
        elif pdu_type == _P_DATA_TF:
            self._pdu_left = length
        elif length == 0:
            self._append_other(framed, WholePDU(pdu_type=PDUType(pdu_type), body=memoryview(b"")))
        else:
            self._body_type = PDUType(pdu_type)
            self._body_left = length

    def _fault_of_header(self, pdu_type: int, length: int) -> PeerProtocolError | None:
        if pdu_type == _P_DATA_TF:
            if length > self._p_data_length_max:
                return _invalid(f"a P-DATA-TF of {length} bytes, {self._p_data_length_max} were announced")
            if length < PDV_HEADER_LENGTH:
                return _invalid(f"a P-DATA-TF of {length} bytes has no place for a PDV")
            return None
        length_max = PDU_LENGTHS_MAX.get(pdu_type)
        if length_max is None:
            hint = ": the peer speaks TLS here" if pdu_type in _TLS_RECORDS else ""
            return PeerProtocolError(
                AbortReason.UNRECOGNIZED_PDU, f"there is no PDU of type {pdu_type:02X}H{hint}"
            )
        if length > length_max:
            return _invalid(f"an {PDUType(pdu_type)} of {length} bytes, {length_max} are allowed")
        return None

    def _begin_pdv(self, framed: list[Framed], length: int, context_id: int, control: int) -> None:
        behind = self._pdu_left - 4 - length
        if length < 2 or behind < 0 or 0 < behind < PDV_HEADER_LENGTH:
            text = f"a PDV item of {length} bytes where its P-DATA-TF has {self._pdu_left - 4} left"
            self._give_up_pdu(framed, _invalid(text))
            return
        if self.context_ids is not None and context_id not in self.context_ids:
            self._give_up_pdu(framed, context_not_accepted(context_id))
            return
        self._pdu_left = behind
        self._pdv_left = length - 2
        self._pdv_starts = True
        self._context_id = context_id
        self._is_command = control & 1 == 1
        self._is_last = control & 2 == 2
        if length == 2:
            framed.append(
                PDVFragment(
                    context_id=context_id,
                    is_command=self._is_command,
                    data=memoryview(b""),
                    starts=True,
                    ends=True,
                    is_last=self._is_last,
                )
            )

    def _read_pdv(self, data: memoryview, at: int, end: int, framed: list[Framed]) -> int:
        left = self._pdv_left
        stop = at + left
        ends = stop <= end
        if not ends:
            stop = end
        self._pdv_left = left - (stop - at)
        framed.append(
            tuple.__new__(
                PDVFragment,
                (self._context_id, self._is_command, data[at:stop], self._pdv_starts, ends, self._is_last),
            )
        )
        self._pdv_starts = False
        return stop

    def _read_body(self, data: memoryview, at: int, end: int, framed: list[Framed]) -> int:
        taken = min(self._body_left, end - at)
        self._body_left -= taken
        piece = data[at : at + taken]
        if self._body or self._body_left:
            self._body += piece
            piece = memoryview(self._body)
        if self._body_left == 0:
            self._body = bytearray()
            self._append_other(framed, WholePDU(pdu_type=self._body_type, body=piece))
        return at + taken

    def _give_up_pdu(self, framed: list[Framed], fault: PeerProtocolError) -> None:
        """Give up a P-DATA-TF at the header of one of its PDVs."""
        left = self._pdu_left - PDV_HEADER_LENGTH
        self._pdu_left = 0
        self._give_up(framed, left, fault)

    def _give_up(self, framed: list[Framed], left: int, fault: PeerProtocolError) -> None:
        self._skip_left = left
        self._append_other(framed, MalformedPDU(fault=fault))

    def _append_other(self, framed: list[Framed], other: WholePDU | MalformedPDU) -> None:
        self._others += 1
        if self._others > OTHER_PDUS_MAX:
            self._skip_left = _FOREVER
            return
        self.fragments_only = False
        framed.append(other)
