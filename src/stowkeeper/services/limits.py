"""The bounds of the services, each with its reason."""

CONVERSION_PIECE_BYTES = 64 * 1024
"""Bytes of a data set that a conversion handles at a time: its memory, whatever the size of the object."""

PRIVATE_CREATOR_LENGTH_MAX = 64
"""Characters of a private creator that is looked up, those of VR LO (PS3.5 §6.2); a longer one is in no dictionary."""

DECODER_WORDS_LETTERS_MAX = 300
"""Letters of a decoder's error that are repeated: its first sentences, not the list of all it tried."""

FILE_HEAD_BYTES = 4096
"""First bytes of a file that are read to see what it is: file meta information and the identifiers of the data set
stand there, and the system reads no less from a disk."""

CONTEXTS_PER_ASSOCIATION_MAX = 128
"""Presentation contexts of one association request: their ids are the odd numbers below 256 (PS3.8 §9.3.2.2). The
ledger shows as many; who uses even ids too can have more accepted, and the ledger then has their number."""

USER_NAME_LETTERS_MAX = 256
"""Letters of a user name (PS3.7 §D.3.3.7) that the ledger keeps: no directory has longer ones, the item has room for
65,535."""

VERSION_NAME_LETTERS_MAX = 64
"""Letters of an implementation version name that the ledger keeps: four times what it may have (PS3.7 §D.3.3.2.3),
since some have more."""

LEDGER_WORDS_LETTERS_MAX = 300
"""Letters of the words on how an association ended that the ledger keeps: they may repeat what a peer sent."""

READ_PIECE_BYTES = 256 * 1024
"""About how many bytes of a file are read, and given to the network, at a time."""

READ_AHEAD_PIECES = 8
"""Pieces of files that are read ahead of the network, for an association: 2 MiB at most."""

FILES_AHEAD_MAX = 8
"""Files that an association has opened ahead of the one that it sends, so that small ones come without a wait."""

BACK_OFF_SECONDS_MAX = 60.0
"""Longest wait before a peer that is out of resources, or was lost, is tried again."""

IMPORT_BUFFER_BYTES = 1 << 20
"""Bytes of a file that an import reads at a time. File meta information that is longer is not read."""

IMPORT_BUFFERS = 24
"""Buffers of an import, hence files on their way at once: more than the threads that sync, so that none of them
waits for the next file. With IMPORT_BUFFER_BYTES this is the memory of an import, whatever the size of the files."""

IMPORT_LOOKUP_BATCH = 256
"""Kept files whose outcome (new, identical, in conflict) is asked of the catalog at a time."""

IMPORT_LISTING_SECONDS = 30.0
"""How long an import waits in the end until the catalog lists all that it kept; it is kept even without."""
