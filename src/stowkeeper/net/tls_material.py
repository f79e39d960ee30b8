"""Keys, certificates, revocation lists and DH parameters: from files, in PEM or DER, into an `ssl.SSLContext`.

Every file is read here, once and within bounds, so that an error names it and says what is wrong with it. OpenSSL gets
what was read through a file without a name in memory where the system has such files.
"""

import base64
import binascii
import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

from stowkeeper.net.der import INTEGER, SEQUENCE, DERError, only_element
from stowkeeper.net.limits import TLS_DIRECTORY_FILES_MAX, TLS_FILE_BYTES_MAX, TLS_PASSWORD_BYTES_MAX
from stowkeeper.net.tls_certificates import CertificateFacts, certificate_facts
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError

Password = str | Callable[[], str] | None
"""A password, or what asks a person for it; None where there is none."""


class FileFormat(StrEnum):
    """How keys, certificates and revocation lists are written."""

    PEM = "pem"
    DER = "der"


DH_GROUP_2048: Final = b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""The group ffdhe2048 of RFC 7919 Appendix A.1: it is public, and the same everywhere."""

_PEM_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z0-9 .]{1,40})-----\r?\n(.*?)-----END \1-----", re.DOTALL
)  # RFC 7468 §2
_CERTIFICATE_LABELS = {b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"}
_CRL_LABEL = b"X509 CRL"
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.(r?)[0-9]{1,4}")
"""What `openssl rehash` calls the certificates of a directory, and with an r the revocation lists."""

_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


def load_own_certificate(
    context: ssl.SSLContext,
    certificate_file: str,
    key_file: str,
    file_format: FileFormat,
    password: Password,
) -> CertificateFacts:
    """Give a context its own certificate and key; return what the certificate says of itself.

    A PEM file may hold the chain behind the certificate. Raises TLSSetupError.
    """
    chain, facts = _read_certificate(certificate_file, file_format)
    key = _read_key(key_file, file_format)
    asking = _Asking(password)
    try:
        with _openable(chain) as chain_path, _openable(key) as key_path:
            context.load_cert_chain(chain_path, key_path, asking)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise TLSSetupError(
                TLSFault.MISMATCH,
                key_file,
                f"the private key {key_file} does not belong to the certificate {certificate_file}.",
            ) from None
        # What OpenSSL says beyond this does not help: it differs from version to version.
        fault = TLSFault.PASSWORD if asking.was_asked else TLSFault.KEY
        raise TLSSetupError(fault, key_file, f"{_key_problem(key_file, asking)}.") from None
    return facts


def password_in(path: str) -> str:
    """Return the first line of a file, which is a password. Raises TLSSetupError."""
    try:
        with open(path, "rb") as stream:
            line = stream.readline(TLS_PASSWORD_BYTES_MAX + 3)  # so that one that is too long is seen to be
    except OSError as error:
        words = f"the password file {path} cannot be read: {error.strerror}."
        raise TLSSetupError(TLSFault.PASSWORD, path, words) from None
    return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def load_authorities(context: ssl.SSLContext, path: str, file_format: FileFormat) -> None:
    """Have a context trust the certificates of a file; revocation lists in a PEM file count too. Raises TLSSetupError."""
    data = _read(path, TLSFault.TRUST, "the file of trusted certificates")
    if file_format is FileFormat.DER:
        pem = _pem_of(b"CERTIFICATE", data)
    elif any(label in _CERTIFICATE_LABELS for label, _ in _PEM_BLOCK.findall(data)):
        pem = data
    else:
        raise TLSSetupError(
            TLSFault.TRUST, path, f"there is no certificate in {path}{_hint(data, file_format)}."
        )
    problem = f"a certificate in {path} is damaged, or it is none{_hint(data, file_format)}."
    _load_trust(context, path, pem, problem)


def load_revocation_list(context: ssl.SSLContext, path: str, file_format: FileFormat) -> None:
    """Give a context the revocation lists of a file. Raises TLSSetupError."""
    data = _read(path, TLSFault.TRUST, "the revocation list")
    problem = f"a revocation list in {path} is damaged, or it is none{_hint(data, file_format)}."
    if file_format is FileFormat.DER:
        data = _pem_of(_CRL_LABEL, data)
    elif _CRL_LABEL not in (label for label, _ in _PEM_BLOCK.findall(data)):
        raise TLSSetupError(
            TLSFault.TRUST, path, f"there is no revocation list in {path}{_hint(data, file_format)}."
        )
    _load_trust(context, path, data, problem)


def load_directory(context: ssl.SSLContext, path: str, file_format: FileFormat) -> None:
    """Have a context trust what lies in a directory under the names that `openssl rehash` gives. Raises TLSSetupError.

    It is read now and not looked into again, since no handshake is to wait for a disk.
    """
    try:
        with os.scandir(path) as entries:
            named = [
                (found, entry.path) for entry in entries if (found := _HASHED_NAME.fullmatch(entry.name))
            ]
    except OSError as error:
        words = f"the directory of trusted certificates {path} cannot be read: {error.strerror}."
        raise TLSSetupError(TLSFault.TRUST, path, words) from None
    if not named:
        words = f"no certificate in {path} has the name that is looked for, such as 1a2b3c4d.0: run openssl rehash {path}."
        raise TLSSetupError(TLSFault.TRUST, path, words)
    if len(named) > TLS_DIRECTORY_FILES_MAX:
        words = f"{path} holds {len(named)} certificates, more than {TLS_DIRECTORY_FILES_MAX}."
        raise TLSSetupError(TLSFault.TRUST, path, words)
    for found, file in sorted(named, key=lambda pair: pair[1]):
        (load_revocation_list if found[1] else load_authorities)(context, file, file_format)


def load_dh_group(context: ssl.SSLContext, pem: bytes = DH_GROUP_2048) -> None:
    """Give a context a group for Diffie-Hellman over a finite field (DHE suites of TLS 1.2 and older)."""
    with _openable(pem) as path:
        context.load_dh_params(path)


def read_dh_group(path: str) -> tuple[bytes, int]:
    """Read DH parameters in PEM; return them with the number of bits of their prime. Raises TLSSetupError."""
    data = _read(path, TLSFault.DH_PARAMETERS, "the file of DH parameters")
    try:
        _label, body = next(
            block for block in _PEM_BLOCK.findall(data) if block[0].endswith(b"DH PARAMETERS")
        )
        bits = only_element(base64.b64decode(body)).parts()[0].integer().bit_length()
    except (StopIteration, DERError, IndexError, binascii.Error):
        words = f"there are no DH parameters in {path}: openssl dhparam 2048 makes some."
        raise TLSSetupError(TLSFault.DH_PARAMETERS, path, words) from None
    try:
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        probe.set_ciphers("ALL:@SECLEVEL=0")  # what is merely short is for the profile to refuse
        load_dh_group(probe, data)
    except ssl.SSLError:
        words = f"the DH parameters in {path}, of {bits} bits, are damaged or far too short."
        raise TLSSetupError(TLSFault.DH_PARAMETERS, path, words) from None
    return data, bits


class _Asking:
    """Gives OpenSSL the password when it wants one, and remembers that it did."""

    def __init__(self, password: Password) -> None:
        self._password = password
        self.was_asked = False
        self.is_too_long = False

    @property
    def has_password(self) -> bool:
        """Whether there is a password at all."""
        return self._password is not None

    def __call__(self) -> bytes:
        self.was_asked = True
        password = self._password() if callable(self._password) else self._password
        encoded = (password or "").encode("utf-8", "surrogateescape")
        self.is_too_long = len(encoded) > TLS_PASSWORD_BYTES_MAX
        return b"" if self.is_too_long else encoded


def _key_problem(key_file: str, asking: _Asking) -> str:
    if asking.is_too_long:
        return f"the password of the private key {key_file} has more than {TLS_PASSWORD_BYTES_MAX} bytes"
    if asking.was_asked and asking.has_password:
        return f"the password does not open the private key {key_file}"
    if asking.was_asked:
        return f"the private key {key_file} is encrypted, and no password was given for it"
    return f"the private key in {key_file} is damaged, or of a kind that {ssl.OPENSSL_VERSION} does not know"


def _read_certificate(path: str, file_format: FileFormat) -> tuple[bytes, CertificateFacts]:
    """Return a certificate with its chain as PEM, and what it says of itself."""
    data = _read(path, TLSFault.CERTIFICATE, "the certificate")
    pem = _pem_of(b"CERTIFICATE", data) if file_format is FileFormat.DER else data
    bodies = [body for label, body in _PEM_BLOCK.findall(pem) if label in _CERTIFICATE_LABELS]
    hint = _hint(data, file_format)
    if not bodies:
        sentence = f"there is no certificate in {path}{hint}."
        raise TLSSetupError(TLSFault.CERTIFICATE, path, sentence)
    try:
        ders = [base64.b64decode(body) for body in bodies]
        facts = certificate_facts(ders[0])
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(ders))
    except (DERError, binascii.Error, ssl.SSLError):
        sentence = f"the certificate {path} is damaged, or it is none{hint}."
        raise TLSSetupError(TLSFault.CERTIFICATE, path, sentence) from None
    return pem, facts


def _read_key(path: str, file_format: FileFormat) -> bytes:
    """Return a private key as PEM."""
    data = _read(path, TLSFault.KEY, "the private key")
    if file_format is FileFormat.DER:
        try:
            return _pem_of(_key_label(data), data)
        except (DERError, IndexError):
            words = f"{path} is no private key in DER{_hint(data, file_format)}."
            raise TLSSetupError(TLSFault.KEY, path, words) from None
    if b"PRIVATE KEY-----" not in data:
        raise TLSSetupError(
            TLSFault.KEY, path, f"there is no private key in {path}{_hint(data, file_format)}."
        )
    return data


def _key_label(der: bytes) -> bytes:
    """Return what PEM calls a key of this form: PKCS #8 (RFC 5208), or the older forms of its algorithm."""
    parts = only_element(der).parts()
    if parts[0].tag == SEQUENCE:
        return b"ENCRYPTED PRIVATE KEY"
    if parts[0].integer() == 1:
        return b"EC PRIVATE KEY"  # RFC 5915
    if parts[1].tag == SEQUENCE:
        return b"PRIVATE KEY"
    if len(parts) == 6 and all(part.tag == INTEGER for part in parts):
        return b"DSA PRIVATE KEY"
    return b"RSA PRIVATE KEY"  # RFC 8017 A.1.2


