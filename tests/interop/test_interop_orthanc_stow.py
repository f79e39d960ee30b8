"""Orthanc's DICOMweb plug-in as client: it stores to us by HTTP what it holds."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from support.archive_server import data_set_of, instances, open_archive
from support.peers import ORTHANC_DICOMWEB, Orthanc, orthanc_configuration, program_path
from support.processes import free_port, running
from support.web_server import web_rig, web_serving

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc", "orthanc-dicomweb")]

FILES = ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "rtplan.dcm"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, object]]:
    archive = open_archive(tmp_path / "archive")
    try:
        with web_rig(tmp_path / "archive", archive=archive) as rig, web_serving(rig.application) as thread:
            yield thread.url, archive
    finally:
        archive.close()


@pytest.fixture
def sender(tmp_path: Path, server: tuple[str, object]) -> Iterator[Orthanc]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    dicom_port, http_port = free_port(), free_port()
    configuration = orthanc_configuration(folder=folder, dicom_port=dicom_port, http_port=http_port)
    configuration["Plugins"] = [ORTHANC_DICOMWEB]
    configuration["DicomWeb"] = {"Enable": True, "Servers": {"us": [f"{server[0]}/dicom-web/"]}}
    path = tmp_path / "orthanc.json"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    with running("Orthanc", [program_path("Orthanc"), str(path)], log=tmp_path / "orthanc.log") as program:
        program.wait_until_listening(http_port)
        yield Orthanc(
            port=dicom_port, ae_title="ORTHANC", folder=folder, program=program, http_port=http_port
        )


def test_what_it_holds_it_stores(sender: Orthanc, server: tuple[str, object]) -> None:
    files = [Path(str(get_testdata_file(name, download=False))).read_bytes() for name in FILES]
    held = [sender.upload(file) for file in files]
    for _ in range(2):
        sender.request("POST", "/dicom-web/servers/us/stow", {"Resources": held})
        rows = instances(server[1])  # type: ignore[arg-type]  # it receives
        assert len(rows) == len(files)
    for row in rows:
        data_set = data_set_of(server[1], row)  # type: ignore[arg-type]  # it receives
        assert any(file.endswith(data_set) for file in files)
