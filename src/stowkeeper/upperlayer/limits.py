"""Every bound of the upper layer, with its reason.

Lengths are PDU-length field values: the six bytes of PDU type, reserved byte and length itself do not count
(PS3.8 §9.3.1).
"""

from typing import Final

ASSOCIATE_PDU_LENGTH_MAX: Final = 1 << 20
"""Longest A-ASSOCIATE-RQ or -AC that is taken, in bytes.

Such a PDU is held whole until it is decoded. 128 contexts with forty transfer syntaxes each and all negotiation
items stay below 200 kB; other receivers draw the line at the same place.
"""

FIXED_PDU_LENGTH_MAX: Final = 4
"""Longest A-ASSOCIATE-RJ, A-RELEASE-RQ, A-RELEASE-RP and A-ABORT: the standard fixes their length at 4 bytes."""

ITEMS_MAX: Final = 16_384
"""Most items and sub-items of one A-ASSOCIATE PDU, all levels together.

256 contexts (an id is one byte) with sixty transfer syntaxes each fit. The bound keeps a PDU full of tiny items
from holding the event loop: decoding this many takes about a tenth of a second at worst.
"""

MAX_PDU_LENGTH_LOCAL_DEFAULT: Final = 131_072
"""Maximum length announced unless told otherwise: the most that DCMTK based peers make use of.

P-DATA is streamed, so no memory hangs on this number.
"""

PDU_LENGTH_PEER_FLOOR: Final = 8
"""Smallest maximum length of a peer that is taken at its word: one PDV with a fragment of two bytes.

A smaller one allows no PDV of even length at all; it is read as this one, so that a peer with a wrong setting
still gets its answers.
"""

PDU_LENGTH_PEER_CEILING: Final = 1 << 20
"""Longest P-DATA-TF that we send however much the peer allows: more saves nothing and holds memory."""

PDU_LENGTH_PEER_IF_UNLIMITED: Final = 131_072
"""What we send at most to a peer that announced 0, "no maximum" (PS3.8 §D.1.1): the most that peers meet in
practice, since DCMTK sends this much to them."""

PDU_LENGTH_PEER_IF_UNSAID: Final = 16_384
"""What we send at most to a peer that announced nothing, which the standard does not foresee: the default of
most peers."""

ARTIM_SECONDS_DEFAULT: Final = 30.0
"""How long a peer may take for its A-ASSOCIATE-RQ, and for closing the connection at the end (PS3.8 §9.1.5)."""

OPERATIONS_WINDOW_DEFAULT: Final = 8
"""Operations outstanding at one time, each way, that are agreed to when a peer asks for a window (PS3.7 §D.3.3.3).

A window of two hides the round trip; eight also keeps a disk with a queue busy. Every operation in it can hold a
message in work, so it is no unbounded number.
"""

OTHER_PDUS_MAX: Final = 16
"""PDUs other than P-DATA-TF, and malformed ones, that are heeded in one association.

An orderly one has three or four. Beyond this the peer only makes us work, or answer by one A-ABORT after the other
(action AA-7) that it may never read: whatever else it sends is dropped unseen until it closes or ARTIM expires.
"""
