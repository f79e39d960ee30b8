"""pynetdicom as sender: it hands on the bytes of the file, so what is kept are the bytes of the file."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from blake3 import blake3

from support.bundled_files import bundled_files
from support.server_process import association_rows, serve_process
from support.stored import check_everything_kept, check_readable, kept_files

pytestmark = [pytest.mark.slow, pytest.mark.peer("pynetdicom"), pytest.mark.peer("dcmdump")]


def send(files: Sequence[Path], port: int) -> list[int | None]:
    """Send files on one association and return the status of each."""
    script = Path(__file__).parents[1] / "support" / "pynetdicom_steady_sender.py"
    run = subprocess.run(
        [sys.executable, str(script), "127.0.0.1", str(port), "STOWKEEPER", *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    statuses: list[int | None] = json.loads(run.stdout)
    return statuses


def test_all_bundled_files(tmp_path: Path) -> None:
    files = [file for file in bundled_files() if "DICOMDIR" not in file.name and file.sop_class_uid]
    with serve_process(tmp_path) as server:
        statuses = send([file.path for file in files], server.port)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert set(statuses) == {0, 0xA900, 0xC000}
        sent = {
            (file.transfer_syntax_uid, file.sop_instance_uid, blake3(file.data_set).hexdigest())
            for file in files
        }
        refused = check_everything_kept(server.archive, sent)
        assert len(refused) < 20
        check_readable(kept_files(server.archive))
        (row,) = association_rows(server.archive)
        assert (row["ended"], row["calling_ae_title"]) == ("released", "PYNETDICOM")
        assert row["requests_kept"] == statuses.count(0)
        assert row["requests_refused"] == len(statuses) - statuses.count(0)
