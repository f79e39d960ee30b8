"""From where a request comes: a page of another site must not reach a server through the browser of a person here.

Two ways are shut. By rebinding a name, a page of `evil.example` reaches us under its own name: its requests carry a `Host`
that is not ours. By plain cross-site requests it reaches us under our name: they carry its `Origin`. Both are answered 403. A
program that is no browser sends no `Origin`, and is asked for its credential like everyone.
"""

import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from stowkeeper.web.problems import ErrorWriter, ProblemError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginCheck:
    """Refuses requests for another host and from foreign pages.

    Ours are: whatever is an IP address, since no name can be rebound to it; `localhost` and names below it; and `allowed_hosts`,
    in lower case. `has_machine_names`: the name of this machine too. Who answers for that name in its network can rebind it, so it
    is none of ours where the loopback interface alone is served. `allowed_origins` are written as browsers write them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Iterable[str],
        allowed_origins: Iterable[str],
        has_machine_names: bool,
    ) -> None:
        self._app = app
        machine = socket.gethostname().lower()
        own = {machine, machine.partition(".")[0]} if has_machine_names else set[str]()
        self._hosts = frozenset({*own, *map(str.lower, allowed_hosts)})
        self._origins = frozenset(map(str.lower, allowed_origins))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises ProblemError."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            hosts = headers.getlist("host")
            if len(hosts) != 1:
                raise ProblemError(400, "a request has one field Host")
            self._check_host(hosts[0].lower())
            self._check_origin(scope["method"], hosts[0].lower(), headers)
        await self._app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        name = host_name(host)
        if name is None or not (
            _is_address(name) or name == "localhost" or name.endswith(".localhost") or name in self._hosts
        ):
            raise ProblemError(
                403,
                "the host that was asked for is not this server: set http.allowed_hosts if it is one of its names",
            )

    def _check_origin(self, method: str, host: str, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None:
            scheme, separator, rest = origin.lower().partition("://")
            is_ours = bool(separator) and scheme in {"http", "https"} and rest == host
            if not is_ours and origin.lower() not in self._origins:
                raise ProblemError(
                    403, "a page of another origin asked: set http.allowed_origins if it is meant to"
                )
        elif headers.get("sec-fetch-site", "").lower() == "cross-site" and method not in _SAFE_METHODS:
            raise ProblemError(403, "a page of another site asked")


class CrossOrigin:
    """Answers a browser that asks what a page of an allowed origin may (CORS), and says so with every answer to such a page.

    Refusals from further inside are answered here, so that the page can read them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_origins: Iterable[str],
        methods: Iterable[str],
        write_error: ErrorWriter,
    ) -> None:
        self._app = app
        self._write_error = write_error
        self._fields = CORSMiddleware(
            self._told,
            allow_origins=sorted(map(str.lower, allowed_origins)),
            allow_methods=list(methods),
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Link", "Location", "Retry-After"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._fields(scope, receive, send)

    async def _told(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ProblemError as problem:
            await self._write_error(scope, problem)(scope, receive, send)


def host_name(host: str) -> str | None:
    """Return the name in a field Host, without its port; None where it is none (RFC 9110 §7.2)."""
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        port = port.removeprefix(":") if port.startswith(":") else ("x" if port else "")
        if not bracket:
            return None
    else:
        name, _, port = host.partition(":")
    if not name or (port and not port.isdecimal()):
        return None
    return name.removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
