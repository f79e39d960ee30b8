"""Choosing: which version of an instance a storage commitment is about (decision 11), and holding it.

A peer that asks for a commitment deletes what it sent. So of the versions kept it is the one with the bytes that this
peer itself sent last, by a receipt, of one that was identical too. A peer that sent none of them is told of the current one,
if there is no other to mistake it for. Where nobody can say which bytes were meant it is a conflict: the peer sent none of
several, what it sent last was replaced or went bad and other bytes are there, others may have sent it under its AE title, the clock
may have been set back between, or other bytes of the instance are promised to another peer already. Where what it sent last was removed, it is not there,
whatever others sent.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Any

from sqlalchemy import Connection, select

from stowkeeper.archive.catalog_values import Version, VersionState, portions
from stowkeeper.archive.holding import (
    CommitmentHold,
    commitment_hold_reason,
    parse_commitment_hold,
    reasons_of,
)
from stowkeeper.archive.succession import Arrival, in_succession
from stowkeeper.archive.versions import COUNTED, find_versions, find_versions_by_key, hold
from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import commitments, receipts


class Origin(Enum):
    """What an address tells of a receipt that carries the AE title of who asks."""

    OWN = auto()  # it came from who asks
    UNCERTAIN = auto()  # nothing but the AE title says so
    OTHER = auto()  # it came from another one of this AE title


def _by_ae_title_alone(_address: str) -> Origin:
    return Origin.OWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """For whom versions are chosen and held.

    `ae_title` is what it calls itself, '' where nothing counts as sent by it; for a web client, words that name it. `peer`
    is its name where it is configured. `origin_of` tells by an address whether a receipt with this AE title is its own,
    since several peers may have one AE title, and a stranger may take it.
    """

    ae_title: str
    peer: str = ""
    origin_of: Callable[[str], Origin] = _by_ae_title_alone

    def is_another(self, promise: CommitmentHold, address_of: Callable[[str], str | None]) -> bool:
        """Tell whether something was promised to another one than this.

        `address_of` tells from where a transaction was asked for, None where no row says so. A peer of another name that
        has the AE title of this one, and asked from where this one is, is this one: it was renamed in between.
        """
        if promise.peer and promise.peer == self.peer:
            return False
        if promise.ae_title != self.ae_title:
            return True
        if not (promise.peer and self.peer):
            return False
        address = address_of(promise.transaction_uid)
        return address is None or self.origin_of(address) is not Origin.OWN


NOBODY = Asker(ae_title="")
"""Who sent nothing and was promised nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The version of an instance that a commitment is about.

    `version` is None where none is kept, and in a `conflict`, which is unsettled; `words` say why, without patient data.
    They are empty where there is a version.
    """

    version: Version | None
    conflict: bool = False
    words: str = ""


UNKNOWN = Choice(version=None, words="the archive has no such instance")
GONE = {
    VersionState.SUPERSEDED: "it was replaced, and what replaced it is not kept",
    VersionState.REMOVING: "it is being removed",
    VersionState.REMOVED: "it was removed",
    VersionState.DAMAGED: "its file was found damaged or missing, and it has not been sent again since",
}
"""What became of a version that is not kept, for people."""

_OTHERS_STAND = {
    VersionState.SUPERSEDED: "what this peer sent was replaced, and other bytes are kept",
    VersionState.DAMAGED: "what this peer sent was found damaged or missing, and other bytes are kept",
}


def choose_versions(
    connection: Connection, sop_instance_uids: Sequence[str], asker: Asker
) -> dict[str, Choice]:
    """Return for each SOP Instance UID which version who asks means. Ten thousand take a fifth of a second."""
    wanted = list(dict.fromkeys(sop_instance_uids))
    found = find_versions(connection, wanted, tuple(VersionState))
    chosen: dict[str, Choice] = {}
    several: dict[str, list[Version]] = {}
    for uid in wanted:
        versions = found.get(uid)
        if versions is None:
            chosen[uid] = UNKNOWN
        elif not any(version.state is VersionState.KEPT for version in versions):
            chosen[uid] = Choice(version=None, words=GONE[versions[-1].state])
        elif len(versions) == 1:
            chosen[uid] = Choice(version=versions[0])
        else:
            several[uid] = versions
    if several:
        sent = _sent_by(connection, several.values(), asker) if asker.ae_title else {}
        counted = [v.version_key for some in several.values() for v in some if v.state in COUNTED]
        promised = _promised_to_others(connection, counted, asker)
        for uid, versions in several.items():
            chosen[uid] = _choose(versions, sent.get(uid), promised)
    return {uid: chosen[uid] for uid in wanted}


def hold_for_commitment(
    transaction: Transaction, version_keys: Iterable[int], transaction_uid: str, asker: Asker
) -> dict[int, str]:
    """Hold checked versions for a commitment, in the transaction that makes it certain.

    Returns those that could not be held, with the words why: they are not kept any more, or other bytes of their
    instance were promised to another peer since they were chosen. All others are held from this transaction on.
    """
    keys = sorted(set(version_keys))
    refused: dict[int, str] = {}
    checked = find_versions_by_key(transaction.connection, keys)
    several = {v.sop_instance_uid for v in checked.values() if v.conflict and v.state is VersionState.KEPT}
    others = find_versions(transaction.connection, sorted(several), COUNTED)
    promised = _promised_to_others(
        transaction.connection, [v.version_key for versions in others.values() for v in versions], asker
    )
    for key in keys:
        version = checked.get(key)
        if version is None:
            refused[key] = UNKNOWN.words
        elif version.state is not VersionState.KEPT:
            refused[key] = GONE[version.state]
        elif words := _contradiction(version, others.get(version.sop_instance_uid, ()), promised):
            refused[key] = words
    hold(
        transaction,
        [key for key in keys if key not in refused],
        commitment_hold_reason(transaction_uid, asker.ae_title, asker.peer),
    )
    return refused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """The receipts that carry the AE title of who asks and may be its own, by the versions that they prove, as they came.

    `is_certain` tells whether the last one is its own. Each of `rivals` may have come last instead.
    """

    version_keys: Sequence[int]
    rivals: Sequence[int]
    is_certain: bool


def _choose(versions: Sequence[Version], sent: _Sent | None, promised: Mapping[int, str]) -> Choice:
    """Choose among several versions of an instance, of which one is kept at least."""
    kept = [version for version in versions if version.state is VersionState.KEPT]
    if sent is None:
        if len({version.content for version in kept}) > 1:
            return _conflict("several versions of it are kept, and this peer sent none of them")
        return _settled(kept[-1], versions, promised)
    by_key = {version.version_key: version for version in versions}
    last = by_key[sent.version_keys[-1]]
    if not sent.is_certain and any(by_key[key].content != last.content for key in sent.version_keys):
        return _conflict("several versions of it carry the AE title of this peer, from several addresses")
    if any(by_key[key].content != last.content for key in sent.rivals):
        return _conflict("the clock may have been set back between several versions that this peer sent")
    if last.state is VersionState.KEPT:
        return _settled(last, versions, promised)
    same = [version for version in kept if version.content == last.content]
    if same:
        return _settled(same[-1], versions, promised)
    if last.state in _OTHERS_STAND:
        return _conflict(_OTHERS_STAND[last.state])
    return Choice(version=None, words=GONE[last.state])


def _settled(version: Version, versions: Sequence[Version], promised: Mapping[int, str]) -> Choice:
    words = _contradiction(version, versions, promised)
    return _conflict(words) if words else Choice(version=version)


def _contradiction(version: Version, versions: Collection[Version], promised: Mapping[int, str]) -> str:
    """Say to whom other bytes of the instance are promised, by the peers in `promised`; "" when to nobody."""
    for other in versions:
        if other.version_key in promised and other.content != version.content:
            return f"another version of it is committed to {promised[other.version_key]}"
    return ""


def _conflict(words: str) -> Choice:
    return Choice(version=None, conflict=True, words=words)


def _sent_by(
    connection: Connection, several: Collection[Sequence[Version]], asker: Asker
) -> dict[str, _Sent]:
    """Return, by SOP Instance UID, what who asks sent or may have sent."""
    uids = {version.version_key: version.sop_instance_uid for versions in several for version in versions}
    found: defaultdict[str, dict[Arrival, Any]] = defaultdict(dict)
    columns = receipts.c
    for portion in portions(uids):
        query = select(
            columns.receipt_key,
            columns.receipt_id,
            columns.version_key,
            columns.received_at,
            columns.peer_address,
        ).where(columns.version_key.in_(portion), columns.calling_ae_title == asker.ae_title)
        for row in connection.execute(query):
            if asker.origin_of(row.peer_address) is not Origin.OTHER:
                arrival = Arrival(row.receipt_key, row.received_at, row.receipt_id)
                found[uids[row.version_key]][arrival] = row
    sent: dict[str, _Sent] = {}
    successions = in_succession(connection, [list(rows) for rows in found.values()])
    for (uid, rows), succession in zip(found.items(), successions, strict=True):
        last = rows[succession.arrivals[-1]]
        sent[uid] = _Sent(
            version_keys=[rows[arrival].version_key for arrival in succession.arrivals],
            rivals=[rows[arrival].version_key for arrival in succession.rivals],
            is_certain=asker.origin_of(last.peer_address) is Origin.OWN,
        )
    return sent


def _promised_to_others(connection: Connection, version_keys: Sequence[int], asker: Asker) -> dict[int, str]:
    """Return to whom some versions are committed, other than to who asks."""

    @cache
    def address_of(transaction_uid: str) -> str | None:
        return connection.execute(
            select(commitments.c.peer_address).where(
                commitments.c.role == "provider",
                commitments.c.transaction_uid == transaction_uid,
                commitments.c.duplicate_of.is_(None),
            )
        ).scalar_one_or_none()

    promised: dict[int, str] = {}
    for key, reasons in reasons_of(connection, version_keys).items():
        for reason in reasons:
            commitment = parse_commitment_hold(reason)
            if commitment is not None and asker.is_another(commitment, address_of):
                promised[key] = commitment.asker
    return promised
