"""The process models of `stowkeeper storescp`: one after the other, a child for each, and one for a super server."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import forked
from support.dropin import instance, listens, program_of, receiving, run_to_end, wait_for
from support.inetd import ConnectedPeer, connected_pair, served_by_inetd
from support.processes import free_port, running
from support.raw_peer import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    RELEASE_RP,
    PeerClosed,
    RawPeer,
)

pytestmark = pytest.mark.slow

# One after the other


def test_one_association_at_a_time(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver, RawPeer(receiver.port) as first, RawPeer(receiver.port) as second:
        assert first.associate().kind == ASSOCIATE_AC
        second.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.associate()
        assert first.release().kind == RELEASE_RP  # and it does not close
        second.socket.settimeout(10)
        assert second.read_association_answer().kind == ASSOCIATE_AC
        assert receiver.children() == {}


# A child for each


def test_associations_at_once_in_children_of_their_own(tmp_path: Path) -> None:
    with receiving(tmp_path, "--fork", "-v") as receiver:
        peers = [RawPeer(receiver.port) for _ in range(3)]
        for number, peer in enumerate(peers):
            assert peer.associate().kind == ASSOCIATE_AC
            assert peer.store(f"1.2.3.{number}", instance(number).data).status == 0
        children = set(receiver.children())
        assert len(children) == 3
        for peer in peers:
            assert peer.release().kind == RELEASE_RP
            peer.close()
        receiver.wait_until(lambda: not receiver.children(), "before the children were gone, zombies too")
        assert receiver.files() == ["CT.1.2.3.0", "CT.1.2.3.1", "CT.1.2.3.2"]
        assert all(str(child) in receiver.log() for child in children)
        assert receiver.is_serving()


def test_children_have_a_study_of_their_own(tmp_path: Path) -> None:
    with receiving(tmp_path, "--fork", "-ss", "s") as receiver:
        for number in (1, 2):
            assert receiver.store(instance(number), instance(10 + number)) == [0, 0]
        folders = {name.partition("/")[0] for name in receiver.files()}
        assert len(folders) == 2
        assert len(receiver.files()) == 4


def test_a_child_does_not_hold_the_port(tmp_path: Path) -> None:
    with receiving(tmp_path, "--fork") as receiver, RawPeer(receiver.port) as peer:
        assert peer.associate().kind == ASSOCIATE_AC
        (child,) = receiver.children()
        sockets = [os.readlink(path) for path in Path(f"/proc/{child}/fd").iterdir()]
        assert len([each for each in sockets if each.startswith("socket:")]) == 1
        receiver.signal(signal.SIGTERM)
        assert receiver.wait() == -signal.SIGTERM
        assert peer.store("1.2.3.1", instance(1).data).status == 0, "its association goes on"
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", receiver.port))
            again.listen()
        assert peer.release().kind == RELEASE_RP


def test_the_parent_does_not_hold_the_connections(tmp_path: Path) -> None:
    with receiving(tmp_path, "--fork") as receiver:
        for _ in range(5):
            with RawPeer(receiver.port) as peer:
                peer.associate()
                peer.release()
                peer.socket.shutdown(socket.SHUT_WR)
                assert peer.socket.recv(1) == b""
        descriptors = list(Path(f"/proc/{receiver.pid}/fd").iterdir())
        sockets = [path for path in descriptors if os.readlink(path).startswith("socket:")]
        assert len(sockets) == 1


def test_a_child_waits_for_the_peer_to_close_and_no_longer_than_for_a_request(tmp_path: Path) -> None:
    with receiving(tmp_path, "--fork", "-ta", "1") as receiver, RawPeer(receiver.port) as peer:
        peer.associate()
        began = time.monotonic()
        assert peer.release().kind == RELEASE_RP
        assert peer.socket.recv(1) == b""
        assert time.monotonic() - began >= 0.9
        receiver.wait_until(lambda: not receiver.children(), "before the child was gone")


def test_a_child_that_was_killed_is_forgotten(tmp_path: Path) -> None:
    with receiving(tmp_path, "--fork") as receiver:
        with RawPeer(receiver.port) as peer:
            peer.associate()
            (child,) = receiver.children()
            os.kill(child, signal.SIGKILL)
            receiver.wait_until(lambda: not receiver.children(), "before the zombie was gone")
        assert receiver.is_serving()


# One for a super server


@pytest.mark.parametrize("options", [["-d"], ["-v", "+ac"]])
def test_one_connection_of_a_super_server(tmp_path: Path, options: list[str]) -> None:
    command = f"echo noise; echo noise >&2; echo #f >> {tmp_path}/record"
    out = tmp_path / "out"
    out.mkdir()
    with served_by_inetd(*options, "-od", out, "-xcr", command, "-xs") as served:
        peer = served.peer
        assert peer.associate().kind == ASSOCIATE_AC
        assert peer.store("1.2.3.1", instance(1).data).status == 0
        assert peer.echo().status == 0
        assert peer.release().kind == RELEASE_RP
        assert served.end() == 0
        assert served.output == b"", "who printed it to the descriptors would print to the peer"
    assert [path.name for path in out.iterdir()] == ["CT.1.2.3.1"]
    assert (tmp_path / "record").read_text() == "CT.1.2.3.1\n"


def test_nothing_of_what_is_printed_reaches_the_peer(tmp_path: Path) -> None:
    """A super server puts the connection on all three descriptors."""
    ours, theirs = connected_pair(socket.AF_INET)
    with ours, theirs:
        argv = program_of("storescp", "--inetd", "-d", "-od", tmp_path, "-xcr", "echo noise", "-xs")
        process = forked.start(argv, stdin=theirs, stdout=theirs, stderr=theirs)
        theirs.close()
        peer = ConnectedPeer(ours)
        assert peer.associate().kind == ASSOCIATE_AC
        assert peer.store("1.2.3.1", instance(1).data).status == 0
        assert peer.release().kind == RELEASE_RP
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.socket.recv(100) == b""
        assert process.wait(30) == 0


def test_a_log_file_tells_of_a_super_servers_connection(tmp_path: Path) -> None:
    out, log, configuration = tmp_path / "out", tmp_path / "log", tmp_path / "logger.cfg"
    out.mkdir()
    configuration.write_text(
        "log4cplus.rootLogger = INFO, file\n"
        f"log4cplus.appender.file = log4cplus::FileAppender\nlog4cplus.appender.file.File = {log}\n"
    )
    with served_by_inetd("-lc", configuration, "-od", out) as served:
        served.peer.associate()
        served.peer.release()
        assert served.end() == 0
    assert "Association Release" in log.read_text()


@pytest.mark.parametrize("how", ["closed", "rejected"])
def test_a_connection_of_a_super_server_that_comes_to_nothing(tmp_path: Path, how: str) -> None:
    with served_by_inetd("-od", tmp_path, "--refuse") as served:
        if how == "rejected":
            assert served.peer.associate().kind == ASSOCIATE_RJ
        assert served.end() == 0
        assert served.output == b""


def test_what_is_no_connection_is_no_super_servers(tmp_path: Path) -> None:
    run = run_to_end("storescp", "--inetd", "-od", tmp_path)
    assert run.returncode == 99
    assert "standard input is no connection" in run.stderr
    with served_by_inetd("-od", tmp_path, family=socket.AF_UNIX) as served:
        assert served.end() == 99
    closed = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *program_of("storescp", "--inetd", "-od", tmp_path)]
    ended = subprocess.run(closed, capture_output=True, text=True, check=False)
    assert ended.returncode == 99
    assert "standard input is no connection" in ended.stderr


def test_what_goes_wrong_before_is_an_exit_code_and_no_word_to_the_peer(tmp_path: Path) -> None:
    with served_by_inetd("-od", tmp_path / "nowhere") as served:
        assert served.end() == 1
    with served_by_inetd("--fork", "-od", tmp_path) as served:
        assert served.end() == 1


def test_a_signal_ends_what_a_super_server_started(tmp_path: Path) -> None:
    with served_by_inetd("-od", tmp_path) as served:
        served.peer.associate()
        served.process.terminate()
        wait_for(lambda: served.process.poll() is not None, "for its end")
        assert served.process.returncode == -signal.SIGTERM


# Tables of hosts

_WITH_TABLES = """
import sys
from stowkeeper.dcmtk import host_access, storescp_program
allow, deny, *arguments = sys.argv[1:]
asked = host_access.check_host_access
storescp_program.check_host_access = lambda client: asked(client, allow_table=allow, deny_table=deny)
sys.exit(storescp_program.run(arguments))
"""


@pytest.mark.parametrize("model", ["--single-process", "--fork"])
def test_tables_of_hosts(tmp_path: Path, model: str) -> None:
    allow, deny, out, log = (tmp_path / name for name in ("allow", "deny", "out", "log"))
    out.mkdir()
    allow.write_text("")
    deny.write_text("storescp: 127.0.0.1\n")
    port = free_port()
    argv = [sys.executable, "-c", _WITH_TABLES, str(allow), str(deny), "+ac", "-dhl", model, "-od", str(out)]
    environment = {"STOWKEEPER_LISTEN": "127.0.0.1"}
    with running("storescp", [*argv, str(port)], log=log, environment=environment) as program:
        program.wait_until(lambda: listens(port), "before it listened")
        with RawPeer(port) as peer, pytest.raises(PeerClosed):
            peer.associate()
        program.wait_until(lambda: "127.0.0.1" in program.log_text(), "before it said whom it refused")
        allow.write_text("storescp: 127.0.0.\n")  # which counts at once
        with RawPeer(port) as peer:
            assert peer.associate().kind == ASSOCIATE_AC
            assert peer.release().kind == RELEASE_RP
