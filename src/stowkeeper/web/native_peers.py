"""/api/peers: who else there is, where it is called, and what it may do here."""

from collections.abc import Sequence
from dataclasses import fields
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi import Path as InPath
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from stowkeeper.net.association_errors import AssociationError
from stowkeeper.services.limits import (
    PEER_ADDRESSES_MAX,
    PEER_ANSWER_SECONDS,
    PEER_CONNECT_SECONDS,
    PEER_MANUFACTURER_LETTERS_MAX,
    PEER_NAME_LETTERS_MAX,
    PEER_SECONDS_MAX,
    PEER_SECONDS_MIN,
)
from stowkeeper.services.peer_health import PeerHealth, echo_of, health_of
from stowkeeper.services.peers import (
    Peer,
    PeerDefinitionError,
    PeerExistsError,
    PeerNotFoundError,
    PeerReadOnlyError,
    PeersFullError,
)
from stowkeeper.web.native_models import FineSeconds, Shape, Wanted
from stowkeeper.web.problems import ProblemError, not_found
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import Asker, allow, api_router
from stowkeeper.web.services import WebServices

_ECHO_SECONDS = 4 * PEER_SECONDS_MAX
"""Time for an echo: a peer may take its own limits for the connection, the association, the answer and the release."""

NAMEABLE = r"^([^/.][^/]?|\.[^/.]|[^/]{3,})$"
"""Names that can stand in an address: without a slash, and neither `.` nor `..` (RFC 3986 §5.2.4)."""

AETitleText = Annotated[str, Field(max_length=16)]
Seconds = Annotated[float, Field(ge=PEER_SECONDS_MIN, le=PEER_SECONDS_MAX, allow_inf_nan=False)]
Name = Annotated[
    str,
    InPath(
        min_length=1,
        max_length=PEER_NAME_LETTERS_MAX,
        pattern=NAMEABLE,
        description="Name of the peer. One that holds a slash, or is a dot or two, by the settings, cannot be named here.",
    ),
]


