"""What there is to tell: plain values, gathered by `gathering.py`, for the screen and for scripts.

Times are UTC in ISO 8601, sizes bytes. What could not be read is None, and `to_do` says why.
"""

from dataclasses import dataclass

from stowkeeper.app.running import RunningServer


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """A server that runs, and its open associations."""

    server: RunningServer
    associations: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The newest instance by the ledger. Of its sender there are AE title and address, of its content UIDs alone."""

    received_at: str
    received_by: str
    calling_ae_title: str
    peer_address: str
    sop_instance_uid: str
    study_instance_uid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the catalog lists: instances by their current versions, and damaged versions whose rows are not closed."""

    instances: int
    studies: int
    bytes: int
    damaged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """When the disk is full: the time, None where it cannot be told, and how that was reckoned, in words."""

    full_at: str | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskState:
    """The disk of the archive; `marks_reached` names the settings whose mark is passed. `free_inodes` may not be counted."""

    free_bytes: int
    total_bytes: int
    free_inodes: int | None
    marks_reached: tuple[str, ...]
    kept_last_day_bytes: int | None
    full: Reckoning


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """One job in the words of its row."""

    job_id: str
    kind: str
    state: str
    peer: str
    created_at: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsState:
    """How many jobs there are: at work, due and waiting, due later, paused, waiting for another try, failed.

    `oldest` is the oldest of the failed and retried ones, else of those that wait.
    """

    running: int
    waiting: int
    later: int
    paused: int
    retrying: int
    failed: int
    oldest: JobState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentsState:
    """Storage commitments asked of us: whose result is still to be told, and whose report was given up."""

    unreported: int
    undelivered: int
    oldest_unreported_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationState:
    """How many instances rules chose for a destination that it did not take yet: waiting, in a job, failed.

    `is_known` tells that it is a peer or an origin server of the settings, or a peer of the database.
    """

    destination: str
    waiting: int
    queued: int
    failed: int
    is_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ToDo:
    """Something to act on: one line in plain words, and the command that mends it or shows more."""

    words: str
    mend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveState:
    """Everything that the status tells. `waiting_in_depot` are kept and not in the catalog yet."""

    version: str
    archive: str
    at: str
    servers: tuple[ServerState, ...]
    last_received: Arrival | None
    kept: Kept | None
    waiting_in_depot: int | None
    in_quarantine: int | None
    disk: DiskState | None
    jobs: JobsState | None
    commitments: CommitmentsState | None
    forwards: tuple[DestinationState, ...] | None
    to_do: tuple[ToDo, ...]
