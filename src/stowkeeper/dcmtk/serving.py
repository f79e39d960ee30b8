"""What both programs need to serve: the profile, the limits of an association, and what is done while nothing comes."""

import math
import os
from typing import Final

from stowkeeper.dcmtk.incoming_file import remove_left_over
from stowkeeper.dcmtk.network_options import ProfileChoice
from stowkeeper.dcmtk.oflog.loggers import Logger
from stowkeeper.dcmtk.profile_file import NegotiationProfile, ProfileError, read_profile_file
from stowkeeper.dcmtk.shipped_profiles import SHIPPED_PROFILE_FILE
from stowkeeper.dcmtk.start_checks import StartError
from stowkeeper.net.server_options import ServerOptions

_NO_LIMIT: Final = 0.0


def acceptor_profile(choice: ProfileChoice, log: Logger, exit_code: int) -> NegotiationProfile:
    """Read the association negotiation profile that a command line names. Raises StartError."""
    try:
        file = read_profile_file(choice.file)
        profile = file.acceptor_profile(choice.name)
    except ProfileError as error:
        hint = ""
        if not os.path.exists(choice.file):
            hint = f"; the one that comes with this program is {SHIPPED_PROFILE_FILE}"
        raise StartError(
            exit_code, f"cannot use the association negotiation profile: {error}{hint}"
        ) from None
    for warning in file.warnings:
        log.warning(warning)
    return profile


def shortest(*seconds: float | None) -> float | None:
    """Return the shortest of several times, of which None is without end."""
    return min((each for each in seconds if each is not None), default=None)


def association_limits(
    *,
    maximum_length: int,
    request_seconds: float,
    idle_seconds: float | None,
    message_seconds: float | None,
    send_seconds: float | None,
) -> ServerOptions:
    """Return what bounds an association; of the times None is no limit. There is one association at a time."""
    return ServerOptions(
        maximum_length=maximum_length,
        associations_max=1,
        associations_per_peer_max=1,
        association_request_seconds=request_seconds,
        idle_seconds=idle_seconds or _NO_LIMIT,
        message_seconds=message_seconds or _NO_LIMIT,
        message_bytes_per_second_min=0,  # these programs ask for no speed, only that something comes
        send_seconds=send_seconds or math.inf,
        drain_seconds=_NO_LIMIT,
    )


class Housekeeping:
    """What is done once, as soon as nothing comes: what starting and receiving should not wait for."""

    def __init__(self, directory: str, log: Logger, *, stores: bool) -> None:
        self._directory = directory
        self._log = log
        self._is_due = stores

    def leave_it(self) -> None:
        """Leave it to others: to the parent of this process."""
        self._is_due = False

    def do(self) -> None:
        """Remove what processes that died left behind in the output directory."""
        if not self._is_due:
            return
        self._is_due = False
        count = remove_left_over(self._directory)
        if count:
            self._log.warning(
                "removed %d unfinished files that a process had left in %s", count, self._directory
            )