class PeerDefinition(Wanted):
    """What a peer is; the keys are those of a [[peers]] entry of the settings."""

    ae_title: AETitleText | None = Field(None, description="Its AE title; null is any.")
    addresses: list[Annotated[str, Field(max_length=50)]] = Field(
        default_factory=list,
        max_length=PEER_ADDRESSES_MAX,
        description="Addresses and networks it calls from; none is any.",
    )
    host: Annotated[str, Field(max_length=255)] | None = Field(
        None, description="Where it is called. It needs port and ae_title."
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(None, description="Where it is called.")
    own_ae_title: AETitleText = Field("", description="What we call ourselves to it; '' is our own AE title.")
    tls: bool = Field(default=False, description="Whether it is called over TLS.")
    may_echo: bool = True
    may_store: bool = True
    may_request_commitment: bool = True
    may_report_commitment: bool = True
    report_on: Literal["new", "same-first"] = Field(
        "new", description="The association on which it gets reports of storage commitment."
    )
    connect_seconds: Seconds = PEER_CONNECT_SECONDS
    answer_seconds: Seconds = PEER_ANSWER_SECONDS
    manufacturer: Annotated[str, Field(max_length=PEER_MANUFACTURER_LETTERS_MAX)] = ""
    duplicates: Literal["keep", "replace", "refuse"] | None = Field(
        None, description="What happens to a second version of an instance from it; null is as for all."
    )


class NewPeer(PeerDefinition):
    """A peer that is to be added."""

    name: Annotated[str, Field(min_length=1, max_length=PEER_NAME_LETTERS_MAX, pattern=NAMEABLE)] = Field(
        description="Without a slash, which no address can hold in a name, and neither a dot nor two, which are steps in one."
    )


class PeerHealthShape(Shape):
    """How it goes with a peer; null where nothing is known."""

    last_echo_at: str | None = Field(
        description="When it answered an echo with Success that was asked for here."
    )
    last_association_at: str | None = Field(description="When it opened an association that was accepted.")
    last_report_at: str | None = Field(description="When it took a report of storage commitment.")
    last_report_received_at: str | None = Field(description="When a report of its own came.")
    last_failure_at: str | None = Field(
        description="When an echo, a report of ours, or a job about it failed last."
    )
    last_failure: str = Field(description="Why, in words.")


class PeerShape(Shape):
    """A peer."""

    name: str
    ae_title: str | None
    addresses: list[IPv4Network | IPv6Network]
    host: str | None
    port: int | None
    own_ae_title: str
    tls: bool
    may_echo: bool
    may_store: bool
    may_request_commitment: bool
    may_report_commitment: bool
    report_on: Literal["new", "same-first"]
    connect_seconds: float
    answer_seconds: float
    manufacturer: str
    duplicates: Literal["keep", "replace", "refuse"] | None
    profile: str | None = Field(description="Name of its negotiation profile; null where it has none.")
    is_read_only: bool = Field(description="It stands in the settings file, where alone it can be changed.")
    is_reachable: bool = Field(description="Whether it is said where to call it.")
    health: PeerHealthShape


class Peers(Shape):
    """All peers, those of the settings first."""

    items: list[PeerShape]


class Echo(Shape):
    """What a peer answered to a C-ECHO."""

    status: str = Field(description="Such as 0000H.")
    is_success: bool
    words: str
    tls: str = Field(description="Version and cipher suite; '' without TLS.")
    association_seconds: FineSeconds
    echo_seconds: FineSeconds


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api/peers", tag="peers")

    @routes.get("", operation_id="list_peers", summary="List peers", response_model=Peers)
    @allow(Role.READ)
    def list_peers() -> dict[str, object]:
        """List all peers, those of the settings first."""
        return {"items": _shown(services, services.peers.all())}

    @routes.post(
        "",
        operation_id="add_peer",
        summary="Add a peer",
        status_code=201,
        response_model=PeerShape,
        responses={409: {"description": "There is a peer of this name, or as many as there may be."}},
    )
    @allow(Role.ADMIN)
    def add_peer(wanted: NewPeer, asker: Asker, response: Response) -> dict[str, object]:
        """Add a peer to the database. It counts at once here, and within seconds in other processes."""
        peer = _peer(wanted.model_dump())
        _save(services, peer, asker.who, may_replace=False)
        response.headers["Location"] = f"/api/peers/{_quoted(peer.name)}"
        return _shown_one(services, peer.name)

    @routes.post(
        "/{name}/echo",
        operation_id="echo_peer",
        summary="Ask a peer for a sign of life",
        response_model=Echo,
        responses={502: {"description": "The peer cannot be reached, or does not answer as it should."}},
    )
    @allow(Role.OPERATE, seconds=_ECHO_SECONDS)
    async def echo_peer(name: Name) -> dict[str, object]:
        """Send a C-ECHO over an association of its own. What came of it is told with the peer from then on."""
        peer = await run_in_threadpool(_found, services, name)
        try:
            result = await echo_of(peer, services.own_side, services.database)
        except AssociationError as error:
            raise ProblemError(502, str(error)) from error
        return {
            "status": f"{result.status:04X}H",
            "is_success": result.is_success,
            "words": result.words,
            "tls": result.tls,
            "association_seconds": result.association_seconds,
            "echo_seconds": result.echo_seconds,
        }

    @routes.get("/{name}", operation_id="get_peer", summary="Show a peer", response_model=PeerShape)
    @allow(Role.READ)
    def get_peer(name: Name) -> dict[str, object]:
        """Show one peer."""
        return _shown_one(services, name)

    @routes.put(
        "/{name}",
        operation_id="put_peer",
        summary="Change a peer, or add it",
        response_model=PeerShape,
        responses={
            201: {"model": PeerShape, "description": "It is a new one."},
            409: {"description": "It stands in the settings file, or there are as many as there may be."},
        },
    )
    @allow(Role.ADMIN)
    def put_peer(name: Name, wanted: PeerDefinition, asker: Asker, response: Response) -> dict[str, object]:
        """Give a peer of the database another definition. What is not said has its default."""
        if _save(services, _peer({"name": name, **wanted.model_dump()}), asker.who):
            response.status_code = 201
        return _shown_one(services, name)

    @routes.delete(
        "/{name}",
        operation_id="delete_peer",
        summary="Remove a peer",
        status_code=204,
        responses={409: {"description": "It stands in the settings file, where alone it can be removed."}},
    )
    @allow(Role.ADMIN)
    def delete_peer(name: Name, asker: Asker) -> None:
        """Remove a peer from the database."""
        try:
            services.peers.discard(name, asker.who)
        except PeerReadOnlyError as error:
            raise ProblemError(409, str(error)) from error
        except PeerNotFoundError as error:
            raise _no_peer() from error

    return routes


def _peer(definition: dict[str, Any]) -> Peer:
    try:
        return Peer.from_json(definition)
    except PeerDefinitionError as error:
        raise ProblemError(
            422,
            f"this cannot be a peer: {error}",
            errors=[
                {"where": f"body.{key}" if key else "body", "what": words} for key, words in error.problems
            ],
        ) from error


def _save(services: WebServices, peer: Peer, who: str, *, may_replace: bool = True) -> bool:
    try:
        return services.peers.save(peer, who, may_replace=may_replace)
    except PeerExistsError as error:
        raise ProblemError(
            409, f"there is a peer {peer.name!r} already: change that one, or take another name"
        ) from error
    except (PeerReadOnlyError, PeersFullError) as error:
        raise ProblemError(409, str(error)) from error


def _found(services: WebServices, name: str) -> Peer:
    peer = services.peers.find(name)
    if peer is None:
        raise _no_peer()
    return peer


def _shown_one(services: WebServices, name: str) -> dict[str, object]:
    (shown,) = _shown(services, [_found(services, name)])
    return shown


def _shown(services: WebServices, peers: Sequence[Peer]) -> list[dict[str, object]]:
    """Return peers with the keys of PeerShape."""
    with services.database.read() as connection:
        health: dict[str, PeerHealth] = health_of(
            connection, [peer.name for peer in peers], services.peers.matching
        )
    return [
        {
            **{field.name: getattr(peer, field.name) for field in fields(peer)},
            "is_reachable": peer.is_reachable,
            "health": health[peer.name],
        }
        for peer in peers
    ]


def _no_peer() -> ProblemError:
    return not_found("peer of this name")


def _quoted(name: str) -> str:
    return quote(name, safe="")
