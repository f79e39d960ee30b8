"""From the peers of the settings to those that the services know, and to what the server is when it calls them."""

from functools import cache

from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_peers import Peer as PeerEntry
from stowkeeper.app.settings_of_tls import calling_tls_context
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.peer_definition import Peer


def configured_peers(settings: Settings) -> list[Peer]:
    """Return the peers of the settings, in their order; they are read-only."""
    return [_peer_of(entry) for entry in settings.peers]


def own_side(settings: Settings) -> OwnSide:
    """Return what the server is when it calls a peer.

    TLS is set up when the first peer wants it, from the files as they are then; a failure is told to who called.
    """
    return OwnSide(ae_title=settings.dicom.ae_title, tls=cache(lambda: calling_tls_context(settings)))


def _peer_of(entry: PeerEntry) -> Peer:
    return Peer(
        name=entry.name,
        ae_title=entry.ae_title,
        addresses=entry.addresses,
        host=entry.host,
        port=entry.port,
        own_ae_title=entry.own_ae_title or "",
        tls=entry.tls,
        may_echo=entry.may_echo,
        may_store=entry.may_store,
        may_request_commitment=entry.may_request_commitment,
        may_report_commitment=entry.may_report_commitment,
        report_on=entry.report_on,
        connect_seconds=entry.connect_seconds,
        answer_seconds=entry.answer_seconds,
        manufacturer=entry.manufacturer,
        duplicates=entry.duplicates,
        profile=entry.profile,
        is_read_only=True,
    )
