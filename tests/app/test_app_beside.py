"""What runs beside the receiver of `serve`: that it is honest about jobs nobody runs, and ends whatever hangs."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from stowkeeper.app.limits import BACKGROUND_END_SECONDS
from stowkeeper.database.schema import commitments
from support.command_line import environment
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.processes import running
from support.quick_web import PLAIN_HTTP
from support.raw_commitment import action_data, ask, push_model_context
from support.raw_peer import EXPLICIT_VR_LITTLE_ENDIAN, Context, RawPeer
from support.server_process import FEW_SLOTS, looking_into, serve_process

SCANNER = '[[peers]]\nname = "scanner"\nae_title = "SCANNER"\nhost = "127.0.0.1"\nport = 1\n'


def asked(port: int, uid: str) -> tuple[int, str]:
    """Ask for a commitment as SCANNER; return the answer's status and comment."""
    with RawPeer(port) as peer:
        peer.associate(push_model_context(), calling=b"SCANNER")
        answer = ask(peer, action_data(uid, [(CT_IMAGE_STORAGE, "1.2.3.1")]))
        peer.release()
    return answer.status, answer.comment


def asked_by_http(log: str, uid: str) -> list[httpx.Response]:
    """Ask for a commitment by the web form, and have the peer `scanner` asked for one in Orthanc's shape."""
    (place,) = re.findall(r"^stowkeeper ready .*\bhttp=(\S+)", log, re.MULTILINE)
    item = {
        "00081150": {"vr": "UI", "Value": [CT_IMAGE_STORAGE]},
        "00081155": {"vr": "UI", "Value": ["1.2.3.1"]},
    }
    requests = (
        (f"/dicom-web/commitment-requests/{uid}", {"00081199": {"vr": "SQ", "Value": [item]}}),
        ("/modalities/scanner/storage-commitment", {"DicomInstances": [[CT_IMAGE_STORAGE, "1.2.3.1"]]}),
    )
    with httpx.Client(
        base_url=f"http://{place}", headers={"Content-Type": "application/dicom+json"}, verify=PLAIN_HTTP
    ) as client:
        return [client.post(path, json=body) for path, body in requests]


@pytest.mark.slow
def test_a_server_that_runs_no_jobs_takes_no_commitments(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    with serve_process(tmp_path, settings=SCANNER) as server:
        assert asked(server.port, "1.2.840.1") == (0, "")
    jobs = tmp_path / "archive" / "jobs"
    for path in jobs.iterdir():
        path.unlink()
    jobs.rmdir()
    jobs.write_text("no folder")
    with serve_process(tmp_path, settings=SCANNER, environment={"STOWKEEPER_HTTP__PORT": "0"}) as server:
        server.wait_for_log("jobs cannot run here")
        assert asked(server.port, "1.2.840.2") == (0x0110, "nobody works on storage commitments here now")
        for answer in asked_by_http(server.log_text(), "1.2.840.3"):
            assert answer.status_code == 503
            assert "nobody works on storage commitments here now" in answer.text
            assert int(answer.headers["retry-after"]) > 0
        with looking_into(server.archive) as reader, reader.database.read() as connection:
            found = connection.execute(select(commitments.c.transaction_uid)).scalars().all()
        assert found == ["1.2.840.1"]


# Its end


STUCK = """
import os, sys, threading
from stowkeeper.app.commands import run
from stowkeeper.archive import archive
from stowkeeper.durable.filesystem import FileSystem

class Stuck(FileSystem):
    __slots__ = ()
    def open_for_reading(self, path):
        if "/objects/" in path and os.path.exists(sys.argv[2]):
            print("it hangs", flush=True)
            threading.Event().wait()
        return super().open_for_reading(path)

archive.FileSystem = Stuck
sys.exit(run(["serve", "--archive", sys.argv[1], "--port", "0", "--config", sys.argv[3]]))
"""
"""A server whose disk does not answer as soon as a file is there that says so."""


@pytest.mark.slow
def test_a_server_ends_whatever_hangs_on_its_disk(tmp_path: Path) -> None:
    archive, away, config = tmp_path / "archive", tmp_path / "away", tmp_path / "stowkeeper.toml"
    config.write_text(SCANNER + "[jobs]\nscrub_days = 0\n", encoding="utf-8")
    argv = [sys.executable, "-c", STUCK, str(archive), str(away), str(config)]
    with running(
        "stowkeeper", argv, log=tmp_path / "log", environment={**environment(), **FEW_SLOTS}
    ) as server:
        server.wait_until(lambda: "stowkeeper ready" in server.log_text(), "before it was ready")
        port = int(server.log_text().split("dicom=127.0.0.1:")[1].split()[0])
        instance = make_instance(1)
        with RawPeer(port) as peer:
            peer.associate(
                Context(
                    context_id=1,
                    abstract_syntax=instance.sop_class_uid,
                    transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,),
                ),
                calling=b"SCANNER",
            )
            answer = peer.store(
                instance.sop_instance_uid,
                instance.data,
                context_id=1,
                sop_class_uid=instance.sop_class_uid,
            )
            assert answer.status == 0
            peer.release()
        server.wait_until(lambda: list(archive.glob("objects/*/*/*.dcm")) != [], "before it was listed")
        away.touch()
        assert asked(port, "1.2.840.1") == (0, "")
        server.wait_until(lambda: "it hangs" in server.log_text(), "before the check began")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30.0) == 0


TO_THREAD = """
import asyncio, sys, threading, time
from stowkeeper.app import background as limited
from stowkeeper.app.background import Background
from stowkeeper.app.commands.event_loop import new_event_loop

begun = threading.Event()
def work():
    if sys.argv[1] == "hangs":
        limited.BACKGROUND_END_SECONDS = 0.5
        begun.set()
        threading.Event().wait()
    begun.set()
    time.sleep(0.3)
    print("written", flush=True)

background = Background({"uvloop": new_event_loop, "asyncio": asyncio.new_event_loop}[sys.argv[2]])
background.start()
task = threading.Thread(target=lambda: asyncio.run(background.run(asyncio.to_thread(work))), daemon=True)
task.start()
begun.wait()
background.close()
print("closed", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize(("work", "said"), [("ends", "written\nclosed\n"), ("hangs", "closed\n")])
def test_the_end_waits_for_work_on_threads_a_while_and_no_longer(work: str, said: str, loop: str) -> None:
    assert BACKGROUND_END_SECONDS == 5.0
    ended = subprocess.run(
        [sys.executable, "-c", TO_THREAD, work, loop],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout == said, ended.stderr
    assert ended.returncode == 0
