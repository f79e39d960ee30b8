"""Removal: take versions away, so that at every moment the rows tell the truth about the files.

Two durable steps. First the rows say `removing`; only then are files unlinked, their folders synced, and the
rows say `removed`. What a crash leaves in between says `removing` and is finished by whoever comes by: the
server's keeper, `verify`, or the next `rm`. The receipts and the change rows stay: what, when, why, how many.

Nobody may take another's file away. A name on the shelf can be given to a newcomer as soon as it is free, so
the second step runs under the shelf's lock and the writer lock, where nobody else changes the shelf and no row can
change, and it unlinks a file only if the receipt in it is the version's own.

Held versions are not removed. Damaged ones are evidence: their rows can be closed, their files stay in
quarantine.
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

import structlog
from sqlalchemy import Connection, insert, select, update

from stowkeeper.archive import catalog, patient_tree, versions
from stowkeeper.archive.agreement import in_any
from stowkeeper.archive.catalog_values import Version, VersionState, portions
from stowkeeper.archive.changes import ChangeKind
from stowkeeper.archive.examine import read_receipt
from stowkeeper.archive.limits import REMOVAL_BATCH_MAX, REMOVAL_MARK_BATCH_MAX
from stowkeeper.archive.quarantine import QUARANTINE, Quarantine
from stowkeeper.archive.shelf_lock import OBJECTS, ShelfLock
from stowkeeper.database import schema
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.durable.filesystem import FileSystem

log = structlog.get_logger("stowkeeper.archive")

GRACE_OVER = "replaced by a newer version, and its grace time is over"

_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldVersion:
    """A version that may not be removed, and the reasons of those who hold it."""

    sop_instance_uid: str
    reasons: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class RemovalPlan:
    """What the removal of a study, a series or an instance would take away.

    `removing` were left in the middle of an earlier removal. `size` is in bytes, of the files to be unlinked.
    """

    uid: str
    kept: list[int] = field(default_factory=list)
    removing: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    held: list[HeldVersion] = field(default_factory=list)
    instances: int = 0
    size: int = 0

    @property
    def versions(self) -> int:
        """The number of versions that would go."""
        return len(self.kept) + len(self.removing) + len(self.damaged)

    @property
    def found(self) -> bool:
        """Whether there is anything of this UID."""
        return bool(self.versions or self.held)


@dataclass(slots=True, kw_only=True)
class RemovalResult:
    """What a removal did, in numbers of versions.

    `closed` are damaged ones whose rows say `removed` now; `quarantined` are their files and others that
    turned out to be damaged, which are never deleted by us. `passed_over` were held or removed by others
    since the plan was made. `left` are paths whose files could not be unlinked, with the reason in words.
    """

    removed: int = 0
    closed: int = 0
    passed_over: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)


class Removal:
    """Removes versions from an archive, beside whatever else works on it."""

    def __init__(
        self,
        files: FileSystem,
        root: str,
        database: Database,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._files = files
        self._root = root
        self._database = database
        self._progress = progress or (lambda _count: None)
        self._quarantine = Quarantine(files, root)
        self._shelf = ShelfLock(files, root)

    def plan(self, uid: str) -> RemovalPlan:
        """Look what the UID of a study, a series or an instance stands for."""
        plan = RemovalPlan(uid=uid)
        instances: set[int] = set()
        held: list[Version] = []
        with self._database.read() as connection:
            for version in catalog.versions_for_removal(connection, uid):
                if version.is_held and version.state is not VersionState.REMOVING:
                    held.append(version)
                    continue
                keys = plan.removing if version.state is VersionState.REMOVING else plan.kept
                keys.append(version.version_key)
                plan.size += version.file_size
                instances.add(version.instance_key)
            for version in _damaged_versions(connection, uid):
                if version.is_held:
                    held.append(version)
                else:
                    plan.damaged.append(version.version_key)
                    instances.add(version.instance_key)
            plan.held = [
                HeldVersion(sop_instance_uid=version.sop_instance_uid, reasons=reasons)
                for version, reasons in _with_reasons(connection, held)
            ]
        plan.instances = len(instances)
        return plan

    def carry_out(self, plan: RemovalPlan, reason: str) -> RemovalResult:
        """Remove what a plan names.

        Raises DatabaseUnavailable or OSError; what was marked until then is finished later.
        """
        result = RemovalResult()
        marked: list[int] = []
        for portion in portions(plan.kept, REMOVAL_MARK_BATCH_MAX):
            with self._database.write() as transaction:
                found = catalog.mark_removing(transaction, portion, reason=reason)
            marked += [version.version_key for version in found]
        result.passed_over = len(plan.kept) - len(marked)
        self.finish(marked, reason, result)
        self.finish(plan.removing, "", result)
        self._close_damaged(plan.damaged, reason, result)
        return result

    def finish(self, version_keys: Iterable[int], reason: str, result: RemovalResult) -> None:
        """Do the second step for versions that are marked, and add to a result what came of it.

        `reason` is empty where the change row of the first step has it. Raises DatabaseUnavailable or
        OSError.
        """
        for portion in portions(version_keys, REMOVAL_BATCH_MAX):
            with self._shelf.held():
                with self._database.write() as transaction:
                    marked = _load(transaction.connection, portion, VersionState.REMOVING)
                    gone = self._unlink(marked, result)
                    catalog.mark_removed(transaction, [v.version_key for v in gone], reason=reason)
                # What is not marked any more was removed by another process, which finished what it saw half done.
                result.removed += len(gone) + len(portion) - len(marked)
                for folder in sorted({version.path.rpartition("/")[0] for version in gone}):
                    self._remove_empty_folders(folder)
            self._progress(len(portion))

    def _unlink(self, marked: Sequence[Version], result: RemovalResult) -> list[Version]:
        """Take the files of versions away, durably; return the versions whose files are gone.

        Raises OSError when a folder cannot be synced.
        """
        gone: list[Version] = []
        for folder, group in groupby(
            sorted(marked, key=lambda v: v.path), lambda v: v.path.rpartition("/")[0]
        ):
            in_folder = list(group)
            for version in in_folder:
                try:
                    self._unlink_own(version, result)
                except OSError as error:
                    result.left.append((version.path, error.strerror or str(error)))
                else:
                    gone.append(version)
            # A folder that is gone took its names along, and whoever removed it had emptied it.
            with suppress(FileNotFoundError):
                self._files.synchronize_directory(os.path.join(self._root, folder))
        return gone

    def _unlink_own(self, version: Version, result: RemovalResult) -> None:
        """Unlink a version's file if the name still leads to it."""
        absolute = os.path.join(self._root, version.path)
        try:
            receipt = read_receipt(self._files, absolute)
        except FileNotFoundError:
            return
        if receipt is None:
            words = (
                f"the head of the file of instance {version.sop_instance_uid} was damaged when it was removed"
            )
            result.quarantined.append(self._quarantine.put_away(version.path, words))
        elif receipt.receipt_id == version.receipt_id:
            self._files.unlink(absolute)
        # Else a crash came after our unlink, and a newcomer got the name since.

    def _remove_empty_folders(self, folder: str) -> None:
        """Remove a folder and those above it as far as they are empty."""
        while folder not in {OBJECTS, ""}:
            above = folder.rpartition("/")[0]
            try:
                self._files.remove_directory(os.path.join(self._root, folder))
                self._files.synchronize_directory(os.path.join(self._root, above))
            except OSError as error:
                if error.errno not in _NOT_EMPTY:
                    log.warning("error", what="an empty folder stays", path=folder, error=error.strerror)
                return
            folder = above

    def _close_damaged(self, version_keys: Sequence[int], reason: str, result: RemovalResult) -> None:
        """Mark damaged versions as removed. Their files stay in quarantine, and the result names them."""
        for portion in portions(version_keys):
            with self._database.write() as transaction:
                closed = _mark_damaged_as_removed(transaction, portion, reason)
            result.closed += len(closed)
            for version in closed:
                result.quarantined += self._quarantine_names(os.path.basename(version.path))
            self._progress(len(portion))

    def _quarantine_names(self, stem: str) -> Iterator[str]:
        try:
            entries = self._files.list_directory(os.path.join(self._root, QUARANTINE))
        except FileNotFoundError:
            return
        for entry in entries:
            rest = entry.name.removeprefix(stem)
            if rest != entry.name and (not rest or rest[1:].isdecimal()):
                yield f"{QUARANTINE}/{entry.name}"


