"""Sending files to real peers: DCMTK, pynetdicom, Orthanc."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from pydicom import dcmread
from pydicom.data import get_testdata_file, get_testdata_files

from stowkeeper.dicom.part10 import read_file_meta
from stowkeeper.dicom.transfer_syntaxes import (
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from stowkeeper.net.association_errors import (
    AssociationError,
)
from stowkeeper.services.conversion import convert
from stowkeeper.services.send_plan import SendableFile, plan_associations, plan_sending
from stowkeeper.services.sending import (
    Destination,
    Outcome,
    Result,
    send_files,
)
from support.peers import Orthanc, ReceivingPeer
from support.sending_rig import (
    QUICK,
    Observer,
    make_files,
    options_with,
    send,
)

DEFLATED = "1.2.840.10008.1.2.1.99"

NO_DELAY = {"TCP_NODELAY": "1"}


# Real peers


def bundled_instances() -> list[SendableFile]:
    """pydicom's files that can be sent, one for each SOP Instance UID."""
    found = plan_sending(str(path) for path in sorted(get_testdata_files()))
    return list({file.sop_instance_uid: file for file in found.files}.values())


def data_set_in(path: Path) -> bytes:
    content = path.read_bytes()
    return content[read_file_meta(content, whole=True).length :]


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_dcmtk_gets_every_bundled_file_byte_for_byte(start_storescp: Callable[..., ReceivingPeer]) -> None:
    peer = start_storescp("+B", "+xa", "--fork", environment=NO_DELAY)
    files = bundled_instances()
    observer, error = send(files, peer.port, options_with(associations=3))
    assert error is None
    accepted = [outcome for outcome in observer.outcomes if outcome.result is Result.ACCEPTED]
    refused = [outcome for outcome in observer.outcomes if outcome.result is not Result.ACCEPTED]
    assert all("does not accept" in outcome.words for outcome in refused)
    assert len(accepted) > 60
    stored = {
        dcmread(path, stop_before_pixels=True).file_meta.MediaStorageSOPInstanceUID: path
        for path in peer.stored_files()
    }
    for outcome in accepted:
        file = outcome.file
        assert outcome.sent_as == file.transfer_syntax_uid
        with open(file.path, "rb") as stream:
            stream.seek(file.offset)
            original = stream.read()
        if file.transfer_syntax_uid == DEFLATED:
            original += b"\0" * (len(original) % 2)
        assert data_set_in(stored[file.sop_instance_uid]) == original, file.path


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_dcmtk_gets_uncompressed_copies_where_it_takes_nothing_else(
    start_storescp: Callable[..., ReceivingPeer],
) -> None:
    peer = start_storescp("+B", "+xi", environment=NO_DELAY)
    files = [file for file in bundled_instances() if "truncated" not in file.path]
    observer, _ = send(files, peer.port)
    accepted = {
        outcome.file.sop_instance_uid: outcome.file
        for outcome in observer.outcomes
        if outcome.result is Result.ACCEPTED
    }
    assert {outcome.sent_as for outcome in observer.outcomes} <= {IMPLICIT_VR_LITTLE_ENDIAN, ""}
    assert len(accepted) > 40
    for path in peer.stored_files():
        copy = dcmread(path)
        assert copy.file_meta.TransferSyntaxUID == IMPLICIT_VR_LITTLE_ENDIAN
        file = accepted[copy.file_meta.MediaStorageSOPInstanceUID]
        with open(file.path, "rb") as stream:
            same = (
                data_set_in(Path(file.path))
                if file.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
                else b"".join(
                    convert(stream, file.offset, file.transfer_syntax_uid, IMPLICIT_VR_LITTLE_ENDIAN)
                )
            )
        assert data_set_in(path) == same


@pytest.mark.slow
@pytest.mark.peer("pynetdicom")
def test_pynetdicom_gets_every_bundled_file(pynetdicom_receiver: ReceivingPeer) -> None:
    files = bundled_instances()
    observer, error = send(files, pynetdicom_receiver.port, options_with(associations=2))
    assert error is None
    refused = [outcome for outcome in observer.outcomes if outcome.result is not Result.ACCEPTED]
    assert all("does not accept" in outcome.words for outcome in refused)
    assert len(observer.outcomes) - len(refused) > 60


@pytest.mark.slow
@pytest.mark.peer("Orthanc")
def test_orthanc_gets_files(orthanc: Orthanc) -> None:
    names = ("CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm")
    files = plan_sending(str(get_testdata_file(name)) for name in names).files
    observer, _ = send(files, orthanc.port)
    assert {outcome.result for outcome in observer.outcomes} == {Result.ACCEPTED}
    assert len(plan_associations(files, lambda _: True)) == 1
    stored = len(orthanc.request("GET", "/instances"))
    assert stored == len({file.sop_instance_uid for file in files})


@pytest.mark.slow
@pytest.mark.peer("storescp")
def test_a_peer_that_is_killed_and_comes_back_gets_the_rest(
    start_storescp: Callable[..., ReceivingPeer], tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    files = make_files(folder, 300)
    peer = start_storescp("+B", "+xa", "--fork", environment=NO_DELAY)

    class Killer(Observer):
        def decided(self, outcome: Outcome) -> None:
            super().decided(outcome)
            if len(self.outcomes) == 100:
                # A child of storescp serves us; its end is a lost connection, its parent goes on.
                os.system(f"kill -9 $(cat /proc/{peer.program.pid}/task/*/children)")

    observer = Killer()

    async def work() -> AssociationError | None:
        destination = Destination(ae_title="PEER", host="127.0.0.1", port=peer.port)
        return await send_files(files, destination, QUICK, observer)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()) is None
    assert observer.results == {Result.ACCEPTED: 300}
    assert len(observer.notices) == 1
    assert len(peer.stored_files()) == 300
