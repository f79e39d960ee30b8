"""What the last echo of each peer came to, apart from the audit trail, of which each was a line.

Revision: 0005. What the columns mean stands in `stowkeeper/database/schema.py`.
"""

from alembic import op
from sqlalchemy import Column, Text

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table, with what the audit trail tells; its lines stay."""
    op.create_table(
        "peer_echoes",
        Column("peer", Text, primary_key=True),
        Column("answered_at", Text),
        Column("failed_at", Text),
        Column("failure", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    # SQLite takes `detail` from the row that has the greatest `audit_key`.
    op.execute(
        "INSERT INTO peer_echoes (peer, answered_at, failed_at, failure)"
        " SELECT names.subject, answered.at, failed.at, coalesce(failed.detail, '')"
        " FROM (SELECT DISTINCT subject FROM audit WHERE action LIKE 'peer echo %') AS names"
        " LEFT JOIN (SELECT subject, at, max(audit_key) FROM audit WHERE action = 'peer echo answered' GROUP BY subject)"
        " AS answered ON answered.subject = names.subject"
        " LEFT JOIN (SELECT subject, at, detail, max(audit_key) FROM audit WHERE action = 'peer echo failed'"
        " GROUP BY subject) AS failed ON failed.subject = names.subject"
    )
