"""Which receivers get the events beside standard error and the log file, by the settings."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from stowkeeper.app import log_journal, log_syslog
from stowkeeper.app.log_sending import Channel, LogSender
from stowkeeper.app.log_syslog import Encode

if TYPE_CHECKING:  # a command that needs no settings does not pay for them
    from stowkeeper.app.settings_of_log import LogSettings

Senders: TypeAlias = Sequence[tuple[Encode, LogSender]]
"""What makes the messages for each receiver, and what sends them."""

_STANDARD_ERROR = 2


def senders_of(settings: "LogSettings", tell: Callable[[str, str, int], None]) -> Senders:
    """Start to send to the receivers that the settings name; `tell` is that of `LogSender`."""
    found: list[tuple[Encode, LogSender]] = []
    if settings.syslog:
        encode, channel = _syslog_of(settings)
        found.append((encode, LogSender(channel, tell)))
    if settings.journal:
        journal = log_syslog.LocalDatagrams(log_journal.JOURNAL_PLACE)
        found.append((log_journal.encode_for_journal, LogSender(journal, tell)))
    return tuple(found)


def leads_to_journal() -> bool:
    """Tell whether standard error is read by the journal."""
    return log_journal.is_journal(_STANDARD_ERROR)


def _syslog_of(settings: "LogSettings") -> tuple[Encode, Channel]:
    from stowkeeper.app.settings_of_log import LOCAL_SYSLOG, syslog_place  # noqa: PLC0415 - as above

    facility = settings.syslog_facility
    if settings.syslog == LOCAL_SYSLOG:
        encode = log_syslog.encode_for_this_machine(facility)
        return encode, log_syslog.LocalDatagrams(log_syslog.LOCAL_PLACE)
    protocol, host, port = syslog_place(settings.syslog)
    encode = log_syslog.encode_for_server(facility)
    if protocol == "udp":
        return encode, log_syslog.SyslogDatagrams(host, port)
    counts_octets = settings.syslog_framing == "octet counting"
    return encode, log_syslog.SyslogStream(host, port, counts_octets=counts_octets)
