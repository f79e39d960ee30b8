"""The security profiles: what each is made of, what may be added, and what is said where OpenSSL lacks it."""

import ssl

import pytest

from stowkeeper.net import tls_profiles
from stowkeeper.net.tls_ciphers import SUITES, list_ciphers
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.net.tls_profiles import (
    PROFILES,
    SecurityProfile,
    available_profiles,
    obstacle_of,
    suite_warnings,
    suites_of,
)

TRIPLE_DES = "TLS_RSA_WITH_3DES_EDE_CBC_SHA"
CBC_SHA = "TLS_RSA_WITH_AES_128_CBC_SHA"
CBC_SHA256 = "TLS_RSA_WITH_AES_128_CBC_SHA256"
NULL = "TLS_RSA_WITH_NULL_SHA"
GCM = "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"


def with_openssl_of(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have OpenSSL know just these suites."""
    monkeypatch.setattr(tls_profiles, "list_ciphers", lambda: names)


def refusal(profile: SecurityProfile, *names: str) -> TLSSetupError:
    with pytest.raises(TLSSetupError) as caught:
        suites_of(profile, names)
    return caught.value


def test_every_profile_has_rules_of_known_suites() -> None:
    assert set(PROFILES) == set(SecurityProfile)
    for rules in PROFILES.values():
        assert {*rules.suites, *rules.optional_suites} <= set(SUITES)
        assert rules.lowest <= rules.highest


def test_available_are_those_whose_suites_openssl_has() -> None:
    for profile in SecurityProfile:
        has_all = set(PROFILES[profile].suites) <= set(list_ciphers())
        assert (profile in available_profiles()) is has_all
        assert (obstacle_of(profile) == "") is has_all
    assert SecurityProfile.RFC_8996 in available_profiles()


def test_a_profile_that_cannot_be_had_is_an_error_that_lists_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_openssl_of(monkeypatch, CBC_SHA, *PROFILES[SecurityProfile.RFC_8996].suites)
    assert available_profiles() == (SecurityProfile.RFC_8996, SecurityProfile.AES)
    error = refusal(SecurityProfile.BASIC)
    assert (error.fault, error.subject) == (TLSFault.PROFILE, "basic")
    assert f"basic cannot be had with {ssl.OPENSSL_VERSION}: it has no {TRIPLE_DES}." in str(error)
    assert str(error).endswith("Choose one of: rfc8996, aes.")


def test_optional_suites_are_used_where_openssl_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with_openssl_of(monkeypatch, CBC_SHA)
    assert suites_of(SecurityProfile.AES, ()) == (CBC_SHA,)
    with_openssl_of(monkeypatch, CBC_SHA, TRIPLE_DES)
    assert suites_of(SecurityProfile.AES, ()) == (CBC_SHA, TRIPLE_DES)


@pytest.mark.parametrize(
    ("profile", "allowed", "refused"),
    [
        (SecurityProfile.RFC_8996, {CBC_SHA256, GCM}, {CBC_SHA, NULL}),
        (SecurityProfile.RFC_8996_MODIFIED, set(), {CBC_SHA, CBC_SHA256, GCM, NULL}),
        (SecurityProfile.BCP_195_NON_DOWNGRADING, {CBC_SHA, CBC_SHA256}, {NULL}),
        (SecurityProfile.BCP_195, {CBC_SHA256}, {NULL}),
        (SecurityProfile.BCP_195_EXTENDED, set(), {CBC_SHA, CBC_SHA256, NULL}),
        (SecurityProfile.AES, {CBC_SHA256, GCM}, {NULL}),
        (SecurityProfile.UNENCRYPTED, {CBC_SHA, GCM}, set()),
    ],
)
def test_what_may_be_added(profile: SecurityProfile, allowed: set[str], refused: set[str]) -> None:
    assert set(suites_of(profile, allowed)) == {*suites_of(profile, ()), *allowed}
    for name in refused:
        error = refusal(profile, name)
        assert (error.fault, error.subject) == (TLSFault.CIPHER_SUITE, name)
        assert f"the security profile {profile}" in str(error)


def test_a_suite_that_cannot_be_added_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = SecurityProfile.RFC_8996
    assert "did you mean TLS_RSA_WITH_AES_128_CBC_SHA256?" in str(
        refusal(profile, "TLS_RSA_WITH_AES128_CBC_SHA256")
    )
    assert str(refusal(profile, "ROT13")) == "the cipher suite ROT13 is not known."
    assert "leave it out" in str(refusal(profile, "TLS_AES_128_GCM_SHA256"))
    assert "a SHA-1 MAC" in str(refusal(profile, CBC_SHA))
    assert "does not encrypt" in str(refusal(profile, NULL))
    assert "takes none beside its own" in str(refusal(SecurityProfile.BCP_195_EXTENDED, CBC_SHA256))
    with_openssl_of(monkeypatch, *PROFILES[profile].suites)
    assert f"{CBC_SHA256} cannot be had with OpenSSL" in str(refusal(profile, CBC_SHA256))


def test_additions_that_rfc_9325_advises_against_are_warned_of_once() -> None:
    (warning,) = suite_warnings([CBC_SHA256, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CBC_SHA256])
    assert warning.startswith(f"the cipher suite {CBC_SHA256} transports its key by RSA")
