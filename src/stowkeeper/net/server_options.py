"""What bounds the associations of a server, and keeps watch over their connections."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from stowkeeper.net.limits import (
    ASSOCIATION_THREADS_MAX,
    KEEP_ALIVE_IDLE_SECONDS,
    KEEP_ALIVE_INTERVAL_SECONDS,
    KEEP_ALIVE_PROBES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What bounds the associations of a server in number, size and time.

    `idle_seconds` and `message_seconds` of 0 are no limit; of the other times 0 is over at once. `drain_seconds` is how
    long `stop` waits for messages in flight. `association_request_seconds` is the ARTIM timer's (PS3.8 §9.1.4).
    `association_threads` is how many associations have a thread of their own; the others share the event loop.
    `proxies` are the networks of those whose connections begin with a PROXY header.
    """

    maximum_length: int
    associations_max: int
    associations_per_peer_max: int
    association_request_seconds: float
    idle_seconds: float
    message_seconds: float
    message_bytes_per_second_min: int
    send_seconds: float
    drain_seconds: float
    tcp_keep_alive_seconds: int = KEEP_ALIVE_IDLE_SECONDS
    tcp_keep_alive_interval_seconds: int = KEEP_ALIVE_INTERVAL_SECONDS
    tcp_keep_alive_probes: int = KEEP_ALIVE_PROBES
    association_threads: int = ASSOCIATION_THREADS_MAX
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
