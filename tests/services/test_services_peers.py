"""The book of peers: who calls, how peers are written down, and what another process changes."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import insert, select, update
from structlog.testing import capture_logs

from stowkeeper.archive.audit import list_audit
from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.database.schema import peers as peers_table
from stowkeeper.services import peers
from stowkeeper.services.limits import PEER_ANSWERS_REMEMBERED
from stowkeeper.services.peers import (
    Peer,
    PeerBook,
    PeerDefinitionError,
    PeerExistsError,
    PeerNotFoundError,
    PeerReadOnlyError,
    PeersFullError,
    stored_peers,
)
from support.catalog_rows import open_database

SECONDS_MAX = 20.0


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path, sync=False)


def peer(name: str, ae_title: str | None = None, *networks: str, **more: Any) -> Peer:
    return Peer(name=name, ae_title=ae_title, addresses=tuple(map(ip_network, networks)), **more)


def called(name: str, ae_title: str, host: str, *networks: str) -> Peer:
    return peer(name, ae_title, *networks, host=host, port=104)


def name_of(found: Peer | None) -> str | None:
    return found and found.name


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does, with an end."""
    ended = threading.Event()
    timer = threading.Timer(SECONDS_MAX, ended.set)
    timer.start()
    try:
        while not condition():
            assert not ended.wait(0.01), "it did not come"
    finally:
        timer.cancel()


# Who calls.

CT_TWICE = [called("east", "CT", "10.0.0.1"), called("west", "CT", "10.0.0.2")]


@pytest.mark.parametrize(
    ("configured", "ae_title", "address", "name"),
    [
        ([peer("ct", "CT")], "CT", "192.0.2.1", "ct"),
        ([peer("ct", "CT")], "ct", "192.0.2.1", None),
        ([peer("ct", "CT", "10.0.0.0/24")], "CT", "10.0.0.200", "ct"),
        ([peer("ct", "CT", "10.0.0.0/24")], "CT", "10.0.1.1", None),
        ([peer("ward", None, "10.0.0.0/24")], "ANY", "10.0.0.3", "ward"),
        ([peer("ct", "CT", "10.0.0.0/24")], "CT", "::ffff:10.0.0.3", "ct"),
        ([peer("ct", "CT", "fe80::/10")], "CT", "fe80::1%eth0", "ct"),
        ([peer("ct", "CT", "10.0.0.0/24")], "CT", "no address", None),
        # The first of the settings that matches holds …
        ([peer("narrow", "CT", "10.0.0.1"), peer("wide", "CT")], "CT", "10.0.0.1", "narrow"),
        ([peer("wide", "CT"), peer("narrow", "CT", "10.0.0.1")], "CT", "10.0.0.1", "wide"),
        # … unless one of them is called at this very address.
        (CT_TWICE, "CT", "10.0.0.1", "east"),
        (CT_TWICE, "CT", "10.0.0.2", "west"),
        (CT_TWICE, "CT", "::ffff:10.0.0.2", "west"),
        (CT_TWICE, "CT", "10.0.0.3", "east"),
        ([peer("wide", None, "10.0.0.0/8"), CT_TWICE[1]], "CT", "10.0.0.2", "west"),
        # Of a name nothing is known: it is not looked up, and neither chosen nor passed over for what it may be.
        ([called("named", "CT", "localhost"), called("west", "CT", "10.0.0.2")], "CT", "127.0.0.1", "named"),
        ([called("named", "CT", "localhost"), called("west", "CT", "10.0.0.2")], "CT", "10.0.0.2", "west"),
        ([called("west", "CT", "10.0.0.2"), called("named", "CT", "localhost")], "CT", "127.0.0.1", "named"),
        # An address that is admitted is not passed over for the one that it is called at.
        ([called("two", "CT", "10.0.0.2", "10.0.0.0/8"), peer("wide", "CT")], "CT", "10.0.0.9", "two"),
    ],
)
def test_who_calls_is_told_by_ae_title_and_address(
    database: Database, configured: list[Peer], ae_title: str, address: str, name: str | None
) -> None:
    book = PeerBook(configured, database)
    assert name_of(book.matching(ae_title, address)) == name
    stored = PeerBook([], database)
    for one in configured:
        stored.save(one, "tester")
    assert name_of(stored.matching(ae_title, address)) == name


