"""The bounds of the network room, each with its reason."""

RECEIVE_BUFFER_BYTES = 1024 * 1024
"""One receive buffer. Large enough that a 0.5 MB image comes in few reads; measured, larger gained nothing."""

RECEIVE_BUFFERS_MAX = 48
"""Buffers of the whole server: the memory that data on its way to the disk may take, 48 MiB."""

RECEIVE_BUFFERS_PER_ASSOCIATION_MAX = 4
"""Buffers one association may hold while the disk works, so that one fast sender leaves room for others."""

RECEIVE_SPACE_MIN = 64 * 1024
"""A buffer with less free space than this is not read into again: short reads cost more than a new buffer."""

SPARE_BUFFER_BYTES = 4096
"""What an association reads into while it waits for a buffer of the empty pool. Of these too it may hold no more than
RECEIVE_BUFFERS_PER_ASSOCIATION_MAX: 16 KiB an association. So small messages get through whoever has the pool."""

READ_BYTES_MIN = 4096
"""The least that is read at once, also from a peer that sends nothing but tiny PDVs."""

EVENTS_PER_READ = 1024
"""About how many pieces one read may bring: at a microsecond or two each, no peer keeps the event loop for more than
a few milliseconds. One that sent PDVs of one byte in reads of 1 MiB stopped all others for half a second a read."""

PIECES_PER_BUFFER_MAX = 2048
"""Pieces of one buffer that wait for a worker: each costs some 250 bytes of bookkeeping, however small it is."""

HAND_OVER_BYTES = 256 * 1024
"""Received bytes are handed to a worker thread in portions of about this size: each hand-over costs a thread
switch, and a portion that is still in the processor's cache is hashed and written faster."""

ASSOCIATION_THREADS_MAX = 32
"""Associations that have a thread of their own: more than send at the same time at any but the largest sites. Those beyond
share the event loop and the workers. A thread at rest costs some 40 kB."""

ACCEPT_PAUSE_SECONDS = 1.0
"""How long no connection is accepted after the system had none to give: it has no file or no memory left."""

SEND_BUFFER_HIGH_BYTES = 256 * 1024
"""Unsent bytes at which nothing more is read from a peer that does not read our answers."""

COLLECTED_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of data sets of messages other than C-STORE that a server holds at once, whole ones until they are answered. A
storage commitment request of ten thousand instances has 2 MB; eight of the longest that are taken have room here. For
one more the peer is told that there are no resources."""

OWN_REQUEST_TURN_BYTES = 256 * 1024
"""Bytes of a request of ours that are sent before others have their turn: a tenth of a report on ten thousand instances,
and less than a millisecond. As much again may wait for the peer to read."""

OWN_REQUEST_TURN_PIECES = 1024
"""PDUs of a request of ours that are sent in a turn: a peer that takes tiny ones only gets many."""

OWN_REQUEST_BLOCKING_PDU_BYTES = 8 * 1024
"""Longest P-DATA-TF of a request of ours where writing blocks. A connection that can be written to has room for as much,
so it is sent without waiting for the peer, which may itself be busy with sending."""

OWN_REQUEST_WRITABLE_SECONDS = 0.02
"""How long a thread waits for a connection to take more of a request of ours before it looks whether anything came."""

OWN_REQUESTS_WAITING_MAX = 64
"""Requests of ours that wait for their turn on one association. Who has more to say asks again later."""

BACKLOG = 512
"""TCP connections that may wait to be accepted."""

LINGERING_CONNECTIONS_MAX = 64
"""Connections of a serial server whose association is over and whose peer has not closed yet. Who has got all answers
has no further use of them, so the oldest is closed for one more."""

SERIAL_SEND_SECONDS_MAX = 10 * 365 * 86_400.0
"""Times from here on are no limit on a write: the system's time value would not hold all of them."""

CONNECTIONS_WITHOUT_ASSOCIATION_MAX = 256
"""TCP connections above the association limit: enough to reject politely, too few to drown in. More are closed
at once."""

CONNECTIONS_WITHOUT_ASSOCIATION_PER_PEER_MAX = 64
"""The same above the limit per peer. A quarter of the whole, so that one peer that opens connections and says
nothing takes no place from the others."""

REFUSED_CONNECTIONS_REPORT_SECONDS = 10.0
"""Connections that are closed at once are logged by their number, this often at most: a flood of them must not
become a flood of lines."""

