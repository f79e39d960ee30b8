"""Requests that come by way of a proxy: whose they are, and how that one spoke to the proxy.

What a request says of itself is believed of the proxies that the settings name, and of nobody else. A chain of proxies is
followed from our end: each tells who came to it, and the first that is not trusted is the client. From then on it stands in the
scope of the request as if it had come by itself, for rates, for the log and for receipts.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from stowkeeper.web.problems import ProblemError
from stowkeeper.web.throttling import plain_address

Networks = Sequence[IPv4Network | IPv6Network]

FIELDS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""Fields that a proxy adds. Where one is there, the request is not of who connected."""

_SCHEMES = frozenset({"http", "https"})
_PAIR = re.compile(r'\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)=("(?:[^"\\]|\\.)*+"|[^\s",;]*)\s*([;,]|\Z)')


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hop:
    """One step of a request. `address` is who came, '' where that is not told; `scheme` how, '' likewise."""

    address: str
    scheme: str = ""


class ForwardedRequests:
    """Puts the client of a request that a trusted proxy forwarded into its scope, and the scheme that it used."""

    def __init__(self, app: ASGIApp, *, trusted_proxies: Networks) -> None:
        self._app = app
        self._trusted = tuple(trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises ProblemError where the fields of a trusted proxy contradict each other."""
        if scope["type"] == "http" and self._trusted and scope.get("client"):
            address = scope["client"][0]
            if is_trusted(address, self._trusted):
                self._believe(scope, address)
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope, address: str) -> None:
        headers = Headers(scope=scope)
        chains = [self._client(address, hops) for hops in _chains(headers)]
        if not chains:
            return
        if len({client for client, _ in chains}) > 1:
            # A proxy sets one of them and lets the other through as the client wrote it; nobody can tell which.
            raise ProblemError(
                400,
                "the fields Forwarded and X-Forwarded-For tell of two clients: have the proxy remove one of them",
            )
        client, _ = chains[0]
        if client != address:
            scope["client"] = (client, 0)
        schemes = [scheme for _, scheme in chains if scheme]
        if schemes:
            scope["scheme"] = schemes[0]

    def _client(self, address: str, hops: Sequence[_Hop]) -> tuple[str, str]:
        """Return who came to the first of the proxies that are trusted, and by which scheme."""
        scheme = ""
        for hop in reversed(hops):
            scheme = hop.scheme
            if not hop.address:
                break
            address = hop.address
            if not is_trusted(address, self._trusted):
                break
        return address, scheme


def is_trusted(address: str, networks: Networks) -> bool:
    """Tell whether an address, as the system reports it, lies in one of some networks."""
    parsed = plain_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _chains(headers: Headers) -> Iterator[list[_Hop]]:
    """Yield the hops that each kind of field tells of, the farthest first."""
    fields = headers.getlist("x-forwarded-for")
    schemes = [
        one.strip().lower() for field in headers.getlist("x-forwarded-proto") for one in field.split(",")
    ]
    if fields:
        addresses = [_address(one) for field in fields for one in field.split(",")]
        # The last of both belong to each other. A proxy may tell the scheme alone, and then it is that of the first hop.
        padded = [schemes[0] if schemes else ""] * (len(addresses) - len(schemes)) + schemes[
            -len(addresses) :
        ]
        yield [
            _Hop(address=address, scheme=scheme if scheme in _SCHEMES else "")
            for address, scheme in zip(addresses, padded, strict=True)
        ]
    elif schemes and not headers.getlist("forwarded"):
        yield [_Hop(address="", scheme=schemes[-1] if schemes[-1] in _SCHEMES else "")]
    if headers.getlist("forwarded"):
        yield list(_forwarded(",".join(headers.getlist("forwarded"))))


def _forwarded(field: str) -> Iterator[_Hop]:
    """Yield the hops of a field Forwarded (RFC 7239 §4). What is malformed ends it with a hop that tells nothing."""
    pairs: dict[str, str] = {}
    place = 0
    hops: list[_Hop] = []
    while place < len(field):
        found = _PAIR.match(field, place)
        if found is None:
            # Nothing to the left of it is believed: what stands to the right was told later.
            hops.append(_Hop(address=""))
            comma = field.find(",", place)
            if comma < 0:
                break
            pairs, place = {}, comma + 1
            continue
        name, value, end = found.groups()
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        pairs.setdefault(name.lower(), value)
        place = found.end()
        if end != ";":
            hops.append(_hop(pairs))
            pairs = {}
    yield from hops


def _hop(pairs: dict[str, str]) -> _Hop:
    scheme = pairs.get("proto", "").lower()
    return _Hop(address=_address(pairs.get("for", "")), scheme=scheme if scheme in _SCHEMES else "")


def _address(text: str) -> str:
    """Return the address of a hop, without its port; '' where it is none, as `unknown` and names that hide one."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
