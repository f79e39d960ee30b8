"""The bounds of storage commitment as user, each with its reason."""

KEEP_OPEN_SECONDS = 10.0
"""How long the association of a request stays open for a report on it: peers that report on the same association do so
within seconds, and an idle association costs them a place."""

KEPT_OPEN_MAX = 32
"""Associations that one process keeps open for reports at once. A request beyond that keeps its lane until one ends."""

REPORT_AWAITED_SECONDS = 7 * 24 * 3600.0
"""How long a report is awaited: providers that copy to tape first take days, and ours tries to report for as long."""

LOOK_AGAIN_SECONDS = 1800.0
"""The longest time after which a job that awaits a report looks whether it came. Who takes a report brings the job forward,
so this is for what happened otherwise, and for a clock that was set."""

LATE_SECONDS = 10.0
"""A look that comes so much later than it was due comes after a time in which no job ran."""

RE_ASK_TIMES_MAX = 100
"""How often a transaction that expired may be asked for again: each is a row for ever, and a week."""

REFERENCES_PER_REQUEST_MAX = 10_000
"""Instances that one request of ours names; more make several transactions. It is the largest that peers are known to be
tried with, and 1.2 MB."""

UNASKED_KEPT_MAX = 1000
"""Instances that a report names unasked and that are noted: enough to see whose they are. More are counted."""

REPORTS_NOTED_MAX = 50
"""Reports of a transaction that are noted; a peer that repeats different ones without end fills no disk."""

SENDER_LOOKUP_SECONDS = 3.0
"""How long it is waited for the name of a peer to be looked up, to see whether a report came from there. A resolver that
lives answers within a fraction; meanwhile the reports of others wait."""

LISTENER_ASSOCIATIONS_MAX = 16
"""Associations at once of a command that listens for a report: one peer reports, and tries again."""

FIRST_LOOK_SECONDS = 1.0
"""When such a job looks for the first time; each further look comes twice as late, so that a week's patience costs some
three hundred of them."""

END_LOOK_SECONDS = 1.0
"""How often it is seen that the peer ended an association that we keep open for its report."""

ASK_AGAIN_LATER_SECONDS = 600.0
"""How long a peer that refused a request for want of resources is left alone before it is asked again."""

LISTENER_IDLE_SECONDS = 60.0
"""How long an association with such a command may stand still: a report is one message."""

LISTENER_DRAIN_SECONDS = 5.0
"""How long such a command waits at its end for associations that are open: what they report is taken within a moment."""

LISTENER_PATIENCE_SECONDS = 2.0
"""How long such a command waits at its end for those who reported to release their associations: some programs fail when
both sides release at once."""

LISTENER_LOOK_SECONDS = 0.02
"""How often it looks whether they did."""
