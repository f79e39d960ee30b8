"""`serve` and HTTP: where it is served, and what a start that cannot be says."""

import contextlib
import json
import re
import signal
import socket
import ssl
import urllib.request
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.running import running_servers
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import JobRequest
from support import forked
from support.command_line import environment, program, serving
from support.tls_files import Identity
from support.tls_fixtures import TLSFiles

pytestmark = pytest.mark.slow


def refused(archive: Path, *arguments: str) -> tuple[int, str]:
    """Start a server that cannot be; return its exit code and what it said."""
    argv = program("serve", "--archive", archive, "--port", "0", *arguments)
    ended = forked.run(argv, env=environment(), capture_output=True, text=True, timeout=60)
    assert not ended.stdout, "it was never ready"
    return ended.returncode, ended.stderr


def test_the_ready_line_tells_where_and_the_server_answers_there(tmp_path: Path) -> None:
    with serving(tmp_path / "archive", tmp_path / "serve.log", "--http-port", "0") as (server, port):
        (ready,) = [line for line in server.log_text().splitlines() if line.startswith("stowkeeper ready")]
        words = ready.split(" ")
        assert [word.split("=")[0] for word in words[2:]] == ["dicom", "aet", "http", "archive"]
        address = words[4].removeprefix("http=")
        with urllib.request.urlopen(f"http://{address}/api/system", timeout=20) as answer:
            system = json.load(answer)
    assert (system["ae_title"], system["dicom_port"]) == ("STOWKEEPER", port)


@pytest.mark.peer("openssl")
def test_the_certificate_of_https_is_renewed_by_sighup(tls_files: TLSFiles, tmp_path: Path) -> None:
    certificate, settings = tmp_path / "https.pem", tmp_path / "site.toml"

    def put(identity: Identity, path: Path) -> bytes:
        pem = Path(identity.certificate).read_text()
        path.write_text(pem + Path(identity.key).read_text())
        return ssl.PEM_cert_to_DER_cert(pem)

    def shown() -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(address, 20) as sock, context.wrap_socket(sock) as secured:
            return secured.getpeercert(binary_form=True)

    def reload(words: str, times: int = 1) -> None:
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: server.log_text().count(words) >= times, f"before it said {words}")

    first = put(tls_files.server, certificate)
    settings.write_text(f'[http]\ncertificate = "{certificate}"\n', encoding="utf-8")
    arguments = ("--config", str(settings), "--http-port", "0")
    with serving(tmp_path / "archive", tmp_path / "serve.log", *arguments) as (server, _):
        found = re.search(r" http=(\S+):([0-9]+) ", server.log_text())
        assert found is not None
        address = (found[1], int(found[2]))
        assert shown() == first
        (record,) = running_servers(tmp_path / "archive")
        assert (record.http_tls, record.tls) == (True, False)
        second = put(tls_files.client, certificate)
        reload("settings read anew")
        server.wait_until(lambda: shown() == second, "before the new certificate is shown")
        certificate.write_text("nonsense")
        reload("HTTPS goes on with the certificate that it has")
        assert shown() == second
        # The path may be another one, too.
        third = put(tls_files.server, tmp_path / "other.pem")
        settings.write_text(settings.read_text().replace("https.pem", "other.pem"))
        reload("settings read anew", 3)
        server.wait_until(lambda: shown() == third, "before the certificate of the other file is shown")
        assert 'needs_restart=""' in server.log_text().rpartition("settings read anew")[2].split("\n")[0]


def test_behind_a_proxy_nobody_is_served_without_a_credential(tmp_path: Path) -> None:
    settings = tmp_path / "site.toml"
    for line in ('allowed_hosts = ["pacs.example"]', 'trusted_proxies = ["10.1.2.3"]'):
        settings.write_text(f"[http]\n{line}\n", encoding="utf-8")
        code, said = refused(tmp_path / "archive", "--config", str(settings), "--http-port", "0")
        assert code == ExitCode.SETTINGS
        assert line.partition(" ")[0] in said
        assert "stowkeeper token add" in said
        assert not (tmp_path / "archive").exists(), "nothing is made by a start that cannot be"


def test_off_is_off(tmp_path: Path) -> None:
    with serving(tmp_path / "archive", tmp_path / "serve.log", "--http-port", "off") as (server, _):
        assert " http=" not in server.log_text().split("stowkeeper ready", 1)[1].split("\n", 1)[0]


def test_a_port_that_is_taken_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refused(tmp_path / "archive", "--http-port", str(port))
    assert code == ExitCode.UNAVAILABLE
    assert f"cannot listen on 127.0.0.1, port {port}, for HTTP" in said
    assert "--http-port" in said
    assert not (tmp_path / "archive").exists(), "nothing is made by a start that cannot be"


def test_the_network_is_not_served_without_a_credential(tmp_path: Path) -> None:
    code, said = refused(tmp_path / "archive", "--http-host", "0.0.0.0", "--http-port", "0")
    assert code == ExitCode.SETTINGS
    assert "stowkeeper token add" in said
    assert not (tmp_path / "archive").exists(), "nothing is made by a start that cannot be"


def test_a_start_that_is_refused_runs_no_job(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with serving(archive, tmp_path / "serve.log", "--http-port", "off"):
        pass
    with contextlib.closing(ArchiveReader(str(archive))) as reader:
        with reader.database.write() as transaction:
            job = rows.submit(transaction, JobRequest(kind="verify", arguments={}))
        code, _ = refused(archive, "--http-host", "0.0.0.0", "--http-port", "0")
        assert code == ExitCode.SETTINGS
        with reader.database.read() as connection:
            found = rows.find(connection, job.job_id)
    assert found is not None
    assert (found.state, found.attempts) == ("pending", 0)


def test_a_commitment_policy_that_there_is_not_is_named(tmp_path: Path) -> None:
    settings = tmp_path / "site.toml"
    settings.write_text('[commitment]\npolicy = "nonsense"\n', encoding="utf-8")
    code, said = refused(tmp_path / "archive", "--config", str(settings))
    assert code == ExitCode.SETTINGS
    assert "there is no commitment policy 'nonsense'" in said
