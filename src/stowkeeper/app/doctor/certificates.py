"""Whether certificates and keys for DICOM and HTTPS can be used and fit, and for how long yet."""

import datetime as dt
import os
import shlex
import ssl
import stat
from collections.abc import Iterator

from stowkeeper.app.doctor.accounts import give_to, ourselves, whose
from stowkeeper.app.doctor.finding import Finding, failure, ok, warning
from stowkeeper.app.doctor.limits import CERTIFICATE_DAYS_MIN
from stowkeeper.app.settings import Settings
from stowkeeper.net.tls_certificates import CertificateFacts
from stowkeeper.net.tls_errors import TLSSetupError
from stowkeeper.net.tls_material import FileFormat, load_own_certificate, password_in

CERTIFICATE = "certificate"


def check_certificates(settings: Settings, now: dt.datetime, server: int | None = None) -> Iterator[Finding]:
    """Look at the certificate of `[tls]` and that of `[http]`, each with its key; none is fine.

    `server` is the pid of the server that reads new ones at SIGHUP, if it is known.
    """
    tls, http = settings.tls, settings.http
    if tls.certificate:
        yield from check_certificate(
            "DICOM",
            tls.certificate,
            tls.key or tls.certificate,
            now,
            file_format=FileFormat(tls.format),
            password_file=tls.key_password_file,
            server=server,
        )
    else:
        yield ok(CERTIFICATE, "DICOM: no TLS, so no certificate")
    if http.certificate:
        yield from check_certificate(
            "HTTPS", http.certificate, http.key or http.certificate, now, server=server
        )


def check_certificate(
    what: str,
    certificate: str,
    key: str,
    now: dt.datetime,
    *,
    file_format: FileFormat = FileFormat.PEM,
    password_file: str = "",
    server: int | None = None,
    is_read_anew: bool = False,
) -> Iterator[Finding]:
    """Load one certificate with its key, as a server does, and look at its days and at who may read the key.

    One that `is_read_anew` whenever it is needed waits for no SIGHUP.
    """
    for path in dict.fromkeys((certificate, key)):
        unreadable = _unreadable(what, path)
        if unreadable is not None:
            yield unreadable
            return
    show = f"openssl x509 -in {shlex.quote(certificate)} -noout -subject -dates"
    try:
        password = password_in(password_file) if password_file else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")  # what is merely weak is for the security profile to refuse
        facts = load_own_certificate(context, certificate, key, file_format, password)
    except TLSSetupError as error:
        words = str(error).removesuffix(".")
        yield failure(
            CERTIFICATE, f"{what}: {words}", f"{show}; openssl pkey -in {shlex.quote(key)} -noout -check"
        )
        return
    renew = f"{show}  # have a new one made, put it there" + (
        "" if is_read_anew else f", and: kill -HUP {server or 'PID'}"
    )
    yield _days(what, certificate, facts, now, renew)
    yield from _readers(what, key)


def _unreadable(what: str, path: str) -> Finding | None:
    try:
        with open(path, "rb"):
            return None
    except PermissionError:
        words = f"{what}: {ourselves()} cannot read {path}{whose(path)}"
        return failure(CERTIFICATE, words, give_to(os.geteuid(), path).replace(" -R", ""))
    except OSError as error:
        words = f"{what}: {path} cannot be read: {error.strerror}"
        return failure(CERTIFICATE, words, f"ls -l {shlex.quote(os.path.dirname(path) or '.')}")


def _days(what: str, path: str, facts: CertificateFacts, now: dt.datetime, renew: str) -> Finding:
    last = f"{facts.not_after:%Y-%m-%d}"
    if now > facts.not_after:
        words = f"{what}: the certificate {path} expired on {last}, and peers that look refuse it"
        return failure(CERTIFICATE, words, renew)
    if now < facts.not_before:
        words = f"{what}: the certificate {path} holds from {facts.not_before:%Y-%m-%d} on, and it is {now:%Y-%m-%d} by the clock"
        return failure(CERTIFICATE, words, renew)
    days = (facts.not_after - now).days
    words = f"{what}: the certificate {path} holds until {last}, for {days} {'day' if days == 1 else 'days'}"
    if days < CERTIFICATE_DAYS_MIN:
        return warning(CERTIFICATE, words, renew)
    return ok(CERTIFICATE, f"{words}, and its key fits")


def _readers(what: str, key: str) -> Iterator[Finding]:
    mode = os.stat(key).st_mode
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        words = f"{what}: every user of this machine can read the private key {key} (mode {stat.S_IMODE(mode):04o})"
        yield warning(CERTIFICATE, words, f"chmod o-rwx {shlex.quote(key)}")
