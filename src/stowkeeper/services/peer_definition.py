"""A peer: another system, what it may do here, and how it is called. As a value, and as the JSON that stands for one.

The keys are those of a `[[peers]]` entry of the settings. In a database they make a JSON object, and the HTTP
interface speaks the same.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal, Self

from stowkeeper.dicom.ae_title import ae_title_defect
from stowkeeper.services.limits import (
    ADDRESSES_REMEMBERED,
    PEER_ADDRESSES_MAX,
    PEER_ANSWER_SECONDS,
    PEER_CONNECT_SECONDS,
    PEER_MANUFACTURER_LETTERS_MAX,
    PEER_NAME_LETTERS_MAX,
    PEER_SECONDS_MAX,
    PEER_SECONDS_MIN,
)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

PeerDuplicates = Literal["keep", "replace", "refuse"]
ReportOn = Literal["new", "same-first"]

DUPLICATES: Final[tuple[PeerDuplicates, ...]] = ("keep", "replace", "refuse")
REPORT_ON: Final[tuple[ReportOn, ...]] = ("new", "same-first")

_NAME = re.compile(r"[!-~]([ -~]*[!-~])?")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_SETTINGS_ALONE: Final = ("profile",)


class PeerDefinitionError(ValueError):
    """A definition cannot be that of a peer. `problems` has a key, or '' for the whole, and what is wrong, in words."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{key}: {words}" if key else words for key, words in self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A system that is known by its AE title, its addresses, or both, and called at `host` and `port`.

    `ae_title` None and `addresses` empty stand for any. `own_ae_title` is what we call ourselves to it, '' for the AE title of
    the server. With `tls` it is called over TLS. The `may_…` say what it may do here: be answered a C-ECHO, store, ask
    for storage commitment, and report on what we asked of it. `report_on` is the association on which it gets reports of
    storage commitment: a new one, or first the one that it asked on. `connect_seconds` bound the way to an association,
    `answer_seconds` how long it may then stand still. `duplicates` and `profile` are its own rules where they are not
    None. A peer of the settings is read-only; it alone can have a `profile`, since those stand there too.
    """

    name: str
    ae_title: str | None = None
    addresses: tuple[Network, ...] = ()
    host: str | None = None
    port: int | None = None
    own_ae_title: str = ""
    tls: bool = False
    may_echo: bool = True
    may_store: bool = True
    may_request_commitment: bool = True
    may_report_commitment: bool = True
    report_on: ReportOn = "new"
    connect_seconds: float = PEER_CONNECT_SECONDS
    answer_seconds: float = PEER_ANSWER_SECONDS
    manufacturer: str = ""
    duplicates: PeerDuplicates | None = None
    profile: str | None = None
    is_read_only: bool = False

    @property
    def is_reachable(self) -> bool:
        """Whether it is said where to call it, and by which AE title."""
        return self.host is not None and self.port is not None and self.ae_title is not None

    @property
    def where(self) -> str:
        """Where it is called, as AET@HOST:PORT; empty when it is not said."""
        if not self.is_reachable:
            return ""
        host = f"[{self.host}]" if ":" in (self.host or "") else self.host
        return f"{self.ae_title}@{host}:{self.port}"

    @property
    def host_address(self) -> Address | None:
        """The address that `host` is; None when it is a name, which is never looked up to tell who calls."""
        return parsed_address(self.host or "")

    def matches(self, calling_ae_title: str, address: str) -> bool:
        """Tell whether an association with this calling AE title and IP address can be this peer's."""
        return self._matches(calling_ae_title, parsed_address(address))

    def standing(self, calling_ae_title: str, address: Address | None) -> int | None:
        """Say how well an association fits: 0 when it comes from the very address that the peer is called at.

        2 when nothing but the AE title fits and the peer is called at another address, 1 otherwise; None when the
        association is not this peer's.
        """
        if not self._matches(calling_ae_title, address):
            return None
        called_at = self.host_address
        if called_at is None or self.ae_title is None:
            return 1
        if called_at == address:
            return 0
        return 1 if self.addresses else 2

    def _matches(self, calling_ae_title: str, address: Address | None) -> bool:
        if self.ae_title is not None and self.ae_title != calling_ae_title:
            return False
        return not self.addresses or (
            address is not None and any(address in network for network in self.addresses)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the definition as a JSON object with all keys but the name of a profile that there is not."""
        values: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "is_read_only"
        }
        values["addresses"] = [str(network) for network in self.addresses]
        if self.profile is None:
            del values["profile"]
        return values

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Make a peer of a JSON object; keys that are not there have their defaults.

        Raises PeerDefinitionError with all that is wrong.
        """
        if not isinstance(value, Mapping):
            raise PeerDefinitionError([("", f"a peer is an object with keys such as {', '.join(_KEYS)}")])
        problems: list[tuple[str, str]] = []
        found: dict[str, Any] = {}
        for key, entry in value.items():
            check = _CHECKS.get(key)
            if check is None:
                problems.append((str(key)[:PEER_NAME_LETTERS_MAX], _words_on_unknown(key)))
                continue
            try:
                found[key] = check(entry)
            except ValueError as error:
                problems.append((key, str(error)))
        if "name" not in value:
            problems.append(("name", "it must be given"))
        if not problems:
            problems.extend(contradictions(found))
        if problems:
            raise PeerDefinitionError(problems)
        return cls(**found)


def contradictions(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each key of a definition that does not fit the others, and why; values that are not there are unset."""
    ae_title, host, port = values.get("ae_title"), values.get("host"), values.get("port")
    problems = []
    if ae_title is None and not values.get("addresses"):
        problems.append(("", "a peer needs ae_title, addresses, or both"))
    if (host is None) != (port is None):
        missing, given = ("port", "host") if port is None else ("host", "port")
        problems.append((missing, f"{given} is of no use without {missing}"))
    if host is not None and ae_title is None:
        problems.append(("ae_title", "a peer that has a host is called by its AE title, so it needs one"))
    return problems


@lru_cache(ADDRESSES_REMEMBERED)
def parsed_address(text: str) -> Address | None:
    """Return the IP address that a text is, without its zone, and as IPv4 where it stands for one; None for a name.

    To read one takes longer than all else that a rule does, and the same ones come again and again.
    """
    try:
        parsed: Address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def _words_on_unknown(key: object) -> str:
    if key in _SETTINGS_ALONE:
        return "profiles stand in the settings file, and so do the peers that have one"
    return f"there is no such key; a peer has {', '.join(_KEYS)}"


# One check for each key: it returns what the key stands for, or raises ValueError with words.


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a text")  # noqa: TRY004 - the caller makes a problem of ValueError alone
    return value


def _name(value: object) -> str:
    name = _text(value)
    if len(name) > PEER_NAME_LETTERS_MAX or not _NAME.fullmatch(name):
        raise ValueError(f"it must be 1 to {PEER_NAME_LETTERS_MAX} printable ASCII characters")
    return name


def _ae_title(value: object) -> str:
    title = _text(value).strip(" ")
    defect = ae_title_defect(title)
    if defect is not None:
        raise ValueError(f"it is no AE title: {defect} (PS3.5 §6.2)")
    return title


def _ae_title_or_none(value: object) -> str | None:
    return None if value is None else _ae_title(value)


def _own_ae_title(value: object) -> str:
    return "" if value == "" else _ae_title(value)


def _host(value: object) -> str | None:
    if value is None:
        return None
    host = _text(value)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if parsed_address(bare) is None and not _HOST_NAME.fullmatch(bare):
        raise ValueError("it is neither an IP address nor a host name; the port is a key of its own")
    return bare


def _port(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 0x10000:
        raise ValueError("it must be a whole number from 1 to 65535")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it must be true or false")  # noqa: TRY004 - as in _text
    return value


def _seconds(value: object) -> float:
    words = f"it must be a number of seconds from {PEER_SECONDS_MIN:g} to {PEER_SECONDS_MAX:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(words)  # noqa: TRY004 - as in _text
    if not PEER_SECONDS_MIN <= value <= PEER_SECONDS_MAX:
        raise ValueError(words)
    return float(value)


def _addresses(value: object) -> tuple[Network, ...]:
    if not isinstance(value, list | tuple) or len(value) > PEER_ADDRESSES_MAX:
        raise ValueError(f"it must be a list of at most {PEER_ADDRESSES_MAX} IP addresses and networks")
    return tuple(map(_network, value))


def _network(value: object) -> Network:
    # ip_network would take a number for an address.
    if isinstance(value, str):
        try:
            return ip_network(value.strip())
        except ValueError:
            pass
        try:
            wider = ip_network(value.strip(), strict=False)
        except ValueError:
            pass
        else:
            raise ValueError(f'a network has bits beyond its mask; did you mean "{wider}"?')
    raise ValueError("an entry is neither an IP address nor a network")


def _manufacturer(value: object) -> str:
    text = _text(value)
    if len(text) > PEER_MANUFACTURER_LETTERS_MAX or not text.isprintable():
        raise ValueError(f"it must be at most {PEER_MANUFACTURER_LETTERS_MAX} printable characters")
    return text


def _one_of(words: tuple[str, ...], *, or_none: bool = False) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        if (value is None and or_none) or value in words:
            return value
        raise ValueError(f"it must be one of {', '.join(words)}")

    return check


_CHECKS: Final[Mapping[str, Callable[[object], Any]]] = {
    "name": _name,
    "ae_title": _ae_title_or_none,
    "addresses": _addresses,
    "host": _host,
    "port": _port,
    "own_ae_title": _own_ae_title,
    "tls": _truth,
    "may_echo": _truth,
    "may_store": _truth,
    "may_request_commitment": _truth,
    "may_report_commitment": _truth,
    "report_on": _one_of(REPORT_ON),
    "connect_seconds": _seconds,
    "answer_seconds": _seconds,
    "manufacturer": _manufacturer,
    "duplicates": _one_of(DUPLICATES, or_none=True),
}
_KEYS: Final = tuple(_CHECKS)
