"""/api/associations, /api/receipts and /api/requests: who came, and what of it was kept."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from stowkeeper.archive import pages
from stowkeeper.archive.pages import ListingFilter, PageRequest
from stowkeeper.archive.receipt import timestamp
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.web.native_lists import Identifier, Listing, give_page
from stowkeeper.web.native_models import Page, Shape
from stowkeeper.web.native_rows import Association, Receipt, StoreRequest
from stowkeeper.web.problems import not_found
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.services import WebServices


class OpenAssociation(Shape):
    """An association that is open in this process."""

    association_id: str
    opened_at: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    tls: str = Field(description="Version and cipher suite; '' without TLS.")
    contexts_accepted: int
    contexts_refused: int
    messages: int
    bytes_received: int


class OpenAssociations(Shape):
    """All associations that are open in this process."""

    items: list[OpenAssociation]


Outcome = Annotated[Literal["stored", "identical", "conflict"] | None, Query(description="Only these.")]
RequestOutcome = Annotated[Literal["kept", "refused", "lost"] | None, Query(description="Only these.")]


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api", tag="ledger")

    @routes.get(
        "/associations",
        operation_id="list_associations",
        summary="List the associations of the ledger",
        response_model=Page[Association],  # type: ignore[valid-type]  # made from the schema, at run time
    )
    @allow(Role.READ)
    def list_associations(
        asked: Listing,
    ) -> dict[str, object]:
        """List who came, those that were rejected too. They are judged by when they were opened."""
        return give_page(services, "/api/associations", pages.associations, asked)

    @routes.get(
        "/associations/open",
        operation_id="list_open_associations",
        summary="List the associations that are open",
        response_model=OpenAssociations,
    )
    @allow(Role.READ)
    def list_open_associations() -> dict[str, object]:
        """List the associations that are open in this process at this moment."""
        return {"items": [_as_open(facts) for facts in services.associations()]}

    @routes.get(
        "/associations/{association_id}",
        operation_id="get_association",
        summary="Show an association",
        response_model=Association,
    )
    @allow(Role.READ)
    def get_association(association_id: Identifier) -> dict[str, Any]:
        """Show one line of the ledger."""
        return _only(services, pages.associations, "association_id", association_id, "association")

    @routes.get(
        "/receipts",
        operation_id="list_receipts",
        summary="List receipts",
        response_model=Page[Receipt],  # type: ignore[valid-type]  # likewise
    )
    @allow(Role.READ)
    def list_receipts(
        asked: Listing,
        outcome: Outcome = None,
    ) -> dict[str, object]:
        """List what was received and kept. `uid` may also be the id of a receipt or of an association."""
        return give_page(services, "/api/receipts", pages.receipts, asked, outcome=outcome)

    @routes.get(
        "/receipts/{receipt_id}", operation_id="get_receipt", summary="Show a receipt", response_model=Receipt
    )
    @allow(Role.READ)
    def get_receipt(receipt_id: Identifier) -> dict[str, Any]:
        """Show one receipt."""
        return _only(services, pages.receipts, "receipt_id", receipt_id, "receipt")

    @routes.get(
        "/requests",
        operation_id="list_requests",
        summary="List requests to store",
        response_model=Page[StoreRequest],  # type: ignore[valid-type]  # likewise
    )
    @allow(Role.READ)
    def list_requests(
        asked: Listing,
        outcome: RequestOutcome = None,
    ) -> dict[str, object]:
        """List all requests to store: by C-STORE, and each part of those by HTTP. `uid` is that of an instance, or the id of an association or of a receipt."""
        return give_page(services, "/api/requests", pages.requests, asked, outcome=outcome)

    return routes


def _only(services: WebServices, rows: Any, key: str, value: str, noun: str) -> dict[str, Any]:  # noqa: ANN401 - a list of pages.py
    with services.database.read() as connection:
        page = rows(connection, PageRequest(limit=10), ListingFilter(uid=value))
    for row in page.rows:
        if row[key] == value:
            found: dict[str, Any] = row
            return found
    raise not_found(f"{noun} of this id")


def _as_open(facts: AssociationFacts) -> dict[str, object]:
    return {
        "association_id": facts.association_id,
        "opened_at": timestamp(facts.opened_at_nanoseconds),
        "calling_ae_title": facts.calling_ae_title,
        "called_ae_title": facts.called_ae_title,
        "peer_address": facts.peer_address,
        "tls": facts.tls,
        "contexts_accepted": facts.contexts_accepted,
        "contexts_refused": facts.contexts_refused,
        "messages": facts.messages,
        "bytes_received": facts.bytes_received,
    }
