"""The command line of storescp: every option it has, what each means, and which go together."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.grammar import CommandLineError, parse
from stowkeeper.dcmtk.log_options import IN_NO_STAGE, LogLevel, LogOptions
from stowkeeper.dcmtk.network_options import NetworkOptions, ProfileChoice
from stowkeeper.dcmtk.preferences import Preference
from stowkeeper.dcmtk.storescp_options import (
    EventOptions,
    FileNames,
    GroupLengths,
    OutputOptions,
    Padding,
    ProcessModel,
    SequenceLengths,
    SortMode,
    StorescpExit,
    StorescpOptions,
    TrialOptions,
    WriteTransferSyntax,
    evaluate_storescp,
)
from stowkeeper.dcmtk.storescp_table import storescp_table

TABLE = storescp_table()

OPTIONS = """
-h --help; --version; --arguments; --explain; -q --quiet; -v --verbose; -d --debug; -ll --log-level; -lc --log-config;
+v --verbose-pc; --single-process; --fork; -xf --config-file; +x= --prefer-uncompr; +xe --prefer-little;
+xb --prefer-big; +xs --prefer-lossless; +xy --prefer-jpeg8; +xx --prefer-jpeg12; +xv --prefer-j2k-lossless;
+xw --prefer-j2k-lossy; +xt --prefer-jls-lossless; +xu --prefer-jls-lossy; +xm --prefer-mpeg2;
+xh --prefer-mpeg2-high; +xn --prefer-mpeg4; +xl --prefer-mpeg4-bd; +x2 --prefer-mpeg4-2-2d;
+x3 --prefer-mpeg4-2-3d; +xo --prefer-mpeg4-2-st; +x4 --prefer-hevc; +x5 --prefer-hevc10; +xr --prefer-rle;
+xd --prefer-deflated; +xi --implicit; +xa --accept-all; -ac --access-full; +ac --access-control; -id --inetd;
-ts --socket-timeout; -ta --acse-timeout; -td --dimse-timeout; -aet --aetitle; -pdu --max-pdu;
-dhl --disable-host-lookup; --refuse; --reject; --ignore; --sleep-after; --sleep-during; --abort-after;
--abort-during; -pm --promiscuous; -up --uid-padding; -tls --disable-tls; +tls --enable-tls; +ps --std-passwd;
+pw --use-passwd; -pw --null-passwd; -pem --pem-keys; -der --der-keys; +cf --add-cert-file; +cd --add-cert-dir;
+crl --add-crl-file; +crv --enable-crl-vfy; +cra --enable-crl-all; +pg --profile-8996; +pm --profile-8996-mod;
+py --profile-bcp195-nd; +px --profile-bcp195; +pz --profile-bcp195-ex; +pb --profile-basic; +pa --profile-aes;
+pn --profile-null; +cc --list-ciphers; +cs --cipher; +dp --dhparam; --no-sni; --expect-sni; +rs --seed;
+ws --write-seed; +wf --write-seed-file; -rc --require-peer-cert; -vc --verify-peer-cert; -ic --ignore-peer-cert;
-od --output-directory; -B --normal; +B --bit-preserving; +F --write-file; -F --write-dataset; +t= --write-xfer-same;
+te --write-xfer-little; +tb --write-xfer-big; +ti --write-xfer-implicit; +td --write-xfer-deflated;
+u --enable-new-vr; -u --disable-new-vr; +g= --group-length-recalc; +g --group-length-create;
-g --group-length-remove; +e --length-explicit; -e --length-undefined; -p --padding-off; +p --padding-create;
-uc --retain-un; +uc --convert-un; +cl --compression-level; -ss --sort-conc-studies; -su --sort-on-study-uid;
-sp --sort-on-patientname; -uf --default-filenames; +uf --unique-filenames; -tn --timenames;
-fe --filename-extension; -xcr --exec-on-reception; -xcs --exec-on-eostudy; -rns --rename-on-eostudy;
-tos --eostudy-timeout; -xs --exec-sync
"""
"""Every option of DCMTK 3.6.8's storescp in the order of its manual page, and --explain."""


