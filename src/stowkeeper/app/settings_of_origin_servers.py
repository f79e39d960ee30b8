"""The settings of an origin server: one `[[origin_servers]]` table of the file."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import FilePath, Size
from stowkeeper.services.limits import (
    ORIGIN_SERVER_PARALLEL,
    ORIGIN_SERVER_SECONDS,
    ORIGIN_SERVER_SECONDS_MAX,
    ORIGIN_SERVERS_MAX,
)
from stowkeeper.services.stow_client.address import AddressError, StoreAddress, read_address
from stowkeeper.services.stow_client.credentials import CredentialError, basic
from stowkeeper.services.stow_client.limits import (
    BATCH_BYTES,
    BATCH_BYTES_MAX,
    BATCH_INSTANCES,
    BATCH_INSTANCES_MAX,
    PARALLEL_MAX,
)

if TYPE_CHECKING:
    from stowkeeper.app.settings_tables import Settings


class OriginServerSettings(Table):
    """A DICOMweb server (PS3.18 calls it origin server) that forwarding rules store to by STOW-RS.

    Its credential stands in a file, which is read anew whenever something is sent.
    """

    name: Annotated[
        str,
        Field(min_length=1, max_length=limits.PEER_NAME_LETTERS_MAX, pattern=r"^[!-~]([ -~]*[!-~])?$"),
        About(
            "Name of the server in rules, logs and lists; no two share one, nor one with a peer.",
            allowed=f"1 to {limits.PEER_NAME_LETTERS_MAX} printable ASCII characters",
        ),
    ]
    url: Annotated[
        str,
        About(
            "Its DICOMweb service, with or without `/studies` at the end.",
            allowed="a URL that begins with http:// or https://, without user, password or query",
        ),
    ]
    token_file: Annotated[
        FilePath,
        About(
            "File whose first line is a bearer token. Empty: none is presented.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    user: Annotated[
        str,
        About(
            "Who we are to it by basic authentication; it goes with `password_file`.",
            allowed="a name without colon",
        ),
    ] = ""
    password_file: Annotated[
        FilePath, About("File whose first line is the password of `user`.", allowed="a path", shape="path")
    ] = ""
    insecure_http: Annotated[
        bool,
        About(
            "Present the credential without TLS too, to another machine than this one: it can be read on the way."
        ),
    ] = False
    ca_file: Annotated[
        FilePath,
        About(
            "File in PEM with certificates of the authorities by one of which an https server has to be known. Empty: those that"
            " the machine trusts.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    certificate: Annotated[
        FilePath,
        About(
            "File in PEM with our certificate, for a server that asks for one, and behind it those of the authorities between.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    key: Annotated[
        FilePath,
        About(
            "File in PEM with its private key, without a password. Empty: it is in the file of the certificate.",
            allowed="a path",
            shape="path",
        ),
    ] = ""
    batch_instances: Annotated[
        int,
        Field(ge=1, le=BATCH_INSTANCES_MAX),
        About("Instances that one request has at most. Not given: 20."),
    ] = BATCH_INSTANCES
    batch_bytes: Annotated[
        Size,
        Field(ge=1, le=BATCH_BYTES_MAX),
        About(
            "Bytes that one request has at most; a larger instance goes alone. Not given: 256 MB.",
            shape="size",
        ),
    ] = BATCH_BYTES
    at_once: Annotated[
        int, Field(ge=1, le=PARALLEL_MAX), About("Requests that it gets at the same time. Not given: 2.")
    ] = ORIGIN_SERVER_PARALLEL
    seconds: Annotated[
        float,
        Field(ge=limits.SECONDS_MIN, le=ORIGIN_SERVER_SECONDS_MAX, allow_inf_nan=False),
        About("Time for which it may stand still: give no answer, take no data. Not given: 120."),
    ] = ORIGIN_SERVER_SECONDS

    @property
    def address(self) -> StoreAddress:
        """Where instances are posted."""
        return read_address(self.url)

    @model_validator(mode="after")
    def _check_that_it_makes_sense(self) -> Self:
        try:
            address = self.address
            if self.user:
                basic(self.user, "")
        except AddressError as error:
            text = str(error).partition(": use --user")[0]
            raise ValueError(f"url: {text}") from None
        except CredentialError as error:
            raise ValueError(f"user: {error}") from None
        if address.query:
            raise ValueError(
                "url has a query, which everyone sees who may read the settings: a credential goes into token_file"
            )
        if address.study_instance_uid:
            raise ValueError(
                "url names a study: it has to be that of the service, or of all its studies, so that every study can go there"
            )
        if self.token_file and (self.user or self.password_file):
            raise ValueError("token_file and user are two credentials: a request has one")
        if bool(self.user) is not bool(self.password_file):
            raise ValueError("user and password_file are of no use without each other")
        if self.key and not self.certificate:
            raise ValueError("key is of no use without certificate")
        for key in ("ca_file", "certificate"):
            if getattr(self, key) and address.scheme != "https":
                raise ValueError(f"{key} is of no use to a url with http://")
        has_credential = bool(self.token_file or self.password_file)
        if has_credential and not (address.keeps_secrets or self.insecure_http):
            raise ValueError(
                "the credential could be read on the way, since the url has no TLS: call https://, or set insecure_http = true"
                " where the network is your own"
            )
        return self


def origin_server_contradictions(settings: "Settings") -> Iterator[tuple[str, str]]:
    """Yield each key of these tables that contradicts another, and how."""
    names = [server.name for server in settings.origin_servers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "origin_servers", f'several origin servers have the name "{name}"'
    for name in sorted({peer.name for peer in settings.peers} & set(names)):
        yield "origin_servers", f'an origin server and a peer have the name "{name}": rules could mean either'
    if len(names) > ORIGIN_SERVERS_MAX:
        yield (
            "origin_servers",
            f"there are {len(names)} origin servers, {ORIGIN_SERVERS_MAX} are allowed",
        )
