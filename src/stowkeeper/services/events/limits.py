"""The bounds of the events, each with its reason."""

from typing import Final

WATCH_SECONDS: Final = 1.0
"""Pause between two looks at the changes. A look that finds nothing is two indexed queries."""

WATCH_CHANGES_MAX: Final = 5000
"""Changes that one look deals with in one transaction: some milliseconds in which nobody else writes."""

QUIET_STUDIES_MAX: Final = 100
"""Studies of which one look tells that they are quiet. Counting a study of 10,000 instances takes some 10 ms."""

EVIDENCE_SERIES_MAX: Final = 500
"""Series that the evidence of a study names; the others are in its counts. So an event has 150 kB at most."""

QUIET_SECONDS_MIN: Final = 1
"""Shortest time after which a study is quiet: looks come every second."""

QUIET_SECONDS_MAX: Final = 7 * 86_400
"""Longest one: nobody waits longer than a week for a study to be complete."""

DELIVERY_EVENTS: Final = 100
"""Events that a delivery takes from the changes at a time: its cursor is written once for all of them."""

BEYOND_MAX: Final = 2000
"""Events that were delivered behind one that fails, of other studies. With more of them the target waits for that one: the
checkpoint of its job names each."""

AT_ONCE_MAX: Final = 32
"""Most events that a target may get at the same time; each takes a thread."""

TARGETS_MAX: Final = 50
"""Most targets: each is looked up every second, and its job takes threads."""

SECONDS_MAX: Final = 3600.0
"""Longest time for one delivery: a command that takes longer should take the event as an order, and work on its own."""

GIVE_UP_HOURS_MAX: Final = 90 * 24.0
"""Longest time for which an event is tried again and again: three months."""

GIVE_UP_TRIES_AN_HOUR: Final = 3.0
"""Attempts for each hour of that time before an event is passed by: half as many as the longest pauses leave room for. A clock that
jumps, or a machine that was off for days, makes nobody give up what was hardly tried."""

RETRY_SECONDS_FIRST: Final = 5.0
"""Pause after the first failure in a row of a target; it doubles each time."""

RETRY_SECONDS_MAX: Final = 600.0
"""Longest pause after failures: so soon at the latest it is noticed that an endpoint is there again."""

ANSWER_BYTES_MAX: Final = 64 << 10
"""What is read of an endpoint's answer. Its status says all; the rest is read so that the connection can be used again."""

POLL_SECONDS: Final = 0.2
"""How often who waits for a command or an endpoint looks whether it may wait still."""

DELIVERY_SECONDS: Final = 2.0
"""After so long no further event is begun before the cursor is written: what a crash makes come twice is no more than that."""

LOOK_RETRY_SECONDS: Final = 5.0
"""Pause after a look that failed, since the database could not be read or written."""

SECRET_BYTES_MAX: Final = 4096
"""Longest secret by which posts are signed: sixty-four times what HMAC-SHA-256 makes use of."""
