"""Listening sockets that whoever started this process opened before (socket activation, sd_listen_fds(3)).

While a server drains and the next one starts, the socket stays open with the service manager: who connects in between waits
in it, and is served by the next server.
"""

import os
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_services import OFF

_FIRST_DESCRIPTOR: Final = 3
"""Where inherited descriptors begin (SD_LISTEN_FDS_START)."""

DICOM: Final = "dicom"
HTTP: Final = "http"


class InheritedSocketError(Exception):
    """The sockets handed over are not what this server can listen on; the text says which and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InheritedSockets:
    """The listening sockets that were handed over: None and empty where there are none."""

    dicom: socket.socket | None = None
    http: Sequence[socket.socket] = ()

    def __bool__(self) -> bool:
        return self.dicom is not None or bool(self.http)

    def in_settings(self, settings: Settings) -> Settings:
        """Return the settings with the addresses of these sockets, so that all rules about addresses are about the real ones.

        Raises InheritedSocketError for an HTTP socket where HTTP is off: connections would wait in it for ever.
        """
        changes: dict[str, object] = {}
        if self.dicom is not None:
            changes["dicom"] = settings.dicom.model_copy(update=_place(self.dicom))
        if self.http:
            if settings.http.port == OFF:
                raise InheritedSocketError(
                    'a socket for HTTP was handed over, and http.port is "off": take it out of the socket unit, or set a port'
                )
            changes["http"] = settings.http.model_copy(update=_place(self.http[0]))
        return settings.model_copy(update=changes) if changes else settings


def inherited_sockets(environment: MutableMapping[str, str]) -> InheritedSockets:
    """Take over the sockets that LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES tell of; take these variables away.

    By their names they are `dicom` or `http`; a single one of another name is for DICOM. Raises InheritedSocketError.
    """
    process = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if process != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
        return InheritedSockets()
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    if len(names) != len(descriptors):
        names = [""] * len(descriptors)
    if len(names) == 1 and names[0] != HTTP:
        names = [DICOM]
    found: dict[str, list[socket.socket]] = {DICOM: [], HTTP: []}
    for name, descriptor in zip(names, descriptors, strict=True):
        if name not in found:
            raise InheritedSocketError(
                f"the socket handed over as {name or 'nameless'!r} is for nothing here: name it dicom or http"
                " (FileDescriptorName= in a socket unit)"
            )
        found[name].append(_listening(descriptor, name))
    if len(found[DICOM]) > 1:
        raise InheritedSocketError(
            "two sockets were handed over for DICOM, and one is served: write one ListenStream=; [::]:11112 is both"
            " IPv4 and IPv6"
        )
    return InheritedSockets(dicom=found[DICOM][0] if found[DICOM] else None, http=tuple(found[HTTP]))


def _listening(descriptor: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the standard library's own signature
        taken = socket.socket(fileno=descriptor)
    except OSError as error:
        raise InheritedSocketError(
            f"descriptor {descriptor} for {name} is no socket: {error.strerror}"
        ) from error
    is_tcp = taken.family in {socket.AF_INET, socket.AF_INET6} and taken.type == socket.SOCK_STREAM
    if not is_tcp or not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise InheritedSocketError(
            f"the socket handed over for {name} is no listening TCP socket: a socket unit needs ListenStream= with an"
            " address and a port, and Accept=no"
        )
    taken.setblocking(False)  # noqa: FBT003 - likewise
    return taken


def _place(listener: socket.socket) -> dict[str, object]:
    host, port = listener.getsockname()[:2]
    return {"host": host, "port": port}
