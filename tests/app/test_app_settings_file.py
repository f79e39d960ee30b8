"""Rewriting a settings file: nothing else changes, nothing is lost, and the old one is kept."""

import contextlib
import itertools
import os
import threading
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.app import settings_file
from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import SETTINGS_VERSIONS_MAX
from stowkeeper.app.settings_file import (
    SettingsFileBusyError,
    SettingsFileOwnerError,
    held,
    replace_file,
    with_entry_value,
    with_value,
    without_value,
)
from support.small_filesystem import small_filesystem

SITE = b"""# Site settings
sync = true

[dicom]
# the usual one
port = 11112   # not 104

ae_title = "A"
[access]
calling_ae_titles = [
  "CT1", # the old one
]

[[peers]]
name = "CT 1"
ae_title = "CT1"
[[peers]]
name = "MR 1"
ae_title = "MR1"
"""


def changed_lines(before: bytes, after: bytes) -> list[bytes]:
    """Return the lines that are not in both, those of `after` in their order."""
    old = before.splitlines()
    return [line for line in after.splitlines() if line not in old]


def test_a_value_is_changed_and_nothing_else() -> None:
    after = with_value(SITE, ("dicom", "port"), 104)
    assert changed_lines(SITE, after) == [b"port = 104   # not 104"]
    assert len(after.splitlines()) == len(SITE.splitlines())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("dicom", "idle_seconds"), 60),
        (("shared",), True),
        (("archive",), '/srv/a b\\c"é'),
        (("log", "level"), "debug"),
        (("access", "calling_ae_titles"), ["CT2", "MR2"]),
    ],
)
@pytest.mark.parametrize("content", [SITE, SITE.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + SITE, b""])
def test_a_value_that_is_new_stands_where_it_belongs(
    path: tuple[str, ...], value: object, content: bytes
) -> None:
    after = with_value(content, path, value)
    said = tomllib.loads(after.decode("utf-8-sig"))
    for name in path:
        said = said[name]
    assert said == value
    kept = [line for line in content.splitlines() if b"CT1" not in line and line not in {b"]", b""}]
    assert not {line for line in kept if b"calling" not in line} - set(after.splitlines())
    assert after.startswith(b"\xef\xbb\xbf") == content.startswith(b"\xef\xbb\xbf")
    assert with_value(after, path, value) == after


@pytest.mark.slow
@given(st.text(max_size=40) | st.integers() | st.booleans() | st.lists(st.text(max_size=9), max_size=3))
def test_any_value_comes_back_as_it_went_in(value: object) -> None:
    if isinstance(value, int) and abs(value) >= 2**63:
        return
    after = with_value(SITE, ("dicom", "port"), value)
    assert tomllib.loads(after.decode())["dicom"]["port"] == value
    assert b"# not 104" in after


def test_a_value_is_taken_out() -> None:
    after = without_value(SITE, ("dicom", "port"))
    assert b"port = 11112" not in after
    assert changed_lines(SITE, after) == []
    assert without_value(SITE, ("dicom", "host")) == SITE
    assert without_value(SITE, ("log", "level")) == SITE


@pytest.mark.parametrize(
    "content",
    [b"[dicom]\nport = 1\n", b"dicom.port = 1\n", b"dicom = { port = 1 }\n", b"[ dicom ]\n\n'port'=1"],
)
def test_other_ways_to_write_a_table_are_kept(content: bytes) -> None:
    after = with_value(content, ("dicom", "port"), 2)
    assert tomllib.loads(after.decode()) == {"dicom": {"port": 2}}
    assert after == content.replace(b"1", b"2")
    assert tomllib.loads(with_value(content, ("dicom", "host"), "a").decode()) == {
        "dicom": {"port": 1, "host": "a"}
    }


def test_an_entry_is_found_by_its_name() -> None:
    after = with_entry_value(SITE, "peers", "MR 1", "duplicates", "keep")
    assert [peer.get("duplicates") for peer in tomllib.loads(after.decode())["peers"]] == [None, "keep"]
    assert with_entry_value(after, "peers", "MR 1", "duplicates", None) == SITE
    with pytest.raises(KeyError):
        with_entry_value(SITE, "peers", "CT 2", "duplicates", "keep")
    with pytest.raises(KeyError):
        with_entry_value(b"peers = 5", "peers", "CT 2", "duplicates", "keep")


def test_what_is_no_toml_is_told_with_its_place() -> None:
    with pytest.raises(ValueError, match=r"not TOML: .*at line 2, column 5"):
        with_value(b"a = 1\nb = ?", ("sync",), value=True)


# The file.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_bytes(SITE)
    return file


def versions(path: Path) -> list[bytes]:
    names = [path.with_name(f"{path.name}.{number}") for number in range(1, 12)]
    return [name.read_bytes() for name in names if name.exists()]


