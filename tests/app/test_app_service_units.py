"""The units of systemd and the property list of launchd: what stands in them, read back by the rules of who reads them."""

import os
import plistlib
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service import systemd_unit
from stowkeeper.app.service.launchd import property_list
from stowkeeper.app.service.plan import ServicePlan, plan_of, service_arguments, service_settings
from stowkeeper.app.service.systemd import Systemd
from stowkeeper.app.service.systemd_unit import (
    argument_in,
    command_line,
    quoted,
    service_unit,
    socket_units,
)
from stowkeeper.app.settings import Settings
from support.command_line import CommandLine
from support.examples import examples
from support.generated_pages import DOCS

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="no systemd-analyze here: install systemd's tools (apt-get install systemd)",
)
paths = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/") | st.just(" "),
    min_size=1,
).map(lambda name: f"/srv/{name}")


def plan(**changes: object) -> ServicePlan:
    plain = ServicePlan(
        command=("/opt/stowkeeper/bin/python", "-P", "-m", "stowkeeper", "serve", "--archive", "/srv/dicom"),
        archive=Path("/srv/dicom"),
        log_directory=Path("/srv/dicom/log"),
        read=(),
        listening={"dicom": ("0.0.0.0", 11112), "http": ("127.0.0.1", 8042)},
        stop_seconds=90,
        open_files=16384,
        user="stowkeeper",
        group="stowkeeper",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # the tests name fields that there are


def directives(unit: str) -> dict[str, list[str]]:
    """Read a unit as systemd.syntax(7) says: a key may come several times."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in unit.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key].append(value)
    return found


def words_of(value: str, *, has_variables: bool) -> Iterator[str]:
    """Take a list of quoted words apart as systemd does: quotes, then specifiers, then variables in arguments."""
    rest = value
    while rest:
        found = re.match(r'"((?:[^"\\]|\\["\\])*)"(?: |$)', rest)
        assert found is not None, f"not a quoted word: {rest}"
        word = re.sub(r"\\(.)", r"\1", found[1])
        assert "%" not in word.replace("%%", ""), "a specifier"
        word = word.replace("%%", "%")
        if has_variables:
            assert "$" not in word.replace("$$", ""), "a variable"
            word = word.replace("$$", "$")
        yield word
        rest = rest[found.end() :]


# Escaping


@pytest.mark.slow
@given(words=st.lists(paths, min_size=1, max_size=4))
def test_words_are_read_back_as_they_were(words: list[str]) -> None:
    first, *arguments = words
    line = command_line(words)
    assert list(words_of(quoted(first), has_variables=False)) == [first]
    assert line.startswith(quoted(first))
    assert list(words_of(line.removeprefix(quoted(first)).lstrip(), has_variables=True)) == arguments


@pytest.mark.slow
@settings(max_examples=examples(50))
@given(archive=paths, log=paths, config=paths)
def test_every_path_in_a_unit_is_the_one_that_was_meant(archive: str, log: str, config: str) -> None:
    command = ("/opt/a b%/python", "serve", "--config", config, "--archive", archive)
    made = plan(command=command, archive=Path(archive), log_directory=Path(log))
    unit = service_unit(made, version=252)
    found = directives(unit)
    written = [archive] if Path(log).is_relative_to(archive) else [archive, log]
    for key in ("ReadWritePaths", "RequiresMountsFor"):
        assert list(words_of(found[key][0], has_variables=False)) == [str(Path(path)) for path in written]
    assert list(words_of(found["ExecStart"][0], has_variables=True)) == list(command)
    assert argument_in(unit, "--archive") == archive
    assert argument_in(unit, "--config") == config
    assert argument_in(unit, "--port") is None


@pytest.mark.parametrize("name", ["line\nbreak", "bell\x07"])
def test_a_path_that_no_unit_can_hold_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="choose another name") as refused:
        plan_of(Settings(archive=f"/srv/{name}"), ())
    assert refused.value.exit_code is ExitCode.USAGE


@given(archive=paths, user=st.sampled_from(["", "_stowkeeper"]))
def test_a_property_list_says_the_same(archive: str, user: str) -> None:
    made = plan(command=("/opt/python", "serve", "--archive", archive), archive=Path(archive), user=user)
    said = plistlib.loads(property_list(made).encode())
    assert said["ProgramArguments"] == list(made.command)
    assert said.get("UserName", "") == user
    assert said["ExitTimeOut"] == made.stop_seconds
    assert said["KeepAlive"] == {"SuccessfulExit": False}


# What is said


def test_a_privilege_is_given_for_a_low_port_alone() -> None:
    low = plan(listening={"dicom": ("0.0.0.0", 104)})
    for made, activated, wanted in (
        (plan(), False, ""),
        (low, False, "CAP_NET_BIND_SERVICE"),
        (low, True, ""),
    ):
        found = directives(service_unit(made, version=252, is_socket_activated=activated))
        assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [wanted]
        assert found["PrivateUsers"] == ["no" if wanted else "yes"]


def test_a_reload_is_waited_for_where_systemd_can() -> None:
    old, new = (directives(service_unit(plan(), version=version)) for version in (252, 253))
    assert (old["Type"], old["ExecReload"]) == (["notify"], ["/bin/kill -HUP $MAINPID"])
    assert (new["Type"], new["ExecReload"]) == (["notify-reload"], [])


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program lie where programs do, wherever the tests are run."""
    monkeypatch.setattr(sys, "prefix", "/opt/stowkeeper")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(systemd_unit, "__file__", "/opt/stowkeeper/lib/systemd_unit.py")


def test_an_interpreter_in_a_home_stays_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/root/.pyenv/versions/3.11.7")
    assert directives(service_unit(plan(), version=252))["ProtectHome"] == ["read-only"]


def test_what_the_sandbox_would_hide_stays_visible() -> None:
    at_home = plan(read=(Path("/home/anna/tls/key.pem"),))
    temporary = plan(archive=Path("/tmp/archive"), log_directory=Path("/tmp/archive/log"))
    plain, home, temp = (directives(service_unit(made, version=252)) for made in (plan(), at_home, temporary))
    assert (home["ProtectHome"], temp["PrivateTmp"]) == (["read-only"], ["no"])
    assert (plain["ProtectHome"], plain["PrivateTmp"]) == (["yes"], ["yes"])


def test_places_where_everybody_may_write_are_closed_or_its_own() -> None:
    """ProtectSystem=strict leaves /dev/shm as it is, and in a container /run/lock as well."""
    found = directives(service_unit(plan(), version=252))
    assert found["ReadOnlyPaths"] == ["/run"]
    assert found["TemporaryFileSystem"][0].startswith("/dev/shm:")


def test_the_sandbox_lets_events_and_copies_out(tmp_path: Path) -> None:
    (tmp_path / "stowkeeper.toml").write_text(
        """
        [[event_targets]]
        name = "files"
        events = ["study.quiet"]
        folder = "/srv/my events 100%"
        [[event_targets]]
        name = "program"
        events = ["study.quiet"]
        command = ["/home/anna/route", "{study_instance_uid}"]
        [[event_targets]]
        name = "searched for"
        events = ["study.quiet"]
        command = ["route"]
        [[event_targets]]
        name = "posts"
        events = ["study.quiet"]
        url = "https://viewer.example/"
        secret_file = "viewer.secret"
        ca_file = "/etc/ssl/viewer.pem"
        [[export_folders]]
        name = "workstation"
        folder = "/tmp/incoming"
        """
    )
    found_settings = service_settings(None, tmp_path)
    made = plan_of(found_settings, service_arguments(found_settings, None), user="a")
    found = directives(service_unit(made, version=252))
    assert list(words_of(found["ReadWritePaths"][0], has_variables=False)) == [
        str(tmp_path),
        "-/srv/my events 100%",
        "-/tmp/incoming",
    ]
    assert list(words_of(found["RequiresMountsFor"][0], has_variables=False)) == [str(tmp_path)]
    assert (found["ProtectHome"], found["PrivateTmp"]) == (["read-only"], ["no"])
    assert set(map(str, made.read)) == {
        str(tmp_path / "stowkeeper.toml"),
        str(tmp_path / "viewer.secret"),
        "/etc/ssl/viewer.pem",
    }


def test_every_file_of_tls_has_to_be_readable(tmp_path: Path) -> None:
    names = ["certificate.pem", "key.pem", "password", "ca.pem"]
    table = 'certificate = "certificate.pem"\nkey = "key.pem"\nkey_password_file = "password"\nca_files = ["ca.pem"]\n'
    (tmp_path / "stowkeeper.toml").write_text(f"[tls]\n{table}")
    made = plan_of(service_settings(None, tmp_path), ())
    assert set(made.read) == {tmp_path / name for name in ("stowkeeper.toml", *names)}


def test_the_service_stops_later_than_its_drain_and_is_not_restarted_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "stowkeeper.toml").write_text("[dicom]\ndrain_seconds = 300.0\nassociations_max = 20000\n")
    found_settings = service_settings(None, tmp_path)
    made = plan_of(found_settings, service_arguments(found_settings, None), user="a")
    found = directives(service_unit(made, version=252))
    assert int(found["TimeoutStopSec"][0]) > 300
    assert int(found["LimitNOFILE"][0]) > 2 * 20000
    assert found["RestartPreventExitStatus"] == ["2 4 66 78"]


