"""The bounds of the DIMSE room, each with its reason.

What a peer sends is held against these before memory grows; what we send keeps them too.
"""

from typing import Final

COMMAND_SET_LENGTH_MAX: Final = 64 * 1024
"""Bytes of one encoded command set, received or sent.

A C-STORE request takes about 200. The largest legal one is an N-GET with a long Attribute Identifier List, four bytes
a tag: 64 KiB hold 16 000 tags, more than the data dictionary has for any object.
"""

ERROR_COMMENT_LENGTH_MAX: Final = 64
"""Characters of an Error Comment (0000,0902) (PS3.5 §6.2, VR LO)."""

MESSAGE_ID_MAX: Final = 0xFFFF
"""The highest message id, an unsigned 16-bit number (PS3.7 §E.1). Ours run from 1: a 0 is too easily read as none."""

UID_ELEMENTS_CACHED_MAX: Final = 256
"""SOP Class UIDs whose encoded element is remembered, at less than 200 bytes each.

An association may propose 128 contexts; twice that lets two such peers take turns without a miss.
"""

PDU_LENGTH_SEND_MAX: Final = 256 * 1024
"""Bytes in the variable field of a P-DATA-TF that we send, also to a peer that sets no maximum or a larger one.

At this size the twelve bytes of headers and one system call a PDU are below one percent of the cost, while a peer that
collects a whole PDU before it reads it need not hold more.
"""

PDU_LENGTH_SEND_MIN: Final = 8
"""The smallest announced maximum that can be served: six bytes of PDV header and two of data.

Fragments have an even length (PS3.8 §E.1), so below this nothing can be sent at all.
"""

OPERATIONS_INVOKED_MAX: Final = 128
"""Operations of ours that may await their response at once, also when the window is unlimited (0) or larger.

Enough to hide a long line; every one more is an instance that has to be sent again when the association breaks.
"""

OPERATIONS_PERFORMED_MAX: Final = 128
"""Operations of the peer in progress at once when the granted window is unlimited (0) or larger.

Each one may hold a file and the state of an intake.
"""

OPERATIONS_EXCESS_MAX: Final = 64
"""Operations beyond the granted window before the peer is given up.

A provider that heeds `PerformedOperations.pause` stays at one; this ends a peer that floods one that does not.
"""
