"""Real servers as services: told of over a notify socket, taken over on their sockets, and detached with a pid file."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.service.daemon import LAST_START_FILE, OUTPUT_FILE, PID_FILE, Daemon
from stowkeeper.database.engine import Database
from stowkeeper.database.migration_plan import plan_migration
from stowkeeper.database.migrations import HEAD
from stowkeeper.durable.server_lock import ServerLock
from support import forked
from support.command_line import CommandLine, environment, program, serving
from support.crash_checks import depot_files, until
from support.instances import make_instance
from support.older_databases import make_database_of
from support.processes import Program
from support.raw_peer import COMMAND, LAST, RawPeer, data_set_pdus, p_data, store_command
from support.server_process import kept_instances

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32", reason="services are for systems with signals and unix sockets"
    ),
]
SMALL = {"STOWKEEPER_STORAGE__SLOT_POOL_SIZE": "4", "STOWKEEPER_STORAGE__RESERVE_SIZE": "0"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SMALL, "STOWKEEPER_HTTP__PORT": "off"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def heard_until(listening: socket.socket, word: str) -> list[list[str]]:
    """Return the messages up to the one that has a word."""
    messages: list[list[str]] = []
    while not messages or word not in messages[-1]:
        messages.append(listening.recv(4096).decode().split("\n"))
    return messages


# Notify


def test_a_service_manager_hears_of_all_that_a_server_does(
    tmp_path: Path, notified: socket.socket, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", notified.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    archive = tmp_path / "archive"
    with serving(archive, tmp_path / "serve.log") as (server, port):
        ready = heard_until(notified, "READY=1")
        assert ["STATUS=Opening the archive"] in ready
        assert ready[-1][1] == f"STATUS=Receiving on 127.0.0.1:{port} as STOWKEEPER, 0 associations"
        with RawPeer(port) as peer:
            peer.associate()
            assert peer.store("1.2.3.1", make_instance(1).data).status == 0
            counted = heard_until(
                notified, f"STATUS=Receiving on 127.0.0.1:{port} as STOWKEEPER, 1 association"
            )
            assert ["WATCHDOG=1"] in counted
            server.process.send_signal(signal.SIGHUP)
            reloaded = heard_until(notified, "READY=1")
            assert [message[0] for message in reloaded if message != ["WATCHDOG=1"]] == [
                "RELOADING=1",
                "READY=1",
            ]
        server.process.send_signal(signal.SIGTERM)
        stopping = heard_until(notified, "STOPPING=1")
        assert stopping[-1][1].startswith("STATUS=Stopping: ")
        assert server.process.wait(30) == 0


# Sockets


HANDING_OVER = (
    "import os, sys; count = int(sys.argv[1]); given = [os.dup(int(number)) for number in sys.argv[2 : 2 + count]]\n"
    "for number, descriptor in enumerate(given): os.dup2(os.dup2(descriptor, 100 + number), 3 + number)\n"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES='dicom:http'[: 5 * count])\n"
    "os.execv(sys.argv[2 + count], sys.argv[2 + count :])"
)


@contextlib.contextmanager
def activated(archive: Path, log: Path, *listeners: socket.socket) -> Iterator[Program]:
    """Run a server that gets listening sockets as systemd hands them over: from descriptor 3 on, and told of in variables."""
    numbers = [each.fileno() for each in listeners]
    serve = program("serve", "--archive", archive, *(["--http-port", "0"] if len(listeners) > 1 else []))
    handing = [sys.executable, "-I", "-S", "-c", HANDING_OVER, str(len(numbers)), *map(str, numbers), *serve]
    with log.open("wb") as output:
        process = forked.start(
            handing,
            from_scratch=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(), **SMALL},
            pass_fds=numbers,
            start_new_session=True,
        )
    server = Program(name="stowkeeper", process=process, log=log)
    try:
        yield server
    finally:
        server.stop()


def test_nobody_is_refused_while_one_server_follows_another(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    first, second = (make_instance(number, size=50_000) for number in (1, 2))
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=50))
        http = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port, http_port = listener.getsockname()[1], http.getsockname()[1]
        # Who comes before any server does is not refused either.
        early = stack.enter_context(RawPeer(port))
        old = stack.enter_context(activated(archive, tmp_path / "old.log", listener))
        early.associate()
        command = store_command(first.sop_instance_uid)
        pdus = data_set_pdus(1, first.data)
        early.send(p_data(1, command, control=COMMAND | LAST) + pdus[:20_000])
        until(lambda: "what=accepted" in old.log_text())
        old.process.send_signal(signal.SIGTERM)
        until(lambda: "what=stopping" in old.log_text())
        new = stack.enter_context(activated(archive, tmp_path / "new.log", listener, http))
        late = stack.enter_context(RawPeer(port))
        until(lambda: "waiting for the server before this one to end" in new.log_text())
        assert old.process.poll() is None, "it drains: an instance is on its way"
        early.send(pdus[20_000:])
        assert early.read_answer().status == 0
        early.close()
        assert old.process.wait(30) == 0
        late.associate()
        assert late.store(second.sop_instance_uid, second.data).status == 0
        late.release()
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/api/live", timeout=30) as answer:
            assert answer.status == 200
        until(lambda: f"dicom=127.0.0.1:{port} " in new.log_text())
        new.process.send_signal(signal.SIGTERM)
        assert new.process.wait(30) == 0
    assert set(kept_instances(archive)) == {first.sop_instance_uid, second.sop_instance_uid}
    assert depot_files(archive) == []


def test_a_newer_version_changes_the_schema_only_when_the_server_before_it_has_ended(tmp_path: Path) -> None:
    """That one still writes what it answers, by the schema that it knows. Here the test itself holds its place."""
    archive = tmp_path / "archive"
    archive.mkdir()
    catalog = archive / "catalog.sqlite"
    make_database_of("0004", catalog)

    def revision() -> str | None:
        with contextlib.closing(
            Database.open_as_it_is(str(catalog), lock_path=f"{catalog}.lock")
        ) as database:
            return plan_migration(database).revision

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=50))
        before = ServerLock(str(archive / "server.lock"), shared=False)
        stack.callback(before.release)
        new = stack.enter_context(activated(archive, tmp_path / "new.log", listener))
        late = stack.enter_context(RawPeer(listener.getsockname()[1]))
        until(lambda: "waiting for the server before this one to end" in new.log_text())
        assert revision() == "0004"
        assert list(archive.glob("catalog.sqlite.before-*")) == []
        before.release()
        late.associate()
        assert late.store("1.2.3.1", make_instance(1).data).status == 0
        late.release()
        assert revision() == HEAD
        assert len(list(archive.glob("catalog.sqlite.before-*"))) == 1
        new.process.send_signal(signal.SIGTERM)
        assert new.process.wait(30) == 0
    assert set(kept_instances(archive)) == {"1.2.3.1"}


# The detached server


@pytest.fixture
def line(tmp_path: Path, capfd: pytest.CaptureFixture[str], small: None) -> Iterator[CommandLine]:
    made = CommandLine(tmp_path / "archive", capfd)
    yield made
    number = Daemon(made.archive).process_id()
    if number is not None:
        os.kill(number, signal.SIGKILL)


def test_a_detached_server_from_its_start_to_its_end(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(line.archive)
    nothing = line("service stop", "--daemon")
    assert nothing.code == ExitCode.OK
    assert "if its disk is away, a server of it may run all the same" in nothing.out
    monkeypatch.setenv("STOWKEEPER_STORAGE__FOLDER_MODE", "0710")
    monkeypatch.setenv("STOWKEEPER_STORAGE__FILE_MODE", "0664")
    started = line("service start", "--daemon", "--port", "0", "--ae-title", "DAEMON")
    assert started.code == ExitCode.OK, started.err
    first = daemon.process_id()
    assert f"runs as process {first}" in started.out
    made = (line.archive, line.archive / "run", line.archive / "log", line.archive / "objects")
    assert [folder.stat().st_mode & 0o777 for folder in made] == [0o710] * 4
    left = (daemon.folder / PID_FILE, daemon.folder / LAST_START_FILE, line.archive / "log" / OUTPUT_FILE)
    # Not as the settings say to the last bit: who writes there has a say in what is started or ended.
    assert [path.stat().st_mode & 0o777 for path in left] == [0o644] * 3
    assert os.getsid(first or 0) == first, "its own session: the end of a terminal is not its end"
    assert "aet=DAEMON" in (line.archive / "log" / "daemon.out").read_text()
    until(lambda: "what=ready" in line("service logs", "--daemon").out)

    refused = line("service start", "--daemon", "--port", "0")
    assert refused.code == ExitCode.TRY_AGAIN
    assert f"runs already, as process {first}" in refused.err
    assert f"`stowkeeper service stop --archive {line.archive}` ends it" in refused.err
    assert daemon.process_id() == first

    with (line.archive / "log" / "daemon.out").open("a") as output:
        output.write("the words of a crash\n")
    os.kill(first or 0, signal.SIGKILL)
    until(lambda: daemon.process_id() is None)
    status = line("service status", "--daemon")
    assert status.out.startswith("Detached: no process.\n")
    assert status.code == ExitCode.UNAVAILABLE

    restarted = line("service restart", "--daemon")
    assert restarted.code == ExitCode.OK, restarted.err
    second = daemon.process_id()
    assert second not in {None, first}
    assert "aet=DAEMON" in (line.archive / "log" / "daemon.out").read_text(), (
        "with the options of the last start"
    )
    assert "the words of a crash" in (line.archive / "log" / "daemon.out.1").read_text()
    assert f"Detached: process {second}." in line("service status", "--daemon").out

    stopped = line("service stop", "--daemon")
    assert (stopped.code, stopped.out) == (ExitCode.OK, f"The server, process {second}, has ended.\n")
    assert daemon.process_id() is None
    assert "what=stopped" in line("service logs", "--daemon", "-n", "1").out


def test_a_pid_file_of_a_dead_process_names_nobody_even_when_its_number_lives_again(
    line: CommandLine,
) -> None:
    """The number of a dead process is given to another one sooner or later: here to this one."""
    daemon = Daemon(line.archive)
    daemon.folder.mkdir(parents=True)
    (daemon.folder / PID_FILE).write_text(f"{os.getpid()}\n")
    assert daemon.process_id() is None
    stopped = line("service stop", "--daemon")
    assert stopped.code == ExitCode.OK, "nobody was signalled: this test still runs"
    assert line("service status", "--daemon").out.startswith("Detached: no process.\n")


def test_a_server_that_does_not_get_ready_is_reported_with_its_words(line: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = line("service start", "--daemon", "--port", port)
    assert ended.code == ExitCode.UNAVAILABLE
    assert "the server did not get ready, and ended with exit code 69. It said:\n" in ended.err
    assert f"cannot listen on 127.0.0.1, port {port}" in ended.err
    assert Daemon(line.archive).process_id() is None
    (line.archive / "stowkeeper.toml").write_text("[dicom]\nport = 'x'\n")
    assert line("service start", "--daemon").code == ExitCode.SETTINGS


def test_a_server_that_is_told_to_stop_while_it_starts_has_no_fault(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one that does not hear of signals yet.
    monkeypatch.setattr(
        "stowkeeper.app.service.daemon.program", lambda: ("/bin/sh", "-c", "kill -TERM $$; sleep 60")
    )
    ended = line("service start", "--daemon")
    assert (ended.code, ended.err) == (
        ExitCode.TRY_AGAIN,
        "Error: the server was told to stop before it was ready, and has ended.\n",
    )
