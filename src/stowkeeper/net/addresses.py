"""Addresses of peers as they are shown and compared."""

import ipaddress


def plain_address(address: str) -> str:
    """Write an address without its scope, and an IPv4 address that came through an IPv6 socket as IPv4."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
