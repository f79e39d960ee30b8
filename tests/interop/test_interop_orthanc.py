"""Orthanc as sender: what it is given by REST and sends on is kept as a byte-preserving receiver gets it."""

import signal
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bundled_files import bundled_files
from support.peers import Orthanc, ReceivingPeer
from support.server_process import serve_process
from support.stored import check_everything_kept, check_readable, content_of, kept_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peer("Orthanc"),
    pytest.mark.peer("storescp"),
    pytest.mark.peer("dcmdump"),
]


def test_all_that_it_takes_it_can_send(
    tmp_path: Path, orthanc: Orthanc, start_storescp: Callable[..., ReceivingPeer]
) -> None:
    sink = start_storescp("+B", "+xa", "+uf", environment={"TCP_NODELAY": "1"})
    held = set()
    for file in bundled_files():
        try:
            held.add(orthanc.upload(file.path.read_bytes()))
        except urllib.error.HTTPError as error:  # Orthanc does not take every file
            error.close()
    assert len(held) > 100
    with serve_process(tmp_path) as server:
        orthanc.add_modality("sink", ae_title=sink.ae_title, host=sink.host, port=sink.port)
        orthanc.add_modality("ours", ae_title="STOWKEEPER", host="127.0.0.1", port=server.port)
        for modality in ("sink", "ours"):
            # Permissive: go on after one that the other side does not take.
            job = {"Resources": sorted(held), "Synchronous": True, "Permissive": True}
            report = orthanc.request("POST", f"/modalities/{modality}/store", job)
            assert report["InstancesCount"] == len(held)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        sent = {content_of(path) for path in sink.stored_files()}
        assert len(sent) > 100
        check_everything_kept(server.archive, sent)
        check_readable(kept_files(server.archive))
