"""Routes that say what they allow.

Each endpoint says by `allow` whom it serves, what it takes and what it gives:

    routes = api_router("/api/peers", tag="peers")

    @routes.get("", operation_id="list_peers", …)
    @allow(Role.READ)
    def list_peers(…) -> PeerList: …

A route without such rules does not start: `check_routes` refuses it. The rules are applied before a byte of the body is
asked for; then the body is read within its bound, and only then FastAPI sees it. An endpoint that `streams` reads its body
itself, piece by piece, within the same bound.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from stowkeeper.web.json_bodies import JSONBoundError, load_json
from stowkeeper.web.limits import BODY_BYTES_MAX, JSON_DEPTH_MAX, JSON_VALUES_AT_ONCE_MAX, JSON_VALUES_MAX
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.roles import EVERYBODY, Audience, Principal, Role, principal_of

JSON = "application/json"

STORE_PERMISSION = "store"
"""How problems and the OpenAPI document name the permission to store by HTTP."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_RULES = "__route_rules__"
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Nothing of it is ever gone back to, and a text that does not end ends with the body: so it reads each byte once.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")
_DECODED_BYTES = 64 * 1024
_LOOKED_AT_BYTES = 1 << 20
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRules:
    """What a route allows. `role` EVERYBODY: no credential is needed. `seconds` None: the time that holds for all.

    `stores`: whoever may store by HTTP, in place of a role; `role` is Role.NONE then, so that a credential is needed.
    """

    role: Role | Audience
    stores: bool
    body_bytes_max: int
    consumes: tuple[str, ...]
    produces: tuple[str, ...]
    seconds: float | None
    streams: bool


def allow(
    role: Role | Audience,
    *,
    stores: bool = False,
    body_bytes_max: int = BODY_BYTES_MAX,
    consumes: tuple[str, ...] = (JSON,),
    produces: tuple[str, ...] = (JSON,),
    seconds: float | None = None,
    streams: bool = False,
) -> Callable[[Endpoint], Endpoint]:
    """Say what an endpoint allows; stands below the decorator of its route.

    `stores`: the endpoint asks for the permission to store in place of a role, which is written `allow(Role.NONE, stores=True)`.
    `consumes` and `produces` are media types; an empty tuple takes and gives any. `seconds` is the time to the beginning of
    the answer. Raises ValueError where both a role and the permission are asked for, or neither, TypeError where nobody is named.
    """
    if not isinstance(role, Role | Audience):
        raise TypeError(f"a route asks for a role, or for nothing: allow(EVERYBODY), not allow({role!r})")
    if stores is not (role is Role.NONE):
        raise ValueError(
            "a route asks for a role, or for the permission to store in place of one: allow(Role.NONE, stores=True)"
        )
    rules = RouteRules(
        role=role,
        stores=stores,
        body_bytes_max=body_bytes_max,
        consumes=consumes,
        produces=produces,
        seconds=seconds,
        streams=streams,
    )

    def decorate(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _RULES, rules)
        return endpoint

    return decorate


def rules_of(endpoint: object) -> RouteRules | None:
    """Return the rules of an endpoint; None where it has none."""
    return getattr(endpoint, _RULES, None)


class GuardedRoute(APIRoute):
    """A route that applies the rules of its endpoint. Make them by `api_router`."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that matched the path. Raises ProblemError."""
        rules = rules_of(self.endpoint)
        if rules is None:
            raise RuntimeError(f"{self.path} does not say whom it serves")
        if scope["method"] in (self.methods or ()):
            _check_role(scope, rules)
            headers = Headers(scope=scope)
            _check_accept(headers, rules)
            receive = await _guarded_body(scope["method"], headers, receive, rules)
        await super().handle(scope, receive, send)


def api_router(prefix: str = "", *, tag: str) -> APIRouter:
    """Return an empty router whose routes apply the rules of their endpoints.

    Give the whole prefix here and none to `include_router`, so that a route knows its own path.
    """
    return APIRouter(prefix=prefix, tags=[tag], route_class=GuardedRoute)


def routes_of(routers: Iterable[APIRouter]) -> Iterator[APIRoute]:
    """Yield the routes of some routers. Raises TypeError for one of another kind, which would apply no rules."""
    for router in routers:
        for route in router.routes:
            if not isinstance(route, GuardedRoute):
                raise TypeError(f"{route!r} applies no rules: make its router by `api_router`")
            yield route


def check_routes(routers: Iterable[APIRouter]) -> None:
    """See that every route says whom it serves. Raises TypeError."""
    for route in routes_of(routers):
        if rules_of(route.endpoint) is None:
            raise TypeError(f"{route.path} does not say whom it serves: use `allow`")


async def _asker(request: Request) -> Principal:
    """Return who asks; for endpoints whose rules demand a role.

    FastAPI would make a thread for each request in which it calls a function that is not of this kind.
    """
    found = principal_of(request.scope)
    if found is None:
        raise RuntimeError("nobody looked who asks")
    return found


Asker = Annotated[Principal, Depends(_asker)]
"""Type of a parameter that gets who asks."""


