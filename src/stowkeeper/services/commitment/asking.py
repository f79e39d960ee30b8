"""Asking a peer to commit instances (PS3.4 §J.3.2): a transaction of ours as rows, with the job that carries it out.

Both are written by the caller's transaction, so they are durable before anything goes out, and a UID that was handed out
always leads to a row. The job is `request_job.CommitmentRequestJob`; reports come in by `reports_received`.

A Transaction UID is of the form 2.25.UUID (PS3.5 §B.2) and is never used again: asking again is a new transaction that
names the one it replaces.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection

from stowkeeper.archive.catalog_values import portions
from stowkeeper.archive.versions import find_versions
from stowkeeper.database.engine import Transaction
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.dicom.uid import generate_uid
from stowkeeper.jobs.job import JobRequest
from stowkeeper.jobs.submission import submit
from stowkeeper.jobs.times import later
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking_limits import (
    KEEP_OPEN_SECONDS,
    RE_ASK_TIMES_MAX,
    REFERENCES_PER_REQUEST_MAX,
    REPORT_AWAITED_SECONDS,
)
from stowkeeper.services.commitment.commitment_values import (
    WAY_DIMSE,
    Commitment,
    CommitmentRequest,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
)
from stowkeeper.services.peers import Peer

JOB_KIND: Final = "commitment-request"

OPEN_STATES: Final = frozenset({CommitmentState.REQUESTED, CommitmentState.ACCEPTED})
"""The states of a transaction of ours that is not over."""


class CannotAskError(ValueError):
    """A peer cannot be asked for this; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskTerms:
    """How a peer is asked, and how long its report is awaited.

    `keep_open_seconds` is how long the association stays open after the answer, for a report on it.
    `report_awaited_seconds` counts from the asking; then the transaction expires and is asked again, with a new UID,
    `re_ask_times` times at most. A request that the peer refused for want of resources is asked again too.
    """

    keep_open_seconds: float = KEEP_OPEN_SECONDS
    report_awaited_seconds: float = REPORT_AWAITED_SECONDS
    re_ask_times: int = 0

    @classmethod
    def of_job(cls, arguments: Mapping[str, Any]) -> "AskTerms":
        """Return the terms that stand in the arguments of a job."""
        return cls(**arguments["terms"])


DEFAULT_TERMS: Final = AskTerms()


def ask(
    transaction: Transaction,
    peer: Peer,
    references: Sequence[Reference],
    *,
    own_ae_title: str,
    created_by: str,
    version_keys: Sequence[int | None] = (),
    terms: AskTerms = DEFAULT_TERMS,
    replaces: int | None = None,
    due_in_seconds: float = 0.0,
) -> Commitment:
    """Write a transaction that asks a peer to commit these instances, and its job. One given twice is asked for once.

    What is named by no UID stands in it and fails with the report: no request can hold it.

    `own_ae_title` is what we call ourselves to a peer that says nothing about it; '' leaves it to whoever carries the job
    out, which may be a server under another title than the settings here say. `version_keys` has one for each
    reference, where given: the version that we have, which is what `safe_to_delete` compares with later. A peer without
    a name is one that nobody defined; the rows then hold where it is.

    Raises:
        CannotAskError: no instance that a UID names, or more than REFERENCES_PER_REQUEST_MAX, or nobody knows where it is.

    """
    where = _where(peer)
    keys = version_keys or [None] * len(references)
    asked = dict(zip(reversed(references), reversed(keys), strict=True))  # the first of equal ones counts
    ordered = list(dict.fromkeys(references))
    _check(ordered, terms)
    job_id = str(uuid.uuid4())
    transaction_uid = generate_uid()
    own = peer.own_ae_title or own_ae_title
    commitment = rows.insert(
        transaction,
        CommitmentRequest(
            role=CommitmentRole.USER,
            way=WAY_DIMSE,
            transaction_uid=transaction_uid,
            state=CommitmentState.REQUESTED,
            peer=peer.name,
            peer_ae_title=peer.ae_title or "",
            own_ae_title=own,
            peer_address=where,
            replaces=replaces,
            job_id=job_id,
            requested_at=transaction.at,
            expires_at=later(transaction.at, terms.report_awaited_seconds),
        ),
        ordered,
        [asked[reference] for reference in ordered],
    )
    submit(
        transaction,
        JobRequest(
            kind=JOB_KIND,
            arguments={
                "transaction_uid": transaction_uid,
                "terms": asdict(terms),
                "way_to_peer": {name: getattr(peer, name) for name in _WAY_TO_PEER},
            },
            subject=transaction_uid,
            peer=peer.name,
            lane=lane_of(peer),
            created_by=created_by,
            due_at=later(transaction.at, due_in_seconds),
            job_id=job_id,
        ),
    )
    return commitment


