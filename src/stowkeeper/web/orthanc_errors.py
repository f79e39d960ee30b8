"""Errors in the shape of Orthanc: one object that names the request, the HTTP status, and one of Orthanc's own codes.

Codes, messages and HTTP statuses are those of Orthanc 1.10.1, as a test compares them with a running one. Where it answers an
error without a body, ours has one all the same. Where we refuse what it does not, such as to remove a committed instance, the HTTP
status is that of the case and the code the closest one.
"""

from enum import Enum
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from stowkeeper.web.problems import ProblemError, phrase_of

ORTHANC_JSON = "application/json; charset=utf-8"


class OrthancErrorCode(Enum):
    """Orthanc's codes that we answer: number, message, and the HTTP status that goes with it."""

    INTERNAL_ERROR = (-1, "Internal error", 500)
    PARAMETER_OUT_OF_RANGE = (3, "Parameter out of range", 400)
    BAD_PARAMETER_TYPE = (5, "Bad type for a parameter", 400)
    BAD_SEQUENCE_OF_CALLS = (6, "Bad sequence of calls", 500)
    INEXISTENT_ITEM = (7, "Accessing an inexistent item", 404)
    BAD_REQUEST = (8, "Bad request", 400)
    NETWORK_PROTOCOL = (9, "Error in the network protocol", 500)
    BAD_FILE_FORMAT = (15, "Bad file format", 400)
    TIMEOUT = (16, "Timeout in operation", 500)
    UNKNOWN_RESOURCE = (17, "Unknown resource", 404)
    FULL_STORAGE = (19, "The file storage is full", 507)
    CORRUPTED_FILE = (20, "Corrupted file (e.g. inconsistent MD5 hash)", 500)
    INEXISTENT_TAG = (21, "Inexistent tag", 404)
    READ_ONLY = (22, "Cannot modify a read-only data structure", 500)
    UNAUTHORIZED = (29, "Bad credentials were provided to an HTTP request", 401)
    NOT_ACCEPTABLE = (
        34,
        "Cannot send a response which is acceptable according to the Accept HTTP header",
        406,
    )
    DATABASE_UNAVAILABLE = (
        36,
        "The database is currently not available (probably a transient situation)",
        503,
    )
    CANCELED_JOB = (37, "This job was canceled", 500)

    @property
    def number(self) -> int:
        """Orthanc's number of the code, `OrthancStatus` in its answers."""
        return self.value[0]

    @property
    def message(self) -> str:
        """Orthanc's words for the code."""
        return self.value[1]

    @property
    def http_status(self) -> int:
        """The HTTP status that Orthanc sends with it."""
        return self.value[2]


class OrthancError(ProblemError):
    """Ends a request with one of Orthanc's codes. `details` say what, without patient data; '' where Orthanc says nothing.

    `status` is the HTTP status where it is another than the code's own.
    """

    def __init__(self, code: OrthancErrorCode, details: str = "", *, status: int | None = None) -> None:
        super().__init__(code.http_status if status is None else status, details or code.message)
        self.code = code
        self.details = details


_CODE_OF_STATUS = {
    400: OrthancErrorCode.BAD_REQUEST,
    401: OrthancErrorCode.UNAUTHORIZED,
    403: OrthancErrorCode.UNAUTHORIZED,
    404: OrthancErrorCode.UNKNOWN_RESOURCE,
    406: OrthancErrorCode.NOT_ACCEPTABLE,
    408: OrthancErrorCode.TIMEOUT,
    503: OrthancErrorCode.DATABASE_UNAVAILABLE,
    507: OrthancErrorCode.FULL_STORAGE,
}
"""The codes of problems that are not of Orthanc's routes alone: no credential, no such route, too large a body."""


def orthanc_response(scope: Scope, problem: ProblemError) -> Response:
    """Return a problem in Orthanc's shape; an `ErrorWriter` for everything that is not under `/api`."""
    status = problem.status_code
    if isinstance(problem, OrthancError):
        code, details = problem.code, problem.details
    else:
        otherwise = OrthancErrorCode.INTERNAL_ERROR if status >= 500 else OrthancErrorCode.BAD_REQUEST
        code = _CODE_OF_STATUS.get(status, otherwise)
        details = "" if status == 404 else str(problem.detail)
    body: dict[str, Any] = {
        "HttpError": phrase_of(status),
        "HttpStatus": status,
        "Message": code.message,
        "Method": scope["method"],
        "OrthancError": code.message,
        "OrthancStatus": code.number,
        "Uri": scope["path"],
    }
    if details:
        body["Details"] = details
    return JSONResponse(body, status_code=status, headers=problem.headers, media_type=ORTHANC_JSON)


def unknown_resource() -> OrthancError:
    """Return the error that there is no resource of this id."""
    return OrthancError(OrthancErrorCode.UNKNOWN_RESOURCE)


def bad_format(details: str = "") -> OrthancError:
    """Return the error that a body or a part of it is not what it has to be."""
    return OrthancError(OrthancErrorCode.BAD_FILE_FORMAT, details)


def inexistent_item(details: str) -> OrthancError:
    """Return the error that there is no modality, job or transaction of this name."""
    return OrthancError(OrthancErrorCode.INEXISTENT_ITEM, details)
