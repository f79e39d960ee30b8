"""Names of peers, by reverse lookup."""

import contextlib
import socket
from dataclasses import dataclass

from stowkeeper.dcmtk.host_patterns import Client


@dataclass(slots=True)
class PeerHost:
    """The host of a peer. Its name is looked up when it is first asked for, and only if `looks_up`: that can take long."""

    address: str
    looks_up: bool
    _name: str | None = None
    _was_asked: bool = False

    @property
    def full_name(self) -> str | None:
        """Return the host name that belongs to the address; None when there is none, or none is to be looked up."""
        if self.looks_up and not self._was_asked:
            self._was_asked = True
            with contextlib.suppress(OSError):
                name = socket.getnameinfo((self.address, 0), socket.NI_NAMEREQD)[0]
                self._name = name or None
        return self._name

    @property
    def short_name(self) -> str:
        """Return the name up to its first dot, the address where there is none."""
        return (self.full_name or "").partition(".")[0] or self.address

    def as_client(self) -> Client:
        """Return what the access tables are asked about. A name that does not lead back to the address is none."""
        name = self.full_name
        return Client(
            address=self.address, name=name, name_is_confirmed=name is None or self._leads_back(name)
        )

    def _leads_back(self, name: str) -> bool:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError:
            return False
        return any(answer[4][0] == self.address for answer in answers)
