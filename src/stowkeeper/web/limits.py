"""The bounds of HTTP, each with its reason."""

# Connections

CONNECTIONS_MAX = 256
"""Connections that are open at once, those that are still shaking hands for TLS included. Each costs a descriptor, and the
associations next door need theirs. A connection more is answered 503, or closed where TLS is spoken."""

CONNECTIONS_PER_CLIENT_MAX = 64
"""Connections of one client address that are open at once, a quarter of CONNECTIONS_MAX: one client cannot take those of all
others. A browser opens six, an upload in parallel a dozen or two. Trusted proxies may have all."""

TURNED_AWAY_SECONDS = 2.0
"""How long a connection beyond CONNECTIONS_MAX may take to send the request that is answered 503. As many as
CONNECTIONS_MAX wait so at once; what comes beyond is closed without words."""

ACCEPT_PAUSE_SECONDS = 0.5
"""Pause after a connection could not be accepted, since no open file is left: it stays in the system's queue."""

SWEEP_SECONDS = 5.0
"""How often connections are cut off that were closing already the last time: a client that takes nothing would keep them."""

BACKLOG = 128
"""Connections that the system holds for us before they are accepted."""

HEAD_BYTES_MAX = 16 * 1024
"""Request line and header fields of a request. Browsers and proxies send some 2 kB; what is longer is answered 431."""

HEAD_SECONDS = 10.0
"""From the first byte of a request, or from the beginning of the connection, to the end of its header fields. Who sends
a byte a second, to hold a connection, has it for so long."""

HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake, as HEAD_SECONDS for the head."""

KEEP_ALIVE_SECONDS = 15
"""How long a connection stays open after an answer, for the next request."""

LINGER_SECONDS = 5.0
"""How long we read on and throw away when a request was answered before its body was there: a client that is still sending
would not see the answer if we closed at once. Then the connection is closed."""

STOP_SECONDS = 10.0
"""How long requests may take to their end when the server stops; then they are cut off."""

# Requests

BODY_BYTES_MAX = 1 << 20
"""Body of a request where the route says nothing else: room for a job over twenty thousand UIDs."""

BODY_STALL_SECONDS = 20.0
"""How long nothing may come of a body that is on its way."""

BODY_PIECE_BYTES = 256 * 1024
"""Bytes of a body that a thread of its own reads at a time: what a processor's cache holds until they are hashed and written."""

SEND_STALL_SECONDS = 30.0
"""How long a client may take none of what we send, and how long an answer that has begun may wait for its next piece."""

STORE_BODY_BYTES_MAX = 1 << 50
"""A body of a store request, a petabyte: its parts have bounds of their own, and the disk has one."""

STORE_SECONDS = 24 * 3600.0
"""For a store request, from its head to its answer: a study of gigabytes over a slow line. A body that stands still or trickles
is given up long before."""

STORE_SLOW_SECONDS = 60.0
"""From when on a body has to have come at STORE_BYTES_PER_SECOND_MIN or faster."""

STORE_BYTES_PER_SECOND_MIN = 1024.0
"""Slowest body of a store request, on the average: a telephone modem was faster. Who sends a byte now and then holds a connection
for nothing."""

STORE_RETRY_SECONDS = 30
"""What a client is told to wait before it tries again where there is no room, or too many others: space is looked at every second,
and a disk is not emptied in less."""

REQUEST_SECONDS = 60.0
"""From the head of a request to the beginning of its answer, where the route says nothing else. Some requests wait for the
writer lock of the database, for up to 30 s."""

MEMBERS_MAX = 100
"""Members of an object that we are sent: ours have up to twenty."""

ERRORS_TOLD_MAX = 10
"""Parts of a request that do not fit and are named; how many there are is told in any case."""

JSON_VALUES_MAX = 1_000_000
"""Lists and objects in a body of JSON, and as many values in rows: a request for 100,000 references has 500,000 of the first and
400,000 of the others. Each takes up to some 200 bytes of memory once it is read."""

JSON_VALUES_AT_ONCE_MAX = 30_000
"""The same of a body that is read in one go, as on every route but two: while it is, no other thread of the process runs, the
receiving ones neither. That is 2 µs a value at most, and 20 ms for a megabyte of digits. A job over twenty thousand UIDs fits."""

JSON_AT_ONCE_BYTES = 64 << 10
"""Bodies of more are read value by value where they may have JSON_VALUES_MAX values (`load_json`): 64 MiB in one go kept every
thread standing for 1 to 4 seconds, that of digits the longest."""

JSON_TEXT_CHARACTERS_MAX = 1 << 20
"""Characters of a text, a number or a gap in a body that is read value by value. Ours are UIDs; one such text takes some
milliseconds."""

