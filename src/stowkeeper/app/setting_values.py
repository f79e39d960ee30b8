"""Values of settings that are more than a number or a word: sizes, AE titles, UIDs, networks, file modes.

Each type reads what a person writes in TOML, raises ValueError with a sentence where it does not fit, and gives
what the program works with.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from stowkeeper.app.limits import (
    LIST_ENTRIES_MAX,
    MAXIMUM_LENGTH_MAX,
    MAXIMUM_LENGTH_MIN,
    PROBLEM_VALUE_LETTERS_MAX,
)
from stowkeeper.dicom.ae_title import ae_title_defect
from stowkeeper.dicom.uid import is_acceptable_uid

Network = IPv4Network | IPv6Network

_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_UNIT_OF = {unit.lower(): factor for unit, factor in _UNITS.items()}
_SHOWN_UNITS = sorted(
    (unit for unit in _UNITS if unit not in {"", "B"}), key=_UNITS.__getitem__, reverse=True
)
_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,3}))? ?([A-Za-z]{0,3})")
_MODE = re.compile(r"0?[0-7]{3}")
_FILE_MODES = {"owner": 0o600, "group": 0o640, "world": 0o644}
_FOLDER_MODES = {"owner": 0o700, "group": 0o750, "world": 0o755}
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_READ_AND_WRITE_BITS = 0o666
_OWNER_BITS = 0o600
_FOLDER_OWNER_BITS = 0o700
_READ_BITS = 0o444


def shown(value: object) -> str:
    """Write a value as an error message repeats it: quoted, escaped, and cut where it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= PROBLEM_VALUE_LETTERS_MAX else text[: PROBLEM_VALUE_LETTERS_MAX - 1] + "…"


def parse_size(value: object) -> object:
    """Return the bytes of a size: a whole number, or text such as "2 GB" (decimal) or "512 MiB" (binary).

    Anything but text is given back as it is, for the check of numbers to judge.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    factor = _UNIT_OF.get(found[3].lower()) if found else None
    if found is None or factor is None:
        raise ValueError(
            f"{shown(value)} is no size: write a number of bytes, or one with kB, MB, GB, TB, KiB, MiB, GiB or TiB"
        )
    fraction = found[2] or ""
    # Whole numbers all the way, so that "0.1 GB" is exact.
    return int(found[1] + fraction) * factor // 10 ** len(fraction)


def format_size(count: int) -> str:
    """Write a count of bytes with the largest unit that keeps it exact: 2000000000 as "2 GB", 1000 as "1 kB"."""
    for unit in _SHOWN_UNITS:
        if count and count % _UNITS[unit] == 0:
            return f"{count // _UNITS[unit]} {unit}"
    return str(count)


def _check_ae_title(title: str) -> str:
    trimmed = title.strip(" ")
    defect = ae_title_defect(trimmed)
    if defect is not None:
        raise ValueError(f"{shown(title)} is no AE title: {defect} (PS3.5 §6.2)")
    return trimmed


def _check_host(host: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ip_address(bare)
    except ValueError:
        if not _HOST_NAME.fullmatch(bare):
            raise ValueError(
                f"{shown(host)} is neither an IP address nor a host name (the port is a setting of its own)"
            ) from None
    return bare


def _check_maximum_length(length: int) -> int:
    if length != 0 and not MAXIMUM_LENGTH_MIN <= length <= MAXIMUM_LENGTH_MAX:
        raise ValueError(f"{length} is not allowed")
    return length


def _octal_mode(value: object, words: Mapping[str, int]) -> int:
    # A bare 444 in TOML is not what a person means by it, so only text is read.
    if isinstance(value, str) and value in words:
        return words[value]
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise ValueError(f"{shown(value)} is no file mode")
    return int(value, 8)


def _parse_mode(value: object) -> object:
    mode = _octal_mode(value, _FILE_MODES)
    if mode & ~_READ_AND_WRITE_BITS:
        raise ValueError(f"{shown(value)} would make files that can be executed")
    if mode & _OWNER_BITS != _OWNER_BITS:
        raise ValueError(
            f"{shown(value)} would keep the server, their owner, from reading and writing its files"
        )
    return mode


def _parse_folder_mode(value: object) -> object:
    if value == "" or value is None:
        return None
    mode = _octal_mode(value, _FOLDER_MODES)
    if mode & _FOLDER_OWNER_BITS != _FOLDER_OWNER_BITS:
        raise ValueError(f"{shown(value)} would keep the server, their owner, out of its folders")
    if (mode & _READ_BITS) >> 2 & ~mode:
        raise ValueError(f"{shown(value)} would make folders that can be listed and not entered")
    return mode


def _check_path(path: str) -> str:
    if "\0" in path:
        raise ValueError(f"{shown(path)} has a NUL character")
    return path


def _check_some_path(path: str) -> str:
    if not path:
        raise ValueError(f"{shown(path)} is no path")
    return _check_path(path)


def entries(value: object) -> tuple[object, ...]:
    """Return the entries of a list setting; raise ValueError where it is no list or too long a one."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)} is no list")  # noqa: TRY004 - pydantic turns only ValueError into a problem
    if len(value) > LIST_ENTRIES_MAX:
        raise ValueError(f"it has {len(value)} entries, more than {LIST_ENTRIES_MAX}")
    return tuple(value)


