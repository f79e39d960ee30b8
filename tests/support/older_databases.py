"""Databases as older versions left them."""

from pathlib import Path

import pytest
from alembic import command

from stowkeeper.database import migrations
from stowkeeper.database.engine import Database


def make_database_of(revision: str, path: Path) -> None:
    """Make a database as an older version left it: of this schema revision, by that version's migrations."""
    with pytest.MonkeyPatch.context() as patched:
        upgrade = command.upgrade
        patched.setattr(command, "upgrade", lambda config, _revision: upgrade(config, revision))
        patched.setattr(migrations, "create", migrations.upgrade)
        Database.open(str(path), lock_path=f"{path}.lock").close()
