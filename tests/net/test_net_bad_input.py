"""Bad input, on the real server and archive: each gets its answer, a word in log or ledger, and harms nobody else."""

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stowkeeper.dicom import header
from support.archive_server import (
    ArchiveServer,
    archive_serving,
    associations,
    data_set_of,
    depot_leftovers,
    instances,
    requests,
    settle,
)
from support.hostile import (
    CONTEXT,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    REQUEST,
    SOME_DATA,
    TWO_CONTEXTS,
    Hostile,
    bad_data_sets,
    bomb,
    identifiers,
    in_an_association,
    in_place_of_a_request,
    interleaved,
    nested,
)
from support.instances import make_instance
from support.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    VERIFICATION,
    Context,
    RawPeer,
    command_set,
    echo_command,
    p_data,
    store_message,
)

ORDINARY = make_instance(1, size=60_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveServer]:
    """Serve one archive to all tests of this file, with an instance kept before the first of them."""
    with archive_serving(tmp_path_factory.mktemp("archive") / "archive") as running:
        with RawPeer(running.port) as peer:
            peer.associate()
            assert peer.store(ORDINARY.sop_instance_uid, ORDINARY.data).status == 0
        yield running


@pytest.fixture(autouse=True)
def bystander(server: ArchiveServer) -> Iterator[None]:
    """Hold an association with half an instance open meanwhile: it ends well, and nothing kept is lost."""
    message = store_message(1, ORDINARY.sop_instance_uid, ORDINARY.data)
    with RawPeer(server.port) as peer:
        peer.associate(calling=b"BYSTANDER")
        peer.send(message[:30_000])
        yield
        peer.send(message[30_000:])
        assert peer.read_answer().status == 0
        assert peer.echo().status == 0
        peer.release()
    server.thread.wait_until_empty()
    kept = {row["sop_instance_uid"]: row for row in instances(server.archive)}
    assert data_set_of(server.archive, kept[ORDINARY.sop_instance_uid]) == ORDINARY.data
    assert "1.2.3" not in kept
    assert depot_leftovers(server.archive) == []


def last_association(server: ArchiveServer, calling_ae_title: str = "RAWPEER") -> dict[str, Any]:
    """Return the ledger's line of the association that ended last, of those that are not the bystander's."""
    server.thread.wait_until(lambda: server.thread.server.connections <= 1)
    return [row for row in associations(server.archive) if row["calling_ae_title"] == calling_ae_title][-1]


@contextlib.contextmanager
def associated(server: ArchiveServer, *contexts: Context) -> Iterator[RawPeer]:
    """Give a peer with an accepted association."""
    with RawPeer(server.port) as peer:
        assert peer.associate(*contexts).kind == ASSOCIATE_AC
        yield peer


def named(hostile: Hostile) -> str:
    return hostile.name


# Truncated, oversized, interleaved, reordered, garbage PDUs, and forged lengths


@pytest.mark.parametrize("hostile", list(in_place_of_a_request()), ids=named)
def test_what_comes_in_place_of_a_request(server: ArchiveServer, hostile: Hostile) -> None:
    with capture_logs() as logs, RawPeer(server.port) as peer:
        peer.send(hostile.data)
        answer = peer.read_pdu()
        assert (answer.kind, answer.reasons) == (hostile.answer, hostile.reasons)
        peer.close()
        server.thread.wait_until(lambda: server.thread.server.connections == 1)
    said = [line for line in logs if re.search(hostile.why, line.get("why", ""))]
    assert said, logs
    assert {line["what"] for line in said} == {"rejected" if hostile.answer == ASSOCIATE_RJ else "aborted"}


@pytest.mark.parametrize("hostile", list(in_an_association()), ids=named)
def test_what_breaks_the_rules_in_an_association(server: ArchiveServer, hostile: Hostile) -> None:
    with associated(server, CONTEXT) as peer:
        peer.send(hostile.data)
        answer = peer.read_pdu()
        assert (answer.kind, answer.reasons) == (hostile.answer, hostile.reasons)
    row = last_association(server)
    assert row["ended"] == "aborted"
    assert hostile.why in row["words"]


