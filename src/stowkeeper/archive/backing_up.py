"""The backup of an archive's catalog, and the change of its schema: for commands, beside servers.

What the catalog alone knows (holds, commitments, what was removed, jobs, peers, credentials, the ledger) is in no file of
the archive. After a restored backup `rebuild` brings what came after it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from stowkeeper.archive.archive import CATALOG, CATALOG_LOCK, ArchiveRefusedError, may_write
from stowkeeper.database.backup import Backup, back_up
from stowkeeper.database.engine import Database
from stowkeeper.database.migration_plan import MigrationPlan, plan_migration
from stowkeeper.database.read_only import ReadOnlyDatabase


def back_up_catalog(root: str, target: str, *, progress: Callable[[int, int], None] | None = None) -> Backup:
    """Copy the catalog of the archive in a folder, whatever the version of its schema, while servers go on.

    It is enough to be allowed to read. `progress` is told the pages that are left and those there are in all. Raises
    ArchiveRefusedError, BackupRefusedError, DatabaseError or OSError.
    """
    with _catalog_as_it_is(root) as database:
        return back_up(database, target, progress=progress)


def plan_catalog_migration(root: str) -> MigrationPlan:
    """Tell what this version would do to the schema of the catalog in a folder, and do nothing.

    Raises ArchiveRefusedError, DatabaseError or OSError.
    """
    with _catalog_as_it_is(root) as database:
        return plan_migration(database)


@contextmanager
def _catalog_as_it_is(root: str) -> Iterator[Database]:
    path = os.path.join(os.path.abspath(root), CATALOG)
    lock_path = os.path.join(os.path.abspath(root), CATALOG_LOCK)
    if not os.path.exists(path):
        raise ArchiveRefusedError(
            f"there is no {CATALOG} in {os.path.abspath(root)}: name the folder of the archive with --archive"
        )
    if may_write(os.path.abspath(root), path, lock_path):
        database = Database.open_as_it_is(path, lock_path=lock_path)
    else:
        database = ReadOnlyDatabase(path)
    with closing(database):
        yield database
