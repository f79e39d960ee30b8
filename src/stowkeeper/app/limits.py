"""The bounds of settings, logs and the command line, each with its reason."""

CONFIG_FILE_BYTES_MAX = 1024 * 1024
"""Largest settings file that is read. A full one has a few kilobytes; more is some other file by mistake."""

PROBLEM_VALUE_LETTERS_MAX = 60
"""Letters of a wrong value that an error message repeats: enough to find it again in the file."""

SECONDS_MAX = 86_400.0
"""Longest time limit that can be set, a day: a longer one is a typing error or should be off."""

SECONDS_MIN = 0.1
"""Shortest time limit that can be set where 0 does not mean off: less fails on a busy machine without a fault."""

MAXIMUM_LENGTH_MIN = 4096
"""Smallest P-DATA-TF length to announce. Below it the headers weigh more than what they carry, and some peers
refuse to send at all."""

MAXIMUM_LENGTH_MAX = 0xFFFF_FFFF
"""The field has 32 bits (PS3.8 §D.1)."""

ASSOCIATIONS_MAX = 100_000
"""Most associations that can be set: each needs a descriptor and memory, and no machine has more of these."""

OPEN_FILES_BESIDE = 128
"""Open files that a server needs beside connections and slots: some 25 when idle (listener, event loop, locks, log,
database), and those of the finisher, recovery, readers of the database and looks at folders while they are at work."""

OPERATIONS_WINDOW_MAX = 1024
"""Most operations at once on one association that can be set. Each holds an open instance; far fewer fill any
line, and the unlimited window of PS3.7 §D.3.3.3 is no bound."""

BYTES_PER_SECOND_MAX = 1_000_000_000
"""Highest minimum rate that can be set."""

LISTEN_BACKLOG_MAX = 65_535
"""Longest queue of connections not accepted yet; the system's own limit is at or below it."""

KEEP_ALIVE_PROBES_MAX = 127
"""The system's limit of unanswered TCP keep-alive probes (tcp(7))."""

LIST_ENTRIES_MAX = 10_000
"""Most entries of a list setting. Each new association is compared with all of them."""

PEER_NAME_LETTERS_MAX = 64
"""Longest name of a peer: it stands in log lines and tables."""

GRACE_HOURS_MAX = 87_600.0
"""Longest grace time of a superseded version, ten years: who wants it longer wants the policy `keep`."""

SLOT_POOL_MAX = 65_536
"""Most slots that can be prepared: each is an inode, and all are looked at in every start."""

UNCATALOGUED_MAX_HIGHEST = 1_000_000
"""Most kept instances that may wait for the catalog: each holds a few kilobytes of memory."""

WORKER_THREADS_MAX = 256
"""Most threads that write and sync: beyond it they only wait for each other."""

DISK_BYTES_MAX = 1 << 50
"""Largest disk mark, a pebibyte: a larger one would never be met."""

DISK_INODES_MAX = 1 << 32
"""Highest inode mark: as many as ext4 can have."""

SYNC_EVERY_MIN = 1024 * 1024
"""Fewest bytes between two syncs of one instance: with less, an instance is nothing but syncs."""

LOG_SIZE_MIN = 64 * 1024
"""Smallest size of a log file: below it the files turn over faster than a person can read them."""

LOG_SIZE_MAX = 1 << 40
"""Largest size of a log file, a tebibyte."""

LOG_BACKUPS_MAX = 1000
"""Most older log files: each rotation renames them all."""

LOG_LINES_WAITING_MAX = 10_000
"""Log lines that wait to be written. When the disk or the terminal stands still, further lines are dropped and
counted, and memory stays flat: some 5 MB at the usual length of a line."""

LOG_VALUE_LETTERS_MAX = 4096
"""Letters of one value in a log line: room for a traceback. What a peer can choose is far shorter, since the
protocol bounds AE titles, UIDs and version names."""

LOG_TRACEBACK_FRAMES_MAX = 40
"""Frames of a traceback in a log line: a deeper one repeats itself, and its two ends tell the most."""

LOG_CAUSES_MAX = 5
"""Exceptions of a chain of causes in a log line."""

LOG_GATHER_SECONDS = 0.02
"""How long the log thread lets lines gather before it writes them at once. One wake-up for many lines keeps it
out of the way of the threads that receive."""

LOG_CLOSE_SECONDS = 5.0
"""How long a stop waits for the last log lines: a disk that stands still must not keep the server from ending."""

SEND_ASSOCIATIONS_MAX = 64
"""Most associations side by side that `send` opens: each has a thread that reads files, and peers allow fewer."""