def level_of(options: LogOptions) -> LogLevel:
    return options.level


def no_profile(choice: ProfileChoice) -> None:
    del choice


def evaluate(
    *arguments: str,
    start_logging: Callable[[LogOptions], LogLevel] = level_of,
    load_profile: Callable[[ProfileChoice], None] = no_profile,
) -> StorescpOptions:
    line = parse(TABLE, arguments)
    return evaluate_storescp(TABLE, line, start_logging=start_logging, load_profile=load_profile)


def options_of(line: str) -> StorescpOptions:
    return evaluate(*line.split(), "104")


def error_of(line: str, port: str = "104") -> CommandLineError:
    with pytest.raises(CommandLineError) as caught:
        evaluate(*line.split(), *([port] if port else []))
    return caught.value


def error(line: str, port: str = "104") -> str:
    return str(error_of(line, port))


# The table


def test_every_option_of_the_manual_page_is_there_in_its_order() -> None:
    expected = [tuple(names.split()) for names in OPTIONS.split(";")]
    found = [tuple(filter(None, (option.short, option.long))) for option in TABLE.options()]
    assert found == expected


def test_no_name_has_two_meanings() -> None:
    names = [name for option in TABLE.options() for name in (option.short, option.long) if name]
    assert len(set(names)) == len(names)


def test_every_option_is_checked_once() -> None:
    checked = [long for block in TABLE.blocks() for long in block]
    assert sorted(checked) == sorted({option.long for option in TABLE.options()} - IN_NO_STAGE)


def test_rules_speak_of_options_that_are_there() -> None:
    for option in TABLE.options():
        for rule in option.rules:
            assert all(TABLE.find(other) for other in rule.others)


def test_at_most_one_default_in_a_block() -> None:
    for block in TABLE.blocks():
        defaults = [long for long in block if (option := TABLE.find(long)) and option.is_default]
        assert len(defaults) <= 1
        assert len(block) > 1 or not defaults or block == ("--no-sni",)


# What the options mean

DEFAULT = StorescpOptions(port=104)


def test_nothing_but_a_port() -> None:
    options = evaluate("104")
    assert options == DEFAULT
    assert options.log == LogOptions(level=LogLevel.WARN, config_file=None, arguments="")
    assert options.network == NetworkOptions(
        acse_timeout=30, dimse_timeout=None, max_pdu=16384, host_lookup=True
    )
    assert options.socket_timeout == 60
    assert options.ae_title == "STORESCP"
    assert options.preference is Preference.UNCOMPRESSED
    assert options.output.directory == "."
    assert options.output.compression_level == 6
    assert options.tls is None
    with pytest.raises(FrozenInstanceError):
        options.port = 105  # type: ignore[misc] # frozen is what is tested


