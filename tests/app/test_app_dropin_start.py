"""How `stowkeeper storescp` and `dcmrecv` start, or say why not: words, exit codes, environment, TLS, and how fast."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.dropin import (
    PROFILE,
    WAIT_SECONDS,
    instance,
    listens,
    program_of,
    receiving,
    run_to_end,
    wait_for,
)
from support.peers import run_peer
from support.processes import free_port
from support.raw_peer import RawPeer, associate_rq
from support.tls_fixtures import TLSFiles
from support.tls_peer import TLSPeer, peer_context

pytestmark = pytest.mark.slow

BOTH = pytest.mark.parametrize("tool", ["storescp", "dcmrecv"])
TLS_EXIT = {"storescp": 1, "dcmrecv": 71}


def only_words(run: subprocess.CompletedProcess[str]) -> str:
    """Check that a run said what it had to say on standard error, in a line or two; return it."""
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    assert "fault of its own" not in run.stderr
    return run.stderr


# Exit codes


@pytest.mark.parametrize(("tool", "arguments"), [("storescp", []), ("dcmrecv", ["--version"])])
def test_what_is_asked_is_answered(tool: str, arguments: list[str]) -> None:
    run = run_to_end(tool, *arguments)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"$dcmtk: {tool} v")


@BOTH
@pytest.mark.parametrize(
    "arguments", [["--nothing-of-that-name", "104"], ["0"], ["-pdu", "1", "104"], ["1", "2"]]
)
def test_a_command_line_that_is_wrong(tool: str, arguments: list[str]) -> None:
    run = run_to_end(tool, *arguments)
    assert run.returncode == 1
    assert "error: " in only_words(run)


@BOTH
def test_a_port_that_is_taken(tmp_path: Path, tool: str) -> None:
    with receiving(tmp_path) as other:
        run = run_to_end(tool, "-od", tmp_path, str(other.port))
    assert run.returncode == {"storescp": 1, "dcmrecv": 64}[tool]
    assert "Address already in use" in only_words(run)


@pytest.mark.parametrize(
    ("tool", "address"), [("storescp", "192.0.2.1"), ("dcmrecv", "no such host"), ("storescp", "x..y")]
)
def test_an_address_that_cannot_be_listened_on(tmp_path: Path, tool: str, address: str) -> None:
    environment = {"STOWKEEPER_LISTEN": address}
    run = run_to_end(tool, "-od", tmp_path, str(free_port()), environment=environment)
    assert run.returncode == {"storescp": 1, "dcmrecv": 64}[tool]
    assert "TCP Initialization Error" in only_words(run)


@pytest.mark.parametrize(("tool", "kind"), [("storescp", "a file"), ("dcmrecv", "absent")])
def test_an_output_directory_that_is_none(tmp_path: Path, tool: str, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "a file":
        path.touch()
    run = run_to_end(tool, "-od", path, str(free_port()))
    assert run.returncode == {"storescp": 1, "dcmrecv": 45}[tool]
    assert str(path) in only_words(run)


@pytest.mark.parametrize(
    ("tool", "kind"), [("storescp", "absent"), ("storescp", "broken"), ("dcmrecv", "of another name")]
)
def test_a_profile_that_cannot_be_used(tmp_path: Path, tool: str, kind: str) -> None:
    path = tmp_path / "profile.cfg"
    if kind != "absent":
        path.write_text(PROFILE if kind == "of another name" else PROFILE.replace("\\", "/"))
    run = run_to_end(tool, "-od", tmp_path, "-xf", path, "Another", str(free_port()))
    assert run.returncode == {"storescp": 1, "dcmrecv": 66}[tool]
    assert "profile" in only_words(run)


@BOTH
def test_a_port_for_the_privileged(tmp_path: Path, tool: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may listen on every port")
    run = run_to_end(tool, "-od", tmp_path, "104")
    assert run.returncode == {"storescp": 1, "dcmrecv": 64}[tool]
    assert "104" in only_words(run)


# Environment


@BOTH
def test_one_address_is_listened_on(tmp_path: Path, tool: str) -> None:
    with receiving(tmp_path, tool=tool) as receiver:
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        bound = [row[1] for row in rows if row[1].endswith(f":{receiver.port:04X}") and row[3] == "0A"]
        assert bound == [f"0100007F:{receiver.port:04X}"]


def test_an_address_of_ipv6(tmp_path: Path) -> None:
    if not Path("/proc/net/if_inet6").exists() or "00000001 01" not in Path("/proc/net/if_inet6").read_text():
        pytest.skip("there is no IPv6 here")
    port = free_port()
    argv = program_of("storescp", "-od", tmp_path, str(port))
    with subprocess.Popen(argv, env={**os.environ, "STOWKEEPER_LISTEN": "::1"}) as process:
        try:
            wait_for(lambda: f":{port:04X} " in Path("/proc/net/tcp6").read_text(), "for it to listen")
        finally:
            process.terminate()


@pytest.mark.parametrize("length", ["many", "99999999999999"])
def test_the_length_of_tcp_buffers(tmp_path: Path, length: str) -> None:
    with receiving(tmp_path, environment={"TCP_BUFFER_LENGTH": length}) as receiver:
        assert receiver.store(instance(1, size=300_000)) == [0]
        assert ("TCP_BUFFER_LENGTH" in receiver.log()) is (length == "many")


def test_a_dictionary_of_its_own(tmp_path: Path) -> None:
    """A private element that the dictionary knows is converted; a file that is none is reported and left out."""
    good, bad = tmp_path / "good.dic", tmp_path / "bad.dic"
    good.write_text('(0029,"STOWKEEPER TEST",10)\tLO\tSomething\t1\tPrivate\n')
    bad.write_text("nonsense\n")
    from support.instances import encode_element

    private = encode_element(0x00290010, b"LO", b"STOWKEEPER TEST") + encode_element(0x00291010, b"UN", b"ab")
    data = instance(1).data
    at = data.index(b"\xe0\x7f\x10\x00")
    data = data[:at] + private + data[at:]
    for path, vr in ((good, b"LO"), (bad, b"UN"), (tmp_path / "absent.dic", b"UN")):
        environment = {"DCMDICTPATH": f"{path}:{good}" if path == good else str(path)}
        with receiving(tmp_path, "+uc", environment=environment) as receiver:
            with receiver.association() as peer:
                assert peer.store("1.2.3.1", data).status == 0
            assert b"\x29\x00\x10\x10" + vr in (receiver.folder / "CT.1.2.3.1").read_bytes(), path
            assert ("DCMDICTPATH" in receiver.log()) is (path != good)


# TLS


def tls_options(files: TLSFiles, *more: str | Path) -> list[str | Path]:
    return ["+tls", files.server.key, files.server.certificate, "+cf", files.authority.certificate, *more]


@BOTH
@pytest.mark.peer("openssl")
def test_an_association_over_tls(tmp_path: Path, tls_files: TLSFiles, tool: str) -> None:
    with receiving(tmp_path, *tls_options(tls_files), tool=tool) as receiver:
        context = peer_context(tls_files.authority.certificate, tls_files.client)
        with TLSPeer(receiver.port, context) as peer:
            peer.associate()
            assert peer.store("1.2.3.1", instance(1, size=400_000).data).status == 0
            peer.release()
        with RawPeer(receiver.port) as plain:
            plain.send(associate_rq([]))
            receiver.wait_for_log("it speaks DICOM without TLS")
        assert receiver.files() == ["CT.1.2.3.1"]


@pytest.mark.peer("openssl", "echoscu")
def test_dcmtk_over_tls(tmp_path: Path, tls_files: TLSFiles) -> None:
    client = [
        "+tls",
        tls_files.client.key,
        tls_files.client.certificate,
        "+cf",
        tls_files.authority.certificate,
    ]
    with receiving(tmp_path, *tls_options(tls_files), "--fork") as receiver:
        run = run_peer("echoscu", *client, "127.0.0.1", str(receiver.port))
        assert run.returncode == 0, run.stdout
        foreign = ["+tls", tls_files.foreign.key, tls_files.foreign.certificate, *client[3:]]
        assert run_peer("echoscu", *foreign, "127.0.0.1", str(receiver.port)).returncode != 0
        receiver.wait_for_log("the authority that issued it is not trusted here")


@pytest.mark.peer("openssl")
@pytest.mark.parametrize(
    ("tool", "what"),
    [
        ("storescp", "no key"),
        ("dcmrecv", "no certificate"),
        ("storescp", "another key"),
        ("dcmrecv", "wrong password"),
        ("storescp", "no password"),
    ],
)
def test_tls_that_cannot_be_set_up(tmp_path: Path, tls_files: TLSFiles, tool: str, what: str) -> None:
    locked = tls_files.server.encrypted(tmp_path, "secret")
    key, certificate, more = tls_files.server.key, tls_files.server.certificate, ["-pw"]
    if what == "no key":
        key = str(tmp_path / "nothing")
    elif what == "no certificate":
        certificate = str(tmp_path / "nothing")
    elif what == "another key":
        key = tls_files.keys.of("ec")
    else:
        key, more = locked.key, ["+pw", "wrong"] if what == "wrong password" else ["-pw"]
    run = run_to_end(tool, "-od", tmp_path, "+tls", key, certificate, *more, str(free_port()))
    assert run.returncode == TLS_EXIT[tool]
    words = only_words(run)
    assert (certificate if what == "no certificate" else key) in words
    assert "secret" not in words


@pytest.mark.parametrize("tool", ["dcmrecv"])
@pytest.mark.peer("openssl")
def test_a_password_and_nobody_to_ask(tmp_path: Path, tls_files: TLSFiles, tool: str) -> None:
    """Without a terminal the answer is an error in words, not a prompt that waits."""
    locked = tls_files.server.encrypted(tmp_path, "secret")
    argv = program_of(tool, "-od", tmp_path, "+tls", locked.key, locked.certificate, str(free_port()))
    run = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert run.returncode == TLS_EXIT[tool]
    assert "--use-passwd" in only_words(run)


def at_a_terminal(argv: list[str], answer: bytes) -> tuple[int, int, bytes]:
    """Run a program at a pseudo terminal and answer its prompt; return its process id, the terminal and what it said."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, {**os.environ, "STOWKEEPER_LISTEN": "127.0.0.1"})
    said = b""
    deadline = time.monotonic() + WAIT_SECONDS
    while b"assword" not in said:
        assert time.monotonic() < deadline, said
        if select.select([terminal], [], [], 0.1)[0]:
            said += os.read(terminal, 1000)
    os.write(terminal, answer)
    return pid, terminal, said


