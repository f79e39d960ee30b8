"""Whether the catalog can be read, is this archive's, and has the schema of this version."""

import os
import shlex
from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import func, select

from stowkeeper.app.doctor.accounts import ourselves, usable_again, whose
from stowkeeper.app.doctor.finding import Finding, failure, ok, warning
from stowkeeper.archive import catalog
from stowkeeper.archive.archive import CATALOG, explain_foreign_catalog
from stowkeeper.database.errors import DatabaseDamaged, DatabaseError, DatabaseForeign
from stowkeeper.database.migration_plan import plan_migration
from stowkeeper.database.read_only import ReadOnlyDatabase
from stowkeeper.database.schema import receipts
from stowkeeper.durable.errors import ArchiveIdentityError
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.identity import read_archive_id

CATALOG_CHECK = "catalog"


def check_catalog(files: FileSystem, root: str, foreign: str = "") -> Iterator[Finding]:
    """Look into the catalog without changing it. An archive that is still to be made has none.

    `foreign` says what keeps the folder from becoming that of an archive.
    """
    path = os.path.join(root, CATALOG)
    place = shlex.quote(root)
    rebuild = f"stowkeeper rebuild --archive {place}"
    try:
        identity = read_archive_id(files, root) if os.path.isdir(root) else None
        if not os.path.lexists(path):
            if identity is not None:
                yield failure(CATALOG_CHECK, f"the archive in {root} has no {CATALOG}", rebuild)
            elif foreign:
                mend = f"ls -A {place}  # then name an empty folder with --archive, or move what is there"
                yield failure(CATALOG_CHECK, f"{foreign}: no server makes an archive there", mend)
            else:
                yield ok(CATALOG_CHECK, f"there is no archive in {root} yet")
            return
        with open(path, "rb"):  # so that the system says why it cannot be
            pass
        with closing(ReadOnlyDatabase(path)) as database:
            plan = plan_migration(database)
            if plan.is_newer:
                words = f"{path} has schema {plan.revision}, and this version knows schemas up to {plan.head}"
                yield failure(
                    CATALOG_CHECK, f"{words}: a later version of Stowkeeper made it", "stowkeeper --version"
                )
                return
            if plan.steps:
                words = f"{path} has schema {plan.revision}, and this version works with {plan.head}: it is changed at the next start"
                yield warning(CATALOG_CHECK, words, f"stowkeeper migrate --archive {place}")
                return
            with database.read() as connection:
                recorded = catalog.archive_id(connection)
    except (DatabaseDamaged, DatabaseForeign) as error:
        aside = f"mkdir {place}/aside && mv {shlex.quote(path)}* {place}/aside && {rebuild}"
        yield failure(CATALOG_CHECK, str(error), f"{aside}  # with every server stopped")
        return
    except DatabaseError as error:
        yield failure(CATALOG_CHECK, str(error), f"fuser -v {shlex.quote(path)}; ls -l {place}")
        return
    except ArchiveIdentityError as error:
        yield failure(CATALOG_CHECK, str(error), rebuild)
        return
    except PermissionError as error:
        words = f"{error.filename}{whose(error.filename)} cannot be read by {ourselves()}"
        yield failure(CATALOG_CHECK, words, usable_again(f"stowkeeper doctor --archive {place}", root, root))
        return
    except OSError as error:
        words = f"{error.filename or path} cannot be read: {error.strerror}"
        yield failure(CATALOG_CHECK, words, f"ls -l {place}")
        return
    if recorded is not None and recorded != identity:
        yield failure(
            CATALOG_CHECK, explain_foreign_catalog(root, stated=identity, recorded=recorded), rebuild
        )
        return
    yield ok(CATALOG_CHECK, f"{path} has the schema of this version, {plan.head}")


def newest_receipt_at(root: str) -> str | None:
    """Return when the newest instance came by the ledger, UTC in ISO 8601; None where none did or it cannot be read."""
    path = os.path.join(root, CATALOG)
    if not os.path.exists(path):
        return None
    try:
        with closing(ReadOnlyDatabase.open_to_read(path)) as database, database.read() as connection:
            newest: str | None = connection.execute(select(func.max(receipts.c.received_at))).scalar()
    except (DatabaseError, OSError):
        return None  # told by the check of the catalog
    return newest
