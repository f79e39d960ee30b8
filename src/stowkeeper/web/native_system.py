"""/api/live and /api/system: whether we live, and who we are."""

from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from stowkeeper.archive.catalog import archive_id
from stowkeeper.web.credentials import credentials_exist
from stowkeeper.web.native_models import Shape
from stowkeeper.web.roles import EVERYBODY, Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.services import WebServices


class Liveness(Shape):
    """That the server answers. It says nothing else, since everybody may ask."""

    status: Literal["live"]


class System(Shape):
    """The server."""

    name: Literal["stowkeeper"]
    version: str
    archive_id: str | None = Field(
        description="The UUID of the archive, the same on disk and in its database."
    )
    ae_title: str
    dicom_host: str
    dicom_port: int = Field(description="0 where no DICOM is spoken.")
    started_at: str
    http_credentials_needed: bool = Field(description="Whether requests need a credential.")
    open_associations: int


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api", tag="system")

    @routes.get(
        "/live", operation_id="get_liveness", summary="Tell that the server answers", response_model=Liveness
    )
    @allow(EVERYBODY)
    async def get_liveness() -> dict[str, str]:
        """Needs no credential and no database: for those who watch whether the process answers."""
        return {"status": "live"}

    @routes.get("/system", operation_id="get_system", summary="Tell who the server is", response_model=System)
    @allow(Role.READ)
    def get_system() -> dict[str, object]:
        """Version, archive, DICOM address and AE title of the server."""
        facts = services.facts
        with services.database.read() as connection:
            return {
                "name": "stowkeeper",
                "version": facts.version,
                "archive_id": archive_id(connection),
                "ae_title": facts.ae_title,
                "dicom_host": facts.dicom_host,
                "dicom_port": facts.dicom_port,
                "started_at": facts.started_at,
                "http_credentials_needed": credentials_exist(connection),
                "open_associations": len(services.associations()),
            }

    return routes