PROXY_LINE_BYTES_MAX = 107
"""Longest PROXY header of version 1, its line end included: the protocol's own limit."""

PROXY_HEADER_BYTES_MAX = 4096
"""Longest PROXY header of version 2 behind its first 16 bytes. Addresses take 216 at most, and what proxies add to them, such
as the names in a certificate, some hundred bytes; the 65535 that the field could announce are no header."""

QUIET_ENDS_REPORT_SECONDS = 600.0
"""Connections that end without a word, or are refused for their PROXY header, are logged once in this time for each address,
with their number. A balancer looks every few seconds, all year."""

QUIET_ENDS_ADDRESSES_MAX = 1024
"""Addresses that are remembered for that: more than there are balancers and monitors. Beyond it the oldest is forgotten."""

DRAIN_GRACE_SECONDS = 2.0
"""What a stopping server waits beyond the drain limit, for the A-ABORTs of that moment to go out."""

KEEP_ALIVE_IDLE_SECONDS = 60
KEEP_ALIVE_INTERVAL_SECONDS = 15
KEEP_ALIVE_PROBES = 4
"""A peer that is gone without a word is noticed after two minutes."""

SLOW_PROGRESS_BYTES_PER_SECOND = 1024
"""A message that arrives slower than this, seen over the message timeout, is a peer that drips bytes to hold an
association. The slowest real links are an order of magnitude faster."""

CLIENT_WRITE_BUFFER_BYTES = 1024 * 1024
"""Unsent bytes of an association of ours at which the file that is being sent is not read on. Enough to keep a
fast line busy while the next piece is read; a peer that does not read costs no more than this."""

CLIENT_WRITE_PIECES_MAX = 512
"""Buffers given to the socket at once, half of what the system takes in one call (IOV_MAX). A peer that announces
a tiny maximum length makes two of every few bytes."""

CLIENT_INCOMING_DATA_SET_BYTES_MAX = 32 * 1024 * 1024
"""Longest data set that comes with a response, or a request, to an association of ours. It is held whole. A storage
commitment report has some 200 bytes an instance, so this is room for 150 000; larger ones end the association."""

CLIENT_WATCH_SECONDS = 0.5
"""How often an association of ours looks whether anything moves: its time limits are whole seconds."""

CLIENT_CLOSE_SECONDS = 2.0
"""How long what is left, an A-ABORT mostly, may take to be sent before the connection is closed hard."""

TLS_FILE_BYTES_MAX = 64 * 1024 * 1024
"""Largest file of keys, certificates or revocation lists that is read. The largest revocation lists of public authorities
have some 30 MB; more is another file by mistake."""

TLS_DIRECTORY_FILES_MAX = 10_000
"""Most certificates and revocation lists of one directory: the stores of whole systems hold a few hundred."""

TLS_HELLO_BYTES_MAX = 16 * 1024
"""Longest ClientHello that is gathered and looked into before OpenSSL gets it. Usual ones have 200 to 2000 bytes, with a
session to resume a few thousand; a longer one than this is for OpenSSL to judge."""

TLS_REFUSAL_SECONDS = 2.0
"""How long a connection that was refused in its handshake is kept for the alert to be read. Closed at once, with bytes of
the peer unread, TCP would reset it, and take the alert away from many a peer."""

TLS_PLAINTEXT_BYTES = 64 * 1024
"""Decrypted bytes that are handed on at once where there is no buffer of the receiver's own: four records."""

TLS_NAME_LETTERS_MAX = 200
"""Letters of a certificate's subject, or of the protocols that a client asks for, in a log line: others chose them."""

TLS_SEED_BYTES = 1024
"""Bytes of a file for the seed of the random generator, as OpenSSL writes it."""

TLS_SEED_FILE_BYTES_MAX = 1024 * 1024
"""Bytes of a seed file that are stirred in: far beyond what a generator can hold."""

TLS_PASSWORD_BYTES_MAX = 1024
"""Longest password of a private key: OpenSSL's own limit."""

DER_LENGTH_BYTES_MAX = 4
"""Bytes of a length in DER that is read: enough for all that a file of ours can hold."""

DER_OBJECT_IDENTIFIER_BYTES_MAX = 64
"""Longest object identifier that is read. Those of algorithms have ten bytes; their numbers would grow with the square."""

NAME_LOOKUPS_MAX = 128
"""Names of peers that are looked up at the same time, each in a thread of its own, since one that nobody answers for keeps
its thread for up to a minute. More such peers than this are tried one pause later."""
