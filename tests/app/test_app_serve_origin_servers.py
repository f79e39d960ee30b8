"""`stowkeeper serve` forwards to origin servers, takes new ones at a reload, and keeps credentials to itself."""

import signal
from pathlib import Path

import pytest

from stowkeeper.jobs import rows
from stowkeeper.services.stow_submission import submit_stow
from support.instances import EXPLICIT_VR_LITTLE_ENDIAN, make_instance
from support.job_engine_thread import wait_until
from support.raw_peer import Context, RawPeer
from support.scripted_dicomweb import scripted_server
from support.server_process import ServerProcess, looking_into, serve_process
from support.store_rig import STUDY
from support.stow_job_rig import origin_server

pytestmark = pytest.mark.slow


def submit_to(server: ServerProcess, name: str, state: str) -> str:
    """Have the server send a study; wait until the job is in a state, and return its last words."""
    with looking_into(server.archive) as reader:
        with reader.database.write() as transaction:
            job = submit_stow(
                transaction, origin_server("http://localhost", name=name), [STUDY], created_by="a test"
            )

        def now() -> str | None:
            with reader.database.read() as connection:
                found = rows.find(connection, job.job_id)
            return found.error if found is not None and found.state == state else None

        words: str = wait_until(now, f"{state} of the job to {name}")
        return words


def store(port: int, number: int) -> None:
    """Send an instance over C-STORE."""
    instance = make_instance(number)
    context = Context(
        context_id=1, abstract_syntax=instance.sop_class_uid, transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,)
    )
    with RawPeer(port) as peer:
        peer.associate(context)
        answer = peer.store(
            instance.sop_instance_uid, instance.data, context_id=1, sop_class_uid=instance.sop_class_uid
        )
        assert answer.status == 0
        peer.release()


def test_a_rule_sends_to_an_origin_server_and_a_reload_brings_another(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (tmp_path / "token").write_text("secret-of-this-site\n")
    with scripted_server() as web:
        table = f'[[origin_servers]]\nname = "one"\nurl = "{web.url}"\ntoken_file = "token"\n'
        start = '[log]\nlevel = "debug"\n[[forwarding_rules]]\nname = "all"\nto = ["one"]\n' + table
        with serve_process(tmp_path, settings=start) as server:
            store(server.port, 1)
            wait_until(lambda: web.stored == ["1.2.3.1"], "what was received is forwarded")
            assert "there is no origin server two" in submit_to(server, "two", "failure")
            again = start + table.replace('"one"', '"two"')
            (tmp_path / "stowkeeper.toml").write_text(again, encoding="utf-8")
            server.signal(signal.SIGHUP)
            server.wait_for_log("settings read anew")
            assert submit_to(server, "two", "success") == "1 instance stored"
    assert web.stored == ["1.2.3.1", "1.2.3.1"]
    assert [request.fields["authorization"] for request in web.requests] == ["Bearer secret-of-this-site"] * 2
    written = [
        server.log_text().encode(),
        *(path.read_bytes() for path in archive.rglob("*") if path.is_file()),
    ]
    assert not any(b"secret-of-this-site" in content for content in written)
