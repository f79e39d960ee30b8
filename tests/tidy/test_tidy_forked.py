"""A forked program is what an interpreter of its own would have been."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import forked
from support.processes import POLL_SECONDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked"),
]

TESTS = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "stowkeeper"]
SECONDS = 30.0


def is_forked(process: "subprocess.Popen[bytes]") -> bool:
    """Tell whether a program was forked: it has the command line of the fork server."""
    return "fork_server.py" in Path(f"/proc/{process.pid}/cmdline").read_text(encoding="utf-8")


def status_of(pid: int) -> list[str]:
    """Return the state of a process, its parent, group and session (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(") ")[2].split()[:4]


@contextlib.contextmanager
def serving(folder: Path, **options: object) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server that waits to be ended, for the length of a block; one that still runs then is killed."""
    argv = [*COMMAND, "serve", "--archive", str(folder / "archive"), "--port", "0"]
    environment = {**os.environ, "STOWKEEPER_HTTP__PORT": "off", "STOWKEEPER_STORAGE__SLOT_POOL_SIZE": "4"}
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with forked.start(argv, env=environment, **outputs, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize(
    "arguments", [["--version"], ["nonsense"], ["check-config"], ["storescp", "--version"], ["dcmrecv", "0"]]
)
def test_it_says_and_returns_the_same(tmp_path: Path, arguments: list[str]) -> None:
    said = [
        forked.run([*COMMAND, *arguments], from_scratch=scratch, cwd=tmp_path, capture_output=True, text=True)
        for scratch in (False, True)
    ]
    assert vars(said[0]) == vars(said[1])


def test_environment_and_folder_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "stowkeeper.toml").write_text("[dicom]\nae_title = 'FOLDER'\n")
    environment = {**os.environ, "STOWKEEPER_DICOM__PORT": "4242"}
    argv = [*COMMAND, "check-config", "--config", "stowkeeper.toml"]
    ended = forked.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "FOLDER" in ended.stdout
    assert "4242" in ended.stdout
    assert "STOWKEEPER_DICOM__PORT" not in os.environ


def test_it_is_a_child_in_a_session_of_its_own_without_descriptors_of_others(tmp_path: Path) -> None:
    with serving(tmp_path, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"stowkeeper ready")
        assert is_forked(process)
        _, parent, group, session = status_of(process.pid)
        assert (int(parent), int(group), int(session)) == (os.getpid(), process.pid, process.pid)
        output = os.readlink(f"/proc/{process.pid}/fd/1")
        assert [os.readlink(f"/proc/{process.pid}/fd/{n}") for n in (0, 2)] == [
            os.readlink("/proc/self/fd/0"),
            "/dev/null",
        ]
        assert output == os.readlink(f"/proc/self/fd/{process.stdout.fileno()}")
        process.terminate()
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_death_by_a_signal_is_told(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(SECONDS) == -number


def test_what_is_about_the_start_has_an_interpreter(tmp_path: Path) -> None:
    with serving(tmp_path, from_scratch=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not is_forked(process)
        process.kill()
    controller, terminal = pty.openpty()
    for options in ({"stdin": terminal}, {"env": {**os.environ, "LC_ALL": "C", "LANG": "C"}}):
        with forked.start([*COMMAND, "check-config"], stdout=subprocess.PIPE, **options) as process:
            assert type(process) is subprocess.Popen
            process.communicate()
    os.close(terminal)
    os.close(controller)


def test_what_cannot_be_forked_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChildProcessError, match="nothing was forked: FileNotFoundError"):
        forked.start([*COMMAND, "--version"], cwd=tmp_path / "nowhere", stderr=subprocess.DEVNULL)
    assert forked.run([*COMMAND, "--version"], capture_output=True).returncode == 0


def test_it_does_not_outlive_a_killed_test_run(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal\n"
        "from tidy.test_tidy_forked import is_forked, serving\n"
        f"server = serving(pathlib.Path({str(tmp_path)!r})); process = server.__enter__()\n"
        "process.stdout.readline(); assert is_forked(process)\n"
        "print(process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=TESTS, capture_output=True, text=True, check=False
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    deadline = time.monotonic() + SECONDS
    while Path(f"/proc/{run.stdout.strip()}").exists() and status_of(int(run.stdout))[0] != "Z":
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(POLL_SECONDS)
