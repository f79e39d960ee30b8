"""Application entity titles: sixteen characters on the wire, and what real peers put there.

Titles are compared without the blanks and NULs around them and with regard to case (PS3.8 Table 9-11,
PS3.5 §6.2). A peer's title is taken as it comes, since an odd one still names somebody and belongs in the
ledger; a title of our own, from the settings, must be a valid one.
"""

from typing import Final

AE_TITLE_LENGTH: Final = 16
"""Bytes of a title in A-ASSOCIATE PDUs, and characters of an AE value at most (PS3.8 Table 9-11, PS3.5 §6.2)."""

_PADDING = b"\0 "
_FIRST_GRAPHIC = " "
_LAST_GRAPHIC = "~"


class AETitleError(ValueError):
    """A title that cannot be put on the wire: it is too long or has characters that no byte stands for."""


def normalize_ae_title(raw: bytes) -> str:
    """Decode a title as a peer sent it, without the blanks and NULs on both sides.

    Everything else stays, control characters too, so that a log can show them escaped. Never fails.
    """
    return raw.strip(_PADDING).decode("latin-1")


def ae_title_defect(title: str) -> str | None:
    """Say in words what keeps `title` from being a valid application entity title; None when it is one.

    Valid is 1 to 16 characters of the default repertoire without control characters and backslash
    (PS3.5 §6.2), and no blank at either end, since those mean nothing on the wire.
    """
    if not title.strip(" "):
        return "it is empty"
    if len(title) > AE_TITLE_LENGTH:
        return f"it has {len(title)} characters, {AE_TITLE_LENGTH} are allowed"
    if "\\" in title:
        return "it has a backslash, which separates values"
    if not all(_FIRST_GRAPHIC <= character <= _LAST_GRAPHIC for character in title):
        return "it has a character other than printable ASCII"
    if title != title.strip(" "):
        return "it begins or ends with a blank"
    return None


def is_valid_ae_title(title: str) -> bool:
    """Tell whether `title` may stand in a setting or a request of ours; see `ae_title_defect`."""
    return ae_title_defect(title) is None


def encode_ae_title(title: str) -> bytes:
    """Return the 16 bytes of `title`, padded with blanks at its end (PS3.8 Table 9-11).

    More than valid titles are encoded: a response repeats the titles of its request, whatever they are
    (PS3.8 Table 9-17). Raises AETitleError when `title` is longer than 16 characters or has one beyond
    Latin-1.
    """
    if len(title) > AE_TITLE_LENGTH:
        msg = f"the AE title {title!r} has {len(title)} characters, {AE_TITLE_LENGTH} are allowed: shorten it"
        raise AETitleError(msg)
    try:
        return title.encode("latin-1").ljust(AE_TITLE_LENGTH)
    except UnicodeEncodeError as error:
        msg = f"the AE title {title!r} has characters that cannot be sent: use printable ASCII"
        raise AETitleError(msg) from error
