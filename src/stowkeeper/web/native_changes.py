"""/api/changes and /api/audit: what happened, for whoever follows it, and who did what by hand."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from stowkeeper.archive import pages
from stowkeeper.archive.audit import list_audit
from stowkeeper.web.limits import PAGE_ROWS
from stowkeeper.web.native_jobs import key_of
from stowkeeper.web.native_models import Cursor, Limit, Page, Shape, next_page
from stowkeeper.web.native_rows import AuditEntry, Change
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.services import WebServices

_SEQ_MAX = (1 << 63) - 1


class Changes(Shape):
    """What happened after a change, in order."""

    items: list[Change]  # type: ignore[valid-type]  # made from the schema, at run time
    last: int = Field(
        description="Number of the last one here: what to go on with, also where nothing follows yet."
    )
    is_complete: bool = Field(description="Whether nothing follows yet.")
    next: str = Field(
        description="Address of what follows, relative to this server, also where nothing does yet."
    )


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api", tag="changes")

    @routes.get(
        "/changes",
        operation_id="list_changes",
        summary="List what happened since a change",
        response_model=Changes,
    )
    @allow(Role.READ)
    def list_changes(
        since: Annotated[
            int, Query(ge=0, le=_SEQ_MAX, description="Number of the last change that is known.")
        ] = 0,
        limit: Limit = PAGE_ROWS,
    ) -> dict[str, object]:
        """List changes of the archive in order. Each is there if and only if what it tells of is durable."""
        with services.database.read() as connection:
            page = pages.changes(connection, since, limit)
        last = int(page.next_cursor or since)
        return {
            "items": page.rows,
            "last": last,
            "is_complete": len(page.rows) < limit,
            "next": f"/api/changes?since={last}&limit={limit}",
        }

    @routes.get(
        "/audit",
        operation_id="list_audit",
        summary="List the audit trail",
        response_model=Page[AuditEntry],  # type: ignore[valid-type]  # likewise
    )
    @allow(Role.ADMIN)
    def list_audit_entries(cursor: Cursor = None, limit: Limit = PAGE_ROWS) -> dict[str, object]:
        """List who did what by hand, the newest first."""
        with services.database.read() as connection:
            found = list_audit(connection, key_of(cursor), limit)
        last = found[-1].audit_key if len(found) == limit else None
        return {"items": found, "next": next_page("/api/audit", last, limit=limit)}

    return routes
