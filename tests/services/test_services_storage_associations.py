"""What the ledger tells of associations: how they ended, what was negotiated, and on whose behalf; never a secret."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from test_services_storage import FIND, MR_IMAGE_STORAGE, VERIFICATION, Conversation, association_request

from stowkeeper.archive.archive import Archive
from stowkeeper.services.limits import REFUSED_SYNTAXES_LOGGED_MAX
from stowkeeper.upperlayer.items import ProposedContext, UserIdentity, UserInformation
from stowkeeper.upperlayer.negotiation import Accepted
from stowkeeper.upperlayer.pdu import AssociateRQ
from support.archive_server import archive_serving, associations, open_archive, settle
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.live_folder import contents_below
from support.raw_peer import RawPeer, item


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "archive")
    yield opened
    opened.close()


def identity_of(kind: int, name: str | None) -> UserIdentity:
    return UserIdentity(
        type=kind, primary_name=name, response_requested=False, primary_length=9, secondary_length=9
    )


def test_an_association_is_written_down_with_how_it_ended(archive: Archive) -> None:
    talk = Conversation(archive)
    talk.send(make_instance(1))
    talk.send(make_instance(2), affected_sop_instance_uid="1.9")
    facts = talk.facts
    facts.request = association_request(CT_IMAGE_STORAGE)
    facts.contexts_accepted, facts.contexts_refused, facts.messages, facts.bytes_received = 1, 2, 3, 4
    facts.end, facts.words = "aborted", "idle for 600 seconds"
    settle(archive)  # whose words on what is kept are not asked for
    with capture_logs() as logs:
        talk.service.association_opened(facts)
        talk.service.association_closed(facts)
    (row,) = associations(archive)
    assert (row["association_id"], row["ended"], row["words"]) == (
        facts.association_id,
        "aborted",
        facts.words,
    )
    assert (row["implementation_class_uid"], row["implementation_version_name"]) == ("1.2.3", "TEST")
    assert (row["contexts_accepted"], row["contexts_refused"]) == (1, 2)
    assert (row["messages"], row["bytes_received"], row["rejection"]) == (3, 4, None)
    assert (row["requests_kept"], row["requests_refused"], row["requests_lost"]) == (1, 1, 0)
    assert [(line["what"], line["log_level"]) for line in logs] == [
        ("accepted", "info"),
        ("aborted", "warning"),
    ]


def shown_association(archive: Archive, request: AssociateRQ) -> dict[str, Any]:
    """Let an association come and go as the network room does; return what the ledger shows of it."""
    talk = Conversation(archive)
    facts = talk.facts
    facts.request = request
    decision = talk.service.negotiate(request, facts)
    assert isinstance(decision, Accepted)
    facts.results = decision.response.presentation_contexts
    talk.service.association_opened(facts)
    (opened,) = associations(archive)
    assert opened["closed_at"] is None
    facts.end, facts.closed_at_nanoseconds = "released", 2
    talk.service.association_closed(facts)
    (closed,) = associations(archive)
    assert closed["ended"] == "released"
    assert closed["contexts"] == opened["contexts"]
    return closed


def test_what_became_of_each_context_is_written_down(archive: Archive) -> None:
    request = association_request(
        presentation_contexts=(
            ProposedContext(
                context_id=1, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=("1.2.840.10008.1.2",)
            ),
            ProposedContext(
                context_id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=("1.2.840.10008.1.2",)
            ),
            ProposedContext(context_id=3, abstract_syntax=MR_IMAGE_STORAGE, transfer_syntaxes=("1.2.3",)),
            ProposedContext(context_id=4, abstract_syntax=FIND, transfer_syntaxes=("1.2.840.10008.1.2",)),
        )
    )
    assert shown_association(archive, request)["contexts"] == [
        [1, CT_IMAGE_STORAGE, 0, "1.2.840.10008.1.2"],
        [3, MR_IMAGE_STORAGE, 4, ""],
        [4, FIND, 3, ""],
    ]


@pytest.mark.slow
def test_the_log_names_what_was_refused_and_a_bounded_number_of_it(archive: Archive) -> None:
    count = REFUSED_SYNTAXES_LOGGED_MAX
    refused = [f"1.2.840.99999.{number}" for number in range(count + 5)]
    contexts = [(CT_IMAGE_STORAGE, "1.2.840.10008.1.2"), *((uid, "1.2.3") for uid in refused)]
    for classes, last in ((contexts, "5 more"), (contexts[: 1 + count], f"{refused[count - 1]} (transfer")):
        request = association_request(
            presentation_contexts=tuple(
                ProposedContext(
                    context_id=2 * number + 1, abstract_syntax=uid, transfer_syntaxes=(transfer_syntax,)
                )
                for number, (uid, transfer_syntax) in enumerate([*classes, classes[-1]])
            )
        )
        talk = Conversation(archive)
        facts = talk.facts
        decision = talk.service.negotiate(request, facts)
        assert isinstance(decision, Accepted)
        facts.request, facts.results = request, decision.response.presentation_contexts
        facts.opened_at_nanoseconds, facts.closed_at_nanoseconds = 10**18, 10**18 + 1_500_000_000
        facts.end = "released"
        talk.send(make_instance(1))
        settle(archive)
        with capture_logs() as logs:
            talk.service.association_closed(facts)
        (line,) = logs
        assert (line["proposed"], line["instances"], line["seconds"]) == (len(classes) + 1, 1, 1.5)
        assert line["refused"][0] == f"{refused[0]} (transfer syntaxes not supported)"
        assert line["refused"][-1].startswith(last)
        assert len(line["refused"]) == count + (last == "5 more")


def test_what_is_written_of_contexts_and_names_is_bounded(archive: Archive) -> None:
    request = association_request(
        presentation_contexts=tuple(
            ProposedContext(context_id=number, abstract_syntax="é\n\0" + "9" * 5000, transfer_syntaxes=())
            for number in range(256)
        ),
        user_information=UserInformation(
            implementation_class_uid="8" * 5000,
            implementation_version_name="V" * 5000,
            user_identity=UserIdentity(
                type=1,
                primary_name="N" * 5000,
                response_requested=False,
                primary_length=5000,
                secondary_length=0,
            ),
        ),
    )
    row = shown_association(archive, request)
    assert row["contexts"] == [[number, "???" + "9" * 61, 3, ""] for number in range(128)]
    assert row["implementation_class_uid"] == "8" * 64
    assert row["implementation_version_name"] == "V" * 64
    assert row["user_identity_name"] == "N" * 256


@pytest.mark.parametrize(
    ("identity", "shown"),
    [
        (None, (None, None)),
        (identity_of(1, "jané"), (1, "jané")),
        (identity_of(2, "jane"), (2, "jane")),
        (identity_of(3, None), (3, None)),
        (identity_of(5, None), (5, None)),
        (identity_of(77, None), (77, None)),
    ],
)
def test_on_whose_behalf_a_peer_calls_is_written_down(
    archive: Archive, identity: UserIdentity | None, shown: tuple[int | None, str | None]
) -> None:
    request = association_request(CT_IMAGE_STORAGE, user_information=UserInformation(user_identity=identity))
    row = shown_association(archive, request)
    assert (row["user_identity_type"], row["user_identity_name"]) == shown


def test_no_secret_of_an_identity_is_written_anywhere(tmp_path: Path) -> None:
    secret = b"open-sesame"

    def identity_item(kind: int, primary: bytes, secondary: bytes) -> bytes:
        lengths = struct.pack(f">H{len(primary)}sH", len(primary), primary, len(secondary))
        return item(0x58, bytes([kind, 1]) + lengths + secondary)

    with capture_logs() as logs, archive_serving(tmp_path / "archive") as server:
        for identity in ((2, b"jane", secret), (3, secret, b""), (4, secret, b""), (5, secret, secret)):
            with RawPeer(server.port) as peer:
                peer.associate(user_items=identity_item(*identity))
                peer.release()
        server.thread.wait_until_empty()
        rows = associations(server.archive)
    assert [(row["user_identity_type"], row["user_identity_name"]) for row in rows] == [
        (2, "jane"),
        (3, None),
        (4, None),
        (5, None),
    ]
    written = b"".join(contents_below(tmp_path).values())
    assert b"jane" in written
    assert secret not in written
    assert secret.decode() not in repr(logs)


def test_a_rejection_is_written_down_with_its_reasons(archive: Archive) -> None:
    talk = Conversation(archive)
    facts = talk.facts
    facts.request = association_request(CT_IMAGE_STORAGE)
    facts.rejection, facts.end, facts.words = (1, 1, 7), "rejected", "none of ours"
    with capture_logs() as logs:
        talk.service.association_opened(facts)
        talk.service.association_closed(facts)
    (row,) = associations(archive)
    assert (row["ended"], row["rejection"], row["words"]) == ("rejected", [1, 1, 7], "none of ours")
    assert row["contexts"] == []
    assert logs[0]["rejection"] == (1, 1, 7)
    assert logs[0]["log_level"] == "warning"


@pytest.mark.parametrize(("end", "level"), [("lost", "info"), ("aborted", "warning")])
def test_a_connection_that_asked_for_nothing_is_in_the_log_alone(
    archive: Archive, end: str, level: str
) -> None:
    talk = Conversation(archive)
    talk.facts.end, talk.facts.words = end, "why"
    with capture_logs() as logs:
        talk.service.association_closed(talk.facts)
    assert [(line["what"], line["why"], line["log_level"]) for line in logs] == [(end, "why", level)]
    assert associations(archive) == []


def test_connections_in_which_nothing_was_said_are_logged_once_for_each_address(archive: Archive) -> None:
    talk = Conversation(archive)
    facts = talk.facts
    facts.end, facts.words, facts.bytes_received = "lost", "why", 0
    with capture_logs() as logs:
        for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.1"):
            facts.peer_address = address
            talk.service.association_closed(facts)
        facts.bytes_received = 3
        talk.service.association_closed(facts)
    assert [(line["address"], line.get("count")) for line in logs] == [
        ("10.0.0.1", 1),
        ("10.0.0.2", 1),
        ("10.0.0.1", None),
    ]
    assert associations(archive) == []


def test_the_proxy_stands_beside_the_peer(archive: Archive) -> None:
    talk = Conversation(archive)
    facts = talk.facts
    facts.request, facts.end, facts.proxy_address = (
        association_request(CT_IMAGE_STORAGE),
        "released",
        "10.0.0.9",
    )
    with capture_logs() as logs:
        talk.service.association_opened(facts)
        talk.service.association_closed(facts)
    assert [(line["address"], line["proxy"]) for line in logs] == [(facts.peer_address, "10.0.0.9")] * 2
    assert [row["peer_address"] for row in associations(archive)] == [facts.peer_address]
