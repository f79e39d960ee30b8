"""/api/forwards: what the rules chose to be sent on, to whom, and what became of it."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from stowkeeper.services.forwarding import rows
from stowkeeper.services.forwarding.rows import ForwardFilter, ForwardState
from stowkeeper.web.limits import PAGE_ROWS
from stowkeeper.web.native_jobs import Text, key_of
from stowkeeper.web.native_models import Cursor, Limit, Page, Shape, next_page
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.services import WebServices

UIDText = Annotated[str, Query(max_length=64)]


class ForwardShape(Shape):
    """A version of an instance that a rule chose for a destination."""

    forward_key: int = Field(description="Grows in the order in which rules chose.")
    sop_instance_uid: str
    series_instance_uid: str | None
    study_instance_uid: str | None
    destination: str = Field(description="Name of a peer or of an origin server.")
    rule: str = Field(description="Name of the rule that chose it.")
    priority: int
    state: ForwardState
    job_id: str | None = Field(description="The job that has it, or had it last; null where there is none.")
    words: str = Field(description="Why it is not sent; of one that was sent the warning of the destination.")
    created_at: str
    changed_at: str


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api", tag="forwards")

    @routes.get(
        "/forwards", operation_id="list_forwards", summary="List forwards", response_model=Page[ForwardShape]
    )
    @allow(Role.READ)
    def list_forwards(
        cursor: Cursor = None,
        limit: Limit = PAGE_ROWS,
        state: Annotated[list[ForwardState] | None, Query(description="One of these.")] = None,
        destination: Text = "",
        rule: Text = "",
        study_instance_uid: UIDText = "",
        sop_instance_uid: UIDText = "",
    ) -> dict[str, object]:
        """List what the rules chose to be sent on, the newest first."""
        wanted = ForwardFilter(
            states=tuple(state or ()),
            destination=destination,
            rule=rule,
            study_instance_uid=study_instance_uid,
            sop_instance_uid=sop_instance_uid,
            before_key=key_of(cursor),
            limit=limit,
        )
        with services.database.read() as connection:
            found = rows.list_forwards(connection, wanted)
        following = next_page(
            "/api/forwards",
            found[-1].forward_key if len(found) == limit else None,
            limit=limit,
            state=[one.value for one in state or ()],
            destination=destination or None,
            rule=rule or None,
            study_instance_uid=study_instance_uid or None,
            sop_instance_uid=sop_instance_uid or None,
        )
        return {"items": found, "next": following}

    return routes
