"""What a C-STORE leaves behind once it is answered: nothing that piles up."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_services_storage import Conversation

from stowkeeper.archive import finisher as finisher_module
from stowkeeper.archive.archive import Archive
from stowkeeper.archive.intake import Incoming
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.services.storage import StoreInProgress
from support.archive_server import open_archive, settle
from support.instances import make_instance


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "archive")
    yield opened
    opened.close()


@contextmanager
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_an_answered_instance_leaves_no_reference_cycle(archive: Archive) -> None:
    conversation = Conversation(archive)
    with no_collections():
        for number in range(20):
            assert conversation.send(make_instance(number)).status == 0
        settle(archive)
        left = [thing for thing in gc.get_objects() if isinstance(thing, StoreInProgress | Incoming)]
    assert len(left) <= archive.options.worker_threads < 20  # each worker still names its last one


def test_lines_of_the_ledger_are_bounded_while_the_database_is_away(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finisher_module, "LEDGER_ROWS_MAX", 10)

    def refuse() -> None:
        raise DatabaseUnavailable("it is away")

    monkeypatch.setattr(archive.database, "write", refuse)
    conversation = Conversation(archive)
    for _ in range(30):
        conversation.send(make_instance(1), affected_sop_instance_uid="not a UID")
    assert len(archive.finisher._rows) <= 10
    assert archive.finisher._rows_lost > 0
