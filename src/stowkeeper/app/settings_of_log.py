"""The settings of the event log: what is logged, and where."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import FilePath, Size, shown

LOCAL_SYSLOG = "local"
SYSLOG_PORT = 514
"""The port of syslog where none is named (RFC 5426 §3.3; by custom for TCP too, RFC 6587 §3.2)."""

_SYSLOG = re.compile(r"(udp|tcp)://(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_][A-Za-z0-9._-]{0,252})(?::([0-9]{1,5}))?")


def syslog_place(text: str) -> tuple[str, str, int]:
    """Return protocol, host and port of a place such as `udp://log.example:514`. Raises ValueError."""
    found = _SYSLOG.fullmatch(text)
    port = int(found[3] or SYSLOG_PORT) if found else 0
    if found is None or not 0 < port <= 65_535:
        raise ValueError(f"{shown(text)} is no place of a syslog server")
    return found[1], found[2].strip("[]"), port


def _check_syslog(text: str) -> str:
    if text not in {"", LOCAL_SYSLOG}:
        syslog_place(text)
    return text


class LogSettings(Table):
    """What is logged, and where. Patient data is in no log line at any level."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        About("Events below this level are left out."),
    ] = "info"
    format: Annotated[
        Literal["text", "json"],
        About("A line of words and `key=value`, or one JSON object a line."),
    ] = "text"
    console: Annotated[bool, About("Write to standard error.")] = True
    file: Annotated[bool, About("Write to a file in the folder below: `stowkeeper.log`.")] = True
    directory: Annotated[
        FilePath,
        About("Folder of the log files. Empty: `log` in the archive folder.", allowed="a path", shape="path"),
    ] = ""
    rotation: Annotated[
        Literal["size", "daily", "two files"],
        About(
            "How the file gives way to a new one. `size`: at `max_size` it becomes `stowkeeper.log.1`. `daily`: at midnight"
            " UTC it gets its day, `stowkeeper-2026-03-02.log`, and at `max_size` before. `two files`: `stowkeeper1.log` and"
            " `stowkeeper2.log` are used in turn; when one has reached `two_files_size` the other is erased and used."
        ),
    ] = "size"
    max_size: Annotated[
        Size,
        Field(ge=limits.LOG_SIZE_MIN, le=limits.LOG_SIZE_MAX),
        About(
            "Size at which a new log file is begun, for the rotations `size` and `daily`.",
            shape="size",
        ),
    ] = 10_000_000
    backups: Annotated[
        int,
        Field(ge=0, le=limits.LOG_BACKUPS_MAX),
        About("Older log files that are kept, for the rotations `size` and `daily`; 0 keeps none."),
    ] = 10
    two_files_size: Annotated[
        Size,
        Field(ge=limits.LOG_SIZE_MIN, le=limits.LOG_SIZE_MAX),
        About('Size of each file of `rotation = "two files"`.', shape="size"),
    ] = 250_000
    syslog: Annotated[
        str,
        AfterValidator(_check_syslog),
        About(
            "Send each event to syslog too. `local`: to the machine's own, at `/dev/log` (RFC 3164). `udp://` and `tcp://`: to"
            f" a server (RFC 5424); without a port to {SYSLOG_PORT}. Empty: not at all.",
            allowed='`""`, `"local"`, `"udp://HOST:PORT"` or `"tcp://HOST:PORT"`',
        ),
    ] = ""
    syslog_facility: Annotated[
        Literal[
            "user",
            "daemon",
            "local0",
            "local1",
            "local2",
            "local3",
            "local4",
            "local5",
            "local6",
            "local7",
        ],
        About("Facility under which syslog gets the events."),
    ] = "daemon"
    syslog_framing: Annotated[
        Literal["octet counting", "newline"],
        About(
            "How messages are told apart over TCP: by their length in front, or by a line break after each (RFC 6587 §3.4)."
        ),
    ] = "octet counting"
    journal: Annotated[
        bool,
        About(
            "Send each event to the systemd journal, with its values as fields. Where standard error leads to the journal,"
            " nothing is written there then."
        ),
    ] = False
