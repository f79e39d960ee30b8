"""A DICOM peer of plain sockets that speaks TLS by the standard library: `RawPeer` with a key."""

import socket
import ssl

from support.raw_peer import RawPeer
from support.tls_files import Identity


def peer_context(
    trusted: str, identity: Identity | None, *, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """Return TLS for a peer that trusts one authority, and shows a certificate if it has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusted)
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class TLSPeer(RawPeer):
    """One connection with TLS on it; the handshake is over as far as this side knows."""

    def __init__(self, port: int, context: ssl.SSLContext, *, receive_buffer: int | None = None) -> None:
        super().__init__(port, receive_buffer=receive_buffer)
        plain = self.socket
        try:
            # An end without close_notify is an error here, so that tests notice one.
            self.socket: ssl.SSLSocket = context.wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            )
        except BaseException:
            plain.close()
            raise

    def end_tls(self) -> socket.socket:
        """Say that nothing more comes, and wait for the same word; return the TCP connection, which stays open."""
        return self.socket.unwrap()
