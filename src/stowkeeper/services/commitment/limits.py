"""The bounds of storage commitment as provider, each with its reason."""

COMMITMENTS_PER_PAGE = 100
"""Transactions that a listing returns at a time where nobody says another number: a screen or two."""

INSTANCES_PER_PAGE = 1000
"""Instances of a transaction that are read at a time: about 200 kB."""

COMMITMENT_WORDS_LETTERS_MAX = 300
"""Letters of the words on what went wrong that a row keeps: they may repeat what a peer or a policy said."""

REQUESTS_WAITING_MAX = 256
"""Requests that wait to be written; the next one is answered 0213H. They are written many in one transaction, so this many
take well under a second, and no peer has reason for more at a time."""

REQUEST_BYTES_WAITING_MAX = 96 * 1024 * 1024
"""Bytes of the data sets of requests that wait: three of the largest, or ten thousands of usual ones."""

QUEUE_SHARE_OF_ONE = 0.75
"""Share of the places and bytes up to which a peer may put in a request while another one of its own waits: the rest is for
those who have none waiting, however many one peer sends."""

LARGE_REQUEST_BYTES = 256 << 10
"""Bytes of a data set from which on a request, of some 2000 references, is worked on apart from the usual ones: the
largest take a second or more."""

UNREPORTED_REFERENCES_MAX = 500_000
"""References that one peer may have asked for and is not told of yet, those aside that were given up: five of the largest
requests, or a hundred studies of the largest kind, some 100 MB of rows. A peer that is not there to be told, and asks on and
on, is refused then; each answered report makes room, and so does the end of the days for which one is tried."""

REQUESTS_PER_TRANSACTION_MAX = 64
"""Requests that are written in one transaction, so that those who ask together share one sync."""

REFERENCES_PER_TRANSACTION_MAX = 20_000
"""References from which on no further request joins a transaction: it takes some 0.2 s, in which nobody else writes."""

REQUESTS_END_SECONDS = 10.0
"""How long a clean stop waits until the requests that wait are written and answered."""

CHECK_PORTION = 250
"""Instances that are checked and then written in one transaction: a crash repeats as many, a sync is shared by as many,
and a transaction with their holds takes some 20 ms."""

GRACE_LOOK_SECONDS_MIN = 1.0
"""First pause before an instance that is not there yet is looked up again; the pauses grow with the age of the request."""

GRACE_LOOK_SECONDS_MAX = 10.0
"""Longest of those pauses."""

UNKNOWN_SECONDS_MIN = 5.0
"""How old a request is before an instance counts as unknown although its peer has no association open: the ledger lists
an association up to FINISHER_DELAY_SECONDS_MAX (3 s) after it was opened."""

UNREADABLE_LOOKS_MAX = 2
"""Looks after which a file that cannot be read counts as failed (0110H): a moment without open files or memory passes."""

UNREADABLE_LOOK_SECONDS = 10.0
"""Pause before the second of those looks."""

FAILURES_TO_GIVE_UP_MIN = 3
"""Failures in a row before anything is given up, however late it is."""

PAUSES_TO_GIVE_UP_MIN = 8
"""Pauses between failures that make up the time after which something is given up: a longer one counts as an eighth of it,
21 hours as shipped. So a clock that jumped ahead ends nothing, and neither do days in which the server was off."""

LEDGER_REQUESTS_LOOKED_AT = 100_000
"""The latest C-STORE requests in the ledger that are searched for one that was refused for lack of room: 50 ms."""

POLICY_ANSWER_BYTES_MAX = 2000
"""Bytes of a policy's answer for one instance: an outcome and some words."""

POLICY_WORDS_BYTES_MAX = 4000
"""Bytes of what a policy's command writes to standard error that are kept; the last ones."""

POLICY_POLL_SECONDS = 0.2
"""How often somebody who waits for a policy looks whether the job is to stop."""

CHECK_TURN_SECONDS = 5.0
"""How long a check goes on before it gives its place on the disk to the next one, and waits for its turn itself: what others
asked for a single instance waits no longer than that, and a portion."""

CHECK_TRIES_IN_ONE_RUN_MAX = 3
"""How often in one run the instances are looked up again whose version changed between its check and its hold."""

RECHECK_SECONDS_MIN = 60.0
"""Age of a check that is never too old for its report, whatever is set: between both the job waits for its lane."""

FETCHED_CHECK_SECONDS_MAX = 3600.0
"""Age from which on a check is made again before its result is fetched by HTTP for the first time, as the setting
`recheck_after_seconds` is shipped for reports. It is no setting: a report may wait for days for a peer that is away, and how
often its files are read again meanwhile is a matter of the disk. A result waits for its client alone, is checked again once,
for its first fetch, and what is known to be lost is told however young the check is."""
