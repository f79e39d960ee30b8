"""Certificates looked at: the kind and size of their key, the hash of their signature, when they hold.

OpenSSL verifies certificates; this says of one that is verified whether it is as good as a security profile asks.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from stowkeeper.net.der import DERError, Element, only_element
from stowkeeper.net.tls_profiles import CertificateRules

RSA_BITS_ADVISED = 2048
EC_BITS_ADVISED = 224
"""Sizes of keys below which RFC 9325 §4.5 advises against a certificate."""


class KeyKind(StrEnum):
    """The kinds of keys that have rules of their own."""

    RSA = "RSA"
    EC = "elliptic curve"
    DSA = "DSA"
    OTHER = "other"


class Strength(StrEnum):
    """What is thought of the hash in a signature."""

    BROKEN = "broken"
    WEAK = "weak"
    STRONG = "strong"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What a certificate says of itself. `key_bits` is 0 for kinds of keys whose size is fixed."""

    key_kind: KeyKind
    key_bits: int
    signature_hash: str
    signature_strength: Strength
    not_before: dt.datetime
    not_after: dt.datetime


_BROKEN = {"MD2", "MD4", "MD5"}
_RSA_PSS = "1.2.840.113549.1.1.10"
_SIGNATURES: Final = MappingProxyType(
    {
        "1.2.840.113549.1.1.2": "MD2",
        "1.2.840.113549.1.1.3": "MD4",
        "1.2.840.113549.1.1.4": "MD5",
        "1.3.14.3.2.3": "MD5",
        "1.2.840.113549.1.1.5": "SHA-1",
        "1.3.14.3.2.29": "SHA-1",
        "1.2.840.113549.1.1.14": "SHA-224",
        "1.2.840.113549.1.1.11": "SHA-256",
        "1.2.840.113549.1.1.12": "SHA-384",
        "1.2.840.113549.1.1.13": "SHA-512",
        "1.2.840.113549.1.1.15": "SHA-512/224",
        "1.2.840.113549.1.1.16": "SHA-512/256",
        "1.2.840.10045.4.1": "SHA-1",
        "1.2.840.10045.4.3.1": "SHA-224",
        "1.2.840.10045.4.3.2": "SHA-256",
        "1.2.840.10045.4.3.3": "SHA-384",
        "1.2.840.10045.4.3.4": "SHA-512",
        "1.2.840.10040.4.3": "SHA-1",
        "2.16.840.1.101.3.4.3.1": "SHA-224",
        "2.16.840.1.101.3.4.3.2": "SHA-256",
        "2.16.840.1.101.3.4.3.3": "SHA-384",
        "2.16.840.1.101.3.4.3.4": "SHA-512",
        "2.16.840.1.101.3.4.3.6": "SHA3-256",
        "2.16.840.1.101.3.4.3.7": "SHA3-384",
        "2.16.840.1.101.3.4.3.8": "SHA3-512",
        "2.16.840.1.101.3.4.3.10": "SHA3-256",
        "2.16.840.1.101.3.4.3.11": "SHA3-384",
        "2.16.840.1.101.3.4.3.12": "SHA3-512",
        "2.16.840.1.101.3.4.3.14": "SHA3-256",
        "2.16.840.1.101.3.4.3.15": "SHA3-384",
        "2.16.840.1.101.3.4.3.16": "SHA3-512",
        "1.3.101.112": "SHA-512",  # Ed25519
        "1.3.101.113": "SHAKE256",  # Ed448
    }
)
"""The hash of each signature algorithm, of RSA, ECDSA, DSA and EdDSA (RFC 4055, 5758, 8410, 8702, NIST's registry)."""

_HASHES: Final = MappingProxyType(
    {
        "1.2.840.113549.2.5": "MD5",
        "1.3.14.3.2.26": "SHA-1",
        "2.16.840.1.101.3.4.2.4": "SHA-224",
        "2.16.840.1.101.3.4.2.1": "SHA-256",
        "2.16.840.1.101.3.4.2.2": "SHA-384",
        "2.16.840.1.101.3.4.2.3": "SHA-512",
        "2.16.840.1.101.3.4.2.8": "SHA3-256",
        "2.16.840.1.101.3.4.2.9": "SHA3-384",
        "2.16.840.1.101.3.4.2.10": "SHA3-512",
    }
)
"""Hashes by themselves, as a signature by RSASSA-PSS names its own."""

