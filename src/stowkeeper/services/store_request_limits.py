"""The bounds of the Store transaction of DICOMweb as service, each with its reason."""

PARTS_AHEAD_MAX = 16
"""Parts of a request that are whole and wait for their outcome: as many as intake has workers, so that their syncs overlap."""

BYTES_AHEAD_MAX = 4 * 1024 * 1024
"""Bytes of those parts, beside the part that is read. So a slow disk slows the sender, and a request takes no more memory whatever
the number of its parts."""

LINES_AT_ONCE_MAX = 1000
"""Ledger lines that a request hands over at once: the lines of others have room beside them."""

REFUSALS_LOGGED_MAX = 100
"""Refused instances of a request that the log tells of one by one; the ledger has each. A body of half a megabyte can hold a
hundred thousand parts of nothing."""

NAMELESS_PARTS_MAX = 10_000
"""Parts of a request that are no instance at all, after which it is not read on. Each costs a kilobyte of memory until the answer,
50 µs of a processor and a line in the ledger, and takes the sender a dozen bytes: a hundred thousand in each of a few requests at once
were a gigabyte and a minute."""

LINES_WAIT_SECONDS = 10.0
"""How long a request waits before it hands over more lines; then they go all the same."""

CREDENTIAL_LETTERS_MAX = 64
"""Letters of a credential's name in the ledger: none is longer."""

SPOOL_WRITE_BYTES = 1024 * 1024
"""Bytes of a body with metadata and bulk data that are laid down at a time."""

BUILDS_AT_ONCE = 2
"""Instances that all requests together build of metadata at a time. One with two million numbers in its JSON takes 200 MB
meanwhile, and eight of them at once took 1.7 GB."""

SPOOLED_NAMES_LETTERS_MAX = 32 * 1024 * 1024
"""Letters of places and types that all parts of bulk data together may have, which are kept until the instances are built: of a
hundred thousand parts with a URL of three UIDs each there are as many."""

UNUSED_PARTS_TOLD_MAX = 100
"""Parts of bulk data that nobody refers to and that an answer names one by one: more say no more."""

PARTS_MAX = 100_000
"""Parts of a request, unless it is set otherwise: the largest studies have some ten thousand instances, and each part takes a
kilobyte of memory until the answer."""
