"""Submitting jobs: rows in the caller's own transaction, so that a job is there exactly when its reason is."""

import uuid
from collections.abc import Iterable, Sequence

from sqlalchemy import bindparam, select

from stowkeeper.database.engine import Transaction, compile_insert, compile_statement
from stowkeeper.database.schema import job_items, jobs
from stowkeeper.jobs.columns import checked_text, encode_arguments, encode_checkpoint
from stowkeeper.jobs.job import Job, JobExistsError, JobRequest, JobTooLargeError
from stowkeeper.jobs.limits import ITEMS_MAX, PRIORITY_MAX, SLEEP_SECONDS_MAX
from stowkeeper.jobs.states import JobState, JobWish
from stowkeeper.jobs.times import checked, later

_COLUMNS = (
    *("job_key", "job_id", "kind", "state", "wish", "priority", "lane", "step", "arguments", "checkpoint"),
    *("items_total", "items_done", "subject", "peer", "created_at", "created_by", "due_at"),
    *("seconds_run", "attempts", "failures", "faults", "error", "owner", "heartbeat"),
)
_INSERT = compile_insert(jobs, _COLUMNS)
_INSERT_ITEM = compile_insert(job_items, ("job_key", "position", "name", "outcome", "words"))
_FIND = compile_statement(select(jobs.c.job_key).where(jobs.c.job_id == bindparam("id")), ("id",))
_LAST_KEY = "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'"


def submit(transaction: Transaction, request: JobRequest) -> Job:
    """Put in a job. It is durable with the transaction, and taken by whichever process comes to it.

    Raises JobTooLargeError, JobExistsError and ValueError (a priority out of bounds, a time that is none).
    """
    (job,) = submit_many(transaction, (request,))
    return job


def submit_many(transaction: Transaction, requests: Iterable[JobRequest]) -> list[Job]:
    """Put in jobs, in this order. Raises what `submit` raises, and then none of them was put in."""
    # Nobody else writes meanwhile, so the keys that follow the last one given are free.
    last = transaction.fetch_one(_LAST_KEY)
    first_key = 1 + (0 if last is None else int(last[0]))
    asked = list(requests)
    made = [_job(transaction, request, first_key + place) for place, request in enumerate(asked)]
    if len({job.job_id for job in made}) < len(made):
        msg = "two of the jobs have one id"
        raise JobExistsError(msg)
    encoded = [
        (encode_arguments(request.arguments), encode_checkpoint(request.checkpoint)) for request in asked
    ]
    items = [
        (job.job_key, position, checked_text("name of an item", name), "", "")
        for job, request in zip(made, asked, strict=True)
        for position, name in enumerate(request.items)
    ]
    transaction.executemany(
        _INSERT, [_columns_of(job, *texts) for job, texts in zip(made, encoded, strict=True)]
    )
    transaction.executemany(_INSERT_ITEM, items)
    return made


def _job(transaction: Transaction, request: JobRequest, job_key: int) -> Job:
    if request.job_id is not None and transaction.fetch_one(_FIND, (request.job_id,)) is not None:
        raise JobExistsError(f"there is a job {request.job_id} already")
    return Job(
        job_key=job_key,
        job_id=checked_text("id", request.job_id or str(uuid.uuid4())),
        kind=checked_text("kind", request.kind),
        state=JobState.PENDING,
        wish=JobWish.NONE,
        priority=checked_priority(request.priority),
        lane=checked_text("lane", request.lane),
        step="",
        arguments=dict(request.arguments),
        checkpoint=dict(request.checkpoint),
        items_total=_checked_length(request.items),
        items_done=0,
        subject=checked_text("subject", request.subject),
        peer=checked_text("peer", request.peer),
        created_at=transaction.at,
        created_by=checked_text("created_by", request.created_by),
        due_at=_due_at(transaction.at, request.due_at),
        started_at=None,
        finished_at=None,
        seconds_run=0.0,
        attempts=0,
        failures=0,
        faults=0,
        error="",
        owner="",
        heartbeat=0,
    )


def _columns_of(job: Job, arguments: str, checkpoint: str) -> tuple[object, ...]:
    return (
        *(
            job.job_key,
            job.job_id,
            job.kind,
            job.state.value,
            job.wish.value,
            job.priority,
            job.lane,
            job.step,
        ),
        *(arguments, checkpoint, job.items_total, job.items_done, job.subject, job.peer, job.created_at),
        *(
            job.created_by,
            job.due_at,
            job.seconds_run,
            job.attempts,
            job.failures,
            job.faults,
            job.error,
            job.owner,
        ),
        job.heartbeat,
    )


def checked_priority(priority: int) -> int:
    """Return a priority within its bounds. Raises ValueError for others."""
    if not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
        raise ValueError(f"a priority is between -{PRIORITY_MAX} and {PRIORITY_MAX}, not {priority}")
    return priority


def _due_at(now: str, wanted: str | None) -> str:
    return now if wanted is None else min(checked(wanted), later(now, SLEEP_SECONDS_MAX))


def _checked_length(items: Sequence[str]) -> int:
    if len(items) > ITEMS_MAX:
        raise JobTooLargeError(f"a job has {len(items)} items, {ITEMS_MAX} are allowed: make several of it")
    return len(items)
