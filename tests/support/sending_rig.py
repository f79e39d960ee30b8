"""Sending to a scripted acceptor, with everything told to an observer that remembers it."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.services.send_plan import SendableFile, plan_sending
from stowkeeper.services.sending import Destination, Outcome, Result, SendOptions, send_files
from support.scripted_acceptor import Received
from support.send_files import LONG_AGO_NS, write_file

QUICK = SendOptions(
    calling_ae_title="STOWKEEPER",
    back_off_seconds=0.001,
    timeouts=ClientTimeouts(connect_seconds=5, association_seconds=5, progress_seconds=5, release_seconds=5),
)
IMPATIENT = ClientTimeouts(
    connect_seconds=5, association_seconds=0.3, progress_seconds=0.3, release_seconds=0.3
)
WAIT_SECONDS = 30.0


class Observer:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.bytes_sent = 0
        self.notices: list[str] = []

    def sent(self, count: int) -> None:
        """Add up."""
        self.bytes_sent += count

    def decided(self, outcome: Outcome) -> None:
        """Keep the outcome."""
        self.outcomes.append(outcome)

    def notice(self, words: str) -> None:
        """Keep the words."""
        self.notices.append(words)

    def result_of(self, number: int) -> Outcome:
        """Return the outcome of instance 1.2.3.<number>."""
        (outcome,) = [one for one in self.outcomes if one.file.sop_instance_uid == f"1.2.3.{number}"]
        return outcome

    @property
    def results(self) -> Counter[Result]:
        """Count the outcomes."""
        return Counter(outcome.result for outcome in self.outcomes)


def options_with(**changes: Any) -> SendOptions:
    """Return quick options with changes."""
    return replace(QUICK, **changes)


def send(
    files: Iterable[SendableFile], port: int, options: SendOptions = QUICK
) -> tuple[Observer, AssociationError | None]:
    """Send files; check what holds however it ends."""
    planned = list(files)
    observer = Observer()

    async def work() -> AssociationError | None:
        async with asyncio.timeout(WAIT_SECONDS):
            destination = Destination(ae_title="PEER", host="127.0.0.1", port=port)
            return await send_files(planned, destination, options, observer)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        error = runner.run(work())
    assert sorted(outcome.file.path for outcome in observer.outcomes) == sorted(file.path for file in planned)
    assert observer.bytes_sent == sum(file.data_set_length for file in planned)
    return observer, error


def make_files(folder: Path, count: int, **values: Any) -> list[SendableFile]:
    """Write instances 1.2.3.0 and so on into a folder, as of long ago; return them as planned."""
    for number in range(count):
        path = folder / f"{number:04}.dcm"
        write_file(path, number, **values)
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return plan_sending([str(folder)]).files


def uid_of(received: Received) -> str:
    """Return the SOP Instance UID of a C-STORE request."""
    assert isinstance(received.message, CStoreRequest)
    return received.message.affected_sop_instance_uid or ""