def test_a_name_is_never_looked_up_to_tell_who_calls(database: Database) -> None:
    book = PeerBook([called("named", "CT", "pacs.example"), called("other", "CT", "10.0.0.1")], database)
    with patch("socket.getaddrinfo", side_effect=AssertionError("it was looked up")):
        assert name_of(book.matching("CT", "10.0.0.1")) == "other"
        assert name_of(book.matching("CT", "10.0.0.2")) == "named"


def test_what_the_settings_say_goes_before_the_database(database: Database) -> None:
    book = PeerBook([peer("ward", None, "10.0.0.0/24")], database)
    book.save(called("ct", "CT", "10.0.0.1"), "tester")
    assert name_of(book.matching("CT", "10.0.0.1")) == "ward"
    assert name_of(book.matching("CT", "10.9.0.1")) == "ct"


def test_callers_that_make_up_names_cost_no_memory(database: Database) -> None:
    book = PeerBook([peer("ct", "CT")], database)
    for number in range(PEER_ANSWERS_REMEMBERED * 3):
        assert book.matching(f"X{number}", "10.0.0.1") is None
    assert len(book._page.answers) <= PEER_ANSWERS_REMEMBERED
    assert name_of(book.matching("CT", "10.0.0.1")) == "ct"


def test_who_calls_is_answered_without_the_database(database: Database) -> None:
    book = PeerBook([], database)
    book.save(peer("ct", "CT"), "tester")
    database.close()
    assert name_of(book.matching("CT", "10.0.0.1")) == "ct"


# Changing.


def test_a_peer_is_added_changed_and_removed(database: Database) -> None:
    book = PeerBook([], database)
    assert book.matching("CT", "10.0.0.1") is None
    assert book.save(peer("ct", "CT"), "anna") is True
    assert name_of(book.matching("CT", "10.0.0.1")) == "ct"
    assert book.save(peer("ct", "CT", may_store=False, host="10.0.0.1", port=104), "bert") is False
    found = book.matching("CT", "10.0.0.1")
    assert found is not None
    assert not found.may_store
    assert not found.is_read_only
    assert book.find("ct") == found
    book.discard("ct", "carl")
    assert book.matching("CT", "10.0.0.1") is None
    assert book.find("ct") is None
    with database.read() as connection:
        trail = [(entry.who, entry.action, entry.subject, entry.detail) for entry in list_audit(connection)]
    assert trail == [
        ("carl", "peer removed", "ct", ""),
        ("bert", "peer changed", "ct", "CT@10.0.0.1:104"),
        ("anna", "peer added", "ct", ""),
    ]


def test_a_change_that_is_rolled_back_changes_nothing(database: Database) -> None:
    book = PeerBook([], database)

    def fail_afterwards() -> None:
        with database.write() as transaction:
            book.put(transaction, peer("ct", "CT"), "anna")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_afterwards()
    book.refresh()
    assert book.all() == []
    with database.read() as connection:
        assert list_audit(connection) == []


def test_nobody_changes_a_peer_between_the_look_at_it_and_its_change(
    database: Database, elsewhere: PeerBook
) -> None:
    book = PeerBook([], database)
    book.save(called("one", "OLD", "10.0.0.1"), "a test")
    elsewhere.save(called("one", "NEW", "10.0.0.2"), "somebody")

    def changed(known: Peer | None) -> Peer:
        assert known is not None
        other = sqlite3.connect(database.path, timeout=0)
        with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        return replace(known, duplicates="refuse")

    book.change("one", changed, "a test")
    found = book.find("one")
    assert found is not None
    assert (found.ae_title, found.host, found.duplicates) == ("NEW", "10.0.0.2", "refuse")


def test_a_change_that_is_refused_changes_nothing(database: Database) -> None:
    book = PeerBook([], database)

    def refused(known: Peer | None) -> Peer:
        assert known is None
        raise PeerDefinitionError([("port", "is none")])

    with pytest.raises(PeerDefinitionError):
        book.change("one", refused, "a test")
    assert book.all() == []


