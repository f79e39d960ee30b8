"""The ledger tells on whose behalf a peer called.

Revision: 0002. What the columns mean stands in `stowkeeper/database/schema.py`.
"""

from alembic import op
from sqlalchemy import Column, Integer, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns. SQLite does so without touching the rows that are there."""
    op.add_column("associations", Column("user_identity_type", Integer))
    op.add_column("associations", Column("user_identity_name", Text))
