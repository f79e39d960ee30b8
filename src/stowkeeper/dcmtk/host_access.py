"""Host access control by the tables of TCP wrappers: the language of hosts_access(5), without its side effects.

The first rule of the allow table that matches decides, then the first of the deny table, and who is in neither is let
in. An option `allow` or `deny` at the end of a rule turns what it says. The tables are read for every connection, so
that a change needs no restart.

Other programs are never started: `spawn` is reported and not run, and so are options about this process, the socket and
the log; the rule decides as if they had been carried out. Where that is not so (`twist`, `aclexec`, `user`, `group`, an
option that is unknown or has a wrong value), the rule lets nobody in. Netgroups, lists of hosts in other files and
malformed networks cannot be decided. What cannot be decided lets nobody in either: it does not count in the allow table
and counts in the deny table.

A line without colon is skipped. A line that is too long, or the last one without line end, makes the rest of its table
unreadable: an unreadable deny table refuses everybody, as a table does that exists and cannot be read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from stowkeeper.dcmtk.host_patterns import (
    Client,
    Host,
    both,
    clients_match,
    daemons_match,
    split_outside_brackets,
)
from stowkeeper.dcmtk.limits import HOST_ACCESS_LINE_BYTES_MAX, HOST_ACCESS_TABLE_BYTES_MAX

ALLOW_TABLE: Final = "/etc/hosts.allow"
DENY_TABLE: Final = "/etc/hosts.deny"
DAEMON: Final = "storescp"

_BLANK: Final = " \t\r\n"
_SEPARATORS = re.compile(r"[, \t\r\n]+")
_OPTION = re.compile(r"([^ =\t]*)[ =\t]*(.*)", re.DOTALL)
_COLON_OUTSIDE_ESCAPE = re.compile(r"(?<!\\):")

_FACILITIES = "auth authpriv cron daemon ftp kern lpr mail news syslog user uucp local[0-7]"
_LEVELS = "emerg alert crit err error warning warn notice info debug"
_HARMLESS_OPTIONS: Final = {
    # name: what its value has to be
    "severity": re.compile(
        rf"(?:(?:{_FACILITIES.replace(' ', '|')})\.)?(?:{_LEVELS.replace(' ', '|')})", re.IGNORECASE
    ),
    "spawn": re.compile(r".+", re.DOTALL),
    "keepalive": re.compile(r""),
    "linger": re.compile(r"[0-9]{1,9}", re.ASCII),
    "rfc931": re.compile(r"(?:[1-9][0-9]{0,8})?", re.ASCII),
    "banners": re.compile(r".+", re.DOTALL),
    "nice": re.compile(r"(?:-?[0-9]{1,9})?", re.ASCII),
    "setenv": re.compile(r"\S.*", re.DOTALL),
    "umask": re.compile(r"[0-7]{1,4}", re.ASCII),
}
"""Options whose absence changes nothing about who is let in."""

_OPTIONS_NOT_CARRIED_OUT: Final = frozenset({"twist", "aclexec", "user", "group"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of a table: the lists of daemons and clients as words, and the rest as it stands, None for no rest."""

    place: str
    daemons: tuple[str, ...]
    clients: tuple[str, ...]
    options: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessTable:
    """A table as read. `unreadable` says why nothing behind its rules could be read; empty when all was."""

    rules: tuple[Rule, ...] = ()
    remarks: tuple[str, ...] = ()
    unreadable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessDecision:
    """Whether a client is let in, and why. `remarks` are for the log: what is wrong with the tables or not carried out."""

    is_admitted: bool
    reason: str
    remarks: tuple[str, ...] = ()


def check_host_access(
    client: Client, *, allow_table: str = ALLOW_TABLE, deny_table: str = DENY_TABLE, daemon: str = DAEMON
) -> AccessDecision:
    """Read both tables and decide about a client. A table that does not exist is an empty one."""
    return decide(client, read_table(allow_table), read_table(deny_table), daemon=daemon)


