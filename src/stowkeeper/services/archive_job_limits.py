"""The bounds of the jobs on the archive itself, each with its reason."""

FINDINGS_MAX = 10_000
"""Things that are wrong which a job keeps as items of its own, the last so many: a disk that dies makes a million of them.
All are counted, and in the log."""

WRITE_SECONDS = 2.0
"""Time between two writes of how far a job is: each costs a sync, and a run that dies repeats at most this much."""

REASON_LETTERS_MAX = 500
"""Letters of the reason of a removal: it stands in a change row of every version, twice."""

MARK_BATCH_MAX = 3000
"""Versions that a job marks as removing in one transaction: some half a second, since a job gives way within a second. The
command marks a study whole, at one moment."""

UIDS_MAX = 10_000
"""Studies, series or instances that one removal names."""

RULED_VERSIONS_PER_SECOND = 100.0
"""Versions a second that a removal takes away which a retention rule asked for, on average: 360,000 an hour. They go in batches of
64, each under the writer lock for some ten milliseconds, so instances that come in meanwhile wait for a hundredth of the time."""

BYTES_PER_SECOND_MIN = 1000
"""Slowest rate that can be asked of a verification: with less nobody would see it end."""

SCRUB_DAYS_MAX = 3650.0
"""Longest time of a round of the scrub, ten years; who wants less than that wants none."""

SCRUB_ROUND_SHARE = 0.9
"""Share of its days in which a round of the scrub is to be done: the rest is for a server that was off, and for lanes."""

SCRUB_CATCH_UP = 4.0
"""How much faster than the even rate the scrub reads when it is late, at most: a server that was off for a month must not
come back with a disk that does nothing else."""

SCRUB_FILE_COST = 64 << 10
"""Bytes that a file counts for beside its own, when a rate is computed and used up: to find and open it takes a disk as
long as to read about so much."""

SCRUB_SLICE_SECONDS = 30.0
"""How much is read between two pauses: as much as the rate gives in this time. Each slice costs some transactions."""

SCRUB_SLICE_COST_MIN = 16 << 20
"""A slice is no smaller than this: of a small archive the pauses grow instead."""

SCRUB_SLICE_FILES_MAX = 2000
"""Files in a slice, so that its rows are one page or two."""

SCRUB_BURST = 4.0
"""Within a slice files are read so many times as fast as the rate; it is a disk that instances are being kept on."""

SCRUB_BURST_BYTES_MIN = 8 << 20
"""Bytes a second that a slice may read at least: a hundredth of what a disk gives."""

SCRUB_COUNT_SECONDS = 3600.0
"""Time between two counts of what is left to read: one walks over all versions."""

SCRUB_CLOCK_SECONDS = 86_400.0
"""A round that began further in the future than this was begun before the clock was set back: it counts from now."""
