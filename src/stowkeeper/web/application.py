"""The application: every router, and around it some layers.

From the outside in:

    the shell: times, errors as answers, security fields, a line in the log
    for whom: what trusted proxies say
    from where: Host and Origin
    rates
    cross-origin fields (only where origins are set)
    who: credentials
    addresses in Orthanc's spelling
    OPTIONS
    routes, each with its rules

A router is made by a function `router(services)` of its module and stands in ROUTERS.
"""

from collections.abc import Callable, Iterable, Sequence

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from stowkeeper import __version__
from stowkeeper.web import (
    native_archive,
    native_changes,
    native_commitments,
    native_credentials,
    native_forwards,
    native_jobs,
    native_ledger,
    native_peers,
    native_statistics,
    native_system,
    openapi_document,
    openapi_page,
    orthanc,
    probes,
    studies_routes,
)
from stowkeeper.web.capabilities import WADL, capabilities
from stowkeeper.web.credentials import CredentialBook
from stowkeeper.web.exchange import RequestShell
from stowkeeper.web.forwarding import ForwardedRequests
from stowkeeper.web.origins import CrossOrigin, OriginCheck
from stowkeeper.web.orthanc_addresses import OrthancAddresses
from stowkeeper.web.orthanc_errors import orthanc_response
from stowkeeper.web.problems import ErrorWriter, ProblemError, not_found, problem_of, problem_response
from stowkeeper.web.roles import EVERYBODY
from stowkeeper.web.routes import check_routes, routes_of, rules_of
from stowkeeper.web.security import Authentication, Rates, is_loopback, serves_this_machine_alone
from stowkeeper.web.services import WebOptions, WebServices
from stowkeeper.web.throttling import RateLimit

ROUTERS: tuple[Callable[[WebServices], APIRouter], ...] = (
    native_system.router,
    native_statistics.router,
    native_ledger.router,
    native_archive.router,
    native_changes.router,
    native_jobs.router,
    native_forwards.router,
    native_commitments.router,
    native_peers.router,
    native_credentials.router,
    probes.router,
    openapi_page.router,
    openapi_page.root_router,
    studies_routes.router,
    *orthanc.ROUTERS,
)
"""Every module that has routes. Of two routes that fit, the one that stands first is taken."""

NATIVE_PATH = "/api"
"""At and below it, and the base path of DICOMweb, errors are told as application/problem+json."""

ROOT_ERRORS: ErrorWriter = orthanc_response
"""How errors are told everywhere else."""

_METHODS = ("GET", "POST", "PUT", "DELETE")


def build_application(
    services: WebServices, options: WebOptions, *, routers: Iterable[APIRouter] = ()
) -> FastAPI:
    """Build the application of a server.

    `routers` come after those of ROUTERS. `state.credential_book` of what is returned is the book of credentials: who changes
    them in this process tells it. `state.serves_this_machine_alone`: it needs no credential. Raises TypeError for a route that does not say whom it serves.
    """
    made = [*(make(services) for make in ROUTERS), *routers]
    check_routes(made)
    routes = list(routes_of(made))
    base_path = services.dicomweb.base_path
    write_error = error_writer(base_path)
    book = CredentialBook(services.database)
    application = FastAPI(
        title="Stowkeeper",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        middleware=_layers(options, book, routes, write_error, base_path),
        exception_handlers={HTTPException: _tell, RequestValidationError: _tell},
    )
    application.state.credential_book = book
    application.state.serves_this_machine_alone = _serves_this_machine_alone(options)
    application.state.write_error = write_error
    application.router.routes.extend(routes)
    openapi_document.install(application, routes, base_path)
    return application


def error_writer(base_path: str) -> ErrorWriter:
    """Return what tells a problem in the shape that its address has; `base_path` is that of DICOMweb."""

    def write(scope: Scope, problem: ProblemError) -> Response:
        is_ours = _is_of_other_shape(scope["path"], base_path)
        return (problem_response if is_ours else ROOT_ERRORS)(scope, problem)

    return write


