"""Certificates and keys as the doctor sees them: their days, whether they can be read and fit, and who else reads the key."""

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from stowkeeper.app.doctor.at_start import findings_at_start
from stowkeeper.app.doctor.certificates import check_certificate, check_certificates
from stowkeeper.app.doctor.finding import Finding, Level
from stowkeeper.app.settings import load_settings
from support.tls_files import Identity
from support.tls_fixtures import TLSFiles

pytestmark = pytest.mark.peer("openssl")
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


@pytest.fixture
def own(tls_files: TLSFiles, tmp_path: Path) -> Identity:
    """A certificate until the end of 2098 with its key, in files of this test."""
    return copied(tls_files.server, tmp_path)


def copied(identity: Identity, folder: Path) -> Identity:
    certificate, key = folder / "own.pem", folder / "own.key"
    shutil.copy(identity.certificate, certificate)
    shutil.copy(identity.key, key)
    key.chmod(0o600)
    return Identity(certificate=str(certificate), key=str(key))


def checked(identity: Identity, now: dt.datetime = NOW) -> list[Finding]:
    return list(check_certificate("DICOM", identity.certificate, identity.key, now))


def only(findings: Iterable[Finding], level: Level) -> Finding:
    (found,) = [finding for finding in findings if finding.level is not Level.OK]
    assert (found.level, bool(found.mend)) == (level, True), found
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("now", "level", "words"),
    [
        ((2019, 12, 31), Level.FAILURE, "holds from 2020-01-01 on"),
        ((2026, 6, 1), Level.OK, "holds until 2099-01-01"),
        ((2098, 12, 1), Level.OK, "for 30 days"),
        ((2098, 12, 2), Level.WARNING, "for 29 days"),
        ((2098, 12, 30), Level.WARNING, "for 1 day"),
        ((2099, 1, 2), Level.FAILURE, "expired on 2099-01-01"),
    ],
)
def test_the_days_of_a_certificate(
    own: Identity, now: tuple[int, int, int], level: Level, words: str
) -> None:
    (found,) = checked(own, dt.datetime(*now, 12, tzinfo=dt.UTC))
    assert (found.level, words in found.words) == (level, True), found
    assert found.level is Level.OK or own.certificate in found.mend


def test_a_key_that_does_not_fit_or_cannot_be_read(
    own: Identity, tls_files: TLSFiles, tmp_path: Path
) -> None:
    foreign = Identity(certificate=own.certificate, key=tls_files.foreign_authority.key)
    os.chmod(foreign.key, 0o600)
    assert "does not belong to the certificate" in only(checked(foreign), Level.FAILURE).words
    missing = Identity(certificate=own.certificate, key=str(tmp_path / "none.key"))
    assert "No such file" in only(checked(missing), Level.FAILURE).words
    Path(own.certificate).write_text("no certificate")
    assert "there is no certificate" in only(checked(own), Level.FAILURE).words


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_key_of_root_is_given_to_the_user_of_the_server(tls_files: TLSFiles) -> None:
    with tempfile.TemporaryDirectory(prefix="keys-") as place:
        Path(place).chmod(0o755)
        own = copied(tls_files.server, Path(place))
        os.chmod(own.certificate, 0o644)
        os.seteuid(65534)
        try:
            found = only(checked(own), Level.FAILURE)
        finally:
            os.seteuid(0)
    assert found.words.startswith(f"DICOM: nobody (user 65534) cannot read {own.key} (owner root")
    assert found.mend == f"sudo chown nobody {own.key}"


def test_a_key_that_everyone_can_read(own: Identity) -> None:
    os.chmod(own.key, 0o644)
    assert only(checked(own), Level.WARNING).mend == f"chmod o-rwx {own.key}"


def test_those_of_dicom_and_of_https_are_looked_at(
    own: Identity, tls_files: TLSFiles, tmp_path: Path
) -> None:
    expired = tmp_path / "expired"
    expired.mkdir()
    old = copied(tls_files.expired, expired)
    overrides = {
        "archive": str(tmp_path / "archive"),
        "tls.certificate": own.certificate,
        "tls.key": own.key,
        "tls.peer_certificate": "ignore",
        "http.certificate": old.certificate,
        "http.key": old.key,
    }
    settings = load_settings(None, overrides, {})
    found = list(check_certificates(settings, NOW))
    assert [(one.words.partition(":")[0], one.level) for one in found] == [
        ("DICOM", Level.OK),
        ("HTTPS", Level.FAILURE),
    ]
    # The start of a server says of its own what has expired of [tls], and nothing of HTTPS.
    swapped = load_settings(
        None,
        {
            **overrides,
            "tls.certificate": old.certificate,
            "tls.key": old.key,
            "http.certificate": own.certificate,
            "http.key": own.key,
        },
        {},
    )
    assert [one.words[:5] for one in findings_at_start(settings) if one.check == "certificate"] == ["HTTPS"]
    assert [one.check for one in findings_at_start(swapped) if one.check == "certificate"] == []


def test_a_password_opens_the_key(own: Identity, tmp_path: Path) -> None:
    locked = own.encrypted(tmp_path, "secret")
    os.chmod(locked.key, 0o600)
    for password, level in (("secret", Level.OK), ("wrong", Level.FAILURE)):
        (tmp_path / "password").write_text(f"{password}\n")
        (found,) = check_certificate(
            "DICOM", locked.certificate, locked.key, NOW, password_file=str(tmp_path / "password")
        )
        assert found.level is level
