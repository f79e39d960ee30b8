"""How and where the client sends, and what it tells of each file."""

import ssl
from dataclasses import dataclass
from typing import Protocol

from stowkeeper.services.send_plan import SendableFile
from stowkeeper.services.stow_client.address import StoreAddress
from stowkeeper.services.stow_client.answers import Result
from stowkeeper.services.stow_client.credentials import Credential
from stowkeeper.services.stow_client.limits import (
    BACK_OFF_SECONDS,
    BATCH_BYTES,
    BATCH_INSTANCES,
    RETRIES,
    RETRY_SECONDS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StowOptions:
    """How to send.

    `instances` and `bytes_max` bound a request, `parallel` their number at once, `seconds` how long the server may stand
    still. `retries` is how often a file is sent again, `retry_seconds` how long a server is tried again that takes nothing.
    `back_off_seconds` is the first wait; each further one is twice as long, up to a bound.
    """

    instances: int = BATCH_INSTANCES
    bytes_max: int = BATCH_BYTES
    parallel: int = 1
    seconds: float = 120.0
    retries: int = RETRIES
    retry_seconds: float = RETRY_SECONDS
    back_off_seconds: float = BACK_OFF_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where to post, as whom, and whom to trust; without `context` no server is called over TLS."""

    address: StoreAddress
    credential: Credential | None = None
    context: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file. `status` is that of the last HTTP answer, None when there was none."""

    file: SendableFile
    result: Result
    words: str
    reason: int | None
    status: int | None
    attempts: int


class StowObserver(Protocol):
    """Who wants to know how it goes; called in the threads of the requests, one at a time."""

    def sent(self, count: int) -> None:
        """Know of bytes that were given to the network, or, if negative, that have to be sent again."""
        ...

    def settled(self, outcome: Outcome) -> None:
        """Know what became of a file, once for each."""
        ...

    def notice(self, words: str) -> None:
        """Know of an event that a person may want to read about: a lost connection, a wait."""
        ...
