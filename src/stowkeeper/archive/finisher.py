"""The finisher: what happens to an instance a moment after it was answered.

In batches: link to the shelf, sync the folders, write the rows in one transaction, and only then remove the
depot name. Each step can be done again: after a crash at any point the same steps run over what the depot
still holds, and one receipt id makes one change row however often it passes through here.
"""

import errno
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from stowkeeper.archive import catalog, ledger
from stowkeeper.archive.arrival import Content, DuplicatePolicy, Received, content_of
from stowkeeper.archive.catalog_values import (
    CatalogEntry,
    InsertResult,
    ReceiptOutcome,
    Version,
    VersionState,
)
from stowkeeper.archive.examine import Finding, examine
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord
from stowkeeper.archive.limits import (
    FINISHER_BACKLOG,
    FINISHER_BATCH_MAX,
    FINISHER_DELAY_SECONDS_MAX,
    FINISHER_LAST_TRIES,
    FINISHER_QUIET_SECONDS,
    FINISHER_RETRY_SECONDS,
    FINISHER_STOP_SECONDS,
    LEDGER_ROWS_MAX,
    THROTTLE_SECONDS_MAX,
    THROTTLE_SHARE,
    UNCATALOGUED_MAX,
)
from stowkeeper.archive.quarantine import Quarantine
from stowkeeper.archive.receipt import timestamp
from stowkeeper.archive.shelf import Damaged, Placed, Placing, Shelf, folder_of
from stowkeeper.database.engine import Database, DatabaseUnavailable, Transaction
from stowkeeper.dicom.attributes import extract
from stowkeeper.dicom.sop_classes import SERIES_INSTANCE_UID, STUDY_INSTANCE_UID
from stowkeeper.dicom.uid import strip_uid
from stowkeeper.durable.filesystem import FileSystem

log = structlog.get_logger("stowkeeper.archive")

_DISK_ERRORS = frozenset(
    {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENXIO, errno.ENODEV, errno.ESTALE}
)
"""Errors that say something of the disk. Others (an access right, a name) are about one instance alone."""

Row = Callable[[], RequestRecord | AssociationRecord]
"""Makes a row of the ledger. It is called on the finisher's thread, off the path of the answer."""


