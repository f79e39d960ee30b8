"""The secure transport connection profiles of PS3.15 Annex B: protocol versions, cipher suites, and what they ask of keys.

A profile is data; `tls_context` makes it true of an `ssl.SSLContext`, as far as this machine's OpenSSL can.
"""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from stowkeeper.net.tls_ciphers import (
    SUITES,
    SUITES_OF_TLS_1_3,
    has_sha1_mac,
    is_unencrypted,
    list_ciphers,
    reservations,
    similar_name,
)
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError

TLSVersion = ssl.TLSVersion


class SecurityProfile(StrEnum):
    """The profiles by the names that settings and commands use."""

    RFC_8996 = "rfc8996"
    RFC_8996_MODIFIED = "rfc8996-modified"
    BCP_195_NON_DOWNGRADING = "bcp195-non-downgrading"
    BCP_195 = "bcp195"
    BCP_195_EXTENDED = "bcp195-extended"
    BASIC = "basic"
    AES = "aes"
    UNENCRYPTED = "unencrypted"


class ExtraSuites(StrEnum):
    """Which cipher suites may be added to those of a profile."""

    NONE = "none"
    WITHOUT_SHA1 = "encrypted ones without a SHA-1 MAC"
    ENCRYPTED = "encrypted ones"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRules:
    """What certificates must be, beyond what OpenSSL checks. A signature by MD2, MD4 or MD5 is never taken.

    `server_rsa_bits_min` is for the key of whoever is TLS server, `client_rsa_bits_min` of the client; likewise
    `ec_bits_min` for both. What is below these is refused, what is below RFC 9325 §4.5 gets a warning.
    """

    server_rsa_bits_min: int = 0
    client_rsa_bits_min: int = 0
    ec_bits_min: int = 0
    needs_sha2: bool = False
    takes_own_dsa: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRules:
    """What a profile is made of.

    `suites` are for TLS 1.2 and older, and required; those in `optional_suites` are used where OpenSSL has them.
    `lowest` is `MINIMUM_SUPPORTED` for TLS 1.0, which Python knows by no other name that it does not warn of.
    """

    title: str
    lowest: TLSVersion
    highest: TLSVersion
    suites: tuple[str, ...]
    optional_suites: tuple[str, ...] = ()
    extra_suites: ExtraSuites = ExtraSuites.ENCRYPTED
    certificates: CertificateRules = CertificateRules()
    dh_bits_min: int = 0
    is_retired: bool = True


_DHE_AND_ECDHE_BY_RSA = (
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
)
_ECDHE = (
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
)
_TRIPLE_DES = "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
_AES_128_CBC = "TLS_RSA_WITH_AES_128_CBC_SHA"

PROFILES: Final[Mapping[SecurityProfile, ProfileRules]] = MappingProxyType(
    {
        SecurityProfile.RFC_8996: ProfileRules(
            title="BCP 195 RFC 8996 TLS Profile",
            lowest=TLSVersion.TLSv1_2,
            highest=TLSVersion.TLSv1_3,
            suites=_ECDHE,
            extra_suites=ExtraSuites.WITHOUT_SHA1,
            certificates=CertificateRules(server_rsa_bits_min=2048, takes_own_dsa=False),
            is_retired=False,
        ),
        SecurityProfile.RFC_8996_MODIFIED: ProfileRules(
            title="Modified BCP 195 RFC 8996 TLS Profile",
            lowest=TLSVersion.TLSv1_2,
            highest=TLSVersion.TLSv1_3,
            suites=(
                *_ECDHE,
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",
                "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
                "TLS_ECDHE_ECDSA_WITH_AES_256_CCM",
                "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8",
            ),
            optional_suites=(
                "TLS_ECDHE_RSA_WITH_CAMELLIA_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_CAMELLIA_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_CAMELLIA_256_GCM_SHA384",
            ),
            extra_suites=ExtraSuites.NONE,
            certificates=CertificateRules(
                server_rsa_bits_min=2048,
                client_rsa_bits_min=2048,
                ec_bits_min=256,
                needs_sha2=True,
                takes_own_dsa=False,
            ),
            is_retired=False,
        ),
        SecurityProfile.BCP_195_NON_DOWNGRADING: ProfileRules(
            title="Non-downgrading BCP 195 TLS Profile",
            lowest=TLSVersion.TLSv1_2,
            highest=TLSVersion.TLSv1_3,
            suites=_DHE_AND_ECDHE_BY_RSA,
        ),
        SecurityProfile.BCP_195: ProfileRules(
            title="BCP 195 TLS Profile",
            lowest=TLSVersion.MINIMUM_SUPPORTED,
            highest=TLSVersion.TLSv1_3,
            suites=(*_DHE_AND_ECDHE_BY_RSA, _AES_128_CBC),
            optional_suites=(_TRIPLE_DES,),
        ),
        SecurityProfile.BCP_195_EXTENDED: ProfileRules(
            title="Extended BCP 195 TLS Profile",
            lowest=TLSVersion.TLSv1_2,
            highest=TLSVersion.TLSv1_2,
            suites=(
                *_DHE_AND_ECDHE_BY_RSA,
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            ),
            extra_suites=ExtraSuites.NONE,
            dh_bits_min=2048,
        ),
        SecurityProfile.BASIC: ProfileRules(
            title="Basic TLS Secure Transport Connection Profile",
            lowest=TLSVersion.MINIMUM_SUPPORTED,
            highest=TLSVersion.TLSv1_2,
            suites=(_TRIPLE_DES,),
        ),
        SecurityProfile.AES: ProfileRules(
            title="AES TLS Secure Transport Connection Profile",
            lowest=TLSVersion.MINIMUM_SUPPORTED,
            highest=TLSVersion.TLSv1_2,
            suites=(_AES_128_CBC,),
            optional_suites=(_TRIPLE_DES,),
        ),
        SecurityProfile.UNENCRYPTED: ProfileRules(
            title="authenticated but unencrypted communication (IHE ATNA)",
            lowest=TLSVersion.MINIMUM_SUPPORTED,
            highest=TLSVersion.TLSv1_2,
            suites=("TLS_RSA_WITH_NULL_SHA",),
            extra_suites=ExtraSuites.ANY,
        ),
    }
)


