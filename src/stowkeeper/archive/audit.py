"""The audit trail: who did by hand what no policy does, in the transaction that did it.

Rows are never changed or deleted. Nothing in them is patient data or a secret.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from stowkeeper.database import schema
from stowkeeper.database.engine import Transaction
from stowkeeper.database.limits import ROWS_PER_PAGE

_AUDIT = schema.audit


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One deed. `at` is UTC in ISO 8601; `audit_key` grows, and is the cursor of `list_audit`."""

    audit_key: int
    at: str
    who: str
    action: str
    subject: str
    detail: str


def note(transaction: Transaction, who: str, action: str, subject: str, detail: str = "") -> None:
    """Write one line: `who` (a credential, or the user of a command) did `action` to `subject`."""
    note_all(transaction, who, action, [(subject, detail)])


def note_all(transaction: Transaction, who: str, action: str, deeds: Iterable[tuple[str, str]]) -> None:
    """Write a line for each subject and detail of one action."""
    rows = [
        {"at": transaction.at, "who": who, "action": action, "subject": subject, "detail": detail}
        for subject, detail in deeds
    ]
    if rows:
        transaction.execute(insert(_AUDIT), rows)


def list_audit(
    connection: Connection, before_key: int | None = None, limit: int = ROWS_PER_PAGE
) -> list[AuditEntry]:
    """Return the newest lines, newest first; those before `before_key` where it is given."""
    query = select(_AUDIT).order_by(_AUDIT.c.audit_key.desc()).limit(limit)
    if before_key is not None:
        query = query.where(_AUDIT.c.audit_key < before_key)
    return [AuditEntry(**row) for row in connection.execute(query).mappings()]