def read_table(path: str) -> AccessTable:
    """Read a table; never fails."""
    try:
        with open(path, "rb") as file:
            data = file.read(HOST_ACCESS_TABLE_BYTES_MAX + 1)
    except FileNotFoundError:
        return AccessTable()
    except (OSError, ValueError) as error:
        return AccessTable(unreadable=f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
    return parse_table(data, path)


def decide(client: Client, allow: AccessTable, deny: AccessTable, *, daemon: str = DAEMON) -> AccessDecision:
    """Decide about a client by two tables."""
    remarks = [*allow.remarks, *deny.remarks]
    remarks += [table.unreadable for table in (allow, deny) if table.unreadable]
    host = Host(client)
    for rule in allow.rules:
        matches = both(daemons_match(rule.daemons, daemon), clients_match(rule.clients, host))
        if matches is False:
            continue
        admits = _admits(rule, admits=True, remarks=remarks)
        if matches or not admits:
            return AccessDecision(is_admitted=admits, reason=rule.place, remarks=tuple(remarks))
        remarks.append(f"{rule.place}: it cannot be decided whether it matches, so it admits nobody")
    for rule in deny.rules:
        matches = both(daemons_match(rule.daemons, daemon), clients_match(rule.clients, host))
        if matches is False:
            continue
        admits = _admits(rule, admits=False, remarks=remarks) and matches is True
        if matches is None:
            remarks.append(f"{rule.place}: it cannot be decided whether it matches, so it refuses everybody")
        return AccessDecision(is_admitted=admits, reason=rule.place, remarks=tuple(remarks))
    if deny.unreadable:
        return AccessDecision(is_admitted=False, reason=deny.unreadable, remarks=tuple(remarks))
    return AccessDecision(is_admitted=True, reason="no rule refuses it", remarks=tuple(remarks))


# --- reading


def parse_table(data: bytes, name: str) -> AccessTable:
    """Read the rules of a table; `name` stands for it in remarks. Never fails."""
    rules = []
    remarks = []
    unreadable = ""
    for number, line in _logical_lines(data[:HOST_ACCESS_TABLE_BYTES_MAX]):
        place = f"{name}, line {number}"
        if line is None:
            unreadable = f"{place}: the line has no end, or is too long, and nothing behind it can be read"
            break
        if line.startswith("#") or not line.strip(_BLANK):
            continue
        daemons, *rest = split_outside_brackets(line, ":")
        if not rest:
            remarks.append(f"{place}: there is no colon, so it is no rule; write DAEMONS: CLIENTS")
            continue
        clients, *options = split_outside_brackets(rest[0], ":")
        rules.append(
            Rule(
                place=place,
                daemons=_words(daemons),
                clients=_words(clients),
                options=options[0] if options else None,
            )
        )
    if not unreadable and len(data) > HOST_ACCESS_TABLE_BYTES_MAX:
        unreadable = f"{name}: is longer than {HOST_ACCESS_TABLE_BYTES_MAX} bytes"
    return AccessTable(rules=tuple(rules), remarks=tuple(remarks), unreadable=unreadable)


def _logical_lines(data: bytes) -> Iterator[tuple[int, str | None]]:
    """Yield lines with the number of their last physical line, continued ones joined; None for one without end."""
    pending = ""
    lines = data.decode("latin-1").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        pending += line
        if len(pending) > HOST_ACCESS_LINE_BYTES_MAX:
            yield number, None
            return
        if line.endswith("\\"):
            pending = pending[:-1]
        else:
            yield number, pending
            pending = ""
    if pending or lines[-1]:
        yield len(lines), None


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _SEPARATORS.split(text) if word)


# --- options


def _admits(rule: Rule, *, admits: bool, remarks: list[str]) -> bool:
    """Say what a rule that matches decides, `admits` being what its table says without options."""
    if rule.options is None:
        return admits
    fields = [field.replace("\\:", ":").strip(_BLANK) for field in _COLON_OUTSIDE_ESCAPE.split(rule.options)]
    for place, field in enumerate(fields, start=1):
        found = _OPTION.fullmatch(field)
        name, value = (found[1].lower(), found[2]) if found else (field, "")
        if name in {"allow", "deny"} and not value and place == len(fields):
            return name == "allow"
        pattern = _HARMLESS_OPTIONS.get(name)
        if pattern is None or pattern.fullmatch(value) is None:
            why = (
                "is not carried out"
                if name in _OPTIONS_NOT_CARRIED_OUT
                else "is unknown, or wrong as it stands"
            )
            remarks.append(f"{rule.place}: the option {name!r} {why}, so the rule admits nobody")
            return False
        remarks.append(f"{rule.place}: the option {name!r} is not carried out")
    return admits
