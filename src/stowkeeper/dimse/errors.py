"""The two error families of the DIMSE room: the peer broke the rules, or we did.

Texts name tags, lengths, command fields and presentation contexts, never values of a data set.
"""


class DimseError(Exception):
    """Base of everything that this room raises on purpose."""


class PeerError(DimseError):
    """The peer broke PS3.7, or the fragmentation rules of PS3.8 Annex E, in a way that cannot be answered.

    The association is of no further use: abort it (A-ABORT, source 0: service-user) and log the text.
    """


class LocalError(DimseError):
    """We asked for what the standard or the negotiated limits do not allow; nothing was sent."""
