"""The settings of TLS, and the way from them to a context: what is wrong with a file is a problem of its setting."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final, Literal

from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_problems import Problem, SettingsError
from stowkeeper.app.setting_values import FilePath, SomePaths, Words
from stowkeeper.net.tls_context import (
    PeerVerification,
    ProtocolVersion,
    RevocationCheck,
    TLSContext,
    TLSOptions,
    acceptor_context,
    requestor_context,
)
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.net.tls_material import FileFormat, password_in
from stowkeeper.net.tls_profiles import SecurityProfile

if TYPE_CHECKING:
    from stowkeeper.app.settings_tables import Settings

_FILE = "a path"
_FILES = "a list of paths"


class TLSSettings(Table):
    """TLS (PS3.15 Annex B) on the listener. `docs/tls.md` shows how to set it up.

    Giving a certificate turns it on; every connection then begins with a TLS handshake, and plain DICOM is refused.
    """

    certificate: Annotated[
        FilePath,
        About(
            "File with the server's certificate, and behind it the certificates of the authorities between it and"
            " the one that peers trust. Empty: DICOM without TLS.",
            allowed=_FILE,
            shape="path",
        ),
    ] = ""
    key: Annotated[
        FilePath,
        About(
            "File with the private key of the certificate. Empty: it is in the file of the certificate.",
            allowed=_FILE,
            shape="path",
        ),
    ] = ""
    key_password_file: Annotated[
        FilePath,
        About(
            "File whose first line is the password of the key. Empty: the key is not encrypted.",
            allowed=_FILE,
            shape="path",
        ),
    ] = ""
    format: Annotated[
        Literal["pem", "der"],
        About("How certificates, keys and revocation lists are written."),
    ] = "pem"
    peer_certificate: Annotated[
        Literal["require", "if-present", "ignore"],
        About(
            "What is asked of peers. `require`: a certificate that verifies. `if-present`: none, or one that verifies."
            " `ignore`: none, and any reaches the rules of `[access]`."
        ),
    ] = "require"
    peer_names: Annotated[
        Literal["check", "ignore"],
        About(
            "What is asked of the certificate of a peer that is called, be it for a report, to send to it or to ask it."
            " `check`: it holds for the host that is called. `ignore`: it may hold for any, as those of many scanners do;"
            " then each that a trusted authority issued a certificate to can stand in for each other."
        ),
    ] = "check"
    ca_files: Annotated[
        SomePaths,
        About(
            "Files with certificates of the authorities that peers are trusted by, or of peers that signed their"
            " own. Whoever has a certificate of one of these authorities may connect.",
            allowed=_FILES,
            shape="paths",
        ),
    ] = ()
    ca_directories: Annotated[
        SomePaths,
        About(
            "Directories of such files, and of revocation lists, under the names that `openssl rehash` gives them.",
            allowed=_FILES,
            shape="paths",
        ),
    ] = ()
    crl_files: Annotated[
        SomePaths,
        About(
            "Files with revocation lists. Giving one checks the certificates of peers at least (`leaf`).",
            allowed=_FILES,
            shape="paths",
        ),
    ] = ()
    crl_check: Annotated[
        Literal["none", "leaf", "chain"],
        About(
            "Which certificates must not be revoked. `leaf`: the peer's own. `chain`: those of its authorities too."
            " For each of them a revocation list that holds now is needed."
        ),
    ] = "none"
    profile: Annotated[
        Literal[
            "rfc8996",
            "rfc8996-modified",
            "bcp195-non-downgrading",
            "bcp195",
            "bcp195-extended",
            "basic",
            "aes",
            "unencrypted",
        ],
        About(
            "Security profile of PS3.15 Annex B. All but the first two are retired there, and for old devices only;"
            " `docs/tls.md` tells what each allows."
        ),
    ] = "rfc8996"
    minimum_version: Annotated[
        Literal["profile", "1.2", "1.3"],
        About("Lowest version of TLS, where it is to be higher than the profile's own."),
    ] = "profile"
    cipher_suites: Annotated[
        Words,
        About(
            "Cipher suites in addition to those of the profile, for TLS 1.2 and older.",
            allowed='a list of names, such as `["TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"]`',
        ),
    ] = ()
    dh_parameters: Annotated[
        FilePath,
        About(
            "File with a Diffie-Hellman group in PEM, for cipher suites with DHE. Empty: the group ffdhe2048 of RFC"
            " 7919.",
            allowed=_FILE,
            shape="path",
        ),
    ] = ""
    server_name: Annotated[
        str,
        About(
            "Name that peers must ask for where they ask for one (SNI). Empty: they may ask for any.",
            allowed="a host name",
        ),
    ] = ""


_KEYS: Final = {
    TLSFault.KEY: "key",
    TLSFault.PASSWORD: "key_password_file",
    TLSFault.CERTIFICATE: "certificate",
    TLSFault.MISMATCH: "key",
    TLSFault.PROFILE: "profile",
    TLSFault.CIPHER_SUITE: "cipher_suites",
    TLSFault.DH_PARAMETERS: "dh_parameters",
    TLSFault.PROTOCOL: "minimum_version",
}
"""The setting that a person mends to be rid of a fault."""


def tls_context(settings: "Settings") -> TLSContext | None:
    """Set TLS up as the settings say; None when they ask for none.

    Reads the files that they name. Raises SettingsError, with the place of the setting that is at fault.
    """
    if not settings.tls.certificate:
        return None
    try:
        return acceptor_context(_options(settings))
    except TLSSetupError as error:
        key = f"tls.{_key_of(settings.tls, error)}"
        place = settings.origin_of(key).place_of(key)
        raise SettingsError([Problem(place=place, text=str(error).removesuffix("."))]) from error


def calling_tls_context(settings: "Settings") -> TLSContext:
    """Set TLS up for calls to the peers that want it: with the server's own certificate, by the settings of `[tls]`.

    A peer that is called must have a certificate of one of `tls.ca_files` and `tls.ca_directories`, where there are none of
    an authority that the machine trusts, and it must hold for the host that is called unless `tls.peer_names` says
    otherwise. Raises TLSSetupError.
    """
    if not settings.tls.certificate:
        return requestor_context(TLSOptions(trusts_system=True, checks_name=True))
    tls = settings.tls
    return requestor_context(
        replace(
            _options(settings),
            verification=PeerVerification.REQUIRE,
            trusts_system=not tls.ca_files and not tls.ca_directories,
            checks_name=tls.peer_names == "check",
        )
    )


def tls_contradictions(tls: TLSSettings) -> Iterator[tuple[str, str]]:
    """Yield each key of `[tls]` that contradicts the others, and how."""
    if not tls.certificate:
        for name in tls.model_fields_set - {"certificate"}:
            if getattr(tls, name) != type(tls).model_fields[name].default:
                yield name, "there is no TLS without tls.certificate"
        return
    if tls.peer_certificate != "ignore" and not tls.ca_files and not tls.ca_directories:
        chosen = "peer_certificate" if "peer_certificate" in tls.model_fields_set else "certificate"
        words = f'with tls.peer_certificate = "{tls.peer_certificate}" nobody could connect'
        yield (
            chosen,
            f'{words}: name the authorities that peers are trusted by in tls.ca_files, or choose "ignore"',
        )


def tls_warnings(tls: TLSSettings) -> Iterator[str]:
    """Yield what is allowed and still deserves a word."""
    if tls.certificate and tls.profile == "unencrypted":
        yield 'nothing is encrypted with tls.profile = "unencrypted"'
    if tls.certificate and tls.peer_names == "ignore" and not tls.ca_files and not tls.ca_directories:
        yield (
            "whoever has a certificate of an authority that this machine trusts can stand in for a peer that is called, with"
            ' tls.peer_names = "ignore" and no tls.ca_files'
        )
    if tls.certificate and tls.peer_certificate == "ignore":
        yield 'peers show no certificate with tls.peer_certificate = "ignore": AE titles and addresses can be forged'


def _options(settings: "Settings") -> TLSOptions:
    tls = settings.tls
    return TLSOptions(
        certificate_file=tls.certificate,
        key_file=tls.key,
        file_format=FileFormat(tls.format),
        password=password_in(tls.key_password_file) if tls.key_password_file else None,
        ca_files=tls.ca_files,
        ca_directories=tls.ca_directories,
        crl_files=tls.crl_files,
        revocation_check=RevocationCheck(tls.crl_check),
        profile=SecurityProfile(tls.profile),
        minimum_version=None if tls.minimum_version == "profile" else ProtocolVersion(tls.minimum_version),
        cipher_suites=tls.cipher_suites,
        dh_parameter_file=tls.dh_parameters,
        expected_server_name=tls.server_name,
        verification=PeerVerification(tls.peer_certificate),
    )


def _key_of(tls: TLSSettings, error: TLSSetupError) -> str:
    """Return the key that names the file, or the value, that an error is about."""
    if error.fault is TLSFault.TRUST:
        if error.subject in tls.crl_files:
            return "crl_files"
        return "ca_files" if error.subject in tls.ca_files else "ca_directories"
    key = _KEYS[error.fault]
    return "certificate" if key == "key" and not tls.key else key
