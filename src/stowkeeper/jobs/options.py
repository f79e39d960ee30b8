"""What can be set of an engine."""

from dataclasses import dataclass

from stowkeeper.jobs.limits import HEARTBEATS_PER_LEASE

DISK_LANE = "disk"
"""The lane of work that reads or writes the archive's files: it holds `JobOptions.disk_lanes` jobs, every other one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How many jobs run at once, and the times of an engine.

    `disk_lanes` counts over all processes, `running_max` in this one. `lease_seconds` is how long a silent owner keeps its
    jobs; `retention_days` how long a finished one is listed; `poll_seconds` the time between two looks. Without
    `ends_unknown_kinds` jobs of kinds that are not known here are left alone, however long they wait: for an engine that runs
    some kinds for a while, as that of a command. Raises ValueError for what makes no sense.
    """

    disk_lanes: int = 2
    running_max: int = 64
    lease_seconds: float = 30.0
    retention_days: float = 30.0
    poll_seconds: float = 1.0
    ends_unknown_kinds: bool = True

    def __post_init__(self) -> None:
        for name in ("disk_lanes", "running_max", "lease_seconds", "retention_days", "poll_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} of the jobs is {getattr(self, name)}: it has to be more than 0")
        if self.lease_seconds < HEARTBEATS_PER_LEASE * self.poll_seconds:
            raise ValueError(
                f"lease_seconds of the jobs is {self.lease_seconds:g}: it has to be {HEARTBEATS_PER_LEASE} times"
                " poll_seconds at least"
            )