class Finisher:
    """Finishes instances on a thread of its own, and writes the ledger's rows with them.

    `on_disk_failure` is told in words when a folder sync failed or space ran out, `on_listed` how many of the
    instances that were submitted are in the catalog now.
    """

    def __init__(
        self,
        files: FileSystem,
        root: str,
        database: Database,
        *,
        uncatalogued_max: int = UNCATALOGUED_MAX,
        replace_grace_seconds: float = 0.0,
        on_disk_failure: Callable[[OSError | DatabaseUnavailable], None],
        on_listed: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._files = files
        self._database = database
        self._root = root
        self._avoided: dict[str, frozenset[str]] = {}
        self._shelf = Shelf(files, root)
        self._quarantine = Quarantine(files, root)
        self._on_disk_failure = on_disk_failure
        self._on_listed = on_listed
        self._replace_grace_seconds = replace_grace_seconds
        self._throttle_from = int(uncatalogued_max * THROTTLE_SHARE)
        self._condition = threading.Condition()
        self._waiting: deque[Received] = deque()
        self._submitted = 0
        self._rows: deque[Row] = deque()
        self._rows_lost = 0
        self._stuck: list[Received] = []
        self._retry_at = 0.0
        self._last_tries = FINISHER_LAST_TRIES
        self._tried: set[str] = set()
        self._working = 0
        self._busy = False
        self._in_flight: defaultdict[str, list[Content]] = defaultdict(list)
        self._first_at = 0.0
        self._last_at = 0.0
        self._stopping = False
        self._finishing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="finisher", daemon=True)

    def start(self) -> None:
        """Start the finisher's thread."""
        self._thread.start()

    def stop(self, seconds: float = FINISHER_STOP_SECONDS) -> bool:
        """Finish what is there and end; False when that took longer than `seconds` and something is left."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive() and self.uncatalogued() == 0

    def is_running(self) -> bool:
        """Tell whether the finisher's thread is at work, or hangs in something that a disk or a lock keeps it waiting for."""
        return self._thread.is_alive()

    def submitted(self) -> int:
        """Return the number of instances that were submitted so far."""
        return self._submitted

    def uncatalogued(self) -> int:
        """Return the number of instances that are kept but not yet in the catalog."""
        return len(self._waiting) + self._working + len(self._stuck)

    def on_their_way(self) -> frozenset[str]:
        """Return the SOP Instance UIDs of all that was submitted and is not in the catalog yet."""
        with self._condition:
            return frozenset(self._in_flight)

    def submit(self, received: Received) -> None:
        """Take over a synced instance. Called on worker threads; waits a little when far behind."""
        with self._condition:
            now = time.monotonic()
            if not self._waiting and not self._rows:
                self._first_at = now
                self._condition.notify_all()
            self._last_at = now
            self._submitted += 1
            self._waiting.append(received)
            self._in_flight[received.receipt.sop_instance_uid].append(content_of(received.receipt))
            if self.uncatalogued() > self._throttle_from:
                self._condition.notify_all()
                self._condition.wait_for(
                    lambda: self.uncatalogued() <= self._throttle_from or self._stopping, THROTTLE_SECONDS_MAX
                )

    def record(self, row: Row) -> None:
        """Add a row to the ledger with the next batch. Waits for nothing.

        Beyond a bound, which is met only while the database cannot be written, the row is lost and counted.
        """
        with self._condition:
            if len(self._rows) >= LEDGER_ROWS_MAX:
                self._rows_lost += 1
                return
            if not self._waiting and not self._rows:
                self._first_at = self._last_at = time.monotonic()
                self._condition.notify_all()
            self._rows.append(row)

    def kept_contents(self, sop_instance_uid: str) -> set[Content]:
        """Return the contents of all versions of an instance that are on their way to the catalog, or in it.

        Raises DatabaseUnavailable.
        """
        contents = set(self._in_flight.get(sop_instance_uid, ()))
        with self._database.read() as connection:
            found = catalog.find_versions(connection, [sop_instance_uid])
        return contents | {
            version.content
            for version in found.get(sop_instance_uid, ())
            if version.state is VersionState.KEPT
        }

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until nothing is left to finish or to write; False when that took longer."""
        with self._condition:
            return self._condition.wait_for(
                lambda: not (self._waiting or self._rows or self._stuck or self._busy), seconds
            )

    # The finisher's thread.

    def _run(self) -> None:
        while True:
            batch, rows = self._next_batch()
            if not batch and not rows:
                return
            failed = True
            try:
                left = self.finish(batch, rows)
                rows = []
                failed = False
            except DatabaseUnavailable as error:
                log.error("error", what="the catalog cannot be written", reason=str(error))
                self._on_disk_failure(error)
                left = batch
            except OSError as error:
                if error.errno in _DISK_ERRORS:
                    self._on_disk_failure(error)
                else:
                    log.error("error", what="a batch could not be finished", reason=str(error))
                left = batch
            except Exception:
                log.exception(
                    "error", what="a batch could not be finished, its instances are tried one by one"
                )
                left, rows = self._finish_singly(batch, rows)
                failed = bool(rows)
            self._settle(batch, left, rows, failed=failed)

    def _finish_singly(self, batch: list[Received], rows: list[Row]) -> tuple[list[Received], list[Row]]:
        """Finish what failed as a whole by a defect, so that the defect stops nothing but what meets it.

        Returns what could not be finished, and the rows that could not be written now; a row that meets a defect
        is dropped.
        """
        left: list[Received] = []
        left_rows: list[Row] = []
        for received in batch:
            try:
                left += self.finish([received])
            except Exception as error:
                log.exception("error", what="an instance could not be finished")
                self._report(received, type(error).__name__)
                left.append(received)
        for row in rows:
            try:
                self.finish([], [row])
            except DatabaseUnavailable:
                left_rows.append(row)
            except Exception:
                log.exception("error", what="a row of the ledger could not be written and is lost")
        return left, left_rows

    def _next_batch(self) -> tuple[list[Received], list[Row]]:
        with self._condition:
            while True:
                now = time.monotonic()
                if self._stuck and self._may_retry(now):
                    self._waiting.extend(self._stuck)
                    self._stuck.clear()
                if not self._waiting and not self._rows:
                    if self._stopping:
                        return [], []
                    self._condition.wait(self._retry_at - now if self._stuck else None)
                    continue
                due = min(self._last_at + FINISHER_QUIET_SECONDS, self._first_at + FINISHER_DELAY_SECONDS_MAX)
                if now >= due or self._stopping or len(self._waiting) >= FINISHER_BACKLOG:
                    break
                self._condition.wait(due - now)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), FINISHER_BATCH_MAX))]
            rows = [self._rows.popleft() for _ in range(min(len(self._rows), 2 * FINISHER_BATCH_MAX))]
            self._working = len(batch)
            self._busy = True
            return batch, rows

    def _may_retry(self, now: float) -> bool:
        """Tell whether it is time for what could not be finished; at a stop, some last times at once."""
        if not self._stopping:
            return now >= self._retry_at
        if self._waiting or not self._last_tries:
            return False
        self._last_tries -= 1
        return True

    def _settle(self, batch: list[Received], left: list[Received], rows: list[Row], *, failed: bool) -> None:
        """Account for a batch and put back what is left of it.

        When it `failed` as a whole everything pauses, so that a fault is not hammered; else only what is left
        waits, and holds up nothing else.
        """
        with self._condition:
            self._rows.extendleft(reversed(rows))
            self._working = 0
            self._busy = False
            self._stuck += left
            self._on_listed(len(batch) - len(left))
            unfinished = {id(received) for received in left}
            for received in batch:
                uid = received.receipt.sop_instance_uid
                if id(received) not in unfinished:
                    self._in_flight[uid].remove(content_of(received.receipt))
                    if not self._in_flight[uid]:
                        del self._in_flight[uid]
            self._first_at = time.monotonic()
            self._retry_at = self._first_at + FINISHER_RETRY_SECONDS
            self._condition.notify_all()
            if self._rows_lost and not failed:
                log.error(
                    "error",
                    what="lines of the ledger were lost while it could not be written",
                    count=self._rows_lost,
                )
                self._rows_lost = 0
            if failed:
                self._condition.wait_for(lambda: self._stopping, FINISHER_RETRY_SECONDS)
            if failed and self._stopping:
                # A clean stop does not wait for a disk or a database that fails: recovery has the rest.
                self._stuck += self._waiting
                self._waiting.clear()
                self._rows.clear()
                self._last_tries = 0

    def finish(self, batch: Sequence[Received], rows: Sequence[Row] = ()) -> list[Received]:
        """Finish a batch on the calling thread; return those that could not be and stay in the depot.

        Raises DatabaseUnavailable or OSError when the batch as a whole failed; nothing of it is lost.
        """
        with self._finishing:  # the shelf is for one thread, and recovery finishes beside us
            # What is tried again may have its rows already, and then goes another way.
            finished = {received.receipt.receipt_id for received in batch}
            try:
                left = self._finish(batch, rows)
            except BaseException:
                self._tried |= finished
                raise
            again = {received.receipt.receipt_id for received in left}
            self._tried -= finished - again
            self._tried |= again
            return left

    def take_back(self) -> None:
        """Take back from the shelf what an earlier process could not prove there. Raises OSError."""
        with self._finishing, self._shelf.held():
            pass

    def _finish(self, batch: Sequence[Received], rows: Sequence[Row]) -> list[Received]:
        placed, left = self._place_all(batch) if batch else ([], [])
        undecided = self._list(placed, rows)
        for received, place in placed:
            try:
                if received.receipt.receipt_id in undecided:
                    left.append(received)
                    self._decide_again(received, place)
                else:
                    self._clear(received, place)
            except (OSError, DatabaseUnavailable) as error:
                # The rows are durable: what is left to do is done by the next finisher that sees the depot name.
                self._report(received, str(error))
        return left

    def _place_all(self, batch: Sequence[Received]) -> tuple[list[tuple[Received, Placed]], list[Received]]:
        """Put a batch on the shelf, durably; return what stands there and what could not be put there.

        What has left the shelf since it was listed loses its depot name and is in neither. Raises OSError when nothing
        of it counts.
        """
        placed: list[tuple[Received, Placed]] = []
        left: list[Received] = []
        with self._shelf.held():
            for received in batch:
                try:
                    place = self._place(received)
                    if place is None:
                        self._files.unlink(received.depot_path)
                    else:
                        placed.append((received, place))
                except FileNotFoundError:
                    if self._listed(received) is None:
                        left.append(received)
                        self._report(received, self._what_is_gone(received))
                except OSError as error:
                    left.append(received)
                    self._report(received, str(error.strerror))
                    if error.errno in _DISK_ERRORS:
                        self._on_disk_failure(error)
            self._shelf.synchronize()
        return placed, left

    def _clear(self, received: Received, place: Placed) -> None:
        """Remove the depot name of a listed instance, and put away the damaged file that it replaces."""
        self._avoided.pop(received.receipt.receipt_id, None)
        if place.damaged is not None:
            # First, so that recovery sees the depot name and makes up for it where this fails.
            self._put_away(place.damaged)
        with suppress(FileNotFoundError):
            self._files.unlink(received.depot_path)
        receipt = received.receipt
        log.info(
            "write",
            what="identical" if place.how is Placing.IDENTICAL else "kept",
            path=place.path,
            receipt=receipt.receipt_id,
            association=receipt.association_id,
            bytes=receipt.data_set_length,
        )

    def _put_away(self, damaged: Damaged) -> None:
        """Move a replaced file to quarantine, unless its name leads to another's file by now."""
        with self._shelf.held(), self._database.write() as transaction:  # so that no row changes meanwhile
            listed = catalog.find_version_by_path(transaction.connection, damaged.path)
            if listed is None and self._shelf.holds(damaged):
                self._quarantine.put_away(damaged.path, "a re-send of the same instance replaced it")

    def _place(self, received: Received) -> Placed | None:
        """Put a depot file on the shelf; None when its rows say that it has left the shelf since.

        What an earlier run listed before it was cut off goes where its row says. An identical one is decided again.
        """
        receipt = received.receipt
        if not received.answer_known or receipt.receipt_id in self._tried:
            version = self._listed(received)
            if version is not None:
                if version.state in (VersionState.REMOVING, VersionState.REMOVED):
                    return None  # an identical one's too: what was removed must not come back
                if version.receipt_id == receipt.receipt_id:
                    if version.state in (VersionState.KEPT, VersionState.SUPERSEDED):
                        return self._shelf.place_listed(received.depot_path, receipt, version.path)
                    return None
        return self._shelf.place(
            received.depot_path,
            receipt,
            _folder(received),
            avoid=self._avoided.get(receipt.receipt_id, frozenset()),
        )

    def _list(self, placed: list[tuple[Received, Placed]], rows: Sequence[Row]) -> set[str]:
        """Write the rows of everything that is on the shelf now, in one durable transaction.

        Returns the receipt ids of instances that are identical to a file whose row is not there or says that it
        is going: those must be decided again.
        """
        undecided: set[str] = set()
        stored: list[CatalogEntry] = []
        identical: list[tuple[CatalogEntry, str]] = []
        for received, place in placed:
            attributes, verdicts = extract(received.values, received.little_endian)
            entry = CatalogEntry(
                receipt=received.receipt,
                path=place.path,
                file_size=received.file_size,
                attributes=attributes,
                verdicts=(*received.remarks, *verdicts),
                answer_known=_is_answer_known(received),
            )
            if place.older is not None:
                identical.append((entry, place.older.receipt_id))
            else:
                stored.append(entry)
        with self._database.write() as transaction:
            if stored:
                results = catalog.insert(transaction, stored)
                self._supersede(transaction, results, placed)
                for entry, result in zip(stored, results, strict=True):
                    if result.outcome is ReceiptOutcome.IDENTICAL:
                        catalog.list_as_own(transaction, entry)
            if identical:
                results = catalog.insert_identical(transaction, identical)
                undecided = {result.receipt_id for result in results if result.outcome is None}
            for _, place in placed:
                if place.damaged is not None and self._shelf.holds(place.damaged):
                    catalog.mark_damaged(transaction, place.damaged.path, "replaced by a re-send")
            made = [row() for row in rows]
            requests = [row for row in made if isinstance(row, RequestRecord)]
            associations = [row for row in made if isinstance(row, AssociationRecord)]
            if associations:
                ledger.record_associations(transaction, associations)
            if requests:
                ledger.record_requests(transaction, requests)
        return undecided

    def _supersede(
        self, transaction: Transaction, results: Sequence[InsertResult], placed: list[tuple[Received, Placed]]
    ) -> None:
        """Mark the older versions of what came under the policy `replace`; a held one stays as it is."""
        replacing = {
            received.receipt.receipt_id
            for received, _ in placed
            if received.duplicates is DuplicatePolicy.REPLACE
        }
        older = [
            key
            for result in results
            if result.new and result.receipt_id in replacing
            for key in result.differing
        ]
        if older:
            due = timestamp(time.time_ns() + int(self._replace_grace_seconds * 1_000_000_000))
            catalog.mark_superseded(
                transaction,
                older,
                removal_due_at=due,
                reason="replaced by a newer version, by the peer's policy",
            )

    def _decide_again(self, received: Received, place: Placed) -> None:
        """Mend what kept an identical instance undecided: list a file that has no row, or pass by one that goes."""
        older = place.older
        if older is None:
            return
        with self._database.read() as connection:
            listed = catalog.has_receipt(connection, older.receipt_id)
        if listed:
            avoided = self._avoided.get(received.receipt.receipt_id, frozenset())
            self._avoided[received.receipt.receipt_id] = avoided | {place.path}
            return
        if self._is_in_depot(place.path, received):
            return  # it is on its way, and who finishes it may still take its name back
        examination = examine(self._files, os.path.join(self._root, place.path), scan=True)
        if examination.finding is not Finding.WHOLE or examination.receipt is None:
            return
        attributes, verdicts = extract(examination.values, examination.little_endian)
        entry = CatalogEntry(
            receipt=examination.receipt,
            path=place.path,
            file_size=examination.size,
            attributes=attributes,
            verdicts=(*examination.remarks, *verdicts),
            answer_known=False,
        )
        with self._database.write() as transaction:
            catalog.insert(transaction, [entry])

    def _listed(self, received: Received) -> Version | None:
        """Return the version that an earlier run, or an earlier try, listed for this receipt."""
        with self._database.read() as connection:
            return catalog.find_version_by_receipt(connection, received.receipt.receipt_id)

    def _is_in_depot(self, path: str, received: Received) -> bool:
        """Tell whether a file on the shelf still has a depot name, so that someone is about to list it."""
        inode = self._files.status(os.path.join(self._root, path)).inode
        depot = os.path.dirname(os.path.dirname(received.depot_path))
        for folder in self._files.list_directory(depot):
            with suppress(FileNotFoundError, NotADirectoryError):
                entries = self._files.list_directory(os.path.join(depot, folder.name))
                if any(entry.inode == inode for entry in entries):
                    return True
        return False

    def _what_is_gone(self, received: Received) -> str:
        """Say which of its two names a file could not be found or made at."""
        try:
            self._files.status(received.depot_path)
        except FileNotFoundError:
            return "its depot file is gone"
        return "a folder or a file was taken away from the shelf while it was put there"

    def _report(self, received: Received, words: str) -> None:
        if received.receipt.receipt_id in self._tried:
            return  # once is enough: it is tried again each second
        log.error(
            "error",
            what="an instance waits in the depot",
            reason=words,
            depot=os.path.basename(received.depot_path),
            sop_instance_uid=received.receipt.sop_instance_uid,
        )


def _is_answer_known(received: Received) -> bool:
    if received.answer is None:
        return received.answer_known
    return received.answer.is_given_when_listed()


def _folder(received: Received) -> str:
    values = received.values
    return folder_of(
        study_instance_uid=strip_uid(values.get(STUDY_INSTANCE_UID, b"")),
        series_instance_uid=strip_uid(values.get(SERIES_INSTANCE_UID, b"")),
        sop_class_uid=received.receipt.sop_class_uid,
    )
