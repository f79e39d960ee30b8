"""The HTTP server over TLS."""

import socket
import ssl
from pathlib import Path

import httpx
import pytest

from stowkeeper.web import listening
from stowkeeper.web.server import ServerTLS, ServerTLSError
from support.tls_files import Identity
from support.tls_fixtures import TLSFiles
from support.web_server import WebThread, web_rig, web_serving
from support.web_sockets import REQUEST, SOON, WAIT_SECONDS, connect, read_all


def trusting(tls_files: TLSFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls_files.authority.certificate))
    context.check_hostname = False
    return context


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_speaks_tls(tmp_path: Path, tls_files: TLSFiles, loop: str) -> None:
    tls = ServerTLS(certificate=tls_files.server.certificate, key=tls_files.server.key)
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(rig.application, loop, tls=tls) as thread,
        httpx.Client(base_url=thread.url, verify=trusting(tls_files)) as client,
    ):
        for _ in range(3):
            assert client.get("/api/live").json() == {"status": "live"}
        with socket.create_connection((thread.host, thread.port), WAIT_SECONDS) as plain:
            plain.sendall(REQUEST)
            assert not read_all(plain).startswith(b"HTTP")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)), connect(thread) as sock:
            old.wrap_socket(sock)


@pytest.mark.slow
@pytest.mark.peer("openssl")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_never_shakes_hands_is_counted_and_closed(
    tmp_path: Path, tls_files: TLSFiles, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 3 * SOON)
    tls = ServerTLS(certificate=tls_files.server.certificate, key=tls_files.server.key)
    with (
        web_rig(tmp_path / "archive") as rig,
        web_serving(rig.application, loop, tls=tls, connections_max=1) as thread,
        connect(thread) as silent,
    ):
        thread.wait_until(lambda: thread.server.connections == 1)
        with connect(thread) as beyond:
            assert read_all(beyond) == b""
        assert read_all(silent) == b""
        thread.wait_until(lambda: thread.server.connections == 0)
        assert httpx.get(f"{thread.url}/api/live", verify=trusting(tls_files)).status_code == 200


@pytest.mark.slow
@pytest.mark.peer("openssl")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    tmp_path: Path, tls_files: TLSFiles, loop: str
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"

    def put(identity: Identity) -> bytes:
        certificate.write_bytes(Path(identity.certificate).read_bytes())
        key.write_bytes(Path(identity.key).read_bytes())
        return ssl.PEM_cert_to_DER_cert(Path(identity.certificate).read_text())

    def shown(thread: WebThread) -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with connect(thread) as sock, context.wrap_socket(sock) as secured:
            return secured.getpeercert(binary_form=True)

    first = put(tls_files.server)
    tls = ServerTLS(certificate=str(certificate), key=str(key))
    with web_rig(tmp_path / "archive") as rig, web_serving(rig.application, loop, tls=tls) as thread:
        assert shown(thread) == first
        second = put(tls_files.client)
        assert shown(thread) == first
        thread.server.renew_tls(tls)
        assert shown(thread) == second
        key.write_text("nonsense")
        with pytest.raises(ServerTLSError):
            thread.server.renew_tls(tls)
        assert shown(thread) == second


@pytest.mark.peer("openssl")
def test_bad_tls_files_are_named(tmp_path: Path, tls_files: TLSFiles) -> None:
    from support.tls_files import openssl

    locked = tmp_path / "locked.pem"
    locked.write_bytes(openssl("pkcs8", "-topk8", "-in", tls_files.server.key, "-passout", "pass:secret"))
    server = tls_files.server
    for certificate, key in (
        (server.certificate, tls_files.authority.issue("other", key="ec").key),
        (server.certificate, str(locked)),
        (str(tmp_path / "absent.pem"), server.key),
    ):
        with pytest.raises(ServerTLSError) as caught:
            ServerTLS(certificate=certificate, key=key).context()
        assert certificate in str(caught.value)
