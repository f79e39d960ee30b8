"""Python's dicomweb-client stores: several at once, in chunks, again, and what is refused reaches who called it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bundled_files import BundledFile, bundled_files
from support.instances import make_instance
from support.orthanc_rig import part10_of
from support.peers import PYTHON_CLIENTS
from support.stow_bodies import Answer, answer_of
from support.stow_server import StowServer, stow_serving

pytestmark = [pytest.mark.slow, pytest.mark.peer("dicomweb-client for Python")]

CLIENT = Path(__file__).parents[1] / "support" / "python_dicomweb_client.py"
NAMES = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "waveform_ecg.dcm", "SC_rgb_jpeg_dcmtk.dcm")
IN_ONE = 10**9
"""What the client sends in chunks is longer than this."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StowServer]:
    with stow_serving(tmp_path_factory.mktemp("python")) as running:
        yield running


def store(
    server: StowServer, *files: Path, study: str = "", chunk_bytes: int = IN_ONE, token: str = ""
) -> tuple[int, Answer]:
    """Let the client store files; return how it ended, 200 where it raised nothing, and the answer that it has."""
    asked = [server.dicomweb, token or server.token, str(chunk_bytes), study]
    run = subprocess.run(
        [sys.executable, CLIENT, PYTHON_CLIENTS, *asked, *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ended = json.loads(run.stdout)
    return ended["status"], answer_of(json.dumps(ended["answer"]).encode())


def samples() -> list[BundledFile]:
    chosen = [file for file in bundled_files() if file.name in NAMES]
    assert len(chosen) == len(NAMES)
    return chosen


@pytest.mark.parametrize("chunk_bytes", [IN_ONE, 5000], ids=["with a length", "in chunks"])
def test_several_at_once_are_kept_byte_for_byte_and_again_at_no_harm(
    server: StowServer, chunk_bytes: int
) -> None:
    files = samples()
    for _ in range(2):
        status, answer = store(server, *(file.path for file in files), chunk_bytes=chunk_bytes)
        assert status == 200
        assert sorted(answer.stored) == sorted(file.sop_instance_uid for file in files)
        assert (answer.failed, answer.others) == ([], [])
        sent = {file.sop_instance_uid: file.data_set for file in files}
        assert server.kept(*sent) == sent


def test_what_is_refused_is_told_beside_what_is_kept_and_alone_is_an_error(
    server: StowServer, tmp_path: Path
) -> None:
    mine, foreign = tmp_path / "mine.dcm", tmp_path / "foreign.dcm"
    mine.write_bytes(part10_of(make_instance(7, study="1.2.77")))
    foreign.write_bytes(part10_of(make_instance(8, study="1.2.88")))
    # 202: the client raises nothing, and its caller has to look into the answer.
    status, answer = store(server, mine, foreign, study="1.2.77")
    assert (status, answer.stored, answer.failed) == (200, ["1.2.3.7"], [("1.2.3.8", 0xC409)])
    # 409: it raises.
    status, answer = store(server, foreign, study="1.2.77")
    assert (status, answer.stored, answer.failed) == (409, [], [("1.2.3.8", 0xC409)])
    # 401: likewise.
    status, answer = store(server, mine, token=f"{server.token}x")
    assert (status, answer.stored) == (401, [])
    assert server.kept("1.2.3.7") == {"1.2.3.7": make_instance(7, study="1.2.77").data}
    assert "1.2.3.8" not in server.listed()
