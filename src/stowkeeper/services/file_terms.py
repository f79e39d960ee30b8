"""On what terms files are taken in that come by HTTP or by import."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.archive.outcome import Refusal, Refused
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.upperlayer.negotiation import AcceptancePolicy, is_storage

PREAMBLE_LENGTH: Final = 128
_MAGIC: Final = b"DICM"
_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class PreamblePolicy(StrEnum):
    """What becomes of the 128 bytes that a file begins with (PS3.10 §7.1, §7.5). They may hold a program for another system."""

    ZERO = "zero"
    """They are not kept: our files begin with zeros."""

    TIFF = "tiff"
    """They are kept where they begin a TIFF file, as those of slides do, and are zeros elsewhere."""

    KEEP = "keep"
    """They are kept as they come."""

    REFUSE = "refuse"
    """A file is refused whose preamble is not zeros."""


def is_known_transfer_syntax(uid: str) -> bool:
    """Tell whether we know an encoding, so that everything in it can be checked."""
    return uid in TRANSFER_SYNTAXES


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTerms:
    """What is taken, and how. `accepts_class` is asked for the SOP class, `accepts_transfer_syntax` for the encoding."""

    accepts_class: Callable[[str], bool] = is_storage
    accepts_transfer_syntax: Callable[[str], bool] = is_known_transfer_syntax
    duplicates: DuplicatePolicy = DuplicatePolicy.KEEP
    preamble: PreamblePolicy = PreamblePolicy.ZERO


def terms_of(
    acceptance: AcceptancePolicy, *, duplicates: DuplicatePolicy, preamble: PreamblePolicy
) -> FileTerms:
    """Return the terms that are those of C-STORE: the same SOP classes and transfer syntaxes."""

    def accepts_class(sop_class_uid: str) -> bool:
        return is_storage(sop_class_uid) and acceptance.accepts_abstract_syntax(sop_class_uid)

    def accepts_transfer_syntax(uid: str) -> bool:
        is_unknown = acceptance.accept_unknown_transfer_syntaxes and uid not in TRANSFER_SYNTAXES
        return uid in acceptance.transfer_syntaxes or is_unknown

    return FileTerms(
        accepts_class=accepts_class,
        accepts_transfer_syntax=accepts_transfer_syntax,
        duplicates=duplicates,
        preamble=preamble,
    )


def kept_preamble(head: bytes | memoryview, policy: PreamblePolicy) -> bytes:
    """Return the preamble that is kept of a file, empty for zeros. `head` are its first bytes. Raises Refused."""
    preamble = bytes(head[:PREAMBLE_LENGTH])
    has_one = bytes(head[PREAMBLE_LENGTH : PREAMBLE_LENGTH + len(_MAGIC)]) == _MAGIC
    if not has_one or policy is PreamblePolicy.ZERO or not any(preamble):
        return b""
    if policy is PreamblePolicy.REFUSE:
        raise Refused(
            Refusal.CANNOT_UNDERSTAND, "its preamble is not zeros, and such files are not taken here"
        )
    if policy is PreamblePolicy.TIFF and not preamble.startswith(_TIFF):
        return b""
    return preamble
