"""Schema migrations, run by Alembic from code: there is no ini file and no command line. A new database needs none.

A released migration is never edited. A new one stands in `versions/`, and `HEAD` names it; `schema.py`
describes what all of them together make.
"""

from itertools import chain
from pathlib import Path

from sqlalchemy import Connection, inspect, text

HEAD = "0008"
"""The newest revision. It stands here so that opening an up-to-date database needs no Alembic (a test
compares)."""

_VERSION_TABLE = "alembic_version"


def current_revision(connection: Connection) -> str | None:
    """Return the revision of a database's schema, None when it has none."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    revision: str | None = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return revision


def is_known(revision: str) -> bool:
    """Tell whether a revision is one of ours, so that a migration can start from it."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - only a database that is not up to date needs it

    script = ScriptDirectory(str(Path(__file__).parent))
    return any(known.revision == revision for known in script.walk_revisions())


def steps_from(revision: str | None) -> list[tuple[str, str]]:
    """Return the migrations from a revision of ours to HEAD, in order: each with its number and what it is for."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

    script = ScriptDirectory(str(Path(__file__).parent))
    steps = script.iterate_revisions(HEAD, revision or "base")
    return [(step.revision, step.doc.strip().partition("\n")[0]) for step in steps][::-1]


def create(connection: Connection) -> None:
    """Make the newest schema in an empty database, inside the connection's transaction.

    It is what all migrations together make (a test compares), in a tenth of their time, and without Alembic.
    """
    from stowkeeper.database.schema import metadata  # noqa: PLC0415 - only a new database needs it here

    metadata.create_all(connection, checkfirst=False)
    connection.execute(
        text(
            f"CREATE TABLE {_VERSION_TABLE} (version_num VARCHAR(32) NOT NULL,"
            f" CONSTRAINT {_VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text(f"INSERT INTO {_VERSION_TABLE} VALUES (:head)"), {"head": HEAD})  # noqa: S608 - a constant


def upgrade(connection: Connection) -> None:
    """Bring the schema to HEAD, inside the connection's transaction: a crash leaves the old schema, whole."""
    from alembic import command  # noqa: PLC0415 - an up-to-date database never needs its 11 MB
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def complete(connection: Connection) -> list[str]:
    """Make the indexes that a migrated schema lacks, and return what else it lacks, each as table or table.column.

    The first migrations were edited before the first release, so a schema of then may be another than its number says.
    """
    from stowkeeper.database.schema import metadata  # noqa: PLC0415 - as above

    indexes = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'index'")).scalars())
    missing: list[str] = []
    for table in metadata.sorted_tables:
        rows = connection.execute(text("SELECT name FROM pragma_table_info(:table)"), {"table": table.name})
        columns = set(rows.scalars())
        if columns:
            missing += [
                f"{table.name}.{column.name}" for column in table.columns if column.name not in columns
            ]
        else:
            missing.append(table.name)
    for index in () if missing else chain.from_iterable(table.indexes for table in metadata.sorted_tables):
        if index.name not in indexes:
            index.create(connection)
    return missing
