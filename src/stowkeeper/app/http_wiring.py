"""From settings and services to the HTTP server."""

from typing import TYPE_CHECKING

from stowkeeper import __version__
from stowkeeper.app.commitment_terms import ask_terms
from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_tls import calling_tls_context
from stowkeeper.archive.archive import Archive
from stowkeeper.net.server import AssociationServer
from stowkeeper.web.application import build_application
from stowkeeper.web.credentials import credentials_exist
from stowkeeper.web.security import check_exposure
from stowkeeper.web.server import ServerTLS, WebServer
from stowkeeper.web.services import ServerFacts, WebOptions, WebServices

if TYPE_CHECKING:
    from stowkeeper.app.beside import Beside


def web_server(
    archive: Archive,
    settings: Settings,
    beside: "Beside",
    server: AssociationServer,
    dicom: tuple[str, int],
    *,
    started_at: str,
) -> WebServer:
    """Make the HTTP server. Raises ExposureError, ServerTLSError, DatabaseUnavailable; blocks."""
    http = settings.http
    with archive.database.read() as connection:
        exist = credentials_exist(connection)
    check_exposure(http.host, exist)
    services = WebServices(
        archive=archive,
        peers=beside.peers,
        facts=ServerFacts(
            version=__version__,
            ae_title=settings.dicom.ae_title,
            dicom_host=dicom[0],
            dicom_port=dicom[1],
            started_at=started_at,
        ),
        jobs_wake=beside.wake_jobs,
        associations=server.open_associations,
        commitment=beside.commitment,
        calling_tls=lambda: calling_tls_context(settings),
        ask_terms=ask_terms(settings),
    )
    options = WebOptions(
        host=http.host,
        allowed_hosts=frozenset(map(str.lower, http.allowed_hosts)),
        allowed_origins=frozenset(http.allowed_origins),
    )
    tls = None
    if http.certificate:
        tls = ServerTLS(certificate=http.certificate, key=http.key or http.certificate)
    return WebServer(build_application(services, options), http.host, int(http.port), tls=tls)
