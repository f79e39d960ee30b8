"""An archive on disk, put together: layout, identity, database, and the parts that receive and finish.

    <archive>/depot/<process>/      slots, owned by their process
    <archive>/objects/…             whole files
    <archive>/quarantine/           damaged and suspect files, a note beside each
    <archive>/catalog.sqlite        through SQLite only
    <archive>/archive.id            one UUID, the same in the database
    <archive>/shelf.journal         what is being put on the shelf, while it is

Opening checks that files and database belong together. A receiving archive owns a folder of the depot, has run the
whole path of an instance once on its disk, and looks after the folders of processes that died.
"""

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from stowkeeper.archive import catalog, ledger
from stowkeeper.archive.admission import Admission, DiskMarks, DiskPressure
from stowkeeper.archive.arrival import DuplicatesOf, keep_from_everyone
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
from stowkeeper.archive.modes import file_mode_in, make_objects
from stowkeeper.archive.receipt import timestamp
from stowkeeper.archive.recovery import Recovery
from stowkeeper.archive.removal import remove_due
from stowkeeper.archive.shelf_lock import OBJECTS, ShelfLock
from stowkeeper.archive.verification import finish_damaged
from stowkeeper.database.engine import Database, DatabaseGone, DatabaseUnavailable
from stowkeeper.database.limits import DATABASE_MODE
from stowkeeper.database.read_only import ReadOnlyDatabase
from stowkeeper.durable.errors import (
    RAISE_OPEN_FILES,
    DurableError,
    is_out_of_open_files,
    is_out_of_space,
)
from stowkeeper.durable.filesystem import FileSystem, FreeSpace, NoSyncFileSystem
from stowkeeper.durable.identity import ARCHIVE_ID_NAME, ensure_archive_id, read_archive_id
from stowkeeper.durable.limits import RESERVE_MARGIN, RESERVE_SIZE, SLOT_POOL_SIZE
from stowkeeper.durable.probe import StorageReport, probe_storage
from stowkeeper.durable.process_folder import DEPOT, DEPOT_MODE, ProcessFolder
from stowkeeper.durable.reserve import Reserve
from stowkeeper.durable.server_lock import ServerLock
from stowkeeper.durable.slots import SLOT_MODE, SlotPool

log = structlog.get_logger("stowkeeper.archive")

CATALOG = "catalog.sqlite"
CATALOG_LOCK = "catalog.lock"
SERVER_LOCK = "server.lock"
RESERVE = "reserve"


