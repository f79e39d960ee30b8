"""What a command line says about TLS, as typed options for whoever sets it up."""

from dataclasses import dataclass
from typing import Final

from stowkeeper.dcmtk.evaluation import Selection
from stowkeeper.dcmtk.tls_table import PROFILE_OPTIONS
from stowkeeper.net.tls_context import PeerVerification, RevocationCheck, TLSOptions
from stowkeeper.net.tls_material import FileFormat
from stowkeeper.net.tls_profiles import SecurityProfile

_FORMATS: Final = {"--pem-keys": FileFormat.PEM, "--der-keys": FileFormat.DER}
_VERIFICATIONS: Final = {
    "--require-peer-cert": PeerVerification.REQUIRE,
    "--verify-peer-cert": PeerVerification.IF_PRESENT,
    "--ignore-peer-cert": PeerVerification.IGNORE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSChoice:
    """Everything about TLS that a command line says.

    With `asks_password` the options have no password yet: whoever sets TLS up asks for it when the key needs one.
    `seed_file` is mixed into the random numbers before that, `write_seed_file` gets a new seed behind it.
    """

    options: TLSOptions
    asks_password: bool = True
    seed_file: str | None = None
    write_seed_file: str | None = None


def tls_choice(selection: Selection) -> TLSChoice | None:
    """Check the options about TLS and return them; None for plain TCP. Raises CommandLineError.

    Authorities and revocation lists that cannot be used are warnings to these programs, no errors.
    """
    selection.check("tls")
    key_and_certificate = selection.values("--enable-tls")
    if key_and_certificate is None:
        return None
    key_file, certificate_file = key_and_certificate
    seed_file = selection.text("--seed")
    asks_password = not (selection.has("--use-passwd") or selection.has("--null-passwd"))
    profiles = {names.long: profile for profile, names in PROFILE_OPTIONS.items()}
    options = TLSOptions(
        certificate_file=certificate_file,
        key_file=key_file,
        file_format=selection.choice(_FORMATS, FileFormat.PEM),
        password=None if asks_password else selection.text("--use-passwd") or "",
        ca_files=selection.texts("--add-cert-file"),
        ca_directories=selection.texts("--add-cert-dir"),
        crl_files=selection.texts("--add-crl-file"),
        revocation_check=_revocation_check(selection),
        profile=selection.choice(profiles, SecurityProfile.RFC_8996),
        cipher_suites=selection.texts("--cipher"),
        dh_parameter_file=selection.text("--dhparam") or "",
        expected_server_name=selection.text("--expect-sni") or "",
        verification=selection.choice(_VERIFICATIONS, PeerVerification.REQUIRE),
        tolerates_unusable_files=True,
    )
    return TLSChoice(
        options=options,
        asks_password=asks_password,
        seed_file=seed_file,
        write_seed_file=selection.text("--write-seed-file")
        or (seed_file if selection.has("--write-seed") else None),
    )


def _revocation_check(selection: Selection) -> RevocationCheck:
    if selection.has("--enable-crl-all"):
        return RevocationCheck.CHAIN
    if selection.has("--enable-crl-vfy") or selection.has("--add-crl-file"):
        return RevocationCheck.LEAF
    return RevocationCheck.NONE
