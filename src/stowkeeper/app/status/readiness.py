"""Whether a running server says that it is ready: a door that it closed, after a sync that failed say, is known to it alone."""

import http.client
import ipaddress
import ssl
from collections.abc import Iterator

from stowkeeper.app.running import RunningServer
from stowkeeper.app.status.limits import READINESS_BYTES_MAX, READINESS_SECONDS
from stowkeeper.app.status.state import ToDo


def judged_readiness(server: RunningServer, *, mend: str) -> Iterator[ToDo]:
    """Yield what is to be acted on about what a server of this machine answers at /readyz, where it has HTTP.

    The question holds nothing, and the answer is for everybody: so nobody's certificate is checked.
    """
    if not server.is_here or server.http_host is None or server.http_port is None:
        return
    host = _called(server.http_host)
    if server.http_tls:
        anybody = ssl.create_default_context()
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, server.http_port, timeout=READINESS_SECONDS, context=anybody
        )
    else:
        connection = http.client.HTTPConnection(host, server.http_port, timeout=READINESS_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        words = response.read(READINESS_BYTES_MAX).decode("utf-8", "replace").strip()
    except TimeoutError:
        words = f"the server with pid {server.pid} did not answer at its HTTP port within {READINESS_SECONDS:g} seconds"
        yield ToDo(words=f"{words}: it may hang", mend=mend)
        return
    except (OSError, http.client.HTTPException):
        return  # it ends just now, or its HTTP is behind something else: that is no word of its own
    finally:
        connection.close()
    if response.status == http.client.SERVICE_UNAVAILABLE and words:
        yield ToDo(words=f"the server with pid {server.pid} is not ready: {words}", mend=mend)


def _called(host: str) -> str:
    """Return the address at which a server that listens at another is called from its own machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