def _check(references: Sequence[Reference], terms: AskTerms) -> None:
    if not references:
        raise CannotAskError("there is no instance to ask for")
    if not any(reference.is_of_uids for reference in references):
        raise CannotAskError("what is to be asked for is named by no UID")
    if len(references) > REFERENCES_PER_REQUEST_MAX:
        raise CannotAskError(
            f"there are {len(references)} instances, {REFERENCES_PER_REQUEST_MAX} may be asked for at once: ask in parts"
        )
    if not 0 <= terms.re_ask_times <= RE_ASK_TIMES_MAX:
        raise CannotAskError(f"a transaction can be asked for again {RE_ASK_TIMES_MAX} times at most")


def ask_again(
    transaction: Transaction,
    commitment: Commitment,
    peer: Peer,
    *,
    created_by: str,
    terms: AskTerms = DEFAULT_TERMS,
    due_in_seconds: float = 0.0,
) -> Commitment:
    """Write a new transaction for what another one of ours asked for and the peer has not committed.

    The versions stay those of the first asking: what we have now may be another one than the peer has.

    Raises:
        CannotAskError: all of it is committed that is named by a UID, or it is of nothing; the transaction is not over; or
            nobody knows where the peer is.

    """
    if not commitment.instances:
        raise CannotAskError(
            f"{commitment.transaction_uid} named no instance, so there is nothing to ask for"
        )
    if commitment.state in OPEN_STATES:
        raise CannotAskError(
            f"the transaction {commitment.transaction_uid} is not over: its report can still come"
        )
    instances = rows.instances_of(
        transaction.connection, commitment.commitment_key, limit=max(1, commitment.instances)
    )
    left = [one for one in instances if one.outcome in (InstanceOutcome.OPEN, InstanceOutcome.FAILED)]
    if not left:
        raise CannotAskError(f"everything that {commitment.transaction_uid} asked for is committed")
    wanted = [one for one in left if one.reference.is_of_uids]
    if not wanted:
        raise CannotAskError(f"what of {commitment.transaction_uid} is not committed is named by no UID")
    return ask(
        transaction,
        peer,
        [instance.reference for instance in wanted],
        own_ae_title=commitment.own_ae_title,
        created_by=created_by,
        version_keys=[instance.version_key for instance in wanted],
        terms=terms,
        replaces=commitment.commitment_key,
        due_in_seconds=due_in_seconds,
    )


# Where a peer is.

_WAY_TO_PEER: Final = ("tls", "connect_seconds", "answer_seconds")
"""What of a peer that nobody defined stands in the arguments of the job, beside the columns of the transaction."""


def asked_at(commitment: Commitment) -> tuple[str, str, int]:
    """Return AE title, host and port that a transaction of ours was to go to, as its row has them."""
    host, _, port = commitment.peer_address.rpartition(":")
    return commitment.peer_ae_title, host.strip("[]"), int(port) if port.isdigit() else 0


def peer_of(commitment: Commitment, found: Peer | None, way_to_peer: Mapping[str, Any] | None = None) -> Peer:
    """Return the peer to ask: the one that is defined now by the name in the transaction, or one made of the row.

    A defined peer that says no more where it is, or another AE title, is asked where it was; its own AE title for us stays
    that of the transaction, by which the peer knows who asked.
    """
    ae_title, host, port = asked_at(commitment)
    if found is not None and found.is_reachable and found.ae_title == ae_title:
        return replace(found, own_ae_title=commitment.own_ae_title)
    name = commitment.peer
    return Peer(
        name=name,
        ae_title=ae_title,
        host=host,
        port=port,
        own_ae_title=commitment.own_ae_title,
        **(way_to_peer or {}),
    )


def lane_of(peer: Peer) -> str:
    """Return the lane in which everything that calls a peer waits for its turn."""
    return f"peer:{peer.name or peer.where}"


def _where(peer: Peer) -> str:
    if not peer.is_reachable:
        raise CannotAskError(
            f"nobody knows where the peer {peer.name} is: give it ae_title, host and port"
            if peer.name
            else "a peer needs AE title, host and port"
        )
    return peer.where.rpartition("@")[2]


# What is asked for.


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Instances that we keep, as references with the keys of their current versions; `missing` are those we don't."""

    references: tuple[Reference, ...]
    version_keys: tuple[int, ...]
    missing: tuple[str, ...]


def find_kept(connection: Connection, sop_instance_uids: Sequence[str]) -> Kept:
    """Look up instances by their UIDs, in the order given: what the current version of each is, for `ask`."""
    references: list[Reference] = []
    version_keys: list[int] = []
    missing: list[str] = []
    for portion in portions(dict.fromkeys(sop_instance_uids)):
        found = find_versions(connection, portion)
        for uid in portion:
            current = next((version for version in found.get(uid, ()) if version.is_current), None)
            if current is None:
                missing.append(uid)
            else:
                references.append(Reference(sop_class_uid=current.sop_class_uid, sop_instance_uid=uid))
                version_keys.append(current.version_key)
    return Kept(references=tuple(references), version_keys=tuple(version_keys), missing=tuple(missing))
