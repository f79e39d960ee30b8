"""TLS as a person asks for it, and the `ssl.SSLContext` that does it, for the side that accepts and the one that asks.

    tls = acceptor_context(TLSOptions(certificate_file="server.pem", key_file="server.key", ca_files=("ca.pem",)))

What Python's `ssl` gives no hold on, and so stays as OpenSSL has it: the suites of TLS 1.3 (AES-GCM and ChaCha20), the
groups for key agreement (all of 253 bits and more), the signature algorithms that a client offers, and the cache in which
TLS 1.2 and older keep sessions to resume; TLS 1.3 resumes none.
"""

import datetime as dt
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from stowkeeper.net.tls_certificates import CertificateFacts, KeyKind, refusal_of, reservations_about
from stowkeeper.net.tls_ciphers import cipher_string, signs_with
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.net.tls_material import (
    FileFormat,
    Password,
    load_authorities,
    load_dh_group,
    load_directory,
    load_own_certificate,
    load_revocation_list,
    read_dh_group,
)
from stowkeeper.net.tls_profiles import PROFILES, SecurityProfile, suite_warnings, suites_of

ALPN_PROTOCOL: Final = "dicom"
"""What DICOM is called in application-layer protocol negotiation (IANA's registry)."""

DH_BITS_ADVISED = 2048
"""Size of a Diffie-Hellman prime below which RFC 9325 §4.4 advises against it."""


_SIGNS: Final = {KeyKind.RSA: "RSA", KeyKind.DSA: "DSS"}
"""What cipher suites call the kinds of keys; all others, those of EdDSA too, go by ECDSA (RFC 8422 §2.2)."""


class PeerVerification(StrEnum):
    """What is asked of the peer's certificate. A requestor always gets one, so IF_PRESENT means REQUIRE there."""

    REQUIRE = "require"
    IF_PRESENT = "if-present"
    IGNORE = "ignore"


class RevocationCheck(StrEnum):
    """Which certificates are looked for in revocation lists; for each of them there must be one that holds now."""

    NONE = "none"
    LEAF = "leaf"
    CHAIN = "chain"


class ProtocolVersion(StrEnum):
    """Versions of TLS that can be demanded as the lowest."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


_VERSIONS: Final = {
    ProtocolVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    ProtocolVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSOptions:
    """How TLS is to be.

    Without `key_file` the key is looked for in the file of the certificate, which only a requestor may do without.
    `file_format` holds for all files but that of the DH parameters, which is PEM. `crl_files` that could be read mean
    RevocationCheck.LEAF at least. `cipher_suites` are names of IANA, in addition to those of the profile, for TLS 1.2 and
    older. `minimum_version` can only narrow the profile. `expected_server_name` refuses peers that ask for another (SNI).
    `trusts_system` adds the authorities that the machine trusts, `checks_name` has the peer's certificate compared with
    the name or address that is called; both are for requestors. `tolerates_unusable_files` makes warnings of the errors
    about authorities, revocation lists and DH parameters.
    """

    certificate_file: str = ""
    key_file: str = ""
    file_format: FileFormat = FileFormat.PEM
    password: Password = field(default=None, repr=False)
    ca_files: tuple[str, ...] = ()
    ca_directories: tuple[str, ...] = ()
    crl_files: tuple[str, ...] = ()
    revocation_check: RevocationCheck = RevocationCheck.NONE
    profile: SecurityProfile = SecurityProfile.RFC_8996
    minimum_version: ProtocolVersion | None = None
    cipher_suites: tuple[str, ...] = ()
    dh_parameter_file: str = ""
    expected_server_name: str = ""
    verification: PeerVerification = PeerVerification.REQUIRE
    trusts_system: bool = False
    checks_name: bool = False
    tolerates_unusable_files: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSContext:
    """TLS that is set up for one side. `warnings` are sentences for a person, without their full stop."""

    ssl_context: ssl.SSLContext
    profile: SecurityProfile
    is_acceptor: bool
    warnings: tuple[str, ...]

    def judge(self, peer: CertificateFacts) -> str:
        """Say why the profile does not take a certificate of the peer's; empty when it does."""
        return refusal_of(peer, PROFILES[self.profile].certificates, is_server=not self.is_acceptor)


