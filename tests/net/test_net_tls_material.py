"""Files of keys, certificates, revocation lists and DH parameters: read in both formats, or named with what is wrong."""

import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stowkeeper.net import tls_material
from stowkeeper.net.limits import TLS_DIRECTORY_FILES_MAX, TLS_FILE_BYTES_MAX, TLS_PASSWORD_BYTES_MAX
from stowkeeper.net.tls_certificates import KeyKind
from stowkeeper.net.tls_ciphers import cipher_string, list_ciphers
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.net.tls_material import (
    DH_GROUP_2048,
    FileFormat,
    Password,
    load_authorities,
    load_dh_group,
    load_directory,
    load_own_certificate,
    load_revocation_list,
    password_in,
    read_dh_group,
)
from support.tls_files import Identity, openssl
from support.tls_fixtures import TLSFiles

pytestmark = pytest.mark.peer("openssl")

PEM, DER = FileFormat.PEM, FileFormat.DER
SECRET = "correct horse battery staple"


@pytest.fixture
def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.set_ciphers(cipher_string(list_ciphers()))
    return made


def load(
    context: ssl.SSLContext, identity: Identity, form: FileFormat = PEM, password: Password = None
) -> None:
    load_own_certificate(context, identity.certificate, identity.key, form, password)


def fault_of(act: Callable[[], object]) -> TLSSetupError:
    with pytest.raises(TLSSetupError) as caught:
        act()
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    return caught.value


# Own certificate and key


@pytest.mark.slow
@pytest.mark.parametrize("key", ["rsa", "ec", "ed25519", "dsa"])
def test_pem_and_der_are_read(tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path, key: str) -> None:
    identity = tls_files.authority.issue(key=key)
    load(context, identity)
    load(context, identity.der(tmp_path), DER)


@pytest.mark.parametrize(("key", "form"), [("rsa", "rsa"), ("ec", "ec"), ("dsa", "dsa")])
def test_keys_in_their_older_forms_are_read(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path, key: str, form: str
) -> None:
    load(context, tls_files.authority.issue(key=key).der(tmp_path, key_form=form), DER)


def test_the_facts_of_the_certificate_come_back(tls_files: TLSFiles, context: ssl.SSLContext) -> None:
    server = tls_files.server
    facts = load_own_certificate(context, server.certificate, server.key, PEM, None)
    assert (facts.key_kind, facts.key_bits) == (KeyKind.RSA, 2048)


def test_one_file_may_hold_key_and_chain(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    parts = (tls_files.server.key, tls_files.server.certificate, tls_files.authority.certificate)
    both.write_bytes(b"some words before\n" + b"".join(Path(part).read_bytes() for part in parts))
    load(context, Identity(certificate=str(both), key=str(both)))


def test_nothing_stays_open_and_nothing_lies_about(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    load(context, tls_files.server)
    if before:
        assert set(os.listdir("/proc/self/fd")) == before
    monkeypatch.delattr(os, "memfd_create", raising=False)  # as on other systems
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    load(context, tls_files.server)
    load_authorities(context, tls_files.authority.certificate, PEM)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("password", [SECRET, lambda: SECRET])
def test_a_password_opens_the_key(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path, password: Password
) -> None:
    load(context, tls_files.server.encrypted(tmp_path, SECRET), password=password)


def test_an_encrypted_key_in_der_is_opened_too(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path
) -> None:
    der = tls_files.server.der(tmp_path)
    key = tmp_path / "encrypted.der"
    openssl(
        "pkcs8",
        "-topk8",
        "-in",
        tls_files.server.key,
        "-passout",
        f"pass:{SECRET}",
        "-outform",
        "DER",
        "-out",
        key,
    )
    load(context, replace(der, key=str(key)), DER, SECRET)


def test_a_password_is_asked_for_once_and_only_where_it_is_needed(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path
) -> None:
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return "wrong"

    load(context, tls_files.server, password=ask)
    assert asked == []
    fault_of(lambda: load(context, tls_files.server.encrypted(tmp_path, SECRET), password=ask))
    assert asked == [1]


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("wrong", "the password does not open the private key"),
        ("", "the password does not open the private key"),
        (None, "is encrypted, and no password was given"),
        (SECRET * 50, f"more than {TLS_PASSWORD_BYTES_MAX} bytes"),
    ],
)
def test_what_is_said_of_passwords(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path, password: Password, words: str
) -> None:
    identity = tls_files.server.encrypted(tmp_path, SECRET)
    error = fault_of(lambda: load(context, identity, password=password))
    assert (error.fault, error.subject) == (TLSFault.PASSWORD, identity.key)
    assert words in str(error)
    assert identity.key in str(error)


