"""Verification: read every byte of the archive again, and see that files and rows agree in both directions.

Each file is read from the medium and compared with the receipt in it, head and data set; the receipt is
compared with the row. Then the shelf is walked for files that no row knows. What is damaged is said by the
rows first, and then the file is moved to quarantine, where nothing is ever deleted by us. What cut-off
processes left half done (a damaged file still on its shelf, a removal) is finished on the way. With
`report_only` nothing is changed.

It runs beside servers. A name on the shelf is free for a newcomer as soon as a file is put away, so that
happens under the writer lock, where no row can change, and only to a file that is the version's own.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, exists, func, select, text

from stowkeeper.archive import catalog
from stowkeeper.archive.agreement import (
    Discrepancy,
    Fault,
    damaged_receipts_at,
    depot_inodes,
    in_series,
    in_study,
    listed_paths,
    walk_shelf,
)
from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.examine import Examination, Finding, examine
from stowkeeper.archive.hanging_files import counted, read_files
from stowkeeper.archive.judging import STANDING, Judgement, condemn, judge, put_damaged_away
from stowkeeper.archive.read_ahead import still_reading
from stowkeeper.archive.removal import Removal, RemovalResult
from stowkeeper.archive.shelf import escape
from stowkeeper.archive.shelf_lock import OBJECTS
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from stowkeeper.database.limits import ROWS_PER_PAGE
from stowkeeper.durable.filesystem import FileSystem


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What to verify: all of an archive, or what fits each of these.

    `received_from` is UTC in ISO 8601 and may be cut short.
    """

    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    received_from: str | None = None


EVERYTHING = Scope()


@dataclass(slots=True, kw_only=True)
class VerificationCounts:
    """What a verification has seen so far. `size` is in bytes read.

    `in_flight` are files whose rows are about to come. `finished` are steps of earlier processes that were
    done now, `unfinished` those that were left, since nothing should be changed.
    """

    files: int = 0
    size: int = 0
    whole: int = 0
    in_flight: int = 0
    finished: int = 0
    unfinished: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """A version as far as verification compares it."""

    version_key: int
    sop_instance_uid: str
    path: str
    file_size: int
    state: VersionState
    state_since: str | None
    content: tuple[str, str, str]
    receipt_id: str


