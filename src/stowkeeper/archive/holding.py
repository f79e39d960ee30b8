"""Holds: who has been promised that a version stays, and why, in words.

A hold is a version and a reason; each reason is released alone. Storage commitment puts the transaction and the peer
into the reason, so that a hold alone tells to whom the bytes were promised. `versions.hold` and `release_hold` change
them with all that follows; what stands here is the rows and the words.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, insert, select

from stowkeeper.archive.catalog_values import portions
from stowkeeper.archive.changes import ChangeKind, note_changes
from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import holds

# An AE title has sixteen characters at most (PS3.5 §6.2), and what names a web client has more.
_COMMITMENT = re.compile(r"commitment (\S+) asked by (?:(.{0,16}?), of the peer (.+)|(.*))", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentHold:
    """To whom the bytes of a version were promised, and in which transaction (PS3.4 Annex J).

    `peer` is the name of the configured peer, since several may have one AE title; '' of a web client, and in holds that
    were written before names were.
    """

    transaction_uid: str
    ae_title: str
    peer: str = ""

    @property
    def asker(self) -> str:
        """Who asked, in words."""
        return f"{self.ae_title}, of the peer {self.peer}" if self.peer else self.ae_title


def commitment_hold_reason(transaction_uid: str, ae_title: str, peer: str = "") -> str:
    """Return the reason of a hold of storage commitment. `ae_title` is who asked; for a web client whatever names it."""
    hold = CommitmentHold(transaction_uid=transaction_uid, ae_title=ae_title, peer=peer)
    return f"commitment {transaction_uid} asked by {hold.asker}"


def parse_commitment_hold(reason: str) -> CommitmentHold | None:
    """Read what `commitment_hold_reason` wrote; None for a hold of another kind."""
    found = _COMMITMENT.fullmatch(reason)
    if found is None:
        return None
    uid, ae_title, peer, alone = found.groups()
    if peer is None:
        return CommitmentHold(transaction_uid=uid, ae_title=alone)
    return CommitmentHold(transaction_uid=uid, ae_title=ae_title, peer=peer)


def reasons_of(connection: Connection, version_keys: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Return why versions are held, the oldest reason first; those that nobody holds are not in the answer."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for portion in portions(version_keys):
        rows = connection.execute(
            select(holds.c.version_key, holds.c.reason)
            .where(holds.c.version_key.in_(portion))
            .order_by(holds.c.held_since, holds.c.reason)
        )
        for row in rows:
            found[row.version_key].append(row.reason)
    return {key: tuple(reasons) for key, reasons in found.items()}


def insert_holds(transaction: Transaction, version_keys: Iterable[int], reason: str) -> list[int]:
    """Write the holds that are not there yet, with their change rows; return the versions that got one.

    The caller settles their instances.
    """
    keys = sorted(set(version_keys))
    held: set[int] = set()
    for portion in portions(keys):
        query = select(holds.c.version_key).where(holds.c.version_key.in_(portion), holds.c.reason == reason)
        held.update(transaction.execute(query).scalars())
    new = [key for key in keys if key not in held]
    if new:
        rows = [{"version_key": key, "reason": reason, "held_since": transaction.at} for key in new]
        transaction.execute(insert(holds), rows)
        note_changes(transaction, ChangeKind.HELD, new, reason)
    return new


def delete_holds(transaction: Transaction, version_keys: Iterable[int], reason: str) -> list[int]:
    """Take the holds of one reason away, with their change rows; return the versions that had one.

    The caller settles their instances.
    """
    released: list[int] = []
    for portion in portions(sorted(set(version_keys))):
        condition = and_(holds.c.version_key.in_(portion), holds.c.reason == reason)
        held: Collection[int] = (
            transaction.execute(select(holds.c.version_key).where(condition)).scalars().all()
        )
        if held:
            transaction.execute(delete(holds).where(condition))
            note_changes(transaction, ChangeKind.RELEASED, list(held), reason)
            released += held
    return released


def delete_all_holds(transaction: Transaction, version_keys: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """Take every hold of some versions away, with the change rows; return the reasons there were.

    The caller settles their instances.
    """
    found = reasons_of(transaction.connection, version_keys)
    keys_of: defaultdict[str, list[int]] = defaultdict(list)
    for key, reasons in found.items():
        for reason in reasons:
            keys_of[reason].append(key)
    for reason, keys in keys_of.items():
        delete_holds(transaction, keys, reason)
    return found
