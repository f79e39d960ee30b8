"""The bounds of the archive, each with its reason."""

WORKER_THREADS = 16
"""Threads that write, hash and sync. Syncs of several threads share one journal commit, so more threads than
processors pay; more than this gained nothing in measurements."""

SYNC_THREADS = 8
"""Threads that sync large instances beside the writing. Only instances of more than SYNC_EVERY_BYTES need one, for a moment each
time; the last sync of every instance is done by who writes it."""

UNCATALOGUED_MAX = 8192
"""Instances on their way, from their beginning until they are in the catalog. Beyond it a sender gets A700H. So no more
than this many are ever kept and not yet listed: at the slowest measured rate a recovery finishes this many in under
half a minute. In memory the header values of each take some 5 kB, 40 MB in all, and 18 kB at most, 150 MB in all,
however they were forged (CAPTURED_BYTES_MAX of the room dicom). Each may need a folder for its study and one
for its series: 16,384 inodes, fewer than the 20,000 below which nothing is admitted as shipped."""

THROTTLE_SHARE = 0.5
"""The share of UNCATALOGUED_MAX from which on answers wait for the finisher, so that a slow catalog slows the
senders before it refuses them."""

THROTTLE_SECONDS_MAX = 2.0
"""How long one answer waits for the finisher at most: well under any sender's response timeout."""

TURN_SECONDS_MAX = 20.0
"""How long an instance waits under the policy `refuse` for one with its UID that is being received: longer than a sync takes on any
disk that is of use, and under any sender's response timeout."""

FINISHER_BATCH_MAX = 512
"""Instances finished in one transaction: past a few hundred the cost of the commit no longer shows."""

FINISHER_BACKLOG = 2048
"""While instances keep coming the finisher lets this many gather: the interpreter, the processors and the disk
are then the senders', and a batch that spans more instances of a series syncs its folder once."""

FINISHER_QUIET_SECONDS = 0.03
"""The finisher starts when no instance came for this long, so that it does not compete with a burst."""

FINISHER_DELAY_SECONDS_MAX = 3.0
"""The finisher starts at the latest this long after the first unfinished instance, also while others come."""

FINISHER_RETRY_SECONDS = 1.0
"""Pause after a batch that failed as a whole (database or disk), before the next try."""

LEDGER_ROWS_MAX = 8192
"""Lines of the ledger that wait to be written. A sender that tries again all night while the database is away must not
fill the memory; what it was answered is in the log. A line takes some 1.2 kB, 10 MB in all; that of an association
which opens takes up to 25 kB more where 128 contexts have the longest names: 110 MB in all, if every second line
is one of those."""

FINISHER_LAST_TRIES = 2
"""Times a clean stop tries again what could not be finished: an instance that is identical to one just being
removed is decided anew the second time."""

FINISHER_STOP_SECONDS = 20.0
"""How long a clean stop waits for the finisher. What is left then is finished at the next start."""

SYNC_EVERY_BYTES = 32 * 1024 * 1024
"""A large instance is synced each time this much of it was written, so that the last sync is short and dirty
pages do not pile up."""

SPACE_CHECK_EVERY_BYTES = 8 * 1024 * 1024
"""Free space is looked at again each time this much was written. How long an instance is nobody knows before its end,
so those that are admitted together may have no room together. Nothing is reckoned ahead for them: each write asks first,
and after the look that finds too little none is begun, for whatever instance. So what goes below the mark is this much,
and what workers are just writing, 48 MB of receive buffers at most. Of the 2 GB of the mark as shipped the rest is for
the folders and rows of what was answered."""

SPACE_CHECK_SECONDS = 1.0
"""Free space is looked at again at the latest after this time, since others fill the disk too."""

SLOTS_AT_START = 256
"""Slots that are made before an archive is ready; the filler makes the rest beside the first associations. Making all
of them took up to two seconds where many files had just been deleted."""

PROBE_SECONDS = 5.0
"""Pause between probes of a disk whose sync failed."""

START_ROOM = 4 * 1024 * 1024
"""Free bytes below which an archive releases its reserve before it opens its database: what a start itself writes
(the database's log and shared memory, the probe, the slots' folder) is less than one of these four megabytes."""

