"""DCMTK as sender, from the command line to the shelf: what it sends is kept as its own receiver gets it."""

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.bundled_files import FOLDER, bundled_files
from support.peers import ReceivingPeer, run_peer
from support.raw_peer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from support.server_process import ServerProcess, association_rows, serve_process
from support.stored import check_everything_kept, check_readable, content_of, kept_files

pytestmark = pytest.mark.slow

BYTE_PRESERVING = ("+B", "+xa", "+uf")
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
NO_DELAY = {"TCP_NODELAY": "1"}
UNCOMPRESSED = {EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN}
PROPOSALS: Mapping[str, str] = {
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
"""The option by which storescu proposes each compressed syntax of the bundled files."""


def stop(server: ServerProcess) -> None:
    """End a server in order, so that everything is in its catalog."""
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.peer("echoscu")
def test_echoscu(tmp_path: Path) -> None:
    with serve_process(tmp_path) as server:
        run = run_peer("echoscu", "-v", "--repeat", "5", "-aec", "STOWKEEPER", "127.0.0.1", str(server.port))
        assert run.returncode == 0, run.stdout
        assert run.stdout.count("Received Echo Response (Success)") == 5
        stop(server)
        (row,) = association_rows(server.archive)
        assert (row["ended"], row["messages"], row["calling_ae_title"]) == ("released", 5, "ECHOSCU")
        assert row["implementation_version_name"].startswith("OFFIS_DCMTK")


@pytest.mark.peer("dcmsend")
@pytest.mark.peer("storescp")
@pytest.mark.peer("dcmdump")
def test_dcmsend_of_the_whole_folder(tmp_path: Path, start_storescp: Callable[..., ReceivingPeer]) -> None:
    sink = start_storescp(*BYTE_PRESERVING, environment=NO_DELAY)
    options = ["+sd", "+r", "-nuc", "-dn", "-nh"]
    with serve_process(tmp_path) as server:
        for port in (sink.port, server.port):
            run_peer("dcmsend", *options, "127.0.0.1", str(port), str(FOLDER))
        stop(server)
        sent = {content_of(path) for path in sink.stored_files()}
        assert len(sent) > 120
        refused = check_everything_kept(server.archive, sent)
        assert len(refused) < 10
        check_readable(kept_files(server.archive))


@pytest.mark.peer("storescu")
@pytest.mark.peer("storescp")
@pytest.mark.peer("dcmdump")
@pytest.mark.parametrize("proposal", ["-xe", "-xb", "-xi"])
def test_storescu_of_uncompressed_files(
    tmp_path: Path, start_storescp: Callable[..., ReceivingPeer], proposal: str
) -> None:
    files = [str(file.path) for file in bundled_files() if file.transfer_syntax_uid not in PROPOSALS]
    sink = start_storescp(
        "+B", "+uf", {"-xe": "+xe", "-xb": "+xb", "-xi": "+xi"}[proposal], environment=NO_DELAY
    )
    with serve_process(tmp_path) as server:
        for port in (sink.port, server.port):
            run_peer("storescu", "-R", "-nh", proposal, "127.0.0.1", str(port), *files)
        stop(server)
        sent = {content_of(path) for path in sink.stored_files()}
        assert len(sent) > 100
        assert {syntax for syntax, _, _ in sent} <= UNCOMPRESSED
        check_everything_kept(server.archive, sent)
        check_readable(kept_files(server.archive))


@pytest.mark.peer("storescu")
@pytest.mark.peer("storescp")
def test_storescu_of_compressed_files(tmp_path: Path, start_storescp: Callable[..., ReceivingPeer]) -> None:
    sink = start_storescp(*BYTE_PRESERVING, environment=NO_DELAY)
    with serve_process(tmp_path) as server:
        for syntax, option in PROPOSALS.items():
            files = [str(file.path) for file in bundled_files() if file.transfer_syntax_uid == syntax]
            for port in (sink.port, server.port):
                run_peer("storescu", "-R", "-nh", option, "127.0.0.1", str(port), *files)
        stop(server)
        sent = {content_of(path) for path in sink.stored_files()}
        assert {syntax for syntax, _, _ in sent} == set(PROPOSALS)
        check_everything_kept(server.archive, sent)


@pytest.mark.peer("storescu")
def test_storescu_as_shipped_is_told_success_for_each(tmp_path: Path) -> None:
    files = [
        str(file.path)
        for file in bundled_files()
        if file.transfer_syntax_uid in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
        and "dicomdirtests/" in file.name
        and "DICOMDIR" not in file.name
    ]
    with serve_process(tmp_path) as server:
        run = run_peer("storescu", "-v", "127.0.0.1", str(server.port), *files)
        assert run.returncode == 0, run.stdout
        assert run.stdout.count("Received Store Response (Success)") == len(files) > 20
        stop(server)
