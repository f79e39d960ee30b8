"""What is answered when a request cannot be done: application/problem+json (RFC 9457).

A problem says what happened, to which thing, and what to do; never a traceback, never what the request contained.
"""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from stowkeeper.database.errors import DatabaseError, DatabaseUnavailable
from stowkeeper.web.limits import ERRORS_TOLD_MAX
from stowkeeper.web.misfit_words import misfit_place, misfit_words

PROBLEM_JSON = "application/problem+json"

Errors = Sequence[Mapping[str, str]]

_NO_ROUTE = "there is nothing at this address; /api/docs lists what there is"
_PLAIN_WORDS = {
    404: _NO_ROUTE,
    405: "this method is not for this address; the field Allow lists those that are",
}


class ProblemError(HTTPException):
    """Ends a request with a problem. `members` are further members of the object, as RFC 9457 §3.2 has them."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,  # noqa: ANN401 - whatever JSON can say
    ) -> None:
        super().__init__(status, detail, headers=dict(headers) if headers else None)
        self.members = members


def body_lost() -> ProblemError:
    """Return what answers a body that breaks off."""
    return ProblemError(400, "the body did not come whole")


def body_stalled(seconds: float) -> ProblemError:
    """Return what answers a body that stood still for so long."""
    return ProblemError(
        408, f"nothing of the body came for {seconds:g} seconds", headers={"Connection": "close"}
    )


ErrorWriter = Callable[[Scope, ProblemError], Response]
"""Makes an answer of a problem. The scope is that of the request."""


def problem_response(_scope: Scope, problem: ProblemError) -> Response:
    """Return a problem as application/problem+json."""
    return JSONResponse(
        {
            "type": "about:blank",
            "title": phrase_of(problem.status_code),
            "status": problem.status_code,
            "detail": problem.detail,
            **problem.members,
        },
        status_code=problem.status_code,
        headers=problem.headers,
        media_type=PROBLEM_JSON,
    )


def phrase_of(status: int) -> str:
    """Return the phrase that belongs to a status (RFC 9110 §15)."""
    return HTTPStatus(status).phrase


def problem_of(error: Exception) -> ProblemError | None:
    """Return the problem that an exception stands for; None for a fault of the program."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        detail = _PLAIN_WORDS.get(error.status_code) or str(error.detail)
        return ProblemError(error.status_code, detail, headers=error.headers)
    if isinstance(error, DatabaseUnavailable):
        return ProblemError(
            503,
            "the database cannot be used now; the log of the server says why: try again",
            headers={"Retry-After": "5"},
        )
    if isinstance(error, DatabaseError):
        return ProblemError(503, "the database cannot be used; the log of the server says why and what to do")
    return None


def _invalid(error: RequestValidationError) -> ProblemError:
    """Say which parts of a request do not fit, without repeating what stood there."""
    errors = error.errors()
    if any(found.get("type") == "json_invalid" for found in errors):
        return ProblemError(400, "the body is no JSON")
    told = [{"where": misfit_place(found), "what": misfit_words(found)} for found in errors[:ERRORS_TOLD_MAX]]
    where = ", ".join(dict.fromkeys(entry["where"] for entry in told))
    more = f", and {len(errors) - len(told)} more" if len(errors) > len(told) else ""
    return ProblemError(422, f"the request does not fit: {where}{more}", errors=told)


def nobody_works() -> ProblemError:
    """Return the problem that a storage commitment would be accepted, and nobody would work on it."""
    return ProblemError(
        503,
        "nobody works on storage commitments here now; the log of the server says why: ask again later",
        headers={"Retry-After": "60"},
    )


def not_found(what: str) -> ProblemError:
    """Return the problem that there is no such thing."""
    return ProblemError(404, f"there is no {what}")
