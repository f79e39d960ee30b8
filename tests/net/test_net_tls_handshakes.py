"""Handshakes between the product's two sides: every profile and version, every verification, every cause of failure."""

import contextlib
import itertools
import ssl
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.net import tls_context
from stowkeeper.net.limits import TLS_NAME_LETTERS_MAX
from stowkeeper.net.tls_channel import TLSChannel
from stowkeeper.net.tls_context import (
    PeerVerification,
    ProtocolVersion,
    RevocationCheck,
    TLSContext,
    TLSOptions,
    acceptor_context,
    requestor_context,
)
from stowkeeper.net.tls_errors import TLSFailure, TLSFault, TLSSetupError
from stowkeeper.net.tls_profiles import PROFILES, SecurityProfile, available_profiles
from support.tls_files import Identity, openssl
from support.tls_fixtures import TLSFiles
from support.tls_pair import Meeting, meet
from support.tls_peer import peer_context

pytestmark = pytest.mark.peer("openssl")

VERSIONS = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NAMES = {
    ssl.TLSVersion.TLSv1: "TLSv1",
    ssl.TLSVersion.TLSv1_1: "TLSv1.1",
    ssl.TLSVersion.TLSv1_2: "TLSv1.2",
    ssl.TLSVersion.TLSv1_3: "TLSv1.3",
}
CARRIED = {
    SecurityProfile.RFC_8996: {"TLSv1.2", "TLSv1.3"},
    SecurityProfile.RFC_8996_MODIFIED: {"TLSv1.2", "TLSv1.3"},
    SecurityProfile.BCP_195_NON_DOWNGRADING: {"TLSv1.2", "TLSv1.3"},
    SecurityProfile.BCP_195: {"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"},
    SecurityProfile.BCP_195_EXTENDED: {"TLSv1.2"},
    SecurityProfile.BASIC: {"TLSv1", "TLSv1.1", "TLSv1.2"},
    SecurityProfile.AES: {"TLSv1", "TLSv1.1", "TLSv1.2"},
    SecurityProfile.UNENCRYPTED: {"TLSv1", "TLSv1.1", "TLSv1.2"},
}
FORCED_TO_1_2 = pytest.param(True, id="TLS 1.2"), pytest.param(False, id="TLS 1.3")


def options(files: TLSFiles, identity: Identity | None = None, **changes: Any) -> TLSOptions:
    """Return options with a certificate of the authority that is trusted, the server's if none is given."""
    own = identity or files.server
    usual: dict[str, Any] = {
        "certificate_file": own.certificate,
        "key_file": own.key,
        "ca_files": (files.authority.certificate,),
    }
    return TLSOptions(**{**usual, **changes})


def client_of(files: TLSFiles, **changes: Any) -> TLSOptions:
    return options(files, changes.pop("identity", files.client), **changes)


def anonymous(files: TLSFiles, **changes: Any) -> TLSOptions:
    return options(files, certificate_file="", key_file="", **changes)


