"""Which of several versions a request is about: whose they are, and which came last, whatever clocks and AE titles say."""

import time
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from stowkeeper.archive.removal import Removal, RemovalPlan
from stowkeeper.archive.versions import find_versions
from support.commitment_server import commitment_serving, peer_at, seconds_ago
from support.commitment_user import named, using

UID = "1.2.840.1"
HOST, ELSEWHERE = "127.0.0.1", "127.0.0.2"
pytestmark = pytest.mark.peer("pynetdicom")


@pytest.fixture
def user():
    with using() as made:
        yield made


@pytest.fixture
def server(tmp_path, user):
    with commitment_serving(tmp_path / "archive", user.peer()) as running:
        yield running


def asked(server, user, references):
    """Ask, and return the report that comes of it."""
    assert user.ask(server.port, UID, references) == 0
    return user.wait_for_reports(1)[-1]


@contextmanager
def clocks_set_back(server, seconds):
    """Let the clock by which instances are received and rows are written be behind."""
    real = time.time_ns
    with (
        patch("stowkeeper.archive.intake.time.time_ns", lambda: real() - seconds * 1_000_000_000),
        patch.object(server.database, "_clock", lambda: seconds_ago(seconds)),
    ):
        yield


def versions_of(server, number):
    with server.database.read() as connection:
        return find_versions(connection, [f"1.2.3.{number}"])[f"1.2.3.{number}"]


@pytest.mark.slow
def test_what_the_peer_sent_last_is_committed_though_the_clock_was_set_back(server, user):
    server.keep(1)
    with clocks_set_back(server, 3600):
        server.keep(1, content=1)
    sent_last = max(versions_of(server, 1), key=lambda version: version.version_key)
    assert sent_last.received_at < min(version.received_at for version in versions_of(server, 1)[:-1])
    assert asked(server, user, named(1)).event_type == 1
    assert [(one.version_key == sent_last.version_key, one.is_held) for one in versions_of(server, 1)] == [
        (False, False),
        (True, True),
    ]


@pytest.mark.slow
def test_peers_of_one_ae_title_are_told_apart_by_their_addresses(tmp_path, user):
    twin = peer_at(1, "twin", host=ELSEWHERE)
    with commitment_serving(tmp_path / "archive", twin, user.peer(host=HOST)) as server:
        server.keep(1, source=HOST)
        server.keep(1, source=ELSEWHERE, content=1)
        assert asked(server, user, named(1)).event_type == 1
        assert [one.is_held for one in versions_of(server, 1)] == [True, False]
        # Its own bytes are there, and others are promised to its namesake.
        server.request("1.2.840.2", source=ELSEWHERE)
        server.wait(lambda: server.commitment("1.2.840.2").checked_at, "the check")
        (instance,) = server.instances("1.2.840.2")
        assert (instance.reason, instance.words) == (
            0x0110,
            "another version of it is committed to SCANNER, of the peer scanner",
        )


@pytest.mark.slow
def test_a_stranger_who_takes_the_ae_title_of_a_peer_does_not_speak_for_it(tmp_path, user):
    with commitment_serving(tmp_path / "archive", user.peer(host=HOST)) as server:
        server.keep(1, source=HOST)
        server.keep(1, source=ELSEWHERE, content=1)
        report = asked(server, user, named(1))
        assert report.failed == {named(1)[0]: 0x0110}
        assert "from several addresses" in server.instances(UID)[0].words


@pytest.mark.slow
def test_what_was_removed_is_not_what_others_sent_under_its_uid(server, user):
    server.keep(1, calling=b"OTHER")
    server.keep(1, content=1)
    archive = server.archive
    own = versions_of(server, 1)[-1].version_key
    removal = Removal(archive.files, archive.root, archive.database)
    assert removal.carry_out(RemovalPlan(uid="1.2.3.1", kept=[own]), "a wish").removed == 1
    assert asked(server, user, named(1)).failed == {named(1)[0]: 0x0112}
    assert not any(version.is_held for version in versions_of(server, 1))
