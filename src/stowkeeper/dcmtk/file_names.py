"""Names of stored files, by every scheme of `storescp` and `dcmrecv`.

A name holds nothing that leaves its directory, whatever UIDs a peer sends. Time, new UIDs and random numbers are handed
in, and so is the look at what is there already: `taken` tells whether a name is in use in the directory it is meant for.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from stowkeeper.dcmtk.dcmrecv_options import FileNames as DcmrecvFileNames
from stowkeeper.dcmtk.limits import FILE_NAME_TRIES_MAX
from stowkeeper.dcmtk.modality_prefixes import UNKNOWN_CLASS_SHORT_PREFIX, modality_prefix
from stowkeeper.dcmtk.sanitizing import sanitized, sanitizing_warning
from stowkeeper.dcmtk.storescp_options import FileNames as StorescpFileNames

_MICROSECONDS_IN_MILLISECOND: Final = 1000
_CLOCK_STEP: Final = timedelta(seconds=1)
"""A clock that is behind the latest name by as much was set back, and is believed; one behind by less only lags."""

Taken = Callable[[str], bool]


class NoFreeNameError(Exception):
    """No name was free after so many tries that something else must be wrong."""


class FileName(NamedTuple):
    """A name for a file, without directory. `prefix` is that of its SOP class, `warning` is for the log."""

    text: str
    prefix: str
    warning: str | None = None


class StorescpNames:
    """Makes the names of `storescp`: -uf, +uf or -tn, with the extension of -fe.

    By time a name is `YYYYMMDDhhmmssmmm.PREFIX`; further ones of the same millisecond, prefix and directory have
    `_0000`, `_0001` and so on behind the milliseconds. A name that is taken on the disk is not used again.
    """

    __slots__ = ("_extension", "_new_uid", "_scheme", "_serials", "_stamp")

    def __init__(self, scheme: StorescpFileNames, extension: str, *, new_uid: Callable[[], str]) -> None:
        self._scheme = scheme
        self._extension = extension
        self._new_uid = new_uid
        self._stamp = ""
        self._serials: dict[tuple[str, str], int] = {}

    def name(
        self, sop_class_uid: str, sop_instance_uid: str, *, folder: str, now: datetime | None, taken: Taken
    ) -> FileName:
        """Return the name of the next file; `now` is local time, which names by time need, `folder` the subdirectory it goes to.

        Raises NoFreeNameError.
        """
        prefix = modality_prefix(sop_class_uid)
        if self._scheme is StorescpFileNames.NEW_UID:
            return FileName(text=f"{prefix}.X.{self._new_uid()}{self._extension}", prefix=prefix)
        if self._scheme is StorescpFileNames.TIME:
            if now is None:
                raise ValueError("a name by time takes the time")
            return FileName(text=self._by_time(prefix, folder, now, taken), prefix=prefix)
        uid = sop_instance_uid.replace(" ", "")
        clean = sanitized(uid)
        warning = sanitizing_warning("the SOP Instance UID", uid, clean)
        return FileName(text=f"{prefix}.{clean}{self._extension}", prefix=prefix, warning=warning)

    def _by_time(self, prefix: str, folder: str, now: datetime, taken: Taken) -> str:
        stamp = f"{now:%Y%m%d%H%M%S}{now.microsecond // _MICROSECONDS_IN_MILLISECOND:03d}"
        if stamp != self._stamp:
            self._stamp = stamp
            self._serials.clear()
        ending = f".{prefix}{self._extension}"
        for serial in range(self._serials.get((folder, ending), -1), FILE_NAME_TRIES_MAX):
            name = stamp + ending if serial < 0 else f"{stamp}_{serial:04d}{ending}"
            if not taken(name):
                self._serials[folder, ending] = serial + 1
                return name
        raise NoFreeNameError(f"all names of the millisecond {stamp} are taken")


class DcmrecvNames:
    """Makes the names of `dcmrecv`: +fd, +fu, +fsu or +fst, with the extension of -fe.

    `started_at` is the time in seconds since 1970 that all short unique names of a process have; `random_bits` gives 32
    random bits as a number. A time name that is taken, or was given out before, goes on to the next microsecond.
    """

    __slots__ = ("_extension", "_latest", "_new_uid", "_random_bits", "_scheme", "_started_at")

    def __init__(
        self,
        scheme: DcmrecvFileNames,
        extension: str,
        *,
        started_at: int,
        new_uid: Callable[[], str],
        random_bits: Callable[[], int],
    ) -> None:
        self._scheme = scheme
        self._extension = extension
        self._started_at = started_at & 0xFFFF_FFFF
        self._new_uid = new_uid
        self._random_bits = random_bits
        self._latest: datetime | None = None

    def name(self, sop_class_uid: str, sop_instance_uid: str, *, now: datetime, taken: Taken) -> FileName:
        """Return the name of the next file; `now` is local time. Raises NoFreeNameError."""
        prefix = modality_prefix(sop_class_uid)
        if self._scheme is DcmrecvFileNames.NEW_UID:
            whole = f"{prefix}.X.{self._new_uid()}{self._extension}"
        elif self._scheme is DcmrecvFileNames.SHORT_UNIQUE:
            whole = self._short(modality_prefix(sop_class_uid, UNKNOWN_CLASS_SHORT_PREFIX), taken)
        elif self._scheme is DcmrecvFileNames.TIME:
            whole = self._by_time(prefix, now, taken)
        else:
            whole = f"{prefix}.{sop_instance_uid.strip(' ')}{self._extension}"
        clean = sanitized(whole)
        return FileName(text=clean, prefix=prefix, warning=sanitizing_warning("the file name", whole, clean))

    def _short(self, prefix: str, taken: Taken) -> str:
        for _ in range(FILE_NAME_TRIES_MAX):
            digits = f"{self._started_at:08x}{self._random_bits() & 0xFFFF_FFFF:08x}"
            name = f"{prefix}_{digits}{self._extension}"
            if not taken(sanitized(name)):
                return name
        raise NoFreeNameError(f"{FILE_NAME_TRIES_MAX} random names were all taken")

    def _by_time(self, prefix: str, now: datetime, taken: Taken) -> str:
        at = now
        if self._latest is not None and at <= self._latest < at + _CLOCK_STEP:
            at = self._latest + timedelta(microseconds=1)
        for _ in range(FILE_NAME_TRIES_MAX):
            name = f"{at:%Y%m%d%H%M%S.%f}.{prefix}{self._extension}"
            if not taken(sanitized(name)):
                self._latest = at
                return name
            at += timedelta(microseconds=1)
        raise NoFreeNameError(f"all names of {FILE_NAME_TRIES_MAX} microseconds are taken")