def _parse_network(value: object) -> Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is neither an IP address nor a network")  # noqa: TRY004 - as in entries
    try:
        return ip_network(value.strip())
    except ValueError:
        pass
    try:
        wider = ip_network(value.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{shown(value)} is neither an IP address nor a network") from None
    raise ValueError(f'{shown(value)} has bits beyond its mask; did you mean "{wider}"?')


def _parse_networks(value: object) -> tuple[Network, ...]:
    return tuple(_parse_network(entry) for entry in entries(value))


def _read_uids(value: object, words: tuple[str, ...], keywords: Callable[[], dict[str, str]]) -> object:
    if isinstance(value, str):
        if value in words:
            return value
        raise ValueError(f"{shown(value)} is no list{_suggestion(value, words)}")
    known: dict[str, str] | None = None
    uids = []
    for entry in entries(value):
        if isinstance(entry, str) and is_acceptable_uid(entry):
            uids.append(entry)
            continue
        known = keywords() if known is None else known
        if not isinstance(entry, str) or entry not in known:
            raise ValueError(
                f"{shown(entry)} is neither a UID nor a known keyword{_suggestion(str(entry), known)}"
            )
        uids.append(known[entry])
    return tuple(uids)


def _suggestion(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _sop_class_keywords() -> dict[str, str]:
    from stowkeeper.dicom.sop_classes import SOP_CLASSES  # noqa: PLC0415 - most settings need no such large table

    return {entry.keyword: uid for uid, entry in SOP_CLASSES.items() if entry.keyword}


def _transfer_syntax_keywords() -> dict[str, str]:
    from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES  # noqa: PLC0415 - likewise

    return {entry.keyword: uid for uid, entry in TRANSFER_SYNTAXES.items() if entry.keyword}


def _read_abstract_syntaxes(value: object) -> object:
    return _read_uids(value, ("all", "standard"), _sop_class_keywords)


def _read_transfer_syntaxes(value: object) -> object:
    return _read_uids(value, ("all",), _transfer_syntax_keywords)


def _read_sop_class_list(value: object) -> object:
    return _read_uids(entries(value), (), _sop_class_keywords)


def _read_transfer_syntax_list(value: object) -> object:
    return _read_uids(entries(value), (), _transfer_syntax_keywords)


Size = Annotated[int, BeforeValidator(parse_size)]
"""Bytes."""

FileMode = Annotated[int, BeforeValidator(_parse_mode)]
"""Permission bits of a file, as os.fchmod takes them."""

FolderModeOrNone = Annotated[int | None, BeforeValidator(_parse_folder_mode)]
"""Permission bits of a folder, or nothing."""

FilePath = Annotated[str, AfterValidator(_check_path)]
"""A path, or nothing."""

SomePath = Annotated[str, AfterValidator(_check_some_path)]
"""A path that is there."""

SomePaths = Annotated[tuple[SomePath, ...], BeforeValidator(entries)]
Words = Annotated[tuple[str, ...], BeforeValidator(entries)]

Host = Annotated[str, AfterValidator(_check_host)]
"""A host name or an IP address to listen on, an IPv6 address without its brackets."""

MaximumLength = Annotated[int, AfterValidator(_check_maximum_length)]
"""Bytes of the variable field of a P-DATA-TF PDU, 0 for no limit (PS3.8 §D.1)."""

AETitle = Annotated[str, AfterValidator(_check_ae_title)]
"""An AE title without the blanks around it (PS3.5 §6.2)."""

AETitleOrNone = Annotated[str, AfterValidator(lambda title: title and _check_ae_title(title))]
"""An AE title, or nothing."""

AETitles = Annotated[tuple[AETitle, ...], BeforeValidator(entries)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_parse_networks)]
AbstractSyntaxes = Annotated[
    Literal["all", "standard"] | tuple[str, ...], BeforeValidator(_read_abstract_syntaxes)
]
TransferSyntaxes = Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_read_transfer_syntaxes)]
SOPClassList = Annotated[tuple[str, ...], BeforeValidator(_read_sop_class_list)]
TransferSyntaxList = Annotated[tuple[str, ...], BeforeValidator(_read_transfer_syntax_list)]


def is_in_networks(address: str, networks: tuple[Network, ...]) -> bool:
    """Tell whether an IP address, as the system reports it for a peer, lies in one of the networks.

    An IPv4 address that a dual-stack socket reports as ::ffff:a.b.c.d counts as IPv4, and a zone such as
    %eth0 is left out of account. Text that is no address lies in none.
    """
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
