"""The bounds of what the status tells, each with its reason."""

RATE_SECONDS = 24 * 3600
"""The time whose instances tell how fast the disk fills: a day has the quiet hours of a hospital in it."""

RETRYING_SECONDS_MAX = 3600
"""How long a job may be tried again and again before a person should look: a peer that restarts is back by then."""

DEPOT_FILES_READ_MAX = 10_000
"""Files in the depot whose receipts are read: twice what may ever be kept and not listed, by the settings as shipped."""

FULL_DAYS_MAX = 3650
"""Days beyond which no date is said for the full disk: nobody's rate stays the same for ten years."""

CATALOG_TRIES = 2
"""How often the catalog is tried. Where nobody had it open it is read as a file, and a server that comes in between changes
that file once."""

LOG_FREE_BYTES_MIN = 1_000_000
"""Free bytes on the log's disk below which log lines are as good as lost: an association takes a kilobyte."""

READINESS_SECONDS = 2.0
"""How long a server on this machine may take to say whether it is ready: it asks neither disk nor database for that."""

READINESS_BYTES_MAX = 1000
"""What is read of its answer, which is a sentence."""
