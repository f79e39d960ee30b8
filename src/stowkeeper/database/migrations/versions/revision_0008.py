"""How many instances a study or series should have, where an instance says so.

Revision: 0008. What the columns mean stands in `stowkeeper/database/schema.py`.
"""

from alembic import op
from sqlalchemy import Column, Integer

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns, empty: what was kept before says nothing until it comes again, or `rebuild` reads it."""
    for name in (
        "images_in_acquisition",
        "number_of_study_related_instances",
        "number_of_series_related_instances",
    ):
        op.add_column("versions", Column(name, Integer))
