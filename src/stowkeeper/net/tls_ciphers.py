"""The cipher suites of TLS up to 1.2 that can be asked for by name, and which of them this OpenSSL has.

Names and codes are those of IANA's registry of TLS cipher suites. A suite is taken from OpenSSL by its code, so the names
that OpenSSL has for suites matter nowhere.
"""

import difflib
import ssl
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

SUITES: Final[Mapping[str, int]] = MappingProxyType(
    {
        # Without forward secrecy.
        "TLS_RSA_WITH_NULL_SHA": 0x0002,
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA": 0x000A,
        "TLS_RSA_WITH_AES_128_CBC_SHA": 0x002F,
        "TLS_RSA_WITH_CAMELLIA_128_CBC_SHA": 0x0041,
        "TLS_RSA_WITH_AES_128_CBC_SHA256": 0x003C,
        "TLS_RSA_WITH_AES_128_GCM_SHA256": 0x009C,
        "TLS_ECDH_ECDSA_WITH_AES_128_CBC_SHA": 0xC004,
        "TLS_ECDH_RSA_WITH_AES_128_CBC_SHA": 0xC00E,
        "TLS_ECDH_ECDSA_WITH_AES_128_CBC_SHA256": 0xC025,
        "TLS_ECDH_RSA_WITH_AES_128_CBC_SHA256": 0xC029,
        "TLS_ECDH_ECDSA_WITH_AES_128_GCM_SHA256": 0xC02D,
        "TLS_ECDH_RSA_WITH_AES_128_GCM_SHA256": 0xC031,
        "TLS_RSA_WITH_CAMELLIA_256_CBC_SHA": 0x0084,
        "TLS_RSA_WITH_AES_256_CBC_SHA": 0x0035,
        "TLS_RSA_WITH_AES_256_CBC_SHA256": 0x003D,
        "TLS_RSA_WITH_AES_256_GCM_SHA384": 0x009D,
        "TLS_ECDH_ECDSA_WITH_AES_256_CBC_SHA": 0xC005,
        "TLS_ECDH_RSA_WITH_AES_256_CBC_SHA": 0xC00F,
        "TLS_ECDH_ECDSA_WITH_AES_256_CBC_SHA384": 0xC026,
        "TLS_ECDH_RSA_WITH_AES_256_CBC_SHA384": 0xC02A,
        "TLS_ECDH_ECDSA_WITH_AES_256_GCM_SHA384": 0xC02E,
        "TLS_ECDH_RSA_WITH_AES_256_GCM_SHA384": 0xC032,
        # With forward secrecy, 128 bits.
        "TLS_DHE_DSS_WITH_AES_128_CBC_SHA": 0x0032,
        "TLS_DHE_DSS_WITH_CAMELLIA_128_CBC_SHA": 0x0044,
        "TLS_DHE_RSA_WITH_AES_128_CBC_SHA": 0x0033,
        "TLS_DHE_RSA_WITH_CAMELLIA_128_CBC_SHA": 0x0045,
        "TLS_DHE_DSS_WITH_AES_128_CBC_SHA256": 0x0040,
        "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256": 0x0067,
        "TLS_DHE_DSS_WITH_AES_128_GCM_SHA256": 0x00A2,
        "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256": 0x009E,
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": 0xC009,
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": 0xC013,
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": 0xC023,
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": 0xC027,
        "TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_GCM_SHA256": 0xC086,
        "TLS_ECDHE_RSA_WITH_CAMELLIA_128_GCM_SHA256": 0xC08A,
        "TLS_ECDHE_ECDSA_WITH_AES_128_CCM": 0xC0AC,
        "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8": 0xC0AE,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": 0xC02B,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": 0xC02F,
        # With forward secrecy, 256 bits.
        "TLS_DHE_DSS_WITH_AES_256_CBC_SHA": 0x0038,
        "TLS_DHE_RSA_WITH_AES_256_CBC_SHA": 0x0039,
        "TLS_DHE_DSS_WITH_CAMELLIA_256_CBC_SHA": 0x0087,
        "TLS_DHE_RSA_WITH_CAMELLIA_256_CBC_SHA": 0x0088,
        "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCAA,
        "TLS_DHE_DSS_WITH_AES_256_CBC_SHA256": 0x006A,
        "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256": 0x006B,
        "TLS_DHE_DSS_WITH_AES_256_GCM_SHA384": 0x00A3,
        "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384": 0x009F,
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": 0xC00A,
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": 0xC014,
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384": 0xC024,
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384": 0xC028,
        "TLS_ECDHE_ECDSA_WITH_CAMELLIA_256_GCM_SHA384": 0xC087,
        "TLS_ECDHE_RSA_WITH_CAMELLIA_256_GCM_SHA384": 0xC08B,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA9,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA8,
        "TLS_ECDHE_ECDSA_WITH_AES_256_CCM": 0xC0AD,
        "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8": 0xC0AF,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": 0xC02C,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": 0xC030,
    }
)
"""Every suite by its name, the weakest first: by forward secrecy, then by length of key, then ECDHE above DHE, then by
kind of integrity. A server takes the strongest that it is offered (RFC 9325 §4.1)."""

