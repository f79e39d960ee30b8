"""TLS with real peers: OpenSSL's own client, and DCMTK in both roles, for each profile, version and verification."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from structlog.testing import capture_logs

from stowkeeper.net.tls_context import PeerVerification, TLSOptions, acceptor_context
from stowkeeper.net.tls_material import FileFormat
from stowkeeper.net.tls_profiles import SecurityProfile, available_profiles
from support import forked
from support.command_line import program
from support.peers import ReceivingPeer, program_path, run_peer
from support.raw_peer import ASSOCIATE_AC, RELEASE_REQUEST, RELEASE_RP, VERIFICATION, Context, associate_rq
from support.server_process import kept_instances, serve_process
from support.server_thread import RecordingHandlers, ServerThread, serving
from support.tls_files import Identity, openssl
from support.tls_fixtures import TLSFiles

pytestmark = [pytest.mark.peer("openssl"), pytest.mark.slow]

FILE = str(get_testdata_file("CT_small.dcm"))
PROFILE_OPTIONS = {
    "+py": {"TLSv1.2", "TLSv1.3"},
    "+px": {"TLSv1.2", "TLSv1.3"},
    "+pz": {"TLSv1.2"},
    "+pa": {"TLSv1.2"},
    "+pn": {"TLSv1.2"},
}
"""The profiles of DCMTK as requestor, and the versions it agrees on at best."""


@dataclass(slots=True)
class Serving:
    """A server with TLS, and what it said."""

    server: ServerThread
    handlers: RecordingHandlers
    lines: list[Any]

    @property
    def agreed(self) -> str:
        """Version and suite of the one association that there was."""
        (facts,) = self.handlers.opened
        return facts.tls

    def refusal(self) -> str:
        """Wait until a handshake was refused, and return why."""
        self.server.wait_until(lambda: any(line.get("what") == "TLS refused" for line in self.lines))
        return str(next(line["why"] for line in self.lines if line.get("what") == "TLS refused"))


@contextlib.contextmanager
def tls_server(files: TLSFiles, **changes: Any) -> Iterator[Serving]:
    """Run a server that requires a certificate, with changes to that."""
    usual = TLSOptions(
        certificate_file=files.server.certificate,
        key_file=files.server.key,
        ca_files=(files.authority.certificate,),
    )
    handlers = RecordingHandlers()
    tls = acceptor_context(replace(usual, **changes))
    with capture_logs() as lines, serving(handlers, tls=tls) as server:
        yield Serving(server=server, handlers=handlers, lines=lines)


# OpenSSL's client


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What OpenSSL's client saw: the kinds of PDUs that came, and what it complained of."""

    kinds: list[int]
    complaint: str