class ArchiveRefusedError(Exception):
    """The archive cannot be opened as it is; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions:
    """How an archive receives. Sizes are bytes. Without a `folder_mode` the one that fits `slot_mode` is taken."""

    sync: bool = True
    shared: bool = False
    exclusive: bool = True
    slot_pool_size: int = SLOT_POOL_SIZE
    slot_mode: int = SLOT_MODE
    folder_mode: int | None = None
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

    def __init__(
        self,
        root: str,
        *,
        create: bool = False,
        to_read: bool = False,
        files: FileSystem | None = None,
        sync: bool = True,
    ) -> None:
        """Open the archive in a folder; with `create`, make one where there is none.

        With `to_read` nothing will be written, and the right to read is enough. With `sync` false the database is not synced either: for a receiver that gives up the promise. Raises
        ArchiveRefusedError, DurableError, DatabaseForeign, DatabaseUnavailable or OSError.
        """
        self.root = os.path.abspath(root)
        self.files = files if files is not None else FileSystem()
        catalog_path = os.path.join(self.root, CATALOG)
        identity = read_archive_id(self.files, self.root) if os.path.isdir(self.root) else None
        if not os.path.exists(catalog_path):
            self._refuse_without_catalog(identity, create=create)
        lock_path = os.path.join(self.root, CATALOG_LOCK)
        if to_read and not may_write(self.root, catalog_path, lock_path):
            self.database: Database = ReadOnlyDatabase.open_to_read(catalog_path)
        else:
            mode = file_mode_in(self.files, self.root) if create else DATABASE_MODE
            self.database = Database.open(catalog_path, lock_path=lock_path, sync=sync, mode=mode)
        note_put_aside(self.database.put_aside)
        note_migration(self.database)
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
        if recorded is None and self.database.read_only:
            raise ArchiveRefusedError(
                f"{os.path.join(self.root, CATALOG)} has no identity yet, and we may not write it: run `stowkeeper ls` once"
                " as the user who owns the archive"
            )
        if recorded is None:
            mode = file_mode_in(self.files, self.root)
            stated = ensure_archive_id(self.files, self.root, mode=mode)
            with self.database.write() as transaction:
                catalog.set_archive_id(transaction, stated)
            return
        if identity is None:  # whoever makes this archive at this moment writes the file first
            identity = read_archive_id(self.files, self.root)
        if identity != recorded:
            raise ArchiveRefusedError(explain_foreign_catalog(self.root, stated=identity, recorded=recorded))

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
        self._damaged_finished = False
        make_objects(files, os.path.abspath(root), options.slot_mode, options.folder_mode)
        if options.exclusive:
            self._server_lock = ServerLock(
                os.path.join(os.path.abspath(root), SERVER_LOCK), shared=options.shared
            )
        reserve_path = os.path.join(os.path.abspath(root), RESERVE)
        self._reserve = Reserve(files, reserve_path, size=options.reserve_size)
        try:
            # On a full disk not even the database can be opened; what was answered has to be finished all the same.
            full = files.free_space(os.path.abspath(root)).bytes < START_ROOM and self._reserve.release()
            super().__init__(root, create=True, files=files, sync=options.sync)
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
        # So that no sync of another that fails is about this folder's name: it would be told to that one alone.
        with ShelfLock(files, root).held():
            self._folder = ProcessFolder.create(files, depot)
        try:
            with ShelfLock(files, root).held():
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
            self.admission = Admission(
                files,
                root,
                options.marks,
                uncatalogued_max=options.uncatalogued_max,
                on_distrust=self._look_now.set,
                on_pressure=note_pressure,
            )
            self.admission.note_reserve(released=full)
            self.finisher = Finisher(
                files,
                root,
                self.database,
                uncatalogued_max=options.uncatalogued_max,
                replace_grace_seconds=options.replace_grace_seconds,
                on_disk_failure=self._disk_failure,
                on_listed=self.admission.leave,
            )
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
        self.slots.start()
        self.finisher.start()
        self.intake.start()

    def look_after_the_dead(self, duplicates_of: DuplicatesOf = keep_from_everyone) -> None:
        """Start the thread that recovers what dead processes left, now and from time to time.

        `duplicates_of` gives the policy for a second version, from its sender; it is called on that thread.
        """
        self._recovery = self._make_recovery(duplicates_of)
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def recover(self, duplicates_of: DuplicatesOf = keep_from_everyone) -> None:
        """Recover once, on this thread; `duplicates_of` as for `look_after_the_dead`."""
        self._make_recovery(duplicates_of).run(self._closing.is_set)

    def close(self) -> None:
        """Finish what was received, remove the folder in the depot, and close. Twice is fine.

        A finisher that hangs keeps folder, database and lock until the process ends: it may go on at any moment.
        """
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
        if self.finisher.is_running():
            log.error("error", what="the finisher hangs, what it holds is free when the process ends")
            return
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
            self._check_catalog()
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
        for step in (
            self._probe,
            self._make_reserve_again,
            self._recover_undisturbed,
            self._finish_damaged,
            self._remove_due,
        ):
            try:
                step()
            except (OSError, DatabaseUnavailable, DurableError) as error:
                log.error("error", what="the archive could not be looked after", reason=str(error))
            except Exception:
                log.exception("error", what="the archive could not be looked after")

    def _make_recovery(self, duplicates_of: DuplicatesOf) -> Recovery:
        return Recovery(
            self.files,
            self.root,
            os.path.join(self.root, DEPOT),
            self.finisher,
            duplicates_of=duplicates_of,
            on_dead_process=self._close_lost_associations,
        )

    def _close_lost_associations(self, receiver: str) -> None:
        """Write the end of the associations that a dead process left open in the ledger."""
        with self.database.write() as transaction:
            ledger.close_lost_associations(transaction, receiver, "the receiving process died")

    def _recover_undisturbed(self) -> None:
        """Recover until something more urgent comes; the next look goes on."""
        self._recovery.run(self._look_now.is_set)

    def _finish_damaged(self) -> None:
        """Put away, once, the damaged files whose move an earlier process did not come to finish."""
        if self._damaged_finished:
            return
        count = finish_damaged(self.files, self.root, self.database)
        self._damaged_finished = True
        if count:
            log.warning("start", what="damaged files of earlier runs were moved to quarantine", count=count)

    def _remove_due(self) -> None:
        """Remove replaced versions whose grace time is over."""
        remove_due(self.files, self.root, self.database, timestamp(time.time_ns()))

    def _make_reserve_again(self) -> None:
        if self.options.reserve_size and self._reserve.make_again(self.files.free_space(self.root)):
            self.admission.note_reserve(released=False)

    def _check_catalog(self) -> None:
        """Admit nothing more once the catalog's file is gone, whether or not anything is to be written."""
        if not self.admission.distrusted:
            try:
                self.database.check_in_place()
            except DatabaseGone as error:
                self._disk_failure(error)

    def _probe(self) -> None:
        """Run the whole path of an instance; only its success opens the door again after a failed sync."""
        if self._folder is None or not self.admission.distrusted:
            return
        self.database.check_in_place()
        failures = self.admission.failures
        # A sync of the probe that fails is not told to whoever syncs the same folder next.
        with ShelfLock(self.files, self.root).held(), self.slots.still():
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
        if isinstance(error, DatabaseGone):
            log.error("error", what="the catalog is gone, nothing is admitted", reason=str(error))
            self.admission.distrust("the catalog is gone")
            return
        if isinstance(error, OSError) and is_out_of_open_files(error):
            log.error("error", what="too many files are open", reason=str(error), advice=RAISE_OPEN_FILES)
            return
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


