"""Every bound of the upper layer, with its reason.

Lengths are PDU-length field values: the six bytes of PDU type, reserved byte and length itself do not count
(PS3.8 §9.3.1).
"""

from typing import Final

ASSOCIATE_PDU_LENGTH_MAX: Final = 262_144
"""Longest A-ASSOCIATE-RQ or -AC that is taken, in bytes: 256 KiB.

Such a PDU is held whole until it is decoded, for each connection, and before anything is known of the peer. The
format alone would allow more than 8 MB: 128 presentation contexts (their ids are odd, of one byte, PS3.8 §9.3.2.2) of
up to 64 kB each. The most that a sender can have reason to say is 225 KiB: in 128 contexts an abstract syntax of 64
characters and all 46 transfer syntaxes that are not retired, and a user information item as full as a length of 16
bits allows. That leaves room for nine more transfer syntaxes. 128 contexts of four each take less than 25 kB.
"""

FIXED_PDU_LENGTH_MAX: Final = 4
"""Longest A-ASSOCIATE-RJ, A-RELEASE-RQ, A-RELEASE-RP and A-ABORT: the standard fixes their length at 4 bytes."""

ITEMS_MAX: Final = 8_192
"""Most items and sub-items of one A-ASSOCIATE PDU, all levels together.

The most that a sender can have reason to say is 128 contexts (their ids are odd, of one byte, PS3.8 §9.3.2.2), each an
item with an abstract syntax and all 46 transfer syntaxes that are not retired: 6,144, which leaves two thousand for the
user information. The bound keeps a PDU full of tiny items from holding the event loop and the memory: this many were
decoded in 6 ms and kept half a megabyte.
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
