"""The bounds of forwarding, each with its reason."""

from typing import Final

LOOK_SECONDS: Final = 1.0
"""Pause between two looks at the changes and at what waits. A look that finds nothing is a few indexed queries."""

LOOK_RETRY_SECONDS: Final = 5.0
"""Pause after a look that failed, since the database could not be read or written."""

CHANGES_PER_LOOK: Final = 1000
"""Changes that are put to the rules before what they chose is written: some 10 ms in which nobody else writes. It is what is done
between two rests, too (`services.resting`)."""

ROWS_PER_WRITE: Final = 2000
"""Rows that one transaction writes, where a study that is quiet brings more of them."""

FORWARDS_PER_JOB: Final = 2000
"""Instances that one job forwards. To put it in takes 30 ms in which nobody else writes; and what a person does to a job,
such as cancelling it, is about no more than these."""

JOBS_WITHOUT_ROOM_MAX: Final = 10
"""Jobs of a destination and a priority that wait for room for instances which the destination refused for now, until what
comes then waits behind them: one that refuses a few gets the others, and one that is full is asked ten times an hour."""

GATHER_SECONDS: Final = 2.0
"""How long the first instance that waits for a destination waits for others, so that a study which arrives instance by
instance goes out in some associations and not in one for each. What fills a job waits for nothing."""

ROWS_PER_ACTION: Final = 2000
"""Rows that `retry` and `drop` change in one transaction; more take several."""

PAGE_MAX: Final = 1000
"""Rows on one page of a list."""

WORDS_MAX: Final = 500
"""Characters of the words in a row: a peer's own text may be in them."""

QUIET_STUDIES_PER_LOOK: Final = 20
"""Studies that became quiet whose instances are put to the rules at a time: one may have ten thousand."""
