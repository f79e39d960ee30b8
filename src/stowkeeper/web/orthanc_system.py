"""/system, /statistics and /changes in Orthanc's shape."""

import threading

from fastapi import APIRouter, Request
from starlette.responses import Response

from stowkeeper.archive.changes import newest_change
from stowkeeper.database.engine import Database
from stowkeeper.web.orthanc_answers import Answer, count_all
from stowkeeper.web.orthanc_changes import changes_page, last_change
from stowkeeper.web.orthanc_limits import CHANGES_PAGE, CHANGES_PAGE_MAX
from stowkeeper.web.orthanc_routes import answer, has, on, orthanc_router
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow
from stowkeeper.web.services import WebServices

API_VERSION = 16
"""Orthanc's number of the form of its interface in 1.10.1, which ours has."""

DATABASE_VERSION = 6
"""Orthanc's number of its database's form in 1.10.1. Ours has another form altogether; clients compare the number all the same."""

_MEGABYTE = 1 << 20


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = orthanc_router()
    statistics = _Statistics(services.database)

    @on(routes, "GET", "/system")
    @allow(Role.READ, consumes=(), produces=())
    def get_system(request: Request) -> Response:
        facts = services.facts
        return answer(
            {
                "ApiVersion": API_VERSION,
                "CheckRevisions": False,
                "DatabaseBackendPlugin": None,
                "DatabaseVersion": DATABASE_VERSION,
                "DicomAet": facts.ae_title,
                "DicomPort": facts.dicom_port,
                "HttpPort": (request.scope.get("server") or ("", 0))[1],
                # Without a credential only loopback is served, so it is never open to strangers.
                "IsHttpServerSecure": True,
                "Name": "Stowkeeper",
                "PluginsEnabled": False,
                "StorageAreaPlugin": None,
                "Version": facts.version,
            }
        )

    @on(routes, "GET", "/statistics")
    @allow(Role.READ, consumes=(), produces=())
    def get_statistics() -> Response:
        return answer(statistics.now())

    @on(routes, "GET", "/changes")
    @allow(Role.READ, consumes=(), produces=())
    def get_changes(request: Request) -> Response:
        with services.database.read() as connection:
            if has(request, "last"):
                return answer(last_change(connection))
            since = _number(request, "since", otherwise=0)
            limit = _number(request, "limit", otherwise=CHANGES_PAGE)
            return answer(changes_page(connection, since, min(limit, CHANGES_PAGE_MAX)))

    return routes


class _Statistics:
    """What is counted by walking over everything, remembered until something changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._counted_at: int | None = None
        self._counts: Answer = {}

    def now(self) -> Answer:
        with self._lock, self._database.read() as connection:
            newest = newest_change(connection)
            if newest != self._counted_at:
                self._counts = _as_orthanc(count_all(connection))
                self._counted_at = newest
            return self._counts


def _as_orthanc(counts: dict[str, int]) -> Answer:
    size = int(counts["size"])
    return {
        "CountInstances": counts["Instances"],
        "CountPatients": counts["Patients"],
        "CountSeries": counts["Series"],
        "CountStudies": counts["Studies"],
        "TotalDiskSize": str(size),
        "TotalDiskSizeMB": size // _MEGABYTE,
        "TotalUncompressedSize": str(size),
        "TotalUncompressedSizeMB": size // _MEGABYTE,
    }


def _number(request: Request, name: str, *, otherwise: int) -> int:
    """Return a number of the query; what is none counts as not given, as with Orthanc."""
    text = request.query_params.get(name, "").strip()
    if text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= 18:
        return max(int(text), 0)
    return otherwise
