"""The application: every router, and around it some layers.

From the outside in:

    cross-origin fields (only where origins are set)
    the shell: times, errors as answers, security fields, a line in the log
    from where: Host and Origin
    who: rates, credentials
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
from starlette.middleware.cors import CORSMiddleware
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
    native_jobs,
    native_ledger,
    native_peers,
    native_statistics,
    native_system,
    openapi_document,
    openapi_page,
    orthanc,
)
from stowkeeper.web.credentials import CredentialBook
from stowkeeper.web.exchange import RequestShell
from stowkeeper.web.origins import OriginCheck
from stowkeeper.web.orthanc_errors import orthanc_response
from stowkeeper.web.problems import ErrorWriter, ProblemError, not_found, problem_of, problem_response
from stowkeeper.web.routes import check_routes, routes_of, rules_of
from stowkeeper.web.security import Authentication
from stowkeeper.web.services import WebOptions, WebServices
from stowkeeper.web.throttling import RateLimit

ROUTERS: tuple[Callable[[WebServices], APIRouter], ...] = (
    native_system.router,
    native_statistics.router,
    native_ledger.router,
    native_archive.router,
    native_changes.router,
    native_jobs.router,
    native_commitments.router,
    native_peers.router,
    native_credentials.router,
    openapi_page.router,
    *orthanc.ROUTERS,
)
"""Every module that has routes. Of two routes that fit, the one that stands first is taken."""

PROBLEM_PATHS = ("/api", "/dicom-web")
"""At and below these, errors are told as application/problem+json."""

ROOT_ERRORS: ErrorWriter = orthanc_response
"""How errors are told everywhere else."""

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def build_application(
    services: WebServices, options: WebOptions, *, routers: Iterable[APIRouter] = ()
) -> FastAPI:
    """Build the application of a server.

    `routers` come after those of ROUTERS. `state.credential_book` of what is returned is the book of credentials: who changes
    them in this process tells it. Raises TypeError for a route that does not say whom it serves.
    """
    made = [*(make(services) for make in ROUTERS), *routers]
    check_routes(made)
    routes = list(routes_of(made))
    book = CredentialBook(services.database)
    application = FastAPI(
        title="Stowkeeper",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        middleware=_layers(options, book, routes),
        exception_handlers={HTTPException: _tell, RequestValidationError: _tell},
    )
    application.state.credential_book = book
    application.router.routes.extend(routes)
    openapi_document.install(application, routes)
    return application


def write_error(scope: Scope, problem: ProblemError) -> Response:
    """Return a problem in the shape that its address has."""
    path: str = scope["path"]
    below = any(path == prefix or path.startswith(f"{prefix}/") for prefix in PROBLEM_PATHS)
    return (problem_response if below else ROOT_ERRORS)(scope, problem)


def _layers(options: WebOptions, book: CredentialBook, routes: Sequence[APIRoute]) -> list[Middleware]:
    open_paths = {route.path for route in routes if _is_for_everybody(route)}
    layers = [
        Middleware(RequestShell, seconds=options.request_seconds, write_error=write_error),
        Middleware(
            OriginCheck,
            allowed_hosts=(options.host, *options.allowed_hosts),
            allowed_origins=options.allowed_origins,
        ),
        Middleware(
            Authentication,
            book=book,
            requests=RateLimit(per_second=options.requests_per_second, burst=options.requests_burst),
            failures=RateLimit(
                per_second=options.failed_authentications_per_second,
                burst=options.failed_authentications_burst,
            ),
            is_for_everybody=lambda scope: scope["path"] in open_paths,
        ),
        Middleware(OptionsAnswer, routes=routes),
    ]
    if options.allowed_origins:
        across = Middleware(
            CORSMiddleware,
            allow_origins=sorted(options.allowed_origins),
            allow_methods=_METHODS,
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Link", "Location", "Retry-After"],
        )
        layers.insert(0, across)
    return layers


def _is_for_everybody(route: APIRoute) -> bool:
    rules = rules_of(route.endpoint)
    return rules is not None and rules.role is None


class OptionsAnswer:
    """Answers OPTIONS with the methods that an address has (RFC 9110 §9.3.7)."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            await self._app(scope, receive, send)
            return
        methods = allowed_methods(self._routes, scope)
        if not methods:
            raise not_found("such address")
        await Response(status_code=204, headers={"Allow": ", ".join(methods)})(scope, receive, send)


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
    return write_error(request.scope, problem)
