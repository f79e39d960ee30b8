"""The command line of dcmrecv: every option it has, what each means, and which go together."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.dcmrecv_options import (
    DcmrecvExit,
    DcmrecvOptions,
    FileNames,
    StorageMode,
    Subdirectories,
    dcmrecv_table,
    evaluate_dcmrecv,
)
from stowkeeper.dcmtk.grammar import CommandLineError, parse
from stowkeeper.dcmtk.log_options import IN_NO_STAGE, LogLevel, LogOptions
from stowkeeper.dcmtk.network_options import ProfileChoice

TABLE = dcmrecv_table()

OPTIONS = """
-h --help; --version; --arguments; --explain; -q --quiet; -v --verbose; -d --debug; -ll --log-level; -lc --log-config;
+v --verbose-pc; -xf --config-file; -uca --use-called-aetitle; -aet --aetitle; -ta --acse-timeout;
-td --dimse-timeout; -pdu --max-pdu; -dhl --disable-host-lookup; -tls --disable-tls; +tls --enable-tls;
+ps --std-passwd; +pw --use-passwd; -pw --null-passwd; -pem --pem-keys; -der --der-keys; +cf --add-cert-file;
+cd --add-cert-dir; +crl --add-crl-file; +crv --enable-crl-vfy; +cra --enable-crl-all; +pg --profile-8996;
+pm --profile-8996-mod; +py --profile-bcp195-nd; +px --profile-bcp195; +pz --profile-bcp195-ex; +pb --profile-basic;
+pa --profile-aes; +pn --profile-null; +cc --list-ciphers; +cs --cipher; +dp --dhparam; --no-sni; --expect-sni;
+rs --seed; +ws --write-seed; +wf --write-seed-file; -rc --require-peer-cert; -vc --verify-peer-cert;
-ic --ignore-peer-cert; -od --output-directory; -s --no-subdir; +ssd --series-date-subdir; +fd --default-filenames;
+fu --unique-filenames; +fsu --short-unique-names; +fst --system-time-names; -fe --filename-extension; -B --normal;
+B --bit-preserving; --ignore
"""
"""Every option of DCMTK 3.6.8's dcmrecv in the order of its manual page, and --explain."""


def level_of(options: LogOptions) -> LogLevel:
    return options.level


def evaluate(*arguments: str) -> DcmrecvOptions:
    return evaluate_dcmrecv(TABLE, parse(TABLE, arguments), start_logging=level_of)


def error_of(line: str, port: str = "104") -> CommandLineError:
    with pytest.raises(CommandLineError) as caught:
        evaluate(*line.split(), *([port] if port else []))
    return caught.value


def error(line: str, port: str = "104") -> str:
    return str(error_of(line, port))


def test_every_option_of_the_manual_page_is_there_in_its_order() -> None:
    expected = [tuple(names.split()) for names in OPTIONS.split(";")]
    found = [tuple(filter(None, (option.short, option.long))) for option in TABLE.options()]
    assert found == expected


def test_every_option_is_checked_once() -> None:
    checked = [long for block in TABLE.blocks() for long in block]
    assert sorted(checked) == sorted({option.long for option in TABLE.options()} - IN_NO_STAGE)


DEFAULT = DcmrecvOptions(port=104, profile=ProfileChoice(file="f", name="p"))


