"""The settings of traces: the table `[tracing]`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import FilePath, shown
from stowkeeper.services.tracing.limits import SHARE_MIN

if TYPE_CHECKING:
    from stowkeeper.app.settings_tables import Settings

TRACES_PATH = "/v1/traces"
"""Where a collector takes traces, by the specification of OTLP."""


def _check_endpoint(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"{shown(value)} is no URL that begins with http:// or https:// and names a host")
    if "@" in parts.netloc:
        raise ValueError(
            "it holds a user or a password, which everyone sees who may read the settings: use tracing.headers_file"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"{shown(value)} has more than a host and a path")
    return value if parts.path.strip("/") else value.rstrip("/") + TRACES_PATH


class TracingSettings(Table):
    """Traces: where the spans of associations and of what became of their instances are sent, by OTLP over HTTP.

    It takes packages that are not installed as shipped: `stowkeeper[otel]`. `docs/tracing.md` says what a trace holds.
    """

    endpoint: Annotated[
        str,
        AfterValidator(_check_endpoint),
        About(
            f"URL at which a collector takes traces; without a path, `{TRACES_PATH}` is added. Empty: there are none.",
            allowed="a URL that begins with http:// or https://, or nothing",
        ),
    ] = ""
    headers_file: Annotated[
        FilePath,
        About(
            "File with header fields that go with each request, such as `Authorization: Bearer …`, one a line. Empty: none.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    ca_file: Annotated[
        FilePath,
        About(
            "File in PEM with certificates of the authorities by one of which the server of an https endpoint has to be known."
            " Empty: those that are trusted as shipped.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    share: Annotated[
        float,
        Field(ge=SHARE_MIN, le=1, allow_inf_nan=False),
        About("Share of the associations that are traced, each with all that follows from it."),
    ] = 1.0
    service_name: Annotated[
        str,
        Field(min_length=1, max_length=64, pattern=r"^[!-~]([ -~]*[!-~])?$"),
        About(
            "What the server is called in traces (`service.name`).",
            allowed="1 to 64 printable ASCII characters",
        ),
    ] = "stowkeeper"


def tracing_contradictions(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Yield each key of this table that contradicts another, and how."""
    tracing = settings.tracing
    for name in ("headers_file", "ca_file"):
        if getattr(tracing, name) and not tracing.endpoint:
            yield f"tracing.{name}", "it is for a collector, and tracing.endpoint names none"
    if tracing.ca_file and tracing.endpoint.startswith("http:"):
        yield "tracing.ca_file", "it is for an https endpoint, and tracing.endpoint begins with http://"
