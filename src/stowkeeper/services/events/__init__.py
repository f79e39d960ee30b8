"""Events for other systems: what follows from the archive's changes, told in order and never lost.

The change rows are the one source: an event has the number of its change, and whoever follows keeps that as a cursor. What is
to be said of a study, which no transaction of the archive knows, is found by `study_watch` and written as changes, too.
"""
