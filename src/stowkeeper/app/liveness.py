"""Whether the receive path of a running server works, for whoever watches it."""

from stowkeeper.archive.archive import Archive
from stowkeeper.net.server import AssociationServer


def what_is_broken(archive: Archive, server: AssociationServer | None, *, is_stopping: bool) -> str:
    """Return what of the receive path does not work and will not come back by itself; '' for nothing."""
    if not is_stopping and (server is None or not server.is_listening):
        return "nobody listens any more"
    if not archive.intake.is_running():
        return "a thread that takes instances in has ended"
    return "" if archive.finisher.is_running() else "the thread that lists instances has ended"
