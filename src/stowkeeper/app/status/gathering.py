"""Gathering: run records, what servers say, disk, depot, quarantine and catalog, each by itself, none of them changed.

Where one of them cannot be read, the others are told all the same, and what is missing is something to act on.
"""

import datetime as dt
import os
import shlex
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from sqlalchemy import Connection

from stowkeeper import __version__
from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.running import RunningServer, running_servers
from stowkeeper.app.settings import Settings
from stowkeeper.app.status import catalog_queries
from stowkeeper.app.status.limits import (
    CATALOG_TRIES,
    DEPOT_FILES_READ_MAX,
    RATE_SECONDS,
    RETRYING_SECONDS_MAX,
)
from stowkeeper.app.status.log_place import judged_log
from stowkeeper.app.status.readiness import judged_readiness
from stowkeeper.app.status.reckoning import duration, reckon_full
from stowkeeper.app.status.state import (
    ArchiveState,
    Arrival,
    CommitmentsState,
    DestinationState,
    DiskState,
    JobsState,
    Kept,
    Reckoning,
    ServerState,
    ToDo,
)
from stowkeeper.app.wiring import archive_options
from stowkeeper.archive.admission import DiskMarks
from stowkeeper.archive.archive import CATALOG, RESERVE
from stowkeeper.archive.examine import read_receipt
from stowkeeper.archive.quarantine import QUARANTINE
from stowkeeper.database.engine import DatabaseError, utc_now
from stowkeeper.database.read_only import ReadOnlyDatabase
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.limits import RESERVE_MARGIN
from stowkeeper.durable.process_folder import DEPOT
from stowkeeper.services.retention.retention_job import clock_is_doubted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Catalog:
    """What the catalog said."""

    associations: dict[str, int]
    last_received: Arrival | None
    first_received_at: str | None
    kept_last_day: int
    kept: Kept
    jobs: JobsState
    commitments: CommitmentsState
    forwards: tuple[DestinationState, ...]
    clock_is_doubted: bool


