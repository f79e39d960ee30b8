"""From the origin servers of the settings to those that the services know, and whether they can be called."""

from collections.abc import Iterator, Mapping

from stowkeeper.app.settings import Settings
from stowkeeper.services.origin_servers import OriginServer, OriginServerError, open_destination


def origin_servers(settings: Settings) -> Mapping[str, OriginServer]:
    """Return the origin servers of the settings by name. Nothing is read for it."""
    return {
        entry.name: OriginServer(
            name=entry.name,
            address=entry.address,
            token_file=entry.token_file,
            user=entry.user,
            password_file=entry.password_file,
            ca_file=entry.ca_file,
            certificate=entry.certificate,
            key=entry.key,
            is_exposure_allowed=entry.insecure_http,
            instances=entry.batch_instances,
            bytes_max=entry.batch_bytes,
            parallel=entry.at_once,
            seconds=entry.seconds,
        )
        for entry in settings.origin_servers
    }


def origin_server_obstacles(settings: Settings) -> Iterator[tuple[OriginServer, str]]:
    """Yield each origin server whose files cannot be used now, and why. It ends no start: jobs wait until they can."""
    for server in origin_servers(settings).values():
        try:
            open_destination(server)
        except OriginServerError as error:
            yield server, str(error)
