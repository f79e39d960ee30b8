"""The bounds of the doctor's checks, each with its reason."""

CERTIFICATE_DAYS_MIN = 30
"""Days before the end of a certificate from which on it is named: a hospital's own authority takes weeks for a new one."""

ENTRIES_LOOKED_AT_MAX = 2000
"""Names in a folder of which the owner is looked at. One command by the wrong user leaves its mark on the newest files
and on those at the top; a walk over a million would take minutes and read every folder from the disk."""

ENTRIES_NAMED_MAX = 3
"""Names of a wrong owner that are said: the command that mends it is about all of them."""

SYNC_TRIES = 5
"""Syncs of the probe file. The middle one of their times is said: the first waits for what others wrote."""

SYNC_SECONDS_MAX = 30.0
"""How long a sync may take before the disk counts as standing still; a drive that wakes up takes ten."""

SYNC_SECONDS_SLOW = 0.5
"""A sync that takes longer holds up each answer so: a modality that sends a thousand images would wait for minutes."""

PROBE_BYTES = 64 << 10
"""Bytes of a probe file: an instance's first portion, more than one page."""

CLOCK_AHEAD_SECONDS = 60.0
"""How far the newest receipt may lie in the future: what clocks that are set right differ by, and no more."""

CLOCK_STEP_SECONDS = 0.5
"""How far the clock may move against the monotonic one while the doctor looks. NTP shifts it by half a millisecond a
second."""

TIMEDATECTL_SECONDS = 5.0
"""How long is waited for `timedatectl`, which asks a service that may have to be started."""