def test_peers_of_the_settings_cannot_be_changed(database: Database) -> None:
    book = PeerBook([peer("ct", "CT")], database)
    (found,) = book.all()
    assert found.is_read_only
    with pytest.raises(PeerReadOnlyError, match="'ct' stands in the settings file"):
        book.save(peer("ct", "OTHER"), "anna")
    with pytest.raises(PeerReadOnlyError):
        book.discard("ct", "anna")
    with pytest.raises(PeerNotFoundError, match="no peer 'mr'"):
        book.discard("mr", "anna")


def test_a_name_that_the_settings_take_hides_the_one_of_the_database(database: Database) -> None:
    book = PeerBook([], database)
    book.save(peer("ct", "OLD"), "anna")
    book.save(peer("mr", "MR"), "anna")
    book.replace_configured([peer("ct", "NEW")])
    assert [(one.name, one.ae_title, one.is_read_only) for one in book.all()] == [
        ("ct", "NEW", True),
        ("mr", "MR", False),
    ]
    assert book.matching("OLD", "10.0.0.1") is None
    book.replace_configured([])
    assert name_of(book.matching("OLD", "10.0.0.1")) == "ct"


def test_a_peer_that_is_to_be_added_changes_none(database: Database) -> None:
    book = PeerBook([], database)
    assert book.save(peer("ct", "CT"), "anna", may_replace=False) is True
    with pytest.raises(PeerExistsError, match="there is a peer 'ct' already"):
        book.save(peer("ct", "OTHER"), "anna", may_replace=False)
    assert [one.ae_title for one in book.all()] == ["CT"]
    with database.read() as connection:
        assert len(list_audit(connection)) == 1


def test_there_is_a_bound_to_the_number_of_peers(database: Database) -> None:
    book = PeerBook([], database)
    with patch.object(peers, "PEERS_MAX", 2):
        book.save(peer("a", "A"), "anna")
        book.save(peer("b", "B"), "anna")
        with pytest.raises(PeersFullError, match="there are 2 peers"):
            book.save(peer("c", "C"), "anna")
        assert book.save(peer("b", "C"), "anna") is False
    assert [one.name for one in book.all()] == ["a", "b"]


# Other processes and threads.


@pytest.fixture
def elsewhere(tmp_path: Path, database: Database) -> Iterator[PeerBook]:
    """The book of another process on the same archive."""
    with open_database(tmp_path, sync=False) as other:
        yield PeerBook([], other)


@pytest.mark.slow
def test_what_another_process_changed_is_noted_by_itself(database: Database, elsewhere: PeerBook) -> None:
    book = PeerBook([], database)
    with patch.object(peers, "PEERS_LOOK_SECONDS", 0.01):
        book.start()
    try:
        elsewhere.save(peer("ct", "CT"), "anna")
        wait_until(lambda: book.matching("CT", "10.0.0.1"))
        elsewhere.save(peer("ct", "MR"), "anna")
        wait_until(lambda: book.matching("CT", "10.0.0.1") is None)
        elsewhere.discard("ct", "anna")
        wait_until(lambda: book.matching("MR", "10.0.0.1") is None)
    finally:
        book.close()
        book.close()


def test_asking_for_all_looks_at_what_another_process_changed(
    database: Database, elsewhere: PeerBook
) -> None:
    book = PeerBook([], database)
    elsewhere.save(peer("ct", "CT"), "anna")
    assert book.find("ct") is not None
    assert name_of(book.matching("CT", "10.0.0.1")) == "ct"


def test_a_database_that_cannot_be_read_leaves_the_book_as_it_is_and_is_told_once(database: Database) -> None:
    book = PeerBook([], database)
    book.save(peer("ct", "CT"), "anna")
    looks = 0

    def fail(_: Any) -> Any:
        nonlocal looks
        looks += 1
        raise DatabaseUnavailable("it is busy")

    with capture_logs() as logs, patch.object(peers, "PEERS_LOOK_SECONDS", 0.001):
        with patch.object(peers, "_rows", fail):
            book.start()
            wait_until(lambda: looks > 5)
        wait_until(lambda: not book._closing.is_set() and book._last_look > looks + 2)
        book.close()
    assert [line["reason"] for line in logs] == ["it is busy"]
    assert name_of(book.matching("CT", "10.0.0.1")) == "ct"
    with patch.object(peers, "_rows", fail), pytest.raises(DatabaseUnavailable):
        book.all()


