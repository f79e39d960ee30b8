"""Settings: four sources by weight, every problem with its place, frozen values, and the page that lists them."""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stowkeeper.app.limits import CONFIG_FILE_BYTES_MAX, LIST_ENTRIES_MAX, PROBLEM_VALUE_LETTERS_MAX
from stowkeeper.app.setting_fields import RELOADABLE, OriginKind
from stowkeeper.app.setting_sources import all_settings
from stowkeeper.app.setting_values import format_size, is_in_networks, parse_size, shown
from stowkeeper.app.settings import (
    Settings,
    SettingsError,
    load_settings,
    plain_value,
    reload_settings,
    warnings_of,
)
from support.examples import examples

DOCS = Path(__file__).resolve().parents[2] / "docs"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(
    toml: str = "",
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    Path("site.toml").write_text(toml, encoding="utf-8")
    return load_settings("site.toml", overrides or {}, environment or {})


def problems(
    toml: str = "",
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> list[str]:
    """Load settings that are wrong; return the problems as a person reads them, without the file's folder."""
    with pytest.raises(SettingsError) as caught:
        load(toml, environment, overrides)
    return [str(problem).replace(f"{Path.cwd()}{os.sep}", "") for problem in caught.value.problems]


# Sources and their weight.


def test_nothing_need_be_set() -> None:
    settings = load_settings(None, {}, {"HOME": "/root", "PATH": "/bin"})
    assert settings.archive == str(Path.cwd() / "archive")
    assert (settings.dicom.host, settings.dicom.port, settings.dicom.ae_title) == (
        "127.0.0.1",
        11112,
        "STOWKEEPER",
    )
    assert settings.sync
    assert not settings.shared
    assert settings.settings_file == ""
    assert settings.origin_of("dicom.port").kind is OriginKind.DEFAULT


def test_weight_grows_from_default_to_file_to_environment_to_flag() -> None:
    toml = "[dicom]\nport = 1\nae_title = 'FILE'\nassociations_max = 3\n"
    environment = {"STOWKEEPER_DICOM__PORT": "2", "STOWKEEPER_DICOM__AE_TITLE": "VARIABLE"}
    settings = load(toml, environment, {"dicom.port": "3", "dicom.host": None})
    assert settings.dicom.port == 3
    assert settings.dicom.ae_title == "VARIABLE"
    assert settings.dicom.associations_max == 3
    assert settings.dicom.host == "127.0.0.1"
    origins = {
        key: str(settings.origin_of(f"dicom.{key}"))
        for key in ("port", "ae_title", "associations_max", "host")
    }
    assert origins == {
        "port": "flag --port",
        "ae_title": "environment STOWKEEPER_DICOM__AE_TITLE",
        "associations_max": f"file {Path.cwd() / 'site.toml'}",
        "host": "default",
    }


def test_the_archives_own_file_is_read_when_no_other_is_named() -> None:
    Path("here").mkdir()
    Path("here/stowkeeper.toml").write_text("[dicom]\nport = 104\n", encoding="utf-8")
    assert load_settings(None, {"archive": "here"}, {}).dicom.port == 104
    assert load_settings(None, {}, {"STOWKEEPER_ARCHIVE": "here"}).dicom.port == 104
    Path("other.toml").write_text("", encoding="utf-8")
    assert load_settings("other.toml", {"archive": "here"}, {}).dicom.port == 11112


def test_the_archives_own_file_cannot_name_another_archive() -> None:
    Path("archive").mkdir()
    Path("archive/stowkeeper.toml").write_text("archive = '/elsewhere'\n", encoding="utf-8")
    with pytest.raises(
        SettingsError, match=r"archive: this file was found by the archive folder .* --config"
    ):
        load_settings(None, {}, {})


def test_a_variable_names_the_file_and_the_flag_outweighs_it() -> None:
    Path("one.toml").write_text("[dicom]\nport = 1\n", encoding="utf-8")
    Path("two.toml").write_text("[dicom]\nport = 2\n", encoding="utf-8")
    environment = {"STOWKEEPER_CONFIG": "one.toml"}
    assert load_settings(None, {}, environment).dicom.port == 1
    assert load_settings("two.toml", {}, environment).dicom.port == 2


def test_relative_paths_count_from_the_file_or_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("etc").mkdir()
    Path("etc/s.toml").write_text("archive = 'data'\n[log]\ndirectory = '../logs'\n", encoding="utf-8")
    settings = load_settings("etc/s.toml", {}, {})
    assert settings.archive_path == Path.cwd() / "etc/data"
    assert settings.log_directory == Path.cwd() / "logs"
    assert load_settings("etc/s.toml", {}, {"STOWKEEPER_ARCHIVE": "data"}).archive_path == Path.cwd() / "data"
    monkeypatch.setenv("HOME", "/home/someone")
    assert load_settings("etc/s.toml", {"archive": "~/a"}, {}).archive == "/home/someone/a"


def test_logs_lie_in_the_archive_unless_told_otherwise() -> None:
    assert load(overrides={"archive": "/srv/a"}).log_directory == Path("/srv/a/log")


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("STOWKEEPER_SYNC", "no", False),
        ("STOWKEEPER_SHARED", "1", True),
        ("STOWKEEPER_DICOM__PORT", " 104 ", 104),
        ("STOWKEEPER_DICOM__IDLE_SECONDS", "1.5", 1.5),
        ("STOWKEEPER_STORAGE__RESERVE_SIZE", "1.5 GiB", "1536 MiB"),
        ("STOWKEEPER_STORAGE__RESERVE_SIZE", "12345", 12345),
        ("STOWKEEPER_STORAGE__FILE_MODE", "644", "0644"),
        ("STOWKEEPER_STORAGE__FILE_MODE", "owner", "0600"),
        ("STOWKEEPER_STORAGE__FILE_MODE", "world", "0644"),
        ("STOWKEEPER_STORAGE__FOLDER_MODE", "group", "0750"),
        ("STOWKEEPER_STORAGE__FOLDER_MODE", "0711", "0711"),
        ("STOWKEEPER_STORAGE__FOLDER_MODE", "", ""),
        ("STOWKEEPER_LOG__SYSLOG", "local", "local"),
        ("STOWKEEPER_LOG__SYSLOG", "udp://[fd00::1]", "udp://[fd00::1]"),
        ("STOWKEEPER_LOG__SYSLOG", "tcp://log.example:6514", "tcp://log.example:6514"),
        ("STOWKEEPER_ACCESS__CALLING_AE_TITLES", "CT1, MR 1,", ["CT1", "MR 1"]),
        ("STOWKEEPER_ACCESS__CALLING_AE_TITLES", '["A,B"]', ["A,B"]),
        ("STOWKEEPER_ACCESS__CALLING_AE_TITLES", "", []),
        ("STOWKEEPER_NEGOTIATION__ABSTRACT_SYNTAXES", "standard", "standard"),
        ("STOWKEEPER_NEGOTIATION__ABSTRACT_SYNTAXES", "CTImageStorage,1.2.3", [CT_IMAGE_STORAGE, "1.2.3"]),
        ("STOWKEEPER_PEERS", '[{"name": "CT 1", "ae_title": "CT1"}]', [{"name": "CT 1", "ae_title": "CT1"}]),
    ],
)
def test_variables_are_read_as_the_kind_of_the_setting(variable: str, text: str, value: object) -> None:
    settings = load(environment={variable: text})
    (setting,) = (entry for entry in all_settings().values() if entry.variable == variable)
    assert plain_value(settings, setting) == value


