"""What is read in certificates: the key, the signature, the time; and what is thought of it."""

import contextlib
import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.net.der import INTEGER, DERError, Element, elements, only_element
from stowkeeper.net.limits import DER_LENGTH_BYTES_MAX, DER_OBJECT_IDENTIFIER_BYTES_MAX
from stowkeeper.net.tls_certificates import (
    CertificateFacts,
    KeyKind,
    Strength,
    certificate_facts,
    refusal_of,
    reservations_about,
)
from stowkeeper.net.tls_profiles import PROFILES, CertificateRules, SecurityProfile
from support.tls_files import openssl
from support.tls_fixtures import TLSFiles

LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
MODIFIED = PROFILES[SecurityProfile.RFC_8996_MODIFIED].certificates


def facts(
    kind: KeyKind = KeyKind.RSA,
    bits: int = 2048,
    signed: str = "SHA-256",
    strength: Strength = Strength.STRONG,
) -> CertificateFacts:
    return CertificateFacts(
        key_kind=kind,
        key_bits=bits,
        signature_hash=signed,
        signature_strength=strength,
        not_before=LONG_AGO,
        not_after=LONG_AGO,
    )


# Real certificates


@pytest.mark.slow
@pytest.mark.peer("openssl")
@pytest.mark.parametrize(
    ("key", "kind", "bits"),
    [
        ("rsa", KeyKind.RSA, 2048),
        ("rsa1024", KeyKind.RSA, 1024),
        ("ec", KeyKind.EC, 256),
        ("ec384", KeyKind.EC, 384),
        ("ec224", KeyKind.EC, 224),
        ("ec192", KeyKind.EC, 192),
        ("dsa", KeyKind.DSA, 1024),
        ("ed25519", KeyKind.OTHER, 0),
    ],
)
def test_the_key_of_a_certificate(tls_files: TLSFiles, key: str, kind: KeyKind, bits: int) -> None:
    identity = tls_files.authority.issue(key=key, start="20210203040506Z", end="20990708091011Z")
    found = certificate_facts(openssl("x509", "-in", identity.certificate, "-outform", "DER"))
    assert (found.key_kind, found.key_bits) == (kind, bits)
    assert (found.signature_hash, found.signature_strength) == ("SHA-256", Strength.STRONG)
    assert found.not_before == dt.datetime(2021, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    assert found.not_after == dt.datetime(2099, 7, 8, 9, 10, 11, tzinfo=dt.UTC), "it has a four-digit year"


@pytest.mark.peer("openssl")
@pytest.mark.parametrize(
    ("digest", "padding", "name", "strength"),
    [
        ("md5", (), "MD5", Strength.BROKEN),
        ("sha1", (), "SHA-1", Strength.WEAK),
        ("sha224", (), "SHA-224", Strength.WEAK),
        ("sha384", (), "SHA-384", Strength.STRONG),
        ("sha512", (), "SHA-512", Strength.STRONG),
        ("sha3-256", (), "SHA3-256", Strength.STRONG),
        ("sha256", ("-sigopt", "rsa_padding_mode:pss"), "SHA-256", Strength.STRONG),
        ("sha1", ("-sigopt", "rsa_padding_mode:pss"), "SHA-1", Strength.WEAK),
    ],
)
def test_the_signature_of_a_certificate(
    tls_files: TLSFiles, tmp_path: Path, digest: str, padding: tuple[str, ...], name: str, strength: Strength
) -> None:
    key = tls_files.keys.of("rsa")
    made = openssl(
        "req", "-x509", "-new", "-key", key, "-subj", "/CN=x", f"-{digest}", *padding, "-outform", "DER"
    )
    found = certificate_facts(made)
    assert (found.signature_hash, found.signature_strength) == (name, strength)


@pytest.mark.peer("openssl")
def test_a_compressed_point_counts_as_its_curve(tls_files: TLSFiles, tmp_path: Path) -> None:
    key = tmp_path / "compressed.key"
    openssl("ec", "-in", tls_files.keys.of("ec"), "-conv_form", "compressed", "-out", key)
    found = certificate_facts(
        openssl("req", "-x509", "-new", "-key", key, "-subj", "/CN=x", "-outform", "DER")
    )
    assert (found.key_kind, found.key_bits) == (KeyKind.EC, 256)


# Damaged ones


@pytest.mark.slow
@pytest.mark.peer("openssl")
@given(data=st.data())
def test_a_damaged_certificate_is_a_der_error_or_has_facts(tls_files: TLSFiles, data: st.DataObject) -> None:
    whole = bytearray(openssl_der(tls_files))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        with contextlib.suppress(DERError):
            assert isinstance(certificate_facts(damaged), CertificateFacts)


_DER: dict[str, bytes] = {}


def openssl_der(tls_files: TLSFiles) -> bytes:
    path = tls_files.server.certificate
    if path not in _DER:
        _DER[path] = openssl("x509", "-in", path, "-outform", "DER")
    return _DER[path]


@given(st.binary(max_size=60))
def test_any_bytes_are_der_or_an_error(data: bytes) -> None:
    try:
        found = list(elements(data))
    except DERError:
        return
    assert sum(len(element.content) for element in found) <= len(data)
    for element in found:
        for read in (element.integer, element.object_identifier, element.bits, element.time, element.parts):
            with contextlib.suppress(DERError):
                read()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x30", "cut short"),
        (b"\x30\x05abc", "cut short"),
        (b"\x30\x80", "not in DER"),
        (
            b"\x30" + bytes([0x80 | DER_LENGTH_BYTES_MAX + 1]) + b"\0" * DER_LENGTH_BYTES_MAX + b"\0",
            "not in DER",
        ),
        (b"", "not one value"),
        (b"\x02\x01\x05\x02\x01\x05", "not one value"),
    ],
)
def test_what_is_wrong_in_der(data: bytes, words: str) -> None:
    with pytest.raises(DERError, match=words):
        only_element(data)


