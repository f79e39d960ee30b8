"""What jobs can be asked for, each kind with what it needs."""

from typing import Annotated, Literal

from pydantic import Field

from stowkeeper.jobs.job import Job, JobFilter, JobRequest
from stowkeeper.jobs.limits import PRIORITY_MAX
from stowkeeper.jobs.rows import list_jobs, submit
from stowkeeper.jobs.states import FINISHED, JobState
from stowkeeper.services.archive_job_limits import BYTES_PER_SECOND_MIN
from stowkeeper.services.archive_jobs import (
    SCRUB,
    keep_scrubbing,
    rebuild_request,
    remove_request,
    verify_request,
)
from stowkeeper.services.store_submission import CannotStoreError, submit_store
from stowkeeper.web.limits import UIDS_PER_REQUEST_MAX
from stowkeeper.web.native_lists import Time
from stowkeeper.web.native_models import UID, Reason, Wanted
from stowkeeper.web.problems import ProblemError, not_found
from stowkeeper.web.roles import Principal, Role
from stowkeeper.web.services import WebServices

UIDs = Annotated[list[UID], Field(min_length=1, max_length=UIDS_PER_REQUEST_MAX)]


class VerifyWanted(Wanted):
    """Read the archive again and check every byte, or what fits each of these."""

    kind: Literal["verify"]
    study_instance_uid: UID | None = None
    series_instance_uid: UID | None = None
    received_from: Time | None = Field(None, description="Only what was received since then.")
    report_only: bool = Field(default=False, description="Change nothing: neither rows nor files.")
    bytes_per_second: Annotated[int, Field(ge=BYTES_PER_SECOND_MIN, le=1 << 40)] | None = Field(
        None, description="How fast to read at most."
    )


class RebuildWanted(Wanted):
    """List whole files that no row knows, and mend rows."""

    kind: Literal["rebuild"]


class ScrubWanted(Wanted):
    """Begin the scrub, if none is under way."""

    kind: Literal["scrub"]


class RemoveWanted(Wanted):
    """Remove studies, series or instances, each with an outcome of its own."""

    kind: Literal["remove"]
    uids: UIDs
    reason: Reason = Field(description="Why, for the ledger. It stays; no patient data.")
    override_holds: bool = Field(
        default=False,
        description="Remove what is held too. It needs the role admin, and is written to the audit trail.",
    )


class StoreWanted(Wanted):
    """Send studies, series or instances to a peer."""

    kind: Literal["store"]
    peer: str = Field(min_length=1, max_length=200, description="Name of the peer.")
    uids: UIDs
    commit: bool = Field(default=False, description="Ask the peer afterwards to commit what it stored.")
    priority: int = Field(0, ge=-PRIORITY_MAX, le=PRIORITY_MAX)


NewJob = Annotated[
    VerifyWanted | RebuildWanted | ScrubWanted | RemoveWanted | StoreWanted, Field(discriminator="kind")
]


def submit_wanted(services: WebServices, wanted: NewJob, asker: Principal) -> tuple[Job, bool]:
    """Submit a job; return it, and whether it is a new one. Raises ProblemError."""
    if isinstance(wanted, StoreWanted):
        return _store(services, wanted, asker), True
    if isinstance(wanted, ScrubWanted):
        return _scrub(services, asker)
    request = _request(wanted, asker)
    with services.database.write() as transaction:
        return submit(transaction, request), True


def _request(wanted: VerifyWanted | RebuildWanted | RemoveWanted, asker: Principal) -> JobRequest:
    if isinstance(wanted, RebuildWanted):
        return rebuild_request(created_by=asker.who)
    if isinstance(wanted, VerifyWanted):
        return verify_request(
            created_by=asker.who,
            study_instance_uid=wanted.study_instance_uid or "",
            series_instance_uid=wanted.series_instance_uid or "",
            received_from=wanted.received_from or "",
            report_only=wanted.report_only,
            bytes_per_second=wanted.bytes_per_second,
        )
    if wanted.override_holds and not asker.role.includes(Role.ADMIN):
        raise ProblemError(
            403,
            f"to override holds needs the role {Role.ADMIN}, and the credential {asker.name!r} has {asker.role}",
        )
    return remove_request(
        wanted.uids, reason=wanted.reason, created_by=asker.who, override_holds=wanted.override_holds
    )


def _scrub(services: WebServices, asker: Principal) -> tuple[Job, bool]:
    with services.database.write() as transaction:
        made = keep_scrubbing(transaction, created_by=asker.who)
        if made is not None:
            return made, True
        unfinished = tuple(state for state in JobState if state not in FINISHED)
        (there,) = list_jobs(transaction.connection, JobFilter(kind=SCRUB, state=unfinished, limit=1))
    return there, False


def _store(services: WebServices, wanted: StoreWanted, asker: Principal) -> Job:
    peer = services.peers.find(wanted.peer)
    if peer is None:
        raise not_found("peer of this name")
    try:
        with services.database.write() as transaction:
            return submit_store(
                transaction,
                peer,
                wanted.uids,
                created_by=asker.who,
                commit=wanted.commit,
                terms=services.ask_terms,
                priority=wanted.priority,
            )
    except CannotStoreError as error:
        raise ProblemError(404 if error.unknown else 409, str(error)) from error
