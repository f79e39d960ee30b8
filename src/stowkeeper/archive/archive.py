"""An archive on disk, put together: layout, identity, database, and the parts that receive and finish.

    <archive>/depot/<process>/      slots, owned by their process
    <archive>/objects/…             whole files
    <archive>/quarantine/           damaged and suspect files, a note beside each
    <archive>/catalog.sqlite        through SQLite only
    <archive>/archive.id            one UUID, the same in the database

Opening checks that files and database belong together. A receiving archive owns a folder of the depot, has run the
whole path of an instance once on its disk, and looks after the folders of processes that died.
"""

import os
import threading
import time
from dataclasses import dataclass, field

import structlog

from stowkeeper.archive import catalog, ledger
from stowkeeper.archive.admission import Admission, DiskMarks
from stowkeeper.archive.finisher import Finisher
from stowkeeper.archive.intake import Intake
from stowkeeper.archive.limits import (
    INODES_SHORT,
    PROBE_SECONDS,
    RECOVERY_SCAN_SECONDS,
    SLOTS_AT_START,
    SPACE_CHECK_SECONDS,
    START_ROOM,
    SYNC_EVERY_BYTES,
    UNCATALOGUED_MAX,
    WORKER_THREADS,
)
from stowkeeper.archive.receipt import timestamp
from stowkeeper.archive.recovery import Recovery
from stowkeeper.archive.removal import remove_due
from stowkeeper.archive.shelf import OBJECTS
from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.durable.errors import DurableError, is_out_of_space
from stowkeeper.durable.filesystem import FileSystem, NoSyncFileSystem
from stowkeeper.durable.identity import ensure_archive_id, read_archive_id
from stowkeeper.durable.limits import RESERVE_MARGIN, RESERVE_SIZE, SLOT_POOL_SIZE
from stowkeeper.durable.probe import StorageReport, probe_storage
from stowkeeper.durable.process_folder import ProcessFolder
from stowkeeper.durable.reserve import Reserve
from stowkeeper.durable.server_lock import ServerLock
from stowkeeper.durable.slots import SLOT_MODE, SlotPool
from stowkeeper.durable.write_once import make_folders

log = structlog.get_logger("stowkeeper.archive")

DEPOT = "depot"
CATALOG = "catalog.sqlite"
CATALOG_LOCK = "catalog.lock"
SERVER_LOCK = "server.lock"
RESERVE = "reserve"


