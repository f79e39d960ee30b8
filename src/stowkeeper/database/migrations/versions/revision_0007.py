"""Forwarding: what the rules chose to be sent on, to whom, and what became of it.

Revision: 0007. What the columns mean stands in `stowkeeper/database/schema.py`.
"""

from alembic import op
from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, Text, UniqueConstraint, text

revision = "0007"
down_revision = "0006"

_OPEN = "state IN ('waiting', 'queued', 'failed')"
_IN_JOB = "state IN ('queued', 'failed')"


def upgrade() -> None:
    """Make the table, empty: no rule has chosen anything yet."""
    op.create_table(
        "forwards",
        Column("forward_key", Integer, primary_key=True),
        Column("version_key", Integer, ForeignKey("versions.version_key"), nullable=False),
        Column("destination", Text, nullable=False),
        Column("rule", Text, nullable=False),
        Column("priority", Integer, nullable=False),
        Column(
            "state",
            Text,
            CheckConstraint(
                "state IN ('waiting', 'queued', 'sent', 'failed', 'dropped')", name="state_is_known"
            ),
            nullable=False,
        ),
        Column("job_key", Integer),
        Column("position", Integer),
        Column("words", Text, nullable=False),
        Column("created_at", Text, nullable=False),
        Column("changed_at", Text, nullable=False),
        UniqueConstraint("version_key", "destination", name="forwards_version"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "forwards_open",
        "forwards",
        ["state", "destination", "priority", "job_key", "forward_key"],
        sqlite_where=text(_OPEN),
    )
    op.create_index("forwards_of_job", "forwards", ["job_key", "position"], sqlite_where=text(_IN_JOB))
