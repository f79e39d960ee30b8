"""Patterns of hosts_access(5): which daemons and clients a list of words means.

A pattern may match, not match, or be undecidable: netgroups, lists of hosts in other files, and networks that are
malformed. What follows from that is decided where the answer is needed.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_UNKNOWN: Final = "unknown"
_PARANOID: Final = "paranoid"
_NUMERIC = re.compile(r"[0-9./]*")
_PREFIX_LENGTH = re.compile(r"[0-9]{1,3}", re.ASCII)

Maybe = bool | None
"""Whether something matches; None where it cannot be decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who wants to connect: an address, and the host name that a reverse lookup gave, None for none.

    `name_is_confirmed` is False when the name does not lead back to the address (PARANOID). The user is never known.
    """

    address: str
    name: str | None = None
    name_is_confirmed: bool = True


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Split a text at the first separator that is not within brackets, as IPv6 addresses are."""
    depth = 0
    for at, character in enumerate(text):
        if character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
        elif character == separator and depth == 0:
            return [text[:at], text[at + 1 :]]
    return [text]


class Host:
    """A client as patterns see it: texts, and its address as a number.

    An IPv4 address in the clothes of IPv6 is the IPv4 address. None as client is an end of which nothing is known.
    """

    __slots__ = ("address", "name", "number")

    def __init__(self, client: Client | None) -> None:
        self.address = _UNKNOWN
        self.name = _UNKNOWN
        self.number: IPv4Address | IPv6Address | None = None
        if client is None:
            return
        self.address = client.address.partition("%")[0] or _UNKNOWN
        self.name = (client.name or _UNKNOWN) if client.name_is_confirmed else _PARANOID
        try:
            number = ip_address(self.address)
        except ValueError:
            return
        mapped = number.ipv4_mapped if isinstance(number, IPv6Address) else None
        self.number = mapped or number
        self.address = str(self.number)

    @property
    def has_name(self) -> bool:
        """Whether the host has a name that can be relied on."""
        return self.name.lower() not in {_UNKNOWN, _PARANOID}


_OUR_END: Final = Host(None)
"""Our own end of the connection, of which nothing is known."""


def daemons_match(words: Sequence[str], daemon: str) -> Maybe:
    """Match the list of daemons of a rule."""
    return _list_matches(words, lambda word: _daemon_matches(word, daemon))


def clients_match(words: Sequence[str], host: Host) -> Maybe:
    """Match the list of clients of a rule."""
    return _list_matches(words, lambda word: _client_matches(word, host))


def both(one: Maybe, other: Maybe) -> Maybe:
    """Say whether two things match together."""
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _list_matches(words: Sequence[str], matches: Callable[[str], Maybe]) -> Maybe:
    """Match `A B EXCEPT C D EXCEPT E`, in which each EXCEPT takes from all before it what all behind it matches."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word.upper() == "EXCEPT":
            parts.append([])
        else:
            parts[-1].append(word)
    excluded: Maybe = False
    for part in reversed(parts):
        found = [matches(word) for word in part]
        any_matches: Maybe = True if True in found else None if None in found else False
        excluded = both(any_matches, None if excluded is None else not excluded)
    return excluded


def _daemon_matches(word: str, daemon: str) -> Maybe:
    name, *host = _split_after_first(word)
    if not host:
        return _text_matches(word, daemon)
    return both(_text_matches(name, daemon), _host_matches(host[0], _OUR_END))


def _client_matches(word: str, host: Host) -> Maybe:
    user, *pattern = _split_after_first(word)
    if not pattern:
        return _host_matches(word, host)
    return both(_host_matches(pattern[0], host), _text_matches(user, _UNKNOWN))


def _split_after_first(word: str) -> list[str]:
    """Split `user@host`; an @ that comes first belongs to a netgroup."""
    first, *rest = split_outside_brackets(word[1:], "@")
    return [word[0] + first, *rest]


def _host_matches(pattern: str, host: Host) -> Maybe:
    if pattern.startswith(("@", "/")):
        return None
    if pattern.upper() == "KNOWN":
        return host.address != _UNKNOWN and host.has_name
    if pattern.upper() == "LOCAL":
        return host.has_name and "." not in host.name
    net, *mask = split_outside_brackets(pattern, "/")
    if mask:
        return _network_matches(net, mask[0], host.number)
    if pattern.startswith("[") and pattern.endswith("]") and isinstance(host.number, IPv6Address):
        return _network_matches(pattern, "128", host.number)
    if _text_matches(pattern, host.address):
        return True
    return _NUMERIC.fullmatch(pattern) is None and _text_matches(pattern, host.name)


def _text_matches(pattern: str, text: str) -> bool:
    """Match a name or an address in digits, without regard to case."""
    pattern, text = pattern.lower(), text.lower()
    if "*" in pattern or "?" in pattern:
        return fnmatchcase(text, pattern.replace("[", "[[]"))
    if pattern.startswith("."):
        return len(text) > len(pattern) and text.endswith(pattern)
    if pattern == "all":
        return True
    if pattern == "known":
        return text != _UNKNOWN
    if pattern.endswith("."):
        return text.startswith(pattern)
    return pattern == text


def _network_matches(net: str, mask: str, number: IPv4Address | IPv6Address | None) -> Maybe:
    """Match a network with its mask or prefix length; None for one that is malformed.

    An IPv4 network with bits behind its mask matches nothing; in an IPv6 network these bits do not count.
    """
    try:
        if net.startswith("[") and net.endswith("]"):
            version_6 = IPv6Address(net[1:-1])
            bits = int(mask) if _PREFIX_LENGTH.fullmatch(mask) else -1
            if not 0 <= bits <= version_6.max_prefixlen:
                return None
            shift = version_6.max_prefixlen - bits
            return isinstance(number, IPv6Address) and int(number) >> shift == int(version_6) >> shift
        version_4 = IPv4Address(net)
        if _PREFIX_LENGTH.fullmatch(mask):
            bits = int(mask)
            if not 1 <= bits <= version_4.max_prefixlen:
                return None
            ones = -1 << version_4.max_prefixlen - bits
        else:
            ones = int(IPv4Address(mask))
    except ValueError:
        return None
    return isinstance(number, IPv4Address) and int(number) & ones == int(version_4)