def test_settings_are_frozen() -> None:
    settings = load()
    with pytest.raises(ValidationError):
        settings.sync = False
    with pytest.raises(ValidationError):
        settings.dicom.port = 1


# Problems: each with its place, the allowed values, and a guess.


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[dicom]\nprot = 1", "site.toml: dicom.prot: there is no such setting; did you mean dicom.port?"),
        ("[dcom]\nport = 1", "site.toml: dcom.port: there is no such setting; did you mean dicom.port?"),
        ("port = 1", "site.toml: port: there is no such setting; did you mean dicom.port?"),
        ("[access]\nae_title = 'X'", "site.toml: access.ae_title: there is no such setting; did you mean dicom.ae_title?"),
        ("[log]\nzzz = 1", "site.toml: log.zzz: there is no such setting; [log] has level, format, console, file, directory, rotation, max_size, backups, two_files_size, syslog, syslog_facility, syslog_framing, journal"),
        ("[zzz]\nyyy = 1", "site.toml: zzz.yyy: there is no such setting; above all tables stand archive, archive_must_exist, sync, shared, profiles, peers, origin_servers, forwarding_rules, retention_rules, event_targets, export_folders, and the tables are access, commitment, dicom, dicomweb, events, http, jobs, log, negotiation, storage, tls, tracing"),
        ("[zzz]", "site.toml: zzz: there is no such setting; above all tables stand archive, archive_must_exist, sync, shared, profiles, peers, origin_servers, forwarding_rules, retention_rules, event_targets, export_folders, and the tables are access, commitment, dicom, dicomweb, events, http, jobs, log, negotiation, storage, tls, tracing"),
        ("dicom = 5", "site.toml: dicom: it is a table: write [dicom], and its keys below"),
        ("[sync]", "site.toml: sync: {} is not allowed; allowed: true or false"),
        ("sync = 1", "site.toml: sync: 1 is not allowed; allowed: true or false"),
        ("archive = ''", 'site.toml: archive: "" is no path; allowed: a path'),
        ("[dicom]\nport = '11112'", 'site.toml: dicom.port: "11112" is not allowed; allowed: a whole number from 0 to 65535'),
        ("[dicom]\nport = true", "site.toml: dicom.port: true is not allowed; allowed: a whole number from 0 to 65535"),
        ("[dicom]\nport = 65536", "site.toml: dicom.port: 65536 is not allowed; allowed: a whole number from 0 to 65535"),
        ("[dicom]\nidle_seconds = inf", "site.toml: dicom.idle_seconds: Infinity is not allowed; allowed: a number from 0 to 86400"),
        ("[dicom]\nidle_seconds = nan", "site.toml: dicom.idle_seconds: NaN is not allowed; allowed: a number from 0 to 86400"),
        ("[dicom]\nidle_seconds = 2020-01-01", 'site.toml: dicom.idle_seconds: "2020-01-01" is not allowed; allowed: a number from 0 to 86400'),
        ("[dicom]\nmaximum_length = 4095", "site.toml: dicom.maximum_length: 4095 is not allowed; allowed: 0, or 4096 to 4294967295"),
        ("[dicom]\nhost = '0.0.0.0:104'", 'site.toml: dicom.host: "0.0.0.0:104" is neither an IP address nor a host name (the port is a setting of its own); allowed: a host name or an IP address'),
        ("[dicom]\nae_title = 'MORE THAN SIXTEEN'", 'site.toml: dicom.ae_title: "MORE THAN SIXTEEN" is no AE title: it has 17 characters, 16 are allowed (PS3.5 §6.2); allowed: an AE title: 1 to 16 printable ASCII characters without backslash'),
        ("[storage]\nduplicates = 'kep'", 'site.toml: storage.duplicates: "kep" is not allowed; did you mean "keep"? allowed: "keep", "replace", "refuse"'),
        ("[storage]\nreserve_size = '64 XB'", 'site.toml: storage.reserve_size: "64 XB" is no size: write a number of bytes, or one with kB, MB, GB, TB, KiB, MiB, GiB or TiB; allowed: a size from 0 to 1024 TiB'),
        ("[storage]\nfile_mode = 644", 'site.toml: storage.file_mode: 644 is no file mode; allowed: "owner", "group", "world", or text of octal digits, such as "0640": the owner reads and writes, nobody executes'),
        ("[storage]\nfile_mode = '0755'", 'site.toml: storage.file_mode: "0755" would make files that can be executed; allowed: "owner", "group", "world", or text of octal digits, such as "0640": the owner reads and writes, nobody executes'),
        ("[storage]\nfile_mode = '0444'", 'site.toml: storage.file_mode: "0444" would keep the server, their owner, from reading and writing its files; allowed: "owner", "group", "world", or text of octal digits, such as "0640": the owner reads and writes, nobody executes'),
        ("[storage]\nfolder_mode = '0640'", 'site.toml: storage.folder_mode: "0640" would keep the server, their owner, out of its folders; allowed: "", "owner", "group", "world", or text of octal digits, such as "0750": the owner reads, writes and enters'),
        ("[storage]\nfolder_mode = '0740'", 'site.toml: storage.folder_mode: "0740" would make folders that can be listed and not entered; allowed: "", "owner", "group", "world", or text of octal digits, such as "0750": the owner reads, writes and enters'),
        ("[storage]\nfolder_mode = 'everybody'", 'site.toml: storage.folder_mode: "everybody" is no file mode; allowed: "", "owner", "group", "world", or text of octal digits, such as "0750": the owner reads, writes and enters'),
        ("[log]\nsyslog = 'log.example'", 'site.toml: log.syslog: "log.example" is no place of a syslog server; allowed: "", "local", "udp://HOST:PORT" or "tcp://HOST:PORT"'),
        ("[log]\nsyslog = 'udp://log.example:0'", 'site.toml: log.syslog: "udp://log.example:0" is no place of a syslog server; allowed: "", "local", "udp://HOST:PORT" or "tcp://HOST:PORT"'),
        ("[log]\nrotation = 'weekly'", 'site.toml: log.rotation: "weekly" is not allowed; allowed: "size", "daily", "two files"'),
        ("[access]\naddresses = ['10.0.0.5/8']", 'site.toml: access.addresses: "10.0.0.5/8" has bits beyond its mask; did you mean "10.0.0.0/8"? allowed: a list of IP addresses and networks, such as ["10.1.2.3", "10.2.0.0/16", "fd00::/8"]'),
        ("[access]\naddresses = ['ct.example']", 'site.toml: access.addresses: "ct.example" is neither an IP address nor a network; allowed: a list of IP addresses and networks, such as ["10.1.2.3", "10.2.0.0/16", "fd00::/8"]'),
        ("[access]\naddresses = [7]", 'site.toml: access.addresses: 7 is neither an IP address nor a network; allowed: a list of IP addresses and networks, such as ["10.1.2.3", "10.2.0.0/16", "fd00::/8"]'),
        ("[access]\ncalling_ae_titles = 'CT1'", 'site.toml: access.calling_ae_titles: "CT1" is no list; allowed: a list of AE titles'),
        ("[access]\ncalling_ae_titles = [7]", "site.toml: access.calling_ae_titles: 7 is not allowed; allowed: a list of AE titles"),
        ("[negotiation]\nabstract_syntaxes = 'standrd'", 'site.toml: negotiation.abstract_syntaxes: "standrd" is no list; did you mean "standard"? allowed: "all", "standard", or a list of SOP class UIDs or keywords'),
        ("[negotiation]\nabstract_syntaxes = ['CTImageStorag']", 'site.toml: negotiation.abstract_syntaxes: "CTImageStorag" is neither a UID nor a known keyword; did you mean "CTImageStorage"? allowed: "all", "standard", or a list of SOP class UIDs or keywords'),
        ("[negotiation]\ntransfer_syntaxes = [7]", 'site.toml: negotiation.transfer_syntaxes: 7 is neither a UID nor a known keyword; allowed: "all", or a list of transfer syntax UIDs or keywords'),
        ('[log]\ndirectory = "a\\u0000b"', 'site.toml: log.directory: "a\\u0000b" has a NUL character; allowed: a path'),
        ("[[peers]]\nae_title = 'X'", "site.toml: peers, entry 1: name: it must be given"),
        ("[[peers]]\nname = 'a'\nae_title = 'X'\n[[peers]]\nname = 'b'", "site.toml: peers, entry 2: a peer needs ae_title, addresses, or both"),
        ("[[peers]]\nname = 'a'\nae_titel = 'X'\nae_title='X'", "site.toml: peers, entry 1: ae_titel: there is no such setting; did you mean ae_title?"),
        ("[[peers]]\nname = 'a'\nzzz = 'X'\nae_title='X'", "site.toml: peers, entry 1: zzz: there is no such setting; [[peers]] has name, ae_title, addresses, duplicates, profile, host, port, own_ae_title, tls, may_echo, may_store, may_request_commitment, may_report_commitment, report_on, connect_seconds, answer_seconds, manufacturer"),
        ("[[peers]]\nname = \"a\\u001b\"\nae_title='X'", 'site.toml: peers, entry 1: name: "a\\u001b" is not allowed; allowed: 1 to 64 printable ASCII characters'),
        ("[[peers]]\nname = 'a'\nae_title='X'\nduplicates='drop'", 'site.toml: peers, entry 1: duplicates: "drop" is not allowed; allowed: "keep", "replace", "refuse"'),
        ("peers = [5]", "site.toml: peers, entry 1: it must be a table"),
        ("peers = 5", "site.toml: peers: 5 is no list; allowed: tables"),
        ("[peers]\nname = 'a'", 'site.toml: peers: {"name": "a"} is no list; allowed: tables'),
        ("[negotiation]\nchoice = 'preference'", "site.toml: negotiation.choice: it needs at least one entry in negotiation.preference"),
        (f"[negotiation]\nchoice = 'preference'\npreference = ['1.2.3']\ntransfer_syntaxes = ['{EXPLICIT_VR_LITTLE_ENDIAN}']", "site.toml: negotiation.preference: 1.2.3 is not among negotiation.transfer_syntaxes, so it is never accepted"),
        ("[[peers]]\nname = 'a'\nae_title='X'\nhost='10.0.0.1'", "site.toml: peers, entry 1: host is of no use without port"),
        ("[[peers]]\nname = 'a'\nae_title='X'\nport=104", "site.toml: peers, entry 1: port is of no use without host"),
        ("[[peers]]\nname = 'a'\naddresses=['10.0.0.1']\nhost='10.0.0.1'\nport=104", "site.toml: peers, entry 1: a peer that has a host is called by its AE title, so it needs one"),
        ("[[peers]]\nname = 'a'\nae_title='X'\nhost='10.0.0.1:104'\nport=104", 'site.toml: peers, entry 1: host: "10.0.0.1:104" is neither an IP address nor a host name (the port is a setting of its own); allowed: a host name or an IP address'),
        ("[[peers]]\nname = 'a'\nae_title='X'\nhost='pacs'\nport=0", "site.toml: peers, entry 1: port: 0 is not allowed; allowed: a whole number from 1 to 65535"),
        ("[[peers]]\nname = 'a'\nae_title='X'\nanswer_seconds=0", "site.toml: peers, entry 1: answer_seconds: 0 is not allowed; allowed: a number from 0.1 to 3600"),
        ("[[peers]]\nname = 'a'\nae_title='X'\nmay_store='no'", 'site.toml: peers, entry 1: may_store: "no" is not allowed; allowed: true or false'),
        ("[[peers]]\nname = 'a'\nae_title='X'\nreport_on='same'", 'site.toml: peers, entry 1: report_on: "same" is not allowed; allowed: "new", "same-first"'),
        ("[[peers]]\nname = 'a'\nae_title='X'\nown_ae_title=''", 'site.toml: peers, entry 1: own_ae_title: "" is no AE title: it is empty (PS3.5 §6.2); allowed: an AE title: 1 to 16 printable ASCII characters without backslash'),
        ("[[peers]]\nname = 'a'\nae_title='X'\n[[peers]]\nname = 'a'\nae_title='Y'", 'site.toml: peers: several peers have the name "a"'),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_by_place_and_what_is_allowed(toml: str, problem: str) -> None:
    assert problems(toml) == [problem]


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("STOWKEEPER_DICOM_PORT", "1", "there is no such setting; did you mean STOWKEEPER_DICOM__PORT?"),
        ("STOWKEEPER_PORT", "1", "there is no such setting; did you mean STOWKEEPER_DICOM__PORT?"),
        ("STOWKEEPER_DCOM__PORT", "1", "there is no such setting; did you mean STOWKEEPER_DICOM__PORT?"),
        ("STOWKEEPER_ACCESS_CALLING_AE_TITLES", "X", "there is no such setting; did you mean STOWKEEPER_ACCESS__CALLING_AE_TITLES?"),
        ("STOWKEEPER_ARCHIV", "X", "there is no such setting; did you mean STOWKEEPER_ARCHIVE?"),
        ("STOWKEEPER_QQQQ", "X", "there is no such setting; a variable is STOWKEEPER_TABLE__KEY, such as STOWKEEPER_DICOM__PORT"),
        ("STOWKEEPER_DICOM__SERVICE_PORT", "1", "there is no such setting; did you mean STOWKEEPER_DICOM__PORT?"),
        ("STOWKEEPER_DICOM__PORT", "many", '"many" is not allowed; allowed: a whole number from 0 to 65535'),
        ("STOWKEEPER_DICOM__PORT", "", '"" is not allowed; allowed: a whole number from 0 to 65535'),
        ("STOWKEEPER_SYNC", "maybe", '"maybe" is not allowed; allowed: true or false'),
        ("STOWKEEPER_ACCESS__ADDRESSES", "[", '"[" is no list; allowed: a list of IP addresses and networks, such as ["10.1.2.3", "10.2.0.0/16", "fd00::/8"]'),
        ("STOWKEEPER_PEERS", "CT1", '"CT1" is no list; allowed: tables'),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_told_by_its_name(variable: str, text: str, problem: str) -> None:
    assert problems(environment={variable: text}) == [f"{variable}: {problem}"]


