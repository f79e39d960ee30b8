"""Taking a request for storage commitment: the one place where it becomes rows and a job, by DIMSE and by HTTP alike.

A Transaction UID that is new makes a transaction. The same references asked for by the same peer, while nobody was told
their result, are the same transaction: nothing is checked twice. Anything else with a known UID is a transaction of its
own, in which every instance fails with 0131H, duplicate transaction UID (decision 11).
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from stowkeeper.archive import audit
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.dicom.commitment_information import ActionInformation, Reference
from stowkeeper.dicom.status import Status
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.hurrying import bring_forward, try_lane
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import (
    WAY_DIMSE,
    WAY_WEB,
    Commitment,
    CommitmentInstance,
    CommitmentRequest,
    CommitmentRole,
    CommitmentState,
)
from stowkeeper.services.commitment.limits import FETCHED_CHECK_SECONDS_MAX
from stowkeeper.services.commitment.options import LOOKS_AGAIN, peer_lane
from stowkeeper.services.commitment.still_kept import words_of_loss
from stowkeeper.services.commitment.times import age_seconds
from stowkeeper.services.commitment.transaction_job import (
    job_of,
    live_job,
    may_be_reporting,
    submit_first,
    submit_next,
)


class Taken(StrEnum):
    """What became of a request."""

    NEW = "new"
    REPEATED = "repeated"
    DUPLICATE = "duplicate"


class CommitmentNotFoundError(LookupError):
    """There is no such transaction; the text is for people."""


class CommitmentStateError(Exception):
    """The transaction is in a state in which it cannot be asked for this (409 by HTTP); the text says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks for a commitment. `peer` is the name of the configured peer; of a web client that of its credential."""

    way: str
    peer: str
    peer_ae_title: str = ""
    own_ae_title: str = ""
    peer_address: str = ""
    association_id: str = ""


def take(transaction: Transaction, asker: Asker, information: ActionInformation) -> tuple[Taken, Commitment]:
    """Write a request with its job, or find the transaction that it repeats. Durable with the caller's transaction.

    Who asks by DIMSE is there, however often it was called in vain: what waits for it is tried now.
    """
    if asker.way == WAY_DIMSE:
        try_lane(transaction, peer_lane(asker.peer))
    uid = information.transaction_uid
    known = rows.find(transaction.connection, CommitmentRole.PROVIDER, uid)
    if known is not None:
        content = rows.content_of(information.references)
        repeated = rows.find_unreported(
            transaction.connection, CommitmentRole.PROVIDER, uid, asker.peer, content
        )
        if repeated is not None and repeated.way == asker.way:
            return Taken.REPEATED, _asked_again(transaction, repeated, asker)
    commitment = rows.insert(
        transaction,
        CommitmentRequest(
            role=CommitmentRole.PROVIDER,
            way=asker.way,
            transaction_uid=uid,
            state=CommitmentState.RECEIVED,
            peer=asker.peer,
            peer_ae_title=asker.peer_ae_title,
            own_ae_title=asker.own_ae_title,
            peer_address=asker.peer_address,
            association_id=asker.association_id,
            duplicate_of=known.commitment_key if known is not None else None,
            job_id=str(uuid.uuid4()),
            requested_at=transaction.at,
        ),
        information.references,
    )
    submit_first(transaction, commitment, created_by=_named(asker))
    return Taken.NEW if known is None else Taken.DUPLICATE, commitment


def _asked_again(transaction: Transaction, commitment: Commitment, asker: Asker) -> Commitment:
    """Go on with a transaction that is asked for again: on the association of now, and anew where nobody goes on with it.

    Where its report may be on its way, nobody knows whether the peer asks since it had none: it is told once more.
    """
    key = commitment.commitment_key
    if asker.association_id:
        rows.change(transaction, key, association_id=asker.association_id)
    job = live_job(transaction.connection, commitment)
    if job is None or may_be_reporting(job):
        submit_next(transaction, commitment, created_by=_named(asker))
    else:
        bring_forward(transaction, job.job_id)
    return rows.find_by_key(transaction.connection, key) or commitment


def resend(transaction: Transaction, commitment_key: int, who: str) -> str:
    """Have a transaction reported again, or now, to its peer; return the id of the job that does it.

    What is reported does not change by that, once a peer answered: where it would not be true any more, nothing is
    reported. The rows are looked at here, the files by the job. A report that is on its way is left to go; one that
    waits for its next attempt is tried at once. `who` is for the audit trail.

    Raises:
        CommitmentNotFoundError: there is no such transaction that was asked of us.
        CommitmentStateError: it is still being checked, its job is paused, it was asked for by HTTP, or the peer was told
            that something is committed which is not kept any more.

    """
    commitment = rows.find_by_key(transaction.connection, commitment_key)
    if commitment is None or commitment.role is not CommitmentRole.PROVIDER:
        raise CommitmentNotFoundError(
            "there is no such transaction that was asked of us: `stowkeeper commitments ls` lists them"
        )
    if commitment.way == WAY_WEB:
        raise CommitmentStateError(
            "it was asked for by HTTP: its result is fetched there, and nobody is called"
        )
    if commitment.reported_at is not None:
        words = words_of_loss(transaction.connection, commitment)
        if words:
            raise CommitmentStateError(words)
    job = live_job(transaction.connection, commitment)
    if job is not None:
        if job.state is JobState.PAUSED:
            raise CommitmentStateError(f"its job {job.job_id} is paused: resume that")
        if commitment.state is CommitmentState.RECEIVED:
            raise CommitmentStateError(
                "its instances are still being checked: it is reported when that is done"
            )
        if job.state is JobState.RETRY:
            return jobs.resubmit(transaction, job.job_id, who).job_id
        return job.job_id
    job_id = submit_next(transaction, commitment, created_by=who, looks_again=True)
    audit.note(transaction, who, "commitment resent", commitment.transaction_uid, commitment.peer)
    return job_id


def _named(asker: Asker) -> str:
    return f"peer {asker.peer}" if asker.way == WAY_DIMSE else asker.peer


# By HTTP (PS3.18 chapter 13).


@dataclass(frozen=True, slots=True, kw_only=True)
class WebResult:
    """A transaction that was asked for by HTTP, and what became of its instances, None while some are open."""

    commitment: Commitment
    instances: tuple[CommitmentInstance, ...] | None


def accept_web(
    database: Database, transaction_uid: str, references: Sequence[Reference], *, client: str, address: str
) -> tuple[Taken, Commitment | None]:
    """Take a request by HTTP, durably; `client` names the credential, "" for none. Blocks.

    For a repeat, REPEATED and the transaction; where the UID is in use otherwise (409), DUPLICATE and None, and nothing
    is written. Wake the jobs afterwards. Raises DatabaseUnavailable (503).
    """
    asker = Asker(way=WAY_WEB, peer=client, peer_address=address)
    information = ActionInformation(transaction_uid, tuple(references))
    with database.read() as connection:
        known = rows.find(connection, CommitmentRole.PROVIDER, transaction_uid)
    if known is None:
        with database.write() as transaction:
            # Somebody may have been faster.
            known = rows.find(transaction.connection, CommitmentRole.PROVIDER, transaction_uid)
            if known is None:
                return take(transaction, asker, information)
    is_same = (
        known.way == WAY_WEB
        and known.peer == client
        and known.reported_at is None
        and known.content == rows.content_of(references)
    )
    if not is_same:
        return Taken.DUPLICATE, None
    if known.state is CommitmentState.RECEIVED:
        with database.read() as connection:
            is_left = live_job(connection, known) is None
        if is_left:
            with database.write() as transaction:
                now = rows.find_by_key(transaction.connection, known.commitment_key) or known
                return Taken.REPEATED, _asked_again(transaction, now, asker)
    return Taken.REPEATED, known


def web_result(database: Database, transaction_uid: str) -> WebResult | None:
    """Return what can be said of a transaction that was asked for by HTTP; None for one that was not. Blocks.

    The first result that is fetched is noted as its report. Before that, what is not kept any more, and what was checked long
    ago, is looked at again: the result is open until that is done. Raises DatabaseUnavailable.
    """
    with database.read() as connection:
        commitment = rows.find(connection, CommitmentRole.PROVIDER, transaction_uid)
        if commitment is None or commitment.way != WAY_WEB:
            return None
        if commitment.reported_at is not None:
            return WebResult(commitment=commitment, instances=_all_of(connection, commitment))
        if commitment.state is CommitmentState.RECEIVED or _is_looked_at(job_of(connection, commitment)):
            return WebResult(commitment=commitment, instances=None)
    with database.write() as transaction:
        return _fetch(
            transaction, rows.find_by_key(transaction.connection, commitment.commitment_key) or commitment
        )


def _fetch(transaction: Transaction, commitment: Commitment) -> WebResult:
    """Return a result for the first time and note that, or have it looked at again first."""
    connection, key = transaction.connection, commitment.commitment_key
    if commitment.reported_at is None:
        job = job_of(connection, commitment)
        if _is_looked_at(job):
            return WebResult(commitment=commitment, instances=None)
        if words_of_loss(connection, commitment) or _is_old(commitment, job):
            submit_next(transaction, commitment, created_by=commitment.peer, looks_again=True)
            return WebResult(commitment=commitment, instances=None)
        rows.change(transaction, key, state=CommitmentState.REPORTED, reported_at=transaction.at, error="")
        rows.note_report(transaction, key, at=transaction.at, way=WAY_WEB, status=Status.SUCCESS)
        commitment = rows.find_by_key(connection, key) or commitment
    return WebResult(commitment=commitment, instances=_all_of(connection, commitment))


def _is_looked_at(job: Job | None) -> bool:
    """Tell whether the job of a transaction is to look, or looks, at everything again."""
    return job is not None and not job.is_finished and LOOKS_AGAIN in job.arguments


def _is_old(commitment: Commitment, job: Job | None) -> bool:
    """Tell whether a check lies too long ago. One that was made for a fetch is not, or who comes seldom would never get it."""
    if job is not None and job.state is JobState.SUCCESS and LOOKS_AGAIN in job.arguments:
        return False
    return abs(age_seconds(commitment.checked_at or commitment.requested_at)) > FETCHED_CHECK_SECONDS_MAX


def _all_of(connection: Connection, commitment: Commitment) -> tuple[CommitmentInstance, ...]:
    return tuple(rows.instances_of(connection, commitment.commitment_key, limit=commitment.instances))
