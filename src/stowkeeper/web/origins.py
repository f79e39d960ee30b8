"""From where a request comes: a page of another site must not reach a server through the browser of a person here.

Two ways are shut. By rebinding a name, a page of `evil.example` reaches us under its own name: its requests carry a `Host`
that is not ours. By plain cross-site requests it reaches us under our name: they carry its `Origin`. Both are answered 403. A
program that is no browser sends no `Origin`, and is asked for its credential like everyone.
"""

import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from stowkeeper.web.problems import ProblemError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginCheck:
    """Refuses requests for another host and from foreign pages.

    Ours are: whatever is an IP address, since no name can be rebound to it; `localhost` and names below it; the name of this
    machine; and `allowed_hosts`, in lower case. `allowed_origins` are written as browsers write them.
    """

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]) -> None:
        self._app = app
        machine = socket.gethostname().lower()
        self._hosts = frozenset({machine, machine.partition(".")[0], *map(str.lower, allowed_hosts)})
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
