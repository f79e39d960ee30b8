"""The audit trail keeps its lines in order, and gives them back from the newest on."""

from pathlib import Path

import pytest

from stowkeeper.archive import audit
from support.catalog_rows import open_database


def test_lines_are_given_back_the_newest_first_and_page_by_page(tmp_path: Path) -> None:
    with open_database(tmp_path, sync=False) as database:
        for number in range(5):
            with database.write() as transaction:
                audit.note(transaction, "anna", "job cancelled", f"job {number}", "by the night shift")
                at = transaction.at
        with database.read() as connection:
            newest = audit.list_audit(connection, limit=2)
            rest = audit.list_audit(connection, newest[-1].audit_key, limit=10)
    assert [entry.subject for entry in newest + rest] == [f"job {number}" for number in (4, 3, 2, 1, 0)]
    first = newest[0]
    assert (first.at, first.who, first.action, first.detail) == (
        at,
        "anna",
        "job cancelled",
        "by the night shift",
    )


def test_a_line_of_a_transaction_that_failed_was_never_written(tmp_path: Path) -> None:
    class FailedError(Exception):
        pass

    def fail() -> None:
        with database.write() as transaction:
            audit.note(transaction, "anna", "hold overridden", "1.2.3")
            raise FailedError

    with open_database(tmp_path, sync=False) as database:
        with pytest.raises(FailedError):
            fail()
        with database.read() as connection:
            assert audit.list_audit(connection) == []


def test_many_lines_of_one_deed_share_their_time(tmp_path: Path) -> None:
    with open_database(tmp_path, sync=False) as database:
        with database.write() as transaction:
            audit.note_all(transaction, "anna", "hold overridden", [("1.2", "a"), ("1.3", "b")])
            audit.note_all(transaction, "anna", "hold overridden", [])
        with database.read() as connection:
            entries = audit.list_audit(connection)
    assert [(entry.subject, entry.detail) for entry in entries] == [("1.3", "b"), ("1.2", "a")]
    assert len({entry.at for entry in entries}) == 1