def changed(part: str, **fields: Any) -> StorescpOptions:
    return replace(DEFAULT, **{part: replace(getattr(DEFAULT, part), **fields)})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--explain", replace(DEFAULT, explain=True)),
        ("-q", changed("log", level=LogLevel.FATAL)),
        ("-v", changed("log", level=LogLevel.INFO)),
        ("-d", changed("log", level=LogLevel.DEBUG)),
        ("-d -v -q -v", changed("log", level=LogLevel.INFO)),
        ("-ll fatal", changed("log", level=LogLevel.FATAL)),
        ("-ll ERROR", changed("log", level=LogLevel.ERROR)),
        ("-ll warn", DEFAULT),
        ("-ll Info", changed("log", level=LogLevel.INFO)),
        ("-ll debug", changed("log", level=LogLevel.DEBUG)),
        ("-ll trace", changed("log", level=LogLevel.TRACE)),
        ("-lc file", changed("log", config_file="file")),
        ("-v +v", changed("log", level=LogLevel.INFO, presentation_contexts=True)),
        (
            "--arguments -aet A",
            replace(
                changed(
                    "log",
                    arguments="calling 'storescp' with 4 arguments: '--arguments' '--aetitle' 'A' '104'",
                ),
                ae_title="A",
            ),
        ),
        ("--fork", replace(DEFAULT, process_model=ProcessModel.FORK)),
        ("--fork --single-process", DEFAULT),
        ("-xf file profile", replace(DEFAULT, profile=ProfileChoice(file="file", name="profile"))),
        ("-ac +ac", replace(DEFAULT, access_control=True)),
        ("+ac -ac", DEFAULT),
        ("-ts 5", replace(DEFAULT, socket_timeout=5)),
        ("-ts 0", replace(DEFAULT, socket_timeout=None)),
        ("-ts -1", replace(DEFAULT, socket_timeout=None)),
        ("-ta 5", changed("network", acse_timeout=5)),
        ("-td 5", changed("network", dimse_timeout=5)),
        ("-pdu 4096", changed("network", max_pdu=4096)),
        ("-dhl", changed("network", host_lookup=False)),
        ("-aet A", replace(DEFAULT, ae_title="A")),
        ("--refuse", changed("trial", refuse=True)),
        ("--reject", changed("trial", reject_without_implementation_class=True)),
        ("--ignore", changed("trial", ignore=True)),
        ("--sleep-after 3", changed("trial", sleep_after=3)),
        ("--sleep-during 4", changed("trial", sleep_during=4)),
        ("--abort-after", changed("trial", abort_after=True)),
        ("--abort-during", changed("trial", abort_during=True)),
        ("-pm", replace(DEFAULT, promiscuous=True)),
        ("-up", replace(DEFAULT, uid_padding=True)),
        ("-od d", changed("output", directory="d")),
        ("+B", changed("output", bit_preserving=True)),
        ("+B -B", DEFAULT),
        ("-F", changed("output", with_file_meta=False)),
        ("-F +F", DEFAULT),
        ("+te", changed("output", transfer_syntax=WriteTransferSyntax.EXPLICIT_LITTLE)),
        ("+tb", changed("output", transfer_syntax=WriteTransferSyntax.EXPLICIT_BIG)),
        ("+ti", changed("output", transfer_syntax=WriteTransferSyntax.IMPLICIT_LITTLE)),
        ("+td", changed("output", transfer_syntax=WriteTransferSyntax.DEFLATED)),
        ("+td +t=", DEFAULT),
        ("-u", changed("output", new_vrs=False)),
        ("-u +u", DEFAULT),
        ("+g", changed("output", group_lengths=GroupLengths.CREATE)),
        ("-g", changed("output", group_lengths=GroupLengths.REMOVE)),
        ("-g +g=", DEFAULT),
        ("-e", changed("output", sequence_lengths=SequenceLengths.UNDEFINED)),
        ("-e +e", DEFAULT),
        ("+p 512 4", changed("output", padding=Padding(file=512, item=4))),
        ("+p 512 4 -p", DEFAULT),
        ("+uc", changed("output", convert_un=True)),
        ("+uc -uc", DEFAULT),
        ("+cl 0", changed("output", compression_level=0)),
        (
            "+cl 9 +td",
            changed("output", compression_level=9, transfer_syntax=WriteTransferSyntax.DEFLATED),
        ),
        ("-ss P", changed("output", sort=SortMode.TIMESTAMP, sort_prefix="P")),
        ("-su P", changed("output", sort=SortMode.STUDY_UID, sort_prefix="P")),
        ("-ss P -sp", changed("output", sort=SortMode.PATIENT_NAME)),
        ("-su P -ss Q", changed("output", sort=SortMode.TIMESTAMP, sort_prefix="Q")),
        ("+uf", changed("output", file_names=FileNames.NEW_UID)),
        ("+uf -uf", DEFAULT),
        ("-tn -uf", changed("output", file_names=FileNames.TIME)),
        ("+uf -uf -tn", changed("output", file_names=FileNames.TIME)),
        ("-fe .dcm", changed("output", extension=".dcm")),
        ("-xcr c", changed("events", on_reception="c")),
        (
            "-tos 0 -sp",
            replace(changed("output", sort=SortMode.PATIENT_NAME), events=EventOptions(study_timeout=0)),
        ),
        ("-xs", changed("events", synchronous=True)),
        (
            "-xcs c -rns -sp",
            replace(
                changed("output", sort=SortMode.PATIENT_NAME),
                events=EventOptions(on_study_end="c", rename_on_study_end=True),
            ),
        ),
    ],
)
def test_meaning(line: str, expected: StorescpOptions) -> None:
    assert options_of(line) == expected