class WatchedSSLObject(ssl.SSLObject):
    """One TLS connection; `refusal` says why a callback of ours ended its handshake."""

    refusal: str = ""


def acceptor_context(options: TLSOptions) -> TLSContext:
    """Set TLS up for the side that accepts associations. Raises TLSSetupError."""
    return _Preparation(options, is_acceptor=True).result()


def requestor_context(options: TLSOptions) -> TLSContext:
    """Set TLS up for the side that asks for associations. Raises TLSSetupError."""
    return _Preparation(options, is_acceptor=False).result()


class _Preparation:
    """One context in the making."""

    def __init__(self, options: TLSOptions, *, is_acceptor: bool) -> None:
        self._options = options
        self._rules = PROFILES[options.profile]
        self._is_acceptor = is_acceptor
        self._warnings: list[str] = []
        self._crls = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_acceptor else ssl.PROTOCOL_TLS_CLIENT)

    def result(self) -> TLSContext:
        """Set everything, in the order in which a person would look for mistakes."""
        options = self._options
        context = self._context
        suites = suites_of(options.profile, options.cipher_suites)
        self._warnings += suite_warnings(options.cipher_suites)
        # First of all: at OpenSSL's own level of security it would refuse keys of which the profile only warns.
        context.set_ciphers(cipher_string(suites))
        context.sslobject_class = WatchedSSLObject
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols([ALPN_PROTOCOL])
        self._load_trust()
        own = self._load_own_certificate()
        self._set_versions()
        self._set_verification()
        if own is not None and self._is_acceptor:
            self._check_fit(own.key_kind, suites)
        if self._is_acceptor:
            context.num_tickets = 0
            self._load_dh_group()
            if options.expected_server_name:
                context.sni_callback = _expecting(options.expected_server_name)
        return TLSContext(
            ssl_context=context,
            profile=options.profile,
            is_acceptor=self._is_acceptor,
            warnings=tuple(self._warnings),
        )

    def _load_trust(self) -> None:
        options = self._options
        for path in options.ca_files:
            with self._tolerance():
                load_authorities(self._context, path, options.file_format)
        for path in options.ca_directories:
            with self._tolerance():
                load_directory(self._context, path, options.file_format)
        for path in options.crl_files:
            with self._tolerance():
                load_revocation_list(self._context, path, options.file_format)
                self._crls += 1
        if options.trusts_system:
            self._context.load_default_certs(ssl.Purpose.SERVER_AUTH)

    def _load_own_certificate(self) -> CertificateFacts | None:
        options = self._options
        path = options.certificate_file
        if not path:
            if self._is_acceptor or options.key_file:
                words = "TLS needs a certificate, and none is named."
                raise TLSSetupError(TLSFault.CERTIFICATE, "", words)
            return None
        key_file = options.key_file or path
        facts = load_own_certificate(self._context, path, key_file, options.file_format, options.password)
        refusal = refusal_of(facts, self._rules.certificates, is_server=self._is_acceptor)
        is_dsa = facts.key_kind is KeyKind.DSA
        if is_dsa and not self._rules.certificates.takes_own_dsa:
            refusal = f"its key is a DSA key, which the security profile {options.profile} does not take"
        if refusal:
            raise TLSSetupError(
                TLSFault.CERTIFICATE, path, f"the certificate {path} cannot be used: {refusal}."
            )
        if is_dsa:  # a handshake of TLS 1.3 would be begun, and then fail
            self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._warnings += (f"the certificate {path}: {words}" for words in _own_reservations(facts))
        return facts

    def _check_fit(self, key_kind: KeyKind, suites: tuple[str, ...]) -> None:
        """Warn when no suite works with the server's key: then TLS 1.3 is left, or nothing."""
        if any(signs_with(name) == _SIGNS.get(key_kind, "ECDSA") for name in suites):
            return
        words = (
            f"no cipher suite of the security profile {self._options.profile} works with the {key_kind} key"
        )
        if self._context.maximum_version is ssl.TLSVersion.TLSv1_3:
            self._warnings.append(f"{words} of the certificate, so only TLS 1.3 can be agreed on")
        else:
            self._warnings.append(f"{words} of the certificate, so no handshake can succeed")

    def _set_versions(self) -> None:
        options, context = self._options, self._context
        lowest, highest = self._rules.lowest, min(self._rules.highest, _highest_of(context))
        if options.minimum_version is not None:
            lowest = max(lowest, _VERSIONS[options.minimum_version])
        if lowest > highest:
            raise TLSSetupError(
                TLSFault.PROTOCOL,
                str(options.minimum_version),
                f"TLS {options.minimum_version} is not to be had with the security profile {options.profile} and this"
                " certificate.",
            )
        context.minimum_version = lowest
        context.maximum_version = highest

    def _set_verification(self) -> None:
        options, context = self._options, self._context
        context.check_hostname = False  # else the next line could not turn verification off
        if options.verification is PeerVerification.IGNORE:
            context.verify_mode = ssl.CERT_NONE
            return
        is_optional = self._is_acceptor and options.verification is PeerVerification.IF_PRESENT
        context.verify_mode = ssl.CERT_OPTIONAL if is_optional else ssl.CERT_REQUIRED
        context.check_hostname = options.checks_name and not self._is_acceptor
        if options.revocation_check is RevocationCheck.CHAIN:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        elif options.revocation_check is RevocationCheck.LEAF or self._crls:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if not context.cert_store_stats()["x509"] and not options.trusts_system:
            self._warnings.append("no authority is trusted, so every certificate of a peer is refused")

    def _load_dh_group(self) -> None:
        path = self._options.dh_parameter_file
        if path:
            with self._tolerance():
                pem, bits = read_dh_group(path)
                if bits < DH_BITS_ADVISED:
                    self._warnings.append(
                        f"the prime in {path} has {bits} bits, fewer than {DH_BITS_ADVISED}"
                    )
                if bits >= self._rules.dh_bits_min:
                    load_dh_group(self._context, pem)
                    return
                self._warnings.append(f"{path} is not used, since the security profile does not take it")
        load_dh_group(self._context)

    def _tolerance(self) -> "_Tolerance":
        return _Tolerance(self._warnings if self._options.tolerates_unusable_files else None)


