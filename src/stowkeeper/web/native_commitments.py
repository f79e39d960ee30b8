"""/api/commitments: the transactions of storage commitment, those that were asked of us and those that we asked."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi import Path as InPath
from pydantic import Field

from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import JobNotFoundError
from stowkeeper.jobs.states import JobStateError
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.acceptance import (
    CommitmentNotFoundError,
    CommitmentStateError,
    resend,
)
from stowkeeper.services.commitment.asking import CannotAskError, ask, ask_again, find_kept, peer_of
from stowkeeper.services.commitment.commitment_values import (
    Commitment,
    CommitmentFilter,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
)
from stowkeeper.services.store_submission import kept_instances
from stowkeeper.web.limits import PAGE_ROWS
from stowkeeper.web.native_job_requests import UIDs
from stowkeeper.web.native_jobs import key_of
from stowkeeper.web.native_lists import Time
from stowkeeper.web.native_models import Cursor, Limit, MeasuredSeconds, Page, Shape, Wanted, next_page
from stowkeeper.web.problems import ProblemError, not_found
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow, api_router
from stowkeeper.web.services import WebServices

KEY_MAX = (1 << 63) - 1
UNKNOWN_NAMED_MAX = 10
"""UIDs that are named where nothing is kept of them; their number is told in any case."""

Key = Annotated[int, InPath(ge=1, le=KEY_MAX, description="Number of the transaction, `commitment_key`.")]


class CommitmentShape(Shape):
    """A transaction of storage commitment (PS3.4 Annex J)."""

    commitment_key: int = Field(description="Its number here; a transaction UID may be used twice.")
    role: CommitmentRole = Field(description="Ours: provider was asked, user asks.")
    way: str = Field(description="DIMSE or web.")
    transaction_uid: str = Field(description="(0008,1195)")
    state: CommitmentState
    peer: str = Field(description="Name of the peer, or ''; of a web client its credential.")
    peer_ae_title: str
    own_ae_title: str = Field(description="What the peer called us, or what we call ourselves to it.")
    peer_address: str
    association_id: str
    instances: int = Field(description="How many are asked for.")
    failures: int = Field(description="How many of them failed, once that is certain.")
    duplicate_of: int | None = Field(description="The transaction that had this UID before.")
    replaces: int | None = Field(description="The transaction that this one asks again for.")
    job_id: str = Field(description="Of the job that works on it, which may be gone by its age; or ''.")
    requested_at: str
    checked_at: str | None = Field(description="When the outcomes became certain.")
    reported_at: str | None = Field(description="When the peer had the report, or we had the peer's.")
    expires_at: str | None = Field(description="Of a user: until when a report is awaited.")
    report_attempts: int
    error: str = Field(description="What went wrong last, in words.")


class CommitmentInstanceShape(Shape):
    """An instance of a transaction, and what became of it."""

    position: int
    sop_class_uid: str
    sop_instance_uid: str
    outcome: InstanceOutcome = Field(
        description="'' while it is open; unasked: it came in a report unasked for."
    )
    reason: int | None = Field(description="Failure Reason (0008,1197) of a failed one.")
    words: str
    checked_at: str | None


class CommitmentReportShape(Shape):
    """An attempt to tell the peer, or a report of the peer."""

    at: str
    way: str
    status: int | None = Field(description="Of the N-EVENT-REPORT response; null when there was none.")
    words: str
    seconds: MeasuredSeconds


class CommitmentReports(Shape):
    """All of them, the oldest first."""

    items: list[CommitmentReportShape]


class NewCommitment(Wanted):
    """What to ask a peer for: instances that we keep, by their own UIDs or those of studies and series."""

    peer: str = Field(min_length=1, max_length=200, description="Name of the peer.")
    uids: UIDs


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api/commitments", tag="storage commitment")
    _add_lists(routes, services)
    _add_actions(routes, services)
    return routes


def _add_lists(routes: APIRouter, services: WebServices) -> None:
    @routes.get(
        "", operation_id="list_commitments", summary="List transactions", response_model=Page[CommitmentShape]
    )
    @allow(Role.READ)
    def list_commitments(
        cursor: Cursor = None,
        limit: Limit = PAGE_ROWS,
        role: Annotated[CommitmentRole | None, Query(description="What we are in it.")] = None,
        state: Annotated[list[CommitmentState] | None, Query(description="One of these.")] = None,
        peer: Annotated[str, Query(max_length=200)] = "",
        transaction_uid: Annotated[str, Query(max_length=64)] = "",
        requested_from: Annotated[Time | None, Query()] = None,
        requested_to: Annotated[Time | None, Query()] = None,
    ) -> dict[str, object]:
        """List transactions of both roles, the newest first."""
        wanted = CommitmentFilter(
            role=role,
            states=tuple(state or ()),
            peer=peer,
            transaction_uid=transaction_uid,
            requested_from=requested_from or "",
            requested_to=requested_to or "",
            before_key=key_of(cursor),
            limit=limit,
        )
        with services.database.read() as connection:
            found = rows.list_commitments(connection, wanted)
        following = next_page(
            "/api/commitments",
            found[-1].commitment_key if len(found) == limit else None,
            limit=limit,
            role=role.value if role else None,
            state=[one.value for one in state or ()],
            peer=peer or None,
            transaction_uid=transaction_uid or None,
            requested_from=requested_from,
            requested_to=requested_to,
        )
        return {"items": found, "next": following}

    @routes.get(
        "/{commitment_key}",
        operation_id="get_commitment",
        summary="Show a transaction",
        response_model=CommitmentShape,
    )
    @allow(Role.READ)
    def get_commitment(commitment_key: Key) -> Commitment:
        """Show one transaction."""
        return _found(services, commitment_key)

    @routes.get(
        "/{commitment_key}/instances",
        operation_id="list_commitment_instances",
        summary="List the instances of a transaction",
        response_model=Page[CommitmentInstanceShape],
    )
    @allow(Role.READ)
    def list_instances(
        commitment_key: Key,
        cursor: Cursor = None,
        limit: Limit = PAGE_ROWS,
        outcome: Annotated[InstanceOutcome | None, Query(description="Only these.")] = None,
    ) -> dict[str, object]:
        """List what was asked for, in its order, with what became of it."""
        after = key_of(cursor)
        with services.database.read() as connection:
            if rows.find_by_key(connection, commitment_key) is None:
                raise _no_transaction()
            found = rows.instances_of(
                connection, commitment_key, -1 if after is None else after, limit, outcome
            )
        following = next_page(
            f"/api/commitments/{commitment_key}/instances",
            found[-1].position if len(found) == limit else None,
            limit=limit,
            outcome=None if outcome is None else outcome.value,
        )
        return {"items": found, "next": following}

    @routes.get(
        "/{commitment_key}/reports",
        operation_id="list_commitment_reports",
        summary="List the reports of a transaction",
        response_model=CommitmentReports,
    )
    @allow(Role.READ)
    def list_reports(commitment_key: Key) -> dict[str, object]:
        """List every attempt to tell the peer, or every report of the peer."""
        with services.database.read() as connection:
            if rows.find_by_key(connection, commitment_key) is None:
                raise _no_transaction()
            return {"items": rows.reports_of(connection, commitment_key)}


def _add_actions(routes: APIRouter, services: WebServices) -> None:
    @routes.post(
        "",
        operation_id="ask_for_commitment",
        summary="Ask a peer to commit instances",
        status_code=201,
        response_model=CommitmentShape,
        responses={
            404: {"description": "There is no such peer, or nothing is kept of what was named."},
            409: {"description": "The peer cannot be asked for this."},
        },
    )
    @allow(Role.OPERATE)
    def ask_for_commitment(wanted: NewCommitment, asker: Asker, response: Response) -> Commitment:
        """Ask for the versions that are current now; a job does it, and its report is awaited for days."""
        commitment = _ask(services, wanted, asker.who)
        response.headers["Location"] = f"/api/commitments/{commitment.commitment_key}"
        return commitment

    @routes.post(
        "/{commitment_key}/resend",
        operation_id="resend_commitment",
        summary="Report a transaction again, or ask for it again",
        status_code=202,
        response_model=CommitmentShape,
        responses={
            409: {"description": "It is in a state in which this cannot be; or all of it is committed."}
        },
    )
    @allow(Role.OPERATE)
    def resend_commitment(commitment_key: Key, asker: Asker, response: Response) -> Commitment:
        """Report to the peer again what was asked of us; of ours, ask again for what is not committed, with a new UID."""
        commitment = _found(services, commitment_key)
        if commitment.role is CommitmentRole.PROVIDER:
            _resend(services, commitment_key, asker.who)
            return _found(services, commitment_key)
        again = _ask_again(services, commitment, asker.who)
        response.headers["Location"] = f"/api/commitments/{again.commitment_key}"
        return again

    @routes.post(
        "/{commitment_key}/cancel",
        operation_id="cancel_commitment",
        summary="Cancel a transaction",
        status_code=202,
        response_model=CommitmentShape,
        responses={409: {"description": "It is over."}},
    )
    @allow(Role.OPERATE)
    def cancel_commitment(commitment_key: Key, asker: Asker) -> Commitment:
        """End its job: what was asked of us is reported, with 0110H for what was not checked; of ours nothing is awaited."""
        commitment = _found(services, commitment_key)
        try:
            with services.database.write() as transaction:
                jobs.cancel(transaction, commitment.job_id, asker.who)
        except (JobNotFoundError, JobStateError) as error:
            raise ProblemError(409, f"the transaction is over: {error}") from error
        services.jobs_wake()
        return _found(services, commitment_key)


def _found(services: WebServices, commitment_key: int) -> Commitment:
    with services.database.read() as connection:
        commitment = rows.find_by_key(connection, commitment_key)
    if commitment is None:
        raise _no_transaction()
    return commitment


def _no_transaction() -> ProblemError:
    return not_found("transaction of this number")


def _ask(services: WebServices, wanted: NewCommitment, who: str) -> Commitment:
    peer = services.peers.find(wanted.peer)
    if peer is None:
        raise not_found("peer of this name")
    with services.database.read() as connection:
        kept = kept_instances(connection, wanted.uids)
        unknown = [uid for uid in wanted.uids if uid not in kept]
        named = list(dict.fromkeys(uid for found in kept.values() for uid in found))
        found = find_kept(connection, named)
    if unknown:
        raise ProblemError(
            404, f"nothing is kept of {len(unknown)} of the UIDs", unknown=unknown[:UNKNOWN_NAMED_MAX]
        )
    try:
        with services.database.write() as transaction:
            commitment = ask(
                transaction,
                peer,
                found.references,
                own_ae_title=services.facts.ae_title,
                created_by=who,
                version_keys=found.version_keys,
                terms=services.ask_terms,
            )
    except CannotAskError as error:
        raise ProblemError(409, str(error)) from error
    services.jobs_wake()
    return commitment


def _resend(services: WebServices, commitment_key: int, who: str) -> None:
    try:
        with services.database.write() as transaction:
            resend(transaction, commitment_key, who)
    except CommitmentNotFoundError as error:
        raise ProblemError(404, str(error)) from error
    except CommitmentStateError as error:
        raise ProblemError(409, str(error)) from error
    services.jobs_wake()


def _ask_again(services: WebServices, commitment: Commitment, who: str) -> Commitment:
    peer = peer_of(commitment, services.peers.find(commitment.peer) if commitment.peer else None)
    try:
        with services.database.write() as transaction:
            again = ask_again(transaction, commitment, peer, created_by=who, terms=services.ask_terms)
    except CannotAskError as error:
        raise ProblemError(409, str(error)) from error
    services.jobs_wake()
    return again
