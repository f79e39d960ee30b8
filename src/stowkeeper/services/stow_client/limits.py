"""The bounds of the STOW-RS client, each with its reason."""

from typing import Final

BATCH_INSTANCES: Final = 20
"""Instances of one request, unless it is set otherwise: few enough to be sent again, many enough that the wait for the
server's disk weighs little."""

BATCH_INSTANCES_MAX: Final = 1000
"""Most instances of one request: the answer names each, and a lost one leaves all of them unknown."""

BATCH_BYTES: Final = 256_000_000
"""Bytes of one request's files, unless a single one has more. Servers and proxies bound a body, and what is cut off has to
be sent again."""

BATCH_BYTES_MAX: Final = 1_000_000_000_000
"""Largest such bound that can be set: what no server takes in one request."""

PARALLEL_MAX: Final = 16
"""Most requests at once: each has a connection and a thread, and a disk gains nothing by more."""

PIECE_BYTES: Final = 256 * 1024
"""Bytes of a body that are read, and given to the network, at a time: the memory of a request, whatever the files."""

CONNECT_SECONDS: Final = 30.0
"""Longest wait for a connection, the handshake of TLS included: both take a moment when there is anybody."""

LOST_ANSWER_SECONDS: Final = 5.0
"""How long an answer is looked for on a connection that takes no more: what the server said before it closed is there at
once or never."""

STOP_ANSWER_SECONDS: Final = 5.0
"""How long a request that went out whole may wait for its answer when sending was interrupted: a disk has it by then."""

WATCH_SECONDS: Final = 0.2
"""How often a wait looks whether sending was interrupted: a person feels no delay."""

ANSWER_PIECE_BYTES: Final = 64 * 1024
"""Bytes of an answer that are read at a time."""

INTERIM_HEAD_BYTES_MAX: Final = 16 * 1024
"""Longest interim answer (RFC 9110 §15.2), which is passed over: a line or two are usual."""

ANSWER_WORDS_LETTERS_MAX: Final = 300
"""Letters of what a server says that are repeated: a sentence or two, not its page of HTML."""

RETRIES: Final = 3
"""How often a file is sent again after a lost answer, unless it is set otherwise."""

BACK_OFF_SECONDS: Final = 1.0
"""First wait before a server that is busy, or was lost, is tried again; each further one is twice as long."""

BACK_OFF_SECONDS_MAX: Final = 60.0
"""Longest wait of our own choice; a Retry-After may ask for more."""

RETRY_SECONDS: Final = 300.0
"""How long a server that is busy, or was lost, is tried again without taking anything, unless it is set otherwise: time to
be started anew."""

REFUSED_IN_A_ROW_MAX: Final = 32
"""Requests with one file each that are answered 400 one after the other, without an instance stored between them, until
the fault is taken for one of the requests and sending ends."""

REDIRECTS_MAX: Final = 3
"""Redirects (307, 308) within the server that are followed: one is usual, more are a circle."""

CREDENTIAL_BYTES_MAX: Final = 16 * 1024
"""Longest token or password. Tokens with signed claims have a few kilobytes, and servers refuse longer heads."""

JOURNAL_LINE_BYTES_MAX: Final = 64 * 1024
"""Longest line of a journal: a path has 4096 bytes, each of them six letters of JSON at most."""