def test_a_password_can_stand_in_a_file(tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path) -> None:
    file = tmp_path / "password"
    identity = tls_files.server.encrypted(tmp_path, SECRET)
    for content in (SECRET, f"{SECRET}\n", f"{SECRET}\r\nsomething else\n"):
        file.write_text(content, newline="")
        load(context, identity, password=password_in(str(file)))
    file.write_text("x" * 10_000)
    error = fault_of(lambda: load(context, identity, password=password_in(str(file))))
    assert f"more than {TLS_PASSWORD_BYTES_MAX} bytes" in str(error)
    file.unlink()
    error = fault_of(lambda: password_in(str(file)))
    assert (error.fault, error.subject) == (TLSFault.PASSWORD, str(file))
    assert str(error) == f"the password file {file} cannot be read: No such file or directory."


def test_whoever_interrupts_the_question_ends_it(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path
) -> None:
    def ask() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(context, tls_files.server.encrypted(tmp_path, SECRET), password=ask)


@pytest.mark.slow
def test_a_key_of_another_certificate_is_named(tls_files: TLSFiles, context: ssl.SSLContext) -> None:
    for kind in ("rsa", "ec"):
        mixed = replace(tls_files.server, key=tls_files.keys.new(kind))
        error = fault_of(lambda mixed=mixed: load(context, mixed))  # type: ignore[misc]  # a default in a lambda
        assert error.fault is TLSFault.MISMATCH
        assert (
            str(error)
            == f"the private key {mixed.key} does not belong to the certificate {mixed.certificate}."
        )


def test_files_that_cannot_be_used_are_named(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path
) -> None:
    server = tls_files.server
    none, empty, damaged = str(tmp_path / "none"), tmp_path / "empty", tmp_path / "damaged"
    empty.touch()
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    broken_key = tmp_path / "broken.key"
    broken_key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    der = server.der(tmp_path)
    cases = [
        (
            replace(server, key=none),
            PEM,
            TLSFault.KEY,
            f"the private key {none} cannot be read: No such file or directory.",
        ),
        (
            replace(server, certificate=none),
            PEM,
            TLSFault.CERTIFICATE,
            f"the certificate {none} cannot be read: No such",
        ),
        (replace(server, key=str(tmp_path)), PEM, TLSFault.KEY, "cannot be read: Is a directory."),
        (replace(server, key=str(empty)), PEM, TLSFault.KEY, f"there is no private key in {empty}."),
        (
            replace(server, certificate=str(empty)),
            PEM,
            TLSFault.CERTIFICATE,
            f"there is no certificate in {empty}.",
        ),
        (replace(server, certificate=str(damaged)), PEM, TLSFault.CERTIFICATE, "is damaged"),
        (replace(server, key=str(broken_key)), PEM, TLSFault.KEY, "is damaged, or of a kind that OpenSSL"),
        (replace(server, key=der.key), PEM, TLSFault.KEY, "(it looks like DER, not PEM)"),
        (
            replace(server, certificate=der.certificate),
            PEM,
            TLSFault.CERTIFICATE,
            "(it looks like DER, not PEM)",
        ),
        (replace(der, key=server.key), DER, TLSFault.KEY, "(it looks like PEM, not DER)"),
        (
            replace(der, certificate=server.certificate),
            DER,
            TLSFault.CERTIFICATE,
            "(it looks like PEM, not DER)",
        ),
        (replace(der, key=str(empty)), DER, TLSFault.KEY, f"{empty} is no private key in DER."),
        (replace(der, certificate=der.key), DER, TLSFault.CERTIFICATE, "or it is none"),
    ]
    for identity, form, fault, words in cases:
        error = fault_of(lambda identity=identity, form=form: load(context, identity, form))  # type: ignore[misc]  # defaults
        assert error.fault is fault
        assert words in str(error)


