"""What a C-STORE leaves behind once it is answered: nothing that piles up."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_services_storage import Conversation, association_request

from stowkeeper.archive import finisher as finisher_module
from stowkeeper.archive.archive import Archive
from stowkeeper.archive.intake import Incoming
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.services.storage import StoreInProgress
from stowkeeper.upperlayer.items import ProposedContext
from stowkeeper.upperlayer.negotiation import Accepted
from support.archive_server import open_archive, settle
from support.instances import make_instance

pytestmark = pytest.mark.slow


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
        things = gc.get_objects()
        left = [  # those of other tests may be about
            *(
                thing
                for thing in things
                if isinstance(thing, StoreInProgress) and thing._finisher is archive.finisher
            ),
            *(thing for thing in things if isinstance(thing, Incoming) and thing._intake is archive.intake),
        ]
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


@pytest.fixture
def away(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Return the archive with a database that cannot be written."""

    def refuse() -> None:
        raise DatabaseUnavailable("it is away")

    monkeypatch.setattr(archive.database, "write", refuse)
    return archive


def growth_of_each(do: Callable[[int], None], times: int) -> float:
    """Return how many bytes each call leaves behind."""
    do(0)  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, times + 1):
            do(number)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / times
    finally:
        tracemalloc.stop()


def test_a_line_of_a_request_is_small_whatever_its_peer_calls_a_uid(away: Archive) -> None:
    conversation = Conversation(away)

    def refuse(number: int) -> None:
        long = f"{number}" + "9" * 30_000
        conversation.send(make_instance(1), affected_sop_instance_uid=long, affected_sop_class_uid=long)

    assert growth_of_each(refuse, 50) < 2_000


def test_a_line_of_a_kept_instance_is_small(away: Archive) -> None:
    conversation = Conversation(away)
    for number in range(30):
        assert conversation.send(make_instance(number)).status == 0
    away.intake.stop()
    lines = [row.__self__ for row in away.finisher._rows if hasattr(row, "__self__")]
    assert len(lines) == 30
    held = {type(thing) for line in lines for thing in gc.get_referents(line)}
    assert [line for line in lines if line._answer is not None] == [], "it holds on to the whole association"
    assert not held & {
        Incoming,
        type(conversation.facts),
        type(conversation.service),
        type(conversation.begin),
    }


def test_the_lines_of_an_association_are_small_whatever_was_proposed(away: Archive) -> None:
    syntaxes = tuple(f"1.2.840.{number}" for number in range(128))
    conversation = Conversation(away)

    def come_and_go(number: int) -> None:
        request = association_request(
            presentation_contexts=tuple(
                ProposedContext(
                    context_id=2 * index + 1,
                    abstract_syntax=f"1.{number}.{'9' * 58}{index}",
                    transfer_syntaxes=(*(f"{uid}.{number}.{index}" for uid in syntaxes), "1.2.840.10008.1.2"),
                )
                for index in range(128)
            )
        )
        facts = Conversation(away).facts
        facts.request = request
        decision = conversation.service.negotiate(request, facts)
        assert isinstance(decision, Accepted)
        facts.results = decision.response.presentation_contexts
        conversation.service.association_opened(facts)
        facts.end = "aborted"
        conversation.service.association_closed(facts)

    assert growth_of_each(come_and_go, 20) < 20_000
