"""The limit on open files: how many a server needs, and as many as the system lets us have."""

import resource

from stowkeeper.app.limits import OPEN_FILES_BESIDE
from stowkeeper.app.settings import Settings
from stowkeeper.durable.errors import RAISE_OPEN_FILES
from stowkeeper.durable.limits import OPEN_SLOTS
from stowkeeper.net.limits import CONNECTIONS_WITHOUT_ASSOCIATION_MAX


def open_files_needed(settings: Settings) -> int:
    """Return how many files a server has open at most: for each connection a socket and the slot it writes into."""
    connections = settings.dicom.associations_max + CONNECTIONS_WITHOUT_ASSOCIATION_MAX
    standing_open = min(OPEN_SLOTS, settings.storage.slot_pool_size)
    return 2 * connections + standing_open + settings.storage.worker_threads + OPEN_FILES_BESIDE


def raise_open_files_limit(needed: int) -> str:
    """Raise our limit on open files as far as we may; return a warning where that is fewer than `needed`, or ''."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return ""
    # Where the hard limit is "unlimited", as on macOS, the system still refuses that number as a soft one.
    wanted = max(soft, needed) if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    except (OSError, ValueError):  # what we have then is judged below
        pass
    if soft >= needed:
        return ""
    return (
        f"{soft} files may be open, and these settings can need {needed}: {RAISE_OPEN_FILES} to {needed}, or lower"
        " dicom.associations_max; senders beyond what the limit allows are cut off or refused"
    )
