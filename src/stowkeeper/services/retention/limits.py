"""The bounds of retention, each with its reason."""

from typing import Final

RULES_MAX: Final = 50
"""Most retention rules: each walks over the archive."""

AFTER_DAYS_MIN: Final = 1.0
"""Shortest age: a clock that jumps by less than CLOCK_STEP_SECONDS is not noticed."""

AFTER_DAYS_MAX: Final = 36_500.0
"""Longest age, a hundred years; who wants more than that wants no rule."""

LOOK_SECONDS: Final = 3600.0
"""Time between two looks at what is old enough."""

NOTICE_SECONDS: Final = 86_400.0
"""Time between the line in the log that says what is about to go and its removal: a day, since nobody reads a log each hour."""

LOOK_VERSIONS_MAX: Final = 20_000
"""Versions that one look has removed, over all rules, but one study at least: no more than the removals of a look do in a few
minutes, so half a million a day, and more than a department receives. Whatever a rule or a clock says, an archive is not empty
within an hour."""

LOOK_UIDS_MAX: Final = 5000
"""Studies or instances that one look has removed: the items of its jobs."""

NOTICE_VERSIONS_MAX: Final = 100_000
"""Versions that a notice counts; of more it says that there are more. To count so many takes some minutes at worst, once a day."""

STUDIES_PER_READ: Final = 200
"""Studies looked through in one snapshot: some milliseconds."""

INSTANCES_PER_READ: Final = 1000
"""Instances looked through in one snapshot: likewise."""

CLOCK_STEP_SECONDS: Final = 86_400.0
"""The clock may be ahead by so much of the time that really passed between two looks of one process. A day is what a rule has
at least."""

ABSENCE_SECONDS: Final = 7 * 86_400.0
"""Longest time between two looks that a server can have been off without a question: then nothing tells a clock that was set
forward from a long pause."""

CLOCK_WORDS_SECONDS: Final = 86_400.0
"""Time between two lines in the log that nothing is removed because of the clock."""
