"""A job as others see it: the request for one, its row, its items, and what a listing asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stowkeeper.jobs.limits import PAGE_MAX
from stowkeeper.jobs.states import FINISHED, JobState, JobWish

JSON = dict[str, Any]
"""A JSON object: what a row keeps of its kind's own."""


class JobNotFoundError(LookupError):
    """There is no job of this id: it never was, or it was deleted, by hand or by its age."""


class JobTooLargeError(ValueError):
    """Something of a job is longer than its limit; the text names it and the limit."""


class JobExistsError(ValueError):
    """A job of this id was submitted before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What is wanted done.

    `kind` names code. `arguments` never change. `subject` is the UID and `peer` the name of the peer that the job is
    about, for filters. Jobs of one `lane` wait for each other; "" is no lane. The larger `priority` goes first. `items`
    are the names of what is to be done one by one, each with an outcome of its own. `due_at` is UTC text as
    `Transaction.at`; None is now, and more than SLEEP_SECONDS_MAX ahead is cut to that. `job_id` is a UUID; None
    makes one.
    """

    kind: str
    arguments: Mapping[str, Any]
    subject: str = ""
    peer: str = ""
    lane: str = ""
    priority: int = 0
    created_by: str = ""
    items: Sequence[str] = ()
    due_at: str | None = None
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    job_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row of the table `jobs`, whose comments in `database/schema.py` say what each column means."""

    job_key: int
    job_id: str
    kind: str
    state: JobState
    wish: JobWish
    priority: int
    lane: str
    step: str
    arguments: JSON
    checkpoint: JSON
    items_total: int
    items_done: int
    subject: str
    peer: str
    created_at: str
    created_by: str
    due_at: str
    started_at: str | None
    finished_at: str | None
    seconds_run: float
    attempts: int
    failures: int
    faults: int
    error: str
    owner: str
    heartbeat: int

    @property
    def is_finished(self) -> bool:
        """Tell whether nothing more happens to it by itself."""
        return self.state in FINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class JobItem:
    """One of the things that a job does one by one. `outcome` is "" while it is to be done, then a word of the kind."""

    position: int
    name: str
    outcome: str = ""
    code: int | None = None
    words: str = ""
    done_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a listing or a bulk action is about; what is empty asks for nothing.

    `created_from` and `created_to` are UTC text; the first is within, the second is not. A listing has the newest first:
    `before_key` is the `job_key` of the last one of the page before. `limit` is at most PAGE_MAX. `without_argument` is the name
    of an argument that is not true in them.
    """

    kind: str = ""
    state: tuple[JobState, ...] = ()
    peer: str = ""
    subject: str = ""
    created_from: str = ""
    created_to: str = ""
    without_argument: str = ""
    before_key: int | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= PAGE_MAX:
            raise ValueError(f"a page of jobs has 1 to {PAGE_MAX} of them, not {self.limit}")
