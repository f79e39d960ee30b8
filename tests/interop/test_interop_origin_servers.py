"""Jobs that store to origin servers, with real ones: our own, and Orthanc with its DICOMweb plug-in."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from stowkeeper.jobs import rows as jobs
from stowkeeper.services.file_terms import FileTerms
from stowkeeper.web.roles import Role
from support.archive_server import data_set_of, instances
from support.bundled_files import bundled_files
from support.command_line import keep
from support.instances import Instance, make_instance
from support.peers import ORTHANC_DICOMWEB, Orthanc, orthanc_configuration, program_path
from support.processes import free_port, running
from support.scripted_dicomweb import scripted_server
from support.store_rig import STUDY
from support.stow_job_rig import StowRig, origin_server, stow_rig
from support.tls_fixtures import TLSFiles
from support.web_server import web_rig, web_serving

pytestmark = pytest.mark.slow

FILES = ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StowRig]:
    """Give an archive with ten instances of one study."""
    with stow_rig(tmp_path / "archive", *map(make_instance, range(10))) as made:
        yield made


def test_our_own_server_keeps_what_it_may_and_says_why_of_the_rest(rig: StowRig, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("stale\n")

    def terms(_address: str) -> FileTerms:
        return FileTerms(duplicates=DuplicatePolicy.REFUSE)

    with (
        web_rig(tmp_path / "other", file_terms=terms) as other,
        web_serving(other.application) as thread,
    ):
        url = f"{thread.url}/dicom-web"
        server = origin_server(url, token_file=str(token), instances=4, parallel=2)
        reader = other.token("reader", Role.READ)
        sender = other.token("sender", Role.NONE, may_store=True)
        job = rig.submit_to(server, STUDY)
        for status, secret in ((401, "stale"), (403, reader)):
            token.write_text(f"{secret}\n")
            waiting = rig.run_to_end(job, "retry", "failure")
            assert (waiting.state, waiting.items_done) == ("retry", 0)
            assert f"{url}/studies answered {status} " in waiting.error
            assert secret not in waiting.error
            assert rig.blocked_lanes() == ["web:cloud"]
            rig.act(jobs.resubmit, job)
        token.write_text(f"{sender}\n")
        assert rig.run_to_end(job).error == "10 instances stored"
        rows = instances(other.archive)
        assert {data_set_of(other.archive, row) for row in rows} == {
            make_instance(number).data for number in range(10)
        }
        # A second version is refused there, and the other instances of its request are not.
        keep(rig.folder, make_instance(4, content=1))
        again = rig.submit_to(server, STUDY)
        ended = rig.run_to_end(again)
        assert ended.error.startswith("1 of 10 instances was not stored: 0111H another instance with this")
        assert (rig.item(again, 4).outcome, rig.item(again, 4).code) == ("failed", 0x0111)


@pytest.mark.peer("openssl")
def test_a_server_over_tls_is_trusted_by_its_authority(rig: StowRig, tls_files: TLSFiles) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files.server.certificate, tls_files.server.key)
    with scripted_server(context=context) as listening:
        job = rig.submit_to(origin_server(listening.url), STUDY)
        waiting = rig.run_to_end(job, "retry", "failure")
        assert "cannot be called over TLS: its certificate is refused" in waiting.error
        assert listening.requests == []
        rig.servers["cloud"] = origin_server(listening.url, ca_file=tls_files.authority.certificate)
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).error == "10 instances stored"


@pytest.fixture
def orthanc_with_dicomweb(tmp_path: Path) -> Iterator[Orthanc]:
    """Start Orthanc with its plug-in, and a user."""
    folder = tmp_path / "orthanc"
    folder.mkdir()
    dicom_port, http_port = free_port(), free_port()
    configuration = orthanc_configuration(folder=folder, dicom_port=dicom_port, http_port=http_port)
    configuration["Plugins"] = [ORTHANC_DICOMWEB]
    configuration["DicomWeb"] = {"Enable": True}
    path = tmp_path / "orthanc.json"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    with running("Orthanc", [program_path("Orthanc"), str(path)], log=tmp_path / "orthanc.log") as program:
        program.wait_until_listening(http_port)
        yield Orthanc(
            port=dicom_port, ae_title="ORTHANC", folder=folder, program=program, http_port=http_port
        )


@pytest.mark.peer("Orthanc", "orthanc-dicomweb")
def test_orthanc_keeps_what_is_stored_to_it(orthanc_with_dicomweb: Orthanc, tmp_path: Path) -> None:
    peer = orthanc_with_dicomweb
    real = [
        Instance(
            sop_class_uid=file.sop_class_uid,
            sop_instance_uid=file.sop_instance_uid,
            transfer_syntax_uid=file.transfer_syntax_uid,
            data=file.data_set,
        )
        for file in bundled_files()
        if file.name in FILES
    ]
    assert len(real) == len(FILES)
    with stow_rig(tmp_path / "archive", *real) as rig:
        server = origin_server(f"http://127.0.0.1:{peer.http_port}/dicom-web", instances=2)
        job = rig.submit_to(server, *(one.sop_instance_uid for one in real))
        ended = rig.run_to_end(job)
        assert (ended.state, ended.error) == ("success", f"{len(FILES)} instances stored")
    held = peer.request("GET", "/instances")
    assert len(held) == len(FILES)
    kept = [path.read_bytes() for path in peer.folder.rglob("*") if path.is_file()]
    for one in real:
        (content,) = [file for file in kept if file.endswith(one.data)]
        assert RECEIPT_CREATOR_UID.encode() not in content
