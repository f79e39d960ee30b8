"""The systemd journal: events with their values as fields, in its native protocol.

A message is one datagram of lines `FIELD=value` (systemd: Native Journal Protocol). No value has a line break, since
what is not printable is written escaped.
"""

import os
import re
import sys
from collections.abc import Mapping

from stowkeeper.app.limits import JOURNAL_FIELD_LETTERS_MAX, SYSLOG_BYTES_MAX
from stowkeeper.app.log_lines import head_of, value_text
from stowkeeper.app.log_syslog import APPLICATION, SEVERITIES, cut

JOURNAL_PLACE = "/run/systemd/journal/socket"

_FIELD = re.compile(r"[A-Z][A-Z0-9_]{0,50}")
"""Names of fields that, with our word in front, are ones of the journal: 64 letters at most."""


def encode_for_journal(fields: Mapping[str, object], line: str) -> bytes:
    """Make the message of an event: its line, its severity, its name, and each value in a field `STOWKEEPER_…`.

    Values that would make the message too long are left out; the line has them as far as it goes.
    """
    _, level, event = head_of(fields)
    parts = [
        b"MESSAGE=" + cut(line),
        f"PRIORITY={SEVERITIES.get(level, 6)}".encode(),
        f"SYSLOG_IDENTIFIER={APPLICATION}".encode(),
        f"STOWKEEPER_EVENT={value_text(event)}".encode("utf-8", "backslashreplace"),
    ]
    room = SYSLOG_BYTES_MAX
    for key, value in fields.items():
        name = key.upper()
        if key in {"time", "level", "event"} or not _FIELD.fullmatch(name):
            continue
        text = value_text(value)[:JOURNAL_FIELD_LETTERS_MAX]
        part = f"STOWKEEPER_{name}={text}".encode("utf-8", "backslashreplace")
        if len(part) <= room:
            room -= len(part)
            parts.append(part)
    return b"\n".join(parts) + b"\n"


def is_journal(descriptor: int) -> bool:
    """Tell whether an open file leads to the journal, as the service manager says it (systemd.exec, JOURNAL_STREAM)."""
    named = os.environ.get("JOURNAL_STREAM", "")
    if sys.platform == "win32" or not named:
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{status.st_dev}:{status.st_ino}"
