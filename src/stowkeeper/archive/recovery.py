"""Recovery: the finisher run again over what dead processes left in the depot.

Every file there is read from the medium and judged by the states table (docs/architecture.md): a free or
unfinished slot was never answered and goes, a whole instance is finished, a suspect file is quarantined and
reported. A file that cannot be read now is left and reported.

A second version is treated as the peer's policy says that is in force now, by the calling AE title and the address
in the receipt. `refuse` is a matter of the answer: what is here may have been answered Success, and both are kept.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from stowkeeper.archive.arrival import DuplicatesOf, Received, keep_from_everyone
from stowkeeper.archive.examine import Examination, Finding, examine
from stowkeeper.archive.finisher import Finisher
from stowkeeper.archive.limits import FINISHER_BATCH_MAX
from stowkeeper.archive.packed_values import pack_values
from stowkeeper.archive.quarantine import Quarantine
from stowkeeper.archive.shelf_lock import ShelfLock
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.process_folder import ProcessFolder, dead_folders

log = structlog.get_logger("stowkeeper.archive")


@dataclass(slots=True, kw_only=True)
class RecoveryCounts:
    """What one look at the depot folders of dead processes found."""

    finished: int = 0
    removed: int = 0
    short: int = 0
    quarantined: int = 0
    unreadable: int = 0

    def __bool__(self) -> bool:
        return any((self.finished, self.short, self.quarantined, self.unreadable))


class Recovery:
    """Looks after the depot folders of processes that are gone."""

    def __init__(
        self,
        files: FileSystem,
        root: str,
        depot: str,
        finisher: Finisher,
        *,
        duplicates_of: DuplicatesOf = keep_from_everyone,
        on_dead_process: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._files = files
        self._depot = depot
        self._finisher = finisher
        self._duplicates_of = duplicates_of
        self._on_dead_process = on_dead_process
        self._quarantine = Quarantine(files, root)
        self._shelf = ShelfLock(files, root)

    def run(self, stop: Callable[[], bool] = lambda: False) -> RecoveryCounts:
        """Take over every dead process's folder, finish what it holds, and remove it.

        Raises OSError or DatabaseUnavailable when finishing failed as a whole; the folder then stays for
        the next look.
        """
        counts = RecoveryCounts()
        dead = dead_folders(self._files, self._depot)
        if dead:
            self._finisher.take_back()
        for path in dead:
            if stop():
                break
            folder = ProcessFolder.adopt(self._files, path)
            if folder is None:
                continue  # another process was faster
            try:
                self._on_dead_process(os.path.basename(path))
                self._recover_folder(folder, counts, stop)
            finally:
                folder.release()
        if counts:
            log.warning(
                "start",
                what="unfinished work of an earlier run",
                finished=counts.finished,
                short=counts.short,
                quarantined=counts.quarantined,
                unreadable=counts.unreadable,
            )
        return counts

    def _recover_folder(
        self, folder: ProcessFolder, counts: RecoveryCounts, stop: Callable[[], bool]
    ) -> None:
        batch: list[Received] = []
        for entry in self._files.list_directory(folder.path):
            if stop():
                return
            path = os.path.join(folder.path, entry.name)
            try:
                received = self._judge(path, examine(self._files, path, scan=True), counts)
            except OSError as error:
                counts.unreadable += 1
                log.error(
                    "error", what="a depot file cannot be read and stays", depot=path, error=error.strerror
                )
                continue
            if received is not None:
                batch.append(received)
            if len(batch) >= FINISHER_BATCH_MAX:
                self._finish_batch(batch, counts)
                batch = []
        if batch:
            self._finish_batch(batch, counts)

    def _finish_batch(self, batch: list[Received], counts: RecoveryCounts) -> None:
        batch.sort(key=lambda received: (received.receipt.received_at, received.receipt.receipt_id))
        left = self._finisher.finish(batch)
        counts.finished += len(batch) - len(left)
        counts.unreadable += len(left)

    def _judge(self, path: str, examination: Examination, counts: RecoveryCounts) -> Received | None:
        finding = examination.finding
        if finding is Finding.WHOLE and examination.receipt is not None:
            receipt = examination.receipt
            return Received(
                receipt=receipt,
                depot_path=path,
                file_size=examination.size,
                packed_values=pack_values(examination.values),
                little_endian=examination.little_endian,
                remarks=examination.remarks,
                answer_known=False,
                duplicates=self._duplicates_of(receipt.calling_ae_title, receipt.peer_address),
            )
        if finding is Finding.SUSPECT:
            # An answered instance can only get here by a damaged medium: its bytes are evidence.
            with self._shelf.held():
                kept = self._quarantine.keep(path, examination.words)
            self._files.unlink(path)
            counts.quarantined += 1
            log.error(
                "error", what="a suspect depot file was quarantined", path=kept, reason=examination.words
            )
            return None
        if finding is Finding.SHORT:
            self._files.unlink(path)
            counts.short += 1
            log.warning(
                "error",
                what="an instance that was never answered was cut short and removed",
                sop_instance_uid=examination.receipt.sop_instance_uid if examination.receipt else "",
                reason=examination.words,
            )
        else:
            self._files.unlink(path)
            counts.removed += 1
        return None