class _Tolerance:
    """Makes a warning of an error about a file, where that is asked for."""

    def __init__(self, warnings: list[str] | None) -> None:
        self._warnings = warnings

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if self._warnings is None or not isinstance(error, TLSSetupError):
            return False
        self._warnings.append(f"{str(error).removesuffix('.')}; it is left out")
        return True


def _own_reservations(facts: CertificateFacts) -> Iterator[str]:
    yield from reservations_about(facts)
    now = dt.datetime.now(dt.UTC)
    if now > facts.not_after:
        yield f"it expired on {facts.not_after:%Y-%m-%d}, and peers that look refuse it"
    elif now < facts.not_before:
        yield f"it holds from {facts.not_before:%Y-%m-%d} on, and peers that look refuse it until then"


def _highest_of(context: ssl.SSLContext) -> ssl.TLSVersion:
    highest = context.maximum_version
    return ssl.TLSVersion.TLSv1_3 if highest is ssl.TLSVersion.MAXIMUM_SUPPORTED else highest


def _expecting(name: str) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
    def check(connection: ssl.SSLObject, asked: str | None, _context: ssl.SSLContext) -> int | None:
        """Refuse a peer that asks for another name; one that asks for none is let in (RFC 6066 §3)."""
        if asked is None or asked == name:
            return None
        if isinstance(connection, WatchedSSLObject):
            connection.refusal = f"it asked for the server name {asked!r}, and this is {name!r}"
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    return check
