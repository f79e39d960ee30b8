"""Rates by client address: a bucket of tokens for each, and a bound on how many are remembered."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from stowkeeper.web.limits import CLIENTS_REMEMBERED_MAX

_IPV6_NETWORK_BITS = 64
"""One customer has at least that much of IPv6 (RFC 6177): addresses of one such network count as one client."""


class RateLimit:
    """Lets each client do something `burst` times at once, and `per_second` times a second in the long run.

    For one thread. A client that was not heard of for longest is forgotten first.
    """

    def __init__(
        self,
        *,
        per_second: float,
        burst: float,
        clients_max: int = CLIENTS_REMEMBERED_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clients_max = clients_max
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Count one time. Returns 0 where it is allowed, else the seconds until it will be."""
        wait = self.wait(client)
        if wait == 0:
            tokens, at = self._filled(client)
            self._buckets[client] = (tokens - 1, at)
            self._buckets.move_to_end(client)
            while len(self._buckets) > self._clients_max:
                self._buckets.popitem(last=False)
        return wait

    def wait(self, client: str) -> float:
        """Return the seconds until a client may, without counting; 0 where it may now."""
        tokens, _ = self._filled(client)
        return 0.0 if tokens >= 1 else (1 - tokens) / self._per_second

    def _filled(self, client: str) -> tuple[float, float]:
        now = self._clock()
        tokens, at = self._buckets.get(client, (self._burst, now))
        return min(self._burst, tokens + (now - at) * self._per_second), now


def client_of(address: str) -> str:
    """Return what clients are told apart by: an IPv4 address, or the network of an IPv6 one."""
    parsed = plain_address(address)
    if parsed is None:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, _IPV6_NETWORK_BITS), strict=False))
    return str(parsed)


def plain_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address as the system reports it, without a zone, an IPv4 one as such; None for what is none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
