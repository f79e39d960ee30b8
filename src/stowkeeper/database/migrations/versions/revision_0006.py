"""Events: who follows the changes, which studies are still arriving, and what was told of them.

Revision: 0006. What the columns mean stands in `stowkeeper/database/schema.py`.
"""

from alembic import op
from sqlalchemy import Column, ForeignKey, Integer, Text, text

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables, empty: what arrived before is no news to anybody."""
    op.create_table(
        "consumers",
        Column("name", Text, primary_key=True),
        Column("seq", Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "study_watches",
        Column("study_key", Integer, ForeignKey("studies.study_key"), primary_key=True),
        Column("revision", Integer, nullable=False),
        Column("revision_began_at", Text, nullable=False),
        Column("last_arrival_at", Text, nullable=False),
        Column("last_version_key", Integer, nullable=False),
        Column("arrivals", Integer, nullable=False),
        Column("quiet_due_at", Text),
    )
    op.create_index(
        "study_watches_due",
        "study_watches",
        ["quiet_due_at"],
        sqlite_where=text("quiet_due_at IS NOT NULL"),
    )
    op.create_table(
        "study_events",
        Column("seq", Integer, ForeignKey("changes.seq"), primary_key=True),
        Column("study_key", Integer, ForeignKey("studies.study_key"), nullable=False),
        Column("revision", Integer, nullable=False),
        Column("evidence", Text, nullable=False),
    )
    op.create_index("study_events_of_study", "study_events", ["study_key", "seq"])