@pytest.mark.parametrize("preference", list(Preference))
def test_preferences(preference: Preference) -> None:
    assert options_of(f"+xa {preference.value}").preference is preference
    assert options_of(f"{preference.value} +x=").preference is Preference.UNCOMPRESSED


@pytest.mark.parametrize(
    ("option", "part", "field"),
    [
        ("-aet", None, "ae_title"),
        ("-od", "output", "directory"),
        ("-fe", "output", "extension"),
        ("-xcr", "events", "on_reception"),
    ],
)
def test_empty_values_are_values(option: str, part: str | None, field: str) -> None:
    options = evaluate(option, "", "104")
    assert getattr(getattr(options, part) if part else options, field) == ""


def test_a_long_real_command_line() -> None:
    line = ["--fork", "-pm", "+xa", "-aet", "X", "-pdu", "131072", "-dhl", "-up", "-od", "DIR", "-su"]
    options = evaluate(*line, "", "-uf", "-xcr", "script #a #r #p #f", "104")
    assert options == StorescpOptions(
        port=104,
        process_model=ProcessModel.FORK,
        promiscuous=True,
        preference=Preference.ACCEPT_ALL,
        ae_title="X",
        network=NetworkOptions(max_pdu=131072, host_lookup=False),
        uid_padding=True,
        output=OutputOptions(directory="DIR", sort=SortMode.STUDY_UID),
        events=EventOptions(on_reception="script #a #r #p #f"),
    )


def test_exit_codes() -> None:
    assert {code.name: int(code) for code in StorescpExit} == {"NO_ERROR": 0, "FAILURE": 1, "INETD": 99}


# The super server


def test_inetd_needs_no_port_and_takes_none() -> None:
    assert evaluate("-id") == replace(DEFAULT, port=None, inetd=True)
    options = evaluate("--inetd", "70000")
    assert options.port is None
    assert options.warnings == ("the port is not needed with --inetd and is not used",)
    assert error("-id a b", "") == "Too many parameters"


def test_nothing_is_printed_to_the_connection_of_the_super_server() -> None:
    # Only what is found before the connection is taken over is shown.
    assert error_of("-id --fork", "").is_shown
    assert not error_of("-id -pdu 1", "").is_shown
    assert not error_of("-id -xcs c -sp", "").is_shown


# Conflicts and dependences


@pytest.mark.parametrize("option", ["+te", "+tb", "+ti", "+td"])
def test_conversion_goes_with_no_compressed_preference(option: str) -> None:
    long = TABLE.find(option)
    assert long is not None
    allowed = {"+x=", "+xe", "+xb", "+xd", "+xi"}
    for preference in Preference:
        if preference.value in allowed:
            options_of(f"{preference.value} {option}")
        else:
            other = TABLE.find(preference.value)
            assert other is not None
            assert error(f"{preference.value} {option}") == f"{long.long} not allowed with {other.long}"
    assert options_of(f"+xa +xe {option}").preference is Preference.LITTLE_ENDIAN


@pytest.mark.parametrize("preference", [kind for kind in Preference if kind is not Preference.UNCOMPRESSED])
def test_a_profile_goes_with_no_preference_but_the_default(preference: Preference) -> None:
    other = TABLE.find(preference.value)
    assert other is not None
    assert error(f"-xf f p {preference.value}") == f"--config-file not allowed with {other.long}"
    assert options_of(f"-xf f p {preference.value} +x=").profile is not None