def test_a_service_has_its_settings_from_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOWKEEPER_DICOM__PORT", "4242")
    monkeypatch.setenv("STOWKEEPER_ARCHIVE", "/elsewhere")
    assert service_settings(None, tmp_path).dicom.port == 11112
    assert service_settings(None, None).archive == "/var/lib/stowkeeper"
    config = tmp_path / "site.toml"
    config.write_text('archive = "here"\n')
    assert service_settings(config, None).archive_path == tmp_path / "here"


def test_sockets_are_told_apart_by_name() -> None:
    texts = socket_units(plan(listening={"dicom": ("::", 104), "http": ("127.0.0.1", 8042)}))
    dicom, http = (directives(texts[name]) for name in ("stowkeeper.socket", "stowkeeper-http.socket"))
    assert (dicom["ListenStream"], dicom["FileDescriptorName"]) == (["[::]:104"], ["dicom"])
    assert (http["ListenStream"], http["FileDescriptorName"]) == (["127.0.0.1:8042"], ["http"])
    assert dicom["BindIPv6Only"] == ["both"]
    found = directives(service_unit(plan(), version=252, is_socket_activated=True))
    assert (
        found["Sockets"] == found["Requires"] == found["Also"] == ["stowkeeper.socket stowkeeper-http.socket"]
    )


