"""Jobs, storage commitment, peers and credentials of the HTTP interface, and the audit trail.

Revision: 0003. What the columns mean stands in `stowkeeper/database/schema.py`.
"""

from alembic import op
from sqlalchemy import CheckConstraint, Column, Float, ForeignKey, Integer, Text, UniqueConstraint, text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables. None that was there changes."""
    _make_jobs()
    _make_commitments()
    _make_commitment_rows()
    _make_peers_and_credentials()


def _texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False) for name in names]


def _optional_texts(*names: str) -> list[Column[str]]:
    return [Column(name, Text) for name in names]


def _integers(*names: str) -> list[Column[int]]:
    return [Column(name, Integer, nullable=False) for name in names]


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_is_known")


def _make_jobs() -> None:
    states = _one_of("state", "pending", "running", "paused", "retry", "success", "failure", "cancelled")
    op.create_table(
        "jobs",
        Column("job_key", Integer, primary_key=True),
        *_texts("job_id", "kind"),
        Column("state", Text, states, nullable=False),
        Column("wish", Text, _one_of("wish", "", "pause", "cancel"), nullable=False),
        *_integers("priority"),
        *_texts("lane", "step", "arguments", "checkpoint"),
        *_integers("items_total", "items_done"),
        *_texts("subject", "peer", "created_at", "created_by", "due_at"),
        *_optional_texts("started_at", "finished_at"),
        Column("seconds_run", Float, nullable=False),
        *_integers("attempts", "failures", "faults"),
        *_texts("error", "owner"),
        *_integers("heartbeat"),
        UniqueConstraint("job_id", name="jobs_id"),
        sqlite_autoincrement=True,
    )
    waiting = text("state IN ('pending', 'retry')")
    op.create_index(
        "jobs_waiting", "jobs", ["lane", "due_at", "kind", "priority", "state"], sqlite_where=waiting
    )
    op.create_index("jobs_running", "jobs", ["lane"], sqlite_where=text("state = 'running'"))
    op.create_index("jobs_wished", "jobs", ["job_key"], sqlite_where=text("wish <> ''"))
    op.create_index("jobs_finished", "jobs", ["finished_at"], sqlite_where=text("finished_at IS NOT NULL"))
    op.create_index("jobs_of_kind", "jobs", ["kind", "job_key"])
    op.create_index("jobs_of_peer", "jobs", ["peer", "job_key"], sqlite_where=text("peer <> ''"))
    op.create_index("jobs_of_subject", "jobs", ["subject"], sqlite_where=text("subject <> ''"))
    op.create_table(
        "job_items",
        Column("job_key", Integer, ForeignKey("jobs.job_key", ondelete="CASCADE"), primary_key=True),
        Column("position", Integer, primary_key=True),
        *_texts("name", "outcome"),
        Column("code", Integer),
        *_texts("words"),
        *_optional_texts("done_at"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_lanes",
        Column("lane", Text, primary_key=True),
        *_integers("failures"),
        *_texts("blocked_until", "words"),
        sqlite_with_rowid=False,
    )


def _make_commitments() -> None:
    states = _one_of(
        "state",
        "received",
        "checked",
        "reported",
        "undelivered",
        "requested",
        "accepted",
        "refused",
        "committed",
        "partial",
        "failed",
        "expired",
        "cancelled",
    )
    op.create_table(
        "commitments",
        Column("commitment_key", Integer, primary_key=True),
        Column("role", Text, _one_of("role", "provider", "user"), nullable=False),
        *_texts("way", "transaction_uid"),
        Column("state", Text, states, nullable=False),
        *_texts("peer", "peer_ae_title", "own_ae_title", "peer_address", "association_id", "content"),
        *_integers("instances", "failures"),
        Column("duplicate_of", Integer, ForeignKey("commitments.commitment_key")),
        Column("replaces", Integer, ForeignKey("commitments.commitment_key")),
        *_texts("job_id", "requested_at"),
        *_optional_texts("checked_at", "reported_at", "expires_at"),
        *_integers("report_attempts"),
        *_texts("error"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "commitments_transaction",
        "commitments",
        ["role", "transaction_uid"],
        unique=True,
        sqlite_where=text("duplicate_of IS NULL"),
    )
    op.create_index(
        "commitments_open",
        "commitments",
        ["role", "commitment_key"],
        sqlite_where=text("reported_at IS NULL"),
    )
    op.create_index("commitments_of_peer", "commitments", ["peer", "commitment_key"])


def _make_commitment_rows() -> None:
    of_commitment = ("commitments.commitment_key", "CASCADE")
    op.create_table(
        "commitment_instances",
        Column(
            "commitment_key",
            Integer,
            ForeignKey(of_commitment[0], ondelete=of_commitment[1]),
            primary_key=True,
        ),
        Column("position", Integer, primary_key=True),
        *_texts("sop_class_uid", "sop_instance_uid"),
        *_integers("uid_hash"),
        Column("version_key", Integer, ForeignKey("versions.version_key")),
        Column("outcome", Text, _one_of("outcome", "", "committed", "failed", "unasked"), nullable=False),
        Column("reason", Integer),
        *_texts("words"),
        *_optional_texts("checked_at"),
        sqlite_with_rowid=False,
    )
    op.create_index("commitment_instances_uid", "commitment_instances", ["uid_hash"])
    op.create_table(
        "commitment_reports",
        Column("report_key", Integer, primary_key=True),
        Column(
            "commitment_key", Integer, ForeignKey(of_commitment[0], ondelete=of_commitment[1]), nullable=False
        ),
        *_texts("at", "way"),
        Column("status", Integer),
        *_texts("words"),
        Column("seconds", Float, nullable=False),
    )
    op.create_index("commitment_reports_of", "commitment_reports", ["commitment_key"])


def _make_peers_and_credentials() -> None:
    op.create_table(
        "peers",
        Column("peer_key", Integer, primary_key=True),
        *_texts("name", "definition", "changed_at", "changed_by"),
        UniqueConstraint("name", name="peers_name"),
    )
    op.create_table(
        "credentials",
        Column("credential_key", Integer, primary_key=True),
        *_texts("name"),
        Column("kind", Text, _one_of("kind", "token", "password"), nullable=False),
        Column("role", Text, _one_of("role", "read", "operate", "admin"), nullable=False),
        *_texts("secret_hash", "created_at", "created_by"),
        UniqueConstraint("name", name="credentials_name"),
    )
    op.create_table(
        "audit",
        Column("audit_key", Integer, primary_key=True),
        *_texts("at", "who", "action", "subject", "detail"),
    )