_WEAK = {"SHA-1", "SHA-224", "SHA-512/224"}
_KEY_KINDS: Final = MappingProxyType(
    {
        "1.2.840.113549.1.1.1": KeyKind.RSA,
        _RSA_PSS: KeyKind.RSA,
        "1.2.840.10045.2.1": KeyKind.EC,
        "1.2.840.10040.4.1": KeyKind.DSA,
    }
)


def certificate_facts(der: bytes) -> CertificateFacts:
    """Return what a certificate (RFC 5280 §4.1) says of its key, its signature and its time. Raises DERError."""
    try:
        body, algorithm, _signature = only_element(der).parts()
        fields = list(body.parts())
        if fields[0].tag == 0xA0:  # the version, which the first one does not have
            del fields[0]
        validity, public_key = fields[3], fields[5]
        not_before, not_after = validity.parts()
        key_kind, key_bits = _key_of(public_key)
        signature_hash = _hash_of(algorithm)
        return CertificateFacts(
            key_kind=key_kind,
            key_bits=key_bits,
            signature_hash=signature_hash,
            signature_strength=_strength_of(signature_hash),
            not_before=not_before.time(),
            not_after=not_after.time(),
        )
    except (IndexError, ValueError) as error:
        raise DERError(f"it is no certificate: {error}") from error


def refusal_of(facts: CertificateFacts, rules: CertificateRules, *, is_server: bool) -> str:
    """Say why a profile does not take a certificate, of a TLS server or a client; empty when it does."""
    bits = facts.key_bits
    rsa_bits_min = rules.server_rsa_bits_min if is_server else rules.client_rsa_bits_min
    if facts.signature_strength is Strength.BROKEN:
        return f"it is signed with {facts.signature_hash}, which anyone can forge"
    if facts.key_kind is KeyKind.RSA and bits < rsa_bits_min:
        return f"its RSA key has {bits} bits, and the security profile asks for {rsa_bits_min}"
    if facts.key_kind is KeyKind.EC and bits < rules.ec_bits_min:
        return (
            f"its elliptic curve key has {bits} bits, and the security profile asks for {rules.ec_bits_min}"
        )
    if rules.needs_sha2 and facts.signature_strength is not Strength.STRONG:
        return (
            f"it is signed with {facts.signature_hash}, and the security profile asks for SHA-256 or better"
        )
    return ""


def reservations_about(facts: CertificateFacts) -> Iterator[str]:
    """Yield what RFC 9325 §4.5 has against a certificate."""
    if facts.key_kind is KeyKind.RSA and facts.key_bits < RSA_BITS_ADVISED:
        yield f"its RSA key has {facts.key_bits} bits, fewer than {RSA_BITS_ADVISED}"
    if facts.key_kind is KeyKind.EC and facts.key_bits < EC_BITS_ADVISED:
        yield f"its elliptic curve key has {facts.key_bits} bits, fewer than {EC_BITS_ADVISED}"
    if facts.key_kind is KeyKind.DSA:
        yield "its key is a DSA key, with which there is no TLS 1.3"
    if facts.signature_strength is not Strength.STRONG:
        yield f"it is signed with {facts.signature_hash}, which is weaker than SHA-256"


def _key_of(public_key: Element) -> tuple[KeyKind, int]:
    algorithm, bits = public_key.parts()
    kind = _KEY_KINDS.get(algorithm.parts()[0].object_identifier(), KeyKind.OTHER)
    if kind is KeyKind.RSA:
        modulus, _exponent = only_element(bits.bits()).parts()
        return kind, modulus.integer().bit_length()
    if kind is KeyKind.EC:
        point = bits.bits()
        # A point is one octet on its form, then one coordinate (compressed) or both (SEC 1 §2.3.3).
        width = len(point) - 1 if point[0] in {2, 3} else (len(point) - 1) // 2
        return kind, 8 * width
    if kind is KeyKind.DSA:
        return kind, algorithm.parts()[1].parts()[0].integer().bit_length()
    return kind, 0


def _hash_of(algorithm: Element) -> str:
    parts = algorithm.parts()
    identifier = parts[0].object_identifier()
    if identifier != _RSA_PSS:
        return _SIGNATURES.get(identifier, f"algorithm {identifier}")
    for parameter in parts[1].parts() if len(parts) > 1 else ():
        if parameter.tag == 0xA0:  # hashAlgorithm (RFC 4055 §3.1)
            named = only_element(parameter.content).parts()[0].object_identifier()
            return _HASHES.get(named, f"algorithm {named}")
    return "SHA-1"


def _strength_of(signature_hash: str) -> Strength:
    if signature_hash in _BROKEN:
        return Strength.BROKEN
    return Strength.WEAK if signature_hash in _WEAK or " " in signature_hash else Strength.STRONG
