"""What may stand in names of files and in command lines, of all that a peer can send.

One list of characters serves both: none of them separates directories, and none means anything to a shell, in quotes
of either kind or outside of them.
"""

import re
from typing import Final

ALLOWED_CHARACTERS: Final = "letters and digits of ASCII, blank, and - . : @ _"

_NOT_ALLOWED = re.compile(r"[^ \-.:@A-Za-z0-9_]")


def sanitized(text: str) -> str:
    """Return a text in which every character that is not in `ALLOWED_CHARACTERS` has become `_`."""
    return _NOT_ALLOWED.sub("_", text)


def sanitizing_warning(what: str, before: str, after: str) -> str | None:
    """Say for the log how a value was changed, None when it was not. Control characters are shown escaped."""
    if before == after:
        return None
    return f"unusual characters in {what} were replaced: {before!r} became {after!r}"