def _check_role(scope: Scope, rules: RouteRules) -> None:
    if rules.role is EVERYBODY:
        return
    principal = principal_of(scope)
    if principal is None:
        raise RuntimeError("nobody looked who asks")
    if rules.stores and not principal.may_store:
        raise ProblemError(
            403,
            f"this needs the permission to store, which the credential {principal.name!r} does not have: use one that was"
            " made by `stowkeeper token add NAME --store`",
            needed_permission=STORE_PERMISSION,
        )
    if not principal.role.includes(rules.role):
        raise ProblemError(
            403,
            f"this needs the role {rules.role}, and the credential {principal.name!r} has the role {principal.role}",
            needed_role=rules.role.value,
        )


def _check_accept(headers: Headers, rules: RouteRules) -> None:
    """See that the client takes what the route gives (RFC 9110 §12.5.1)."""
    accept = ",".join(headers.getlist("accept"))
    if not accept.strip() or not rules.produces:
        return
    wanted = [entry for entry in accept.split(",") if not _is_refused(entry)]
    types = {entry.partition(";")[0].strip().lower() for entry in wanted}
    for given in rules.produces:
        if types & {given, f"{given.partition('/')[0]}/*", "*/*"}:
            return
    raise ProblemError(
        406, f"this address gives {' or '.join(rules.produces)}, which the field Accept does not allow"
    )


def _is_refused(entry: str) -> bool:
    parameters = [part.strip().lower() for part in entry.split(";")[1:]]
    return any(re.fullmatch(r"q=0(\.0{0,3})?", part) for part in parameters)


async def _guarded_body(method: str, headers: Headers, receive: Receive, rules: RouteRules) -> Receive:
    """Check what is said of the body, then read it within its bound, unless the endpoint does."""
    length = headers.get("content-length", "")
    has_body = "transfer-encoding" in headers or (length.isdecimal() and int(length) > 0)
    if not has_body:
        return receive
    if length.isdecimal() and int(length) > rules.body_bytes_max:
        raise _too_large(rules)
    if method in _WITH_BODY:
        _check_content_type(headers, rules)
    limited = _limited(receive, rules)
    if rules.streams:
        return limited
    body = await _read(limited)
    if JSON in rules.consumes and method in _WITH_BODY:
        check_json(body, JSON_VALUES_AT_ONCE_MAX)
    return _replaying(body, receive)


def _check_content_type(headers: Headers, rules: RouteRules) -> None:
    if not rules.consumes:
        return
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(415, "a body has to come as it is, without a content coding such as gzip")
    given = headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in rules.consumes:
        raise ProblemError(
            415,
            f"a body has to be {' or '.join(rules.consumes)}: say so in the field Content-Type",
            headers={"Accept": ", ".join(rules.consumes)},
        )


def _too_large(rules: RouteRules) -> ProblemError:
    return ProblemError(
        413, f"the body is longer than the {rules.body_bytes_max} bytes that this address takes"
    )


def _limited(receive: Receive, rules: RouteRules) -> Receive:
    """Return a `receive` that ends the request when more than the bound has come."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > rules.body_bytes_max:
            raise _too_large(rules)
        return message

    return limited


async def _read(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(400, "the body did not come whole")
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read, and afterwards what comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


class NoTextError(ProblemError):
    """A body that has to be JSON is not UTF-8."""

    def __init__(self) -> None:
        super().__init__(400, "the JSON of the body is not in UTF-8")


def check_json(body: bytes, values_max: int = JSON_VALUES_MAX) -> None:
    """Refuse JSON that would cost too much to read, or holds what is no text. Raises ProblemError.

    It is nested JSON_DEPTH_MAX deep at most, has `values_max` values, and is UTF-8 (RFC 8259 §8.1).
    """
    _check_utf8(body)
    opened = body.count(b"[") + body.count(b"{")
    if max(opened, body.count(b",")) > values_max:
        raise ProblemError(413, f"the JSON of the body has more than {values_max} values: ask in parts")
    if opened > JSON_DEPTH_MAX:
        depth = 0
        for found in _BRACKETS.finditer(body):
            first = body[found.start()]
            if first in _OPENING:
                depth += 1
            elif first in _CLOSING:
                depth -= 1
            if depth > JSON_DEPTH_MAX:
                raise ProblemError(400, f"the JSON of the body is nested deeper than {JSON_DEPTH_MAX} levels")
    # Piece by piece, as below: while one is looked at no other thread runs.
    if any(
        _SURROGATE.search(body, at, at + _LOOKED_AT_BYTES + 3) for at in range(0, len(body), _LOOKED_AT_BYTES)
    ):
        try:
            # Half of a surrogate pair is no character (RFC 8259 §8.2), and can be written nowhere.
            for piece in json.JSONEncoder(ensure_ascii=False).iterencode(load_json(body)):
                piece.encode()
        except UnicodeEncodeError as error:
            raise ProblemError(400, "the JSON of the body holds half of a character") from error
        except JSONBoundError as error:
            raise ProblemError(413, f"in the JSON of the body {error}") from error
        except ValueError:
            return  # FastAPI says what it is


def _check_utf8(body: bytes) -> None:
    """Refuse what is not UTF-8. Raises NoTextError."""
    if body.isascii() and b"\0" not in body:
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(body), _DECODED_BYTES):
            decoder.decode(body[start : start + _DECODED_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise NoTextError from error
    if b"\0" in body:
        # No JSON in UTF-8 has this byte, and Python would take the body for UTF-16 or UTF-32.
        raise NoTextError