INODES_SHORT = 64
"""Free inodes below which the finisher, when it meets a full disk, gets those of as many free slots: an instance needs
two at most, for the folders of a new study and series."""

RECOVERY_SCAN_SECONDS = 30.0
"""Pause between looks at the depot folders of other processes that may have died."""

SHELF_LOCK_SECONDS = 30.0
"""How long a batch, a removal or a quarantine waits for another thread or process that changes the shelf. A batch takes
milliseconds; one of identical instances reads their files first, at most what arrived in some seconds."""

SHELF_LOCK_POLL_SECONDS_MIN = 0.000_1
"""First pause between two looks at a shelf that is locked; it doubles up to the next bound."""

SHELF_LOCK_POLL_SECONDS_MAX = 0.002
"""Longest pause between two looks at a locked shelf: shorter than the transaction between two batches of one finisher."""

READ_BLOCK_BYTES = 1024 * 1024
"""Bytes read at a time when a file is examined."""

HEAD_READ_BYTES = 16 * 1024
"""Bytes read first when a file is examined: more than any head that the archive writes."""

PATH_COMPONENT_MAX = 120
"""Longest escaped name of a folder or a file's stem: names above 255 bytes exist on no file system we use."""

REMOVAL_MARK_BATCH_MAX = 20_000
"""Versions marked as removing in one transaction: a study of any real size is marked whole, at one moment, and a
receiving server waits a few seconds at most for the writer lock."""

REMOVAL_BATCH_MAX = 64
"""Files unlinked under one hold of the writer lock, each after a look at its head: some ten milliseconds, on a disk
that has to seek for every head less than a second."""

ARRIVALS_PER_RUN = 100_000
"""Paths sorted in memory at a time by a rebuild: some 30 MB. Ten runs are a million files."""

READER_THREADS = 4
"""Threads that read files for `verify` and `rebuild`. On two processors 20,000 files of 8 kB took 15, 5, 4 and 3.6
seconds with 1, 2, 4 and 8 of them."""

READ_AHEAD_FILES = 64
"""Files whose reading is begun before their turn: enough to keep the threads busy during a transaction. What is kept
of each is a few kilobytes; READ_BLOCK_BYTES of its data for each thread."""

READ_SILENT_SECONDS = 30.0
"""How long not a block of a file may come before its check counts it as unreadable for now: as long as Linux gives a disk
for one command. Who asked for it is not kept waiting by a file server that is away, nor are all others behind it."""

READ_LOOK_SECONDS = 0.2
"""How often who waits for a file looks whether it goes on, and whether it is to wait at all."""

READ_GAP_SECONDS = 2.0
"""Time between two such looks that says nothing of the disk: whoever looks was stopped, or busy with the last result."""

LEFT_READERS_MAX = 32
"""Readings that did not go on, and were left, until no other is begun: each is a thread that nobody can end. So many are
no bad sectors any more, but a disk or a file server that does not answer."""

HANDFUL_FILES = 8
"""Small files that go to a reading thread together."""

HANDFUL_BYTES = 256 << 10
"""Bytes from which on files do not go together: handing one over takes as long as hashing some of these."""

QUARANTINE_NOTE_BYTES_MAX = 4096
"""What is read of a note in quarantine. Ours have some 200 bytes; a person may have written more into one."""

CHECKS_PER_LOOK = 128
"""Versions that were read before one question asks their rows whether they are kept still."""

CHECK_WAIT_SECONDS = 0.2
"""How long a version that was read waits at most until its row is asked, when large files hold up the others."""

MENDING_BATCH_MAX = 64
"""Files that a rebuild beside servers lists in one hold of the shelf's lock and the writer lock, each after a look at its
head: as REMOVAL_BATCH_MAX."""

PAGE_ROWS_DEFAULT = 100
"""Rows of a page of a list where nobody says another number: a screenful or two."""

PAGE_ROWS_MAX = 1000
"""Rows of a page of a list at most: about a megabyte, and a snapshot that is given back after some milliseconds."""

PAGE_WALK_ROWS = 50_000
"""Rows that a page looks at to find those that fit, where no index leads to them: some 50 ms."""

LOW_TIMES_MARK = 2
"""A disk is low below so many times the room at which instances are refused: time to act before anybody is refused."""
