"""SIGKILL while instances are stored by HTTP: what an answer named as stored is there, and nothing half-written is seen."""

import json
import os
import re
import signal
import socket
import stat
import threading
from pathlib import Path
from random import Random

import httpx
import pytest

from stowkeeper.app.exit_codes import ExitCode
from support.command_line import CommandLine, serving
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.live_folder import statuses_below
from support.metadata_requests import identifiers
from support.orthanc_rig import part10_of
from support.processes import Program
from support.stow_bodies import BOUNDARY, answer_of, body_of, part
from support.web_studies import PARTS, STUDIES

pytestmark = pytest.mark.slow

ROUNDS = 4
BATCH = 5
CLIENTS = 3
RECOVERY_SECONDS = 120.0


class Storing:
    """Clients that store batch after batch until their server is gone, and note what was acknowledged."""

    def __init__(self, url: str, first: int) -> None:
        self.acknowledged: list[str] = []
        self._url = url
        self._first = first
        self._threads = [
            threading.Thread(target=self._store, args=(number,), daemon=True) for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _store(self, client: int) -> None:
        number = self._first + client * 10_000
        try:
            while True:
                sizes = Random(number)
                files = [
                    part10_of(make_instance(number + each, size=sizes.choice((100, 5_000, 300_000))))
                    for each in range(BATCH)
                ]
                number += BATCH
                response = httpx.post(self._url, content=body_of(*files), headers=PARTS, timeout=30)
                assert response.status_code == 200
                self.acknowledged += answer_of(response.content).stored
        except httpx.HTTPError:
            return  # the server is gone

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


def url_of(server: Program) -> str:
    found = re.search(r"http=(\S+) archive=", server.log_text())
    assert found is not None
    return f"http://{found[1]}{STUDIES}"


def test_killed_while_storing_nothing_acknowledged_is_lost(
    memory_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = memory_path / "archive"
    acknowledged: list[str] = []
    for turn in range(ROUNDS):
        with serving(archive, memory_path / f"{turn}.log", "--http-port", "0") as (server, _):
            storing = Storing(url_of(server), first=turn * 100_000)
            wanted = 10 + 20 * turn
            wait_until(lambda storing=storing, wanted=wanted: len(storing.acknowledged) >= wanted, "answers")
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(30)
            storing.wait()
            acknowledged += storing.acknowledged
    stow = CommandLine(archive, capsys)
    with serving(archive, memory_path / "last.log") as (server, _):
        # Its recovery runs after the ready line, and takes its time where others need the machine.
        server.wait_until(
            lambda: set(acknowledged) <= {row["sop_instance_uid"] for row in stow.list("instances")},
            "before the acknowledged instances were listed",
            RECOVERY_SECONDS,
        )
    assert stow("verify").code == ExitCode.OK
    assert len(set(acknowledged)) == len(acknowledged) >= 10


def test_killed_while_bulk_data_arrive_nothing_of_them_is_left(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    octets = {"Content-Type": "application/octet-stream", "Content-Location": "here"}
    metadata = json.dumps([identifiers(t00282000={"vr": "OB", "BulkDataURI": "here"})]).encode()
    sent = part(metadata, {"Content-Type": "application/dicom+json"}) + part(bytes(20_000_000), octets)
    with serving(archive, tmp_path / "log", "--http-port", "0") as (server, _):
        before = bytes_under(archive)
        host, _, port = url_of(server).removeprefix("http://").partition("/")[0].partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = (
                f"POST {STUDIES} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(sent) + 100}\r\n"
                f'Content-Type: multipart/related; type="application/dicom+json"; boundary={BOUNDARY}\r\n\r\n'
            )
            connection.sendall(head.encode() + sent)
            wait_until(lambda: spooled_bytes(server, archive) > 15_000_000, "bulk data on the disk")
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(30)
    assert bytes_under(archive) - before < 1_000_000


def spooled_bytes(server: Program, archive: Path) -> int:
    """Return the length of what the server has open below its archive and has no name there."""
    found = 0
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
            if target.startswith(str(archive)) and target.endswith("(deleted)"):
                found += descriptor.stat().st_size
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def bytes_under(archive: Path) -> int:
    found = statuses_below(archive).values()
    return sum(status.st_size for status in found if stat.S_ISREG(status.st_mode))