@pytest.mark.parametrize(("host", "port"), [("pacs.example.org", 11112), ("127.0.0.1", 0)])
def test_an_address_that_no_socket_unit_can_open_is_refused(host: str, port: int) -> None:
    with pytest.raises(CommandError, match="leave --socket-activated out"):
        socket_units(plan(listening={"dicom": (host, port)}))


# systemd's own judgement


def verify(folder: Path, texts: dict[str, str], *words: str) -> str:
    for name, text in texts.items():
        (folder / name).write_text(text)
    units = [str(folder / name) for name in texts]
    done = subprocess.run(
        ["systemd-analyze", *words, "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},  # of a user who is logged in
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@needs_systemd_analyze
@pytest.mark.skipif(
    not os.path.exists("/bin/kill"), reason="no /bin/kill here, which units call: install procps"
)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "sockets", "user"])
def test_systemd_finds_nothing_wrong(tmp_path: Path, kind: str) -> None:
    python = tmp_path / "a b%c" / "python"  # a word that were read wrongly would not be found
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    archive = Path("/srv/my archive 100%")
    made = plan(
        command=(str(python), "-P", "-m", "stowkeeper", "serve", "--archive", str(archive)),
        archive=archive,
        log_directory=Path("/var/log/stow keeper"),
        outlets=(Path("/srv/my events 100%"), Path("/srv/incoming")),
        user="root",
        group="root",
    )
    texts = {
        "stowkeeper.service": service_unit(
            made, version=252, is_socket_activated=kind == "sockets", of_user=kind == "user"
        )
    }
    if kind == "sockets":
        texts |= socket_units(made)
    said = verify(tmp_path, texts, *(["--user"] if kind == "user" else []))
    assert "stowkeeper" not in said, said


@needs_systemd_analyze
@pytest.mark.slow
def test_the_score_is_the_one_in_the_docs(tmp_path: Path) -> None:
    (tmp_path / "stowkeeper.service").write_text(service_unit(plan(), version=252))
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=15",
            "--no-pager",
            tmp_path / "stowkeeper.service",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # The threshold is in tenths; what systemd counts grows with its version, so the bound is not the score itself.
    assert done.returncode == 0, done.stdout[-2000:]
    found = re.search(r"exposure level for stowkeeper.service: (\d\.\d)", done.stdout)
    assert found is not None
    told = re.search(
        r"exposure level of \*\*(\d\.\d)\*\* of 10 \(systemd (\d+);", (DOCS / "service.md").read_text()
    )
    assert told is not None
    if Systemd().version() == int(told[2]):
        assert found[1] == told[1]


# The command line


def test_a_dry_run_shows_all_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "archive"
    line = CommandLine(archive, capsys)
    ended = line(
        "service install", "--dry-run", "--for", "systemd", "--user", "somebody", "--socket-activated"
    )
    assert ended.code == ExitCode.OK
    assert re.findall(r"^# (.*)$", ended.out, re.MULTILINE)[:1] == ["/etc/systemd/system/stowkeeper.service"]
    assert "\nUser=somebody\n" in ended.out
    assert "# /etc/systemd/system/stowkeeper-http.socket\n" in ended.out
    ended = line("service install", "--dry-run", "--for", "launchd")
    assert "<string>stowkeeper</string>" in ended.out
    assert not archive.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--user", "root", "--dry-run", "--for", "systemd"], "does not run as root"),
        (["--user", "Dr. No", "--dry-run", "--for", "systemd"], "cannot be the name of a system user"),
        (["--for", "systemd"], "--for goes with --dry-run"),
        (["--user", "a", "--user-unit"], "exclude each other"),
        (["--dry-run", "--for", "launchd", "--socket-activated"], "is for systemd"),
    ],
)
def test_what_does_not_go_together_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    ended = CommandLine(tmp_path / "archive", capsys)("service install", *arguments)
    assert ended.code == ExitCode.USAGE
    assert words in ended.err
