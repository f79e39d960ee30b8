"""The bounds of services, each with its reason."""

STOP_GRACE_SECONDS = 60
"""How long beyond its drain a server may take to end: for its jobs, for rows that wait, and for its log."""

OPEN_FILES_MIN = 16_384
"""Open files of a service at least: room to raise the number of associations without a new unit."""

WATCHDOG_SECONDS = 60
"""Without a word for this long systemd starts the server anew. A busy machine holds one up for seconds, not for a minute."""

RESTART_SECONDS = 5
"""How long systemd waits before it starts a server that failed anew: a port or a disk may be back by then."""

STARTS_MAX = 10
"""Starts within STARTS_WITHIN_SECONDS after which systemd gives up, and says so: then somebody has to look."""

STARTS_WITHIN_SECONDS = 600

SOCKET_BACKLOG = 4096
"""Connections that wait in the socket while no server takes them. A restart takes seconds, and a modality opens a few."""

LOOK_SECONDS = 0.05
"""How often it is looked whether a daemon has ended."""

LOG_LOOK_SECONDS = 0.25
"""How often a log that is followed is looked at: a person does not notice."""

TAIL_BLOCK_BYTES = 64 * 1024
"""Bytes of a log read at a time from its end backwards."""

LAST_WORDS_LINES_MAX = 20
"""Lines of what a daemon said before it failed that are shown: the last says why."""

LOCK_TRIES = 4
"""Times that a start asks for the lock of a pid file, LOOK_SECONDS apart: who only asks gives it back at once."""
