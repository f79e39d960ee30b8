"""The STOW-RS client over TLS: whom it trusts, and that it hears answers as early as without."""

import ssl
from http import HTTPStatus
from pathlib import Path

import pytest

from stowkeeper.net.tls_errors import TLSSetupError
from stowkeeper.services.send_plan import read_sendable
from stowkeeper.services.stow_client.credentials import bearer
from stowkeeper.services.stow_client.trust import client_context
from support.processes import free_port
from support.scripted_dicomweb import Reply, Script, scripted_server
from support.stowing import make_files, stow
from support.tls_files import Identity
from support.tls_fixtures import TLSFiles

pytestmark = [pytest.mark.peer("openssl"), pytest.mark.slow]


def server_context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def test_files_arrive_whole_over_tls(tmp_path: Path, tls_files: TLSFiles) -> None:
    files = make_files(tmp_path, 5, pixels=bytes(range(256)) * 4000)
    with scripted_server(context=server_context(tls_files.server)) as server:
        context = client_context(tls_files.authority.certificate)
        seen = stow(files, server.url, context=context, instances=3, credential=bearer("token"))
    assert list(seen.results.values()) == ["stored"] * 5
    sent = [part for request in server.requests for part in request.parts]
    assert sent == [Path(file.path).read_bytes() for file in files]
    assert server.connections == 1
    assert server.requests[0].fields["authorization"] == "Bearer token"


@pytest.mark.parametrize(
    ("who", "words"),
    [("foreign", "not trusted"), ("expired", "expired")],
)
def test_a_certificate_that_is_not_trusted_ends_it(
    tmp_path: Path, tls_files: TLSFiles, who: str, words: str
) -> None:
    identity: Identity = getattr(tls_files, who)
    with scripted_server(context=server_context(identity)) as server:
        context = client_context(tls_files.authority.certificate)
        seen = stow(make_files(tmp_path, 2), server.url, context=context, credential=bearer("token"))
        assert words in seen.ended_by
        assert "cannot be called over TLS: its certificate is refused" in seen.ended_by
        assert server.requests == []
        again = stow(make_files(tmp_path, 2), server.url, context=client_context(verifies=False))
    assert again.results == {"0": "stored", "1": "stored"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_asks_for_a_certificate_gets_ours(
    tmp_path: Path, tls_files: TLSFiles, version: ssl.TLSVersion
) -> None:
    asking = server_context(tls_files.server)
    asking.minimum_version = asking.maximum_version = version
    asking.verify_mode = ssl.CERT_REQUIRED
    asking.load_verify_locations(tls_files.authority.certificate)
    authority, ours, foreign = tls_files.authority.certificate, tls_files.client, tls_files.foreign
    in_one = tmp_path / "both.pem"
    in_one.write_bytes(Path(ours.certificate).read_bytes() + Path(ours.key).read_bytes())
    files = make_files(tmp_path / "files", 2)
    with scripted_server(context=asking) as server:
        for certificate, key in ((ours.certificate, ours.key), (str(in_one), "")):
            context = client_context(authority, certificate=certificate, key=key)
            assert list(stow(files, server.url, context=context).results.values()) == ["stored"] * 2
        assert len(server.requests) == 2
        for context, words in (
            (client_context(authority), "it requires a certificate of us"),
            (
                client_context(authority, certificate=foreign.certificate, key=foreign.key),
                "it does not trust the authority that issued our certificate",
            ),
        ):
            seen = stow(files, server.url, context=context)
            assert words in seen.ended_by
            assert set(seen.results.values()) == {"failed"}
        assert len(server.requests) == 2


def test_a_key_of_another_certificate_is_told(tls_files: TLSFiles) -> None:
    with pytest.raises(TLSSetupError, match="does not belong to the certificate"):
        client_context(certificate=tls_files.client.certificate, key=tls_files.expired.key)


def test_the_name_of_the_server_is_looked_at(tmp_path: Path, tls_files: TLSFiles) -> None:
    identity = tls_files.authority.issue("other", names=("DNS:other.example.org",))
    with scripted_server(context=server_context(identity)) as server:
        context = client_context(tls_files.authority.certificate)
        seen = stow(make_files(tmp_path, 1), server.url, context=context)
    assert "does not hold for the" in seen.ended_by
    assert server.requests == []


def test_a_server_without_tls_is_told(tmp_path: Path) -> None:
    with scripted_server() as server:
        url = server.url.replace("http:", "https:")
        server.script = Script(on_head=lambda _: b"What?\r\n")
        seen = stow(make_files(tmp_path, 1), url, context=client_context(), seconds=1)
    assert "cannot be called over TLS" in seen.ended_by


def test_nobody_there_is_no_matter_of_tls(tmp_path: Path) -> None:
    seen = stow(make_files(tmp_path, 1), f"https://127.0.0.1:{free_port()}/", context=client_context())
    assert "nothing listens on that port" in seen.ended_by


def test_an_answer_before_the_body_is_heard_over_tls_too(tmp_path: Path, tls_files: TLSFiles) -> None:
    """What can be read while sending is first the server's session tickets, which are no answer."""
    (file,) = make_files(tmp_path, 1)
    with open(file.path, "r+b") as stream:
        stream.truncate(1_000_000_000)
    script = Script(on_head=lambda _: Reply(413, closes=True))
    with scripted_server(script, server_context(tls_files.server)) as server:
        context = client_context(tls_files.authority.certificate)
        seen = stow([read_sendable(file.path)], server.url, context=context)
    assert seen.of(0).words == f"the server takes no file of this size (413 {HTTPStatus(413).phrase})"
    assert len(server.requests) == 1


def test_a_file_without_certificates_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(TLSSetupError, match="no certificate"):
        client_context(str(path))
