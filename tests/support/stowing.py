"""What tests of the STOW-RS client share: files to send, an observer that remembers, and one call that sends."""

import os
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stowkeeper.services.send_plan import SendableFile, read_sendable
from stowkeeper.services.stow_client.address import read_address
from stowkeeper.services.stow_client.credentials import Credential
from stowkeeper.services.stow_client.journal import Journal
from stowkeeper.services.stow_client.options import Destination, Outcome, StowOptions
from stowkeeper.services.stow_client.sending import stow_files
from support.send_files import LONG_AGO_NS, write_file

QUICK = {"back_off_seconds": 0.01, "seconds": 10.0}
"""Options that keep a test short."""


@dataclass
class Seen:
    """What an observer was told, and what ended the sending."""

    outcomes: list[Outcome] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    bytes_sent: int = 0
    ended_by: str = ""

    def sent(self, count: int) -> None:
        self.bytes_sent += count

    def settled(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def notice(self, words: str) -> None:
        self.notices.append(words)

    @property
    def results(self) -> dict[str, str]:
        """The result of each file by the last number of its SOP Instance UID."""
        assert len({outcome.file.path for outcome in self.outcomes}) == len(self.outcomes)
        return {number_of(outcome): outcome.result.value for outcome in self.outcomes}

    def of(self, number: int) -> Outcome:
        (outcome,) = [outcome for outcome in self.outcomes if number_of(outcome) == str(number)]
        return outcome


def number_of(outcome: Outcome) -> str:
    return outcome.file.sop_instance_uid.rpartition(".")[2]


def make_files(folder: Path, count: int, pixels: bytes = b"12345678") -> list[SendableFile]:
    """Write instances 1.2.3.0 and so on, as of long ago, and look at them as the command does."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        write_file(path, number, pixels=pixels)
        os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return [read_sendable(str(path)) for path in paths]


def stow(
    files: Sequence[SendableFile],
    url: str,
    *,
    study: str = "",
    credential: Credential | None = None,
    context: ssl.SSLContext | None = None,
    journal: Journal | None = None,
    **options: float,
) -> Seen:
    """Send files to their end; nothing is left behind."""
    seen = Seen()
    destination = Destination(address=read_address(url, study), credential=credential, context=context)
    chosen = StowOptions(**{**QUICK, **options})  # type: ignore[arg-type]  # numbers of either kind
    seen.ended_by = stow_files(files, destination, chosen, seen, journal)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stowkeeper-stow")]
    if seen.outcomes:
        assert seen.bytes_sent == sum(outcome.file.size for outcome in seen.outcomes)
    return seen
