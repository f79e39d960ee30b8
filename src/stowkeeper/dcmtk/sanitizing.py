"""What may stand in names of files and in command lines, of all that a peer can send.

One list of characters serves both: none of them separates directories, and none means anything to a shell, in quotes
of either kind or outside of them.
"""

import re
from typing import Final

from stowkeeper.dcmtk.limits import LOGGED_LETTERS_MAX

ALLOWED_CHARACTERS: Final = "letters and digits of ASCII, blank, and - . : @ _"

_NOT_ALLOWED = re.compile(r"[^ \-.:@A-Za-z0-9_]")


def sanitized(text: str) -> str:
    """Return a text in which every character that is not in `ALLOWED_CHARACTERS` has become `_`."""
    return _NOT_ALLOWED.sub("_", text)


def sanitizing_warning(what: str, before: str, after: str) -> str | None:
    """Say for the log how a value was changed, None when it was not. Control characters are shown escaped."""
    if before == after:
        return None
    return f"unusual characters in {what} were replaced: {shortened(before)!r} became {shortened(after)!r}"


def shortened(text: str) -> str:
    """Return a text of a peer's, cut where it would make a line of the log too long."""
    return text if len(text) <= LOGGED_LETTERS_MAX else f"{text[:LOGGED_LETTERS_MAX]}…"
