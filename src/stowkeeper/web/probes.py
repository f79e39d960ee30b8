"""/livez and /readyz: for those who start the server anew, and for those who send clients to it.

Everybody may ask, so no more is told than a sentence of ours. Neither waits for a disk or the database.
"""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from stowkeeper.archive.admission import DiskPressure
from stowkeeper.archive.archive import Archive
from stowkeeper.web.roles import EVERYBODY
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.services import WebServices

_TEXT = "text/plain"


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("", tag="system")

    @routes.get("/livez", include_in_schema=False)
    @allow(EVERYBODY, produces=(_TEXT,))
    async def probe_liveness() -> Response:
        """503 when a part of the receive path has ended, which only a new start mends."""
        return _answer(services.broken())

    @routes.get("/readyz", include_in_schema=False)
    @allow(EVERYBODY, produces=(_TEXT,))
    async def probe_readiness() -> Response:
        """503 when instances are refused, and before that, when the room on the disk gets short."""
        return _answer(services.broken() or _what_refuses(services))

    return routes


def _what_refuses(services: WebServices) -> str:
    archive = services.archive
    if not isinstance(archive, Archive):
        return ""
    admission = archive.admission
    words = admission.refusal() or admission.association_refusal()
    if not words and admission.pressure is not DiskPressure.NONE:
        words = "the room on the disk gets short"
    return words


def _answer(words: str) -> Response:
    return PlainTextResponse(f"{words or 'ok'}\n", status_code=503 if words else 200)