def test_versions_are_kept_up_to_their_number(path: Path) -> None:
    contents = [SITE, *(f"# {number}\n".encode() for number in range(12))]
    for before, content in itertools.pairwise(contents):
        assert replace_file(path, content, before) == path.with_name("site.toml.1")
    assert path.read_bytes() == contents[-1]
    assert versions(path) == contents[-2 : -2 - SETTINGS_VERSIONS_MAX : -1]
    assert len(list(path.parent.iterdir())) == 1 + SETTINGS_VERSIONS_MAX


def test_mode_and_attributes_stay(path: Path) -> None:
    path.chmod(0o604)
    with contextlib.suppress(OSError):  # not every file system has them
        os.setxattr(path, "user.note", b"kept")
    replace_file(path, b"# new\n", SITE)
    assert path.stat().st_mode & 0o7777 == 0o604
    old = path.with_name("site.toml.1")
    assert os.listxattr(path) == os.listxattr(old)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_the_owner_stays(path: Path) -> None:
    os.chown(path, 12345, 23456)
    replace_file(path, b"# new\n", SITE)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_without_the_right_to_keep_the_owner_nothing_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    real = os.fstat
    monkeypatch.setattr(
        os, "fstat", lambda number: os.stat_result((*real(number)[:4], 4242, *real(number)[5:10]))
    )
    with pytest.raises(SettingsFileOwnerError, match="belongs to user"):
        replace_file(path, b"# new\n", SITE)
    assert path.read_bytes() == SITE
    assert [file.name for file in path.parent.iterdir()] == ["site.toml"]


def test_a_new_file_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    assert replace_file(path, b"sync = true\n", None) is None
    assert path.stat().st_mode & 0o7777 == 0o640
    assert [file.name for file in tmp_path.iterdir()] == ["new.toml"]


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "stowkeeper.toml"
    link.symlink_to(path)
    replace_file(link, b"# new\n", SITE)
    assert link.is_symlink()
    assert path.read_bytes() == b"# new\n"
    assert versions(path) == [SITE]


def test_a_change_by_another_is_not_lost(path: Path) -> None:
    path.write_bytes(b"# by hand\n")
    with pytest.raises(SettingsFileBusyError, match="changed it meanwhile"):
        replace_file(path, b"# ours\n", SITE)
    assert path.read_bytes() == b"# by hand\n"
    path.unlink()
    with pytest.raises(SettingsFileBusyError):
        replace_file(path, b"# ours\n", SITE)


def test_a_failure_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"# new\n", SITE)
    assert path.read_bytes() == SITE
    assert [file.name for file in path.parent.iterdir()] == ["site.toml"]


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_filesystem(tmp_path, size=16 << 10, inodes=20) as disk:
        (disk / "stowkeeper.toml").write_text("[dicom]\n")
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(16 << 10))
        with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        assert run(["config", "set", "--archive", str(disk), "dicom.port", "104"]) == ExitCode.IO_ERROR
        assert capsys.readouterr().err == f"Error: {disk / 'stowkeeper.toml'}: No space left on device\n"
        assert sorted(file.name for file in disk.iterdir()) == ["filler", "stowkeeper.toml"]
        assert (disk / "stowkeeper.toml").read_text() == "[dicom]\n"


def test_the_new_file_and_the_folder_are_synced_around_the_rename(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os,
        "fsync",
        lambda number: (
            done.append("folder" if os.path.isdir(f"/dev/fd/{number}") else "file"),
            sync(number),
        ),
    )
    monkeypatch.setattr(
        os, "rename", lambda old, new: (rename(old, new), done.append(f"to {Path(new).name}"))
    )
    replace_file(path, b"# new\n", SITE)
    assert done == ["file", "to site.toml", "folder"]


def test_who_changes_it_waits_for_the_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with held(path):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(30)
    monkeypatch.setattr(settings_file, "SETTINGS_LOCK_SECONDS", 0.1)
    with pytest.raises(SettingsFileBusyError, match="somebody else has been changing it"), held(path):
        pass
    monkeypatch.setattr(settings_file, "SETTINGS_LOCK_SECONDS", 30.0)
    threading.Timer(0.2, leave.set).start()
    with held(path):
        assert leave.is_set()
    thread.join(30)


def test_changes_at_the_same_time_are_all_there(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["idle_seconds", "send_seconds", "message_seconds", "drain_seconds"]
    codes: list[int] = []

    def change(name: str) -> None:
        command = ["config", "set", "--config", str(path), f"dicom.{name}"]
        codes.extend(run([*command, str(number)]) for number in range(1, 4))

    threads = [threading.Thread(target=change, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == [0] * 12, capsys.readouterr().err
    said = tomllib.loads(path.read_text())["dicom"]
    assert [said[name] for name in names] == [3] * 4
    assert len(versions(path)) == SETTINGS_VERSIONS_MAX