def test_an_earlier_look_that_comes_late_undoes_nothing(database: Database) -> None:
    book = PeerBook([], database)
    has_read, may_go_on = threading.Event(), threading.Event()
    rows = peers._rows

    def slow(connection: Any) -> Any:
        found = rows(connection)
        if threading.current_thread() is not threading.main_thread():
            has_read.set()
            assert may_go_on.wait(SECONDS_MAX)
        return found

    with patch.object(peers, "_rows", slow), ThreadPoolExecutor(1) as pool:
        late = pool.submit(book.refresh)
        assert has_read.wait(SECONDS_MAX)
        book.save(peer("ct", "CT"), "anna")
        may_go_on.set()
        late.result()
    assert name_of(book.matching("CT", "10.0.0.1")) == "ct"


def test_a_definition_that_cannot_be_read_is_left_out_and_logged(database: Database) -> None:
    book = PeerBook([], database)
    book.save(peer("ct", "CT"), "anna")
    book.save(peer("mr", "MR"), "anna")
    book.save(peer("us", "US"), "anna")
    with database.write() as transaction:
        for name, text in (("ct", "{"), ("us", '{"ae_title": "US", "from_the_future": 1}')):
            transaction.execute(update(peers_table).where(peers_table.c.name == name).values(definition=text))
    with capture_logs() as logs:
        assert [one.name for one in book.all()] == ["mr"]
        assert [one.name for one in book.all()] == ["mr"]
    assert [line["peer"] for line in logs] == ["ct", "us"]  # once, not with every look


def test_a_definition_without_later_keys_has_their_defaults(database: Database) -> None:
    with database.write() as transaction:
        transaction.execute(
            insert(peers_table).values(
                name="old", definition='{"ae_title": "CT"}', changed_at="", changed_by=""
            )
        )
    with database.read() as connection:
        assert stored_peers(connection) == (Peer(name="old", ae_title="CT"),)


# JSON.

FULL = Peer(
    name="PACS 1",
    ae_title="PACS",
    addresses=(ip_network("10.0.0.0/8"), ip_network("fd00::1")),
    host="pacs.example",
    port=11112,
    own_ae_title="US",
    tls=True,
    may_echo=False,
    may_store=False,
    may_request_commitment=False,
    may_report_commitment=False,
    report_on="same-first",
    connect_seconds=1.5,
    answer_seconds=2.0,
    manufacturer="Müller & Söhne",
    duplicates="refuse",
)


def test_a_peer_is_the_same_after_a_way_through_json_and_the_database(database: Database) -> None:
    for one in (FULL, Peer(name="least", ae_title="A")):
        assert Peer.from_json(json.loads(json.dumps(one.to_json()))) == one
        PeerBook([], database).save(one, "anna")
        assert PeerBook([], database).find(one.name) == one
    assert all(getattr(FULL, name) != getattr(Peer(name="x"), name) for name in FULL.to_json())
    with database.read() as connection:
        definition = connection.execute(select(peers_table.c.definition)).scalars().first()
    assert definition is not None
    assert json.loads(definition)["addresses"] == ["10.0.0.0/8", "fd00::1/128"]


