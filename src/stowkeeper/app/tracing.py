"""From the settings of traces to the desk that tells them."""

import contextlib
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stowkeeper import __version__
from stowkeeper.app.setting_problems import Problem, SettingsError
from stowkeeper.app.settings import Settings
from stowkeeper.archive.archive import Archive
from stowkeeper.archive.folder import JOBS
from stowkeeper.services.tracing.desk import TracingDesk
from stowkeeper.services.tracing.limits import HEADERS_BYTES_MAX, SETTLE_SECONDS
from stowkeeper.services.tracing.sending import Exporter, SpanSender

MISSING: Final = (
    "traces take packages that are not installed: `python -m pip install 'stowkeeper[otel]'` brings them into the environment that"
    " Stowkeeper runs in; in the clone `.venv/bin/python -m pip install -e '.[otel]'`"
)

_LOCK_FOLDER: Final = "tracing"
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([!-~]([ -~\t]*[!-~])?)[ \t]*")


def check_tracing(settings: Settings) -> None:
    """See that traces can be sent as the settings say, without sending any. Raises SettingsError."""
    if settings.tracing.endpoint:
        _exporter(settings, "").close()


def tracing_desk(archive: Archive, settings: Settings) -> TracingDesk | None:
    """Return the desk that tells traces; None where the settings want none. It tells what is written from now on.

    Raises SettingsError, DatabaseUnavailable.
    """
    if not settings.tracing.endpoint:
        return None
    desk = TracingDesk(
        archive.database,
        SpanSender(_exporter(settings, archive.receiver)),
        lock_folder=os.path.join(archive.root, JOBS, _LOCK_FOLDER),
        share=settings.tracing.share,
        settle=lambda: archive.finisher.wait_until_idle(SETTLE_SECONDS),
    )
    with contextlib.suppress(OSError):  # it tries again when it runs, and then says why
        desk.begin()
    return desk


def _exporter(settings: Settings, receiver: str) -> Exporter:
    tracing = settings.tracing
    headers = _headers_in(settings, tracing.headers_file) if tracing.headers_file else {}
    if tracing.ca_file:
        try:
            ssl.create_default_context(cafile=tracing.ca_file)
        except OSError as error:
            words = f"{tracing.ca_file} cannot be used: {error.strerror or error}"
            raise _error(settings, "ca_file", words) from error
    try:
        from stowkeeper.services.tracing.exporting import CollectorExporter  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _error(settings, "endpoint", MISSING) from error
    return CollectorExporter(
        tracing.endpoint,
        headers=headers,
        ca_file=tracing.ca_file,
        service_name=tracing.service_name,
        version=__version__,
        instance=receiver,
    )


def _headers_in(settings: Settings, path: str) -> Mapping[str, str]:
    """Read a file of header fields; lines that begin with # are for people."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(HEADERS_BYTES_MAX + 1)
    except OSError as error:
        raise _error(settings, "headers_file", f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > HEADERS_BYTES_MAX:
        raise _error(settings, "headers_file", f"{path} has more than {HEADERS_BYTES_MAX} bytes")
    headers = {}
    for number, line in enumerate(content.decode("latin-1").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        field = _FIELD.fullmatch(line)
        if field is None:  # without its text: it is a secret, perhaps
            words = f"line {number} of {path} is no header field such as `Authorization: Bearer …`"
            raise _error(settings, "headers_file", words)
        headers[field[1]] = field[2]
    return headers


def _error(settings: Settings, name: str, words: str) -> SettingsError:
    key = f"tracing.{name}"
    return SettingsError([Problem(place=settings.origin_of(key).place_of(key), text=words)])
