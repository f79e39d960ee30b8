"""Who may ask: credentials, and what holds where there are none.

Without any credential only the loopback interface serves, and everybody there may everything, unless the request came by way of
a proxy or the settings speak of one: then others stand behind the loopback address. As soon as there is one credential,
every request needs one, but the routes that say that they are for everybody. `check_exposure` refuses a start that would
open an archive to the network without a credential; where the last one is removed while the server runs, it serves nobody.
"""

import asyncio
import hashlib
import ipaddress
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from stowkeeper.database.errors import DatabaseUnavailable
from stowkeeper.web import forwarding
from stowkeeper.web.credentials import Credential, CredentialBook, Presented, presented
from stowkeeper.web.limits import SCRYPTS_AT_ONCE
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.roles import PRINCIPAL, Principal, Role
from stowkeeper.web.throttling import RateLimit, client_of

LOCAL = Principal(name="", role=Role.ADMIN, may_store=True)
"""Everybody on the loopback interface, where no credential was set up."""

TOLD_WITHOUT_DATABASE = frozenset({"/metrics", "/tools/metrics-prometheus"})
"""What is told while the database is away too, to whom it was told before: that it is away."""

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="stowkeeper", Basic realm="stowkeeper", charset="UTF-8"'}


class ExposureError(Exception):
    """The server would serve the network without asking for a credential; the text names the cure."""


def serves_this_machine_alone(
    host: str, *, allowed_hosts: Iterable[str] = (), trusted_proxies: Sequence[object] = ()
) -> bool:
    """Tell whether nobody beyond this machine is meant to reach the server: it listens there, and no proxy stands before it.

    `host` is the address or name that HTTP listens on. What else it may be called by is the name of a proxy.
    """
    return is_loopback(host) and not trusted_proxies and all(map(is_loopback, allowed_hosts))


def check_exposure(
    host: str,
    credentials_exist: bool,
    *,
    allowed_hosts: Iterable[str] = (),
    trusted_proxies: Sequence[object] = (),
) -> None:
    """See that an archive is not opened to the network without a credential. Raises ExposureError.

    The others are what `serves_this_machine_alone` is asked.
    """
    names = tuple(allowed_hosts)
    if credentials_exist or serves_this_machine_alone(
        host, allowed_hosts=names, trusted_proxies=trusted_proxies
    ):
        return
    if is_loopback(host):
        raise ExposureError(
            f"{'http.trusted_proxies' if trusted_proxies else 'http.allowed_hosts'} says that a proxy stands before HTTP, which"
            " would serve the whole archive to everybody whom the proxy admits, since no credential was set up: make one by"
            " `stowkeeper token add NAME --role admin --archive DIR`, or take that setting away, or turn HTTP off by"
            " `--http-port off`"
        )
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


class Rates:
    """Bounds how often one client may ask."""

    def __init__(self, app: ASGIApp, *, requests: RateLimit) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises ProblemError."""
        if scope["type"] == "http":
            wait = self._requests.take(client_of(_address_of(scope)))
            if wait:
                raise _too_often("this client asks too often", wait)
        await self._app(scope, receive, send)


class Authentication:
    """Finds out who asks, and bounds how often that may fail.

    `failures` bounds it for one client and one name, so that who forgot a password keeps no other from asking from the same address;
    `failures_of_client` for one client and all names, since each costs us some 50 ms. `is_for_everybody` tells whether a request's
    route needs no credential, `serves_this_machine_alone` whether none is needed on the loopback interface where there is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        book: CredentialBook,
        failures: RateLimit,
        failures_of_client: RateLimit,
        is_for_everybody: Callable[[Scope], bool],
        serves_this_machine_alone: bool,
    ) -> None:
        self._app = app
        self._book = book
        self._failures = failures
        self._failures_of_client = failures_of_client
        self._serves_this_machine_alone = serves_this_machine_alone
        self._is_for_everybody = is_for_everybody
        self._hashing = asyncio.Semaphore(SCRYPTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises ProblemError."""
        if scope["type"] == "http" and not self._is_for_everybody(scope):
            scope[PRINCIPAL] = await self._principal(scope)
        await self._app(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal:
        authorization = Headers(scope=scope).getlist("authorization")
        credentials = await self._credentials(scope)
        # The first may have been made a moment ago, and is presented now.
        if not credentials and authorization:
            credentials = await self._credentials(scope, anew=True)
        if not credentials:
            if self._serves_this_machine_alone and _comes_from_here(scope):
                if authorization:  # whoever has a wrong one hears of it now, not when credentials are made
                    raise ProblemError(
                        401,
                        "no credential is set up, so the one of this request is none: leave it out, or make one by"
                        " `stowkeeper token add NAME`",
                        headers=_CHALLENGE,
                    )
                return LOCAL
            raise ProblemError(
                403,
                "no credential is set up, so only this machine is served, and nobody by way of a proxy: make one by"
                " `stowkeeper token add NAME`",
            )
        if not authorization:
            raise ProblemError(
                401, "this needs a credential: a bearer token, or a name and a password", headers=_CHALLENGE
            )
        credential = await self._verified(authorization, client_of(_address_of(scope)))
        return Principal(name=credential.name, role=credential.role, may_store=credential.may_store)

    async def _credentials(self, scope: Scope, *, anew: bool = False) -> Mapping[str, Credential]:
        """Return the credentials by name. Raises DatabaseUnavailable."""
        if self._book.is_fresh() and not anew:
            return self._book.all()
        try:
            return await run_in_threadpool(self._book.all, anew=anew)
        except DatabaseUnavailable:
            known = self._book.last_known()
            if known is None or scope["path"] not in TOLD_WITHOUT_DATABASE:
                raise
            return known

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
            failing = _failing(client, given)
            wait = max(self._failures.wait(failing), self._failures_of_client.wait(client))
            if wait:
                raise _too_often("too many wrong credentials came from this client", wait)
            found = None if given is None else await run_in_threadpool(self._book.verify, given)
            if found is not None:
                return found
            self._failures.take(failing)
            self._failures_of_client.take(client)
        raise ProblemError(401, "the credential is wrong, or was removed", headers=_CHALLENGE)


def _address_of(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _comes_from_here(scope: Scope) -> bool:
    """Tell whether a request is of this machine. One that a proxy forwarded is of whoever stands behind it."""
    served = scope["server"][0] if scope.get("server") else ""
    headers = Headers(scope=scope)
    return (
        is_loopback(served)
        and is_loopback(_address_of(scope))
        and not any(name in headers for name in forwarding.FIELDS)
    )


def _failing(client: str, given: Presented | None) -> str:
    """Return what failures are counted by: the client and the name that it presents, of whatever length."""
    name = "" if given is None else given.name
    return f"{client} {hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def _too_often(what: str, wait: float) -> ProblemError:
    seconds = max(1, math.ceil(wait))
    return ProblemError(429, f"{what}: try again in {seconds} s", headers={"Retry-After": str(seconds)})