SEND_RETRIES_MAX = 1000
"""Most times that `send` tries an instance again. With a wait of a minute at most in between it is most of a day."""

FAILURES_SHOWN_MAX = 100
"""Rows of the table of failures: more are not read by anybody, and --json lists them all."""

IMPORT_SLOT_POOL_MAX = 128
"""Most slots that an import prepares: it makes more as it goes, and a single file should not wait for a thousand."""

LISTING_SAMPLE_ROWS = 200
"""Rows of a listing that are read before its columns are laid out: enough to see how wide they get, and at once."""

HELD_SHOWN_MAX = 20
"""Held instances that `rm` names one by one: the reasons repeat themselves, and --json names all."""

DISK_JOBS_MAX = 64
"""Most jobs at a time on one disk: more only wait for each other's reads."""

RUNNING_JOBS_MAX = 1024
"""Most jobs at a time in a process: each that calls a peer has a connection open."""

RETENTION_DAYS_MIN = 0.01
"""Shortest time for which finished jobs are listed: a quarter of an hour, in which somebody can look."""

REPORT_DAYS_MIN = 0.001
"""Shortest time for which a report is tried or awaited: a minute and a half, for tries on a bench."""

DAYS_MAX = 3650.0
"""Longest of the times in days."""

KEEP_OPEN_SECONDS_MAX = 600.0
"""Longest time for which an association stays open for a report on it: it takes a place with the peer."""

STORE_REQUESTS_MAX = 1_000_000
"""Largest bound of store requests at the same time that can be set: far beyond what connections there may be."""

PART_BYTES_MAX = 1 << 50
"""Largest bound of a part's bytes that can be set, a petabyte."""

BACKGROUND_THREADS_MAX = 32
"""Threads for what waits beside the receiver, outside jobs and HTTP: a few writes and lookups of names."""

BACKGROUND_END_SECONDS = 5.0
"""How long the end of a server waits for those threads. Each of them takes milliseconds, where the disk answers at all."""

RUN_RECORD_BYTES_MAX = 64 << 10
"""Bytes read of a run record. It has some five hundred; what is longer was not written by us."""

RUN_RECORD_NAMES_MAX = 100
"""Names tried for a run record. One is in use only where containers of one host name and one pid share an archive."""

NOTIFY_SEND_SECONDS = 1.0
"""How long a word to the service manager may take. Its queue is emptied at once; one that hangs must not stop a server."""

WATCHDOG_SECONDS_MIN = 1.0
"""Shortest time of a watchdog that is kept to: half of less would be more work than receiving."""

TAKE_OVER_GRACE_SECONDS = 60.0
"""How long beyond its drain a server that is followed on its sockets may take to end: for its jobs, its rows and its log."""

TAKE_OVER_LOOK_SECONDS = 0.1
"""How often the server that follows looks whether it has ended."""

SYSLOG_BYTES_MAX = 8192
"""Longest message for syslog and the journal, in bytes: what rsyslog takes as shipped, and far below what a datagram
holds. A longer line is cut."""

SYSLOG_SECONDS = 5.0
"""How long a syslog server may take to accept a connection or a message before it counts as gone."""

SYSLOG_RETRY_SECONDS = 2.0
"""How long to wait before the next try where a message could not be sent."""

JOURNAL_FIELD_LETTERS_MAX = 1024
"""Letters of a value in a field of the journal: for searching. The line has the whole value."""

SETTINGS_VERSIONS_MAX = 9
"""Older versions of a settings file that are kept beside it, as FILE.1 to FILE.9: a bad afternoon has fewer changes."""

SETTINGS_LOCK_SECONDS = 10.0
"""How long one who changes a settings file waits for another: a change takes milliseconds."""

EDITOR_ROUNDS_MAX = 100
"""How often `config edit` offers to edit again: an editor that returns at once must not make a loop without end."""

CONDITION_LETTERS_MAX = 1024
"""Longest value that a condition of a rule asks for: the longest text that a person would write there, sixteen times."""

CONDITION_VALUES_MAX = 1000
"""Values that one condition of a rule lists. Those with wildcards are tried one by one, some 0.2 µs each."""

FORWARDING_RULES_MAX = 200
"""Forwarding rules. Each instance that arrives is put to every one of them, which takes some microseconds."""

DESTINATIONS_PER_RULE_MAX = 50
"""Destinations of one forwarding rule: each instance makes a row for each."""

SENDERS_REMEMBERED = 4096
"""Senders, by AE title and address, of which a trial of rules remembers which peers they are: a megabyte."""
