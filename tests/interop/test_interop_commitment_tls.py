"""Storage commitment over TLS, in both roles: who reports is called and calls over TLS alone, and is who it says to be.

The peers are pynetdicom's, with OpenSSL as Python brings it and certificates that were made by `openssl`.
"""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode
from support.command_line import CommandLine, Ended, keep
from support.commitment_provider import (
    Asked,
    Provider,
    commits_all_on_same,
    event_information,
    providing,
)
from support.commitment_user import named, using
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.processes import free_port
from support.server_process import ServerProcess, serve_process
from support.tls_files import Identity
from support.tls_fixtures import TLSFiles

pytestmark = [pytest.mark.peer("openssl", "pynetdicom"), pytest.mark.slow]

FILE = str(get_testdata_file("CT_small.dcm"))
REFUSED = "its certificate is refused: the authority that issued it is not trusted here"


def acceptor(files: TLSFiles, identity: Identity | None = None, *, trusted: str = "") -> ssl.SSLContext:
    """Return TLS for a peer that is called, and demands a certificate of whoever calls."""
    own = identity or files.server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.load_verify_locations(trusted or files.authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def requestor(files: TLSFiles, identity: Identity | None = None) -> ssl.SSLContext:
    """Return TLS for a peer that calls."""
    own = identity or files.client
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(own.certificate, own.key)
    context.load_verify_locations(files.authority.certificate)
    return context


def tls_settings(files: TLSFiles, more: str = "") -> str:
    return f"""
[tls]
certificate = "{files.server.certificate}"
key = "{files.server.key}"
ca_files = ["{files.authority.certificate}"]
{more}
[commitment]
grace_seconds = 0
"""


def peer_settings(name: str, ae_title: str, port: int, **more: str) -> str:
    lines = "".join(f'{key} = "{value}"\n' for key, value in more.items())
    return f"""
[[peers]]
name = "{name}"
ae_title = "{ae_title}"
host = "127.0.0.1"
port = {port}
tls = true
{lines}"""


# We report.


@contextmanager
def server_of(
    tmp_path: Path, files: TLSFiles, port: int, *, tls: str = "", **more: str
) -> Iterator[ServerProcess]:
    """Run a server that knows its peer at a port, talks TLS alone, and keeps the instance 1.2.3.1."""
    keep(tmp_path / "archive", make_instance(1))
    settings = tls_settings(files, tls) + peer_settings("scanner", "SCANNER", port, **more)
    with serve_process(tmp_path, settings=settings) as server:
        yield server


@pytest.mark.parametrize("report_on", ["new", "same-first"])
def test_a_peer_that_takes_tls_alone_is_told(tmp_path: Path, tls_files: TLSFiles, report_on: str) -> None:
    with (
        using(tls=acceptor(tls_files), calling_tls=requestor(tls_files)) as user,
        server_of(tmp_path, tls_files, user.port, report_on=report_on) as server,
    ):
        assert user.ask(server.port, "1.2.3.900", named(1, 2)) == 0
        (report,) = user.wait_for_reports()
        assert not report.is_on_own_association
        association = user.associate(server.port)
        assert user.ask_on(association, "1.2.3.901", named(1)).Status == 0
        *_, last = user.wait_for_reports(2)
        assert last.is_on_own_association is (report_on == "same-first")
    assert (report.committed, report.failed) == (named(1), {named(2)[0]: 0x0112})
    assert (last.event_type, last.committed) == (1, named(1))


def commitment_of(archive: CommandLine) -> dict[str, Any]:
    ended = archive("commitments ls", "--json")
    assert ended.code == 0, ended.err
    (found,) = ended.lines
    return found


@pytest.mark.parametrize("fault", ["theirs", "expired", "ours", "plain"])
def test_a_peer_that_tls_fails_with_is_tried_again_and_told_when_it_is_mended(
    tmp_path: Path, tls_files: TLSFiles, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    faulty: dict[str, tuple[ssl.SSLContext | None, str]] = {
        "theirs": (acceptor(tls_files, tls_files.foreign), REFUSED),
        "expired": (acceptor(tls_files, tls_files.expired), "its certificate is refused: it has expired"),
        "ours": (
            acceptor(tls_files, trusted=tls_files.foreign_authority.certificate),
            "our certificate",
        ),
        "plain": (None, "TLS"),
    }
    tls, words = faulty[fault]
    archive = CommandLine(tmp_path / "archive", capsys)
    port = free_port()
    with server_of(tmp_path, tls_files, port) as server:
        with using(tls=tls, calling_tls=requestor(tls_files), port=port) as user:
            assert user.ask(server.port, "1.2.3.900", named(1)) == 0
            wait_until(lambda: bool(commitment_of(archive)["error"]), "the first attempt")
            assert user.reports == []
        found = commitment_of(archive)
        assert found["state"] == "checked"
        assert words in found["error"], found["error"]
        (job,) = [one for one in archive("jobs ls", "--json").lines if one["kind"] == "commitment"]
        assert (job["state"], job["error"]) == ("retry", found["error"])
        with using(tls=acceptor(tls_files), port=port) as mended:
            ended = archive("commitments resend", "1.2.3.900")
            assert ended.code == 0, ended.err
            (report,) = mended.wait_for_reports()
            assert report.committed == named(1)
            wait_until(lambda: commitment_of(archive)["state"] == "reported", "the report")


@pytest.mark.parametrize("peer_names", ["check", "ignore"])
def test_a_scanner_whose_certificate_holds_for_another_name(
    tmp_path: Path, tls_files: TLSFiles, capsys: pytest.CaptureFixture[str], peer_names: str
) -> None:
    """As those of many do, which get their certificates by serial number; they are of the clinic's authority all the same."""
    elsewhere = tls_files.authority.issue("scanner", key="rsa", names=("DNS:scanner-4711.example",))
    archive = CommandLine(tmp_path / "archive", capsys)
    with (
        using(tls=acceptor(tls_files, elsewhere), calling_tls=requestor(tls_files)) as user,
        server_of(tmp_path, tls_files, user.port, tls=f'peer_names = "{peer_names}"') as server,
    ):
        assert user.ask(server.port, "1.2.3.900", named(1)) == 0
        if peer_names == "ignore":
            (report,) = user.wait_for_reports()
            assert report.committed == named(1)
            return
        wait_until(lambda: bool(commitment_of(archive)["error"]), "the first attempt")
        assert "its certificate is refused: it does not hold for" in commitment_of(archive)["error"]
        assert user.reports == []


# We ask, by a server.


class Reports:
    """Reports on new associations to a port: in plain, by a stranger's certificate, and as it should be."""

    def __init__(self, files: TLSFiles, port: int = 0) -> None:
        self.statuses: list[int | None] = []
        self._files = files
        self.port = port

    def __call__(self, provider: Provider, asked: Asked) -> None:
        information = event_information(asked.transaction_uid, asked.references)
        self.statuses += [
            provider.report_anew(self.port, information, 1, tls=tls)
            for tls in (None, requestor(self._files, self._files.foreign), requestor(self._files))
        ]


def test_a_server_takes_reports_over_tls(
    tmp_path: Path, tls_files: TLSFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path / "archive", make_instance(1))
    reports = Reports(tls_files)
    with providing(on_request=reports, tls=acceptor(tls_files)) as provider:
        settings = tls_settings(tls_files) + peer_settings("pacs", provider.ae_title, provider.port)
        with serve_process(tmp_path, settings=settings) as server:
            reports.port = server.port
            archive = CommandLine(tmp_path / "archive", capsys)
            config = str(tmp_path / "stowkeeper.toml")
            ended = archive("commit", "--config", config, "pacs", "1.2.3.1", "--wait", "20")
            wait_until(lambda: bool(reports.statuses), "the provider to have released its associations")
    assert ended.code == ExitCode.OK, ended.err
    assert "1 of 1 instance committed" in ended.out
    assert reports.statuses == [None, None, 0]


# We ask, by commands.


def test_commit_listens_over_tls(
    tmp_path: Path, tls_files: TLSFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path / "archive", make_instance(1))
    port = free_port()
    reports = Reports(tls_files, port)
    with providing(on_request=reports, tls=acceptor(tls_files)) as provider:
        config = tmp_path / "stowkeeper.toml"
        config.write_text(tls_settings(tls_files) + peer_settings("pacs", provider.ae_title, provider.port))
        archive = CommandLine(tmp_path / "archive", capsys)
        ended = archive("commit", "--config", config, "pacs", "1.2.3.1", "--listen", f"127.0.0.1:{port}")
    assert ended.code == ExitCode.OK, ended.err
    assert reports.statuses == [None, None, 0]


def test_commit_says_why_a_peer_is_not_asked(
    tmp_path: Path, tls_files: TLSFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path / "archive", make_instance(1))
    with providing(tls=acceptor(tls_files, tls_files.foreign)) as provider:
        config = tmp_path / "stowkeeper.toml"
        config.write_text(tls_settings(tls_files) + peer_settings("pacs", provider.ae_title, provider.port))
        archive = CommandLine(tmp_path / "archive", capsys)
        ended = archive("commit", "--config", config, "pacs", "1.2.3.1", "--wait", "2")
        assert provider.asked == []
    assert ended.code == ExitCode.TRY_AGAIN
    assert REFUSED in ended.out
    (job,) = archive("jobs ls", "--json").lines
    assert job["state"] == "retry"
    assert REFUSED in job["error"]


@pytest.fixture
def send(tls_files: TLSFiles, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def sending(provider: Provider, *arguments: str) -> Ended:
        trust = ("--tls-ca", tls_files.authority.certificate)
        code = run(["send", "--commit", provider.address, FILE, *trust, *arguments])
        out, err = capsys.readouterr()
        return Ended(code=code, out=out, err=err)

    return sending


def own(files: TLSFiles) -> tuple[str, ...]:
    return ("--tls-certificate", files.client.certificate, "--tls-key", files.client.key)


def test_send_is_told_on_the_association_over_tls(tls_files: TLSFiles, send: Callable[..., Ended]) -> None:
    with providing(on_request=commits_all_on_same, tls=acceptor(tls_files)) as provider:
        ended = send(provider, *own(tls_files))
    assert ended.code == ExitCode.OK, ended.err
    assert "1 committed" in ended.out


def test_send_listens_over_tls_as_it_calls(tls_files: TLSFiles, send: Callable[..., Ended]) -> None:
    port = free_port()
    reports = Reports(tls_files, port)
    with providing(on_request=reports, tls=acceptor(tls_files)) as provider:
        ended = send(provider, *own(tls_files), "--listen", f"127.0.0.1:{port}", "--wait", "20")
    assert ended.code == ExitCode.OK, ended.err
    assert reports.statuses == [None, None, 0]


def test_send_cannot_listen_over_tls_without_a_certificate(
    tls_files: TLSFiles, send: Callable[..., Ended]
) -> None:
    with providing(tls=acceptor(tls_files)) as provider:
        ended = send(provider, "--listen", f"127.0.0.1:{free_port()}")
        assert provider.stored == []
    assert ended.code == ExitCode.USAGE
    assert "--tls-certificate" in ended.err


def test_send_says_that_a_peer_whose_certificate_is_refused_was_not_sent_to(
    tls_files: TLSFiles, send: Callable[..., Ended]
) -> None:
    with providing(tls=acceptor(tls_files, tls_files.foreign)) as provider:
        ended = send(provider, *own(tls_files))
        assert (provider.stored, provider.asked) == ([], [])
    assert ended.code == ExitCode.UNAVAILABLE
    assert REFUSED in ended.err
