"""What must hold before a program listens: its output directory and its port."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.dcmtk.dcmrecv_options import DcmrecvOptions, StorageMode
from stowkeeper.dcmtk.start_checks import (
    PRIVILEGED_PORT_END,
    StartError,
    check_dcmrecv_directory,
    check_dcmrecv_port,
    check_storescp_directory,
    check_storescp_port,
    directory_defect,
    port_defect,
)
from stowkeeper.dcmtk.storescp_options import OutputOptions, StorescpOptions, TrialOptions
from support.dcmtk_command_lines import ordinary_user

UNPRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@pytest.fixture
def bound_by_permissions() -> Iterator[None]:
    """Run a test as a user whom permissions bind."""
    with ordinary_user():
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that every user can reach, which folders of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


def storescp(directory: str, *, ignore: bool = False) -> StorescpOptions:
    return StorescpOptions(
        port=11112, output=OutputOptions(directory=directory), trial=TrialOptions(ignore=ignore)
    )


def failure(check: object, options: object) -> StartError:
    with pytest.raises(StartError) as caught:
        check(options)  # type: ignore[operator] # one of four functions
    return caught.value


def test_a_directory_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("", ".", "./", str(tmp_path)):
        assert directory_defect(name, writes=True) == ""
    check_storescp_directory(storescp(str(tmp_path)))
    check_dcmrecv_directory(DcmrecvOptions(port=11112, directory=str(tmp_path)))


@pytest.mark.parametrize(("name", "words"), [("absent", "does not exist"), ("file", "is no directory")])
def test_no_directory(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").touch()
    directory = str(tmp_path / name)
    for ignore in (False, True):
        error = failure(check_storescp_directory, storescp(directory, ignore=ignore))
        assert error.exit_code == 1
        assert words in str(error)
        assert directory in str(error)
    for mode in StorageMode:
        options = DcmrecvOptions(port=11112, directory=directory, storage_mode=mode)
        error = failure(check_dcmrecv_directory, options)
        assert error.exit_code == 45
        assert words in str(error)


@pytest.mark.usefixtures("bound_by_permissions")
def test_a_directory_that_cannot_be_written_to(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir(mode=0o555)
    error = failure(check_storescp_directory, storescp(str(locked)))
    assert error.exit_code == 1
    assert "is not writable" in str(error)
    check_storescp_directory(storescp(str(locked), ignore=True))
    for mode in StorageMode:
        options = DcmrecvOptions(port=11112, directory=str(locked), storage_mode=mode)
        error = failure(check_dcmrecv_directory, options)
        assert error.exit_code == 45
        assert "is not writable" in str(error)


def test_ports_that_everyone_may_use() -> None:
    assert port_defect(PRIVILEGED_PORT_END) == ""
    check_storescp_port(StorescpOptions(port=None, inetd=True))
    check_storescp_port(StorescpOptions(port=65535))
    check_dcmrecv_port(DcmrecvOptions(port=65535))


@pytest.mark.usefixtures("bound_by_permissions")
def test_ports_that_only_root_may_use() -> None:
    if UNPRIVILEGED_PORTS.exists() and int(UNPRIVILEGED_PORTS.read_text()) < PRIVILEGED_PORT_END:
        pytest.skip("every user may use every port here (ip_unprivileged_port_start)")
    error = failure(check_storescp_port, StorescpOptions(port=104))
    assert error.exit_code == 1
    assert "insufficient privileges" in str(error)
    assert "104" in str(error)
    error = failure(check_dcmrecv_port, DcmrecvOptions(port=1023))
    assert error.exit_code == 64
    assert "insufficient privileges" in str(error)


def test_a_port_that_is_taken_is_not_our_business_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("stowkeeper.dcmtk.start_checks.PRIVILEGED_PORT_END", 65536)
        assert port_defect(taken.getsockname()[1]) == ""
