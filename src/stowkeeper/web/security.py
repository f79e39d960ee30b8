"""Who may ask: credentials, and what holds where there are none.

Without any credential only the loopback interface serves, and everybody there may everything. As soon as there is one,
every request needs one, but the routes that say that they are for everybody. `check_exposure` refuses a start that would
open an archive to the network without a credential; where the last one is removed while the server runs, it serves nobody.
"""

import asyncio
import ipaddress
import math
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from stowkeeper.web.credentials import Credential, CredentialBook, presented
from stowkeeper.web.limits import SCRYPTS_AT_ONCE
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.roles import PRINCIPAL, Principal, Role
from stowkeeper.web.throttling import RateLimit, client_of

LOCAL = Principal(name="", role=Role.ADMIN)
"""Everybody on the loopback interface, where no credential was set up."""

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="stowkeeper", Basic realm="stowkeeper", charset="UTF-8"'}


class ExposureError(Exception):
    """The server would serve the network without asking for a credential; the text names the cure."""


def check_exposure(host: str, credentials_exist: bool) -> None:
    """See that an archive is not opened to the network without a credential. Raises ExposureError.

    `host` is the address or name that HTTP will listen on.
    """
    if credentials_exist or is_loopback(host):
        return
    shown = f"http://{host or '*'}"
    raise ExposureError(
        f"{shown} would serve the whole archive to everybody on the network, since no credential was set up: make one by"
        " `stowkeeper token add NAME --role admin --archive DIR`, or listen on this machine alone by"
        " `--http-host 127.0.0.1`, or turn HTTP off by `--http-port off`"
    )


def is_loopback(host: str) -> bool:
    """Tell whether an address or name is that of the loopback interface; '' is every interface."""
    name = host.strip("[]").partition("%")[0].lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class Authentication:
    """Finds out who asks, and bounds how often one client may ask and may fail.

    `requests` and `failures` bound that. `is_for_everybody` tells whether a request's route needs no credential.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        book: CredentialBook,
        requests: RateLimit,
        failures: RateLimit,
        is_for_everybody: Callable[[Scope], bool],
    ) -> None:
        self._app = app
        self._book = book
        self._requests = requests
        self._failures = failures
        self._is_for_everybody = is_for_everybody
        self._hashing = asyncio.Semaphore(SCRYPTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises ProblemError."""
        if scope["type"] == "http":
            address = scope["client"][0] if scope.get("client") else ""
            client = client_of(address)
            wait = self._requests.take(client)
            if wait:
                raise _too_often("this client asks too often", wait)
            if not self._is_for_everybody(scope):
                scope[PRINCIPAL] = await self._principal(scope, address, client)
        await self._app(scope, receive, send)

    async def _principal(self, scope: Scope, address: str, client: str) -> Principal:
        credentials = self._book.all() if self._book.is_fresh() else await run_in_threadpool(self._book.all)
        if not credentials:
            served = scope["server"][0] if scope.get("server") else ""
            if is_loopback(served) and is_loopback(address):
                return LOCAL
            raise ProblemError(
                403,
                "no credential is set up, so only this machine is served: make one by `stowkeeper token add NAME`",
            )
        authorization = Headers(scope=scope).getlist("authorization")
        if not authorization:
            raise ProblemError(
                401, "this needs a credential: a bearer token, or a name and a password", headers=_CHALLENGE
            )
        credential = await self._verified(authorization, client)
        return Principal(name=credential.name, role=credential.role)

    async def _verified(self, authorization: list[str], client: str) -> Credential:
        given = presented(authorization[0]) if len(authorization) == 1 else None
        if given is not None:
            known = self._book.remembered(given)
            if known is not None:
                return known
        async with self._hashing:
            # Asked anew: others of this client may have been verified, or have failed, while this one waited.
            if given is not None and (known := self._book.remembered(given)) is not None:
                return known
            wait = self._failures.wait(client)
            if wait:
                raise _too_often("too many wrong credentials came from this client", wait)
            found = None if given is None else await run_in_threadpool(self._book.verify, given)
            if found is not None:
                return found
            self._failures.take(client)
        raise ProblemError(401, "the credential is wrong, or was removed", headers=_CHALLENGE)


def _too_often(what: str, wait: float) -> ProblemError:
    seconds = max(1, math.ceil(wait))
    return ProblemError(429, f"{what}: try again in {seconds} s", headers={"Retry-After": str(seconds)})