def limited(context: TLSContext, version: ssl.TLSVersion, *, to_old_suites: bool = False) -> TLSContext:
    """Let a side speak one version alone, as an old or a new peer does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of versions that are old on purpose
        context.ssl_context.minimum_version = version
        context.ssl_context.maximum_version = version
    if to_old_suites:
        context.ssl_context.set_ciphers("ALL:eNULL:@SECLEVEL=0")
    return context


def meeting(
    files: TLSFiles, server: TLSOptions, client: TLSOptions, *, old: bool = False, name: str = "localhost"
) -> Meeting:
    requestor = requestor_context(client)
    if old:
        limited(requestor, ssl.TLSVersion.TLSv1_2)
    return meet(acceptor_context(server), requestor, name)


# Profiles and versions


@pytest.mark.parametrize("profile", available_profiles())
@pytest.mark.parametrize("version", VERSIONS, ids=NAMES.values())
def test_each_profile_speaks_its_versions_and_no_other(
    tls_files: TLSFiles, profile: SecurityProfile, version: ssl.TLSVersion
) -> None:
    acceptor = acceptor_context(options(tls_files, profile=profile))
    old_peer = limited(requestor_context(client_of(tls_files)), version, to_old_suites=True)
    met = meet(acceptor, old_peer)
    if NAMES[version] in CARRIED[profile]:
        assert met.is_well
        name, suite = met.acceptor.agreed.split()
        assert name == NAMES[version]
        rules = PROFILES[profile]
        assert suite in {*rules.suites, *rules.optional_suites} or name == "TLSv1.3"
    else:
        assert "versions of TLS" in met.acceptor_failure
        assert met.requestor_failure == "it refuses the versions of TLS that are allowed here"


@pytest.mark.parametrize("profile", available_profiles())
def test_two_sides_of_a_profile_take_its_best(tls_files: TLSFiles, profile: SecurityProfile) -> None:
    met = meeting(tls_files, options(tls_files, profile=profile), client_of(tls_files, profile=profile))
    assert met.is_well
    best = max(CARRIED[profile])
    assert met.acceptor.agreed.startswith(best)
    assert met.acceptor.agreed == met.requestor.agreed
    assert met.acceptor.peer_name == "CN=client, O=Clinic"
    assert met.requestor.peer_name == "CN=server, O=Clinic"


def test_the_server_takes_the_strongest_suite_whatever_the_client_prefers(tls_files: TLSFiles) -> None:
    profile = SecurityProfile.BCP_195
    client = requestor_context(client_of(tls_files, profile=profile))
    limited(client, ssl.TLSVersion.TLSv1_2)
    for offered, taken in (
        ("AES128-SHA:DHE-RSA-AES128-GCM-SHA256", "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"),
        ("DHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        ("ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384", "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"),
    ):
        client.ssl_context.set_ciphers(f"{offered}:@SECLEVEL=0")
        met = meet(acceptor_context(options(tls_files, profile=profile)), client)
        assert met.acceptor.agreed == f"TLSv1.2 {taken}"


def test_suites_can_be_added(tls_files: TLSFiles) -> None:
    suite = "TLS_RSA_WITH_AES_128_CBC_SHA256"
    server = options(tls_files, cipher_suites=(suite,))
    client = requestor_context(client_of(tls_files, cipher_suites=(suite,)))
    limited(client, ssl.TLSVersion.TLSv1_2)
    client.ssl_context.set_ciphers("AES128-SHA256:@SECLEVEL=0")
    assert meet(acceptor_context(server), client).acceptor.agreed == f"TLSv1.2 {suite}"
    assert any(suite in warning for warning in acceptor_context(server).warnings)
    met = meet(acceptor_context(options(tls_files)), client)
    assert (
        met.acceptor_failure
        == "it offers no cipher suite that the security profile and our certificate allow"
    )
    assert "no cipher suite is common to both sides" in met.requestor_failure


def test_a_minimum_version_narrows_the_profile(tls_files: TLSFiles) -> None:
    server = options(tls_files, minimum_version=ProtocolVersion.TLS_1_3)
    assert "versions of TLS" in meeting(tls_files, server, client_of(tls_files), old=True).acceptor_failure
    assert meeting(tls_files, server, client_of(tls_files)).is_well
    with pytest.raises(
        TLSSetupError, match=r"TLS 1\.3 is not to be had with the security profile aes"
    ) as caught:
        acceptor_context(replace(server, profile=SecurityProfile.AES))
    assert caught.value.fault is TLSFault.PROTOCOL
    lowest = acceptor_context(
        options(tls_files, profile=SecurityProfile.AES, minimum_version=ProtocolVersion.TLS_1_2)
    )
    assert lowest.ssl_context.minimum_version is ssl.TLSVersion.TLSv1_2


# Verification


@pytest.mark.parametrize("old", FORCED_TO_1_2)
@pytest.mark.parametrize("verification", PeerVerification)
@pytest.mark.parametrize("kind", ["good", "none", "foreign", "expired"])
def test_what_is_asked_of_a_clients_certificate(
    tls_files: TLSFiles, verification: PeerVerification, kind: str, old: bool
) -> None:
    clients = {
        "good": client_of(tls_files),
        "none": anonymous(tls_files),
        "foreign": client_of(tls_files, identity=tls_files.foreign),
        "expired": client_of(tls_files, identity=tls_files.expired),
    }
    refusals = {
        "none": ("it sent no certificate, and one is required", "certificate of us"),
        "foreign": (
            "its certificate is refused: the authority that issued it is not trusted here",
            "it does not trust the authority that issued our certificate",
        ),
        "expired": ("its certificate is refused: it has expired", "it refuses our certificate as expired"),
    }
    met = meeting(tls_files, options(tls_files, verification=verification), clients[kind], old=old)
    passes = {"good", "none"} if verification is PeerVerification.IF_PRESENT else {"good"}
    if verification is PeerVerification.IGNORE or kind in passes:
        assert met.is_well
        is_known = kind == "good" and verification is not PeerVerification.IGNORE
        assert met.acceptor.peer_name == ("CN=client, O=Clinic" if is_known else "")
        return
    ours, theirs = refusals[kind]
    assert met.acceptor_failure == ours
    assert theirs in met.requestor_failure


@pytest.mark.parametrize("old", FORCED_TO_1_2)
@pytest.mark.parametrize("kind", ["good", "foreign", "expired"])
@pytest.mark.parametrize("verification", PeerVerification)
def test_what_is_asked_of_a_servers_certificate(
    tls_files: TLSFiles, kind: str, verification: PeerVerification, old: bool
) -> None:
    own = {"good": tls_files.server, "foreign": tls_files.foreign, "expired": tls_files.expired}[kind]
    met = meeting(
        tls_files, options(tls_files, own), client_of(tls_files, verification=verification), old=old
    )
    if kind == "good" or verification is PeerVerification.IGNORE:
        assert met.is_well
        return
    words = {"foreign": "the authority that issued it is not trusted here", "expired": "it has expired"}
    assert met.requestor_failure == f"its certificate is refused: {words[kind]}"
    assert "our certificate" in met.acceptor_failure, "the alert says it"


def test_a_certificate_signed_by_itself_is_trusted_when_it_is_named(tls_files: TLSFiles) -> None:
    own = tls_files.keys.signed_by_itself("alone")
    server = options(tls_files, ca_files=(own.certificate,))
    assert meeting(tls_files, server, client_of(tls_files, identity=own)).is_well
    met = meeting(tls_files, options(tls_files), client_of(tls_files, identity=own))
    assert (
        met.acceptor_failure == "its certificate is refused: it is signed by itself, and is not trusted here"
    )


@pytest.mark.slow
def test_a_chain_over_a_subordinate_authority_is_followed(tls_files: TLSFiles, tmp_path: Path) -> None:
    below = tls_files.authority.subordinate(tmp_path / "below")
    alone = below.issue("chained", key="rsa")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(Path(alone.certificate).read_bytes() + Path(below.certificate).read_bytes())
    whole = replace(alone, certificate=str(chain))
    assert meeting(tls_files, options(tls_files), client_of(tls_files, identity=whole)).is_well
    met = meeting(tls_files, options(tls_files), client_of(tls_files, identity=alone))
    assert met.acceptor_failure.endswith("the authority that issued it is not trusted here")


def test_names_are_compared_where_that_is_asked_for(tls_files: TLSFiles) -> None:
    client = client_of(tls_files, checks_name=True)
    for name in ("localhost", "127.0.0.1"):
        assert meeting(tls_files, options(tls_files), client, name=name).is_well
    for name, words in (("archive.example", "the name"), ("127.0.0.2", "the address")):
        met = meeting(tls_files, options(tls_files), client, name=name)
        assert (
            met.requestor_failure
            == f"its certificate is refused: it does not hold for {words} that was called"
        )
    assert meeting(tls_files, options(tls_files), client_of(tls_files), name="archive.example").is_well


def test_a_name_that_no_certificate_could_hold_is_named(tls_files: TLSFiles) -> None:
    for name in (".example", "a" * 300 + ".example"):
        with pytest.raises(TLSFailure, match="is no name that a certificate could hold"):
            meeting(tls_files, options(tls_files), client_of(tls_files), name=name)


# Revocation


@pytest.mark.parametrize("check", [RevocationCheck.NONE, RevocationCheck.LEAF, RevocationCheck.CHAIN])
def test_revoked_certificates_are_refused(tls_files: TLSFiles, check: RevocationCheck) -> None:
    """A list alone means that leaves are looked for in it."""
    authority = tls_files.authority
    revoked = authority.issue("revoked", key="rsa")
    authority.revoke(revoked)
    server = options(tls_files, crl_files=(authority.revocation_list(),), revocation_check=check)
    met = meeting(tls_files, server, client_of(tls_files, identity=revoked))
    assert met.acceptor_failure == "its certificate is refused: it was revoked"
    assert met.requestor_failure == "it refuses our certificate as revoked"
    assert meeting(tls_files, server, client_of(tls_files)).is_well


def test_lists_that_are_missing_or_old_refuse_everybody(tls_files: TLSFiles) -> None:
    server = options(tls_files, revocation_check=RevocationCheck.LEAF)
    met = meeting(tls_files, server, client_of(tls_files))
    assert met.acceptor_failure.endswith("there is no revocation list of the authority that issued it")
    old = tls_files.authority.revocation_list(end="20200102000000Z")
    met = meeting(tls_files, replace(server, crl_files=(old,)), client_of(tls_files))
    assert met.acceptor_failure.endswith("the revocation list of its authority is out of date")


@pytest.mark.slow
def test_a_whole_chain_needs_a_list_of_each_authority(tls_files: TLSFiles, tmp_path: Path) -> None:
    below = tls_files.authority.subordinate(tmp_path / "below")
    own = below.issue("chained", key="rsa")
    server = options(
        tls_files,
        ca_files=(tls_files.authority.certificate, below.certificate),
        crl_files=(below.revocation_list(),),
        revocation_check=RevocationCheck.LEAF,
    )
    client = client_of(tls_files, identity=own)
    assert meeting(tls_files, server, client).is_well
    server = replace(server, revocation_check=RevocationCheck.CHAIN)
    met = meeting(tls_files, server, client)
    assert met.acceptor_failure.endswith("there is no revocation list of the authority that issued it")
    server = replace(server, crl_files=(*server.crl_files, tls_files.authority.revocation_list()))
    assert meeting(tls_files, server, client).is_well


# Keys and signatures


@pytest.mark.parametrize(
    "profile", [SecurityProfile.RFC_8996, SecurityProfile.RFC_8996_MODIFIED, SecurityProfile.BCP_195]
)
@pytest.mark.parametrize(("key", "digest"), [("rsa1024", "sha256"), ("rsa", "sha1"), ("rsa", "md5")])
def test_weak_certificates_of_clients(
    tls_files: TLSFiles, profile: SecurityProfile, key: str, digest: str
) -> None:
    weak = tls_files.authority.issue("weak", key=key, digest=digest)
    client = requestor_context(anonymous(tls_files, profile=SecurityProfile.BCP_195))
    client.ssl_context.load_cert_chain(weak.certificate, weak.key)  # past our own checks
    met = meet(acceptor_context(options(tls_files, profile=profile)), client)
    is_refused = digest == "md5" or profile is SecurityProfile.RFC_8996_MODIFIED
    assert bool(met.acceptor_failure) is is_refused
    if is_refused:
        assert met.acceptor_failure.startswith("a certificate in its chain is refused: it")
    else:
        assert met.acceptor.warnings


@pytest.mark.slow
def test_authorities_in_the_chain_are_looked_at_where_python_shows_them(
    tls_files: TLSFiles, tmp_path: Path
) -> None:
    below = tls_files.authority.subordinate(tmp_path / "below", digest="sha1")
    own = below.issue("chained", key="rsa")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(Path(own.certificate).read_bytes() + Path(below.certificate).read_bytes())
    client = client_of(tls_files, identity=replace(own, certificate=str(chain)))
    for profile in (SecurityProfile.RFC_8996, SecurityProfile.RFC_8996_MODIFIED):
        met = meeting(tls_files, options(tls_files, profile=profile), client)
        is_shown = hasattr(ssl.SSLObject, "get_verified_chain")  # Python 3.13
        is_refused = is_shown and profile is SecurityProfile.RFC_8996_MODIFIED
        assert bool(met.acceptor_failure) is is_refused
        assert any("SHA-1" in warning for warning in met.acceptor.warnings) is (is_shown and not is_refused)


@pytest.mark.parametrize(
    ("key", "digest", "profile", "words"),
    [
        ("rsa1024", "sha256", SecurityProfile.RFC_8996, "1024 bits, and the security profile asks for 2048"),
        (
            "dsa",
            "sha256",
            SecurityProfile.RFC_8996,
            "a DSA key, which the security profile rfc8996 does not take",
        ),
        (
            "ec224",
            "sha256",
            SecurityProfile.RFC_8996_MODIFIED,
            "224 bits, and the security profile asks for 256",
        ),
        ("rsa", "sha1", SecurityProfile.RFC_8996_MODIFIED, "SHA-256 or better"),
        ("rsa", "md5", SecurityProfile.AES, "signed with MD5"),
    ],
)
def test_a_certificate_of_our_own_that_the_profile_refuses(
    tls_files: TLSFiles, key: str, digest: str, profile: SecurityProfile, words: str
) -> None:
    weak = tls_files.authority.issue("weak", key=key, digest=digest)
    with pytest.raises(TLSSetupError, match=words) as caught:
        acceptor_context(options(tls_files, weak, profile=profile))
    assert caught.value.fault is TLSFault.CERTIFICATE
    assert str(caught.value).startswith(f"the certificate {weak.certificate} cannot be used: it")


def test_a_short_key_of_a_client_is_its_own_affair_but_for_the_modified_profile(tls_files: TLSFiles) -> None:
    weak = tls_files.authority.issue("weak", key="rsa1024")
    context = requestor_context(client_of(tls_files, identity=weak))
    assert any("1024 bits, fewer than 2048" in warning for warning in context.warnings)
    with pytest.raises(TLSSetupError):
        requestor_context(client_of(tls_files, identity=weak, profile=SecurityProfile.RFC_8996_MODIFIED))


def test_what_is_weak_but_allowed_is_warned_of(tls_files: TLSFiles) -> None:
    weak = tls_files.authority.issue("weak", key="rsa1024", digest="sha1")
    profile = SecurityProfile.AES
    met = meeting(tls_files, options(tls_files, weak, profile=profile), client_of(tls_files, profile=profile))
    assert met.is_well, "OpenSSL's own level of security does not stand in the way"
    assert len(acceptor_context(options(tls_files, weak, profile=profile)).warnings) == 2
    assert met.requestor.warnings[:2] == [
        "its RSA key has 1024 bits, fewer than 2048",
        "it is signed with SHA-1, which is weaker than SHA-256",
    ]


def test_a_dsa_key_goes_with_tls_1_2_and_a_suite_for_it(tls_files: TLSFiles) -> None:
    dsa = tls_files.authority.issue("dsa", key="dsa")
    profile, suites = SecurityProfile.BCP_195, ("TLS_DHE_DSS_WITH_AES_128_GCM_SHA256",)
    # With a name to expect, OpenSSL would begin TLS 1.3 and then find no key for it.
    server = options(tls_files, dsa, profile=profile, cipher_suites=suites, expected_server_name="localhost")
    met = meeting(tls_files, server, client_of(tls_files, profile=profile, cipher_suites=suites))
    assert met.is_well
    assert met.acceptor.agreed == f"TLSv1.2 {suites[0]}"


@pytest.mark.slow
def test_a_key_that_no_suite_works_with_is_warned_of(tls_files: TLSFiles) -> None:
    ec = tls_files.authority.issue("ec", key="ec")
    (warning,) = acceptor_context(options(tls_files, ec, profile=SecurityProfile.AES)).warnings
    assert warning.endswith("so no handshake can succeed")
    (warning,) = acceptor_context(options(tls_files, ec, profile=SecurityProfile.BCP_195)).warnings
    assert warning.endswith("so only TLS 1.3 can be agreed on")
    for kind, profile in itertools.product(("rsa", "ed25519"), (SecurityProfile.RFC_8996,)):
        assert not acceptor_context(
            options(tls_files, tls_files.authority.issue(key=kind), profile=profile)
        ).warnings


def test_the_time_of_our_own_certificate_is_looked_at(tls_files: TLSFiles) -> None:
    (warning,) = acceptor_context(options(tls_files, tls_files.expired)).warnings
    assert "it expired on 2020-02-01" in warning
    early = tls_files.authority.issue("early", start="20980101000000Z", end="20990101000000Z")
    (warning,) = acceptor_context(options(tls_files, early)).warnings
    assert "it holds from 2098-01-01 on" in warning


# Sessions


def test_a_session_is_resumed_with_its_peer_in_tls_1_2_alone(tls_files: TLSFiles) -> None:
    acceptor = acceptor_context(options(tls_files))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = peer_context(tls_files.authority.certificate, tls_files.client, version=version)
        session, resumed = None, []
        for _ in range(2):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            peer = client.wrap_bio(incoming, outgoing, server_hostname="localhost", session=session)
            channel = TLSChannel(acceptor)
            for _ in range(4):
                with contextlib.suppress(ssl.SSLWantReadError):
                    peer.do_handshake()
                channel.receive(outgoing.read())
                incoming.write(channel.data_to_send())
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.read(1)
            session = peer.session
            resumed.append(peer.session_reused)
            assert channel.peer_name == "CN=client, O=Clinic"
        assert resumed == [False, version is ssl.TLSVersion.TLSv1_2]


# Diffie-Hellman


def test_dh_parameters_of_ones_own(tls_files: TLSFiles, tmp_path: Path) -> None:
    short = str(tmp_path / "short.pem")
    openssl("genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:modp_1536", "-out", short)
    for profile, count in ((SecurityProfile.BCP_195, 1), (SecurityProfile.BCP_195_EXTENDED, 2)):
        made = acceptor_context(options(tls_files, profile=profile, dh_parameter_file=short))
        assert len(made.warnings) == count
        assert "1536 bits, fewer than 2048" in made.warnings[0]
        client = requestor_context(client_of(tls_files, profile=profile))
        limited(client, ssl.TLSVersion.TLSv1_2)
        client.ssl_context.set_ciphers("DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=2")  # takes 2048 bits and more
        met = meet(made, client)
        if profile is SecurityProfile.BCP_195:
            assert met.requestor_failure == "its Diffie-Hellman group is too small"
        else:
            assert met.is_well, "the built-in group took its place"


# Server name and application protocol


@pytest.mark.parametrize("old", FORCED_TO_1_2)
def test_another_server_name_than_the_expected_one_is_refused(tls_files: TLSFiles, old: bool) -> None:
    server = options(tls_files, expected_server_name="archive.example")
    client = client_of(tls_files)
    assert meeting(tls_files, server, client, old=old, name="archive.example").is_well
    assert meeting(tls_files, server, client, old=old, name="").is_well, "who asks for none is let in"
    assert meeting(tls_files, server, client, old=old, name="127.0.0.1").is_well, (
        "an address is no server name"
    )
    met = meeting(tls_files, server, client, old=old, name="Archive.example")
    assert (
        met.acceptor_failure
        == "it asked for the server name 'Archive.example', and this is 'archive.example'"
    )
    assert met.requestor_failure == "it does not go by the server name that it was called by"
    assert meeting(tls_files, options(tls_files), client, old=old, name="anything.example").is_well


@pytest.mark.parametrize("old", FORCED_TO_1_2)
@pytest.mark.parametrize("offered", [None, ["dicom"], ["http/1.1", "dicom"], ["http/1.1", "h2"]])
def test_who_asks_for_other_protocols_than_dicom_is_refused(
    tls_files: TLSFiles, offered: list[str] | None, old: bool
) -> None:
    client = requestor_context(client_of(tls_files))
    if old:
        limited(client, ssl.TLSVersion.TLSv1_2)
    if offered is None:
        other = requestor_context(client_of(tls_files))
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.load_cert_chain(tls_files.client.certificate, tls_files.client.key)
        bare.load_verify_locations(tls_files.authority.certificate)
        bare.sslobject_class = tls_context.WatchedSSLObject
        client = replace(other, ssl_context=bare)
    else:
        client.ssl_context.set_alpn_protocols(offered)
    met = meet(acceptor_context(options(tls_files)), client)
    if offered is None or "dicom" in offered:
        assert met.is_well
        assert met.acceptor.ssl_object.selected_alpn_protocol() == ("dicom" if offered else None)
        return
    assert met.acceptor_failure == "it asked for other application protocols than dicom: 'http/1.1', 'h2'"
    assert met.requestor_failure == "it does not take DICOM over TLS (application protocol dicom)"


def test_what_peers_call_themselves_and_ask_for_is_cut(tls_files: TLSFiles) -> None:
    verbose = tls_files.keys.signed_by_itself(f"x/O={'o' * 64}/OU={'u' * 64}/L={'l' * 64}/ST={'s' * 64}")
    server = options(tls_files, ca_files=(verbose.certificate,))
    met = meeting(tls_files, server, client_of(tls_files, identity=verbose))
    assert met.is_well
    assert met.acceptor.peer_name.startswith(f"CN=x, O={'o' * 64}, OU=u")
    assert len(met.acceptor.peer_name) == TLS_NAME_LETTERS_MAX
    client = requestor_context(client_of(tls_files))
    client.ssl_context.set_alpn_protocols([letter * 100 for letter in "abcdef"])
    words = meet(acceptor_context(options(tls_files)), client).acceptor_failure
    assert len(words) == len("it asked for other application protocols than dicom: ") + TLS_NAME_LETTERS_MAX


# Files


def test_files_that_cannot_be_used_are_errors_or_warnings(tls_files: TLSFiles, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    for name in ("ca_files", "ca_directories", "crl_files", "dh_parameter_file"):
        value: Any = none if name == "dh_parameter_file" else (none,)
        unusable = options(tls_files, **{name: value})
        with pytest.raises(TLSSetupError, match="cannot be read"):
            acceptor_context(unusable)
        context = acceptor_context(replace(unusable, tolerates_unusable_files=True))
        assert f"{none} cannot be read: No such file or directory; it is left out" in context.warnings[0]
        if name == "ca_files":
            assert context.warnings[1] == "no authority is trusted, so every certificate of a peer is refused"
        assert not context.ssl_context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF, "no list was read"
    for own in ({"certificate_file": none}, {"key_file": none}):
        with pytest.raises(TLSSetupError, match="cannot be read"):
            acceptor_context(options(tls_files, tolerates_unusable_files=True, **own))


def test_an_acceptor_needs_a_certificate(tls_files: TLSFiles) -> None:
    with pytest.raises(TLSSetupError, match="TLS needs a certificate, and none is named"):
        acceptor_context(anonymous(tls_files))
    with pytest.raises(TLSSetupError, match="none is named"):
        requestor_context(options(tls_files, certificate_file=""))


def test_the_authorities_of_the_machine_can_be_trusted(
    tls_files: TLSFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = replace(anonymous(tls_files), ca_files=(), trusts_system=True)
    met = meeting(tls_files, options(tls_files, verification=PeerVerification.IGNORE), trusting)
    assert (
        met.requestor_failure
        == "its certificate is refused: the authority that issued it is not trusted here"
    )
    monkeypatch.setenv("SSL_CERT_FILE", tls_files.authority.certificate)
    met = meeting(tls_files, options(tls_files, verification=PeerVerification.IGNORE), trusting)
    assert met.is_well


def test_a_password_is_in_no_representation() -> None:
    assert "secret" not in repr(TLSOptions(password="secret"))