@pytest.mark.parametrize(
    "option",
    [
        "+te",
        "+tb",
        "+ti",
        "+td",
        "+u",
        "-u",
        "+g=",
        "+g",
        "-g",
        "+e",
        "-e",
        "+p 1 1",
        "-ss x",
        "-su x",
        "-sp",
    ],
)
def test_bit_preserving_goes_with_no_conversion_and_no_sorting(option: str) -> None:
    name = TABLE.find(option.split(maxsplit=1)[0])
    assert name is not None
    assert error(f"{option} +B") == f"{name.long} not allowed with --bit-preserving"
    assert error(f"+B {option}") == f"{name.long} not allowed with --bit-preserving"
    options_of(f"{option} +B -B")


@pytest.mark.parametrize(
    "line", ["+B +t=", "+B -p", "+B -F", "+B +uc", "+B +cl 3", "+B -xcr c", "+B -tn", "+B --fork"]
)
def test_bit_preserving_goes_with(line: str) -> None:
    assert options_of(line).output.bit_preserving


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-ll info -q", "--log-level not allowed with --verbose, --debug or --quiet"),
        ("-lc f -d", "--log-config not allowed with --verbose, --debug or --quiet"),
        ("-lc f -ll info", "--log-config not allowed with --log-level"),
        (
            "-ll loud",
            "Invalid value for option --log-level (loud): use fatal, error, warn, info, debug or trace",
        ),
        ("+v", "--verbose-pc only allowed with verbose mode"),
        ("-id --fork", "--inetd not allowed with --fork"),
        ("-xf f p -pm", "--config-file not allowed with --promiscuous"),
        ("-xf f p -pm +xa", "--config-file not allowed with --accept-all"),
        ("+p 1 1 -F", "--padding-create not allowed with --write-dataset"),
        ("+p 1 1 -F +B", "--padding-create not allowed with --write-dataset"),
        ("+cl 3 +te", "--compression-level only allowed with --write-xfer-deflated or --write-xfer-same"),
        ("-tn +uf", "--timenames not allowed with --unique-filenames"),
        ("-xcs c --fork -sp", "--exec-on-eostudy not allowed with --fork"),
        ("-xcs c --fork", "--exec-on-eostudy not allowed with --fork"),
        ("-rns --fork -sp", "--rename-on-eostudy not allowed with --fork"),
        ("-id -xcs c -sp", "--exec-on-eostudy not allowed with --inetd"),
        ("-id -rns -sp", "--rename-on-eostudy not allowed with --inetd"),
        (
            "-xcs c",
            "--exec-on-eostudy only allowed with --sort-conc-studies, --sort-on-study-uid or --sort-on-patientname",
        ),
        (
            "-rns",
            "--rename-on-eostudy only allowed with --sort-conc-studies, --sort-on-study-uid or --sort-on-patientname",
        ),
        (
            "-tos 5",
            (
                "--eostudy-timeout only allowed with --sort-conc-studies, --sort-on-study-uid,"
                " --sort-on-patientname, --exec-on-eostudy or --rename-on-eostudy"
            ),
        ),
        ("-tos -1 -sp", "Invalid value for option --eostudy-timeout (underflow: -1)"),
        ("-ts -2", "Invalid value for option --socket-timeout (underflow: -2)"),
        ("-ta 0", "Invalid value for option --acse-timeout (underflow: 0)"),
        ("-ta -1", "Invalid value for option --acse-timeout (underflow: -1)"),
        ("-td 0", "Invalid value for option --dimse-timeout (underflow: 0)"),
        ("-pdu 4095", "Invalid value for option --max-pdu (underflow: 4095)"),
        ("-pdu 131073", "Invalid value for option --max-pdu (overflow: 131073)"),
        ("--sleep-after -1", "Invalid value for option --sleep-after (-1)"),
        ("--sleep-during x", "Invalid value for option --sleep-during (x)"),
        ("+cl 10", "Invalid value for option --compression-level (overflow: 10)"),
        ("+p 1 x", "Invalid value for option --padding-create (x)"),
    ],
)
def test_misfits(line: str, message: str) -> None:
    assert error(line) == message


