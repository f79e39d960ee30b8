"""The settings of a peer: one `[[peers]]` table of the file."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import AETitle, Host, Networks, is_in_networks
from stowkeeper.services.limits import (
    PEER_ANSWER_SECONDS,
    PEER_CONNECT_SECONDS,
    PEER_MANUFACTURER_LETTERS_MAX,
    PEER_SECONDS_MAX,
    PEER_SECONDS_MIN,
)
from stowkeeper.services.peer_definition import contradictions

DuplicatesPolicy = Literal["keep", "replace", "refuse"]

AE_TITLE_TEXT = "an AE title: 1 to 16 printable ASCII characters without backslash"
NETWORKS_TEXT = 'a list of IP addresses and networks, such as `["10.1.2.3", "10.2.0.0/16", "fd00::/8"]`'


class Peer(Table):
    """A system that is known by its AE title, its addresses, or both, and where it is called.

    The first entry that matches the calling AE title and the address of an association holds for it, unless another
    one that matches has that very address as its `host`. A `host` that is a name is not looked up for that. A report on
    storage commitment is taken from a peer at its `addresses`, or, where it has none, at its `host`.
    """

    name: Annotated[
        str,
        Field(min_length=1, max_length=limits.PEER_NAME_LETTERS_MAX, pattern=r"^[!-~]([ -~]*[!-~])?$"),
        About(
            "Name of the peer in logs and lists; no two peers share one.",
            allowed=f"1 to {limits.PEER_NAME_LETTERS_MAX} printable ASCII characters",
        ),
    ]
    ae_title: Annotated[
        AETitle | None,
        About("Its AE title, by which it calls and is called. Not given: any.", allowed=AE_TITLE_TEXT),
    ] = None
    addresses: Annotated[
        Networks, About("Addresses and networks it calls from. Empty: any.", allowed=NETWORKS_TEXT)
    ] = ()
    duplicates: Annotated[
        DuplicatesPolicy | None,
        About(
            "Its own policy, in place of `storage.duplicates`.", allowed='`"keep"`, `"replace"`, `"refuse"`'
        ),
    ] = None
    profile: Annotated[
        str | None,
        About(
            "Its own negotiation profile, in place of `negotiation.profile` and the other keys of `[negotiation]`.",
            allowed="the name of a profile",
        ),
    ] = None
    host: Annotated[
        Host | None,
        About(
            "Where it is called, to report to it and to send to it. It goes with `port` and needs `ae_title`.",
            allowed="a host name or an IP address",
        ),
    ] = None
    port: Annotated[
        int | None,
        Field(ge=1, le=65535),
        About("TCP port at which it is called.", allowed="a whole number from 1 to 65535"),
    ] = None
    own_ae_title: Annotated[
        AETitle | None,
        About(
            "What the server calls itself when it calls the peer. Not given: `dicom.ae_title`.",
            allowed=AE_TITLE_TEXT,
        ),
    ] = None
    tls: Annotated[
        bool,
        About(
            "Call it over TLS, with the certificate and the authorities of `[tls]`; its certificate has to hold for"
            " `host`."
        ),
    ] = False
    may_echo: Annotated[
        bool, About("Whether its C-ECHO is answered Success. If not: 0122H, SOP class not supported.")
    ] = True
    may_store: Annotated[
        bool,
        About(
            "Whether it may store. If not, its storage contexts are refused, and a C-STORE in an association that was"
            " open already is answered 0124H, not authorized."
        ),
    ] = True
    may_request_commitment: Annotated[
        bool,
        About("Whether it may ask for storage commitment. If not, it is answered 0124H, not authorized."),
    ] = True
    may_report_commitment: Annotated[
        bool,
        About(
            "Whether it may report on storage commitment that was asked of it. If not, it is answered 0124H, not"
            " authorized."
        ),
    ] = True
    report_on: Annotated[
        Literal["new", "same-first"],
        About(
            "Association on which it gets reports of storage commitment: a new one, or first the one that it asked on,"
            " while that is open."
        ),
    ] = "new"
    connect_seconds: Annotated[
        float,
        Field(ge=PEER_SECONDS_MIN, le=PEER_SECONDS_MAX, allow_inf_nan=False),
        About("Time for the connection to it, and again for its answer to the association request."),
    ] = PEER_CONNECT_SECONDS
    answer_seconds: Annotated[
        float,
        Field(ge=PEER_SECONDS_MIN, le=PEER_SECONDS_MAX, allow_inf_nan=False),
        About("Time for which it may stand still in an association: give no answer, take no data."),
    ] = PEER_ANSWER_SECONDS
    manufacturer: Annotated[
        str,
        Field(max_length=PEER_MANUFACTURER_LETTERS_MAX, pattern=r"^[ -~]*$"),
        About(
            "Whose it is, for people.",
            allowed=f"at most {PEER_MANUFACTURER_LETTERS_MAX} printable ASCII characters",
        ),
    ] = ""

    @model_validator(mode="after")
    def _check_that_it_makes_sense(self) -> Self:
        found = contradictions(dict(self))
        if found:
            raise ValueError("; ".join(words for _, words in found))
        return self

    def matches(self, calling_ae_title: str, address: str) -> bool:
        """Tell whether an association with this calling AE title and IP address is this peer's."""
        if self.ae_title is not None and self.ae_title != calling_ae_title:
            return False
        return not self.addresses or is_in_networks(address, self.addresses)
