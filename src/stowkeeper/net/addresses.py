"""Addresses of peers as they are shown and compared."""

import ipaddress
from collections.abc import Iterable


def plain_address(address: str) -> str:
    """Write an address without its scope, and an IPv4 address that came through an IPv6 socket as IPv4."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def is_in_networks(address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Tell whether an address, as the system reports it for a peer, lies in one of the networks. What is none lies nowhere."""
    try:
        parsed = ipaddress.ip_address(plain_address(address))
    except ValueError:
        return False
    return any(parsed in network for network in networks)