def rest_of(terminal: int) -> bytes:
    said = b""
    try:
        while part := os.read(terminal, 1000):
            said += part
    except OSError:
        pass  # a terminal that nobody else has open
    os.close(terminal)
    return said


@pytest.mark.parametrize("tool", ["storescp"])
@pytest.mark.peer("openssl")
def test_a_password_is_asked_for_at_the_terminal(tmp_path: Path, tls_files: TLSFiles, tool: str) -> None:
    locked = tls_files.server.encrypted(tmp_path, "secret")
    port = free_port()
    argv = program_of(tool, "-od", tmp_path, "+tls", locked.key, locked.certificate, str(port))
    pid, terminal, said = at_a_terminal(argv, b"secret\n")
    try:
        assert locked.key.encode() in said
        wait_for(lambda: listens(port), "for it to listen")
        context = peer_context(tls_files.authority.certificate, None)
        with pytest.raises(OSError), TLSPeer(port, context) as peer:  # noqa: PT012 - it is refused, so it is TLS
            peer.associate()
            raise OSError
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)
        assert b"secret" not in rest_of(terminal)


@pytest.mark.peer("openssl")
@pytest.mark.parametrize(("tool", "answer"), [("storescp", b"wrong\n"), ("dcmrecv", b"\4")])
def test_a_wrong_answer_at_the_terminal(
    tmp_path: Path, tls_files: TLSFiles, tool: str, answer: bytes
) -> None:
    locked = tls_files.server.encrypted(tmp_path, "secret")
    argv = program_of(tool, "-od", tmp_path, "+tls", locked.key, locked.certificate, str(free_port()))
    pid, terminal, _ = at_a_terminal(argv, answer)
    said = rest_of(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == TLS_EXIT[tool], said
    assert b"fault of its own" not in said
    assert b"Traceback" not in said


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("who", ["expired"])
def test_a_peer_with_a_certificate_that_does_not_do(tmp_path: Path, tls_files: TLSFiles, who: str) -> None:
    with receiving(tmp_path, *tls_options(tls_files)) as receiver:
        context = peer_context(tls_files.authority.certificate, getattr(tls_files, who))
        with pytest.raises(OSError), TLSPeer(receiver.port, context) as peer:  # noqa: PT012 - TLS 1.3 tells it late
            peer.socket.recv(1)
            raise OSError
        receiver.wait_for_log({"foreign": "not trusted", "expired": "expired"}[who])
        with TLSPeer(receiver.port, peer_context(tls_files.authority.certificate, tls_files.client)) as peer:
            peer.associate()
            assert peer.echo().status == 0
            peer.release()


@pytest.mark.peer("openssl")
def test_seed_files(tmp_path: Path, tls_files: TLSFiles) -> None:
    seed, other = tmp_path / "seed", tmp_path / "other"
    seed.write_bytes(bytes(1024))
    for option, written in ((["+ws"], seed), (["+wf", other], other)):
        with receiving(tmp_path, *tls_options(tls_files, "+rs", seed, *option)) as receiver:
            with TLSPeer(
                receiver.port, peer_context(tls_files.authority.certificate, tls_files.client)
            ) as peer:
                peer.associate()
                peer.release()
            receiver.wait_until(
                lambda written=written: written.exists() and any(written.read_bytes()),
                "before the seed was written",
            )
            assert len(written.read_bytes()) == 1024
    absent = tmp_path / "absent"
    with receiving(tmp_path, *tls_options(tls_files, "+rs", absent)) as receiver:
        receiver.wait_for_log(str(absent))  # which is no reason not to serve
    nowhere = tmp_path / "nowhere" / "seed"
    with receiving(tmp_path, *tls_options(tls_files, "+rs", seed, "+wf", nowhere)) as receiver:
        with TLSPeer(receiver.port, peer_context(tls_files.authority.certificate, tls_files.client)) as peer:
            peer.associate()
            peer.release()
        receiver.wait_for_log("cannot be written")


# How fast

NOT_BEFORE_IT_LISTENS = (
    "pydantic",
    "sqlalchemy",
    "sqlite3",
    "pydicom",
    "uvloop",
    "structlog",
    "blake3",
    "numpy",
    "multiprocessing",
    "stowkeeper.archive",
    "stowkeeper.database",
    "stowkeeper.services",
)

_MODULES_AT_LISTENING = """
import json, socket, sys
def listen(self, *arguments):
    print(json.dumps(sorted(sys.modules)))
    sys.stdout.flush()
    import os
    os._exit(0)
class Socket(socket.socket):
    listen = listen
socket.socket = Socket
from stowkeeper.app.commands import run
run(sys.argv[1:])
"""


@BOTH
def test_what_is_loaded_before_it_listens(tmp_path: Path, tool: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _MODULES_AT_LISTENING, tool, "-od", str(tmp_path), str(free_port())],
        capture_output=True,
        text=True,
        env={**os.environ, "STOWKEEPER_LISTEN": "127.0.0.1"},
        check=False,
        timeout=WAIT_SECONDS,
    )
    loaded = json.loads(run.stdout)
    assert f"stowkeeper.dcmtk.{tool}_program" in loaded
    assert [name for name in NOT_BEFORE_IT_LISTENS if name in loaded] == []
