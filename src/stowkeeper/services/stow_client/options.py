"""How and where the client sends, and what it tells of each file."""

import ssl
from dataclasses import dataclass
from enum import Enum, auto
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
    `back_off_seconds` is the first wait; each further one is twice as long, up to a bound. Without `waits_when_busy` a server
    that is busy, or out of resources, ends the sending at once: whoever asked comes again.
    """

    instances: int = BATCH_INSTANCES
    bytes_max: int = BATCH_BYTES
    parallel: int = 1
    seconds: float = 120.0
    retries: int = RETRIES
    retry_seconds: float = RETRY_SECONDS
    back_off_seconds: float = BACK_OFF_SECONDS
    waits_when_busy: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where to post, as whom, and whom to trust; without `context` no server is called over TLS.

    `credential_hint` tells a person how to give a credential, where the server asks for one.
    """

    address: StoreAddress
    credential: Credential | None = None
    context: ssl.SSLContext | None = None
    credential_hint: str = "give --token-file or --user"


class Cause(Enum):
    """What decided on a file."""

    ANSWER = auto()
    """The server said so, of the file or of a request with nothing else in it."""
    NO_ANSWER = auto()
    """It was sent as often as it may be, and no answer told of it."""
    FILE = auto()
    """It could not be read to its end, or is not what it has to be."""
    END = auto()
    """The sending ended before: it may be taken at another time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What ended a sending before all was decided.

    `is_for_all`: whatever is sent there would fare the same at present. `asked_seconds` is what the server asked for by
    Retry-After.
    """

    sentence: str
    is_for_all: bool = True
    asked_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file. `status` is that of the last HTTP answer, None when there was none.

    Of a file that failed, `may_pass` says that it may be stored at another time.
    """

    file: SendableFile
    result: Result
    words: str
    reason: int | None
    status: int | None
    attempts: int
    cause: Cause
    may_pass: bool = False


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