class ArchiveRefusedError(Exception):
    """The archive cannot be opened as it is; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions:
    """How an archive receives. Sizes are bytes."""

    sync: bool = True
    shared: bool = False
    exclusive: bool = True
    slot_pool_size: int = SLOT_POOL_SIZE
    slot_mode: int = SLOT_MODE
    uncatalogued_max: int = UNCATALOGUED_MAX
    reserve_size: int = RESERVE_SIZE
    sync_every_bytes: int = SYNC_EVERY_BYTES
    worker_threads: int = WORKER_THREADS
    replace_grace_seconds: float = 0.0
    marks: DiskMarks = field(
        default_factory=lambda: DiskMarks(
            instance_bytes=0, association_bytes=0, instance_inodes=0, association_inodes=0
        )
    )


class ArchiveReader:
    """An archive opened for looking: `ls`, `verify`, and whatever changes rows without receiving."""

    def __init__(self, root: str, *, create: bool = False, files: FileSystem | None = None) -> None:
        """Open the archive in a folder; with `create`, make one where there is none.

        Raises ArchiveRefusedError, DurableError, DatabaseForeign, DatabaseUnavailable or OSError.
        """
        self.root = os.path.abspath(root)
        self.files = files if files is not None else FileSystem()
        if create:
            make_folders(self.files, os.path.join(self.root, OBJECTS))
        catalog_path = os.path.join(self.root, CATALOG)
        identity = read_archive_id(self.files, self.root) if os.path.isdir(self.root) else None
        if not os.path.exists(catalog_path):
            self._refuse_without_catalog(identity, create=create)
        self.database = Database.open(catalog_path, lock_path=os.path.join(self.root, CATALOG_LOCK))
        try:
            self._compare_identity(identity)
        except BaseException:
            self.database.close()
            raise

    def _refuse_without_catalog(self, identity: str | None, *, create: bool) -> None:
        if not create:
            if identity is None:
                raise ArchiveRefusedError(
                    f"there is no archive in {self.root}: name its folder with --archive"
                )
            raise ArchiveRefusedError(
                f"the archive in {self.root} has no {CATALOG}: run `stowkeeper rebuild --archive {self.root}`"
            )
        if any(self.files.list_directory(os.path.join(self.root, OBJECTS))):
            raise ArchiveRefusedError(
                f"{self.root} holds objects but no {CATALOG}: run `stowkeeper rebuild --archive {self.root}`, which "
                "makes it anew from the files"
            )

    def _compare_identity(self, identity: str | None) -> None:
        with self.database.read() as connection:
            recorded = catalog.archive_id(connection)
        if recorded is None:
            stated = ensure_archive_id(self.files, self.root)
            with self.database.write() as transaction:
                catalog.set_archive_id(transaction, stated)
        elif identity is None or identity != recorded:
            raise ArchiveRefusedError(
                f"{os.path.join(self.root, CATALOG)} belongs to another archive ({recorded}, this one is "
                f"{identity or 'without an archive.id'}): put the right one back, or remove it and run "
                f"`stowkeeper rebuild --archive {self.root}`"
            )

    def path_of(self, relative: str) -> str:
        """Return the absolute path of a name in the archive."""
        return os.path.join(self.root, relative)

    def close(self) -> None:
        """Close the database."""
        self.database.close()


class Archive(ArchiveReader):
    """An archive that receives. `open` is ready to take instances; `close` leaves the depot clean."""

    def __init__(self, root: str, options: ArchiveOptions, *, files: FileSystem | None = None) -> None:
        """Open and start receiving.

        Raises what ArchiveReader raises, and ArchiveInUseError for a server beside another that does not share.
        """
        if files is None:
            files = FileSystem() if options.sync else NoSyncFileSystem()
        self.options = options
        self._server_lock: ServerLock | None = None
        self._folder: ProcessFolder | None = None
        self._keeper: threading.Thread | None = None
        self._closing = threading.Event()
        self._look_now = threading.Event()
        make_folders(files, os.path.join(os.path.abspath(root), OBJECTS))
        if options.exclusive:
            self._server_lock = ServerLock(
                os.path.join(os.path.abspath(root), SERVER_LOCK), shared=options.shared
            )
        reserve_path = os.path.join(os.path.abspath(root), RESERVE)
        self._reserve = Reserve(files, reserve_path, size=options.reserve_size)
        try:
            # On a full disk not even the database can be opened; what was answered has to be finished all the same.
            full = files.free_space(os.path.abspath(root)).bytes < START_ROOM and self._reserve.release()
            super().__init__(root, create=True, files=files)
            try:
                self._start(options, full=full)
            except BaseException:
                self.database.close()
                raise
        except BaseException:
            self._unlock()
            raise

    def _start(self, options: ArchiveOptions, *, full: bool) -> None:
        files, root = self.files, self.root
        depot = _make_depot(files, root)
        self._folder = ProcessFolder.create(files, depot)
        try:
            self.storage: StorageReport = probe_storage(
                files,
                process_folder=self._folder.path,
                shelf=os.path.join(root, OBJECTS),
                mode=options.slot_mode,
            )
            _refuse_network(self.storage, root)
            if options.reserve_size and not full:
                self._reserve.make()
            self.slots = SlotPool(
                files,
                self._folder.path,
                size=options.slot_pool_size,
                mode=options.slot_mode,
                on_error=self._disk_failure,
            )
            self.slots.fill(SLOTS_AT_START)
            self.finisher = Finisher(
                files,
                root,
                self.database,
                uncatalogued_max=options.uncatalogued_max,
                replace_grace_seconds=options.replace_grace_seconds,
                on_disk_failure=self._disk_failure,
            )
            self.admission = Admission(
                files,
                root,
                options.marks,
                uncatalogued_max=options.uncatalogued_max,
                uncatalogued=self.finisher.uncatalogued,
                on_distrust=self._look_now.set,
            )
            self.admission.note_reserve(released=full)
            self.intake = Intake(
                files,
                self.slots,
                self.admission,
                self.finisher,
                threads=options.worker_threads,
                sync_every=options.sync_every_bytes,
            )
        except BaseException:
            self._folder.release()
            raise
        self.receiver = os.path.basename(self._folder.path)
        self._recovery = Recovery(
            files, root, depot, self.finisher.finish, on_dead_process=self._close_lost_associations
        )
        self.slots.start()
        self.finisher.start()
        self.intake.start()

    def look_after_the_dead(self) -> None:
        """Start the thread that recovers what dead processes left, now and from time to time."""
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def recover(self) -> None:
        """Recover once, on this thread."""
        self._recovery.run(self._closing.is_set)

    def close(self) -> None:
        """Finish what was received, remove the folder in the depot, and close. Twice is fine."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._look_now.set()
        if self._keeper is not None:
            self._keeper.join()
        self.intake.stop()
        if not self.finisher.stop():
            log.warning("error", what="instances are left in the depot", count=self.finisher.uncatalogued())
        self.slots.stop()
        try:
            if self._folder is not None:
                self._folder.release()
        except OSError as error:
            log.error("error", what="the depot folder stays", error=error.strerror)
        super().close()
        self._unlock()

    def _unlock(self) -> None:
        if self._server_lock is not None:
            self._server_lock.release()

    def _keep(self) -> None:
        next_look = 0.0
        while not self._closing.is_set():
            # Also while nothing is written: a refusal has to end when there is room again.
            self.admission.check_space()
            if time.monotonic() >= next_look:
                self._look_after()
                next_look = time.monotonic() + (
                    PROBE_SECONDS if self.admission.distrusted else RECOVERY_SCAN_SECONDS
                )
            if self._look_now.wait(SPACE_CHECK_SECONDS):
                self._look_now.clear()
                next_look = 0.0

    def _look_after(self) -> None:
        """Do everything that an archive needs from time to time; what fails keeps nothing else from its turn."""
        for step in (self._probe, self._make_reserve_again, self._recover_undisturbed, self._remove_due):
            try:
                step()
            except (OSError, DatabaseUnavailable, DurableError) as error:
                log.error("error", what="the archive could not be looked after", reason=str(error))
            except Exception:
                log.exception("error", what="the archive could not be looked after")

    def _close_lost_associations(self, receiver: str) -> None:
        """Write the end of the associations that a dead process left open in the ledger."""
        with self.database.write() as transaction:
            ledger.close_lost_associations(transaction, receiver, "the receiving process died")

    def _recover_undisturbed(self) -> None:
        """Recover until something more urgent comes; the next look goes on."""
        self._recovery.run(self._look_now.is_set)

    def _remove_due(self) -> None:
        """Remove replaced versions whose grace time is over."""
        remove_due(self.files, self.root, self.database, timestamp(time.time_ns()))

    def _make_reserve_again(self) -> None:
        if self.options.reserve_size and self._reserve.make_again(self.files.free_space(self.root)):
            self.admission.note_reserve(released=False)

    def _probe(self) -> None:
        """Run the whole path of an instance; only its success opens the door again after a failed sync."""
        if self._folder is None or not self.admission.distrusted:
            return
        failures = self.admission.failures
        probe_storage(
            self.files,
            process_folder=self._folder.path,
            shelf=os.path.join(self.root, OBJECTS),
            mode=self.options.slot_mode,
        )
        if self.admission.trust(failures):
            log.warning("start", what="the disk works again, instances are admitted")

    def _disk_failure(self, error: OSError | DatabaseUnavailable) -> None:
        """Heed a failure behind the answers: make room, or stop trusting the disk. Raises nothing."""
        failure: Exception = error
        if isinstance(error, DatabaseUnavailable) or is_out_of_space(error):
            try:
                self._make_room(error)
            except OSError as worse:
                failure = worse
            else:
                return
        log.error("error", what="the disk failed", error=str(failure))
        self.admission.distrust("the disk failed")

    def _make_room(self, error: OSError | DatabaseUnavailable) -> None:
        """Give the finisher and the database what was kept back: free slots for inodes, the reserve for bytes.

        Raises OSError.
        """
        self.admission.check_space()
        space = self.files.free_space(self.root)
        if space.inodes is not None and space.inodes < INODES_SHORT:
            self.slots.remove_free(INODES_SHORT)
        short = isinstance(error, OSError) or space.bytes < self.options.reserve_size + RESERVE_MARGIN
        if short and self.options.reserve_size and self._reserve.release():
            self.admission.note_reserve(released=True)
            log.error("error", what="the disk is full, the reserve was released", path=self.root)


def _make_depot(files: FileSystem, root: str) -> str:
    """Make the depot, with a durable name, and return its path."""
    depot = os.path.join(root, DEPOT)
    made = files.make_directory(depot, 0o700)
    try:
        files.synchronize_directory(root)
    except OSError:
        if made:  # a later sync would not prove its name
            files.remove_directory(depot)
        raise
    return depot


def _refuse_network(storage: StorageReport, root: str) -> None:
    if storage.on_network:
        raise ArchiveRefusedError(
            f"{root} is on another machine's disk, where SQLite can lose data: put the archive on a local disk"
        )
