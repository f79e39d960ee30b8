"""`stowkeeper status`: beside a real server and without one, what there is to act on, and when the disk will be full."""

import datetime as dt
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from stowkeeper import __version__
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.running import RunningServer, RunRecord, running_servers
from stowkeeper.app.status.gathering import is_read_only
from stowkeeper.app.status.reckoning import duration, reckon_full
from stowkeeper.database.schema import jobs, receipts, versions
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.jobs.job import JobRequest
from stowkeeper.jobs.submission import submit
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import (
    CommitmentRequest,
    CommitmentRole,
    CommitmentState,
)
from stowkeeper.web.server import ServerTLS
from support.archive_server import open_archive
from support.catalog_rows import open_database
from support.command_line import CommandLine, keep, serving
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.raw_peer import RawPeer
from support.small_filesystem import small_filesystem
from support.tls_fixtures import TLSFiles
from support.web_server import web_rig, web_serving

NOW = "2026-03-10T12:00:00.000000Z"
MIDNIGHT = "2026-03-01T00:00:00.000000Z"


@pytest.fixture(autouse=True)
def _room_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have room on whatever disk the tests run."""
    for name in ("BELOW", "BELOW_INODES"):
        monkeypatch.setenv(f"STOWKEEPER_STORAGE__REFUSE_INSTANCE_{name}", "0")
        monkeypatch.setenv(f"STOWKEEPER_STORAGE__REFUSE_ASSOCIATION_{name}", "0")


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    archive = tmp_path / "archive"
    keep(
        archive,
        make_instance(1),
        make_instance(2, series="1.2.10.2"),
        make_instance(3, study="1.2.11", series="1.2.11.1"),
    )
    return CommandLine(archive, capsys)


@pytest.fixture
def running(stow: CommandLine) -> Iterator[CommandLine]:
    """The archive with the run record of a server, which is this process."""
    (stow.archive / "reserve").touch()
    record = RunRecord(str(stow.archive))
    record.write(
        RunningServer(
            pid=os.getpid(),
            host_name=socket.gethostname(),
            version=__version__,
            started_at=MIDNIGHT,
            dicom_host="::",
            dicom_port=11112,
            http_host=None,
            http_port=None,
            ae_title="ARCHIVE",
            tls=True,
            log_file=None,
            receiver="1-a",
        )
    )
    yield stow
    record.close()


def state_of(stow: CommandLine) -> dict[str, Any]:
    said = stow("status", "--json").out
    # A server within this process may write a line of its log beside it, before or behind.
    state: dict[str, Any] = json.JSONDecoder().raw_decode(said, said.index("{"))[0]
    return state


def to_do(stow: CommandLine) -> str:
    """Return the words of the one thing to act on, after seeing that it says what to do and counts."""
    (one,) = state_of(stow)["to_do"]
    ended = stow("status")
    assert ended.code == ExitCode.FINDINGS
    assert f"  - {one['words']}\n    → {one['mend']}\n" in ended.out
    assert one["mend"]
    return f"{one['words']} {one['mend']}"


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_beside_a_server_and_after_it_was_killed(
    stow: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWKEEPER_STORAGE__SLOT_POOL_SIZE", "16")
    with serving(stow.archive, tmp_path / "serve.log", "--ae-title", "ARCHIVE") as (program, port):
        with RawPeer(port) as peer:
            peer.associate(calling=b"CT1")
            instance = make_instance(9)
            assert peer.store(instance.sop_instance_uid, instance.data).number(0x0900) == 0
            wait_until(lambda: (state_of(stow)["last_received"] or {})["sop_instance_uid"] == "1.2.3.9")
            wait_until(lambda: state_of(stow)["waiting_in_depot"] == 0)
            state = state_of(stow)
            ended = stow("status")
        assert (ended.code, state["to_do"]) == (ExitCode.OK, [])
        (one,) = state["servers"]
        assert one["associations"] == 1
        assert (one["server"]["pid"], one["server"]["dicom_port"]) == (program.pid, port)
        assert one["server"]["log_file"] == str(stow.archive / "log" / "stowkeeper.log")
        assert state["last_received"]["calling_ae_title"] == "CT1"
        assert state["last_received"]["study_instance_uid"] == "1.2.10"
        assert (state["kept"]["instances"], state["kept"]["studies"]) == (4, 2)
        assert (state["waiting_in_depot"], state["in_quarantine"]) == (0, 0)
        assert f"ARCHIVE on 127.0.0.1:{port}, without TLS" in ended.out
        assert "from CT1 at 127.0.0.1 by C-STORE: 1.2.3.9\n" in ended.out
        assert ended.out.endswith("\nNothing to act on.\n")
        assert "Test" not in ended.out + json.dumps(state)  # the patient's name
        wait_until(lambda: state_of(stow)["servers"][0]["associations"] == 0)
        doctor = stow("doctor", "--port", str(port), "--http-port", "off")
        assert f"our own server (pid {program.pid}) listens on port {port}" in doctor.out
        program.process.send_signal(signal.SIGKILL)
        program.process.wait(30)
        ended = stow("status")
        assert ended.code == ExitCode.UNAVAILABLE
        assert ended.out.startswith(f"No server runs on {stow.archive}.\n")
        assert list((stow.archive / "run").iterdir()) == []


@pytest.mark.slow
def test_a_server_that_ends_in_order_takes_its_record_away(
    stow: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWKEEPER_STORAGE__REFUSE_INSTANCE_BELOW", "900 TB")
    with serving(stow.archive, tmp_path / "serve.log") as (program, _port):
        (warned,) = [line for line in program.log_text().splitlines() if "every instance is refused" in line]
        assert f'advice="df -h {stow.archive}' in warned
        (server,) = running_servers(stow.archive)
        assert server.pid == program.pid
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(30) == 0
        assert list((stow.archive / "run").iterdir()) == []
    assert stow("verify").code == ExitCode.OK
    assert stow("rebuild").code == ExitCode.OK


def test_without_a_server_it_tells_what_is_kept(stow: CommandLine) -> None:
    ended = stow("status")
    assert ended.code == ExitCode.UNAVAILABLE
    size = sum(row["size"] for row in stow.list("instances"))
    state = state_of(stow)
    assert (state["is_running"], state["servers"]) == (False, [])
    assert state["kept"] == {"instances": 3, "studies": 2, "bytes": size, "damaged": 0}
    assert "3 instances of 2 studies" in ended.out
    assert state["disk"]["kept_last_day_bytes"] == size
    assert state["version"] == __version__


def test_beside_a_record_it_is_well_and_says_where_it_listens(running: CommandLine) -> None:
    ended = running("status")
    assert ended.code == ExitCode.OK, ended.out
    assert "ARCHIVE on [::]:11112, with TLS" in ended.out
    assert "HTTP           off" in ended.out
    assert "log            to standard error alone" in ended.out
    assert "running since  2026-03-01 00:00:00 UTC, for " in ended.out


@pytest.mark.slow
def test_a_log_that_has_no_place_is_something_to_act_on(running: CommandLine, tmp_path: Path) -> None:
    (first,) = running_servers(running.archive)
    with small_filesystem(tmp_path, size=2 << 20, inodes=20) as disk:
        folder = disk / "log"
        folder.mkdir()
        another = RunRecord(str(running.archive))
        another.write(replace(first, log_file=str(folder / "stowkeeper.log")))
        try:
            assert state_of(running)["to_do"] == []
            (disk / "filler").write_bytes(bytes(3 << 19))
            assert f"the disk of the log folder {folder} is full, and log lines are lost" in to_do(running)
            folder.rmdir()
            assert f"the log folder {folder} is gone, so what the server logs is lost" in to_do(running)
        finally:
            another.close()


def test_several_servers_of_a_shared_archive_are_told(running: CommandLine) -> None:
    (first,) = running_servers(running.archive)
    second = RunRecord(str(running.archive))
    second.write(
        RunningServer(**{name: getattr(first, name) for name in first.__slots__} | {"dicom_port": 11113})
    )
    try:
        ended = running("status")
    finally:
        second.close()
    assert ended.out.startswith(f"2 servers run on {running.archive}.\n")
    assert "[::]:11112" in ended.out
    assert "[::]:11113" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_what_the_server_alone_knows_it_is_asked_for(
    running: CommandLine, capsys: pytest.CaptureFixture[str], tmp_path: Path, host: str
) -> None:
    ask_one_that_closed_its_door(running, capsys, tmp_path / "other", http_host=host)


@pytest.mark.slow
@pytest.mark.peer("openssl")
def test_it_is_asked_in_the_way_that_it_started_with(
    running: CommandLine, capsys: pytest.CaptureFixture[str], tmp_path: Path, tls_files: TLSFiles
) -> None:
    tls = ServerTLS(certificate=tls_files.server.certificate, key=tls_files.server.key)
    out = ask_one_that_closed_its_door(
        running, capsys, tmp_path / "other", tls, http_host="127.0.0.1", http_tls=True
    )
    assert ", with TLS\n" in out


def ask_one_that_closed_its_door(
    running: CommandLine,
    capsys: pytest.CaptureFixture[str],
    root: Path,
    tls: ServerTLS | None = None,
    **said: object,
) -> str:
    """Ask for the status of an archive whose server says that it is not ready; return the screen of it."""
    archive = open_archive(root)
    with web_rig(root, archive=archive) as rig, web_serving(rig.application, tls=tls) as web:
        (server,) = running_servers(running.archive)
        record = RunRecord(str(root))
        record.write(replace(server, http_port=web.port, **said))  # it listens here alone, whatever is said
        (root / "reserve").touch()
        stow = CommandLine(root, capsys)
        assert state_of(stow)["to_do"] == []
        archive.admission.distrust("the disk failed to sync")
        assert f"the server with pid {os.getpid()} is not ready: the disk failed to sync" in to_do(stow)
        out = stow("status").out
        record.close()
    archive.close()
    return out


def test_a_server_that_does_not_answer_is_told(running: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stowkeeper.app.status.readiness.READINESS_SECONDS", 0.1)
    (server,) = running_servers(running.archive)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        record = RunRecord(str(running.archive))
        record.write(replace(server, http_host="127.0.0.1", http_port=silent.getsockname()[1]))
        assert "did not answer at its HTTP port within 0.1 seconds: it may hang" in to_do(running)
        record.close()
    with monkeypatch.context() as patched:
        patched.setattr(RunningServer, "is_here", False)
        assert state_of(running)["to_do"] == []


def test_a_server_of_another_version_is_to_be_restarted(
    running: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stowkeeper.app.status.gathering.__version__", "99")
    assert "99 is installed: restart it" in to_do(running)


def test_marks_reached_are_named(running: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOWKEEPER_STORAGE__REFUSE_INSTANCE_BELOW", "900 TB")
    assert "the disk is at its mark (storage.refuse_instance_below)" in to_do(running)
    assert state_of(running)["disk"]["full"]["words"].startswith("now: ")


def test_a_disk_that_is_mounted_read_only_is_named(
    running: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = os.statvfs

    def read_only(path: str) -> os.statvfs_result:
        found = asked(path)
        return os.statvfs_result((*found[:8], found.f_flag | os.ST_RDONLY, *found[9:]))

    assert state_of(running)["to_do"] == []
    monkeypatch.setattr(os, "statvfs", read_only)
    assert "the disk is read-only" in to_do(running)


def test_a_disk_that_the_kernel_gave_up_is_read_only(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /srv rw,relatime shared:1 - ext4 /dev/sda1 rw"
    mounts.write_text(f"{line}\n")
    assert not is_read_only(str(tmp_path), str(mounts))
    mounts.write_text(f"{line},abort,emergency_ro\n")
    assert is_read_only(str(tmp_path), str(mounts))


def test_a_reserve_that_was_released_is_named(running: CommandLine) -> None:
    (running.archive / "reserve").unlink()
    said = to_do(running)
    assert "the reserve was released" in said
    assert "as soon as 134.2 MB are free" in said  # that of the settings and the margin beside it


@pytest.mark.slow
def test_jobs_that_failed_or_fail_are_counted_and_the_oldest_speaks(running: CommandLine) -> None:
    with open_database(running.archive) as database:
        with database.write() as transaction:
            keys = [
                submit(transaction, JobRequest(kind="store", arguments={}, peer=peer)).job_key
                for peer in ("pacs", "mr", "later")
            ]
        with database.write() as transaction:
            changes: list[dict[str, Any]] = [
                {"state": "failure", "finished_at": NOW, "error": "the peer refuses"},
                {"state": "retry", "error": "nobody answers"},
                {"due_at": "2099-01-01T00:00:00.000000Z"},
            ]
            for key, values in zip(keys, changes, strict=True):
                transaction.execute(update(jobs).where(jobs.c.job_key == key).values(**values))
    state = state_of(running)
    counts = {name: number for name, number in state["jobs"].items() if name != "oldest"}
    assert counts == {"running": 0, "waiting": 0, "later": 1, "paused": 0, "retrying": 1, "failed": 1}
    assert (state["jobs"]["oldest"]["peer"], state["jobs"]["oldest"]["error"]) == ("pacs", "the peer refuses")
    assert "jobs failed: 1 stowkeeper jobs ls --state failure" in to_do(running)
    with open_database(running.archive) as database, database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.job_key == keys[0]).values(state="success"))
    assert state_of(running)["to_do"] == []
    with open_database(running.archive) as database, database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.job_key == keys[1]).values(created_at=MIDNIGHT))
    assert "again and again" in to_do(running)
    assert "store with mr, retry, of 2026-03-01 00:00:00 UTC: nobody answers" in running("status").out
    with open_database(running.archive) as database, database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.job_key == keys[1]).values(state="success"))
    assert state_of(running)["jobs"]["oldest"] is None
    with open_database(running.archive) as database, database.write() as transaction:
        transaction.execute(update(jobs).where(jobs.c.job_key == keys[2]).values(due_at=MIDNIGHT))
    state = state_of(running)
    assert (state["jobs"]["waiting"], state["jobs"]["oldest"]["peer"], state["to_do"]) == (1, "later", [])


@pytest.mark.slow
def test_reports_that_nobody_took_are_to_be_acted_on(running: CommandLine) -> None:
    with open_database(running.archive) as database, database.write() as transaction:
        for uid, state in (("1.1", CommitmentState.UNDELIVERED), ("1.2", CommitmentState.RECEIVED)):
            request = CommitmentRequest(
                role=CommitmentRole.PROVIDER,
                way="DIMSE",
                transaction_uid=uid,
                state=state,
                requested_at=MIDNIGHT,
            )
            rows.insert(
                transaction, request, [Reference(sop_class_uid=CT_IMAGE_STORAGE, sop_instance_uid="1.2.3.1")]
            )
    assert state_of(running)["commitments"] == {
        "unreported": 1,
        "undelivered": 1,
        "oldest_unreported_at": MIDNIGHT,
    }
    assert "given up: 1" in to_do(running)


@pytest.mark.slow
def test_damaged_files_and_the_quarantine(running: CommandLine) -> None:
    (running.archive / "quarantine").mkdir()
    for name in ("1.dcm", "1.dcm.txt", "2.dcm"):
        (running.archive / "quarantine" / name).touch()
    assert (state_of(running)["in_quarantine"], state_of(running)["to_do"]) == (2, [])
    with open_database(running.archive) as database, database.write() as transaction:
        transaction.execute(update(versions).where(versions.c.version_key == 1).values(state="damaged"))
    assert "damaged and put into quarantine: 1" in to_do(running)


def test_what_is_kept_and_not_listed_yet_is_counted_in_the_depot(stow: CommandLine) -> None:
    folder = stow.archive / "depot" / "1-a"
    folder.mkdir(parents=True)
    whole = stow.path_of("1.2.3.1").read_bytes()
    (folder / "1").write_bytes(whole)
    (folder / "2").write_bytes(bytes(len(whole)))  # on its way: its receipt is written last
    (folder / "3").touch()
    assert state_of(stow)["waiting_in_depot"] == 1


def test_a_catalog_that_cannot_be_read_hides_nothing_else(running: CommandLine) -> None:
    (running.archive / "catalog.sqlite").write_bytes(b"no catalog" * 100)
    words = to_do(running)
    assert "the catalog cannot be read" in words
    assert "stowkeeper doctor" in words
    state = state_of(running)
    assert (state["kept"], state["jobs"], state["last_received"]) == (None, None, None)
    assert state["disk"]["free_bytes"]
    assert "not known" in running("status").out


def test_settings_that_were_broken_while_the_server_runs_are_something_to_act_on(
    running: CommandLine,
) -> None:
    (running.archive / "stowkeeper.toml").write_text("[dicom\n")
    # The marks are those of a new installation then, and the disk of the tests may be below them.
    first = state_of(running)["to_do"][0]
    assert "the settings cannot be used" in first["words"]
    assert first["mend"] == f"stowkeeper check-config --archive {running.archive}"
    assert running("status").code == ExitCode.FINDINGS
    assert running("status", "--config", str(running.archive / "stowkeeper.toml")).code == ExitCode.FINDINGS


def test_where_there_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stow = CommandLine(tmp_path / "nowhere", capsys)
    ended = stow("status")
    assert (ended.code, "there is no archive in" in ended.err) == (ExitCode.NO_INPUT, True)
    assert not (tmp_path / "nowhere").exists()


# When the disk will be full.


def reckoned(**changes: Any) -> tuple[str | None, str]:
    facts: dict[str, Any] = {
        "free_bytes": 110 * 10**9,
        "mark_bytes": 10 * 10**9,
        "kept_last_day": 10 * 10**9,
        "first_received_at": MIDNIGHT,
        "now": NOW,
    }
    reckoning = reckon_full(**(facts | changes))
    return reckoning.full_at, reckoning.words


def test_when_the_disk_is_full_at_the_rate_of_the_last_day() -> None:
    assert reckoned() == (
        "2026-03-20T12:00:00Z",
        "on 2026-03-20, in 10 days: 10.0 GB of the last 24 h are kept, and 100.0 GB are left above the mark",
    )
    assert reckoned(kept_last_day=10**3)[0] is None
    assert reckoned(kept_last_day=0) == (None, "not in sight: nothing of the last 24 h is kept")
    assert reckoned(free_bytes=10**9)[0] == NOW
    assert reckoned(first_received_at=None)[1] == "not enough data: nothing was received yet"
    young = "2026-03-10T09:30:00.000000Z"
    assert reckoned(first_received_at=young)[1] == "not enough data: the first instance came 2 h 30 min ago"


def test_the_rate_is_that_of_the_last_day_alone(stow: CommandLine) -> None:
    sizes = {row["sop_instance_uid"]: row["size"] for row in stow.list("instances")}
    old = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=25)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    with open_database(stow.archive) as database, database.write() as transaction:
        transaction.execute(update(receipts).where(receipts.c.receipt_key == 1).values(received_at=old))
        transaction.execute(update(versions).where(versions.c.version_key == 2).values(state="removed"))
    disk = state_of(stow)["disk"]
    assert disk["kept_last_day_bytes"] == sizes["1.2.3.3"]
    # So little that no year is in sight, or on a small disk a date.
    assert "are left above the mark" in disk["full"]["words"]
    assert abs(disk["free_bytes"] - FileSystem().free_space(str(stow.archive)).bytes) < 10**12


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (61, "1 min"),
        (3700, "1 h 1 min"),
        (90_000, "1 day 1 h"),
        (10 * 86400, "10 days"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
