"""Whether the files that origin servers need can be used, for how long yet, and who may read their credentials."""

import datetime as dt
import os
import shlex
import stat
from collections.abc import Iterator

from stowkeeper.app.doctor.certificates import check_certificate
from stowkeeper.app.doctor.finding import Finding, ok, warning
from stowkeeper.app.origin_servers import origin_server_obstacles, origin_servers
from stowkeeper.app.settings import Settings

ORIGIN_SERVER = "origin server"


def check_origin_servers(settings: Settings, now: dt.datetime) -> Iterator[Finding]:
    """Read the files of `[[origin_servers]]` as a job does; none is fine. Nobody is called: whom it reaches a job tells."""
    obstacles = {server.name: words for server, words in origin_server_obstacles(settings)}
    for name, server in origin_servers(settings).items():
        path = server.token_file or server.password_file
        words = obstacles.get(name)
        if words is not None:
            files = (path, server.key, server.certificate, server.ca_file)
            named = next((one for one in files if one and one in words), path)
            mend = f"ls -l {shlex.quote(named)}  # then mend what [[origin_servers]] name, and: stowkeeper check-config"
            yield warning(ORIGIN_SERVER, f"{name}: jobs to it wait, since {words}", mend)
            continue
        if server.certificate:
            key = server.key or server.certificate
            yield from check_certificate(name, server.certificate, key, now, is_read_anew=True)
        if path and os.stat(path).st_mode & (stat.S_IROTH | stat.S_IWOTH):
            words = f"{name}: every user of this machine can read or change the credential in {path}"
            yield warning(ORIGIN_SERVER, words, f"chmod o-rwx {shlex.quote(path)}")
            continue
        yield ok(
            ORIGIN_SERVER, f"{name}: what it takes to call {server.address.url} is there; nobody was called"
        )
