"""Removal: take versions away, so that at every moment the rows tell the truth about the files.

Two durable steps. First the rows say `removing`; only then are files unlinked, their folders synced, and the
rows say `removed`. What a crash leaves in between says `removing` and is finished by whoever comes by: the
server's keeper, `verify`, or the next `rm`. The receipts and the change rows stay: what, when, why, how many.

Nobody may take another's file away. A name on the shelf can be given to a newcomer as soon as it is free, so
the second step runs under the shelf's lock and the writer lock, where nobody else changes the shelf and no row can
change, and it unlinks a file only if the receipt in it is the version's own.

Held versions are not removed, unless a person overrides that: then the holds that the plan named are released and the
audit trail says who did it and why, in the transaction that says `removing`. A hold that came after the plan is a promise
that nobody has seen yet: with it the version stays. Damaged versions are evidence: their rows can be
closed, their files stay in quarantine.

Where no person decides but a rule, what it decided by is looked at once more in the transaction that says `removing`, and
all goes that the plan names, or nothing (`Sparing`).
"""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

import structlog
from sqlalchemy import Connection, insert, select, update

from stowkeeper.archive import audit, catalog, patient_tree, versions
from stowkeeper.archive.agreement import in_any
from stowkeeper.archive.catalog_values import Version, VersionState, portions
from stowkeeper.archive.changes import ChangeKind
from stowkeeper.archive.examine import read_receipt
from stowkeeper.archive.holding import delete_all_holds, reasons_of
from stowkeeper.archive.limits import REMOVAL_BATCH_MAX, REMOVAL_MARK_BATCH_MAX
from stowkeeper.archive.quarantine import QUARANTINE, Quarantine
from stowkeeper.archive.shelf_lock import OBJECTS, ShelfLock
from stowkeeper.archive.versions import find_versions_by_key
from stowkeeper.database import schema
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.durable.filesystem import FileSystem

log = structlog.get_logger("stowkeeper.archive")

GRACE_OVER = "replaced by a newer version, and its grace time is over"
HOLD_OVERRIDDEN = "hold overridden"
"""The action in the audit trail when a held version is removed by hand."""

Sparing = Callable[[Connection, Collection[int]], str]
"""Asked in the transaction that would mark these versions: says in words why all of them stay, '' when all may go."""

_REMOVED_BY_HAND = (VersionState.KEPT, VersionState.SUPERSEDED)

