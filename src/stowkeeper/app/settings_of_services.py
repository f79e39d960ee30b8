"""The settings of what stands beside the receiver: HTTP, jobs, and storage commitment."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import AETitleOrNone, FilePath, Host, Networks, Words, shown
from stowkeeper.app.settings_of_peers import NETWORKS_TEXT
from stowkeeper.services.commitment.asking_limits import KEEP_OPEN_SECONDS, RE_ASK_TIMES_MAX
from stowkeeper.services.commitment.limits import (
    GRACE_LOOK_SECONDS_MAX,
    GRACE_LOOK_SECONDS_MIN,
    UNKNOWN_SECONDS_MIN,
)

if TYPE_CHECKING:
    from stowkeeper.app.settings_tables import Settings

PORT_MAX = 65_535
OFF = "off"
"""What turns HTTP off, in place of its port."""


def _parse_port(value: object) -> object:
    """Take a port as a number, as the text of one, or `off`."""
    port = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if port != OFF and (not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= PORT_MAX):
        raise ValueError(f'{shown(value)} is neither "{OFF}" nor a port from 0 to {PORT_MAX}')
    return port


HTTPPort = Annotated[int | Literal["off"], BeforeValidator(_parse_port)]


class HTTPSettings(Table):
    """The HTTP interface: its address, TLS, and which names and pages it answers to.

    On another address than one of this machine alone it needs a credential: `stowkeeper token add`.
    """

    host: Annotated[
        Host,
        About(
            "Address to listen on for HTTP. `0.0.0.0` is every IPv4 address of the machine, `::` every address.",
            allowed="a host name or an IP address",
            flag="--http-host",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        HTTPPort,
        About(
            "TCP port to listen on for HTTP. 0 takes any free one; the ready line tells which. `off` serves no HTTP.",
            allowed='`"off"`, or a port from 0 to 65535',
            flag="--http-port",
        ),
    ] = 8042
    certificate: Annotated[
        FilePath,
        About(
            "File in PEM with the certificate for HTTPS, and behind it those of the authorities between it and the one"
            " that clients trust. Empty: HTTP without TLS.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    key: Annotated[
        FilePath,
        About(
            "File in PEM with the private key of the certificate, without a password. Empty: it is in the file of the"
            " certificate.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    allowed_hosts: Annotated[
        Words,
        About(
            "Names by which clients may call the server besides its address and, where it listens to the network, the name of"
            " this machine: such as that of a proxy in front of it. Requests to other names are refused, so that no web page"
            " can reach the server under a name of its own. Any but `localhost` needs a credential.",
            allowed='a list of host names, such as `["pacs.example.org"]`',
        ),
    ] = ()
    trusted_proxies: Annotated[
        Networks,
        About(
            "Proxies in front of the server, by address or network. What they say in X-Forwarded-For or Forwarded is the"
            " client's address, and X-Forwarded-Proto tells whether it came by HTTPS; of others it is not believed. They have"
            " to set these fields anew, and to remove the one that they do not set. Needs a credential.",
            allowed=NETWORKS_TEXT,
        ),
    ] = ()
    allowed_origins: Annotated[
        Words,
        About(
            "Origins of web pages that may call the server from a browser (CORS). Empty: its own alone.",
            allowed='a list of origins, such as `["https://viewer.example.org"]`',
        ),
    ] = ()


class JobsSettings(Table):
    """The jobs: what is done after the answer."""

    disk_max: Annotated[
        int,
        Field(ge=1, le=limits.DISK_JOBS_MAX),
        About("Jobs at the same time that read or write the files of the archive, over all processes."),
    ] = 2
    running_max: Annotated[
        int,
        Field(ge=1, le=limits.RUNNING_JOBS_MAX),
        About(
            "Jobs at the same time in this process, of all kinds. Of those that call one peer there is one at a time."
        ),
    ] = 64
    retention_days: Annotated[
        float,
        Field(ge=limits.RETENTION_DAYS_MIN, le=limits.DAYS_MAX, allow_inf_nan=False),
        About("Days for which a finished job is listed."),
    ] = 30.0
    scrub_days: Annotated[
        float,
        Field(ge=0, le=limits.DAYS_MAX, allow_inf_nan=False),
        About(
            "Days within which every file of the archive is read again and compared with its receipt, in the background;"
            " 0 reads none."
        ),
    ] = 30.0


class CommitmentSettings(Table):
    """Storage commitment (PS3.4 Annex J): what is promised to peers, and what is asked of them.

    Who may ask is said by `[[peers]]`.
    """

    policy: Annotated[
        str,
        About(
            "What has to hold of an instance before it is committed. `digest`: every byte of its file, read from the"
            " disk, fits the receipt. `exists`: the file is there with its length. `index`: the catalog says so."
            " `entry-point:NAME`, `command:PROGRAM ARGUMENT…` or a URL ask a policy of your own: `docs/commitment.md`.",
            allowed='`"digest"`, `"exists"`, `"index"`, `"entry-point:NAME"`, `"command:PROGRAM …"`, or a URL',
        ),
    ] = "digest"
    policy_seconds: Annotated[
        float,
        Field(ge=limits.SECONDS_MIN, le=limits.SECONDS_MAX, allow_inf_nan=False),
        About("Time for a command or a URL to answer about up to 250 instances."),
    ] = 30.0
    grace_seconds: Annotated[
        float,
        Field(ge=0, le=limits.SECONDS_MAX, allow_inf_nan=False),
        About(
            "How long an instance that is not there is waited for, while its sender has an association open or anything"
            f" received is not listed yet. The first {UNKNOWN_SECONDS_MIN:g} of these seconds an unknown one is waited for though"
            " nothing is open. It is looked up again after pauses that grow from"
            f" {GRACE_LOOK_SECONDS_MIN:g} to {GRACE_LOOK_SECONDS_MAX:g} s."
        ),
    ] = 60.0
    recheck_after_seconds: Annotated[
        float,
        Field(ge=0, le=limits.SECONDS_MAX, allow_inf_nan=False),
        About(
            "Age of a check from which on it is made again before a report that was never delivered is sent."
        ),
    ] = 3600.0
    report_days: Annotated[
        float,
        Field(ge=limits.REPORT_DAYS_MIN, le=limits.DAYS_MAX, allow_inf_nan=False),
        About("Days for which a report is tried. Then it waits for `stowkeeper commitments resend`."),
    ] = 7.0
    retrieve_ae_title: Annotated[
        AETitleOrNone,
        About(
            "AE title of a retrieve service that has the archive's instances, named in reports (0008,0054). Empty: none is"
            " named.",
            allowed="an AE title, or nothing",
        ),
    ] = ""
    keep_open_seconds: Annotated[
        float,
        Field(ge=0, le=limits.KEEP_OPEN_SECONDS_MAX, allow_inf_nan=False),
        About("When we ask: how long the association stays open for a report on it."),
    ] = KEEP_OPEN_SECONDS
    await_days: Annotated[
        float,
        Field(ge=limits.REPORT_DAYS_MIN, le=limits.DAYS_MAX, allow_inf_nan=False),
        About("When we ask: days for which a report is awaited before the transaction expires."),
    ] = 7.0
    ask_again_times: Annotated[
        int,
        Field(ge=0, le=RE_ASK_TIMES_MAX),
        About("When we ask: how often an expired transaction is asked again, each time with a new UID."),
    ] = 0


def services_contradictions(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Yield each key of these tables that contradicts another, and how."""
    if settings.http.key and not settings.http.certificate:
        yield "http.key", "it has no effect without http.certificate"
    for origin in settings.http.allowed_origins:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            yield (
                "http.allowed_origins",
                f"{shown(origin)} is no origin: it is http:// or https://, a host and perhaps a port",
            )
