"""What the other side says in its own words: an Error Comment, a sentence in the answer of a server.

It may be about a patient. People who may look at jobs, forwards and commitments see it, in quotes; no log line and no trace has it.
"""

import re
from typing import Final

_MARKS: Final = str.maketrans("", "", "“”")
_QUOTE: Final = re.compile(r"“[^”]*(?:”|\Z)")
WITHHELD: Final = "“…”"
"""Stands for what is not shown."""


def quote(words: str) -> str:
    """Return words of the other side in quotes that they cannot end."""
    return f"“{words.translate(_MARKS)}”"


def without_quotes(text: str) -> str:
    """Return a text without what is quoted in it, be it cut off within a quote."""
    return _QUOTE.sub(WITHHELD, text) if "“" in text else text
