"""Schema migrations, run by Alembic from code: there is no ini file and no command line.

A released migration is never edited. A new one stands in `versions/`, and `HEAD` names it; `schema.py`
describes what all of them together make.
"""

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


def upgrade(connection: Connection) -> None:
    """Bring the schema to HEAD, inside the connection's transaction: a crash leaves the old schema, whole."""
    from alembic import command  # noqa: PLC0415 - an up-to-date database never needs its 11 MB
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