def test_a_peer_says_where_it_is_called() -> None:
    assert FULL.where == "PACS@pacs.example:11112"
    assert replace(FULL, host="fd00::1").where == "PACS@[fd00::1]:11112"
    assert Peer.from_json({"name": "a", "ae_title": "A", "host": "[fd00::1]", "port": 104}).host == "fd00::1"
    assert FULL.is_reachable
    assert not peer("caller", "CT").is_reachable
    assert peer("caller", "CT").where == ""


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ([], {"": "a peer is an object with keys such as name, ae_title"}),
        (None, {"": "a peer is an object"}),
        ({}, {"name": "it must be given"}),
        ({"name": "a"}, {"": "a peer needs ae_title, addresses, or both"}),
        ({"name": ""}, {"name": "1 to 64 printable"}),
        ({"name": "x" * 65, "ae_title": "A"}, {"name": "1 to 64 printable"}),
        ({"name": "a\n", "ae_title": "A"}, {"name": "1 to 64 printable"}),
        ({"name": 5, "ae_title": "A"}, {"name": "it must be a text"}),
        ({"name": "a", "ae_title": "x" * 17}, {"ae_title": "17 characters, 16 are allowed"}),
        ({"name": "a", "ae_title": "a\\b"}, {"ae_title": "backslash"}),
        ({"name": "a", "ae_title": ""}, {"ae_title": "it is empty"}),
        ({"name": "a", "ae_title": "A", "own_ae_title": " "}, {"own_ae_title": "it is empty"}),
        ({"name": "a", "addresses": "10.0.0.1"}, {"addresses": "a list of at most"}),
        ({"name": "a", "addresses": [1]}, {"addresses": "neither an IP address nor a network"}),
        ({"name": "a", "addresses": ["10.0.0.1/8"]}, {"addresses": 'did you mean "10.0.0.0/8"?'}),
        ({"name": "a", "addresses": ["10.0.0.1"] * 1001}, {"addresses": "at most 1000"}),
        ({"name": "a", "ae_title": "A", "host": "h"}, {"port": "host is of no use without port"}),
        ({"name": "a", "ae_title": "A", "port": 104}, {"host": "port is of no use without host"}),
        ({"name": "a", "addresses": ["::1"], "host": "h", "port": 104}, {"ae_title": "so it needs one"}),
        ({"name": "a", "ae_title": "A", "host": "h:104", "port": 1}, {"host": "neither an IP address"}),
        ({"name": "a", "ae_title": "A", "host": "h i", "port": 1}, {"host": "neither an IP address"}),
        ({"name": "a", "ae_title": "A", "host": "h", "port": 0}, {"port": "from 1 to 65535"}),
        ({"name": "a", "ae_title": "A", "host": "h", "port": True}, {"port": "from 1 to 65535"}),
        ({"name": "a", "ae_title": "A", "host": "h", "port": "104"}, {"port": "from 1 to 65535"}),
        ({"name": "a", "ae_title": "A", "tls": 1}, {"tls": "true or false"}),
        ({"name": "a", "ae_title": "A", "may_store": "no"}, {"may_store": "true or false"}),
        ({"name": "a", "ae_title": "A", "report_on": "same"}, {"report_on": "one of new, same-first"}),
        ({"name": "a", "ae_title": "A", "duplicates": []}, {"duplicates": "one of keep, replace, refuse"}),
        ({"name": "a", "ae_title": "A", "connect_seconds": 0}, {"connect_seconds": "from 0.1 to 3600"}),
        ({"name": "a", "ae_title": "A", "answer_seconds": float("nan")}, {"answer_seconds": "from 0.1 to"}),
        ({"name": "a", "ae_title": "A", "answer_seconds": True}, {"answer_seconds": "from 0.1 to"}),
        ({"name": "a", "ae_title": "A", "manufacturer": "x" * 65}, {"manufacturer": "at most 64"}),
        ({"name": "a", "ae_title": "A", "profile": "p"}, {"profile": "profiles stand in the settings file"}),
        ({"name": "a", "ae_title": "A", "is_read_only": True}, {"is_read_only": "there is no such key"}),
        ({"name": 5, "tls": 5, "x": 5}, {"name": "a text", "tls": "true or false", "x": "no such key"}),
    ],
)
def test_what_is_wrong_with_a_definition_is_said_by_key(value: object, problems: dict[str, str]) -> None:
    with pytest.raises(PeerDefinitionError) as raised:
        Peer.from_json(value)
    found = dict(raised.value.problems)
    assert found.keys() == problems.keys()
    for key, words in problems.items():
        assert words in found[key]
        assert words in str(raised.value)