class Verification:
    """One verification of an archive; `run` it once, or do its parts in their order: `begin`, `check`, `find_unlisted`.

    `progress` is told the bytes of each block that was read, by several threads, and 0 now and then in between. It may
    wait: so a rate is limited. It may raise: so a verification is broken off, and may go on later from a row.
    """

    def __init__(
        self,
        files: FileSystem,
        root: str,
        database: Database,
        *,
        scope: Scope = EVERYTHING,
        report_only: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._files = files
        self._root = root
        self._database = database
        self._scope = scope
        self._report_only = report_only
        self._progress = progress or (lambda _count: None)
        self.counts = VerificationCounts()

    def expected(self) -> tuple[int, int]:
        """Return how many files there are to read, by their rows, and their bytes."""
        query = select(func.count(), func.coalesce(func.sum(schema.versions.c.file_size), 0))
        with self._database.read() as connection:
            row = connection.execute(
                _in_scope(query.select_from(schema.versions), self._scope).where(
                    schema.versions.c.state.in_(STANDING)
                )
            ).one()
        return row[0], row[1]

    def run(self) -> Iterator[Discrepancy]:
        """Verify, and yield what is wrong as it is found. Raises DatabaseUnavailable or a folder's OSError."""
        yield from self.begin()
        for _, found in self.check(self.rows()):
            if found is not None:
                yield found
        yield from self.find_unlisted()

    # What others began.

    def begin(self) -> Iterator[Discrepancy]:
        """Finish what was cut off, and name what was found damaged before and has not come again."""
        yield from self._cut_off_steps()
        for row in self._damaged_rows(_NOT_REPAIRED):
            yield Discrepancy(
                fault=Fault.DAMAGED,
                path=row.path,
                sop_instance_uid=row.sop_instance_uid,
                receipt_id=row.receipt_id,
                words=f"it was found damaged on {row.state_since}, send it again or remove it",
            )

    def _cut_off_steps(self) -> Iterator[Discrepancy]:
        """Finish removals, and moves to quarantine, that were cut off."""
        removing = [row.version_key for row in self._rows((VersionState.REMOVING,))]
        if self._report_only:
            self.counts.unfinished = len(removing) + len(self._standing_damaged())
            return
        self.counts.finished = self.finish_damaged()
        if not removing:
            return
        result = RemovalResult()
        Removal(self._files, self._root, self._database).finish(removing, "", result)
        self.counts.finished += result.removed
        for path, words in result.left:
            yield Discrepancy(
                fault=Fault.UNREADABLE,
                path=path,
                sop_instance_uid="",
                receipt_id="",
                words=f"it is to be removed, and cannot be: {words}",
            )

    def finish_damaged(self) -> int:
        """Move to quarantine what the rows say is damaged and still stands on the shelf; return how many."""
        words = "it was found damaged earlier"
        return sum(1 for row in self._standing_damaged() if self._put_away(row, words))

    def _standing_damaged(self) -> list[VersionRow]:
        """Return the damaged versions at whose places there still is a file that no row says is another's."""
        rows = [row for row in self._damaged_rows() if self._is_there(row.path)]
        with self._database.read() as connection:
            listed = listed_paths(connection, [row.path for row in rows])
        return [row for row in rows if row.path not in listed]

    # From the rows to the files.

    def rows(self, after: int = 0) -> Iterator[VersionRow]:
        """Yield the rows of the scope whose files have to be there, in the order of their keys, from the next one on."""
        return self._rows(STANDING, after=after)

    def check(self, rows: Iterable[VersionRow]) -> Iterator[tuple[VersionRow, Discrepancy | None]]:
        """Read the files of some rows, several at a time, and yield each row with what is wrong with it, if anything is."""
        judged = read_files(
            self._judge,
            rows,
            root=self._root,
            path_of=lambda row: row.path,
            weigh=lambda row: row.file_size,
            go_on=lambda: self._progress(0),
        )
        for row, found in judged:
            yield row, self._conclude(row, found)

    def _judge(self, row: VersionRow) -> Judgement:
        """Read the file of a row, on a thread of its own, and compare what it is with the row."""
        found: Examination | OSError
        try:
            found = examine(self._files, os.path.join(self._root, row.path), progress=counted(self._progress))
        except OSError as error:
            found = error
        return judge(self._files, self._root, row, found, progress=lambda _count: still_reading())

    def _conclude(self, row: VersionRow, judgement: Judgement | OSError) -> Discrepancy | None:
        """Count a row, and say what is wrong with it."""
        if isinstance(judgement, OSError):
            judgement = judge(self._files, self._root, row, judgement)
        if judgement.size is not None:
            self.counts.files += 1
            self.counts.size += judgement.size
        if judgement.fault is None:
            self.counts.whole += 1
            return None
        if judgement.fault is Fault.DAMAGED and not self._report_only:
            return self._condemn(row, judgement.words)
        return self._discrepancy(row, judgement.fault, judgement.words)

    def _discrepancy(self, row: VersionRow, fault: Fault, words: str) -> Discrepancy | None:
        """Return a discrepancy of a row that still says the same; None for one that changed meanwhile."""
        with self._database.read() as connection:
            now = catalog.find_version_by_path(connection, row.path)
        if now is None or now.version_key != row.version_key or now.state not in STANDING:
            return None
        return Discrepancy(
            fault=fault,
            path=row.path,
            sop_instance_uid=row.sop_instance_uid,
            receipt_id=row.receipt_id,
            words=words,
        )

    def _condemn(self, row: VersionRow, words: str) -> Discrepancy | None:
        """Let the row say that its file is damaged, and put the file away."""
        condemned = condemn(self._files, self._root, self._database, row, words)
        if condemned is None:
            return None
        return Discrepancy(
            fault=Fault.DAMAGED,
            path=row.path,
            sop_instance_uid=row.sop_instance_uid,
            receipt_id=row.receipt_id,
            words=condemned.words,
            moved_to=condemned.moved_to,
        )

    def _put_away(self, row: VersionRow, words: str) -> str:
        """Move the file of a damaged version to quarantine, if its name leads to it; return its new path."""
        return put_damaged_away(
            self._files, self._root, self._database, path=row.path, receipt_id=row.receipt_id, words=words
        )

    # From the files to the rows.

    def find_unlisted(self) -> Iterator[Discrepancy]:
        """Walk the shelf for files without a row."""
        for start in self._folders():
            for folder, names in walk_shelf(self._files, self._root, start):
                self._progress(0)
                paths = [f"{folder}/{name}" for name in names]
                with self._database.read() as connection:
                    listed = listed_paths(connection, paths)
                suspects = [path for path in paths if path not in listed]
                if suspects:
                    yield from self._check_suspects(suspects)

    def _folders(self) -> list[str]:
        """Return the folders in which files of the scope stand."""
        scope = self._scope
        if scope.series_instance_uid is not None:
            name = escape(scope.series_instance_uid)
            if scope.study_instance_uid is not None:
                return [f"{OBJECTS}/{escape(scope.study_instance_uid)}/{name}"]
            studies = self._files.list_directory(os.path.join(self._root, OBJECTS))
            folders = [f"{OBJECTS}/{entry.name}/{name}" for entry in studies if entry.is_directory]
            return sorted(folder for folder in folders if self._is_there(folder))
        if scope.study_instance_uid is not None:
            return [f"{OBJECTS}/{escape(scope.study_instance_uid)}"]
        return [OBJECTS]

    def _check_suspects(self, paths: Sequence[str]) -> Iterator[Discrepancy]:
        """Look again at files that no row knew: which are on their way, or gone, and which stay unknown."""
        # In this order: a file's depot name goes after its row is there, so what has neither now has no row
        # to come.
        on_their_way = depot_inodes(self._files, self._root)
        with self._database.read() as connection:
            listed = listed_paths(connection, paths)
            damaged = damaged_receipts_at(connection, paths)

        def read(path: str) -> Examination | None:
            """Return what a file is, None for one that is on its way."""
            absolute = os.path.join(self._root, path)
            if self._files.status(absolute).inode in on_their_way:
                return None
            return examine(self._files, absolute, progress=lambda _count: still_reading())

        unknown = [path for path in paths if path not in listed]
        for path, examination in read_files(read, unknown, root=self._root, path_of=str):
            found: Discrepancy | None = None
            if examination is None:
                self.counts.in_flight += 1
            elif isinstance(examination, Examination):
                found = self._describe_unlisted(path, examination, damaged.get(path, set()))
            elif not isinstance(examination, FileNotFoundError):
                words = f"no row knows it, and it cannot be read: {examination.strerror}"
                found = _unlisted(path, words, None)
            if found is not None:
                yield found

    def _describe_unlisted(
        self, path: str, examination: Examination, damaged: set[str]
    ) -> Discrepancy | None:
        """Say what a file without a row is; None for one out of the scope, or damaged and not yet put away."""
        receipt = examination.receipt
        if damaged and (receipt is None or receipt.receipt_id in damaged):
            return None
        since = self._scope.received_from
        if since is not None and receipt is not None and receipt.received_at < since:
            return None
        self.counts.files += 1
        self.counts.size += examination.size
        if examination.finding is Finding.WHOLE:
            return _unlisted(path, "no row knows it, and it is whole: rebuild lists it", examination)
        return _unlisted(path, f"no row knows it, and {examination.words}", examination)

    # Rows.

    def _damaged_rows(self, *conditions: Any) -> Iterator[VersionRow]:  # noqa: ANN401 - as SQLAlchemy takes them
        # In the words of the index, since SQLite does not know that a bound value is the one in it.
        return self._rows((VersionState.DAMAGED,), text(schema.DAMAGED), *conditions)

    def _rows(
        self,
        states: Sequence[VersionState],
        *conditions: Any,  # noqa: ANN401 - as SQLAlchemy takes them
        after: int = 0,
    ) -> Iterator[VersionRow]:
        """Yield the rows of the scope page by page, up to the last one that was there at the beginning."""
        table = schema.versions
        query = _in_scope(_ROWS, self._scope).where(table.c.state.in_(states), *conditions)
        query = query.order_by(table.c.version_key).limit(ROWS_PER_PAGE)
        with self._database.read() as connection:
            last = connection.execute(select(func.max(table.c.version_key))).scalar() or 0
        while True:
            with self._database.read() as connection:
                found = connection.execute(
                    query.where(table.c.version_key > after, table.c.version_key <= last)
                ).all()
            yield from map(_row, found)
            if len(found) < ROWS_PER_PAGE:
                return
            after = found[-1].version_key

    def _is_there(self, path: str) -> bool:
        try:
            self._files.status(os.path.join(self._root, path))
        except FileNotFoundError:
            return False
        return True


def finish_damaged(files: FileSystem, root: str, database: Database) -> int:
    """Move files to quarantine whose rows say `damaged` and whose move was cut off; return how many.

    For the start of a server: it looks for the file of every damaged version. Raises DatabaseUnavailable and OSError.
    """
    verification = Verification(files, root, database)
    return verification.finish_damaged()


def _unlisted(path: str, words: str, examination: Examination | None) -> Discrepancy:
    receipt = examination.receipt if examination is not None else None
    return Discrepancy(
        fault=Fault.UNLISTED,
        path=path,
        sop_instance_uid=receipt.sop_instance_uid if receipt is not None else "",
        receipt_id=receipt.receipt_id if receipt is not None else "",
        words=words,
    )


_ROWS = (
    select(
        schema.versions.c.version_key,
        schema.instances.c.sop_instance_uid,
        schema.versions.c.path,
        schema.versions.c.file_size,
        schema.versions.c.state,
        schema.versions.c.state_since,
        schema.versions.c.sop_class_uid,
        schema.versions.c.transfer_syntax_uid,
        schema.receipts.c.receipt_id,
        schema.receipts.c.digest,
    )
    .join(schema.instances, schema.instances.c.instance_key == schema.versions.c.instance_key)
    .join(schema.receipts, schema.receipts.c.receipt_key == schema.versions.c.version_key)
)

_proofs = schema.receipts.alias("proofs")
_twins = schema.versions.alias("twins")
_twin_receipts = schema.receipts.alias("twin_receipts")

_NOT_REPAIRED = ~(
    exists()
    .where(
        and_(
            _twins.c.instance_key == schema.versions.c.instance_key,
            _twins.c.state.in_(STANDING),
            _twins.c.sop_class_uid == schema.versions.c.sop_class_uid,
            _twins.c.transfer_syntax_uid == schema.versions.c.transfer_syntax_uid,
            _twin_receipts.c.receipt_key == _twins.c.version_key,
            _twin_receipts.c.digest == schema.receipts.c.digest,
        )
    )
    .correlate(schema.versions, schema.receipts)
)
"""No version with the same bytes is kept: nobody has sent it again since."""


def _row(row: Any) -> VersionRow:  # noqa: ANN401 - a row has its query's columns, no type of its own
    return VersionRow(
        version_key=row.version_key,
        sop_instance_uid=row.sop_instance_uid,
        path=row.path,
        file_size=row.file_size,
        state=VersionState(row.state),
        state_since=row.state_since,
        content=(row.digest, row.sop_class_uid, row.transfer_syntax_uid),
        receipt_id=row.receipt_id,
    )


def _in_scope(query: Select[Any], scope: Scope) -> Select[Any]:
    if scope.study_instance_uid is not None:
        query = query.where(in_study(scope.study_instance_uid))
    if scope.series_instance_uid is not None:
        query = query.where(in_series(scope.series_instance_uid))
    if scope.received_from is not None:
        proved = _proofs.c.receipt_key == schema.versions.c.version_key
        query = query.where(exists().where(proved, _proofs.c.received_at >= scope.received_from))
    return query
