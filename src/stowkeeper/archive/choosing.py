"""Choosing: which version of an instance a storage commitment is about (decision 11), and holding it.

A peer that asks for a commitment deletes what it sent. So of the versions kept it is the one that this peer itself sent
last, by the calling AE title of a receipt, of one that was identical too. A peer that sent none of them is told of the
current one, if there is no other to mistake it for. Where nobody can say which bytes were meant it is a conflict: the
peer sent none of several, what it sent last went bad and other bytes are there, or other bytes of the instance are
promised to another peer already.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from stowkeeper.archive.catalog_values import Version, VersionState, portions
from stowkeeper.archive.holding import commitment_hold_reason, parse_commitment_hold, reasons_of
from stowkeeper.archive.versions import COUNTED, find_versions, find_versions_by_key, hold
from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import receipts


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
_GONE = {
    VersionState.SUPERSEDED: "it was replaced, and what replaced it is not kept",
    VersionState.REMOVING: "it is being removed",
    VersionState.REMOVED: "it was removed",
    VersionState.DAMAGED: "its file was found damaged or missing, and it has not been sent again since",
}


def choose_versions(
    connection: Connection, sop_instance_uids: Sequence[str], calling_ae_title: str
) -> dict[str, Choice]:
    """Return for each SOP Instance UID which version the peer with this AE title means.

    An empty title is nobody's: then nothing counts as sent by who asks. Ten thousand take a fifth of a second.
    """
    wanted = list(dict.fromkeys(sop_instance_uids))
    found = find_versions(connection, wanted, tuple(VersionState))
    chosen: dict[str, Choice] = {}
    several: dict[str, list[Version]] = {}
    for uid in wanted:
        versions = found.get(uid)
        if versions is None:
            chosen[uid] = UNKNOWN
            continue
        counted = [version for version in versions if version.state in COUNTED]
        kept = [version for version in counted if version.state is VersionState.KEPT]
        if not kept:
            chosen[uid] = Choice(version=None, words=_GONE[versions[-1].state])
        elif len(counted) == 1:
            chosen[uid] = Choice(version=kept[0])
        else:
            several[uid] = counted
    if several:
        keys = [version.version_key for versions in several.values() for version in versions]
        sent = _last_sent(connection, keys, calling_ae_title) if calling_ae_title else {}
        promised = _promised_to_others(connection, keys, calling_ae_title)
        for uid, versions in several.items():
            chosen[uid] = _choose(versions, sent, promised)
    return {uid: chosen[uid] for uid in wanted}


def hold_for_commitment(
    transaction: Transaction, version_keys: Iterable[int], transaction_uid: str, ae_title: str
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
        transaction.connection, [v.version_key for versions in others.values() for v in versions], ae_title
    )
    for key in keys:
        version = checked.get(key)
        if version is None:
            refused[key] = UNKNOWN.words
        elif version.state is not VersionState.KEPT:
            refused[key] = _GONE[version.state]
        elif words := _contradiction(version, others.get(version.sop_instance_uid, ()), promised):
            refused[key] = words
    hold(
        transaction,
        [key for key in keys if key not in refused],
        commitment_hold_reason(transaction_uid, ae_title),
    )
    return refused


def _choose(
    versions: Sequence[Version], sent: Mapping[int, tuple[str, str]], promised: Mapping[int, str]
) -> Choice:
    """Choose among several versions of an instance, oldest first, of which one is kept at least."""
    kept = [version for version in versions if version.state is VersionState.KEPT]
    own = [version for version in versions if version.version_key in sent]
    last = max(own, key=lambda version: sent[version.version_key], default=None)
    if last is not None and last.state is VersionState.DAMAGED:
        repaired = [version for version in kept if version.content == last.content]
        if not repaired:
            return _conflict("what this peer sent was found damaged or missing, and other bytes are kept")
        last = repaired[-1]
    own_kept = [version for version in own if version.state is VersionState.KEPT]
    if last is not None and last.state is VersionState.KEPT:
        version = last
    elif own_kept:
        version = max(own_kept, key=lambda one: sent[one.version_key])
    elif len({version.content for version in kept}) > 1:
        return _conflict("several versions of it are kept, and this peer sent none of them")
    else:
        version = kept[-1]
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


def _last_sent(
    connection: Connection, version_keys: Sequence[int], calling_ae_title: str
) -> dict[int, tuple[str, str]]:
    """Return when the peer sent each of some versions the last time; those it did not send are not in the answer."""
    found: dict[int, tuple[str, str]] = {}
    for portion in portions(version_keys):
        rows = connection.execute(
            select(receipts.c.version_key, receipts.c.received_at, receipts.c.receipt_id).where(
                receipts.c.version_key.in_(portion), receipts.c.calling_ae_title == calling_ae_title
            )
        )
        for row in rows:
            order = row.received_at, row.receipt_id
            found[row.version_key] = max(found.get(row.version_key, ("", "")), order)
    return found


def _promised_to_others(connection: Connection, version_keys: Sequence[int], ae_title: str) -> dict[int, str]:
    """Return to whom some versions are committed, other than to the peer with this AE title."""
    promised: dict[int, str] = {}
    for key, reasons in reasons_of(connection, version_keys).items():
        for reason in reasons:
            commitment = parse_commitment_hold(reason)
            if commitment is not None and commitment.ae_title != ae_title:
                promised[key] = commitment.ae_title
    return promised
