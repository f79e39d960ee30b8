"""Permission to store by HTTP for each credential, and a role that may nothing by itself.

Revision: 0004. What the columns mean stands in `stowkeeper/database/schema.py`.
"""

from alembic import op
from sqlalchemy import CheckConstraint, Column, Integer, Text, UniqueConstraint

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table of the credentials anew: SQLite changes no condition of a table that is there.

    Whoever could store, by the role `operate`, still can, and nobody else. Nothing refers to the keys of these rows.
    """
    op.rename_table("credentials", "credentials_before_0004")
    op.create_table(
        "credentials",
        Column("credential_key", Integer, primary_key=True),
        *_texts("name"),
        Column("kind", Text, _one_of("kind", "token", "password"), nullable=False),
        Column("role", Text, _one_of("role", "none", "read", "operate", "admin"), nullable=False),
        Column("may_store", Integer, nullable=False),
        *_texts("secret_hash", "created_at", "created_by"),
        UniqueConstraint("name", name="credentials_name"),
    )
    op.execute(
        "INSERT INTO credentials (credential_key, name, kind, role, may_store, secret_hash, created_at, created_by)"
        " SELECT credential_key, name, kind, role, role IN ('operate', 'admin'), secret_hash, created_at, created_by"
        " FROM credentials_before_0004"
    )
    op.drop_table("credentials_before_0004")


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False) for name in names]


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_is_known")
