"""Intake: the one path of an instance in, whoever the sender is. Begin, write, commit or abort.

The caller's side (`Incoming.write`, `commit`, `abort`, `flush`) never waits and touches no disk: it hands
pieces to a worker thread and is told the outcome by a callback, on that thread. A caller that may wait, since it
has a thread of its own, is itself the worker of its instances. The worker scans, hashes and writes; after the
last piece it checks, seals the receipt, syncs, hands the instance to the finisher, and only then reports Success.
What is large is synced on the way too, beside the writing (`sync_ahead`). No cancellation on the caller's side can lose or reuse a synced slot.

An instance whose pieces all come before the first flush (a small one) takes one write, one sync, and no slot when refused.
"""

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from queue import SimpleQueue
from typing import Protocol

import structlog
from blake3 import blake3

from stowkeeper.archive.admission import Admission
from stowkeeper.archive.arrival import Arrival, Content, Received
from stowkeeper.archive.checks import check
from stowkeeper.archive.first_versions import FirstVersions
from stowkeeper.archive.limits import SYNC_EVERY_BYTES, SYNC_THREADS, WORKER_THREADS
from stowkeeper.archive.outcome import Outcome, Refusal, Refused, SenderAnswer
from stowkeeper.archive.packed_values import pack_values
from stowkeeper.archive.receipt import (
    EMPTY_RECEIPT,
    RECEIPT_LENGTH,
    Receipt,
    ReceiptIds,
    encode_head,
    seal_head,
    timestamp,
)
from stowkeeper.archive.sync_ahead import SyncAhead, SyncThreads
from stowkeeper.database.errors import DatabaseUnavailable
from stowkeeper.dicom.attributes import WANTED
from stowkeeper.dicom.header import HeaderScanner
from stowkeeper.dicom.sop_classes import SERIES_INSTANCE_UID, STUDY_INSTANCE_UID
from stowkeeper.dicom.uid import is_acceptable_uid, strip_uid
from stowkeeper.durable.errors import RAISE_OPEN_FILES, FolderSyncError, is_out_of_open_files
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.slots import Slot, SlotPool

log = structlog.get_logger("stowkeeper.archive")

_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Finishing(Protocol):
    """What intake needs of the finisher."""

    def submit(self, received: Received) -> None:
        """Take over an instance that is synced; called on a worker thread, may wait to slow the sender."""
        ...

    def kept_contents(self, sop_instance_uid: str) -> set[Content]:
        """Return the contents of all versions of an instance that are in the catalog or on their way there."""
        ...