def remove_due(files: FileSystem, root: str, database: Database, now: str) -> RemovalResult:
    """Remove superseded versions whose grace time is over and that nobody holds; finish cut-off removals.

    `now` is UTC in ISO 8601, as rows have it. For whoever looks after an archive from time to time. Raises
    DatabaseUnavailable and OSError; the next time goes on.
    """
    removal = Removal(files, root, database)
    with database.read() as connection:
        due = catalog.due_for_removal(connection, now)
    plan = RemovalPlan(uid="")
    for version in due:
        keys = plan.removing if version.state is VersionState.REMOVING else plan.kept
        keys.append(version.version_key)
    result = removal.carry_out(plan, GRACE_OVER)
    if result.removed:
        log.info("write", what="versions that were due are removed", count=result.removed)
    for path, words in result.left:
        log.error("error", what="a file that is to be removed stays", path=path, reason=words)
    return result


def _load(connection: Connection, version_keys: Iterable[int], state: VersionState) -> list[Version]:
    """Return those of some versions that are in a state."""
    wanted = set(version_keys)
    uids = [
        uid
        for portion in portions(sorted(wanted))
        for uid in connection.execute(
            select(schema.instances.c.sop_instance_uid)
            .join(schema.versions, schema.versions.c.instance_key == schema.instances.c.instance_key)
            .where(schema.versions.c.version_key.in_(portion))
            .distinct()
        ).scalars()
    ]
    found = catalog.find_versions(connection, sorted(set(uids)), states=(state,))
    return [version for group in found.values() for version in group if version.version_key in wanted]


