"""The bounds of tracing, each with its reason."""

from typing import Final

SHARE_MIN: Final = 0.0001
"""Smallest share of the associations that can be traced: a server that takes ten thousand a day tells one."""

TRACE_SECONDS: Final = 1.0
"""Pause between two looks at the rows. A look that finds nothing is a dozen indexed queries, together some milliseconds."""

LOOK_RETRY_SECONDS: Final = 5.0
"""Pause after a look that failed, since the database could not be read."""

TURN_RETRY_SECONDS: Final = 30.0
"""How often a process of a shared archive sees whether the one that traces has ended."""

SPANS_PER_LOOK: Final = 200
"""Spans that one look makes of each kind of row, so at most 200 a second. One takes an eighth of a millisecond to make and to send,
so while instances come at full speed it is a twentieth of one processor. What is left waits in its table."""

ROWS_PER_LOOK: Final = 5000
"""Rows of each kind that one look passes over where only a share of the traces is wanted."""

ROWS_BEHIND_MAX: Final = 500_000
"""Rows that may wait in a table: forty minutes of such looks. Beyond them tracing begins anew at the newest row."""

OPEN_MAX: Final = 2000
"""Associations, transactions and jobs, of each kind, whose end is awaited; each is looked at by its key in every look."""

FORWARDS_AWAITED_MAX: Final = 50_000
"""Forwards whose end is awaited: 10 MB. With more of them, as when a destination is away for days, the oldest are not told."""

FORWARDS_PER_LOOK: Final = 2000
"""Forwards whose state is looked at in every look, in turn: some milliseconds, and all of them in half a minute."""

QUEUE_SPANS_MAX: Final = 4096
"""Spans that wait for the collector: ten seconds at full speed, 8 MB at most. Further ones are dropped."""

BATCH_SPANS_MAX: Final = 512
"""Spans in one request to the collector, as OpenTelemetry ships it: some 300 kB."""

EXPORT_SECONDS: Final = 10.0
"""Longest time for one request with its repetitions, as OpenTelemetry ships it."""

ANSWER_BYTES_MAX: Final = 64 << 10
"""How much of an answer is read, so that the connection can be used again: those of collectors have a hundred bytes."""

BACK_OFF_SECONDS_FIRST: Final = 1.0
"""Pause after the first request in a row that failed; it doubles each time."""

BACK_OFF_SECONDS_MAX: Final = 60.0
"""Longest pause: so soon at the latest it is noticed that a collector is there again."""

FLUSH_SECONDS: Final = 2.0
"""How long the end of the server waits for spans that are on their way."""

SETTLE_SECONDS: Final = 2.0
"""How long the last look waits for rows that are being written."""

END_SECONDS: Final = 5.0
"""And for all of it, the last look at the rows included, where the disk does not answer any more."""

TEXT_LETTERS_MAX: Final = 512
"""Longest text of an attribute: longer than any UID or AE title, and than most sentences."""

REASON_LETTERS_MAX: Final = 300
"""How much is logged of why a request failed."""

HEADERS_BYTES_MAX: Final = 16 << 10
"""Longest file of headers: what servers take of a request's head."""