def available_profiles() -> tuple[SecurityProfile, ...]:
    """Return the profiles whose cipher suites and protocol versions this OpenSSL has."""
    return tuple(profile for profile in SecurityProfile if not obstacle_of(profile))


def obstacle_of(profile: SecurityProfile) -> str:
    """Say what this OpenSSL lacks for a profile; empty when it lacks nothing."""
    rules = PROFILES[profile]
    missing = [name for name in rules.suites if name not in list_ciphers()]
    return f"it has no {' and no '.join(missing)}" if missing else ""


def suites_of(profile: SecurityProfile, additional: Iterable[str]) -> tuple[str, ...]:
    """Return the suites of a profile that this OpenSSL has, and the additional ones.

    Raises TLSSetupError when it lacks one that the profile is made of, or an additional one is not known, not to be had
    or not allowed.
    """
    obstacle = obstacle_of(profile)
    if obstacle:
        available = ", ".join(available_profiles())
        raise TLSSetupError(
            TLSFault.PROFILE,
            profile,
            f"the security profile {profile} cannot be had with {ssl.OPENSSL_VERSION}: {obstacle}. Choose one of:"
            f" {available}.",
        )
    here = list_ciphers()
    rules = PROFILES[profile]
    extra = tuple(additional)
    for name in extra:
        refusal = _refusal_of(profile, name)
        if refusal:
            raise TLSSetupError(TLSFault.CIPHER_SUITE, name, f"the cipher suite {name} {refusal}.")
    return (*rules.suites, *(name for name in rules.optional_suites if name in here), *extra)


def suite_warnings(additional: Iterable[str]) -> Iterator[str]:
    """Yield what RFC 9325 has against cipher suites that are added to a profile."""
    for name in dict.fromkeys(additional):
        reservation = reservations(name)
        if reservation:
            yield f"the cipher suite {name} {reservation}, which RFC 9325 advises against"


def _refusal_of(profile: SecurityProfile, name: str) -> str:
    """Say why a suite cannot be added to a profile; empty when it can."""
    rules = PROFILES[profile].extra_suites
    if name in SUITES_OF_TLS_1_3:
        return "is of TLS 1.3, whose suites are always those of OpenSSL: leave it out"
    if name not in SUITES:
        similar = similar_name(name)
        return "is not known" + (f" (did you mean {similar}?)" if similar else "")
    if name not in list_ciphers():
        return f"cannot be had with {ssl.OPENSSL_VERSION}"
    if rules is ExtraSuites.NONE:
        return f"cannot be added: the security profile {profile} takes none beside its own"
    if rules is not ExtraSuites.ANY and is_unencrypted(name):
        return f"does not encrypt, which the security profile {profile} does not allow"
    if rules is ExtraSuites.WITHOUT_SHA1 and has_sha1_mac(name):
        return f"has a SHA-1 MAC, which the security profile {profile} does not allow"
    return ""