_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldVersion:
    """A version that may not be removed, and the reasons of those who hold it."""

    version_key: int
    sop_instance_uid: str
    reasons: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class RemovalPlan:
    """What the removal of a study, a series or an instance would take away.

    `removing` were left in the middle of an earlier removal. `held` are refused; `overridden` are held as well, and among
    those that go, unless somebody holds them for another reason by then. `size` is in bytes, of the files to be unlinked.
    """

    uid: str
    kept: list[int] = field(default_factory=list)
    removing: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    held: list[HeldVersion] = field(default_factory=list)
    overridden: list[HeldVersion] = field(default_factory=list)
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
    since the plan was made; those of them that are held are named in `held`. `left` are paths whose files could not be
    unlinked, with the reason in words. `spared` says why nothing was taken away that a rule had chosen.
    """

    removed: int = 0
    closed: int = 0
    passed_over: int = 0
    spared: str = ""
    held: list[HeldVersion] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)


class Removal:
    """Removes versions from an archive, beside whatever else works on it.

    With `override_holds` versions go too that were held when the plan was made; `who` asked for that, a credential or the
    user of a command. So many as `mark_batch_max` are marked in one transaction. `progress` is told the number of versions of
    each batch that is done, and 0 between two versions. It may raise: what was marked until then is finished later.
    """

    def __init__(
        self,
        files: FileSystem,
        root: str,
        database: Database,
        *,
        override_holds: bool = False,
        who: str = "",
        mark_batch_max: int = REMOVAL_MARK_BATCH_MAX,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Prepare. Raises ValueError where holds are to be overridden and nobody says who does it."""
        if override_holds and not who:
            msg = "who overrides holds has to be named"
            raise ValueError(msg)
        self._override_holds = override_holds
        self._who = who
        self._mark_batch_max = mark_batch_max
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
                self._progress(0)
                is_going = version.state is VersionState.REMOVING
                if version.is_held and not is_going:
                    held.append(version)
                    if not self._override_holds:
                        continue
                (plan.removing if is_going else plan.kept).append(version.version_key)
                plan.size += version.file_size
                instances.add(version.instance_key)
            for version in _damaged_versions(connection, uid):
                if version.is_held:
                    held.append(version)
                    if not self._override_holds:
                        continue
                plan.damaged.append(version.version_key)
                instances.add(version.instance_key)
            named = _with_reasons(connection, held)
        if self._override_holds:
            plan.overridden = named
        else:
            plan.held = named
        plan.instances = len(instances)
        return plan

    def carry_out(self, plan: RemovalPlan, reason: str) -> RemovalResult:
        """Remove what a plan names.

        Raises DatabaseUnavailable or OSError; what was marked until then is finished later.
        """
        result = RemovalResult()
        marked: list[int] = []
        for portion in portions(plan.kept, self._mark_batch_max):
            self._progress(0)
            with self._database.write() as transaction:
                if self._override_holds:
                    self._override(transaction, plan.overridden, portion, _REMOVED_BY_HAND, reason)
                found = catalog.mark_removing(transaction, portion, reason=reason)
                keys = [version.version_key for version in found]
                result.held += _held_among(transaction.connection, set(portion) - set(keys))
            marked += keys
        result.passed_over = len(plan.kept) - len(marked)
        self.finish(marked, reason, result)
        self.finish(plan.removing, "", result)
        self._close_damaged(plan, reason, result)
        return result

    def carry_out_unless(self, plan: RemovalPlan, reason: str, spares: Sparing) -> RemovalResult:
        """Remove all that a plan names or nothing: `spares` decides, in the one transaction that marks all of it.

        Damaged versions are left as they are, and so is what is held. Raises as `carry_out`.
        """
        result = RemovalResult()
        marked: list[int] = []
        if plan.kept:
            with self._database.write() as transaction:
                result.spared = spares(transaction.connection, plan.kept)
                if not result.spared:
                    found = catalog.mark_removing(transaction, plan.kept, reason=reason)
                    marked = [version.version_key for version in found]
            result.passed_over = len(plan.kept) - len(marked)
        self.finish(marked, reason, result)
        self.finish(plan.removing, "", result)
        return result

    def _override(
        self,
        transaction: Transaction,
        overridden: Sequence[HeldVersion],
        version_keys: Iterable[int],
        states: Collection[VersionState],
        reason: str,
    ) -> None:
        """Release what holds versions that are about to go, and let the audit trail say so.

        Those that somebody holds for a reason which the plan does not name keep all their holds: they stay.
        """
        keys = set(version_keys)
        named = {held.version_key: held.reasons for held in overridden if held.version_key in keys}
        found = find_versions_by_key(transaction.connection, named)
        held = reasons_of(transaction.connection, named)
        going = [
            key
            for key, reasons in held.items()
            if found[key].state in states and set(reasons).issubset(named[key])
        ]
        released = delete_all_holds(transaction, going)
        audit.note_all(
            transaction,
            self._who,
            HOLD_OVERRIDDEN,
            [
                (found[key].sop_instance_uid, f"{reason}; it was held: {', '.join(reasons)}")
                for key, reasons in released.items()
            ],
        )

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
                self._progress(0)
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

    def _close_damaged(self, plan: RemovalPlan, reason: str, result: RemovalResult) -> None:
        """Mark damaged versions as removed. Their files stay in quarantine, and the result names them."""
        for portion in portions(plan.damaged):
            with self._database.write() as transaction:
                if self._override_holds:
                    self._override(transaction, plan.overridden, portion, (VersionState.DAMAGED,), reason)
                closed = _mark_damaged_as_removed(transaction, portion, reason)
                keys = {version.version_key for version in closed}
                result.held += _held_among(transaction.connection, set(portion) - keys)
            result.closed += len(closed)
            result.passed_over += len(portion) - len(closed)
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


def _with_reasons(connection: Connection, held: Sequence[Version]) -> list[HeldVersion]:
    """Name held versions with the reasons of their holds."""
    reasons = reasons_of(connection, [version.version_key for version in held])
    return [
        HeldVersion(
            version_key=version.version_key,
            sop_instance_uid=version.sop_instance_uid,
            reasons=reasons.get(version.version_key, ()),
        )
        for version in held
    ]


def _held_among(connection: Connection, version_keys: Collection[int]) -> list[HeldVersion]:
    """Name those of some versions that were not removed because somebody holds them by now."""
    found = find_versions_by_key(connection, version_keys) if version_keys else {}
    return _with_reasons(connection, [version for version in found.values() if version.is_held])


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
