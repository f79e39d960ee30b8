"""The bounds of the Store transaction of DICOMweb as service, each with its reason."""

PARTS_AHEAD_MAX = 16
"""Parts of a request that are whole and wait for their outcome: as many as intake has workers, so that their syncs overlap."""

BYTES_AHEAD_MAX = 4 * 1024 * 1024
"""Bytes of a request that wait for the disk, beside the head of one part. So a slow disk slows the sender, and a request takes
no more memory whatever the size of its parts."""

LINES_AT_ONCE_MAX = 1000
"""Ledger lines that a request hands over at once: the lines of others have room beside them."""

LINES_WAIT_SECONDS = 10.0
"""How long a request waits before it hands over more lines; then they go all the same."""

CREDENTIAL_LETTERS_MAX = 64
"""Letters of a credential's name in the ledger: none is longer."""

SPOOL_WRITE_BYTES = 1024 * 1024
"""Bytes of a body with metadata and bulk data that are laid down at a time."""

XML_PIECE_BYTES = 64 * 1024
"""Bytes of metadata that the XML parser gets at a time."""

BUILT_PIECES_BYTES = 512 * 1024
"""Bytes of a built instance that one visit to a thread brings."""

UNUSED_PARTS_TOLD_MAX = 100
"""Parts of bulk data that nobody refers to and that an answer names one by one: more say no more."""

PARTS_MAX = 100_000
"""Parts of a request, unless it is set otherwise: the largest studies have some ten thousand instances, and each part takes a
kilobyte of memory until the answer."""