def test_the_order_of_errors() -> None:
    # One error a stage: each is reported only when those before it are gone.
    stages = [
        "-ll loud",
        "-ts -2",
        "-xf f p -pm",
        "+u +B",
        "-xcs c",
        "+pw x",
    ]
    expected = [
        "Invalid value for option --log-level",
        "Invalid value for option --socket-timeout",
        "--config-file not",
        "--enable-new-vr not",
        "--exec-on-eostudy only",
        "--use-passwd only",
    ]
    for first, begin in enumerate(expected):
        assert error(" ".join(reversed(stages[first:]))).startswith(begin)
        assert error(" ".join(stages[first:])).startswith(begin)
    assert error(" ".join(stages), port="70000") == "Invalid parameter value 70000 (overflow)"


# The log comes first, the profile in the middle


def test_the_log_is_started_before_anything_else_is_looked_at() -> None:
    started: list[LogOptions] = []

    def start(options: LogOptions) -> LogLevel:
        started.append(options)
        return LogLevel.WARN

    with pytest.raises(CommandLineError):
        evaluate("-lc", "file", "-pdu", "1", "104", start_logging=start)
    assert started == [LogOptions(config_file="file")]


@pytest.mark.parametrize(
    "line", ["-q -pdu 1", "-q +v", "-ll fatal -xcs c", "-q +pw x", "-q -xf f p -pm", "-q +u +B"]
)
def test_a_quiet_log_keeps_silent_about_the_rest_of_the_command_line(line: str) -> None:
    assert not error_of(line).is_shown


@pytest.mark.parametrize("line", ["-ll error -pdu 1", "-pdu 1", "-q -ll info", "-q -lc f"])
def test_other_errors_are_shown(line: str) -> None:
    assert error_of(line).is_shown


def test_ports_are_looked_at_before_the_log() -> None:
    assert error_of("-q", port="0").is_shown
    assert error_of("-q", port="").is_shown


def test_the_level_of_the_log_configuration_counts() -> None:
    def at(level: LogLevel) -> Callable[[LogOptions], LogLevel]:
        return lambda _options: level

    assert evaluate("-lc", "f", "+v", "104", start_logging=at(LogLevel.INFO)).log.presentation_contexts
    with pytest.raises(CommandLineError, match="verbose mode"):
        evaluate("-lc", "f", "+v", "104", start_logging=at(LogLevel.WARN))
    with pytest.raises(CommandLineError) as caught:
        evaluate("-lc", "f", "-pdu", "1", "104", start_logging=at(LogLevel.OFF))
    assert not caught.value.is_shown


def test_the_profile_is_loaded_behind_the_network_options_and_before_the_output_options() -> None:
    class UnreadableError(Exception):
        pass

    def load(choice: ProfileChoice) -> None:
        raise UnreadableError(choice.file, choice.name)

    with pytest.raises(UnreadableError, match="'f', 'p'"):
        evaluate("-xf", "f", "p", "+u", "+B", "104", load_profile=load)
    with pytest.raises(CommandLineError, match="--max-pdu"):
        evaluate("-xf", "f", "p", "-pdu", "1", "104", load_profile=load)
    assert evaluate("104", load_profile=load) == DEFAULT


PIECES = [
    [option.long, *(["1", "x"][: len(option.values)])]
    for option in TABLE.options()
    if not option.is_exclusive
]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from(["104", "0", "x"]))
def test_any_options_evaluate_or_raise_the_one_error(pieces: list[list[str]], port: str) -> None:
    arguments = [token for piece in pieces for token in piece]
    try:
        options = evaluate(*arguments, port)
    except CommandLineError as error:
        assert str(error)  # noqa: PT017 - that there is a text is all that holds for every error
        return
    assert (options.port == 104) != options.inetd
    assert options.trial == TrialOptions() or any("--" in piece[0] for piece in pieces)
