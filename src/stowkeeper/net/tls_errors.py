"""Why TLS cannot be set up, or was not agreed: each error says what happened, to which file or by which cause.

No error text holds a password, or a part of a key.
"""

import errno
from enum import StrEnum


class TLSFault(StrEnum):
    """What a set-up fails by."""

    KEY = "key"
    PASSWORD = "password"  # noqa: S105 - the name of a kind of fault
    CERTIFICATE = "certificate"
    MISMATCH = "mismatch"
    TRUST = "trust"
    PROFILE = "profile"
    CIPHER_SUITE = "cipher suite"
    DH_PARAMETERS = "DH parameters"
    PROTOCOL = "protocol"
    SEED = "seed"


class TLSSetupError(Exception):
    """TLS cannot be set up as it is asked for. The text is a sentence; `subject` is the file or the name it is about."""

    def __init__(self, fault: TLSFault, subject: str, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = fault
        self.subject = subject


class TLSFailure(ConnectionError):  # noqa: N818 - what happened on the wire, beside the system's own words for it
    """TLS with a peer failed. `strerror` says why, in words that follow the name of the peer.

    `is_silent` tells that the peer said nothing at all, as the look of a load balancer does.
    """

    def __init__(self, words: str, *, is_silent: bool = False) -> None:
        super().__init__(errno.EPROTO, words)
        self.words = words
        self.is_silent = is_silent