def test_variables_of_kubernetes_services_are_not_taken_for_settings() -> None:
    environment = {
        "STOWKEEPER_PORT": "tcp://10.0.0.1:11112",
        "STOWKEEPER_SERVICE_HOST": "10.0.0.1",
        "STOWKEEPER_SERVICE_PORT": "11112",
        "STOWKEEPER_SERVICE_PORT_DICOM": "11112",
        "STOWKEEPER_PORT_11112_TCP": "tcp://10.0.0.1:11112",
        "STOWKEEPER_PORT_11112_TCP_ADDR": "10.0.0.1",
        "STOWKEEPER_DICOM_PORT": "tcp://10.0.0.1:11112",
        "STOWKEEPER_DICOM_SERVICE_PORT": "11112",
    }
    assert load(environment=environment).dicom.port == 11112


def test_a_wrong_flag_is_told_by_its_name() -> None:
    port, title = problems(overrides={"dicom.port": "x", "dicom.ae_title": " "})
    assert port == '--port: "x" is not allowed; allowed: a whole number from 0 to 65535'
    assert title.startswith('--ae-title: " " is no AE title: it is empty (PS3.5 §6.2); allowed: an AE title')


def test_all_problems_are_reported_at_once_also_overruled_ones() -> None:
    toml = "synk = true\n[dicom]\nport = -1\nae_title = ''\n[[peers]]\n"
    found = problems(toml, {"STOWKEEPER_LOG__LEVEL": "loud"}, {"dicom.port": "104", "dicom.host": "a b"})
    places = [line.split(": ")[0:2] for line in found]
    assert places == [
        ["site.toml", "synk"],
        ["site.toml", "dicom.port"],
        ["site.toml", "dicom.ae_title"],
        ["site.toml", "peers, entry 1"],
        ["STOWKEEPER_LOG__LEVEL", '"loud" is not allowed; allowed'],
        [
            "--host",
            '"a b" is neither an IP address nor a host name (the port is a setting of its own); allowed',
        ],
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[dicom\n", r"it is not TOML: .*line 1"),
        (b"\xff\xfe", r"byte 0 is not UTF-8"),
        (b"#" * (CONFIG_FILE_BYTES_MAX + 1), r"it has more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_toml_is_refused(content: bytes, reason: str) -> None:
    Path("bad.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"bad\.toml: it cannot be read: {reason}"):
        load_settings("bad.toml", {}, {})


def test_the_largest_file_is_read() -> None:
    Path("large.toml").write_bytes(b"#" * CONFIG_FILE_BYTES_MAX)
    assert load_settings("large.toml", {}, {}).dicom.port == 11112


def test_a_byte_order_mark_does_no_harm() -> None:
    Path("bom.toml").write_bytes(b"\xef\xbb\xbf[dicom]\nport = 5\n")
    assert load_settings("bom.toml", {}, {}).dicom.port == 5


def test_a_file_that_cannot_be_read_is_told() -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: it cannot be read: No such file"):
        load_settings("none.toml", {}, {})
    Path("folder.toml").mkdir()
    with pytest.raises(SettingsError, match=r"folder\.toml: it cannot be read: Is a directory"):
        load_settings("folder.toml", {}, {})


def test_long_values_are_cut_in_messages() -> None:
    (found,) = problems(f"[storage]\nduplicates = '{'x' * 10_000}'")
    assert len(found) < 200
    assert len(shown("x" * 10_000)) == PROBLEM_VALUE_LETTERS_MAX


@pytest.mark.slow
def test_lists_are_bounded() -> None:
    titles = ["A"] * LIST_ENTRIES_MAX
    assert len(load(f"[access]\ncalling_ae_titles = {titles}").access.calling_ae_titles) == LIST_ENTRIES_MAX
    (found,) = problems(f"[access]\ncalling_ae_titles = {[*titles, 'B']}")
    assert f"more than {LIST_ENTRIES_MAX}" in found


def bounded() -> list[tuple[str, float, float]]:
    """Return the settings that have bounds, with these, as the reference page names them."""
    found = []
    for setting in all_settings().values():
        bounds = re.fullmatch(r"(?:a (?:whole )?number|a size|0, or)(?: from)? (.+) to (.+)", setting.allowed)
        if bounds:
            lowest, highest = (
                (parse_size(bound) for bound in bounds.groups())
                if setting.shape == "size"
                else map(float, bounds.groups())
            )
            found.append((setting.key, float(str(lowest)), float(str(highest))))
    return found


@pytest.mark.parametrize(("key", "lowest", "highest"), bounded())
def test_every_bound_holds(key: str, lowest: float, highest: float) -> None:
    whole = all_settings()[key].shape != "number"
    step = 1 if whole else 0.01

    def allowed(value: float) -> bool:
        try:
            load_settings(None, {key: int(value) if whole else value}, {})
        except SettingsError:
            return False
        return True

    assert allowed(lowest)
    assert allowed(highest)
    assert not allowed(lowest - step)
    assert not allowed(highest + step)


def test_bounds_were_found() -> None:
    assert len(bounded()) >= 20


# Values.


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_size_is_written_so_that_it_reads_the_same(count: int) -> None:
    text = format_size(count)
    assert parse_size(text) == count
    assert parse_size(text.replace(" ", "").upper()) == count


@pytest.mark.parametrize(("text", "count"), [("0.1 GB", 100_000_000), ("1.5kib", 1536), ("7", 7), ("7 b", 7)])
def test_sizes_are_exact(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.0.1", False),
        ("fe80::1%eth0", True),
        ("::1", False),
        ("", False),
        ("/run/socket", False),
    ],
)
def test_addresses_are_matched_as_the_system_reports_them(address: str, inside: bool) -> None:
    assert is_in_networks(address, (ip_network("10.1.0.0/16"), ip_network("fe80::/10"))) is inside


def test_keywords_become_uids() -> None:
    toml = "[negotiation]\nrefused_abstract_syntaxes = ['CTImageStorage']\npreference = ['ExplicitVRLittleEndian']\n"
    negotiation = load(toml).negotiation
    assert negotiation.refused_abstract_syntaxes == (CT_IMAGE_STORAGE,)
    assert negotiation.preference == (EXPLICIT_VR_LITTLE_ENDIAN,)


def test_an_ipv6_host_may_stand_in_brackets() -> None:
    assert load("[dicom]\nhost = '[::1]'").dicom.host == "::1"


PEERS = """
[storage]
duplicates = "replace"
[[peers]]
name = "CT 1"
ae_title = "CT1"
addresses = ["10.0.0.1"]
duplicates = "refuse"
[[peers]]
name = "any CT1"
ae_title = "CT1"
[[peers]]
name = "ward"
addresses = ["10.1.0.0/16"]
duplicates = "keep"
"""


@pytest.mark.parametrize(
    ("ae_title", "address", "name", "policy"),
    [
        ("CT1", "10.0.0.1", "CT 1", "refuse"),
        ("CT1", "10.0.0.2", "any CT1", "replace"),
        ("CT1", "10.1.0.2", "any CT1", "replace"),
        ("ct1", "10.0.0.1", None, "replace"),
        ("MR1", "10.1.0.2", "ward", "keep"),
        ("MR1", "10.2.0.2", None, "replace"),
    ],
)
def test_the_first_peer_that_matches_holds(
    ae_title: str, address: str, name: str | None, policy: str
) -> None:
    settings = load(PEERS)
    peer = settings.peer_of(ae_title, address)
    assert (peer and peer.name) == name
    assert settings.duplicates_policy_of(ae_title, address) == policy


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("", []),
        ("[dicom]\nhost = 'localhost'", []),
        ("[dicom]\nhost = '::1'", []),
        ("[dicom]\nproxy_protocol_from = ['10.0.0.1']", []),
        (
            "[dicom]\nproxy_protocol_from = ['10.0.0.1', '::/0']",
            ["dicom.proxy_protocol_from trusts everyone"],
        ),
        ("[dicom]\nhost = '0.0.0.0'", ["anyone who reaches 0.0.0.0 may store"]),
        ("[dicom]\nhost = '::'\n[access]\ncheck_called_ae_title = true", ["anyone who reaches :: may store"]),
        ("[dicom]\nhost = 'archive.example'", ["anyone who reaches archive.example may store"]),
        ("[dicom]\nhost = '0.0.0.0'\n[access]\naddresses = ['10.0.0.0/8']", []),
        ("[dicom]\nhost = '0.0.0.0'\n[access]\ncalling_ae_titles = ['CT1']", []),
        ("[dicom]\nhost='::'\n[access]\nonly_known_peers=true\n[[peers]]\nname='a'\nae_title='A'", []),
        ("[access]\nonly_known_peers=true", ["access.only_known_peers without [[peers]]"]),
        ("sync = false", ["instances are not synced"]),
        ("[access]\ncalled_ae_titles = ['X']", ["access.called_ae_titles has no effect"]),
        ("[negotiation]\npreference = ['1.2']", ["negotiation.preference has no effect"]),
    ],
)
def test_what_deserves_a_word_gets_one(toml: str, words: list[str]) -> None:
    warnings = list(warnings_of(load(toml)))
    assert len(warnings) == len(words)
    assert all(warning.startswith(word) for warning, word in zip(warnings, words, strict=True))


# Reload.


def test_a_reload_applies_what_needs_no_restart_and_names_the_rest() -> None:
    current = load("[dicom]\nport = 1\n[log]\nlevel = 'info'\n")
    Path("site.toml").write_text(
        "[dicom]\nport = 2\n[log]\nlevel = 'debug'\n[access]\naddresses = ['10.0.0.1']\n[[peers]]\nname='a'\nae_title='A'\n",
        encoding="utf-8",
    )
    reload = reload_settings(current, "site.toml", {}, {})
    assert {change.key: (change.before, change.after) for change in reload.applied} == {
        "log.level": ("info", "debug"),
        "access.addresses": ([], ["10.0.0.1/32"]),
        "peers": ([], [{"name": "a", "ae_title": "A"}]),
    }
    assert [(change.key, change.before, change.after) for change in reload.needs_restart] == [
        ("dicom.port", 1, 2)
    ]
    assert reload.settings.log.level == "debug"
    assert reload.settings.dicom.port == 1
    assert reload.settings.origin_of("access.addresses").kind is OriginKind.FILE
    assert current.log.level == "info"
    # What waits for a restart is named again by the next reload.
    assert [change.key for change in reload_settings(reload.settings, "site.toml", {}, {}).needs_restart] == [
        "dicom.port"
    ]


def test_a_reload_forgets_the_origin_of_what_is_no_longer_set() -> None:
    current = load("[log]\nlevel = 'debug'\n")
    Path("site.toml").write_text("", encoding="utf-8")
    reload = reload_settings(current, "site.toml", {}, {})
    assert reload.settings.log.level == "info"
    assert reload.settings.origin_of("log.level").kind is OriginKind.DEFAULT


def test_a_reload_of_wrong_settings_changes_nothing() -> None:
    current = load("[log]\nlevel = 'debug'\n")
    Path("site.toml").write_text("[log]\nlevel = 'loud'\n", encoding="utf-8")
    with pytest.raises(SettingsError):
        reload_settings(current, "site.toml", {}, {})
    assert current.log.level == "debug"


# Whatever comes in, the answer is settings or a list of problems.


def places_of_problems(overrides: Mapping[str, object], environment: Mapping[str, str]) -> list[str]:
    try:
        load_settings(None, overrides, environment)
    except SettingsError as error:
        return [problem.place for problem in error.problems]
    return []


@pytest.mark.slow
@hypothesis_settings(max_examples=examples(150))
@given(st.sampled_from(sorted(all_settings())), st.text(max_size=30))
def test_any_text_in_a_variable_gives_settings_or_its_name(key: str, text: str) -> None:
    variable = all_settings()[key].variable
    assert set(places_of_problems({}, {variable: text})) <= {variable}


TOML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@hypothesis_settings(max_examples=examples(150))
@given(st.sampled_from(sorted(all_settings())), TOML_VALUES)
def test_any_value_gives_settings_or_its_place(key: str, value: object) -> None:
    name = all_settings()[key].flag or key
    assert all(place.startswith(name) for place in places_of_problems({key: value}, {}))


def test_defaults_are_values_that_may_be_set() -> None:
    for setting in all_settings().values():
        settings = load_settings(None, {setting.key: setting.plain(setting.default)}, {})
        if setting.shape != "path":
            assert plain_value(settings, setting) == setting.plain(setting.default)


def test_what_is_reloaded_exists() -> None:
    assert {*Settings.model_fields, *all_settings()} >= RELOADABLE


def test_a_reload_takes_what_can_be_and_leaves_the_rest_of_its_table(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('[http]\ncertificate = "a.pem"\nport = 1\n', encoding="utf-8")
    before = load_settings(str(file), {}, {})
    file.write_text('[http]\ncertificate = "b.pem"\nport = 2\nkey = "b.key"\n', encoding="utf-8")
    reload = reload_settings(before, str(file), {}, {})
    http = reload.settings.http
    assert (Path(http.certificate).name, Path(http.key).name, http.port) == ("b.pem", "b.key", 1)
    assert {change.key for change in reload.applied} == {"http.certificate", "http.key"}
    assert {change.key for change in reload.needs_restart} == {"http.port"}
    assert before.http.port == 1
    assert Path(before.http.certificate).name == "a.pem"