def _load_trust(context: ssl.SSLContext, path: str, pem: bytes, problem: str) -> None:
    try:
        with _openable(pem) as openable:
            context.load_verify_locations(openable)
    except ssl.SSLError:
        raise TLSSetupError(TLSFault.TRUST, path, problem) from None


def _read(path: str, fault: TLSFault, what: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            data = stream.read(TLS_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise TLSSetupError(fault, path, f"{what} {path} cannot be read: {error.strerror}.") from None
    if len(data) > TLS_FILE_BYTES_MAX:
        raise TLSSetupError(fault, path, f"{what} {path} has more than {TLS_FILE_BYTES_MAX} bytes.")
    return data


def _pem_of(label: bytes, der: bytes) -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(der), label)


def _hint(data: bytes, file_format: FileFormat) -> str:
    """Say that a file is written in the other format, when it looks like it."""
    if file_format is FileFormat.PEM and data[:1] == bytes([SEQUENCE]):
        return " (it looks like DER, not PEM)"
    if file_format is FileFormat.DER and b"-----BEGIN " in data:
        return " (it looks like PEM, not DER)"
    return ""


@contextlib.contextmanager
def _openable(data: bytes) -> Iterator[str]:
    """Give a path under which OpenSSL finds the bytes, as long as the block runs."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    descriptor, path = tempfile.mkstemp(prefix="stowkeeper-tls-")  # mode 0600
    try:
        with open(descriptor, "wb") as stream:
            stream.write(data)
        yield path
    finally:
        os.unlink(path)
