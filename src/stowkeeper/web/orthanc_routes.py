"""What all routes in Orthanc's shape have in common: how they are made, how they read a request, and how they answer."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from stowkeeper.web.json_bodies import load_json
from stowkeeper.web.orthanc_errors import ORTHANC_JSON, OrthancError, OrthancErrorCode, bad_format
from stowkeeper.web.routes import NoTextError, api_router, check_json

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def orthanc_router() -> APIRouter:
    """Return an empty router. Its routes are not in the OpenAPI document: their shape is another's."""
    return api_router(tag="orthanc")


def on(routes: APIRouter, method: str, *paths: str) -> Callable[[Endpoint], Endpoint]:
    """Make an endpoint the answer to a method at some paths, with and without a slash at their end, as Orthanc has it."""

    def decorate(endpoint: Endpoint) -> Endpoint:
        for path in paths:
            for written in (path, f"{path}/"):
                routes.add_api_route(
                    written, endpoint, methods=[method], include_in_schema=False, response_model=None
                )
        return endpoint

    return decorate


async def _body_of(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(_body_of)]
"""Type of a parameter that gets the body, whatever its Content-Type says: Orthanc does not look at it."""


def answer(value: object, *, status: int = 200) -> Response:
    """Return a value as JSON in Orthanc's way: the keys of objects in order."""
    return Response(encoded(value), status_code=status, media_type=ORTHANC_JSON)


def nothing() -> Response:
    """Return the empty answer of a change that has nothing to say."""
    return Response(b"", media_type="text/plain")


def encoded(value: object) -> bytes:
    """Return a value as JSON, the keys of objects in order."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")


def answer_list(portions: Iterator[list[Any]]) -> Response:
    """Return a list as JSON that is sent while it is read, portion by portion. The first portion is read at once."""
    first = next(portions, [])

    def pieces() -> Iterator[bytes]:
        yield b"["
        separator = b""
        portion: list[Any] | None = first
        while portion is not None:
            for value in portion:
                yield separator + encoded(value)
                separator = b", "
            portion = next(portions, None)
        yield b"]"

    return StreamingResponse(_in_pieces(pieces()), media_type=ORTHANC_JSON)


_PIECE_BYTES = 64 * 1024
"""Bytes that are handed to the network at a time: each piece costs a change of threads."""


def _in_pieces(parts: Iterator[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


# Reading a request.


def read_json(body: bytes, *, otherwise: str) -> Any:  # noqa: ANN401 - whatever JSON can say
    """Return what a body says as JSON. Raises OrthancError with the details `otherwise`, ProblemError when it is too deep."""
    try:
        check_json(body)
        return load_json(body)
    except (NoTextError, ValueError, RecursionError):
        raise bad_format(otherwise) from None


def flag_of(value: Mapping[str, Any], name: str, *, otherwise: bool) -> bool:
    """Return a member of an object that is true or false. Raises OrthancError."""
    found = value.get(name, otherwise)
    if not isinstance(found, bool):
        raise bad_format(f"Boolean value expected in field: {name}")
    return found


def integer_of(value: Mapping[str, Any], name: str, *, otherwise: int) -> int:
    """Return a member of an object that is a whole number. Raises OrthancError."""
    found = value.get(name, otherwise)
    if isinstance(found, bool) or not isinstance(found, int):
        raise bad_format(f"Integer value expected in field: {name}")
    return found


def timeout_of(value: Mapping[str, Any]) -> int:
    """Return the Timeout of an object, in seconds; 0 where there is none. Raises OrthancError."""
    seconds = integer_of(value, "Timeout", otherwise=0)
    if seconds < 0:
        raise bad_format("Unsigned integer value expected in field: Timeout")
    return seconds


def text_of(value: Mapping[str, Any], name: str, *, otherwise: str | None = None) -> str:
    """Return a member of an object that is a text; it has to be there where `otherwise` is None. Raises OrthancError."""
    found = value.get(name, otherwise)
    if not isinstance(found, str):
        raise bad_format(f"String value expected in field: {name}")
    return found


def has(request: Request, name: str) -> bool:
    """Tell whether a query has a parameter, whatever its value, as `?expand` does."""
    return name in request.query_params


def page_of(request: Request) -> tuple[int, int] | None:
    """Return `since` and `limit` of a list's query, None where there is neither. Raises OrthancError."""
    query = request.query_params
    if "since" not in query and "limit" not in query:
        return None
    for name in ("since", "limit"):
        if name not in query:
            raise OrthancError(
                OrthancErrorCode.BAD_REQUEST,
                f'Missing "{name}" argument for GET request against: {request.url.path.rstrip("/")}/',
            )
    numbers = []
    for name in ("since", "limit"):
        text = query[name]
        if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS_MAX:
            raise OrthancError(OrthancErrorCode.BAD_PARAMETER_TYPE, "Syntax error in some user-supplied data")
        numbers.append(int(text))
    return numbers[0], numbers[1]


_DIGITS_MAX = 15
"""Digits of a number in a query: more rows than that there are not, and the database takes no more."""
