"""From settings and services to the HTTP server."""

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from stowkeeper import __version__
from stowkeeper.app.commitment_terms import ask_terms
from stowkeeper.app.liveness import what_is_broken
from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_tls import calling_tls_context
from stowkeeper.archive.archive import Archive
from stowkeeper.net.server import AssociationServer
from stowkeeper.services.file_terms import FileTerms, PreamblePolicy, terms_of
from stowkeeper.services.storage import StorageService
from stowkeeper.web.application import build_application
from stowkeeper.web.credentials import credentials_exist
from stowkeeper.web.security import check_exposure
from stowkeeper.web.server import ServerTLS, ServerTLSError, WebServer
from stowkeeper.web.services import DICOMwebOptions, ServerFacts, WebOptions, WebServices

if TYPE_CHECKING:
    from stowkeeper.app.beside import Beside

log = structlog.get_logger("stowkeeper.app")


def web_server(
    archive: Archive,
    settings: Settings,
    beside: "Beside",
    server: AssociationServer,
    service: StorageService,
    dicom: tuple[str, int],
    *,
    started_at: str,
    listeners: Sequence[socket.socket] = (),
) -> WebServer:
    """Make the HTTP server. Raises ExposureError, ServerTLSError, DatabaseUnavailable; blocks."""
    http = settings.http
    with archive.database.read() as connection:
        exist = credentials_exist(connection)
    check_exposure(http.host, exist, allowed_hosts=http.allowed_hosts, trusted_proxies=http.trusted_proxies)
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
        are_jobs_run=beside.are_jobs_run,
        associations=server.open_associations,
        broken=lambda: what_is_broken(archive, server, is_stopping=False),
        traced=beside.traced,
        commitment=beside.commitment,
        calling_tls=lambda: calling_tls_context(beside.settings),
        ask_terms=ask_terms(settings),
        file_terms=lambda address: file_terms(beside.settings, service, address),
        dicomweb=dicomweb_options(settings),
    )
    options = WebOptions(
        host=http.host,
        trusted_proxies=http.trusted_proxies,
        allowed_hosts=frozenset(map(str.lower, http.allowed_hosts)),
        allowed_origins=frozenset(map(str.lower, http.allowed_origins)),
    )
    return WebServer(
        build_application(services, options),
        http.host,
        int(http.port),
        tls=https(settings),
        trusted_proxies=http.trusted_proxies,
        listeners=listeners,
    )


def https(settings: Settings) -> ServerTLS | None:
    """Return the files for HTTPS; None where HTTP is spoken without TLS."""
    http = settings.http
    if not http.certificate:
        return None
    return ServerTLS(certificate=http.certificate, key=http.key or http.certificate)


def renew_https(server: WebServer, settings: Settings) -> None:
    """Have an HTTP server use the certificate and key of settings that were read anew. What is wrong with them is logged."""
    try:
        server.renew_tls(https(settings))
    except ServerTLSError as error:
        log.error("error", what="HTTPS goes on with the certificate that it has", reason=str(error))


def file_terms(settings: Settings, service: StorageService, address: str) -> FileTerms:
    """Return on what terms files are taken by HTTP from an address: what is accepted by C-STORE, as the rules are now."""
    rules = service.rules
    return terms_of(
        rules.policy_for("", address),
        duplicates=rules.duplicates_of("", address),
        preamble=PreamblePolicy(settings.storage.preamble),
    )


def dicomweb_options(settings: Settings) -> DICOMwebOptions:
    """Return how DICOMweb is served."""
    dicomweb = settings.dicomweb
    return DICOMwebOptions(
        base_path=dicomweb.base_path,
        retrieve_url=dicomweb.retrieve_url,
        requests_max=dicomweb.requests_max,
        parts_max=dicomweb.parts_max,
        part_bytes_max=dicomweb.part_bytes_max,
        warnings_are_successes=dicomweb.warnings_are_successes,
    )
