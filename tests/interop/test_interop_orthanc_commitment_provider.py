"""Orthanc asks us for storage commitment, as a modality would, and is told: all of it, and what failed."""

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.peers import Peer
from support.commitment_server import CommitmentServer, commitment_serving
from support.peers import Orthanc

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc")]

CT = "1.2.840.10008.5.1.4.1.1.2"
UNKNOWN = "1.2.3.404"


def ask(orthanc: Orthanc, server: CommitmentServer, *uids: str) -> dict:
    """Have Orthanc ask for instances, and return its report of what it was told."""
    body = {"DicomInstances": [{"SOPClassUID": CT, "SOPInstanceUID": uid} for uid in uids]}
    asked = orthanc.request("POST", "/modalities/ours/storage-commitment", body)
    uid = asked["ID"]
    server.wait_for_state(uid, CommitmentState.REPORTED)
    server.wait(lambda: orthanc.request("GET", asked["Path"])["Status"] != "Pending", "Orthanc's report")
    return orthanc.request("GET", asked["Path"])


@pytest.mark.parametrize("report_on", ["new", "same-first"])
def test_orthanc_is_told_what_is_committed_and_what_is_not(
    tmp_path: Path, orthanc: Orthanc, report_on: str
) -> None:
    peer = Peer(
        name="orthanc", ae_title=orthanc.ae_title, host=orthanc.host, port=orthanc.port, report_on=report_on
    )
    held = orthanc.upload(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
    uid = orthanc.request("GET", f"/instances/{held}/simplified-tags")["SOPInstanceUID"]
    with commitment_serving(tmp_path / "archive", peer) as server:
        orthanc.add_modality("ours", ae_title="STOWKEEPER", host="127.0.0.1", port=server.port)
        assert orthanc.send("ours", [held])["FailedInstancesCount"] == 0
        told = ask(orthanc, server, uid)
        assert (told["Status"], [one["SOPInstanceUID"] for one in told["Success"]]) == ("Success", [uid])
        path = server.path_of(uid)
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        told = ask(orthanc, server, uid, UNKNOWN)
        assert told["Status"] == "Failure"
        reasons = {one["SOPInstanceUID"]: one["FailureReason"] for one in told["Failures"]}
        assert reasons == {uid: 0x0110, UNKNOWN: 0x0112}