class Gathering:
    """One look at an archive. `state` is made once and whole."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = os.path.abspath(settings.archive)
        self._marks: DiskMarks = archive_options(settings).marks
        self._files = FileSystem()
        self._now = utc_now()
        self._to_do: list[ToDo] = []

    def state(self) -> ArchiveState:
        """Look at everything. Raises OSError where the run records cannot be read: then nobody knows whether a server runs."""
        running = running_servers(self._root)
        found = self._catalog(running)
        disk = self._disk(found)
        waiting = self._waiting_in_depot()
        in_quarantine = self._in_quarantine()
        self._to_do += self._judged(running, found, disk)
        return ArchiveState(
            version=__version__,
            archive=self._root,
            at=self._now,
            servers=tuple(
                ServerState(
                    server=server,
                    associations=None if found is None else found.associations.get(server.receiver, 0),
                )
                for server in running
            ),
            last_received=None if found is None else found.last_received,
            kept=None if found is None else found.kept,
            waiting_in_depot=waiting,
            in_quarantine=in_quarantine,
            disk=disk,
            jobs=None if found is None else found.jobs,
            commitments=None if found is None else found.commitments,
            forwards=None if found is None else found.forwards,
            to_do=tuple(self._to_do),
        )

    def _catalog(self, running: list[RunningServer]) -> _Catalog | None:
        path = os.path.join(self._root, CATALOG)
        day = dt.datetime.fromisoformat(self._now) - dt.timedelta(seconds=RATE_SECONDS)
        since = day.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

        def look(connection: Connection) -> _Catalog:
            return _Catalog(
                associations=catalog_queries.open_associations(connection, [one.receiver for one in running]),
                last_received=catalog_queries.last_received(connection),
                first_received_at=catalog_queries.first_received_at(connection),
                kept_last_day=catalog_queries.kept_since(connection, since),
                kept=catalog_queries.kept(connection),
                jobs=catalog_queries.jobs_now(connection, self._now),
                commitments=catalog_queries.commitments_now(connection),
                forwards=catalog_queries.forwards_now(
                    connection,
                    [
                        *(peer.name for peer in self._settings.peers),
                        *(server.name for server in self._settings.origin_servers),
                    ],
                ),
                clock_is_doubted=clock_is_doubted(connection),
            )

        problem: DatabaseError | OSError | None = None
        for _ in range(CATALOG_TRIES):
            try:
                with closing(ReadOnlyDatabase.open_to_read(path)) as database, database.read() as connection:
                    return look(connection)
            except (DatabaseError, OSError) as error:  # a server that starts just now changes what we look at
                problem = error
        words = f"{path}: {problem.strerror}" if isinstance(problem, OSError) else str(problem)
        self._to_do.append(ToDo(words=f"the catalog cannot be read: {words}", mend=self._command("doctor")))
        return None

    def _disk(self, found: _Catalog | None) -> DiskState | None:
        try:
            space = self._files.free_space(self._root)
            whole = os.statvfs(self._root)
        except OSError as error:
            self._to_do.append(
                ToDo(
                    words=f"the free space of {self._root} cannot be read: {error.strerror}",
                    mend=self._command("doctor"),
                )
            )
            return None
        full = Reckoning(full_at=None, words="not enough data: the catalog cannot be read")
        if found is not None:
            full = reckon_full(
                free_bytes=space.bytes,
                mark_bytes=self._marks.instance_bytes,
                kept_last_day=found.kept_last_day,
                first_received_at=found.first_received_at,
                now=self._now,
            )
        return DiskState(
            free_bytes=space.bytes,
            total_bytes=whole.f_blocks * whole.f_frsize,
            free_inodes=space.inodes,
            marks_reached=tuple(_marks_reached(space.bytes, space.inodes, self._marks)),
            kept_last_day_bytes=None if found is None else found.kept_last_day,
            full=full,
        )

    def _waiting_in_depot(self) -> int | None:
        """Count the files in the depot whose receipt is whole: kept, and not in the catalog yet."""
        files, depot = self._files, os.path.join(self._root, DEPOT)
        count = read = 0
        try:
            for folder in files.list_directory(depot):
                if not folder.is_directory:
                    continue
                with suppress(FileNotFoundError):  # its server ended just now
                    for entry in files.list_directory(os.path.join(depot, folder.name)):
                        path = os.path.join(depot, folder.name, entry.name)
                        with suppress(FileNotFoundError):  # it is listed by now
                            if files.status(path).size and read < DEPOT_FILES_READ_MAX:
                                read += 1
                                count += read_receipt(files, path) is not None
        except FileNotFoundError:
            return 0
        except OSError:
            return None
        return count

    def _in_quarantine(self) -> int | None:
        """Count the files in quarantine; each may have a note beside it."""
        try:
            entries = self._files.list_directory(os.path.join(self._root, QUARANTINE))
        except FileNotFoundError:
            return 0
        except OSError:
            return None
        return sum(not entry.is_directory and not entry.name.endswith(".txt") for entry in entries)

    def _judged(
        self, running: list[RunningServer], found: _Catalog | None, disk: DiskState | None
    ) -> Iterator[ToDo]:
        for server in running:
            if server.version != __version__:
                words = f"the server with pid {server.pid} is of version {server.version}, and {__version__} is installed"
                yield ToDo(words=f"{words}: restart it", mend=f"kill {server.pid}; {self._command('serve')}")
            yield from judged_log(server)
            yield from judged_readiness(server, mend=self._command("service logs"))
        if disk is not None and disk.marks_reached:
            words = f"the disk is at its mark ({', '.join(disk.marks_reached)}), and instances are refused: make room"
            yield ToDo(words=words, mend=f"df -h {shlex.quote(self._root)}; df -i {shlex.quote(self._root)}")
        if is_read_only(self._root):
            words = (
                "the disk is read-only, so nothing can be kept. After an error of the disk: stop the server, unmount it, have fsck"
                " mend it, mount it"
            )
            place = f'"$(findmnt -no TARGET -T {shlex.quote(self._root)})"'
            mend = f"sudo dmesg | tail -n 50; sudo mount -o remount,rw {place}  # where it was no error"
            yield ToDo(words=words, mend=mend)
        has_reserve = os.path.lexists(os.path.join(self._root, RESERVE))
        if running and self._settings.storage.reserve_size and not has_reserve:
            needed = human_size(self._settings.storage.reserve_size + RESERVE_MARGIN)
            words = (
                "the disk was full and the reserve was released: every instance is refused until the server has made it again,"
                f" by itself, as soon as {needed} are free. Make room"
            )
            yield ToDo(words=words, mend=f"df -h {shlex.quote(self._root)}")
        if found is not None:
            yield from self._judged_rows(found)

    def _judged_rows(self, found: _Catalog) -> Iterator[ToDo]:
        jobs, commitments = found.jobs, found.commitments
        if found.kept.damaged:
            words = f"damaged and put into quarantine: {found.kept.damaged}. Have them sent again"
            yield ToDo(words=words, mend=self._command("ls quarantine"))
        if jobs.failed:
            words = f"jobs failed: {jobs.failed}"
            yield ToDo(words=words, mend=self._command("jobs ls --state failure"))
        if jobs.oldest is not None and jobs.oldest.state == "retry":
            age = _seconds_between(jobs.oldest.created_at, self._now)
            if age > RETRYING_SECONDS_MAX:
                words = f"a job has been tried again and again for {duration(age)}: {jobs.oldest.error or jobs.oldest.kind}"
                yield ToDo(words=words, mend=self._command(f"jobs show {jobs.oldest.job_id}"))
        if commitments.undelivered:
            words = f"reports on storage commitments that were given up: {commitments.undelivered}"
            yield ToDo(words=words, mend=self._command("commitments ls --role provider --state undelivered"))
        if found.clock_is_doubted:
            words = "retention rules remove nothing, since the clock cannot be believed: set it, or if it is right say so"
            yield ToDo(words=words, mend=self._command("retention trust-clock"))
        for one in found.forwards:
            if one.waiting and not one.is_known:
                words = f"waits for {one.destination}, which is neither a peer nor an origin server: {one.waiting}"
                yield ToDo(words=words, mend=self._command("peers ls"))
            if one.failed:
                words = f"not forwarded to {one.destination}, and not tried again by itself: {one.failed}"
                yield ToDo(
                    words=words,
                    mend=self._command(f"forwards ls --failed --destination {shlex.quote(one.destination)}"),
                )

    def _command(self, words: str) -> str:
        return f"stowkeeper {words} --archive {shlex.quote(self._root)}"


def _marks_reached(free_bytes: int, free_inodes: int | None, marks: DiskMarks) -> Iterator[str]:
    if free_bytes < marks.instance_bytes:
        yield "storage.refuse_instance_below"
    if free_bytes < marks.association_bytes:
        yield "storage.refuse_association_below"
    if free_inodes is not None and free_inodes < marks.instance_inodes:
        yield "storage.refuse_instance_below_inodes"
    if free_inodes is not None and free_inodes < marks.association_inodes:
        yield "storage.refuse_association_below_inodes"


def _seconds_between(earlier: str, later: str) -> float:
    return (dt.datetime.fromisoformat(later) - dt.datetime.fromisoformat(earlier)).total_seconds()


def is_read_only(path: str, mounts: str = "/proc/self/mountinfo") -> bool:
    """Tell whether the disk of a path is mounted read-only, or a kernel that met errors on it writes to it no more."""
    try:
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return True
        device = os.stat(path).st_dev
        with open(mounts, encoding="utf-8", errors="replace") as stream:
            lines = [line.split() for line in stream]
    except OSError:
        return False
    # ext4 that gave up stays "rw" for statvfs from Linux 6.15 on; its own options, the last field, say it (proc_pid_mountinfo(5)).
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(
        len(words) > 3 and words[2] == number and {"ro", "emergency_ro"} & set(words[-1].split(","))
        for words in lines
    )
