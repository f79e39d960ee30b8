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

REFUSED_SYNTAXES_LOGGED_MAX = 20
"""Abstract syntaxes that the log names as refused, of one association: a peer may propose 128. The ledger has them all."""

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

IDENTIFIERS_BYTES = 512
"""First bytes of a data set that are looked at for its SOP class and instance, before more are: what stands before them is rarely
half as long. Each further element costs a microsecond."""

IMPORT_BUFFER_BYTES = 1 << 20
"""Bytes of a file that an import reads at a time. File meta information that is longer is not read."""

IMPORT_BUFFERS = 24
"""Buffers of an import, hence files on their way at once: more than the threads that sync, so that none of them
waits for the next file. With IMPORT_BUFFER_BYTES this is the memory of an import, whatever the size of the files."""

IMPORT_LOOKUP_BATCH = 256
"""Kept files whose outcome (new, identical, in conflict) is asked of the catalog at a time."""

IMPORT_LISTING_SECONDS = 30.0
"""How long an import waits in the end until the catalog lists all that it kept; it is kept even without."""

PEER_NAME_LETTERS_MAX = 64
"""Longest name of a peer: it stands in log lines, in tables and in the names of lanes."""

PEER_MANUFACTURER_LETTERS_MAX = 64
"""Longest name of a manufacturer, as long as VR LO has it (PS3.5 §6.2)."""

PEER_ADDRESSES_MAX = 1000
"""Addresses and networks of one peer: each association that its AE title opens is compared with all of them."""

PEERS_MAX = 10_000
"""Peers of a database: all are in memory, and compared with an association that comes for the first time."""

PEER_CONNECT_SECONDS = 10.0
"""How long a peer has for the connection, and again for its answer to the association request, unless it is set
otherwise: both take a moment when there is anybody."""

PEER_ANSWER_SECONDS = 30.0
"""How long a peer may stand still in an association, unless it is set otherwise: a slow disk answers within."""

PEER_SECONDS_MIN = 0.1
"""Shortest time limit of a peer: less fails on a busy machine without a fault."""

PEER_SECONDS_MAX = 3600.0
"""Longest time limit of a peer, an hour: a job that waits for it holds its lane up as long."""

PEERS_LOOK_SECONDS = 1.0
"""How often the peers of the database are looked at, since another process may have changed them: one small query."""

PEER_ANSWERS_REMEMBERED = 1024
"""Callers that the book of peers remembers: AE title and address come from outside, so there is a bound."""

PEER_RELEASE_SECONDS = 10.0
"""Longest wait for a peer to agree to the end of an association: by then all is answered, and it is aborted instead."""

STORE_INSTANCES_MAX = 100_000
"""Instances that one job sends to a peer: as many as a job may have items."""

UNKNOWN_UIDS_NAMED_MAX = 5
"""UIDs that an error names of those of which nothing is kept: enough to see what is wrong with the list."""

STORE_PORTION = 1000
"""Instances that are looked up in the catalog, and sent over one association, at a time: what is looked up goes out within
minutes, and the rest of a large job is not in memory."""

STORE_WRITE_SECONDS = 0.5
"""Least time between two transactions in which a job writes down what was answered. What was answered within it may be sent
again after a crash; each transaction costs a sync that the reception of instances shares."""

STORE_RETRIES = 3
"""How often within a run an instance is sent again after a lost association; then it is the job that waits."""

STORE_BACK_OFF_SECONDS = 1.0
"""Wait before a lost association is opened anew; it doubles."""

STORE_TURN_SECONDS = 10.0
"""How long a job sends before it looks whether others wait for the same peer; it looks as often."""

STORE_PASS_ON_SECONDS = 1.0
"""How long a job that gave its turn to others keeps away: they are taken within."""

STORE_GIVE_UP_SECONDS = 7 * 24 * 3600.0
"""How long sending is tried again, as long as reports of storage commitment are: a peer that is away for a holiday gets what
was to go there."""

STORE_LOST_RUNS_MAX = 5
"""Runs in which an instance has no answer however often it is sent, while others are answered, until it has failed: with
the pauses between them a quarter of an hour, in which a peer that is started anew is back."""

STOW_RETRY_SECONDS = 60.0
"""How long within a run an origin server is tried again that gave no answer, while nothing is stored; then it is the job that
waits."""

STOW_UNKNOWN_MAX = 50
"""Instances in a row of which answers of an origin server say nothing until a run ends: the rest would be sent in vain."""

STOW_STOP_SECONDS = 3.0
"""How long a job that has to end waits for the answer to a request that went out whole. The end of the server waits little
longer, and what is not known to be stored is sent again."""

ORIGIN_SERVER_SECONDS = 120.0
"""How long an origin server may stand still, unless it is set otherwise: it answers when all instances of a request are on its
disk."""

ORIGIN_SERVER_SECONDS_MAX = 3600.0
"""Longest such time, an hour: a job that waits for it holds its lane up as long."""

ORIGIN_SERVERS_MAX = 100
"""Origin servers of the settings: each has a lane, and as many as a hospital has archives are few."""

ORIGIN_SERVER_PARALLEL = 2
"""Requests at once to an origin server, unless it is set otherwise: one is read from disk here while the other is synced there."""

STORE_SUSPECTS_MAX = 1000
"""Instances of a job whose lost associations are counted. A peer that breaks at more is broken itself."""

HEALTH_ROWS = 10_000
"""The latest associations and reports that are looked at for how it goes with the peers: 50 ms."""

ADDRESSES_REMEMBERED = 4096
"""Addresses that are remembered read: a megabyte, and more senders than send within an hour."""

MANY_ARRIVALS_A_SECOND = 100.0
"""From so many arrivals on, deliveries of events and rules of forwarding rest between their portions, where processors are wanted
elsewhere: what works off what arrived takes them from those who receive."""

BUSY_FROM = 0.35
"""So much of one processor has this process to be busy with other things, for there to be rests at all: with less, whoever receives
finds one. 300 small instances a second, of 0.9 ms each, are less."""

BUSY_FULLY = 0.85
"""From so much on rests have their full length, in between a part of it: more than one processor's worth of Python runs nowhere."""

RESTS_WINDOW_SECONDS = 2.0
"""Time over which arrivals and work are reckoned: longer than the pauses between the files of a sender, short enough to notice the
first seconds of a flood."""

REST_FACTOR = 64.0
"""They then rest so many times as long as a processor was at it here, at most. An endpoint may be on this machine too, and take as
long again: that is a thirtieth of one processor for telling, and as much for the rules."""

REST_SECONDS_MAX = 5.0
"""Longest rest between two portions. What comes faster than they deal with is dealt with when the flood is over."""

MOMENT_SECONDS = 0.05
"""Shortest time over which a rate is reckoned: within less of it a handful of instances would look like a flood."""
