"""What `--explain` prints is a settings file of `serve`: it loads, and each value that has a setting arrives there."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stowkeeper.app.negotiation_profiles import negotiation_profiles
from stowkeeper.app.settings import Settings, load_settings
from stowkeeper.app.wiring import storage_rules
from stowkeeper.dcmtk.dcmrecv_options import DcmrecvOptions, dcmrecv_table, evaluate_dcmrecv
from stowkeeper.dcmtk.dcmrecv_options import FileNames as DcmrecvFileNames
from stowkeeper.dcmtk.explaining import (
    AUTHORITIES_TO_NAME,
    SECONDS_MAX,
    explain_dcmrecv,
    explain_storescp,
)
from stowkeeper.dcmtk.grammar import OptionTable, parse
from stowkeeper.dcmtk.log_options import LogLevel, LogOptions
from stowkeeper.dcmtk.negotiation import StorescpRules, is_accepted_promiscuously, negotiate_storescp
from stowkeeper.dcmtk.network_options import NetworkOptions, ProfileChoice
from stowkeeper.dcmtk.preferences import Preference, accepted_transfer_syntaxes
from stowkeeper.dcmtk.shipped_profiles import SHIPPED_PROFILE_FILE
from stowkeeper.dcmtk.storescp_options import (
    EventOptions,
    FileNames,
    GroupLengths,
    OutputOptions,
    Padding,
    ProcessModel,
    SequenceLengths,
    SortMode,
    StorescpOptions,
    TrialOptions,
    WriteTransferSyntax,
    evaluate_storescp,
)
from stowkeeper.dcmtk.storescp_table import storescp_table
from stowkeeper.dcmtk.tls_options import TLSChoice
from stowkeeper.dcmtk.tls_table import ALL_PROFILES, tls_section
from stowkeeper.dicom.ae_title import is_valid_ae_title
from stowkeeper.dicom.sop_classes import SOP_CLASSES, Origin, is_known_not_storage
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.net.tls_context import PeerVerification, RevocationCheck, TLSOptions
from stowkeeper.net.tls_material import FileFormat
from stowkeeper.net.tls_profiles import SecurityProfile
from stowkeeper.upperlayer.items import ProposedContext, UserInformation
from stowkeeper.upperlayer.negotiation import Accepted, negotiate
from stowkeeper.upperlayer.pdu import AssociateRQ
from support.examples import examples

PASSWORD = "correct horse battery staple"
NOT_TOLD = "\N{REPLACEMENT CHARACTER}"


def loaded(text: str, folder: Path) -> Settings:
    file = folder / "explained.toml"
    file.write_text(text, encoding="ascii")
    return load_settings(str(file), {}, {})


def absolute(path: str) -> str:
    """Return a path as it stands in the settings: surrogates, which TOML does not know, are replaced."""
    return "".join(NOT_TOLD if "\ud800" <= letter <= "\udfff" else letter for letter in os.path.abspath(path))


# Many option sets

WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=()), min_size=1, max_size=12
) | st.sampled_from(["a.pem", "/etc/x", "~", 'say "x"', "back\\slash", "tab\t", "\udcff.dcm", "é☃😀\x7f"])
SECONDS = st.integers(1, 2 * SECONDS_MAX)
TEXTS = st.lists(WORDS, max_size=5).map(tuple)

TLS_OPTIONS = st.builds(
    TLSOptions,
    certificate_file=WORDS,
    key_file=WORDS,
    file_format=st.sampled_from(FileFormat),
    password=st.sampled_from([None, "", PASSWORD]),
    ca_files=TEXTS,
    ca_directories=TEXTS,
    crl_files=TEXTS,
    revocation_check=st.sampled_from(RevocationCheck),
    profile=st.sampled_from(SecurityProfile),
    cipher_suites=TEXTS,
    dh_parameter_file=st.just("") | WORDS,
    expected_server_name=st.just("") | WORDS,
    verification=st.sampled_from(PeerVerification),
    tolerates_unusable_files=st.just(True),
)
TLS = st.none() | st.builds(
    TLSChoice,
    options=TLS_OPTIONS,
    asks_password=st.booleans(),
    seed_file=st.none() | WORDS,
    write_seed_file=st.none() | WORDS,
)
NETWORK = st.builds(
    NetworkOptions,
    acse_timeout=SECONDS,
    dimse_timeout=st.none() | SECONDS,
    max_pdu=st.integers(4096, 131_072),
    host_lookup=st.booleans(),
)
LOG = st.builds(
    LogOptions,
    level=st.sampled_from(LogLevel),
    config_file=st.none() | WORDS,
    arguments=st.sampled_from(["", "calling 'storescp'"]),
    presentation_contexts=st.booleans(),
)
PROFILE = st.none() | st.builds(ProfileChoice, file=WORDS, name=WORDS)
STORESCP = st.builds(
    StorescpOptions,
    port=st.none() | st.integers(1, 65535),
    log=LOG,
    process_model=st.sampled_from(ProcessModel),
    network=NETWORK,
    profile=PROFILE,
    preference=st.sampled_from(Preference),
    access_control=st.booleans(),
    socket_timeout=st.none() | SECONDS,
    ae_title=WORDS | st.just("ARCHIVE") | st.just(""),
    promiscuous=st.booleans(),
    uid_padding=st.booleans(),
    trial=st.builds(TrialOptions, refuse=st.booleans(), ignore=st.booleans(), sleep_after=st.integers(0, 3)),
    tls=TLS,
    output=st.builds(
        OutputOptions,
        directory=WORDS,
        bit_preserving=st.booleans(),
        with_file_meta=st.booleans(),
        transfer_syntax=st.sampled_from(WriteTransferSyntax),
        group_lengths=st.sampled_from(GroupLengths),
        sequence_lengths=st.sampled_from(SequenceLengths),
        padding=st.none() | st.just(Padding(file=2, item=2)),
        sort=st.sampled_from(SortMode),
        sort_prefix=WORDS,
        file_names=st.sampled_from(FileNames),
        extension=st.just("") | WORDS,
    ),
    events=st.builds(
        EventOptions,
        on_reception=st.none() | WORDS,
        study_timeout=st.none() | SECONDS,
        synchronous=st.booleans(),
    ),
)
DCMRECV = st.builds(
    DcmrecvOptions,
    port=st.integers(1, 65535),
    log=LOG,
    network=NETWORK,
    profile=PROFILE,
    ae_title=st.none() | WORDS | st.just("ARCHIVE") | st.just(""),
    tls=TLS,
    directory=WORDS,
    file_names=st.sampled_from(DcmrecvFileNames),
    extension=st.just("") | WORDS,
)
MANY = hypothesis_settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def shortest(*seconds: int | None, default: int = SECONDS_MAX) -> int:
    return min([default, *(value for value in seconds if value is not None)])


def check_what_both_have(options: StorescpOptions | DcmrecvOptions, settings: Settings) -> None:
    assert settings.dicom.host == "0.0.0.0"
    if options.port is not None:
        assert settings.dicom.port == options.port
    if options.network.max_pdu != 16384:
        assert settings.dicom.maximum_length == options.network.max_pdu
    assert settings.dicom.association_request_seconds == shortest(options.network.acse_timeout)
    if options.log.config_file is None and options.log.level is not LogLevel.WARN:
        levels = ["debug", "debug", "info", "", "error", "error", "error"]
        assert settings.log.level == levels[options.log.level]
    title = (options.ae_title or "").strip(" ")
    if options.ae_title != "STORESCP" and is_valid_ae_title(title):
        assert settings.dicom.ae_title == title
    if options.profile is not None:
        (profile,) = settings.profiles
        assert settings.negotiation.profile == profile.name
        assert profile.file == absolute(options.profile.file)
        assert len(profile.file_profile) == len(options.profile.name)
    check_tls(options.tls, settings)


def check_tls(choice: TLSChoice | None, settings: Settings) -> None:
    tls = settings.tls
    if choice is None:
        assert tls.certificate == ""
        return
    given = choice.options
    assert tls.certificate == absolute(given.certificate_file)
    assert tls.key == absolute(given.key_file)
    assert tls.key_password_file == ""
    assert (tls.format, tls.peer_certificate) == (given.file_format, given.verification)
    assert (tls.profile, tls.crl_check) == (given.profile, given.revocation_check)
    assert list(tls.ca_directories) == [absolute(path) for path in given.ca_directories]
    assert list(tls.crl_files) == [absolute(path) for path in given.crl_files]
    assert len(tls.cipher_suites) == len(given.cipher_suites)
    assert tls.dh_parameters == (absolute(given.dh_parameter_file) if given.dh_parameter_file else "")
    assert len(tls.server_name) == len(given.expected_server_name)
    if given.ca_files or given.ca_directories or given.verification is PeerVerification.IGNORE:
        assert list(tls.ca_files) == [absolute(path) for path in given.ca_files]
    else:
        # A server that lets in whom the command line keeps out would be worse than one that does not start.
        assert [Path(path).name for path in tls.ca_files] == [AUTHORITIES_TO_NAME]


@pytest.mark.slow
@MANY
@given(options=STORESCP)
def test_every_text_for_storescp_loads_and_its_values_arrive(
    tmp_path: Path, options: StorescpOptions
) -> None:
    text = explain_storescp(options)
    assert PASSWORD not in text
    settings = loaded(text, tmp_path)
    check_what_both_have(options, settings)
    assert settings.archive == absolute(os.path.join(options.output.directory, "archive"))
    if options.profile is None:
        expected = accepted_transfer_syntaxes(options.preference)
        assert settings.negotiation.transfer_syntaxes == settings.negotiation.preference == expected
        assert settings.negotiation.choice == "preference"
        assert (settings.negotiation.abstract_syntaxes == "all") == options.promiscuous
    given, socket = options.network.dimse_timeout, options.socket_timeout
    if given is not None or socket != 60:
        assert settings.dicom.message_seconds == shortest(given, socket)
    if socket != 60:
        assert settings.dicom.send_seconds == shortest(socket)
        assert settings.dicom.idle_seconds == (0 if socket is None else shortest(socket))


@pytest.mark.slow
@MANY
@given(options=DCMRECV)
def test_every_text_for_dcmrecv_loads_and_its_values_arrive(tmp_path: Path, options: DcmrecvOptions) -> None:
    text = explain_dcmrecv(options)
    assert PASSWORD not in text
    settings = loaded(text, tmp_path)
    check_what_both_have(options, settings)
    assert settings.archive == absolute(os.path.join(options.directory, "archive"))
    assert settings.access.check_called_ae_title == is_valid_ae_title((options.ae_title or "").strip(" "))
    if options.profile is None:
        assert settings.negotiation.abstract_syntaxes == ()
    if options.network.dimse_timeout is not None:
        expected = shortest(options.network.dimse_timeout, 60)
        assert (settings.dicom.message_seconds, settings.dicom.idle_seconds) == (expected, expected)


# The same negotiation

CLASSES = sorted(SOP_CLASSES)
SYNTAXES = sorted(TRANSFER_SYNTAXES)


@pytest.mark.parametrize("preference", Preference)
@pytest.mark.parametrize("promiscuous", [False, True])
def test_serve_negotiates_as_storescp_does(
    tmp_path: Path, preference: Preference, *, promiscuous: bool
) -> None:
    options = StorescpOptions(port=104, preference=preference, promiscuous=promiscuous)
    settings = loaded(explain_storescp(options), tmp_path)
    acceptance = storage_rules(settings, negotiation_profiles(settings)).policy_for("ANY", "127.0.0.1")
    asked = [*CLASSES, "1.2.3.4"]
    if promiscuous:
        asked = [
            uid
            for uid in asked
            if not (uid != VERIFICATION and is_accepted_promiscuously(uid) and is_known_not_storage(uid))
        ]
        left_out = set(CLASSES) - set(asked)
        assert all(SOP_CLASSES[uid].origin is Origin.PRIVATE for uid in left_out), "as its remark says"
    for start in range(0, len(asked), 128):
        request = AssociateRQ(
            called_ae_title="ANY",
            calling_ae_title="ANY",
            user_information=UserInformation(implementation_class_uid="1.2.3"),
            presentation_contexts=tuple(
                ProposedContext(
                    context_id=2 * number + 1,
                    abstract_syntax=uid,
                    transfer_syntaxes=tuple(SYNTAXES[number % len(SYNTAXES) :] + SYNTAXES[:5]),
                )
                for number, uid in enumerate(asked[start : start + 128])
            ),
        )
        ours = negotiate(request, acceptance)
        theirs = negotiate_storescp(request, StorescpRules(preference=preference, promiscuous=promiscuous))
        assert isinstance(ours, Accepted)
        assert isinstance(theirs, Accepted)
        assert ours.response.presentation_contexts == theirs.response.presentation_contexts


def test_a_profile_reaches_the_server(tmp_path: Path) -> None:
    choice = ProfileChoice(file=str(SHIPPED_PROFILE_FILE), name="AllDICOM")
    settings = loaded(explain_dcmrecv(DcmrecvOptions(port=104, profile=choice)), tmp_path)
    acceptance = storage_rules(settings, negotiation_profiles(settings)).policy_for("ANY", "127.0.0.1")
    assert acceptance.prefers_own_order
    assert acceptance.accepts_abstract_syntax("1.2.840.10008.5.1.4.1.1.2")
    assert not acceptance.accepts_abstract_syntax("1.2.3.4")


def test_dcmrecv_without_a_profile_takes_nothing_but_verification(tmp_path: Path) -> None:
    settings = loaded(explain_dcmrecv(DcmrecvOptions(port=104)), tmp_path)
    acceptance = storage_rules(settings, negotiation_profiles(settings)).policy_for("ANY", "127.0.0.1")
    assert [uid for uid in CLASSES if acceptance.accepts_abstract_syntax(uid)] == [VERIFICATION]


# No option is passed over in silence

VALUES: dict[str, list[str]] = {
    "--log-level": ["debug"],
    "--log-config": ["log.cfg"],
    "--config-file": ["site.cfg", "Site"],
    "--socket-timeout": ["7"],
    "--acse-timeout": ["7"],
    "--dimse-timeout": ["7"],
    "--aetitle": ["ARCHIVE"],
    "--max-pdu": ["8192"],
    "--sleep-after": ["1"],
    "--sleep-during": ["1"],
    "--enable-tls": ["key.pem", "cert.pem"],
    "--use-passwd": [PASSWORD],
    "--add-cert-file": ["ca.pem"],
    "--add-cert-dir": ["cas"],
    "--add-crl-file": ["crl.pem"],
    "--cipher": ["TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"],
    "--dhparam": ["dh.pem"],
    "--expect-sni": ["archive.example"],
    "--seed": ["seed"],
    "--write-seed-file": ["seed.new"],
    "--output-directory": ["other"],
    "--padding-create": ["2", "2"],
    "--compression-level": ["1"],
    "--sort-conc-studies": ["X"],
    "--sort-on-study-uid": ["X"],
    "--filename-extension": [".dcm"],
    "--exec-on-reception": ["rm #f"],
    "--exec-on-eostudy": ["rm #p"],
    "--eostudy-timeout": ["7"],
}
NEEDS: dict[str, list[str]] = {
    "--verbose-pc": ["--verbose"],
    "--write-seed": ["--seed", "seed"],
    "--write-seed-file": ["--seed", "seed"],
    "--exec-on-eostudy": ["--sort-on-study-uid", "X"],
    "--rename-on-eostudy": ["--sort-on-study-uid", "X"],
    "--eostudy-timeout": ["--sort-on-study-uid", "X"],
    "--exec-sync": ["--exec-on-reception", "ls"],
    "--compression-level": ["--write-xfer-deflated"],
}
SAYS_NOTHING = {
    "--no-sni": "it switches off what is off",
    "--access-full": "likewise",
    "--null-passwd": "there is no password to name",
    "--prefer-little": "on most machines it is the default",
}
"""Options that ask for what `serve` does anyway, with the reason for no word."""


OF_TLS = {
    option.long
    for group in tls_section(ALL_PROFILES).groups
    for option in group.options
    if option.long != "--enable-tls"
}


def given_options(table: OptionTable) -> list[str]:
    return [
        option.long
        for section in table.sections
        for group in section.groups
        for option in group.options
        if not option.is_default and not option.is_exclusive
        if option.long not in SAYS_NOTHING and option.long != "--explain"
    ]


def storescp_text(*arguments: str) -> str:
    table = storescp_table()
    line = parse(table, [*arguments, "104"])
    options = evaluate_storescp(
        table, line, start_logging=lambda options: options.level, load_profile=lambda _: None
    )
    return explain_storescp(options)


def dcmrecv_text(*arguments: str) -> str:
    table = dcmrecv_table()
    line = parse(table, [*arguments, "104"])
    return explain_dcmrecv(evaluate_dcmrecv(table, line, start_logging=lambda options: options.level))


@pytest.mark.parametrize(
    ("explained", "option"),
    [
        *((storescp_text, option) for option in given_options(storescp_table())),
        *((dcmrecv_text, option) for option in given_options(dcmrecv_table())),
    ],
)
def test_every_option_changes_a_setting_or_has_a_remark(tmp_path: Path, explained: Any, option: str) -> None:
    before = NEEDS.get(option, [])
    if option in OF_TLS:
        before = ["--enable-tls", "key.pem", "cert.pem", *before]
    plain, changed = explained(*before), explained(*before, option, *VALUES.get(option, []))
    loaded(changed, tmp_path)
    assert plain != changed, f"{option} is passed over in silence"


def test_the_address_to_listen_on_may_be_given(tmp_path: Path) -> None:
    for text in (
        explain_storescp(StorescpOptions(port=104), listen_address="127.0.0.1"),
        explain_dcmrecv(DcmrecvOptions(port=104), listen_address="127.0.0.1"),
    ):
        assert loaded(text, tmp_path).dicom.host == "127.0.0.1"


def test_remarks_stand_at_the_head_and_say_why() -> None:
    lines = storescp_text("-xcr", f"mail {PASSWORD}", "--refuse", "+B").splitlines()
    head = lines[: lines.index("")]
    assert "#   --exec-on-reception: not in this version: serve starts no programs; ask" in "\n".join(head)
    assert any(line.startswith("#   --refuse: serve has nothing to try out senders with") for line in head)
    assert any(line.startswith("#   --bit-preserving: nothing to set") for line in head)
    assert PASSWORD not in "\n".join(lines), "commands may hold secrets"
    assert "What is not set" not in storescp_text()