def explain_foreign_catalog(root: str, *, stated: str | None, recorded: str) -> str:
    """Say what to do where the catalog was `recorded` for another archive than archive.id has `stated`, if any."""
    path = os.path.join(root, CATALOG)
    remedy = (
        f"move {CATALOG} away, with its -wal and -shm files, and run `stowkeeper rebuild --archive {root}`"
    )
    if stated is None:
        return (
            f"{path} belongs to the archive {recorded}, and archive.id is missing here: if it is this archive's, write "
            f"that id into {os.path.join(root, ARCHIVE_ID_NAME)}; if not, {remedy}"
        )
    return f"{path} belongs to another archive ({recorded}, this one is {stated}): put the right one back, or {remedy}"


def note_put_aside(paths: Iterable[str]) -> None:
    """Log under which names the log of an earlier catalog is now that was in the way of a new one."""
    for path in paths:
        log.warning("start", what="a log without its catalog was put aside", path=path)


def note_migration(database: Database) -> None:
    """Log that the schema of a catalog was changed, and where the copy is that was made before."""
    if database.backup is not None:
        log.warning(
            "start",
            what="the catalog was brought to the schema of this version",
            schema_before=database.migrated_from,
            backup=database.backup.path,
        )


_PRESSURE_WORDS = {
    DiskPressure.NONE: "there is room again",
    DiskPressure.LOW: "the room gets short: make some before instances are refused",
    DiskPressure.INSTANCES_REFUSED: "instances are refused for want of room",
    DiskPressure.STORAGE_REFUSED: "instances are refused, and storage is not negotiated, for want of room",
}


def note_pressure(pressure: DiskPressure, space: FreeSpace) -> None:
    """Log that there is more or less room than before."""
    level = log.warning if pressure is DiskPressure.LOW else log.error if pressure else log.info
    level("disk", what=_PRESSURE_WORDS[pressure], free_bytes=space.bytes, free_inodes=space.inodes)


def may_write(*paths: str) -> bool:
    """Tell whether we may write all of these that are there."""
    as_who_runs = os.access in os.supports_effective_ids
    return all(os.access(path, os.W_OK, effective_ids=as_who_runs) for path in paths if os.path.lexists(path))


def _make_depot(files: FileSystem, root: str) -> str:
    """Make the depot, with a durable name, and return its path."""
    depot = os.path.join(root, DEPOT)
    made = files.make_directory(depot, DEPOT_MODE)
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
