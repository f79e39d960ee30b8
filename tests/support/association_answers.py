"""Run in a private network: start a receiver, send it A-ASSOCIATE-RQ PDUs one after the other, report the answers.

The job is `{"argv": [...], "port": n, "requests": [hex, …]}`; the answer `{"answers": [hex or null, …], "log": text,
"exit": code or null}`. Null stands for a connection that was closed, or left without answer, and the exit code for a
receiver that ended before it listened.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from support.private_network import bring_loopback_up
from support.processes import ProgramFailed, running
from support.raw_peer import PeerClosed, RawPeer, pdu

QUIET_SECONDS = 1.5
"""How long a receiver that says nothing at all is waited for."""


def answer_to(port: int, request: bytes) -> str | None:
    """Send one request and return the whole PDU that answers it."""
    with RawPeer(port) as peer:
        peer.socket.settimeout(QUIET_SECONDS)
        peer.send(request)
        try:
            answer = peer.read_pdu()
        except (PeerClosed, TimeoutError):
            return None
        return pdu(answer.kind, answer.body).hex()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running("receiver", job["argv"], log=log) as program:
            try:
                program.wait_until_listening(job["port"])
            except ProgramFailed:
                return {"answers": [], "log": program.log_text(), "exit": program.process.poll()}
            answers = [answer_to(job["port"], bytes.fromhex(request)) for request in job["requests"]]
        return {"answers": answers, "log": program.log_text(), "exit": None}


if __name__ == "__main__":
    bring_loopback_up()
    json.dump(run(json.load(sys.stdin)), sys.stdout)