def test_lengths_of_many_bytes_are_read() -> None:
    content = bytes(300)
    assert only_element(b"\x04\x82\x01\x2c" + content) == Element(tag=4, content=content)
    assert only_element(b"\x04" + bytes([0x80 | DER_LENGTH_BYTES_MAX]) + b"\0\0\0\1x").content == b"x"


def test_numbers_and_identifiers() -> None:
    assert Element(tag=INTEGER, content=b"\xff").integer() == -1
    identifier = Element(tag=6, content=bytes.fromhex("2a864886f70d010105"))
    assert identifier.object_identifier() == "1.2.840.113549.1.1.5"
    assert Element(tag=6, content=bytes.fromhex("883703")).object_identifier() == "2.999.3"
    for content in (b"", b"\x2a\x86", b"\x2a" * (DER_OBJECT_IDENTIFIER_BYTES_MAX + 1)):
        with pytest.raises(DERError):
            Element(tag=6, content=content).object_identifier()


def test_times_of_both_centuries() -> None:
    def time(text: bytes, tag: int = 0x17) -> dt.datetime:
        return Element(tag=tag, content=text).time()

    assert time(b"491231235959Z").year == 2049
    assert time(b"500101000000Z").year == 1950
    assert time(b"20500101000000Z", tag=0x18).year == 2050
    for text in (b"491331235959Z", b"4912312359Z", b"\xff" * 13):
        with pytest.raises(DERError):
            time(text)


# What is thought of them


def test_a_broken_signature_is_refused_by_every_profile() -> None:
    for profile in SecurityProfile:
        found = facts(signed="MD5", strength=Strength.BROKEN)
        assert "MD5" in refusal_of(found, PROFILES[profile].certificates, is_server=False)


@pytest.mark.parametrize(
    ("found", "rules", "is_server", "words"),
    [
        (facts(bits=1024), PROFILES[SecurityProfile.RFC_8996].certificates, True, "1024 bits, and the"),
        (facts(bits=1024), PROFILES[SecurityProfile.RFC_8996].certificates, False, ""),
        (facts(bits=1024), MODIFIED, False, "asks for 2048"),
        (facts(bits=1024), PROFILES[SecurityProfile.AES].certificates, True, ""),
        (facts(KeyKind.EC, 224), MODIFIED, False, "224 bits, and the security profile asks for 256"),
        (facts(KeyKind.EC, 256), MODIFIED, True, ""),
        (facts(KeyKind.EC, 224), PROFILES[SecurityProfile.RFC_8996].certificates, True, ""),
        (facts(signed="SHA-1", strength=Strength.WEAK), MODIFIED, True, "SHA-256 or better"),
        (facts(signed="SHA-1", strength=Strength.WEAK), CertificateRules(), True, ""),
        (facts(KeyKind.OTHER, 0), MODIFIED, True, ""),
        (facts(), MODIFIED, True, ""),
    ],
)
def test_what_a_profile_refuses(
    found: CertificateFacts, rules: CertificateRules, is_server: bool, words: str
) -> None:
    refusal = refusal_of(found, rules, is_server=is_server)
    assert words in refusal
    assert bool(refusal) is bool(words)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (facts(bits=1024), "fewer than 2048"),
        (facts(KeyKind.EC, 192), "fewer than 224"),
        (facts(KeyKind.DSA, 2048), "no TLS 1.3"),
        (facts(signed="SHA-1", strength=Strength.WEAK), "weaker than SHA-256"),
    ],
)
def test_what_is_advised_against(found: CertificateFacts, words: str) -> None:
    (reservation,) = reservations_about(found)
    assert words in reservation
    assert not list(reservations_about(facts()))
