"""/modalities in Orthanc's shape: the peers, one of them, adding, changing, removing, and asking one for a sign of life.

What Orthanc knows of a modality and we don't: AllowFind, AllowFindWorklist, AllowGet, AllowMove are shown as false, since nothing
can be queried here, and taken without effect; so is AllowTranscoding, shown as true: what a modality does not take as it is, is sent
uncompressed. AllowNAction is the right to ask for storage commitment, AllowEventReport the one to report on it. Peers of the
settings are read-only (403).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from stowkeeper.net.association_errors import AssociationError
from stowkeeper.services.limits import PEER_ANSWER_SECONDS, PEER_CONNECT_SECONDS, PEER_SECONDS_MAX
from stowkeeper.services.peer_health import echo_of
from stowkeeper.services.peers import (
    Peer,
    PeerDefinitionError,
    PeerNotFoundError,
    PeerReadOnlyError,
    PeersFullError,
)
from stowkeeper.web.orthanc_answers import Answer
from stowkeeper.web.orthanc_errors import (
    OrthancError,
    OrthancErrorCode,
    bad_format,
    inexistent_item,
    unknown_resource,
)
from stowkeeper.web.orthanc_limits import ECHO_SECONDS
from stowkeeper.web.orthanc_routes import (
    Body,
    answer,
    flag_of,
    has,
    nothing,
    on,
    orthanc_router,
    read_json,
    text_of,
    timeout_of,
)
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow
from stowkeeper.web.services import WebServices

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MANUFACTURERS = {
    "GE": "GE",
    "Generic": "Generic",
    "GenericNoUniversalWildcard": "GenericNoUniversalWildcard",
    "GenericNoWildcardInDates": "GenericNoWildcardInDates",
    "Vitrea": "Vitrea",
    # Names of older versions.
    "AgfaImpax": "GenericNoWildcardInDates",
    "ClearCanvas": "Generic",
    "Dcm4Chee": "Generic",
    "EFilm2": "Generic",
    "MedInria": "Generic",
    "SyngoVia": "GenericNoWildcardInDates",
}
"""The manufacturers that Orthanc 1.10.1 takes, and as what it shows each. They change how it queries; here they are kept."""

_OURS_ALONE = ("addresses", "report_on", "duplicates")
"""What of a peer Orthanc does not know: it stays as it was where a modality is changed."""

_BELOW = ("configuration", "echo", "storage-commitment", "store")
"""What there is below a modality here; Orthanc has more."""


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = orthanc_router()
    book = services.peers

    @on(routes, "GET", "/modalities")
    @allow(Role.READ, consumes=(), produces=())
    def list_modalities(request: Request) -> Response:
        peers = sorted(book.all(), key=lambda peer: peer.name)
        if has(request, "expand"):
            return answer({peer.name: as_modality(peer) for peer in peers})
        return answer([peer.name for peer in peers])

    @on(routes, "GET", "/modalities/{name}")
    @allow(Role.READ, consumes=(), produces=())
    def get_modality(name: str) -> Response:
        if book.find(name) is None:
            raise unknown_resource()
        return answer(list(_BELOW))

    @on(routes, "GET", "/modalities/{name}/configuration")
    @allow(Role.READ, consumes=(), produces=())
    def get_configuration(name: str) -> Response:
        return answer(as_modality(modality_of(services, name)))

    _add_changes(routes, services)
    return routes


def _add_changes(routes: APIRouter, services: WebServices) -> None:
    book = services.peers

    @on(routes, "PUT", "/modalities/{name}")
    @allow(Role.ADMIN, consumes=(), produces=())
    def put_modality(name: str, body: Body, asker: Asker) -> Response:
        try:
            book.change(name, partial(_read_modality, name, body), asker.who)
        except PeerReadOnlyError as error:
            raise OrthancError(OrthancErrorCode.READ_ONLY, str(error), status=403) from None
        except PeersFullError as error:
            raise OrthancError(OrthancErrorCode.BAD_SEQUENCE_OF_CALLS, str(error), status=409) from None
        return nothing()

    @on(routes, "DELETE", "/modalities/{name}")
    @allow(Role.ADMIN, consumes=(), produces=())
    def remove_modality(name: str, asker: Asker) -> Response:
        try:
            book.discard(name, asker.who)
        except PeerReadOnlyError as error:
            raise OrthancError(OrthancErrorCode.READ_ONLY, str(error), status=403) from None
        except PeerNotFoundError:
            raise inexistent_item(f"Unknown DICOM modality with symbolic name: {name}") from None
        return nothing()

    @on(routes, "POST", "/modalities/{name}/echo")
    @allow(Role.OPERATE, consumes=(), produces=(), seconds=ECHO_SECONDS)
    async def echo(name: str, body: Body) -> Response:
        peer = await run_in_threadpool(modality_of, services, name)
        value = read_json(body, otherwise="Cannot parse the JSON body") if body.strip() else {}
        if isinstance(value, Mapping):
            peer = with_timeout(peer, timeout_of(value))
        try:
            result = await echo_of(peer, services.own_side, services.database)
        except AssociationError as error:
            raise OrthancError(OrthancErrorCode.NETWORK_PROTOCOL, str(error)) from None
        if not result.is_success:
            raise OrthancError(OrthancErrorCode.NETWORK_PROTOCOL, f"{peer.where}: {result.words}")
        return answer({})


def modality_of(services: WebServices, name: str) -> Peer:
    """Return a modality by its name. Raises OrthancError where there is none."""
    peer = services.peers.find(name)
    if peer is None:
        raise inexistent_item(f"No modality with symbolic name: {name}")
    return peer


def with_timeout(peer: Peer, seconds: int) -> Peer:
    """Return a peer whose time limits are so many seconds; 0 leaves them as they are. Raises OrthancError."""
    if seconds > PEER_SECONDS_MAX:
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE, f"A timeout is from 0 to {PEER_SECONDS_MAX:g} seconds"
        )
    if not seconds:
        return peer
    return replace(peer, connect_seconds=float(seconds), answer_seconds=float(seconds))


def as_modality(peer: Peer) -> Answer:
    """Return a peer as Orthanc shows a modality. A peer that is nowhere to be called has an empty host and port 0."""
    shipped = peer.answer_seconds == PEER_ANSWER_SECONDS and peer.connect_seconds == PEER_CONNECT_SECONDS
    return {
        "AET": peer.ae_title or "",
        "AllowEcho": peer.may_echo,
        "AllowEventReport": peer.may_report_commitment,
        "AllowFind": False,
        "AllowFindWorklist": False,
        "AllowGet": False,
        "AllowMove": False,
        "AllowNAction": peer.may_request_commitment,
        "AllowStore": peer.may_store,
        "AllowTranscoding": True,
        "Host": peer.host or "",
        "LocalAet": peer.own_ae_title,
        "Manufacturer": peer.manufacturer or "Generic",
        "Port": peer.port or 0,
        "Timeout": 0 if shipped else max(round(peer.answer_seconds), 1),
        "UseDicomTls": peer.tls,
    }


# Reading one.


def _read_modality(name: str, body: bytes, known: Peer | None) -> Peer:
    """Return the peer that a body defines, an array or an object as in Orthanc's configuration. Raises OrthancError.

    What only we know of a peer stays as it was.
    """
    if not _NAME.fullmatch(name):
        raise bad_format(
            f"Only alphanumeric, dash characters and underscores are allowed in the names of modalities/peers, but found: {name}"
        )
    value = read_json(body, otherwise="")
    if isinstance(value, list):
        given = _read_array(value)
    elif isinstance(value, dict):
        given = _read_object(value)
    else:
        raise bad_format()
    ours: dict[str, Any] = {} if known is None else known.to_json()
    kept: dict[str, Any] = {key: ours[key] for key in _OURS_ALONE if key in ours}
    try:
        return Peer.from_json(kept | given | {"name": name})
    except PeerDefinitionError as error:
        raise OrthancError(OrthancErrorCode.PARAMETER_OUT_OF_RANGE, str(error)) from None


def _read_array(value: Sequence[Any]) -> dict[str, Any]:
    if len(value) not in (3, 4) or not all(isinstance(value[place], str) for place in (0, 1)):
        raise bad_format()
    return {
        "ae_title": value[0],
        "host": value[1],
        "port": _port_of(value[2]),
        "manufacturer": _manufacturer_of(value[3]) if len(value) == 4 else "Generic",
    }


def _read_object(value: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {
        "ae_title": text_of(value, "AET"),
        "host": text_of(value, "Host"),
        "port": _port_of(value.get("Port")),
        "manufacturer": _manufacturer_of(value.get("Manufacturer", "Generic")),
        "own_ae_title": text_of(value, "LocalAet", otherwise=""),
        "may_echo": flag_of(value, "AllowEcho", otherwise=True),
        "may_store": flag_of(value, "AllowStore", otherwise=True),
        "tls": flag_of(value, "UseDicomTls", otherwise=False),
    }
    for name in ("AllowFind", "AllowFindWorklist", "AllowGet", "AllowMove", "AllowTranscoding"):
        flag_of(value, name, otherwise=True)
    # The one for both comes first, so that one of them can say otherwise.
    both = flag_of(value, "AllowStorageCommitment", otherwise=True)
    given["may_request_commitment"] = flag_of(value, "AllowNAction", otherwise=both)
    given["may_report_commitment"] = flag_of(value, "AllowEventReport", otherwise=both)
    seconds = timeout_of(value)
    if seconds:
        given |= {"connect_seconds": seconds, "answer_seconds": seconds}
    return given


def _port_of(value: object) -> int:
    """Return a port, which Orthanc also takes as a text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 5:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_format()
    if not 0 < value < 0xFFFF:
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE,
            f"A TCP port number must be in range [1..65534], but found: {value}",
        )
    return value


def _manufacturer_of(value: object) -> str:
    if not isinstance(value, str):
        raise bad_format()
    if value not in _MANUFACTURERS:
        raise OrthancError(
            OrthancErrorCode.PARAMETER_OUT_OF_RANGE, f'Unknown modality manufacturer: "{value[:64]}"'
        )
    return _MANUFACTURERS[value]