class Intake:
    """Takes instances in. `start` its worker threads first, and `stop` them after the last outcome."""

    def __init__(
        self,
        files: FileSystem,
        slots: SlotPool,
        admission: Admission,
        finisher: Finishing,
        *,
        threads: int = WORKER_THREADS,
        sync_every: int = SYNC_EVERY_BYTES,
    ) -> None:
        self.files = files
        self.slots = slots
        self.admission = admission
        self.finisher = finisher
        self.first_versions = FirstVersions(finisher.kept_contents)
        self.sync_every = sync_every
        self.receipt_ids = ReceiptIds()
        self.queue: SimpleQueue[Incoming | None] = SimpleQueue()
        self.syncs = SyncThreads(min(threads, SYNC_THREADS))
        self._threads = [
            threading.Thread(target=self._work, name=f"intake-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        self.syncs.start()
        for thread in self._threads:
            thread.start()

    def is_running(self) -> bool:
        """Tell whether every worker thread is at work or waits for some."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End the threads after the work that is queued."""
        self.queue.put(None)
        for thread in self._threads:
            thread.join()
        self.syncs.stop()

    def begin(
        self,
        arrival: Arrival,
        done: Callable[[Outcome], None],
        *,
        class_accepted: bool = True,
        sender_authorized: bool = True,
        refused: Refused | None = None,
        answer: SenderAnswer | None = None,
        may_wait: bool = False,
    ) -> "Incoming":
        """Begin to receive an instance. `done` is called once, on a worker thread; after `abort` it is not.

        With `may_wait` the caller's thread does the work: `write` keeps what it is given, `flush` and `commit` wait for the disk,
        and `done` is called within them.

        `class_accepted` is the caller's rule on the SOP class that the sender names, `sender_authorized` that on the sender, and
        `refused` any other of its own: such an instance is read to its end, for the ledger, and not kept. `answer` is where the
        caller notes that it gave Success.
        """
        return Incoming(
            self,
            arrival,
            done,
            refused or self._first_refusal(arrival, class_accepted, sender_authorized),
            answer,
            may_wait=may_wait,
        )

    def _first_refusal(
        self, arrival: Arrival, class_accepted: bool, sender_authorized: bool
    ) -> Refused | None:
        if not sender_authorized:
            return Refused(Refusal.NOT_AUTHORIZED, "this peer may not store")
        if not is_acceptable_uid(arrival.sop_instance_uid):
            return Refused(
                Refusal.INVALID_SOP_INSTANCE,
                "Affected SOP Instance UID is absent or no UID",
                (0x00001000,),
            )
        if not is_acceptable_uid(arrival.sop_class_uid):
            return Refused(
                Refusal.SOP_CLASS_NOT_SUPPORTED, "Affected SOP Class UID is absent or no UID", (0x00000002,)
            )
        if not class_accepted:
            return Refused(
                Refusal.SOP_CLASS_NOT_SUPPORTED, "the SOP class is not accepted here", (0x00000002,)
            )
        words = self.admission.admit()
        return Refused(Refusal.OUT_OF_RESOURCES, words) if words else None

    def _work(self) -> None:
        while not self._is_told_to_end(incoming := self.queue.get()):
            try:
                if incoming is not None:
                    incoming.run()
            except Exception:
                # Whoever is called back must not take the thread away from all others.
                log.exception("error", what="an outcome could not be reported")

    def _is_told_to_end(self, incoming: "Incoming | None") -> bool:
        """Tell whether this worker ends: not while an instance stands behind the end mark, put back by a worker.

        Who puts one back takes from the queue again, so none is left when the last worker ends.
        """
        if incoming is not None:
            return False
        is_last = self.queue.empty()
        self.queue.put(None)
        return is_last


def _nobody(_outcome: Outcome) -> None:
    """Take an outcome that nobody waits for."""


_COMMIT = object()
_ABORT = object()

Piece = tuple[memoryview, Callable[[], None] | None]


class Incoming:
    """One instance on its way in. Its work is done in order, by one worker thread at a time."""

    __slots__ = (
        "_answer",
        "_arrival",
        "_batches",
        "_disk_seconds",
        "_done",
        "_ended",
        "_failure",
        "_has_place",
        "_hasher",
        "_head",
        "_intake",
        "_length",
        "_lock",
        "_may_wait",
        "_offset",
        "_pending",
        "_scanner",
        "_scheduled",
        "_slot",
        "_sync_ahead",
        "_unsynced",
        "_written",
    )

    def __init__(
        self,
        intake: Intake,
        arrival: Arrival,
        done: Callable[[Outcome], None],
        failure: Refused | None,
        answer: SenderAnswer | None,
        *,
        may_wait: bool,
    ) -> None:
        self._may_wait = may_wait
        self._intake = intake
        self._arrival = arrival
        self._done = done
        self._failure = failure
        self._answer = answer
        self._has_place = failure is None
        self._pending: list[object] = []
        self._batches: list[list[object]] = []
        self._lock = threading.Lock()
        self._scheduled = False
        self._ended = False
        self._hasher = blake3()
        self._scanner = HeaderScanner(
            arrival.transfer_syntax_uid, WANTED, sop_class_uid=arrival.sop_class_uid
        )
        self._slot: Slot | None = None
        self._head = b""
        self._length = 0
        self._offset = 0
        self._unsynced = 0
        self._sync_ahead: SyncAhead | None = None
        self._disk_seconds = 0.0
        self._written = False

    # The caller's side.

    def write(self, piece: memoryview, release: Callable[[], None] | None = None) -> None:
        """Add the next bytes of the data set; `release` is called when they are no longer needed."""
        self._pending.append((piece, release))

    def commit(self) -> None:
        """Say that the data set is complete, and flush."""
        self._ended = True
        self._pending.append(_COMMIT)
        self.flush()

    def abort(self) -> None:
        """Give the instance up: what was written of it is removed, and no outcome is reported.

        After `commit` it changes nothing: the instance is complete, and is kept or refused. Twice is fine.
        """
        if not self._ended:
            self._ended = True
            self._pending.append(_ABORT)
            self.flush()

    def flush(self) -> None:
        """Hand what was added since the last flush to a worker thread, or do its work here."""
        batch = self._pending
        if not batch:
            return
        self._pending = []
        if self._may_wait:
            self._perform(batch)
            return
        with self._lock:
            self._batches.append(batch)
            if self._scheduled:
                return
            self._scheduled = True
        self._intake.queue.put(self)

    # The worker's side.

    def run(self) -> None:
        """Do the work there is, then go behind the others that wait. Called on worker threads, never on two at once.

        Senders that always have their next pieces ready would otherwise keep all the threads to themselves.
        """
        while True:
            with self._lock:
                batches, self._batches = self._batches, []
            self._perform(batches[0] if len(batches) == 1 else list(chain.from_iterable(batches)))
            with self._lock:
                if not self._batches:
                    self._scheduled = False
                    return
            if not self._intake.queue.empty():
                self._intake.queue.put(self)
                return
            # Nobody waits, and to stay costs no switch to another thread.

    def _perform(self, batch: list[object]) -> None:
        end = batch.pop() if batch[-1] is _COMMIT or batch[-1] is _ABORT else None
        pieces: list[Piece] = batch  # type: ignore[assignment]  # an end mark is always the last item
        outcome: Outcome | None = None
        try:
            if end is _ABORT:
                self._give_up()
            elif end is _COMMIT:
                outcome = self._finish([piece for piece, _ in pieces])
            else:
                self._store([piece for piece, _ in pieces])
        except Refused as refused:
            self._failure = refused
            self._give_up()
        except OSError as error:
            self._failure = self._disk_failure(error)
            self._give_up()
        except DatabaseUnavailable as error:
            log.error("error", what="the catalog cannot be read", reason=str(error))
            self._failure = Refused(Refusal.OUT_OF_RESOURCES, "the catalog cannot be read, try again later")
            self._give_up()
        except Exception:
            log.exception(
                "error",
                what="an instance could not be processed",
                sop_instance_uid=self._arrival.sop_instance_uid,
            )
            self._failure = Refused(Refusal.PROCESSING_FAILURE, "internal error, see the server's log")
            self._give_up()
        finally:
            for _, release in pieces:
                if release is not None:
                    release()
        if end is not None:
            if end is _COMMIT and outcome is None:
                outcome = self._refused_outcome()
            # Whoever is called back holds this instance, and its ledger line may wait long: no cycle, no ballast.
            done, self._done = self._done, _nobody
            del self._scanner, self._hasher
            if outcome is not None:
                done(outcome)

    def _refused_outcome(self) -> Outcome:
        failure = self._failure or Refused(Refusal.PROCESSING_FAILURE, "")
        return Outcome(
            refusal=failure.refusal,
            comment=failure.comment,
            offending=failure.offending,
            data_set_length=self._length,
            digest=self._hasher.hexdigest(),
            disk_seconds=self._disk_seconds,
        )

    def _count(self, pieces: list[memoryview]) -> None:
        """Count and hash pieces, in order; those of a refused instance too, since the ledger tells of them."""
        update = self._hasher.update
        for piece in pieces:
            self._length += len(piece)
            update(piece)

    def _take_in(self, pieces: list[memoryview]) -> None:
        """Count, hash and scan pieces, in order."""
        self._count(pieces)
        feed = self._scanner.feed
        for piece in pieces:
            feed(piece)

    def _store(self, pieces: list[memoryview]) -> None:
        """Take pieces of an instance that is not complete yet into the slot."""
        if self._failure is not None:
            self._count(pieces)
            return
        self._take_in(pieces)
        if self._slot is None:
            self._head = self._encode_head()
            self._slot = self._intake.slots.take()
            self._write([memoryview(self._head), *pieces])
        else:
            self._write(pieces)
        if self._unsynced >= self._intake.sync_every:
            self._begin_sync()

    def _finish(self, pieces: list[memoryview]) -> Outcome:
        """Take the last pieces, check, seal, sync, hand over. Success is said of nothing less."""
        if self._failure is not None:
            self._count(pieces)
            raise self._failure
        self._take_in(pieces)
        scan = self._scanner.finish()
        check(
            scan,
            sop_class_uid=self._arrival.sop_class_uid,
            sop_instance_uid=self._arrival.sop_instance_uid,
            transfer_syntax_uid=self._arrival.transfer_syntax_uid,
            study_instance_uid=self._arrival.study_instance_uid,
        )
        receipt = self._make_receipt()
        with self._intake.first_versions.admit(receipt, self._arrival.duplicates):
            if self._slot is None:
                self._head = sealed = seal_head(self._encode_head(), receipt)
                self._slot = self._intake.slots.take()
                self._write([memoryview(sealed), *pieces])
            else:
                self._write(pieces)
                sealed = seal_head(self._head, receipt)
                self._write_at(
                    len(sealed) - RECEIPT_LENGTH, self._slot, [memoryview(sealed)[-RECEIPT_LENGTH:]]
                )
            self._synchronize()
            slot, self._slot = self._slot, None
            try:
                self._intake.files.close(slot.descriptor)
            except OSError:
                # The descriptor is gone even so, its number may be another file's by now; only the name is ours.
                with suppress(OSError):
                    self._intake.files.unlink(slot.path)
                raise
            self._intake.finisher.submit(
                Received(
                    receipt=receipt,
                    depot_path=slot.path,
                    file_size=len(sealed) + self._length,
                    packed_values=pack_values(scan.values),
                    little_endian=scan.little_endian,
                    remarks=scan.remarks,
                    answer_known=True,
                    duplicates=self._arrival.duplicates,
                    answer=self._answer,
                )
            )
        return Outcome(
            refusal=None,
            receipt=receipt,
            data_set_length=self._length,
            digest=receipt.digest,
            disk_seconds=self._disk_seconds,
            remarks=scan.remarks,
            study_instance_uid=strip_uid(scan.values.get(STUDY_INSTANCE_UID, b"")),
            series_instance_uid=strip_uid(scan.values.get(SERIES_INSTANCE_UID, b"")),
        )

    def _write(self, pieces: list[memoryview]) -> None:
        count = sum(map(len, pieces))
        words = self._intake.admission.account(count)
        if words:
            raise Refused(Refusal.OUT_OF_RESOURCES, words)
        slot = self._slot
        if slot is None:  # pragma: no cover - the callers take one first
            msg = "no slot"
            raise RuntimeError(msg)
        self._written = True
        self._write_at(self._offset, slot, pieces)
        self._offset += count
        self._unsynced += count

    def _write_at(self, offset: int, slot: Slot, pieces: list[memoryview]) -> None:
        began = time.perf_counter()
        try:
            self._intake.files.write(slot.descriptor, pieces, offset)
        finally:
            self._disk_seconds += time.perf_counter() - began

    def _begin_sync(self) -> None:
        """Have what is written so far synced, beside what comes next."""
        self._await_sync_ahead()  # so that never more than twice `sync_every` is under way
        descriptor = self._slot_to_sync().descriptor
        self._sync_ahead = SyncAhead(self._intake.files, descriptor, self._tell_failed_sync)
        self._intake.syncs.put(self._sync_ahead)
        self._unsynced = 0

    def _await_sync_ahead(self) -> None:
        """Wait for the sync that goes on beside the writing, if one does; raise its error."""
        ahead, self._sync_ahead = self._sync_ahead, None
        if ahead is None:
            return
        began = time.perf_counter()
        try:
            ahead.wait()
        finally:
            self._disk_seconds += time.perf_counter() - began

    def _synchronize(self) -> None:
        """Sync the slot. A failure is final for this instance and closes the door for all others."""
        self._await_sync_ahead()
        descriptor = self._slot_to_sync().descriptor
        began = time.perf_counter()
        try:
            self._intake.files.synchronize(descriptor)
        except OSError as error:
            self._tell_failed_sync(error)
            raise
        finally:
            self._disk_seconds += time.perf_counter() - began
        self._unsynced = 0

    def _slot_to_sync(self) -> Slot:
        if self._slot is None:  # pragma: no cover - the callers took one
            msg = "no slot"
            raise RuntimeError(msg)
        return self._slot

    def _tell_failed_sync(self, error: OSError) -> None:
        """Close the door. A later sync of this file that says ok would prove nothing, so there is none."""
        self._intake.admission.distrust("the disk failed to sync")
        path = self._slot.path if self._slot is not None else None
        log.error("error", what="sync failed", depot=path, error=error.strerror)

    def _encode_head(self) -> bytes:
        arrival = self._arrival
        return encode_head(
            sop_class_uid=arrival.sop_class_uid,
            sop_instance_uid=arrival.sop_instance_uid,
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            writing_ae_title=arrival.writing_ae_title,
            sending_ae_title=arrival.calling_ae_title,
            receiving_ae_title=arrival.called_ae_title,
            preamble=arrival.preamble,
        )

    def _make_receipt(self) -> Receipt:
        arrival = self._arrival
        now = time.time_ns()
        return Receipt(
            receipt_id=self._intake.receipt_ids.next(now),
            digest=self._hasher.hexdigest(),
            data_set_length=self._length,
            sop_class_uid=arrival.sop_class_uid,
            sop_instance_uid=arrival.sop_instance_uid,
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            received_at=timestamp(now),
            received_by=arrival.received_by,
            calling_ae_title=arrival.calling_ae_title,
            called_ae_title=arrival.called_ae_title,
            peer_address=arrival.peer_address,
            association_id=arrival.association_id,
        )

    def _disk_failure(self, error: OSError) -> Refused:
        if is_out_of_open_files(error):  # the disk was not even asked, be it for a folder's sync
            log.error("error", what="too many files are open", reason=str(error), advice=RAISE_OPEN_FILES)
            return Refused(Refusal.OUT_OF_RESOURCES, "the server has too many files open, try again later")
        if isinstance(error, FolderSyncError):
            self._intake.admission.distrust("the disk failed to sync")
        if error.errno in _OUT_OF_SPACE:
            self._intake.admission.check_space()
            return Refused(Refusal.OUT_OF_RESOURCES, "the disk is full")
        if error.errno == errno.EROFS:  # it concerns every instance, until a probe finds it otherwise
            self._intake.admission.distrust("the disk is read-only")
        path = self._slot.path if self._slot else error.filename
        log.error("error", what="the depot cannot be written", path=path, error=error.strerror)
        return Refused(Refusal.OUT_OF_RESOURCES, "the disk cannot be written")

    def _give_up(self) -> None:
        """Remove what was written of the instance: receipt zeroed, name unlinked. It was never answered."""
        if self._has_place:  # that of a kept one is given back when it is listed
            self._has_place = False
            self._intake.admission.leave()
        with suppress(Exception):  # it is told; what matters here is that nobody uses the descriptor any more
            self._await_sync_ahead()
        slot, self._slot = self._slot, None
        if slot is None:
            return
        files = self._intake.files
        head_length = len(self._head)
        steps: list[Callable[[], None]] = []
        if self._written:
            # A write that failed may have left any part of a small instance, its receipt among them.
            steps.append(lambda: files.write(slot.descriptor, [EMPTY_RECEIPT], head_length - RECEIPT_LENGTH))
        steps.append(lambda: files.unlink(slot.path))
        steps.append(lambda: files.close(slot.descriptor))
        for step in steps:
            try:
                step()
            except OSError as error:
                # Recovery finds a slot whose receipt is zeros or whose sync never held, and removes it.
                log.warning(
                    "error",
                    what="a given-up slot could not be removed",
                    depot=slot.path,
                    error=error.strerror,
                )
