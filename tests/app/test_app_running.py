"""The run record: it is there and locked while its process lives, and whoever finds a dead one takes it away."""

import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from stowkeeper.app.running import RunningServer, RunRecord, running_servers
from stowkeeper.archive.folder import foreign_names

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def server(**changes: object) -> RunningServer:
    facts: dict[str, object] = {
        "pid": os.getpid(),
        "host_name": socket.gethostname(),
        "version": "1",
        "started_at": "2026-03-01T00:00:00.000000Z",
        "dicom_host": "127.0.0.1",
        "dicom_port": 11112,
        "http_host": None,
        "http_port": None,
        "ae_title": "STOWKEEPER",
        "tls": False,
        "log_file": None,
        "receiver": "1-a",
    }
    return RunningServer(**(facts | changes))  # type: ignore[arg-type]  # they are, in every test


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "archive" / "objects").mkdir(parents=True, mode=0o750)
    return tmp_path / "archive"


@pytest.fixture
def record(root: Path) -> Iterator[RunRecord]:
    made = RunRecord(str(root))
    yield made
    made.close()


def names(root: Path) -> list[str]:
    return sorted(os.listdir(root / "run"))


def child(work: Callable[[], None]) -> int:
    """Do something in a child by fork that dies without an end; return its pid when it is dead."""

    def live() -> NoReturn:
        try:
            work()
        finally:
            os._exit(0)

    pid = os.fork()
    if not pid:
        live()
    os.waitpid(pid, 0)
    return pid


def test_a_record_is_there_from_its_writing_to_its_end(root: Path, record: RunRecord) -> None:
    assert running_servers(root) == []
    told = server(http_host="::1", http_port=8042, http_tls=True, log_file="/log/stowkeeper.log", tls=True)
    record.write(told)
    (found,) = running_servers(root)
    assert found == told
    assert found.is_here
    assert names(root) == [f"{socket.gethostname()}-{os.getpid()}.json"]
    assert (root / "run").stat().st_mode & 0o777 == 0o750
    assert Path(record.path).stat().st_mode & 0o777 == 0o640
    assert json.loads(Path(record.path).read_text())["pid"] == os.getpid()
    record.close()
    record.close()
    assert names(root) == []
    assert not server(host_name="elsewhere").is_here


def test_the_record_of_a_dead_process_is_taken_away_by_whoever_finds_it(root: Path) -> None:
    pid = child(lambda: RunRecord(str(root)).write(server(pid=os.getpid())))
    (root / "run" / f".half-{pid}.json").write_text("")  # died while it wrote
    assert f"{socket.gethostname()}-{pid}.json" in names(root)
    assert running_servers(root) == []
    assert names(root) == []


def test_a_child_by_fork_does_not_keep_the_record_of_its_parent_alive(root: Path) -> None:
    ours, theirs = os.pipe()

    def parent() -> None:
        made = RunRecord(str(root))
        made.write(server(pid=os.getpid()))
        if not os.fork():
            os.close(theirs)
            os.read(ours, 1)  # lives until the test is over

    child(parent)
    try:
        assert running_servers(root) == []
    finally:
        os.close(theirs)
        os.close(ours)


def test_several_servers_are_told_the_oldest_first_and_none_takes_the_name_of_another(root: Path) -> None:
    # Containers may have one host name and one pid.
    records = [RunRecord(str(root)) for _ in range(3)]
    times = [f"2026-03-0{day}T00:00:00.000000Z" for day in (2, 3, 1)]
    try:
        for made, started_at in zip(records, times, strict=True):
            made.write(server(started_at=started_at))
        assert [found.started_at for found in running_servers(root)] == sorted(times)
        records[1].close()
        assert [found.started_at for found in running_servers(root)] == [times[2], times[0]]
        assert len(names(root)) == 2
    finally:
        for made in records:
            made.close()
    assert names(root) == []


def test_a_dead_record_makes_way_for_a_server_of_the_same_name(root: Path, record: RunRecord) -> None:
    child(lambda: RunRecord(str(root)).write(server(version="0")))
    record.write(server(version="1"))
    assert [found.version for found in running_servers(root)] == ["1"]
    assert len(names(root)) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "x" * 100_000])
def test_what_is_no_record_counts_for_nothing(root: Path, content: str) -> None:
    (root / "run").mkdir()
    path = root / "run" / "host-1.json"
    path.write_text(content)
    (root / "run" / "README").write_text("left alone")
    with path.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert running_servers(root) == []
    assert names(root) == ["README", "host-1.json"]


def test_a_later_version_may_say_more(root: Path, record: RunRecord) -> None:
    record.write(server())
    path = Path(record.path)
    said = {**json.loads(path.read_text()), "colour": "blue"}
    with path.open("w") as stream:
        json.dump(said, stream)
    assert running_servers(root) == [server()]


def test_a_host_name_of_any_letters_makes_a_name_in_the_folder(root: Path, record: RunRecord) -> None:
    record.write(server(host_name="../../köln pacs", pid=7))
    assert names(root) == ["_._.._k_ln_pacs-7.json"]


def test_it_is_no_foreign_thing_in_the_folder_of_an_archive() -> None:
    assert foreign_names(["run", "log", "elsewhere"]) == ["elsewhere"]


@needs_root
def test_who_may_only_read_learns_who_runs_and_leaves_dead_records_be() -> None:
    with tempfile.TemporaryDirectory(prefix="running-") as place:
        root = Path(place, "archive")
        Path(place).chmod(0o755)
        (root / "objects").mkdir(parents=True)
        for folder in (root, root / "objects"):
            folder.chmod(0o755)
        record = RunRecord(str(root))
        record.write(server(receiver="alive"))
        pid = child(lambda: RunRecord(str(root)).write(server(pid=os.getpid())))
        os.seteuid(NOBODY)
        try:
            assert [found.receiver for found in running_servers(root)] == ["alive"]
        finally:
            os.seteuid(0)
        assert any(str(pid) in name for name in names(root))
        record.close()
        (root / "run").chmod(0o700)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError):
                running_servers(root)
        finally:
            os.seteuid(0)