@pytest.mark.parametrize("hostile", list(interleaved()), ids=named)
def test_messages_that_run_into_each_other(server: ArchiveServer, hostile: Hostile) -> None:
    with associated(server, *TWO_CONTEXTS) as peer:
        peer.send(hostile.data)
        answer = peer.read_pdu()
        assert (answer.kind, answer.reasons) == (hostile.answer, hostile.reasons)
    row = last_association(server)
    assert (row["ended"], hostile.why in row["words"]) == ("aborted", True)


@pytest.mark.parametrize("cut", [1, 5, 6, 50, 120, len(REQUEST) - 1])
def test_a_request_that_stops_is_waited_for_as_long_as_artim_runs(server: ArchiveServer, cut: int) -> None:
    with capture_logs() as logs, RawPeer(server.port) as peer:
        peer.send(REQUEST[:cut])
        server.thread.wait_until(
            lambda: cut in [p.facts.bytes_received for p in server.thread.protocols_now if p.facts]
        )
        server.thread.call(lambda: tick_those_without_association(server, 31.0))
        assert peer.read_to_end() == []
        server.thread.wait_until(lambda: server.thread.server.connections == 1)
    assert "no association request came in time" in [line.get("why") for line in logs]


def tick_those_without_association(server: ArchiveServer, seconds: float) -> None:
    """Let time pass for all but the bystander."""
    for protocol in server.thread.protocols_now:
        if protocol.facts is not None and protocol.facts.calling_ae_title != "BYSTANDER":
            protocol.tick(server.thread.server.loop.time() + seconds)


@pytest.mark.parametrize("cut", [3, 9, 30, 300, 20_000])
def test_a_peer_that_stops_in_the_middle_is_aborted(server: ArchiveServer, cut: int) -> None:
    with associated(server, CONTEXT) as peer:
        peer.send(store_message(1, "1.2.3", identifiers("1.2.3") + SOME_DATA)[:cut])
        server.thread.wait_until(lambda: all(p._is_mid_message for p in server.thread.protocols_now))
        server.thread.call(lambda: tick_those_without_association(server, 61.0))
        assert peer.read_pdu().kind == ABORT
    row = last_association(server)
    assert (row["ended"], row["words"]) == ("aborted", "a message made no progress for 60 seconds")
    if cut >= 300:
        (line,) = requests(server.archive, row["association_id"])
        assert (line.outcome, line.status, line.error_comment) == ("lost", None, row["words"])


@pytest.mark.slow
def test_a_peer_that_never_reads_is_cut_off(server: ArchiveServer) -> None:
    with RawPeer(server.port, receive_buffer=4096) as peer:
        peer.associate()
        (protocol,) = (
            p for p in server.thread.protocols if p.facts and p.facts.calling_ae_title == "RAWPEER"
        )
        server.thread.call(lambda: protocol._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096))
        echoes = p_data(3, echo_command(), control=COMMAND | LAST) * 1000
        peer.send_until(echoes, lambda: not protocol._reading)
        server.thread.call(lambda: tick_those_without_association(server, 61.0))
    row = last_association(server)
    assert (row["ended"], row["words"]) == ("aborted", "the peer read no answer for 60 seconds")


# C-STORE requests that cannot be kept


@pytest.mark.parametrize("uid", [None, "", "1." + "2" * 63, "1.2.a", "../../../etc", "1.2.3\\4.5"])
def test_an_unusable_instance_uid(server: ArchiveServer, uid: str | None) -> None:
    with associated(server) as peer:
        answer = peer.store(uid, ORDINARY.data)
        assert (answer.status, answer.offending) == (0x0117, [0x00001000])
        assert answer.comment
        assert peer.echo().status == 0
    row = last_association(server)
    assert row["requests_refused"] == 1
    (line,) = requests(server.archive, row["association_id"])
    assert (line.status, line.error_comment) == (0x0117, answer.comment)


def test_a_malformed_instance_uid_is_kept(server: ArchiveServer) -> None:
    for uid in ("1.02.3", "1..3", "..", "00"):
        with associated(server) as peer:
            assert peer.store(uid, identifiers(uid)).status == 0
    kept = {row["sop_instance_uid"]: row["path"] for row in instances(server.archive)}
    root = Path(server.archive.root).resolve() / "objects"
    for uid in ("1.02.3", "1..3", "..", "00"):
        assert Path(server.archive.path_of(kept[uid])).resolve().is_relative_to(root)