SUITES_OF_TLS_1_3: Final = (
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_256_GCM_SHA384",
)
"""The suites of TLS 1.3. Which of them are on is for OpenSSL to say: Python's `ssl` has no word for it before 3.15."""

_STRENGTH = {name: place for place, name in enumerate(SUITES)}


def list_ciphers() -> tuple[str, ...]:
    """Return the names of the suites that this OpenSSL has, the weakest first."""
    return tuple(name for name in SUITES if name in _names_in_openssl())


def cipher_string(names: Iterable[str]) -> str:
    """Return what `SSLContext.set_ciphers` takes for suites that this OpenSSL has: the strongest first, level 0.

    The level is OpenSSL's own idea of what is secure, which would take suites and protocols from a profile that is made of
    them. What is secure is said by the profile (`tls_profiles`) and the checks of certificates (`tls_certificates`).
    """
    strongest_first = sorted(set(names), key=_STRENGTH.__getitem__, reverse=True)
    return ":".join([*(_names_in_openssl()[name] for name in strongest_first), "@SECLEVEL=0"])


def is_unencrypted(name: str) -> bool:
    """Tell whether a suite leaves everything readable to whoever listens."""
    return "_WITH_NULL_" in name


def has_sha1_mac(name: str) -> bool:
    """Tell whether a suite protects its records by HMAC-SHA-1."""
    return name.endswith("_SHA")


def reservations(name: str) -> str:
    """Say why RFC 9325 §4.1 and §4.2 advise against a suite; empty when they do not."""
    if name.startswith("TLS_RSA_"):
        return "transports its key by RSA, without forward secrecy"
    if name.startswith("TLS_DHE_"):
        return "agrees on its key by Diffie-Hellman over a finite field"
    if name.startswith("TLS_ECDH_"):
        return "agrees on its key without forward secrecy"
    return "encrypts by CBC" if "_CBC_" in name else ""


def similar_name(name: str) -> str:
    """Return the known suite that a person may have meant; empty when none is near."""
    close = difflib.get_close_matches(name.upper(), list(SUITES), n=1)
    return close[0] if close else ""


def iana_name(name_in_openssl: str) -> str:
    """Return the name that IANA has for what OpenSSL calls a suite; the same where it is none of ours."""
    names = (name for name, known in _names_in_openssl().items() if known == name_in_openssl)
    return next(names, name_in_openssl)


def signs_with(name: str) -> str:
    """Return the kind of key that a suite has the server prove: RSA, ECDSA or DSS."""
    exchange = name.removeprefix("TLS_").partition("_WITH_")[0]
    return exchange.rpartition("_")[2]


@cache
def _names_in_openssl() -> Mapping[str, str]:
    """Return what OpenSSL calls the suites of ours that it has."""
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    probe.set_ciphers("ALL:eNULL:@SECLEVEL=0")
    by_code = {cipher["id"] & 0xFFFF: cipher["name"] for cipher in probe.get_ciphers()}
    return {name: by_code[code] for name, code in SUITES.items() if code in by_code}