@pytest.mark.slow
def test_a_file_that_is_far_too_large_is_not_read_whole(context: ssl.SSLContext, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as stream:
        stream.truncate(TLS_FILE_BYTES_MAX + 1)  # a hole, which takes no space
    error = fault_of(lambda: load_authorities(context, str(huge), PEM))
    assert f"has more than {TLS_FILE_BYTES_MAX} bytes" in str(error)


# Authorities and revocation lists


def test_authorities_of_a_file_are_trusted(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    authorities = (tls_files.authority, tls_files.foreign_authority)
    both.write_bytes(b"".join(Path(authority.certificate).read_bytes() for authority in authorities))
    load_authorities(context, str(both), PEM)
    load_authorities(context, str(both), PEM)  # again does no harm
    assert context.cert_store_stats()["x509_ca"] == 2


def test_der_authorities_and_revocation_lists_are_read(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path
) -> None:
    authority, crl = tmp_path / "authority.der", tmp_path / "list.der"
    openssl("x509", "-in", tls_files.authority.certificate, "-outform", "DER", "-out", authority)
    openssl("crl", "-in", tls_files.authority.revocation_list(), "-outform", "DER", "-out", crl)
    load_authorities(context, str(authority), DER)
    load_revocation_list(context, str(crl), DER)
    assert context.cert_store_stats() == {"x509": 1, "x509_ca": 1, "crl": 1}


def test_trust_that_cannot_be_used_is_named(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path
) -> None:
    certificate, crl = tls_files.authority.certificate, tls_files.authority.revocation_list()
    damaged = tmp_path / "damaged"
    damaged.write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    cases = [
        (load_authorities, str(tmp_path / "none"), PEM, "cannot be read: No such file"),
        (load_authorities, tls_files.server.key, PEM, "there is no certificate in "),
        (load_authorities, certificate, DER, "(it looks like PEM, not DER)"),
        (load_revocation_list, certificate, PEM, "there is no revocation list in "),
        (load_revocation_list, str(damaged), PEM, "a revocation list in "),
        (load_revocation_list, crl, DER, "(it looks like PEM, not DER)"),
    ]
    for read, path, form, words in cases:
        error = fault_of(lambda read=read, path=path, form=form: read(context, path, form))  # type: ignore[misc]  # defaults
        assert (error.fault, error.subject) == (TLSFault.TRUST, path)
        assert words in str(error)
        assert path in str(error)


@pytest.mark.parametrize("form", [PEM, DER])
def test_a_directory_is_read_by_its_hashed_names(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path, form: FileFormat
) -> None:
    (tmp_path / "authority.pem").write_bytes(Path(tls_files.authority.certificate).read_bytes())
    (tmp_path / "list.pem").write_bytes(Path(tls_files.authority.revocation_list()).read_bytes())
    openssl("rehash", tmp_path)
    if form is DER:
        for path in tmp_path.glob("*.*[0-9]"):
            kind = "crl" if ".r" in path.name else "x509"
            made = openssl(kind, "-in", path, "-outform", "DER")
            path.unlink()
            path.write_bytes(made)
    load_directory(context, str(tmp_path), form)
    assert context.cert_store_stats() == {"x509": 1, "x509_ca": 1, "crl": 1}


def test_a_directory_that_cannot_be_used_is_named(
    tls_files: TLSFiles, context: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "authority.pem").write_bytes(Path(tls_files.authority.certificate).read_bytes())
    assert f"run openssl rehash {tmp_path}." in str(
        fault_of(lambda: load_directory(context, str(tmp_path), PEM))
    )
    none = str(tmp_path / "none")
    assert f"{none} cannot be read: No such" in str(fault_of(lambda: load_directory(context, none, PEM)))
    for number in range(3):
        (tmp_path / f"0123abcd.{number}").touch()
    monkeypatch.setattr(tls_material, "TLS_DIRECTORY_FILES_MAX", 2)
    assert "holds 3 certificates, more than 2" in str(
        fault_of(lambda: load_directory(context, str(tmp_path), PEM))
    )
    assert TLS_DIRECTORY_FILES_MAX >= 1000


# Diffie-Hellman


def test_the_group_shipped_is_that_of_rfc_7919(context: ssl.SSLContext, tmp_path: Path) -> None:
    """RFC 7919 Appendix A.1: p = 2^2048 - 2^1984 + (floor(2^1918 * e) + 560316) * 2^64 - 1."""
    scale = 1 << 2100
    term, e, number = scale, 0, 0
    while term:
        e += term
        number += 1
        term //= number
    prime = 2**2048 - 2**1984 + ((e >> (2100 - 1918)) + 560316) * 2**64 - 1
    path = tmp_path / "group.pem"
    path.write_bytes(DH_GROUP_2048)
    der = openssl("dhparam", "-in", path, "-outform", "DER")
    assert prime.to_bytes(256, "big") in der
    assert read_dh_group(str(path)) == (DH_GROUP_2048, 2048)
    load_dh_group(context)


@pytest.mark.slow
def test_dh_parameters_that_cannot_be_used_are_named(tls_files: TLSFiles, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n")
    for path in (str(damaged), tls_files.server.key):
        error = fault_of(lambda path=path: read_dh_group(path))  # type: ignore[misc]  # a default in a lambda
        assert (error.fault, error.subject) == (TLSFault.DH_PARAMETERS, path)
        assert f"there are no DH parameters in {path}" in str(error)
    none, tiny = str(tmp_path / "none"), str(tmp_path / "tiny.pem")
    assert "cannot be read" in str(fault_of(lambda: read_dh_group(none)))
    openssl("dhparam", "-out", tiny, "512")
    assert f"{tiny}, of 512 bits, are damaged or far too short" in str(fault_of(lambda: read_dh_group(tiny)))
