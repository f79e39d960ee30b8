"""What the routes are given: the archive, the peers, the jobs, and the facts of the server. Made by who wires it all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.services.commitment.asking import DEFAULT_TERMS, AskTerms
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.file_terms import FileTerms
from stowkeeper.services.peers import PeerBook
from stowkeeper.services.store_request_limits import PARTS_MAX
from stowkeeper.web.limits import (
    CLIENT_FAILURES_BURST,
    CLIENT_FAILURES_PER_SECOND,
    FAILED_AUTHENTICATIONS_BURST,
    FAILED_AUTHENTICATIONS_PER_SECOND,
    REQUEST_SECONDS,
    REQUESTS_BURST,
    REQUESTS_PER_SECOND,
)

if TYPE_CHECKING:  # the routes that need it import it
    from stowkeeper.services.commitment.requests import CommitmentService


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the server says of itself. `started_at` is UTC in ISO 8601, `dicom_port` 0 where no DICOM is spoken."""

    version: str
    ae_title: str
    dicom_host: str
    dicom_port: int
    started_at: str


def _no_tls() -> TLSContext:
    raise TLSSetupError(TLSFault.KEY, "", "the server was not told with which certificate it calls peers")


@dataclass(frozen=True, slots=True, kw_only=True)
class DICOMwebOptions:
    """How DICOMweb is served (PS3.18).

    `base_path` begins with a slash and has none at its end. `retrieve_url` is that of a service where kept instances can be had,
    '' for none. `requests_max` bounds the store requests at the same time, `parts_max` the parts of one, `part_bytes_max` the bytes
    of a part; 0 bounds nothing. `warnings_are_successes`: 200 where nothing but warnings is to be reported, not 202.
    """

    base_path: str = "/dicom-web"
    retrieve_url: str = ""
    requests_max: int = 0
    parts_max: int = PARTS_MAX
    part_bytes_max: int = 0
    warnings_are_successes: bool = False


DEFAULT_DICOMWEB = DICOMwebOptions()


def _default_terms(_address: str) -> FileTerms:
    return FileTerms()


@dataclass(frozen=True, slots=True, kw_only=True)
class WebServices:
    """Everything that routes work with. Each of its functions may be called from any thread.

    `archive` is an `Archive` where instances can be received too, else an `ArchiveReader`. `jobs_wake` makes the engine
    look for jobs that were submitted just now; `are_jobs_run` tells whether there is one that does. `associations` gives those
    that are open. `broken` says what of the receive path does not work, '' for nothing. `traced` gives the numbers of the spans of traces that were
    sent and dropped. `commitment` takes requests of the web form of storage commitment (PS3.18 chapter 13). `calling_tls` sets up the TLS with
    which peers are called that want it; `ask_terms` are those on which peers are asked to commit instances. `file_terms` gives
    those on which files are taken that come from an address.
    """

    archive: ArchiveReader
    peers: PeerBook
    facts: ServerFacts
    jobs_wake: Callable[[], None]
    associations: Callable[[], Sequence[AssociationFacts]]
    are_jobs_run: Callable[[], bool] = lambda: True
    broken: Callable[[], str] = lambda: ""
    traced: Callable[[], Mapping[str, int]] = dict
    commitment: "CommitmentService | None" = None
    calling_tls: Callable[[], TLSContext] = _no_tls
    ask_terms: AskTerms = DEFAULT_TERMS
    file_terms: Callable[[str], FileTerms] = _default_terms
    dicomweb: DICOMwebOptions = DEFAULT_DICOMWEB

    @property
    def database(self) -> Database:
        """The database of the archive."""
        return self.archive.database

    @property
    def own_side(self) -> OwnSide:
        """What we are when we call a peer."""
        return OwnSide(ae_title=self.facts.ae_title, tls=self.calling_tls)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """How HTTP is served.

    `host` is the address that the server listens on: without a credential only a loopback address serves. `trusted_proxies` are
    addresses and networks of proxies that are believed whom they speak for, and how that one spoke to them.
    `allowed_hosts` are names, in lower case and without a port, by which we may be called besides those that are
    ours anyway (see `origins.py`). `allowed_origins` are origins of other web pages, such as `https://viewer.example`, whose
    requests are let through (CORS); none as shipped. `request_seconds` is the time to the beginning of an answer where
    a route says nothing else. The rates are those of one client address, `failed_authentications_…` for one name of it.
    """

    host: str = "127.0.0.1"
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    allowed_hosts: frozenset[str] = field(default_factory=frozenset)
    allowed_origins: frozenset[str] = field(default_factory=frozenset)
    request_seconds: float = REQUEST_SECONDS
    requests_per_second: float = REQUESTS_PER_SECOND
    requests_burst: float = REQUESTS_BURST
    failed_authentications_per_second: float = FAILED_AUTHENTICATIONS_PER_SECOND
    failed_authentications_burst: float = FAILED_AUTHENTICATIONS_BURST
    client_failures_per_second: float = CLIENT_FAILURES_PER_SECOND
    client_failures_burst: float = CLIENT_FAILURES_BURST