JSON_MEMBERS_MAX = 10_000
"""Members of an object in such a body. Ours have four; to make an object of a million takes a third of a second in one go."""

LARGE_BODIES_AT_ONCE = 1
"""Bodies longer than BODY_BYTES_MAX that are taken apart at a time: one can take some hundred megabytes meanwhile."""

JSON_DEPTH_MAX = 32
"""Lists and objects inside each other in a body. Ours need four; deep ones only exhaust the stack of whoever reads them."""

THREADS_MAX = 8
"""Threads in which requests are worked on. Each may hold one of the sixteen reading connections of the database, and the
receiving path, jobs and commands need some too."""

# Who asks too often

REQUESTS_PER_SECOND = 500.0
"""Requests of one client address, in the long run: more than a server on two cores answers, so that who puts instances in by
HTTP is never held up by it; less than a flood."""

REQUESTS_BURST = 2000.0
"""Requests that one client address may make at once before REQUESTS_PER_SECOND holds: those of a few seconds."""

FAILED_AUTHENTICATIONS_PER_SECOND = 1 / 6
"""Wrong secrets for one name of one client address, in the long run: ten a minute."""

FAILED_AUTHENTICATIONS_BURST = 10.0
"""Wrong secrets for one name before FAILED_AUTHENTICATIONS_PER_SECOND holds: a person who mistypes."""

CLIENT_FAILURES_PER_SECOND = 1.0
"""Wrong secrets of one client address for all names together, in the long run. Each costs us some 50 ms of a processor; many people
and programs may share an address."""

CLIENT_FAILURES_BURST = 100.0
"""Wrong secrets of one client address before CLIENT_FAILURES_PER_SECOND holds: five seconds of a processor."""

CLIENTS_REMEMBERED_MAX = 4096
"""Client addresses whose rates are known; the one that was not heard of for longest is forgotten first."""

# Credentials

CREDENTIALS_MAX = 1000
"""Credentials of an archive. They are read as a whole, once a second at most."""

CREDENTIAL_NAME_LETTERS_MAX = 64
"""Letters of the name of a credential: it stands in every line of the log and in the audit trail."""

CREDENTIALS_FRESH_SECONDS = 1.0
"""How long the credentials that were read last are used. So one that is removed by another process opens nothing a second
later."""

VERIFIED_SECONDS = 60.0
"""How long a secret that was verified is known again without scrypt."""

VERIFIED_MAX = 1024
"""Verified secrets that are remembered, as keyed hashes."""

SECRET_BYTES = 32
"""Random bytes of a token: 256 bits, which nobody guesses."""

PASSWORD_LETTERS_MIN = 12
"""Shortest password: it is all that stands between the network and the archive. NIST SP 800-63B asks for eight and more."""

PASSWORD_BYTES_MAX = 256
"""Longest password. What is longer is refused and not cut."""

SCRYPT_COST = 1 << 14
"""scrypt's N: with SCRYPT_BLOCK_SIZE 16 MiB and some 50 ms for each guess, as RFC 7914 and OWASP have it for a login."""

SCRYPT_BLOCK_SIZE = 8
"""scrypt's r."""

SCRYPT_PARALLELIZATION = 1
"""scrypt's p."""

SCRYPT_MEMORY_MAX = 64 << 20
"""Memory that one scrypt may take: four times what it needs, so that a row with other parameters cannot exhaust ours."""

SCRYPTS_AT_ONCE = 2
"""Secrets that are verified at once: 32 MiB, and half of the smallest machine's processors."""

SALT_BYTES = 16
"""Random bytes of a salt (RFC 7914)."""

DIGEST_BYTES = 64
"""Bytes of a hash: the length that Python gives scrypt's when nobody says another."""

# Lists

PAGE_ROWS = 100
"""Rows of a page where the request does not say."""

PAGE_ROWS_MAX = 1000
"""Rows of a page at most: about a megabyte of JSON."""

UIDS_PER_REQUEST_MAX = 10_000
"""UIDs that one request may name; with 64 letters each they fit into BODY_BYTES_MAX."""

BULK_JOBS_MAX = 10_000
"""Jobs that one bulk action changes: it is one write transaction, and holds every other writer up."""

REMOVED_AT_ONCE_MAX = 1000
"""Versions that are removed before a DELETE is answered. What has more becomes a job, and the answer says 202: each version
costs an unlink and folders their syncs."""

FILE_PIECE_BYTES = 256 * 1024
"""Bytes of a file that are read and sent at a time."""

REASON_LETTERS_MAX = 300
"""Letters of a reason that goes into the ledger or the audit trail."""

HELD_NAMED_MAX = 100
"""Held versions that are named where a removal is refused; their number is told in any case."""