@pytest.mark.parametrize("uid", [None, "", "1.2.x", VERIFICATION, "1.2.840.10008.5.1.4.1.2.2.1"])
def test_a_class_that_is_not_accepted(server: ArchiveServer, uid: str | None) -> None:
    with associated(server) as peer:
        answer = peer.store("1.2.3", ORDINARY.data, sop_class_uid=uid)
        assert (answer.status, answer.offending) == (0x0122, [0x00000002])
        assert answer.comment
        assert peer.echo().status == 0
    assert last_association(server)["requests_refused"] == 1


@pytest.mark.parametrize(
    ("uid", "sop_class_uid", "tag"),
    [("1.2.9", CT_IMAGE_STORAGE, 0x00080018), ("1.2.3", "1.2.840.10008.5.1.4.1.1.4", 0x00080016)],
)
def test_a_command_that_differs_from_its_data_set(
    server: ArchiveServer, uid: str, sop_class_uid: str, tag: int
) -> None:
    with associated(server) as peer:
        answer = peer.store(uid, identifiers("1.2.3"), sop_class_uid=sop_class_uid)
        assert (answer.status, answer.offending) == (0xA900, [tag])
        assert answer.comment
        assert peer.echo().status == 0
    assert last_association(server)["requests_refused"] == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [(d, w) for _, d, w in bad_data_sets("1.2.3")],
    ids=[n for n, _, _ in bad_data_sets("1.2.3")],
)
def test_a_data_set_that_does_not_parse_to_its_end(server: ArchiveServer, data: bytes, why: str) -> None:
    with associated(server) as peer:
        answer = peer.store("1.2.3", data)
        assert answer.status == 0xC000
        assert answer.comment
        assert peer.echo().status == 0
    row = last_association(server)
    (line,) = requests(server.archive, row["association_id"])
    assert (line.status, line.outcome, line.data_set_length) == (0xC000, "refused", len(data))
    assert why in line.error_comment


def test_sequences_as_deep_as_real_ones_are_kept(server: ArchiveServer) -> None:
    uid = "1.2.64"
    with associated(server) as peer:
        assert peer.store(uid, identifiers(uid) + nested(60, closed=True)).status == 0


def test_deflated_data_sets_are_bounded(server: ArchiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header.HeaderScanner.__init__, "__kwdefaults__", {"inflated_bytes_max": 4 << 20})
    context = Context(
        context_id=1,
        abstract_syntax=CT_IMAGE_STORAGE,
        transfer_syntaxes=(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,),
    )
    with associated(server, context) as peer:
        assert peer.store("1.2.65", bomb("1.2.65", 2 << 20)).status == 0
        answer = peer.store("1.2.3", bomb("1.2.3", 16 << 20))
        assert (answer.status, "inflates to more than" in answer.comment) == (0xC000, True)
        assert peer.store("1.2.3", bomb("1.2.3", 1 << 20)[:-20]).status == 0xC000
        assert peer.store("1.2.3", bomb("1.2.3", 1 << 20) + b"more bytes").status == 0xC000
        assert peer.store("1.2.3", SOME_DATA).status == 0xC000


def test_commands_nobody_performs(server: ArchiveServer) -> None:
    with associated(server) as peer:
        for field in (0x0010, 0x0020, 0x0021, 0x0100, 0x0130, 0x0140, 0x0666, 0x7FFF):
            command = command_set(
                {
                    0x0002: CT_IMAGE_STORAGE,
                    0x0003: CT_IMAGE_STORAGE,
                    0x0100: field,
                    0x0110: 5,
                    0x0800: 0x0101,
                    0x1001: "1.2",
                }
            )
            peer.send(p_data(1, command, control=COMMAND | LAST))
            answer = peer.read_answer()
            assert (answer.command_field, answer.responds_to, answer.status) == (field | 0x8000, 5, 0x0211)
        assert peer.echo().status == 0
    settle(server.archive)
