"""Where HTTP is to be served, looked at before anything is made or done for a start that would be refused."""

import asyncio

from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_services import OFF
from stowkeeper.archive.archive import CATALOG


async def check_http_place(settings: Settings, *, is_bound: bool = False) -> None:
    """See that HTTP could be served where the settings say, as far as that is known without an archive.

    With `is_bound` a socket listens there already, for this server.
    Raises ExposureError for an archive that is still to be made, which has no credential, and OSError for an address that
    cannot be had. Both are looked at again when HTTP is started.
    """
    http = settings.http
    if http.port == OFF:
        return
    from stowkeeper.web.listening import bind  # noqa: PLC0415 - a server without HTTP does not pay for it
    from stowkeeper.web.security import check_exposure  # noqa: PLC0415 - likewise

    if not await asyncio.to_thread((settings.archive_path / CATALOG).exists):
        check_exposure(
            http.host,
            credentials_exist=False,
            allowed_hosts=http.allowed_hosts,
            trusted_proxies=http.trusted_proxies,
        )
    if is_bound:
        return
    try:
        listeners = await bind(http.host, int(http.port))
    except OSError as error:
        raise cannot_listen(settings, error) from error
    for listener in listeners:
        listener.close()


def cannot_listen(settings: Settings, error: OSError) -> OSError:
    """Return the same error with words that say what to do."""
    http = settings.http
    words = (
        f"cannot listen on {http.host}, port {http.port}, for HTTP: {error.strerror or error}. Another program may"
        " have it, as Orthanc has 8042: choose another port with --http-port (0 takes any free one), or turn HTTP"
        " off by --http-port off"
    )
    return type(error)(error.errno, words)
