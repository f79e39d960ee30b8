"""Run in a private network: start a receiver, hold conversations with it one after the other, report what it logged.

The job is `{"argv": [...], "port": n, "conversations": [{"sent": [[hex, is_answered], …], "until": text}, …]}`. Each
conversation is a connection of its own; what is sent is answered by one PDU or not waited for, then the connection is
closed and the log is awaited to say `until`. The answer is `{"logs": [text, …]}`, one for each conversation, with what was
logged before the first one in front of it.
"""

import contextlib
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.private_network import bring_loopback_up, need_private_network, run_in_private_network
from support.processes import Program, running
from support.raw_peer import PeerClosed, RawPeer

_LISTENS = "0A"
_PORT = 11112
_CONFIGURATION = """\
log4cplus.rootLogger = {level}, all
log4cplus.appender.all = log4cplus::ConsoleAppender
log4cplus.appender.all.logToStdErr = true
log4cplus.appender.all.layout = log4cplus::PatternLayout
log4cplus.appender.all.layout.ConversionPattern = %p|%c|%m%n
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is sent on one connection, each with whether one PDU answers it, and how a line of the log then ends."""

    sent: Sequence[tuple[bytes, bool]]
    until: str


Entry = tuple[str, str, str]
"""A line of a log: level, logger, text."""


def logs_of(
    argv: Sequence[str], level: str, conversations: Sequence[Conversation], folder: Path
) -> list[list[Entry]]:
    """Start a receiver of DCMTK's with a log that shows level and logger, and return what it logs of conversations."""
    need_private_network()
    configuration = folder / "log.cfg"
    configuration.write_text(_CONFIGURATION.format(level=level), encoding="ascii")
    job = {
        "argv": [*argv, "-lc", str(configuration), str(_PORT)],
        "port": _PORT,
        "conversations": [
            {"sent": [[data.hex(), is_answered] for data, is_answered in each.sent], "until": each.until}
            for each in conversations
        ],
    }
    logs = run_in_private_network(Path(__file__), job)["logs"]
    return [[entry for line in text.splitlines() if (entry := _entry(line))] for text in logs]


def _entry(line: str) -> Entry | None:
    level, _, rest = line.partition("|")
    logger, separator, text = rest.partition("|")
    level = level.removeprefix("RECV: ").lstrip(".")  # standard output and error go to one file
    return (level, logger, text) if separator else None


def _listens(port: int) -> bool:
    """Tell whether somebody listens on a port, without calling it."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == _LISTENS for row in rows)


def _converse(program: Program, port: int, conversation: dict[str, Any], start: int) -> int:
    """Hold one conversation; return how long the log is then."""
    with RawPeer(port) as peer, contextlib.suppress(PeerClosed):
        for sent, is_answered in conversation["sent"]:
            peer.send(bytes.fromhex(sent))
            if is_answered:
                peer.read_pdu()
    until = conversation["until"]
    program.wait_until(lambda: f"{until}\n" in program.log_text()[start:], f"before it logged {until!r}")
    return len(program.log_text())


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job."""
    port = job["port"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with running("receiver", job["argv"], log=log) as program:
            program.wait_until(lambda: _listens(port), "before it listened")
            ends = [0]
            for conversation in job["conversations"]:
                ends.append(_converse(program, port, conversation, ends[-1]))
            text = program.log_text()
    return {"logs": [text[start:end] for start, end in itertools.pairwise(ends)]}


if __name__ == "__main__":
    bring_loopback_up()
    json.dump(run(json.load(sys.stdin)), sys.stdout)
