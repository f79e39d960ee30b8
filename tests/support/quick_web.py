"""What makes a web server for one test quick to put together; it answers as any other.

Each test has a server of its own, and most of its processor time was spent on what is the same for all of them.
"""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from unittest.mock import patch

import fastapi._compat.v2 as fields
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.routing import compile_path

from stowkeeper.web import credentials

PLAIN_HTTP = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of servers without TLS: else httpx reads all certificates of the system for each of them."""
_QUICK_SCRYPT_COST = 16
_adapters: dict[str, TypeAdapter[Any]] = {}
_kept: list[object] = []
"""What is named by its address in a key of the adapters: while it is here, nothing else gets that address."""
_make_route = APIRoute.__init__
_completing = threading.RLock()


@contextlib.contextmanager
def quick_secrets() -> Iterator[None]:
    """Make hashes of secrets that are checked like all others, and soon: each tells its own cost."""
    with patch.object(credentials, "SCRYPT_COST", _QUICK_SCRYPT_COST):
        yield


@contextlib.contextmanager
def quick_routes() -> Iterator[None]:
    """Add routes that FastAPI looks into when they are first asked for more than what a request is matched by.

    An application has 130 of them, and a test asks for two.
    """
    with patch.object(APIRoute, "__init__", _note_route):
        yield


def _note_route(
    route: APIRoute, path: str, endpoint: Callable[..., Any], *, methods: Any = None, **more: Any
) -> None:
    """Take the place of `APIRoute.__init__`: it is called with the same arguments as soon as anything else is asked for."""
    made = type(route)

    def complete() -> None:
        with _shared_adapters():
            _make_route(route, path, endpoint, methods=methods, **more)
        route.__class__ = made

    route.path, route.endpoint = path, endpoint
    route.methods = {method.upper() for method in methods or ["GET"]}
    route.path_regex, route.path_format, route.param_convertors = compile_path(path)
    route.__dict__["complete"] = complete
    route.__class__ = _noted(made)


@cache
def _noted(made: type[APIRoute]) -> type[APIRoute]:
    """Return the class that a route has until it is complete."""

    def complete_and_get(route: APIRoute, name: str) -> Any:
        with _completing:
            route.__dict__.pop("complete", lambda: None)()
        return object.__getattribute__(route, name)

    return type(made.__name__, (made,), {"__getattr__": complete_and_get})


@contextlib.contextmanager
def _shared_adapters() -> Iterator[None]:
    """Make one validator for parameters of the same type and terms, rather than one for each.

    A class that a function makes has the name of the one it made before: what such a class is part of is no part of this.
    """
    with patch.object(fields, "TypeAdapter", _adapter):
        yield


def _adapter(described: Any, *, config: Any = None) -> TypeAdapter[Any]:
    key = f"{described!r} {config!r}"
    if "<locals>" in key:
        return TypeAdapter(described, config=config)
    if key not in _adapters:
        _kept.append(described)
        _adapters[key] = TypeAdapter(described, config=config)
    return _adapters[key]
