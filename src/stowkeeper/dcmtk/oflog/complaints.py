"""What is said about the log itself: on standard error, since the log may be what does not work."""

from typing import Final, TextIO

_WARNING: Final = "log4cplus:WARN"
_ERROR: Final = "log4cplus:ERROR"
"""How such lines begin in DCMTK, where scripts look for them."""


def write_to(stream: TextIO, text: str) -> None:
    """Write a text at once, and drop it where nobody takes it. Never raises.

    Characters that the stream cannot hold are written as escapes.
    """
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):  # closed, or its reader is gone
        pass


class Complaints:
    """Takes what is wrong with the log. Nothing is said while `is_quiet` holds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_quiet = False

    def warn(self, text: str) -> None:
        """Say what has no effect, or another one than was meant."""
        self._say(_WARNING, text)

    def error(self, text: str) -> None:
        """Say what cannot be done."""
        self._say(_ERROR, text)

    def _say(self, prefix: str, text: str) -> None:
        if not self.is_quiet:
            write_to(self._stream, f"{prefix} {text}\n")
