"""TLS between bytes and bytes, without I/O: what the network gave goes in, what it is to get comes out.

OpenSSL works in memory here, and not by the TLS of the event loops: theirs throw the alert away by which a refused peer
learns why (tried with asyncio and uvloop), tell nobody of a failed handshake, and hide what a client opens with.
"""

import ssl
from collections.abc import Iterator
from typing import Final, cast

from stowkeeper.net.der import DERError
from stowkeeper.net.limits import TLS_NAME_LETTERS_MAX
from stowkeeper.net.tls_certificates import certificate_facts, reservations_about
from stowkeeper.net.tls_ciphers import iana_name
from stowkeeper.net.tls_context import ALPN_PROTOCOL, TLSContext, WatchedSSLObject
from stowkeeper.net.tls_errors import TLSFailure
from stowkeeper.net.tls_hello import (
    ALERT_NO_APPLICATION_PROTOCOL,
    MoreNeeded,
    NotTLSError,
    check_is_tls,
    read_opening,
)
from stowkeeper.net.tls_words import words_of


class TLSChannel:
    """One TLS connection in memory.

    `receive` and `read_into` raise TLSFailure, once; then `data_to_send` may still hold the alert that tells the peer, and
    nothing else is to be called. `server_name` is the name or address that a requestor calls.
    """

    def __init__(self, tls: TLSContext, server_name: str = "") -> None:
        self._tls: Final = tls
        self._incoming: Final = ssl.MemoryBIO()
        self._outgoing: Final = ssl.MemoryBIO()
        self._more_to_send = b""
        try:
            connection = tls.ssl_context.wrap_bio(
                self._incoming,
                self._outgoing,
                server_side=tls.is_acceptor,
                server_hostname=server_name or None,
            )
        except ValueError:  # a name with a dot at its front, one that cannot be a host's
            raise TLSFailure(f"{server_name!r} is no name that a certificate could hold") from None
        self.ssl_object: Final = cast("WatchedSSLObject", connection)
        self._opening: Final = bytearray()
        self._is_opened = False
        self._was_read = False
        self._failure: TLSFailure | None = None
        self.is_established = False
        """Whether the handshake is complete, and the peer's certificate is as good as the profile asks."""
        self.is_closed_by_peer = False
        """Whether the peer said that it sends nothing more (close_notify)."""
        self.warnings: list[str] = []
        """What RFC 9325 has against the certificates of a peer that was let in."""

    def begin(self) -> None:
        """Begin the handshake: a requestor speaks first."""
        if not self._tls.is_acceptor:
            self._go_on()

    def receive(self, data: bytes) -> None:
        """Take bytes from the network. As long as the handshake lasts, it goes on."""
        if self._is_opened:
            self._incoming.write(data)
        else:
            self._open(data)
        if self._is_opened and not self.is_established:
            self._go_on()

    def failure_by_loss(self, error: Exception | None) -> TLSFailure:
        """Return the failure of a handshake whose connection was closed, or broke by an error of the system."""
        if not self._opening and self._tls.is_acceptor:
            return TLSFailure("it closed the connection without a word", is_silent=True)
        words = getattr(error, "strerror", None)
        how = f"the connection broke ({words})" if words else "it closed the connection"
        return TLSFailure(f"{how} in the middle of the TLS handshake")

    def failure_after_handshake(self, error: Exception | None) -> Exception | None:
        """Return what ended a connection that was established: the error itself, or what it most likely means.

        In TLS 1.3 a server judges our certificate when the handshake is over for us. Its alert is lost where the system
        resets the connection, since the association request came and was not read.
        """
        if self._was_read or self._tls.is_acceptor or self.ssl_object.version() != "TLSv1.3":
            return error
        return TLSFailure("it closed right after the TLS handshake, as do peers that refuse our certificate")

    def read_into(self, view: memoryview) -> int:
        """Put decrypted bytes at the start of `view`; return how many: 0 when more must be received first."""
        filled = 0
        if self._failure is not None:
            raise self._failure
        try:
            while filled < len(view) and not self.is_closed_by_peer:
                count = cast(
                    "int", self.ssl_object.read(len(view) - filled, cast("bytearray", view[filled:]))
                )
                self.is_closed_by_peer = not count
                filled += count
                self._was_read = self._was_read or count > 0
                if not self._incoming.pending and not self.ssl_object.pending():
                    break  # spares the exception below
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._failure = TLSFailure(words_of(error))  # OpenSSL would not tell a second time
            if not filled:
                raise self._failure from None
        return filled

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt bytes to be sent; raises TLSFailure."""
        try:
            self.ssl_object.write(data)
        except ssl.SSLError as error:
            raise TLSFailure(words_of(error)) from None

    @property
    def is_broken(self) -> bool:
        """Whether the next `read_into` raises, after one that gave what came before the failure."""
        return self._failure is not None

    def close(self) -> None:
        """Tell the peer that nothing more comes (close_notify); its answer is not waited for (RFC 8446 §6.1)."""
        try:
            self.ssl_object.unwrap()
        except ssl.SSLError:
            return  # the peer has not said so yet, or the connection is broken

    def data_to_send(self) -> bytes:
        """Return what the network is to get."""
        more, self._more_to_send = self._more_to_send, b""
        return self._outgoing.read() + more

    @property
    def agreed(self) -> str:
        """Version and cipher suite, such as `TLSv1.3 TLS_AES_256_GCM_SHA384`; empty before the handshake."""
        cipher = self.ssl_object.cipher()
        return f"{self.ssl_object.version()} {iana_name(cipher[0])}" if cipher else ""

    @property
    def peer_name(self) -> str:
        """The subject of the peer's certificate, such as `CN=ct1, O=Clinic`; empty when none was verified."""
        certificate = self.ssl_object.getpeercert() or {}
        subject = cast("tuple[tuple[tuple[str, str], ...], ...]", certificate.get("subject", ()))
        names = (f"{_SHORT.get(kind, kind)}={value}" for part in subject for kind, value in part)
        return ", ".join(names)[:TLS_NAME_LETTERS_MAX]

    def _open(self, data: bytes) -> None:
        """Gather the first bytes until they tell whether to go on."""
        self._opening.extend(data)
        opening = bytes(self._opening)
        try:
            if self._tls.is_acceptor:
                self._check_protocols(read_opening(opening).protocols)
            else:
                check_is_tls(opening)
        except MoreNeeded:
            return
        except NotTLSError as error:
            raise TLSFailure(str(error)) from None
        self._is_opened = True
        self._incoming.write(opening)

    def _check_protocols(self, protocols: tuple[bytes, ...] | None) -> None:
        if protocols is None or ALPN_PROTOCOL.encode() in protocols:
            return
        self._more_to_send = ALERT_NO_APPLICATION_PROTOCOL
        asked = ", ".join(repr(name.decode("ascii", "replace")) for name in protocols)
        raise TLSFailure(
            f"it asked for other application protocols than dicom: {asked[:TLS_NAME_LETTERS_MAX]}"
        )

    def _go_on(self) -> None:
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise TLSFailure(self.ssl_object.refusal or words_of(error)) from None
        self._check_certificates()
        self.is_established = True

    def _check_certificates(self) -> None:
        """Refuse certificates that verify, and are not as good as the profile asks.

        The handshake is complete by then, so no alert can tell the peer.
        """
        if self._tls.ssl_context.verify_mode is ssl.CERT_NONE:
            return
        for certificate in self._verified_chain():
            try:
                facts = certificate_facts(certificate)
            except DERError as error:
                raise TLSFailure(f"a certificate in its chain cannot be read: {error}") from None
            refusal = self._tls.judge(facts)
            if refusal:
                raise TLSFailure(f"a certificate in its chain is refused: {refusal}")
            self.warnings += reservations_about(facts)

    def _verified_chain(self) -> Iterator[bytes]:
        """Yield the peer's certificate and its authorities'; before Python 3.13 the peer's own alone."""
        if hasattr(self.ssl_object, "get_verified_chain"):
            yield from self.ssl_object.get_verified_chain() or ()
            return
        own = self.ssl_object.getpeercert(binary_form=True)
        if own is not None:
            yield own


_SHORT: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
}
"""The usual short forms of the parts of a subject (RFC 4514 §3)."""
