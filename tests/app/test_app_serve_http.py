"""`serve` and HTTP: where it is served, and what a start that cannot be says."""

import json
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from support.command_line import environment, program, serving

pytestmark = pytest.mark.slow


def refused(archive: Path, *arguments: str) -> tuple[int, str]:
    """Start a server that cannot be; return its exit code and what it said."""
    argv = program("serve", "--archive", archive, "--port", "0", *arguments)
    ended = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert not ended.stdout, "it was never ready"
    return ended.returncode, ended.stderr


def test_the_ready_line_tells_where_and_the_server_answers_there(tmp_path: Path) -> None:
    with serving(tmp_path / "archive", tmp_path / "serve.log", "--http-port", "0") as (server, port):
        (ready,) = [line for line in server.log_text().splitlines() if line.startswith("stowkeeper ready")]
        words = ready.split(" ")
        assert [word.split("=")[0] for word in words[2:]] == ["dicom", "aet", "http", "archive"]
        address = words[4].removeprefix("http=")
        with urllib.request.urlopen(f"http://{address}/api/system", timeout=20) as answer:
            system = json.load(answer)
    assert (system["ae_title"], system["dicom_port"]) == ("STOWKEEPER", port)


def test_off_is_off(tmp_path: Path) -> None:
    with serving(tmp_path / "archive", tmp_path / "serve.log", "--http-port", "off") as (server, _):
        assert " http=" not in server.log_text().split("stowkeeper ready", 1)[1].split("\n", 1)[0]


def test_a_port_that_is_taken_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refused(tmp_path / "archive", "--http-port", str(port))
    assert code == ExitCode.UNAVAILABLE
    assert f"cannot listen on 127.0.0.1, port {port}, for HTTP" in said
    assert "--http-port" in said


def test_the_network_is_not_served_without_a_credential(tmp_path: Path) -> None:
    code, said = refused(tmp_path / "archive", "--http-host", "0.0.0.0", "--http-port", "0")
    assert code == ExitCode.SETTINGS
    assert "stowkeeper token add" in said


def test_a_commitment_policy_that_there_is_not_is_named(tmp_path: Path) -> None:
    settings = tmp_path / "site.toml"
    settings.write_text('[commitment]\npolicy = "nonsense"\n', encoding="utf-8")
    code, said = refused(tmp_path / "archive", "--config", str(settings))
    assert code == ExitCode.SETTINGS
    assert "there is no commitment policy 'nonsense'" in said
