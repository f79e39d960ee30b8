"""The bounds and fixed choices of the database, each with its reason.

Sizes are bytes unless a name says pages. Costs named here were measured with `bench/catalog_growth.py` on
ext4, two cores.
"""

SQLITE_VERSION_MIN = (3, 34, 0)
"""The oldest SQLite we run on: partial indexes, upserts, window functions and row values are older than this,
and it is what the long-lived distributions carry."""

PAGE_SIZE = 4096
"""Bytes of a database page: the block of the file systems we run on. An instance costs one page of a random
key (its UID); pages of 1024 and 2048 made that no cheaper and the rows that come in order dearer."""

WRITER_CACHE_BYTES = 4 << 20
"""Page cache of the writing connection: a transaction of 512 instances dirties about 3 MB. 8, 16 and 64 MB
gave the same insert rate, since what is not in it comes from the system's page cache, and a receiver's memory
is bounded."""

READER_CACHE_BYTES = 2 << 20
"""Page cache of each reading connection: the inner pages of every index of a million instances fit."""

CHECKPOINT_PAGES = 8192
"""Pages in the write-ahead log from which a commit also copies them into the database (SQLite's default is
1000). A page is copied once a checkpoint however often it is in the log, and each checkpoint syncs: with 1000
an instance took a sixth more processor time, and twice the time on a busy disk. 16384 gained nothing more. It
is 32 MB of log, half of the reserve that is kept for a full disk."""

LOG_SIZE_KEPT = 48 << 20
"""The write-ahead log is cut back to this when it starts anew, in case a long reader made it grow."""

DATABASE_MODE = 0o600
"""Mode of a database and its locks where nobody says another: it tells of patients."""

BUSY_SECONDS = 10.0
"""How long SQLite waits for a lock that another program holds. Our own processes meet at the writer lock
instead, so only a backup tool or a person with a shell is behind such a wait."""

WRITER_LOCK_SECONDS = 30.0
"""How long a write transaction waits for another thread or process to end its own. Transactions take
milliseconds, a checkpoint on a slow disk seconds, a schema migration of a large archive the longest."""

WRITER_LOCK_POLL_SECONDS_MIN = 0.000_1
"""First pause between two looks at a writer lock that is taken; it doubles up to the next bound."""

WRITER_LOCK_POLL_SECONDS_MAX = 0.002
"""Longest pause between two looks at a taken writer lock: small against a transaction of 200 instances."""

ALONE_SECONDS = 3.0
"""How long a change of the schema waits for others to close the database: `status` of a large archive takes two seconds. A
server does not close it, and must not wait for long at the writer lock, which is held meanwhile."""

ALONE_POLL_SECONDS = 0.02
"""Pause between two looks whether the others have closed the database."""

HOLDERS_NAMED_MAX = 8
"""Processes that a message names by their ids; it says how many more there are."""

READERS_KEPT = 4
"""Reading connections that stay open for the next reader; opening one costs about a millisecond."""

READERS_MAX = 16
"""Reading connections open at once: more readers than that wait for one, and share two processors anyway."""

READER_SECONDS = 30.0
"""How long a reader waits for a connection when READERS_MAX are in use."""

VARIABLES_MAX = 500
"""Values in one `IN (…)` list: SQLite compiled long ago takes 999 variables in a statement."""

ROWS_PER_PAGE = 1000
"""Rows that a walk over all versions or a long listing reads at a time: about a megabyte, and a snapshot that
is given back after some milliseconds."""

APPLICATION_ID = 0x53_74_77_6B
"""Stands in the header of our database file ("Stwk"), where `file` and SQLite itself look for it."""

BACKUP_PAGES = 4096
"""Pages that a backup copies between two words of progress: 16 MB, some ten milliseconds. All are of one snapshot."""
