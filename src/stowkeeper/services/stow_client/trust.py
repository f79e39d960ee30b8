"""Whom the client trusts over TLS, and as whom it calls."""

import ssl

from stowkeeper.net.tls_material import FileFormat, load_authorities, load_own_certificate


def client_context(
    ca_file: str | None = None, *, verifies: bool = True, certificate: str = "", key: str = ""
) -> ssl.SSLContext:
    """Return a context for calls: TLS 1.2 at least, a certificate of a trusted authority that holds for the host.

    The authorities are those of `ca_file`, else those that the machine trusts. Without `verifies` any certificate will do.
    `certificate` is shown to a server that asks for one; its private key is in `key`, else in the same file, without a password.
    Raises TLSSetupError.
    """
    if ca_file is None:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        load_authorities(context, ca_file, FileFormat.PEM)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        load_own_certificate(context, certificate, key or certificate, FileFormat.PEM, None)
    return context
