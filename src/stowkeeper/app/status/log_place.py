"""Whether the log of a running server has its place: nobody reads in a log that it cannot be written."""

import errno
import os
import shlex
from collections.abc import Iterator

from stowkeeper.app.running import RunningServer
from stowkeeper.app.status.limits import LOG_FREE_BYTES_MIN
from stowkeeper.app.status.state import ToDo

_AWAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE, errno.ENODEV})


def judged_log(server: RunningServer) -> Iterator[ToDo]:
    """Yield what is to be acted on about a server's log file, where it writes one on this machine.

    What this user may not look at is not judged. A place where a disk was mounted cannot be told from a folder.
    """
    if server.log_file is None or not server.is_here:
        return
    folder = os.path.dirname(server.log_file)
    look = f"df -h {shlex.quote(folder)}"
    try:
        space = os.statvfs(folder)
    except OSError as error:
        if error.errno in _AWAY:
            words = f"the log folder {folder} is gone, so what the server logs is lost"
            yield ToDo(words=f"{words}: have it or its disk back", mend=look)
        return
    if space.f_bavail * space.f_frsize < LOG_FREE_BYTES_MIN:
        yield ToDo(
            words=f"the disk of the log folder {folder} is full, and log lines are lost: make room", mend=look
        )
