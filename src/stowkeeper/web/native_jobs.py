"""/api/jobs: what is done after the answer, what can be asked of it, and what can be asked for."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi import Path as InPath
from pydantic import Field

from stowkeeper.database.engine import Transaction
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import Job, JobFilter, JobNotFoundError
from stowkeeper.jobs.limits import BULK_JOBS_MAX, PRIORITY_MAX
from stowkeeper.jobs.states import JobAction, JobState, JobStateError
from stowkeeper.services.commitment.job_items import items_of
from stowkeeper.web.job_permissions import argument_left_out, check_may_act
from stowkeeper.web.limits import PAGE_ROWS
from stowkeeper.web.native_job_requests import NewJob, submit_wanted
from stowkeeper.web.native_job_shapes import JobItemShape, JobShape, job_shape
from stowkeeper.web.native_lists import Time, wrong_cursor
from stowkeeper.web.native_models import Cursor, Limit, Page, Shape, Wanted, next_page
from stowkeeper.web.problems import ProblemError, not_found
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow, api_router
from stowkeeper.web.services import WebServices

Act = Callable[[Transaction, str, str], Job]
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "The job is in a state in which this cannot be."}
}

Text = Annotated[str, Query(max_length=200)]
Id = Annotated[str, InPath(min_length=1, max_length=64, description="Id of the job, a UUID.")]

CURSOR_DIGITS_MAX = 18
"""Digits of a key of the database: they fit into 64 bits."""


class Priority(Wanted):
    """A priority."""

    priority: int = Field(ge=-PRIORITY_MAX, le=PRIORITY_MAX, description="The larger goes first.")


class BulkAction(Wanted):
    """What to do with every job that fits; what is not said asks for nothing."""

    action: JobAction = Field(strict=False, description="resubmit is to try again.")
    kind: str = Field("", max_length=200)
    state: list[Annotated[JobState, Field(strict=False)]] = Field(
        default_factory=list, max_length=len(JobState)
    )
    peer: str = Field("", max_length=200)
    subject: str = Field("", max_length=64)
    created_from: Time | None = None
    created_to: Time | None = None


class BulkResult(Shape):
    """The jobs that were changed."""

    job_ids: list[str]
    is_complete: bool = Field(description="Whether that was all; else ask again.")


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api", tag="jobs")
    _add_lists(routes, services)
    _add_actions(routes, services)
    return routes


def _add_lists(routes: APIRouter, services: WebServices) -> None:
    @routes.get("/jobs", operation_id="list_jobs", summary="List jobs", response_model=Page[JobShape])
    @allow(Role.READ)
    def list_jobs(
        cursor: Cursor = None,
        limit: Limit = PAGE_ROWS,
        kind: Text = "",
        state: Annotated[list[JobState] | None, Query(description="One of these.")] = None,
        peer: Text = "",
        subject: Text = "",
        created_from: Annotated[Time | None, Query()] = None,
        created_to: Annotated[Time | None, Query()] = None,
    ) -> dict[str, object]:
        """List jobs, the newest first."""
        wanted = JobFilter(
            kind=kind,
            state=tuple(state or ()),
            peer=peer,
            subject=subject,
            created_from=created_from or "",
            created_to=created_to or "",
            before_key=key_of(cursor),
            limit=limit,
        )
        with services.database.read() as connection:
            found = rows.list_jobs(connection, wanted)
        following = next_page(
            "/api/jobs",
            found[-1].job_key if len(found) == limit else None,
            limit=limit,
            kind=kind or None,
            state=[one.value for one in state or ()],
            peer=peer or None,
            subject=subject or None,
            created_from=created_from,
            created_to=created_to,
        )
        return {"items": list(map(job_shape, found)), "next": following}

    @routes.post(
        "/jobs",
        operation_id="submit_job",
        summary="Submit a job",
        status_code=201,
        response_model=JobShape,
        responses={
            200: {"model": JobShape, "description": "The scrub was under way already: this is it."},
            404: {"description": "There is no such peer, or nothing is kept of what is to be sent."},
            409: {"description": "The peer cannot be called."},
        },
    )
    @allow(Role.OPERATE)
    def submit_job(wanted: NewJob, asker: Asker, response: Response) -> dict[str, Any]:
        """Have the archive verified, rebuilt or scrubbed, something removed, or something sent to a peer."""
        job, is_new = submit_wanted(services, wanted, asker)
        services.jobs_wake()
        response.headers["Location"] = f"/api/jobs/{job.job_id}"
        if not is_new:
            response.status_code = 200
        return job_shape(job)

    @routes.get("/jobs/{job_id}", operation_id="get_job", summary="Show a job", response_model=JobShape)
    @allow(Role.READ)
    def get_job(job_id: Id) -> dict[str, Any]:
        """Show one job."""
        return job_shape(_found(services, job_id))

    @routes.get(
        "/jobs/{job_id}/items",
        operation_id="list_job_items",
        summary="List the items of a job",
        response_model=Page[JobItemShape],
    )
    @allow(Role.READ)
    def list_items(job_id: Id, cursor: Cursor = None, limit: Limit = PAGE_ROWS) -> dict[str, object]:
        """List what a job does one by one, with what became of it, in order; of a storage commitment its instances."""
        job = _found(services, job_id)
        after = key_of(cursor)
        with services.database.read() as connection:
            found = items_of(connection, job, -1 if after is None else after, limit)
        last = found[-1].position if len(found) == limit else None
        return {"items": found, "next": next_page(f"/api/jobs/{job_id}/items", last, limit=limit)}


def _add_actions(routes: APIRouter, services: WebServices) -> None:
    def add(path: str, action: JobAction, act: Act, summary: str, words: str) -> None:
        @routes.post(
            f"/jobs/{{job_id}}/{path}",
            operation_id=f"{path}_job",
            summary=summary,
            description=words,
            response_model=JobShape,
            responses=_CONFLICT,
        )
        @allow(Role.OPERATE)
        def do(job_id: Id, asker: Asker) -> dict[str, Any]:
            def done(transaction: Transaction) -> Job:
                check_may_act(transaction.connection, job_id, action, asker)
                return act(transaction, job_id, asker.who)

            return job_shape(_done(services, done))

    add(
        "pause",
        JobAction.PAUSE,
        rows.pause,
        "Pause a job",
        "It waits until it is resumed; one that runs gives way within a second or so.",
    )
    add(
        "resume",
        JobAction.RESUME,
        rows.resume,
        "Resume a job",
        "A paused job goes on when it would have been due, so often at once.",
    )
    add(
        "cancel",
        JobAction.CANCEL,
        rows.cancel,
        "Cancel a job",
        "It ends within a second or so, when it has concluded what it has to.",
    )
    add(
        "retry",
        JobAction.RESUBMIT,
        rows.resubmit,
        "Try a job again",
        "One that failed or was cancelled begins again where it was; one that waits is tried now. A removal that overrides"
        " holds needs the role admin for it, and to be resumed.",
    )

    @routes.put(
        "/jobs/{job_id}/priority",
        operation_id="set_job_priority",
        summary="Give a job another priority",
        response_model=JobShape,
        responses=_CONFLICT,
    )
    @allow(Role.OPERATE)
    def set_priority(job_id: Id, wanted: Priority, asker: Asker) -> dict[str, Any]:
        """Let a job that is not finished go before others, or behind them."""
        return job_shape(
            _done(
                services,
                lambda transaction: rows.set_priority(transaction, job_id, wanted.priority, asker.who),
            )
        )

    @routes.delete(
        "/jobs/{job_id}",
        operation_id="delete_job",
        summary="Forget a finished job",
        status_code=204,
        responses=_CONFLICT,
    )
    @allow(Role.OPERATE)
    def delete_job(job_id: Id, asker: Asker) -> None:
        """Take a finished job and its items off the list."""
        _done(services, lambda transaction: rows.delete(transaction, job_id, asker.who))

    @routes.post(
        "/job-actions",
        operation_id="act_on_jobs",
        summary="Do the same with many jobs",
        response_model=BulkResult,
    )
    @allow(Role.OPERATE)
    def act_on_jobs(wanted: BulkAction, asker: Asker) -> dict[str, object]:
        """Do it with every job that fits and that it can be done with, the newest first, some hundreds at a time.

        Removals that override holds go on for the role admin alone; for others they are left as they are.
        """
        only = JobFilter(
            kind=wanted.kind,
            state=tuple(wanted.state),
            peer=wanted.peer,
            subject=wanted.subject,
            created_from=wanted.created_from or "",
            created_to=wanted.created_to or "",
            without_argument=argument_left_out(wanted.action, asker),
        )
        with services.database.write() as transaction:
            changed = rows.apply_to_all(transaction, only, wanted.action, asker.who)
        services.jobs_wake()
        return {"job_ids": changed, "is_complete": len(changed) < BULK_JOBS_MAX}


def key_of(cursor: str | None) -> int | None:
    """Read a cursor that is a number. Raises ProblemError."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal()) or len(cursor) > CURSOR_DIGITS_MAX:
        raise wrong_cursor()
    return int(cursor)


def _found(services: WebServices, job_id: str) -> Job:
    with services.database.read() as connection:
        job = rows.find(connection, job_id)
    if job is None:
        raise not_found("job of this id: it never was, or it was deleted, by hand or by its age")
    return job


def _done(services: WebServices, act: Callable[[Transaction], Job]) -> Job:
    """Do something with a job in a transaction of its own, and let the engine know."""
    try:
        with services.database.write() as transaction:
            job = act(transaction)
    except JobNotFoundError as error:
        raise ProblemError(404, str(error)) from error
    except JobStateError as error:
        raise ProblemError(409, str(error)) from error
    services.jobs_wake()
    return job