def changed(part: str, **fields: Any) -> DcmrecvOptions:
    return replace(DEFAULT, **{part: replace(getattr(DEFAULT, part), **fields)})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", DEFAULT),
        ("--explain", replace(DEFAULT, explain=True)),
        ("-v +v", changed("log", level=LogLevel.INFO, presentation_contexts=True)),
        ("-ta 3", changed("network", acse_timeout=3)),
        ("-td 4", changed("network", dimse_timeout=4)),
        ("-pdu 131072", changed("network", max_pdu=131072)),
        ("-dhl", changed("network", host_lookup=False)),
        ("-aet A", replace(DEFAULT, ae_title="A")),
        ("-aet A -uca", DEFAULT),
        ("-uca -aet A", replace(DEFAULT, ae_title="A")),
        ("-od d", replace(DEFAULT, directory="d")),
        ("+ssd", replace(DEFAULT, subdirectories=Subdirectories.SERIES_DATE)),
        ("+ssd -s", DEFAULT),
        ("+fu", replace(DEFAULT, file_names=FileNames.NEW_UID)),
        ("+fu +fsu", replace(DEFAULT, file_names=FileNames.SHORT_UNIQUE)),
        ("+fsu +fst", replace(DEFAULT, file_names=FileNames.TIME)),
        ("+fst +fd", DEFAULT),
        ("-fe .dcm", replace(DEFAULT, extension=".dcm")),
        ("+B", replace(DEFAULT, storage_mode=StorageMode.BIT_PRESERVING)),
        ("+B --ignore", replace(DEFAULT, storage_mode=StorageMode.IGNORE)),
        ("--ignore -B", DEFAULT),
        (
            "--ignore +ssd",
            replace(DEFAULT, storage_mode=StorageMode.IGNORE, subdirectories=Subdirectories.SERIES_DATE),
        ),
    ],
)
def test_meaning(line: str, expected: DcmrecvOptions) -> None:
    assert evaluate("-xf", "f", "p", *line.split(), "104") == expected


def test_without_a_profile_there_is_a_warning() -> None:
    options = evaluate("104")
    assert options == replace(DEFAULT, profile=None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("+ssd +B", "--bit-preserving not allowed with --series-date-subdir"),
        ("+B +ssd", "--bit-preserving not allowed with --series-date-subdir"),
        ("+ssd +B --ignore", "--bit-preserving not allowed with --series-date-subdir"),
        ("-ta 0", "Invalid value for option --acse-timeout (underflow: 0)"),
        ("-ta -1", "Invalid value for option --acse-timeout (-1)"),
        ("-td -1", "Invalid value for option --dimse-timeout (-1)"),
        ("+v", "--verbose-pc only allowed with verbose mode"),
        ("+pw x", "--use-passwd only allowed with --enable-tls"),
    ],
)
def test_misfits(line: str, message: str) -> None:
    assert error(line) == message


def test_what_goes_together() -> None:
    for line, subdirectories, mode in (
        ("+ssd -s +B", "--no-subdir", "--bit-preserving"),
        ("+ssd +B -B", "--series-date-subdir", "--normal"),
        ("--ignore +B -B", "--no-subdir", "--normal"),
    ):
        options = evaluate(*line.split(), "104")
        assert (options.subdirectories.value, options.storage_mode.value) == (subdirectories, mode)


def test_options_of_storescp_are_unknown() -> None:
    for name in ("--fork", "-id", "-ts", "+xa", "-pm", "-ss", "-xcr", "+te", "-uf", "--refuse"):
        assert error(name) == f"Unknown option {name}"


def test_the_port_is_looked_at_behind_the_output_options() -> None:
    assert error("-ll loud", port="") == "Missing parameter port"
    assert error("+B +ssd", port="0") == "--bit-preserving not allowed with --series-date-subdir"
    assert error("+pw x", port="0") == "Invalid parameter value 0 (underflow)"
    assert not error_of("-q", port="0").is_shown
    assert error_of("-q", port="").is_shown


def test_exit_codes() -> None:
    assert {code.name: int(code) for code in DcmrecvExit} == {
        "NO_ERROR": 0,
        "COMMAND_LINE": 1,
        "OUTPUT_DIRECTORY": 45,
        "CANNOT_LISTEN": 64,
        "ASSOCIATION_PROFILE": 66,
        "TRANSPORT_LAYER": 71,
    }


PIECES = [
    [option.long, *(["1", "x"][: len(option.values)])]
    for option in TABLE.options()
    if not option.is_exclusive
]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from(["104", "0", "x"]))
def test_any_options_evaluate_or_raise_the_one_error(pieces: list[list[str]], port: str) -> None:
    try:
        options = evaluate(*(token for piece in pieces for token in piece), port)
    except CommandLineError as error:
        assert str(error)  # noqa: PT017 - that there is a text is all that holds for every error
        return
    assert options.port == 104
