"""Asking for instances of the archive to be sent to a peer: what the UIDs name, and the job that sends it.

The job is put in by the caller's transaction. What a study or a series holds is looked up there and then, as items of the
job: what comes later is not sent by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, select

from stowkeeper.archive.catalog_values import portions
from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import instance_among, instances, series, studies, versions
from stowkeeper.jobs.job import Job, JobRequest
from stowkeeper.jobs.submission import submit
from stowkeeper.services.commitment.asking import DEFAULT_TERMS, AskTerms, lane_of
from stowkeeper.services.limits import STORE_INSTANCES_MAX, UNKNOWN_UIDS_NAMED_MAX
from stowkeeper.services.peers import Peer

JOB_KIND: Final = "store"

_WAY_TO_PEER: Final = ("ae_title", "host", "port", "own_ae_title", "tls", "connect_seconds", "answer_seconds")
"""What of a peer that nobody defined stands in the arguments of its job."""


class CannotStoreError(ValueError):
    """Nothing can be sent to the peer for this; the text says why. `unknown` are UIDs of which nothing is kept."""

    def __init__(self, sentence: str, unknown: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.unknown = tuple(unknown)


def submit_store(
    transaction: Transaction,
    peer: Peer,
    uids: Sequence[str],
    *,
    created_by: str,
    commit: bool = False,
    terms: AskTerms = DEFAULT_TERMS,
    priority: int = 0,
) -> Job:
    """Put in the job that sends instances to a peer; the UIDs are those of studies, series and instances.

    With `commit` the peer is asked to commit what it stored, when all is sent, on these `terms`; the Transaction UID then
    stands in the checkpoint of the job under `transaction_uid`. A peer without a name is one that nobody defined; the
    job then holds where it is.

    Raises:
        CannotStoreError: nobody knows where the peer is, nothing is kept of one of the UIDs, or there are more than
            STORE_INSTANCES_MAX instances.

    """
    _check_reachable(peer)
    asked = list(dict.fromkeys(uids))
    items = items_to_send(transaction.connection, asked)
    arguments: dict[str, Any] = {"commit": commit}
    if commit:
        arguments["terms"] = asdict(terms)
    if not peer.name:
        arguments["way_to_peer"] = {name: getattr(peer, name) for name in _WAY_TO_PEER}
    subject = asked[0] if len(asked) == 1 else ""
    return submit(
        transaction,
        store_request(
            peer, items, created_by=created_by, priority=priority, arguments=arguments, subject=subject
        ),
    )


def store_request(
    peer: Peer,
    sop_instance_uids: Sequence[str],
    *,
    created_by: str,
    priority: int = 0,
    arguments: Mapping[str, Any],
    subject: str = "",
) -> JobRequest:
    """Return the job that sends these very instances to a peer, in this order. Raises CannotStoreError as `submit_store`."""
    _check_reachable(peer)
    return JobRequest(
        kind=JOB_KIND,
        arguments=arguments,
        subject=subject,
        peer=peer.name,
        lane=lane_of(peer),
        priority=priority,
        created_by=created_by,
        items=sop_instance_uids,
    )


def _check_reachable(peer: Peer) -> None:
    if not peer.is_reachable:
        who = f"the peer {peer.name}" if peer.name else "a peer"
        raise CannotStoreError(f"nobody said where {who} is called: it needs ae_title, host and port")


def items_to_send(connection: Connection, asked: Sequence[str]) -> list[str]:
    """Return the instances that UIDs of studies, series and instances name, each once, as items of a job that sends them.

    Raises:
        CannotStoreError: no UID is given, nothing is kept of one of them, or there are more than STORE_INSTANCES_MAX instances.

    """
    if not asked:
        raise CannotStoreError("there is nothing to send: name studies, series or instances by their UIDs")
    found = kept_instances(connection, asked)
    items = list(dict.fromkeys(uid for some in found.values() for uid in some))
    if len(items) > STORE_INSTANCES_MAX:
        raise CannotStoreError(
            f"there are more than {STORE_INSTANCES_MAX} instances, which is what one job can send: send them in parts"
        )
    unknown = [uid for uid in asked if uid not in found]
    if unknown:
        more = len(unknown) - UNKNOWN_UIDS_NAMED_MAX
        named = ", ".join(unknown[:UNKNOWN_UIDS_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
        raise CannotStoreError(f"nothing is kept here of {named}", unknown)
    return items


def peer_in(arguments: Mapping[str, Any]) -> Peer | None:
    """Return the peer that nobody defined, as the arguments of its job have it; None for one that goes by its name."""
    way = arguments.get("way_to_peer")
    return None if way is None else Peer(name="", **way)


def kept_instances(connection: Connection, uids: Sequence[str]) -> dict[str, list[str]]:
    """Return for each UID the SOP Instance UIDs of what is kept of it, in the order of arrival.

    A UID is that of a study, a series or an instance. One of which nothing is kept is not in the answer. An instance
    belongs to the series that its current version names. Not many more than STORE_INSTANCES_MAX are looked up.
    """
    found: dict[str, dict[str, None]] = {}
    for portion in portions(uids):
        for query in _queries(portion):
            for uid, sop_instance_uid in connection.execute(query):
                found.setdefault(uid, {})[sop_instance_uid] = None
    return {uid: list(found[uid]) for uid in uids if uid in found}


def _queries(uids: Sequence[str]) -> tuple[Any, Any, Any]:
    kept = instances.c.current_version_key.is_not(None)
    is_current = instances.c.current_version_key == versions.c.version_key
    order = (versions.c.series_key, versions.c.instance_key)
    return (
        select(instances.c.sop_instance_uid, instances.c.sop_instance_uid).where(instance_among(uids), kept),
        select(series.c.series_instance_uid, instances.c.sop_instance_uid)
        .join(versions, versions.c.series_key == series.c.series_key)
        .join(instances, (instances.c.instance_key == versions.c.instance_key) & is_current)
        .where(series.c.series_instance_uid.in_(uids))
        .order_by(*order)
        .limit(STORE_INSTANCES_MAX + 1),
        select(studies.c.study_instance_uid, instances.c.sop_instance_uid)
        .join(series, series.c.study_key == studies.c.study_key)
        .join(versions, versions.c.series_key == series.c.series_key)
        .join(instances, (instances.c.instance_key == versions.c.instance_key) & is_current)
        .where(studies.c.study_instance_uid.in_(uids))
        .order_by(*order)
        .limit(STORE_INSTANCES_MAX + 1),
    )
