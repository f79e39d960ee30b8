"""The table of cipher suites: true to IANA's registry, in the order of strength, and as far as OpenSSL has them."""

import itertools
import re
import ssl

import pytest

from stowkeeper.net.tls_ciphers import (
    SUITES,
    SUITES_OF_TLS_1_3,
    cipher_string,
    has_sha1_mac,
    iana_name,
    is_unencrypted,
    list_ciphers,
    reservations,
    signs_with,
    similar_name,
)
from support.tls_files import openssl


@pytest.mark.peer("openssl")
def test_names_and_codes_are_those_of_the_registry() -> None:
    """As far as OpenSSL's command, which prints both, knows the suites."""
    printed = openssl("ciphers", "-V", "-stdname", "ALL:eNULL:@SECLEVEL=0").decode()
    rows = re.findall(r"^\s*0x(\w\w),0x(\w\w) - (\S+) ", printed, re.MULTILINE)
    registered = {name: int(high + low, 16) for high, low, name in rows}
    shared = {name: code for name, code in SUITES.items() if name in registered}
    assert shared == {name: registered[name] for name in shared}
    assert len(shared) >= 40
    assert set(list_ciphers()) <= set(registered), "the interpreter's OpenSSL and the command's are alike"


def test_no_code_stands_twice() -> None:
    assert len(set(SUITES.values())) == len(SUITES) == 61


def test_the_order_is_that_of_strength() -> None:
    def strength(name: str) -> tuple[bool, int, bool]:
        is_long = re.search("256_|CHACHA", name)
        bits = 0 if "_NULL_" in name else 112 if "_3DES_" in name else 256 if is_long else 128
        return "DHE_" in name, bits, "_ECDHE_" in name

    for weaker, stronger in itertools.pairwise(name for name in SUITES if "_ECDH_" not in name):
        assert strength(weaker) <= strength(stronger), (weaker, stronger)


def test_what_is_listed_can_be_used_and_what_is_not_cannot() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name in list_ciphers():
        context.set_ciphers(cipher_string([name]))
        (cipher,) = [cipher for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
        assert cipher["id"] & 0xFFFF == SUITES[name]
        assert iana_name(cipher["name"]) == name
        assert context.security_level == 0
    assert "TLS_ECDH_RSA_WITH_AES_128_CBC_SHA" not in list_ciphers()
    assert list(list_ciphers()) == [name for name in SUITES if name in list_ciphers()]


def test_the_strongest_comes_first_whatever_the_order_and_each_once() -> None:
    weak, strong = "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
    both = "ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA:@SECLEVEL=0"
    assert cipher_string([weak, strong]) == cipher_string([strong, weak, strong]) == both


def test_a_suite_of_tls_1_3_keeps_its_name() -> None:
    for name in SUITES_OF_TLS_1_3:
        assert iana_name(name) == name


def test_what_a_name_says_of_a_suite() -> None:
    assert [name for name in SUITES if is_unencrypted(name)] == ["TLS_RSA_WITH_NULL_SHA"]
    assert has_sha1_mac("TLS_RSA_WITH_AES_128_CBC_SHA")
    assert not has_sha1_mac("TLS_RSA_WITH_AES_128_CBC_SHA256")
    assert {signs_with(name) for name in SUITES} == {"RSA", "ECDSA", "DSS"}
    assert "forward secrecy" in reservations("TLS_RSA_WITH_AES_128_GCM_SHA256")
    assert "forward secrecy" in reservations("TLS_ECDH_RSA_WITH_AES_128_GCM_SHA256")
    assert "finite field" in reservations("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256")
    assert "CBC" in reservations("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256")
    assert reservations("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256") == ""


def test_a_misspelled_name_is_guessed() -> None:
    assert similar_name("tls_ecdhe_rsa_with_aes_128_gcm_sha265") == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    assert similar_name("ROT13") == ""
