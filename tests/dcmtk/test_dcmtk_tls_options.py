"""The TLS options of both programs."""

from dataclasses import replace

import pytest

from stowkeeper.dcmtk.dcmrecv_options import dcmrecv_table
from stowkeeper.dcmtk.evaluation import Selection
from stowkeeper.dcmtk.grammar import CommandLineError, parse
from stowkeeper.dcmtk.storescp_table import storescp_table
from stowkeeper.dcmtk.tls_options import TLSChoice, tls_choice
from stowkeeper.dcmtk.tls_table import ALL_PROFILES
from stowkeeper.net.tls_context import PeerVerification, RevocationCheck, TLSOptions
from stowkeeper.net.tls_material import FileFormat
from stowkeeper.net.tls_profiles import SecurityProfile

TABLE = storescp_table()
NEEDING_TLS = [
    "+ps",
    "+pw x",
    "-pw",
    "-pem",
    "-der",
    "+cf x",
    "+cd x",
    "+crl x",
    "+crv",
    "+cra",
    "+pg",
    "+pm",
    "+py",
    "+px",
    "+pz",
    "+pb",
    "+pa",
    "+pn",
    "+cs x",
    "+dp x",
    "+rs x",
    "+ws",
    "+wf x",
    "-rc",
    "-vc",
    "-ic",
]


def choice(line: str) -> TLSChoice | None:
    return tls_choice(Selection(TABLE, parse(TABLE, [*line.split(), "104"])))


def error(line: str) -> str:
    with pytest.raises(CommandLineError) as caught:
        choice(line)
    return str(caught.value)


def tls(line: str) -> TLSChoice:
    found = choice(f"+tls key cert {line}")
    assert found is not None
    return found


OPTIONS = TLSOptions(key_file="key", certificate_file="cert", tolerates_unusable_files=True)
DEFAULT = TLSChoice(options=OPTIONS)


def test_both_programs_have_the_same_options() -> None:
    sections = [
        section for table in (TABLE, dcmrecv_table()) for section in table.sections if "TLS" in section.title
    ]
    assert sections[0] == sections[1]
    assert TABLE.stages["tls"] == dcmrecv_table().stages["tls"]


def test_plain_tcp() -> None:
    assert choice("") is None
    assert choice("-tls") is None
    assert choice("+tls key cert -tls") is None
    assert choice("--expect-sni name") is None
    assert choice("--no-sni") is None


@pytest.mark.parametrize("line", NEEDING_TLS)
def test_what_needs_tls(line: str) -> None:
    option = TABLE.find(line.split(maxsplit=1)[0])
    assert option is not None
    assert error(line) == f"{option.long} only allowed with --enable-tls"
    assert error(f"+tls key cert -tls {line}") == f"{option.long} only allowed with --enable-tls"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("+ws", "--write-seed only allowed with --seed"),
        ("+wf x", "--write-seed-file only allowed with --seed"),
        ("+cs x +pz", "--cipher not allowed with --profile-bcp195-ex"),
        ("--no-sni --expect-sni x", "--no-sni not allowed with --expect-sni"),
        ("--expect-sni x --no-sni", "--no-sni not allowed with --expect-sni"),
    ],
)
def test_misfits(line: str, message: str) -> None:
    assert error(f"+tls key cert {line}") == message


def options(**fields: object) -> TLSChoice:
    return replace(DEFAULT, options=replace(OPTIONS, **fields))  # type: ignore[arg-type] # any field is meant


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", DEFAULT),
        ("+pw x +ps", DEFAULT),
        ("+pw secret", replace(options(password="secret"), asks_password=False)),
        ("+pw x -pw", replace(options(password=""), asks_password=False)),
        ("-der", options(file_format=FileFormat.DER)),
        ("-der -pem", DEFAULT),
        ("+cf a +cf b", options(ca_files=("a", "b"))),
        ("+cd a +cd b", options(ca_directories=("a", "b"))),
        (
            "+crl a +crl b",
            options(crl_files=("a", "b"), revocation_check=RevocationCheck.LEAF),
        ),
        ("+crv", options(revocation_check=RevocationCheck.LEAF)),
        ("+cra +crv", options(revocation_check=RevocationCheck.CHAIN)),
        ("+crl a +cra", options(crl_files=("a",), revocation_check=RevocationCheck.CHAIN)),
        ("+pg", DEFAULT),
        ("+pm", options(profile=SecurityProfile.RFC_8996_MODIFIED)),
        ("+py", options(profile=SecurityProfile.BCP_195_NON_DOWNGRADING)),
        ("+px", options(profile=SecurityProfile.BCP_195)),
        ("+px +pz", options(profile=SecurityProfile.BCP_195_EXTENDED)),
        ("+pb", options(profile=SecurityProfile.BASIC)),
        ("+pa", options(profile=SecurityProfile.AES)),
        ("+pn", options(profile=SecurityProfile.UNENCRYPTED)),
        ("+pn +pg", DEFAULT),
        ("+cs A +cs B", options(cipher_suites=("A", "B"))),
        ("+cs A +pz +px", options(cipher_suites=("A",), profile=SecurityProfile.BCP_195)),
        ("+dp f", options(dh_parameter_file="f")),
        ("--no-sni", DEFAULT),
        ("--expect-sni name", options(expected_server_name="name")),
        ("+rs f", replace(DEFAULT, seed_file="f")),
        ("+rs f +ws", replace(DEFAULT, seed_file="f", write_seed_file="f")),
        ("+rs f +wf g", replace(DEFAULT, seed_file="f", write_seed_file="g")),
        ("+rs f +wf g +ws", replace(DEFAULT, seed_file="f", write_seed_file="g")),
        ("-rc", DEFAULT),
        ("-vc", options(verification=PeerVerification.IF_PRESENT)),
        ("-vc -ic", options(verification=PeerVerification.IGNORE)),
    ],
)
def test_meaning(line: str, expected: TLSChoice) -> None:
    assert tls(line) == expected


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(tls("+pw secret"))
    assert "secret" not in parse(TABLE, ["+pw", "secret", "104"]).shown


@pytest.mark.parametrize(
    ("name", "profile"),
    [("+pm", SecurityProfile.RFC_8996_MODIFIED), ("--profile-basic", SecurityProfile.BASIC)],
)
def test_a_profile_that_the_tls_library_cannot_do(name: str, profile: SecurityProfile) -> None:
    for table in (storescp_table(ALL_PROFILES - {profile}), dcmrecv_table(ALL_PROFILES - {profile})):
        with pytest.raises(CommandLineError) as caught:
            parse(table, [name, "104"])
        assert str(caught.value) == (
            f"Unknown option {name}: the TLS library of this machine cannot do this profile"
        )
        assert (
            len(table.options())
            == len((TABLE if table.tool == "storescp" else dcmrecv_table()).options()) - 1
        )
        checked = [long for block in table.blocks() for long in block]
        assert all(table.find(long) for long in checked)