def _damaged_versions(connection: Connection, uid: str) -> list[Version]:
    """Return the damaged versions of a study, a series or an instance."""
    query = select(schema.versions.c.version_key).where(
        in_any(uid), schema.versions.c.state == VersionState.DAMAGED
    )
    return _load(connection, connection.execute(query).scalars().all(), VersionState.DAMAGED)


def _with_reasons(
    connection: Connection, held: Iterable[Version]
) -> Iterator[tuple[Version, tuple[str, ...]]]:
    """Yield held versions with the reasons of their holds."""
    for portion in portions(held):
        keys = [version.version_key for version in portion]
        rows = connection.execute(
            select(schema.holds.c.version_key, schema.holds.c.reason)
            .where(schema.holds.c.version_key.in_(keys))
            .order_by(schema.holds.c.held_since)
        ).all()
        for version in portion:
            yield version, tuple(row.reason for row in rows if row.version_key == version.version_key)


def _mark_damaged_as_removed(
    transaction: Transaction, version_keys: Sequence[int], reason: str
) -> list[Version]:
    """Close the rows of damaged versions that nobody holds; return those closed."""
    closed = [v for v in _load(transaction.connection, version_keys, VersionState.DAMAGED) if not v.is_held]
    keys = [version.version_key for version in closed]
    if not keys:
        return closed
    rows = schema.versions
    transaction.execute(
        update(rows)
        .where(rows.c.version_key.in_(keys))
        .values(state=VersionState.REMOVED, state_since=transaction.at)
    )
    transaction.execute(
        insert(schema.changes),
        [
            {
                "at": transaction.at,
                "kind": ChangeKind.REMOVED,
                "receipt_key": key,
                "version_key": key,
                "detail": reason,
            }
            for key in keys
        ],
    )
    versions.settle(transaction, {version.instance_key for version in closed})
    query = select(rows.c.series_key).where(rows.c.version_key.in_(keys), rows.c.series_key.is_not(None))
    patient_tree.forget(transaction, sorted(set(transaction.execute(query).scalars())))
    return closed
