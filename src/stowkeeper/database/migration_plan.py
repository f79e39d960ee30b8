"""What opening a database with this version would do to its schema, told without doing it."""

import os
from dataclasses import dataclass

from stowkeeper.database import migrations
from stowkeeper.database.engine import Database, free_backup_path


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStep:
    """One migration: the revision that it leads to, and what it is for."""

    revision: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """From which revision to which a schema would be brought, by which steps.

    `is_newer` tells that a later version made it, and that this one cannot work with it. `backup` is where the database
    would be copied to first, `size` the bytes that it has (its log aside), `free` those that are free there.
    """

    path: str
    revision: str | None
    head: str
    steps: tuple[MigrationStep, ...]
    is_newer: bool
    backup: str | None
    size: int
    free: int


def plan_migration(database: Database) -> MigrationPlan:
    """Look what is due. The database was opened as it is. Raises DatabaseUnavailable and OSError."""
    with database.read() as connection:
        revision = migrations.current_revision(connection)
    is_newer = revision is not None and not migrations.is_known(revision)
    found = [] if is_newer or revision == migrations.HEAD else migrations.steps_from(revision)
    space = os.statvfs(os.path.dirname(os.path.abspath(database.path)))
    return MigrationPlan(
        path=database.path,
        revision=revision,
        head=migrations.HEAD,
        steps=tuple(MigrationStep(revision=number, words=words) for number, words in found),
        is_newer=is_newer,
        backup=free_backup_path(database.path) if found and revision is not None else None,
        size=os.path.getsize(database.path),
        free=space.f_bavail * space.f_frsize,
    )
