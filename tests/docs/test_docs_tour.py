"""The five minutes of the README: its commands, run as they stand there, do what it says."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server_process import ServerProcess, serve_process

README = Path(__file__).parents[2] / "README.md"
PORT = "127.0.0.1:11112"
SITE_PACKAGES = ".venv/lib/python3*/site-packages"


def steps() -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of the tour with what the page shows of their output."""
    tour = README.read_text(encoding="utf-8").split("## Five minutes\n")[1].split("\n## ")[0]
    for command, output in re.findall(r"^    \$ (.+)\n((?:    (?!\$ ).+\n)*)", tour, re.MULTILINE):
        yield command, [line.removeprefix("    ") for line in output.splitlines()]


def plain(line: str) -> str:
    """Return a line without what differs from run to run: times and speeds."""
    return re.sub(r"[0-9.]+ (ms|s|[kM]?B/s)\b", "…", line)


def is_fixed(line: str) -> bool:
    """Tell whether a line stands on the page as it is printed, and is no table that was fitted to a terminal."""
    return "…" not in line and re.match(r"[┏┃┡│└]|Patient  |\S+\^|damaged: |fit the ", line) is None


def told_to_stop_before(command: str) -> bool:
    """Tell whether the words just before a command say that the server has to be stopped."""
    before = README.read_text(encoding="utf-8").split(f"    $ {command}\n")[0]
    return "Ctrl-C" in before.rsplit("\n    ", 1)[1]


@pytest.mark.slow
def test_the_tour_is_as_it_is_told(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    codes = []
    with serve_process(tmp_path) as server:
        for command, told in steps():
            if command in {"make run", ". .venv/bin/activate"}:
                continue
            if told_to_stop_before(command):
                stop(server)
            mine = command.replace(PORT, f"127.0.0.1:{server.port}")
            mine = mine.replace(SITE_PACKAGES, sysconfig.get_path("purelib"))
            done = subprocess.run(
                ["bash", "-c", mine],
                cwd=tmp_path,
                env=environment,
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            codes.append((command.split()[:2][-1], done.returncode))
            printed = (done.stdout + done.stderr).replace(f"127.0.0.1:{server.port}", PORT)
            said = [plain(line.rstrip()) for line in printed.splitlines()]
            for line in filter(is_fixed, told):
                assert plain(line) in said, command
    assert [code for code in codes if code[1]] == [("send", 1), ("verify", 1), ("ls", 66)]
    assert codes[-1] == ("rebuild", 0)
    assert len(codes) == 13


def stop(server: ServerProcess) -> None:
    """Press Ctrl-C, as the page says before the catalog goes."""
    server.signal(signal.SIGINT)
    assert server.wait() == 0
