"""The helpers that start real peers: they serve, they end, and what is missing is said."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from support.peers import Orthanc, ReceivingPeer, run_peer
from support.processes import POLL_SECONDS, ProgramFailed, free_port, is_listening, running

TESTS = Path(__file__).resolve().parents[1]
SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def sample() -> Path:
    """Return a small CT instance that every peer can send."""
    return Path(str(get_testdata_file("CT_small.dcm")))


@pytest.mark.slow
@pytest.mark.peer("storescp")
@pytest.mark.peer("storescu")
@pytest.mark.peer("echoscu")
def test_storescp_serves_and_stores(storescp: ReceivingPeer) -> None:
    echo = run_peer("echoscu", storescp.host, str(storescp.port))
    assert echo.returncode == 0, echo.stdout
    sent = run_peer("storescu", storescp.host, str(storescp.port), str(sample()))
    assert sent.returncode == 0, sent.stdout
    assert len(storescp.stored_files()) == 1


@pytest.mark.slow
@pytest.mark.peer("storescp")
@pytest.mark.peer("pynetdicom")
def test_pynetdicom_sends(
    storescp: ReceivingPeer, pynetdicom_sender: Callable[..., list[int | None]]
) -> None:
    assert pynetdicom_sender([sample(), sample()], port=storescp.port) == [0, 0]
    assert pynetdicom_sender([sample()], port=free_port()) == [None]


@pytest.mark.slow
@pytest.mark.peer("pynetdicom")
def test_pynetdicom_receives(
    pynetdicom_receiver: ReceivingPeer, pynetdicom_sender: Callable[..., list[int | None]]
) -> None:
    assert pynetdicom_sender([sample()], port=pynetdicom_receiver.port) == [0]
    assert len(pynetdicom_receiver.stored_files()) == 1


@pytest.mark.slow
@pytest.mark.peer("Orthanc")
@pytest.mark.peer("storescp")
def test_orthanc_stores_and_sends(orthanc: Orthanc, storescp: ReceivingPeer) -> None:
    instance_id = orthanc.upload(sample().read_bytes())
    orthanc.add_modality("back", ae_title=storescp.ae_title, host=storescp.host, port=storescp.port)
    report = orthanc.send("back", [instance_id])
    assert report["FailedInstancesCount"] == 0
    assert len(storescp.stored_files()) == 1


@pytest.mark.slow
def test_a_program_is_ended_after_its_block(tmp_path: Path) -> None:
    port = free_port()
    server = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
    with running("server", [sys.executable, "-c", server], log=tmp_path / "log") as program:
        program.wait_until_listening(port)
    assert program.process.returncode == -signal.SIGTERM
    assert not is_listening(port)


@pytest.mark.slow
def test_a_program_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    shell = "trap '' TERM; sleep 600 & echo child $!; wait; wait"
    with running("stubborn", ["sh", "-c", shell], log=tmp_path / "log") as program:
        program.wait_until(lambda: "child " in program.log_text(), "before it had a child")
        child = int(program.log_text().split()[1])
        assert program.stop(seconds=0.2) == -signal.SIGKILL
    program_is_gone(child)


@pytest.mark.slow
def test_a_program_that_fails_to_start_shows_its_log(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo no such profile; exit 3"]
    with running("broken", argv, log=tmp_path / "log") as program, pytest.raises(ProgramFailed) as failure:
        program.wait_until_listening(free_port())
    assert "ended with 3" in str(failure.value)
    assert "no such profile" in str(failure.value)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_program_does_not_outlive_a_killed_test_run(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal, pathlib; from support.processes import running\n"
        f"with running('sleeper', {SLEEPER!r}, log=pathlib.Path({str(tmp_path / 'log')!r})) as program:\n"
        "    program.wait_until(lambda: 'up' in program.log_text(), 'before it was up')\n"
        "    print(program.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=TESTS, capture_output=True, text=True, check=False
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    program_is_gone(int(run.stdout))


def program_is_gone(pid: int) -> None:
    """Wait until a killed process has left the kernel's list, or is but a zombie there."""
    for _ in range(1000):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(POLL_SECONDS)
    pytest.fail(f"process {pid} lives on")


@pytest.mark.slow
def test_a_missing_peer_is_skipped_and_named_in_the_summary(tmp_path: Path) -> None:
    tests = tmp_path / "test_needy.py"
    tests.write_text(
        "import pytest\n"
        "@pytest.mark.peer('storescu')\ndef test_one(): assert False\n"
        "@pytest.mark.peer('storescu')\ndef test_two(): assert False\n"
        "@pytest.mark.peer('Orthanc')\ndef test_three(): assert False\n"
        "@pytest.mark.peer('nobody')\ndef test_four(): pass\n"
    )
    (tmp_path / "conftest.py").write_text("from support import peers\npeers.SEARCH_PATH = ''\n")
    options = ["-p", "support.peers", "-p", "no:cacheprovider", "-n", "2"]
    options += ["-W", "ignore::pytest.PytestUnknownMarkWarning"]
    options += ["-p", "no:schemathesis"]  # which takes each of three processes a second to load
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tests)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "storescu: 2 tests skipped. To get it: apt-get install dcmtk" in run.stdout
    assert "Orthanc: 1 test skipped. To get it: apt-get install orthanc" in run.stdout
    assert "peer('nobody') is not in tests/support/peers.py" in run.stdout
    assert "3 skipped, 1 error" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ({}, 0, ""),
        ({"CI": "true"}, 0, "Without caddy; its tests are skipped."),
        ({"PEERS": "1"}, 1, "Without caddy; its tests are skipped."),
    ],
    ids=["nobody", "CI", "a person"],
)
def test_peers_that_are_not_to_be_had_stop_no_run_but_that_of_who_asked_for_them(
    tmp_path: Path, asked: dict[str, str], code: int, says: str
) -> None:
    tools, scripts = tmp_path / "bin", tmp_path / "scripts"
    tools.mkdir()
    scripts.mkdir()
    shutil.copy(TESTS.parent / "scripts" / "peers.sh", scripts)
    for name in ("cat", "dirname", "env", "mktemp", "rm"):
        (tools / name).symlink_to(str(shutil.which(name)))
    for name, script in (("id", "echo 0"), ("apt-get", "echo no network; exit 100")):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    run = subprocess.run(
        ["/bin/sh", str(scripts / "peers.sh")],
        env={"PATH": str(tools), **asked},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == code, run.stderr
    assert says in run.stderr
    assert bool(run.stderr) == bool(asked)
