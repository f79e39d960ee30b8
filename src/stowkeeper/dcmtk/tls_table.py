"""The TLS part of the option tables, which both programs share: `+tls` and what goes with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stowkeeper.dcmtk.grammar import Block, Group, NotWith, OnlyWith, Option, Section, Value
from stowkeeper.net.tls_profiles import SecurityProfile

ALL_PROFILES: Final = frozenset(SecurityProfile)

_NEEDS_TLS = OnlyWith(others=("--enable-tls",))
_NEEDS_SEED = OnlyWith(others=("--seed",))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOption:
    """The option that stands for a security profile."""

    long: str
    short: str
    meaning: str


PROFILE_OPTIONS: Final = {
    SecurityProfile.RFC_8996: ProfileOption(
        long="--profile-8996", short="+pg", meaning="TLS 1.2 and 1.3 by BCP 195 of RFC 8996"
    ),
    SecurityProfile.RFC_8996_MODIFIED: ProfileOption(
        long="--profile-8996-mod",
        short="+pm",
        meaning="the same with more suites, larger keys and newer signatures",
    ),
    SecurityProfile.BCP_195_NON_DOWNGRADING: ProfileOption(
        long="--profile-bcp195-nd", short="+py", meaning="TLS 1.2 and 1.3 by the older BCP 195 (retired)"
    ),
    SecurityProfile.BCP_195: ProfileOption(
        long="--profile-bcp195", short="+px", meaning="BCP 195 that also takes TLS 1.0 and 1.1 (retired)"
    ),
    SecurityProfile.BCP_195_EXTENDED: ProfileOption(
        long="--profile-bcp195-ex", short="+pz", meaning="BCP 195 with TLS 1.2 and fixed suites (retired)"
    ),
    SecurityProfile.BASIC: ProfileOption(
        long="--profile-basic", short="+pb", meaning="the basic profile, triple DES (retired)"
    ),
    SecurityProfile.AES: ProfileOption(
        long="--profile-aes", short="+pa", meaning="the AES profile, AES-128 with CBC (retired)"
    ),
    SecurityProfile.UNENCRYPTED: ProfileOption(
        long="--profile-null",
        short="+pn",
        meaning="authentication without encryption, once used by IHE ATNA (retired)",
    ),
}


_CHECKING_ORDER: Final = (
    SecurityProfile.RFC_8996,
    SecurityProfile.RFC_8996_MODIFIED,
    SecurityProfile.BCP_195,
    SecurityProfile.BCP_195_NON_DOWNGRADING,
    SecurityProfile.BCP_195_EXTENDED,
    SecurityProfile.BASIC,
    SecurityProfile.AES,
    SecurityProfile.UNENCRYPTED,
)
"""Decides which of several profiles an error names."""


def _profile_options(available: frozenset[SecurityProfile]) -> Iterable[Option]:
    for profile, names in PROFILE_OPTIONS.items():
        if profile in available:
            yield Option(
                long=names.long,
                short=names.short,
                meaning=names.meaning,
                rules=(_NEEDS_TLS,),
                is_default=profile is SecurityProfile.RFC_8996,
            )


_TRANSPORT = Group(
    title="transport",
    options=(
        Option(long="--disable-tls", short="-tls", is_default=True, meaning="plain TCP"),
        Option(
            long="--enable-tls",
            short="+tls",
            values=(Value(label="[p]rivate key file"), Value(label="[c]ertificate file")),
            meaning="TLS with private key p and certificate c, which may hold its chain",
        ),
    ),
)
_PASSWORD = Group(
    title="password of the private key",
    options=(
        Option(
            long="--std-passwd",
            short="+ps",
            is_default=True,
            rules=(_NEEDS_TLS,),
            meaning="ask for it on the terminal",
        ),
        Option(
            long="--use-passwd",
            short="+pw",
            values=(Value(label="[p]assword", is_secret=True),),
            rules=(_NEEDS_TLS,),
            meaning="use p, which everyone on this machine can see",
        ),
        Option(long="--null-passwd", short="-pw", rules=(_NEEDS_TLS,), meaning="use the empty one"),
    ),
)
_FORMAT = Group(
    title="format of key and certificate files",
    options=(
        Option(long="--pem-keys", short="-pem", is_default=True, rules=(_NEEDS_TLS,), meaning="PEM"),
        Option(long="--der-keys", short="-der", rules=(_NEEDS_TLS,), meaning="DER"),
    ),
)
_AUTHORITIES = Group(
    title="certification authorities",
    options=(
        Option(
            long="--add-cert-file",
            short="+cf",
            values=(Value(label="[f]ilename"),),
            rules=(_NEEDS_TLS,),
            repeats=True,
            meaning="trust the certificates in file f",
        ),
        Option(
            long="--add-cert-dir",
            short="+cd",
            values=(Value(label="[d]irectory"),),
            rules=(_NEEDS_TLS,),
            repeats=True,
            meaning="trust the certificates in directory d, named by their hashes as OpenSSL wants it",
        ),
        Option(
            long="--add-crl-file",
            short="+crl",
            values=(Value(label="[f]ilename"),),
            rules=(_NEEDS_TLS,),
            repeats=True,
            meaning="read revocation list f; implies --enable-crl-vfy",
        ),
        Option(
            long="--enable-crl-vfy",
            short="+crv",
            rules=(_NEEDS_TLS,),
            meaning="look up the peer's certificate in the revocation lists",
        ),
        Option(
            long="--enable-crl-all",
            short="+cra",
            rules=(_NEEDS_TLS,),
            meaning="look up every certificate of the peer's chain in them",
        ),
    ),
)
_SUITES = Group(
    title="cipher suites",
    options=(
        Option(
            long="--list-ciphers", short="+cc", is_exclusive=True, meaning="list the suites there are and end"
        ),
        Option(
            long="--cipher",
            short="+cs",
            values=(Value(label="[c]iphersuite name"),),
            rules=(_NEEDS_TLS, NotWith(others=("--profile-bcp195-ex",))),
            repeats=True,
            meaning="also offer suite c, by its IANA name",
        ),
        Option(
            long="--dhparam",
            short="+dp",
            values=(Value(label="[f]ilename"),),
            rules=(_NEEDS_TLS,),
            meaning="take the parameters of Diffie-Hellman suites from file f",
        ),
    ),
)
_SERVER_NAME = Group(
    title="server name indication",
    options=(
        Option(
            long="--no-sni",
            is_default=True,
            rules=(NotWith(others=("--expect-sni",)),),
            meaning="take every server name",
        ),
        Option(
            long="--expect-sni",
            values=(Value(label="[s]erver name"),),
            meaning="refuse a client that asks for another server name than s",
        ),
    ),
)
_RANDOM = Group(
    title="random numbers",
    options=(
        Option(
            long="--seed",
            short="+rs",
            values=(Value(label="[f]ilename"),),
            rules=(_NEEDS_TLS,),
            meaning="add the content of file f to the random numbers",
        ),
        Option(
            long="--write-seed",
            short="+ws",
            rules=(_NEEDS_TLS, _NEEDS_SEED),
            meaning="write a new seed back to that file",
        ),
        Option(
            long="--write-seed-file",
            short="+wf",
            values=(Value(label="[f]ilename"),),
            rules=(_NEEDS_TLS, _NEEDS_SEED),
            meaning="write a new seed to file f",
        ),
    ),
)
_PEER = Group(
    title="certificate of the peer",
    options=(
        Option(
            long="--require-peer-cert",
            short="-rc",
            is_default=True,
            rules=(_NEEDS_TLS,),
            meaning="must be there and must verify",
        ),
        Option(
            long="--verify-peer-cert", short="-vc", rules=(_NEEDS_TLS,), meaning="must verify if it is there"
        ),
        Option(long="--ignore-peer-cert", short="-ic", rules=(_NEEDS_TLS,), meaning="is not asked for"),
    ),
)


def tls_section(available: frozenset[SecurityProfile]) -> Section:
    """Return the section about TLS with the options of those profiles that the TLS library can do."""
    profiles = Group(title="security profile", options=tuple(_profile_options(available)))
    return Section(
        title="transport layer security (TLS) options",
        groups=(
            _TRANSPORT,
            _PASSWORD,
            _FORMAT,
            _AUTHORITIES,
            profiles,
            _SUITES,
            _SERVER_NAME,
            _RANDOM,
            _PEER,
        ),
    )


def unavailable_options(available: frozenset[SecurityProfile]) -> dict[str, str]:
    """Return the names of the options of all other profiles, each with the reason why there is no such option."""
    reason = "the TLS library of this machine cannot do this profile"
    return {
        name: reason
        for profile, names in PROFILE_OPTIONS.items()
        if profile not in available
        for name in (names.long, names.short)
    }


def tls_stage(available: frozenset[SecurityProfile]) -> tuple[Block, ...]:
    """Return the TLS options in the order in which they are checked."""
    return (
        ("--disable-tls", "--enable-tls"),
        ("--std-passwd", "--use-passwd", "--null-passwd"),
        ("--pem-keys", "--der-keys"),
        ("--dhparam",),
        ("--seed",),
        ("--write-seed",),
        ("--write-seed-file",),
        ("--require-peer-cert", "--ignore-peer-cert", "--verify-peer-cert"),
        tuple(PROFILE_OPTIONS[profile].long for profile in _CHECKING_ORDER if profile in available),
        ("--add-cert-file",),
        ("--add-cert-dir",),
        ("--add-crl-file",),
        ("--enable-crl-vfy",),
        ("--enable-crl-all",),
        ("--cipher",),
        ("--no-sni",),
        ("--expect-sni",),
    )