def _is_of_other_shape(path: str, base_path: str) -> bool:
    """Tell whether an address is of the native interface or of DICOMweb, and not of Orthanc's shape."""
    return any(_is_below(path, prefix) for prefix in (NATIVE_PATH, base_path))


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


def _layers(
    options: WebOptions,
    book: CredentialBook,
    routes: Sequence[APIRoute],
    write_error: ErrorWriter,
    base_path: str,
) -> list[Middleware]:
    open_paths = {route.path for route in routes if _is_for_everybody(route)}
    return [
        Middleware(RequestShell, seconds=options.request_seconds, write_error=write_error),
        Middleware(ForwardedRequests, trusted_proxies=options.trusted_proxies),
        Middleware(
            OriginCheck,
            allowed_hosts=(options.host, *options.allowed_hosts),
            allowed_origins=options.allowed_origins,
            has_machine_names=not is_loopback(options.host),
        ),
        Middleware(
            Rates, requests=RateLimit(per_second=options.requests_per_second, burst=options.requests_burst)
        ),
        *_across(options, write_error),
        Middleware(
            Authentication,
            book=book,
            failures=RateLimit(
                per_second=options.failed_authentications_per_second,
                burst=options.failed_authentications_burst,
            ),
            failures_of_client=RateLimit(
                per_second=options.client_failures_per_second, burst=options.client_failures_burst
            ),
            is_for_everybody=lambda scope: scope["path"] in open_paths,
            serves_this_machine_alone=_serves_this_machine_alone(options),
        ),
        Middleware(OrthancAddresses, is_other=lambda path: _is_of_other_shape(path, base_path)),
        Middleware(OptionsAnswer, routes=routes, base_path=base_path),
    ]


def _across(options: WebOptions, write_error: ErrorWriter) -> list[Middleware]:
    if not options.allowed_origins:
        return []
    origins = options.allowed_origins
    return [Middleware(CrossOrigin, allowed_origins=origins, methods=_METHODS, write_error=write_error)]


def _serves_this_machine_alone(options: WebOptions) -> bool:
    return serves_this_machine_alone(
        options.host, allowed_hosts=options.allowed_hosts, trusted_proxies=options.trusted_proxies
    )


def _is_for_everybody(route: APIRoute) -> bool:
    rules = rules_of(route.endpoint)
    return rules is not None and rules.role is EVERYBODY


class OptionsAnswer:
    """Answers OPTIONS with the methods that an address has (RFC 9110 §9.3.7).

    At and below the base path of DICOMweb the answer says what it can do, too (PS3.18 §8.9).
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[APIRoute], base_path: str) -> None:
        self._app = app
        self._routes = routes
        self._base_path = base_path
        self._capabilities = capabilities(base_path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        is_base = path.rstrip("/") == self._base_path
        if scope["method"] != "OPTIONS" and not is_base:
            await self._app(scope, receive, send)
            return
        methods = allowed_methods(self._routes, scope)
        if scope["method"] != "OPTIONS":
            if methods:
                await self._app(scope, receive, send)
                return
            raise ProblemError(405, "this address has OPTIONS alone", headers={"Allow": "OPTIONS"})
        if not methods and not is_base:
            raise not_found("such address")
        headers = {"Allow": ", ".join(methods or ("OPTIONS",))}
        response = Response(status_code=204, headers=headers)
        if _is_below(path, self._base_path):
            response = Response(self._capabilities, headers={**headers, "Content-Type": WADL})
        await response(scope, receive, send)


def allowed_methods(routes: Iterable[APIRoute], scope: Scope) -> list[str]:
    """Return the methods that the address of a request has, for the field Allow; none where there is no such address."""
    listed = list(routes)
    found = [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in listed)
    ]
    if not found:
        return []
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"]


async def _tell(request: Request, error: Exception) -> Response:
    """Answer what a route raised, or that there is none."""
    problem = problem_of(error)
    if problem is None:
        raise error
    if problem.status_code == 405:
        routes = [route for route in request.app.router.routes if isinstance(route, APIRoute)]
        problem.headers = {"Allow": ", ".join(allowed_methods(routes, request.scope))}
    answer: Response = request.app.state.write_error(request.scope, problem)
    return answer
