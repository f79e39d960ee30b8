"""The peers of settings and database at work: who they are to the server, and what they may do, by real sockets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from unittest.mock import patch

import pytest

from stowkeeper.app import limits as app_limits
from stowkeeper.app import settings_of_tls
from stowkeeper.app.negotiation_profiles import negotiation_profiles
from stowkeeper.app.peer_book import configured_peers, own_side
from stowkeeper.app.settings import Settings, load_settings
from stowkeeper.app.settings_of_peers import Peer as PeerEntry
from stowkeeper.app.wiring import storage_rules
from stowkeeper.net.tls_context import PeerVerification, TLSContext, TLSOptions, requestor_context
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.net.tls_profiles import SecurityProfile
from stowkeeper.services import limits as services_limits
from stowkeeper.services.peers import Peer, PeerBook
from support.archive_server import ArchiveServer, archive_serving, instances
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.raw_peer import ASSOCIATE_AC, ASSOCIATE_RJ, VERIFICATION, Context, RawPeer

CONTEXTS = (
    Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE),
    Context(context_id=3, abstract_syntax=VERIFICATION, transfer_syntaxes=("1.2.840.10008.1.2",)),
)


def settings_of(tmp_path: Path, toml: str) -> Settings:
    path = tmp_path / "site.toml"
    path.write_text(toml, encoding="utf-8")
    return load_settings(str(path), {"archive": str(tmp_path / "archive")}, {})


# As values.


def test_an_entry_of_the_settings_says_the_same_as_a_peer(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        """
[dicom]
ae_title = "ARCHIVE"
[[profiles]]
name = "p"
[[profiles.contexts]]
abstract_syntaxes = ["CTImageStorage"]
transfer_syntaxes = ["ExplicitVRLittleEndian"]
[[peers]]
name = "full"
ae_title = "FULL"
addresses = ["10.0.0.0/8"]
host = "pacs.example"
port = 104
own_ae_title = "OWN"
tls = true
may_echo = false
may_store = false
may_request_commitment = false
may_report_commitment = false
report_on = "same-first"
connect_seconds = 1.5
answer_seconds = 2.5
manufacturer = "ACME"
duplicates = "refuse"
profile = "p"
[[peers]]
name = "least"
ae_title = "LEAST"
""",
    )
    assert configured_peers(settings) == [
        Peer(
            name="full",
            ae_title="FULL",
            addresses=(ip_network("10.0.0.0/8"),),
            host="pacs.example",
            port=104,
            own_ae_title="OWN",
            tls=True,
            may_echo=False,
            may_store=False,
            may_request_commitment=False,
            may_report_commitment=False,
            report_on="same-first",
            connect_seconds=1.5,
            answer_seconds=2.5,
            manufacturer="ACME",
            duplicates="refuse",
            profile="p",
            is_read_only=True,
        ),
        Peer(name="least", ae_title="LEAST", is_read_only=True),
    ]
    assert own_side(settings).ae_title == "ARCHIVE"


def test_an_entry_and_a_peer_have_the_same_keys_and_bounds() -> None:
    definition = Peer(name="x", ae_title="X", profile="p").to_json()
    assert set(PeerEntry.model_fields) == set(definition)
    assert app_limits.PEER_NAME_LETTERS_MAX == services_limits.PEER_NAME_LETTERS_MAX
    entry = PeerEntry(name="x", ae_title="X")
    for key in set(definition) - {"name", "ae_title", "own_ae_title", "profile", "addresses"}:
        assert getattr(entry, key) == definition[key], key


# TLS for calls.


def options_for_calls(tmp_path: Path, toml: str) -> TLSOptions:
    """Return what TLS for calls is set up with."""
    given: list[TLSOptions] = []

    def note(options: TLSOptions) -> TLSContext:
        given.append(options)
        return requestor_context(TLSOptions())

    with patch.object(settings_of_tls, "requestor_context", note):
        own_side(settings_of(tmp_path, toml)).tls()
    (options,) = given
    return options


def test_peers_are_called_with_what_the_settings_say_and_never_without_a_look_at_their_certificate(
    tmp_path: Path,
) -> None:
    bare = options_for_calls(tmp_path, "")
    assert (bare.certificate_file, bare.trusts_system, bare.checks_name) == ("", True, True)
    assert bare.verification is PeerVerification.REQUIRE
    own = '[tls]\ncertificate = "/c.pem"\nkey = "/c.key"\nprofile = "bcp195"\n'
    for more, trusts_system in (
        ('ca_files = ["/ca.pem"]', False),
        ('ca_directories = ["/ca"]', False),
        ('peer_certificate = "ignore"', True),
    ):
        options = options_for_calls(tmp_path, own + more)
        assert (options.certificate_file, options.key_file) == ("/c.pem", "/c.key")
        assert options.profile is SecurityProfile.BCP_195
        assert options.trusts_system is trusts_system
        assert options.checks_name
        assert options.verification is PeerVerification.REQUIRE
    any_name = options_for_calls(tmp_path, own + 'ca_files = ["/ca.pem"]\npeer_names = "ignore"')
    assert (any_name.checks_name, any_name.verification) == (False, PeerVerification.REQUIRE)


def test_tls_for_calls_is_set_up_once_and_again_after_a_failure(tmp_path: Path) -> None:
    own = own_side(settings_of(tmp_path, ""))
    with (
        patch.object(
            settings_of_tls, "requestor_context", side_effect=TLSSetupError(TLSFault.KEY, "k", "no.")
        ),
        pytest.raises(TLSSetupError),
    ):
        own.tls()
    assert own.tls() is own.tls()


# What they may do.


@contextmanager
def serving(tmp_path: Path, toml: str = "") -> Iterator[tuple[ArchiveServer, PeerBook]]:
    """Serve an archive by settings and a book, as `serve` puts them together."""
    settings = settings_of(tmp_path, toml)
    with archive_serving(tmp_path / "archive") as server:
        book = PeerBook(configured_peers(settings), server.archive.database)
        server.service.rules = storage_rules(settings, negotiation_profiles(settings), book.matching)
        yield server, book


@contextmanager
def calling(server: ArchiveServer, ae_title: str) -> Iterator[RawPeer]:
    """Open an association by an AE title; its `results` are those of the contexts."""
    with RawPeer(server.port) as peer:
        answer = peer.associate(*CONTEXTS, calling=ae_title.encode())
        assert answer.kind == ASSOCIATE_AC, answer
        yield peer


def store(peer: RawPeer, number: int, content: int = 0) -> tuple[int, str]:
    instance = make_instance(number, content=content)
    answer = peer.store(instance.sop_instance_uid, instance.data)
    return answer.status, answer.comment


FORBIDDEN = """
[[peers]]
name = "forbidden"
ae_title = "MR"
may_store = false
may_echo = false
"""


def in_settings(_: PeerBook) -> None:
    """Leave it to the settings."""


def in_database(book: PeerBook) -> None:
    book.save(Peer(name="forbidden", ae_title="MR", may_store=False, may_echo=False), "tester")


@pytest.mark.parametrize(("toml", "put"), [(FORBIDDEN, in_settings), ("", in_database)])
def test_who_may_not_gets_no_context_and_no_success(
    tmp_path: Path, toml: str, put: Callable[[PeerBook], None]
) -> None:
    with serving(tmp_path, toml) as (server, book):
        put(book)
        with calling(server, "MR") as peer:
            assert peer.results == {1: 3, 3: 0}
            echoed = peer.echo()
            assert (echoed.status, echoed.comment) == (0x0122, "this peer may not ask for an echo")
        with calling(server, "CT") as peer:
            assert peer.results == {1: 0, 3: 0}
            assert peer.echo().status == 0x0000
            assert store(peer, 1) == (0x0000, "")


def test_a_permission_that_is_taken_counts_in_an_open_association(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, book), calling(server, "MR") as peer:
        assert peer.results == {1: 0, 3: 0}
        assert store(peer, 1) == (0x0000, "")
        assert peer.echo().status == 0x0000
        in_database(book)
        assert store(peer, 2) == (0x0124, "this peer may not store")
        assert peer.echo().status == 0x0122
        book.discard("forbidden", "tester")
        assert store(peer, 3) == (0x0000, "")
        assert len(instances(server.archive)) == 2


def test_peers_of_the_database_are_known_peers(tmp_path: Path) -> None:
    with serving(tmp_path, "[access]\nonly_known_peers = true") as (server, book):

        def kind_of_answer() -> int:
            with RawPeer(server.port) as peer:
                return peer.associate(*CONTEXTS, calling=b"MR").kind

        assert kind_of_answer() == ASSOCIATE_RJ
        book.save(Peer(name="mr", ae_title="MR"), "tester")
        assert kind_of_answer() == ASSOCIATE_AC
        book.save(Peer(name="mr", ae_title="MR", addresses=(ip_network("192.0.2.1"),)), "tester")
        assert kind_of_answer() == ASSOCIATE_RJ
        book.replace_configured([Peer(name="all", addresses=(ip_network("127.0.0.0/8"),))])
        assert kind_of_answer() == ASSOCIATE_AC


def test_peers_of_the_database_have_their_own_policy_for_duplicates(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, book), calling(server, "MR") as peer:
        assert store(peer, 1) == (0x0000, "")
        book.save(Peer(name="mr", ae_title="MR", duplicates="refuse"), "tester")
        assert store(peer, 1, content=1)[0] == 0x0111
