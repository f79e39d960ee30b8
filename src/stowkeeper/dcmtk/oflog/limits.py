"""The bounds of the log and its configuration, each with its reason."""

from typing import Final

LOG_CONFIG_BYTES_MAX: Final = 1 << 20
"""Bytes of one configuration file. DCMTK's sample, with all its comments, has 8 kB."""

EXPANSIONS_MAX: Final = 10_000
"""Variables replaced in one file before they count as leading to one another without end, which hangs DCMTK. Real
files have a dozen."""

EXPANDED_CHARACTERS_MAX: Final = 1 << 16
"""Characters of one key or value with its variables replaced. The longest that a system takes as a path has 4096."""

FIELD_WIDTH_MAX: Final = 1024
"""Characters that a field of a pattern is filled up to. Terminals have a few hundred columns."""

BUFFER_BYTES_MAX: Final = 1 << 24
"""Bytes that a file appender holds back (BufferSize). So much is lost when the process is killed."""

WAITING_RECORDS_MAX: Final = 100_000
"""Messages that wait in an asynchronous appender (QueueLimit): some hundred megabytes at most."""

REOPEN_SECONDS_MAX: Final = 86_400
"""Seconds until a file that could not be written is tried again (ReopenDelay): a day."""

DATAGRAM_SECONDS_MAX: Final = 1.0
"""Seconds that one message may wait for the system log or a log server to take it; then it is dropped. A daemon that
is alive takes it at once, and a server must not stand still for one that is not."""

RECONNECT_SECONDS: Final = 5.0
"""Seconds between two tries to reach a log server: each may ask a name server, which must not be done for every
message."""