def s_client(files: TLSFiles, port: int, *options: str, identity: Identity | None = None) -> Visit:
    """Ask for an association by `openssl s_client`, and release it."""
    own = ("-cert", identity.certificate, "-key", identity.key) if identity else ()
    # fmt: off
    argv = [
        program_path("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", "-nocommands",
        "-CAfile", files.authority.certificate, "-verify_return_error", *own, *options,
    ]
    # fmt: on
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    kinds = []
    try:
        for request in (associate_rq([Context(context_id=1, abstract_syntax=VERIFICATION)]), RELEASE_REQUEST):
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.flush()
            head = process.stdout.read(6)
            if len(head) < 6:
                break
            kinds.append(head[0])
            process.stdout.read(int.from_bytes(head[2:], "big"))
    finally:
        process.kill()
        _, complaint = process.communicate(timeout=20)
    return Visit(kinds=kinds, complaint=complaint.decode(errors="replace"))


WELL = [ASSOCIATE_AC, RELEASE_RP]
OLD = ("-cipher", "ALL:eNULL:@SECLEVEL=0")
VERSIONS = {"TLSv1": "-tls1", "TLSv1.1": "-tls1_1", "TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}
SPOKEN = {
    SecurityProfile.RFC_8996: {"TLSv1.2", "TLSv1.3"},
    SecurityProfile.RFC_8996_MODIFIED: {"TLSv1.2", "TLSv1.3"},
    SecurityProfile.BCP_195_NON_DOWNGRADING: {"TLSv1.2", "TLSv1.3"},
    SecurityProfile.BCP_195: set(VERSIONS),
    SecurityProfile.BCP_195_EXTENDED: {"TLSv1.2"},
    SecurityProfile.BASIC: {"TLSv1", "TLSv1.1", "TLSv1.2"},
    SecurityProfile.AES: {"TLSv1", "TLSv1.1", "TLSv1.2"},
    SecurityProfile.UNENCRYPTED: {"TLSv1", "TLSv1.1", "TLSv1.2"},
}


@pytest.mark.parametrize("profile", available_profiles())
def test_openssl_speaks_each_version_of_a_profile(tls_files: TLSFiles, profile: SecurityProfile) -> None:
    for version, option in VERSIONS.items():
        with tls_server(tls_files, profile=profile) as serving_tls:
            visit = s_client(tls_files, serving_tls.server.port, option, *OLD, identity=tls_files.client)
            if version in SPOKEN[profile]:
                assert visit.kinds == WELL, visit.complaint
                assert serving_tls.agreed.split()[0] == version
            else:
                assert "alert protocol version" in visit.complaint
                assert "versions of TLS" in serving_tls.refusal()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("verification", PeerVerification)
@pytest.mark.parametrize("who", ["good", "none", "foreign", "expired", "revoked"])
def test_openssl_with_each_certificate(
    tls_files: TLSFiles, verification: PeerVerification, who: str, version: str
) -> None:
    authority = tls_files.authority
    identity: Identity | None
    if who == "revoked":
        identity = authority.issue("revoked", key="rsa")
        authority.revoke(identity)
    else:
        known = {"good": tls_files.client, "foreign": tls_files.foreign, "expired": tls_files.expired}
        identity = known.get(who)
    expected = {
        "none": (
            "it sent no certificate",
            "alert handshake failure" if version == "-tls1_2" else "alert certificate required",
        ),
        "foreign": ("is not trusted here", "alert unknown ca"),
        "expired": ("it has expired", "alert certificate expired"),
        "revoked": ("it was revoked", "alert certificate revoked"),
    }
    is_let_in = (
        verification is PeerVerification.IGNORE
        or who == "good"
        or (who == "none" and verification is PeerVerification.IF_PRESENT)
    )
    with tls_server(
        tls_files, verification=verification, crl_files=(authority.revocation_list(),)
    ) as serving_tls:
        visit = s_client(tls_files, serving_tls.server.port, version, identity=identity)
        if is_let_in:
            assert visit.kinds == WELL, visit.complaint
        else:
            why, alert = expected[who]
            assert why in serving_tls.refusal()
            assert alert in visit.complaint
            assert not serving_tls.handlers.opened


def test_openssl_with_names_and_protocols(tls_files: TLSFiles) -> None:
    with tls_server(tls_files, expected_server_name="archive.example") as serving_tls:
        port, client = serving_tls.server.port, tls_files.client
        assert s_client(tls_files, port, "-noservername", identity=client).kinds == WELL
        assert s_client(tls_files, port, "-servername", "archive.example", identity=client).kinds == WELL
        assert s_client(tls_files, port, "-noservername", "-alpn", "h2,dicom", identity=client).kinds == WELL
        visit = s_client(tls_files, port, "-servername", "other.example", identity=client)
        assert "unrecognized name" in visit.complaint
        visit = s_client(tls_files, port, "-noservername", "-alpn", "h2,http/1.1", identity=client)
        assert "no application protocol" in visit.complaint
        whys = [line["why"] for line in serving_tls.lines if line.get("what") == "TLS refused"]
        assert whys == [
            "it asked for the server name 'other.example', and this is 'archive.example'",
            "it asked for other application protocols than dicom: 'h2', 'http/1.1'",
        ]


def test_openssl_resumes_nothing_in_tls_1_3(tls_files: TLSFiles, tmp_path: Path) -> None:
    session = tmp_path / "session.pem"
    with tls_server(tls_files) as serving_tls:
        visit = s_client(
            tls_files,
            serving_tls.server.port,
            "-tls1_3",
            "-sess_out",
            str(session),
            identity=tls_files.client,
        )
        assert visit.kinds == WELL
    assert not session.exists() or not session.stat().st_size


@pytest.mark.parametrize("kind", ["rsa", "ec", "ec384", "ed25519"])
def test_openssl_with_each_kind_of_key(tls_files: TLSFiles, tmp_path: Path, kind: str) -> None:
    own = tls_files.authority.issue("server", key=kind).der(tmp_path)
    authority = tmp_path / "authority.der"
    openssl("x509", "-in", tls_files.authority.certificate, "-outform", "DER", "-out", authority)
    changes = {"certificate_file": own.certificate, "key_file": own.key, "ca_files": (str(authority),)}
    for version in ("-tls1_2", "-tls1_3"):
        with tls_server(tls_files, file_format=FileFormat.DER, **changes) as serving_tls:
            visit = s_client(tls_files, serving_tls.server.port, version, identity=tls_files.client)
            assert visit.kinds == WELL, visit.complaint


# DCMTK as requestor


def dcmtk_tls(files: TLSFiles, identity: Identity | None = None) -> list[str]:
    own = identity or files.client
    return ["+tls", own.key, own.certificate, "+cf", files.authority.certificate]


@pytest.mark.peer("echoscu")
@pytest.mark.parametrize("profile", available_profiles())
@pytest.mark.parametrize("option", PROFILE_OPTIONS)
def test_echoscu_of_each_profile(tls_files: TLSFiles, profile: SecurityProfile, option: str) -> None:
    is_old = {"+pa", "+pn"}
    cbc = {SecurityProfile.AES, SecurityProfile.BCP_195}
    if option in is_old:
        fits = profile in (cbc if option == "+pa" else {SecurityProfile.UNENCRYPTED})
    elif option == "+px":
        fits = profile is not SecurityProfile.UNENCRYPTED
    else:
        fits = profile not in {SecurityProfile.AES, SecurityProfile.UNENCRYPTED}
    with tls_server(tls_files, profile=profile) as serving_tls:
        run = run_peer("echoscu", *dcmtk_tls(tls_files), option, "127.0.0.1", str(serving_tls.server.port))
        assert (run.returncode == 0) is fits, run.stdout
        if fits:
            best = max(SPOKEN[profile] & PROFILE_OPTIONS[option])
            assert serving_tls.agreed.startswith(best)
        else:
            assert serving_tls.refusal()


@pytest.mark.peer("echoscu")
@pytest.mark.parametrize("verification", PeerVerification)
@pytest.mark.parametrize("who", ["good", "none", "foreign", "expired"])
def test_echoscu_with_each_certificate(tls_files: TLSFiles, verification: PeerVerification, who: str) -> None:
    known = {"good": tls_files.client, "foreign": tls_files.foreign, "expired": tls_files.expired}
    own = (
        dcmtk_tls(tls_files, known[who]) if who in known else ["+tla", "+cf", tls_files.authority.certificate]
    )
    if_present = who == "none" and verification is PeerVerification.IF_PRESENT
    is_let_in = who == "good" or verification is PeerVerification.IGNORE or if_present
    with tls_server(tls_files, verification=verification) as serving_tls:
        run = run_peer("echoscu", *own, "127.0.0.1", str(serving_tls.server.port))
        assert (run.returncode == 0) is is_let_in, run.stdout
        if not is_let_in:
            assert "certificate" in serving_tls.refusal()


@pytest.mark.peer("storescu")
def test_storescu_into_a_real_server(tls_files: TLSFiles, tmp_path: Path) -> None:
    settings = f"""
[tls]
certificate = "{tls_files.server.certificate}"
key = "{tls_files.server.key}"
ca_files = ["{tls_files.authority.certificate}"]
"""
    with serve_process(tmp_path, settings=settings) as server:
        port = str(server.port)
        run = run_peer("storescu", *dcmtk_tls(tls_files), "-v", "127.0.0.1", port, FILE)
        assert run.returncode == 0, run.stdout
        plain = run_peer("storescu", "127.0.0.1", port, FILE)
        assert plain.returncode != 0
        server.wait_for_log("it speaks DICOM without TLS")
        foreign = run_peer("storescu", *dcmtk_tls(tls_files, tls_files.foreign), "127.0.0.1", port, FILE)
        assert foreign.returncode != 0
        server.wait_for_log("the authority that issued it is not trusted here")
        server.wait_for_log("tls=")
        assert "CN=client, O=Clinic" in server.log_text()
        assert len(kept_instances(server.archive)) == 1


# DCMTK as acceptor


def send(
    files: TLSFiles, peer: ReceivingPeer, *options: str, identity: Identity | None = None
) -> subprocess.CompletedProcess[str]:
    own = identity or files.client
    # fmt: off
    argv = program(
        "send", peer.address, FILE, "--tls", "--tls-certificate", own.certificate, "--tls-key", own.key,
        "--tls-ca", files.authority.certificate, *options,
    )
    # fmt: on
    return forked.run(argv, capture_output=True, text=True, timeout=60)


@pytest.mark.peer("storescp")
@pytest.mark.parametrize("option", PROFILE_OPTIONS)
def test_send_to_storescp_of_each_profile(
    tls_files: TLSFiles, start_storescp: Callable[..., ReceivingPeer], option: str
) -> None:
    own = [
        option,
        "+tls",
        tls_files.server.key,
        tls_files.server.certificate,
        "+cf",
        tls_files.authority.certificate,
    ]
    peer = start_storescp(*own)
    ours = {"+py": "rfc8996", "+px": "bcp195", "+pz": "bcp195-extended", "+pa": "aes", "+pn": "unencrypted"}[
        option
    ]
    sent = send(tls_files, peer, "--tls-profile", ours)
    assert sent.returncode == 0, sent.stderr
    assert len(peer.stored_files()) == 1


@pytest.mark.peer("storescp")
def test_send_to_a_storescp_that_refuses_or_is_refused(
    tls_files: TLSFiles, start_storescp: Callable[..., ReceivingPeer]
) -> None:
    trusted = ["+cf", tls_files.authority.certificate]
    peer = start_storescp("+tls", tls_files.server.key, tls_files.server.certificate, *trusted)
    refused = send(tls_files, peer, identity=tls_files.foreign)
    assert refused.returncode == 69
    alert, reset = "it does not trust the authority that issued", "as do peers that refuse"
    assert f"{alert} our certificate" in refused.stderr or f"{reset} our certificate" in refused.stderr
    strange = start_storescp("+tls", tls_files.foreign.key, tls_files.foreign.certificate, *trusted)
    sent = send(tls_files, strange)
    assert sent.returncode == 69
    assert "its certificate is refused: the authority that issued it is not trusted here" in sent.stderr
    plain = start_storescp()
    sent = send(tls_files, plain)
    assert sent.returncode == 69
    assert "TLS" in sent.stderr
