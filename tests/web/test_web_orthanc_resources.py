"""/patients, /studies, /series, /instances in Orthanc's shape: lists, one of them, files, and removing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from stowkeeper.archive import catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.changes import changes_after
from stowkeeper.archive.limits import HEAD_READ_BYTES
from stowkeeper.dicom.part10 import read_file_meta
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.web import application, orthanc_resources, orthanc_upload
from stowkeeper.web.orthanc_answers import RECEIPT_BYTES
from stowkeeper.web.orthanc_ids import orthanc_id
from stowkeeper.web.roles import Role
from stowkeeper.web.services import WebOptions
from support.catalog_rows import make_entry
from support.instances import encode_element, make_instance
from support.orthanc_rig import OrthancRig, orthanc_rig, part10_of
from support.quick_web import PLAIN_HTTP
from support.web_server import web_serving

pytestmark = pytest.mark.slow

LEVELS = ("patients", "studies", "series", "instances")
UNKNOWN = "00000000-00000000-00000000-00000000-00000000"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as running:
        yield running


def insert(rig: OrthancRig, *entries: Any) -> list[int]:
    """List instances without files; return the keys of their versions."""
    with rig.database.write() as transaction:
        return [result.version_key or 0 for result in catalog.insert(transaction, entries)]


def hold(rig: OrthancRig, sop_instance_uid: str) -> None:
    """Hold the versions of an instance, as a commitment does."""
    with rig.database.write() as transaction:
        found = catalog.find_versions(transaction.connection, [sop_instance_uid])[sop_instance_uid]
        catalog.hold(transaction, [version.version_key for version in found], "committed to SCANNER")


def states(rig: OrthancRig, sop_instance_uid: str) -> list[str]:
    """Return the states of the versions of an instance, those that are gone too."""
    with rig.database.read() as connection:
        found = catalog.find_versions(connection, [sop_instance_uid], states=tuple(catalog.VersionState))
    return [version.state.value for version in found.get(sop_instance_uid, [])]


# Lists.


def test_an_empty_archive_has_empty_lists(rig: OrthancRig) -> None:
    for level in LEVELS:
        assert rig.get(f"/{level}") == []
        assert rig.get(f"/{level}?expand") == []


def test_lists_and_pages_of_every_level(rig: OrthancRig) -> None:
    insert(
        rig,
        *(
            make_entry(
                number, number, study=f"1.2.{number}", series=f"1.2.{number}.1", patient_id=f"P{number}"
            )
            for number in range(1, 6)
        ),
    )
    for depth, level in enumerate(LEVELS, 1):
        whole = rig.get(f"/{level}")
        names = [(f"P{n}", f"1.2.{n}", f"1.2.{n}.1", f"1.2.3.{n}")[:depth] for n in range(1, 6)]
        assert whole == [orthanc_id(*name) for name in names]
        assert [found["ID"] for found in rig.get(f"/{level}?expand")] == whole
        assert rig.get(f"/{level}?since=1&limit=3") == whole[1:4]
        assert [found["ID"] for found in rig.get(f"/{level}?since=4&limit=3&expand")] == whole[4:]
        assert rig.get(f"/{level}?since=5&limit=3") == []
        assert rig.get(f"/{level}?since=0&limit=0") == []
        assert rig.get(f"/{level}/") == whole


@pytest.mark.parametrize("level", LEVELS)
def test_lists_longer_than_a_portion(rig: OrthancRig, level: str) -> None:
    insert(
        rig,
        *(
            make_entry(
                number, number, study=f"1.2.{number}", series=f"1.2.{number}.1", patient_id=f"P{number:02}"
            )
            for number in range(11)
        ),
    )
    with patch.object(orthanc_resources, "PAGE_RESOURCES", 3):
        whole = rig.get(f"/{level}")
        assert len(set(whole)) == 11
        assert rig.get(f"/{level}?since=2&limit=7") == whole[2:9]
        assert [found["ID"] for found in rig.get(f"/{level}?expand")] == whole


@pytest.mark.parametrize(
    ("query", "code", "details"),
    [
        ("limit=1", 8, 'Missing "since" argument for GET request against: /studies/'),
        ("since=1", 8, 'Missing "limit" argument for GET request against: /studies/'),
        ("since=x&limit=1", 5, "Syntax error in some user-supplied data"),
        ("since=1&limit=-1", 5, "Syntax error in some user-supplied data"),
        ("since=1&limit=" + "9" * 30, 5, "Syntax error in some user-supplied data"),
        ("since=²&limit=1", 5, "Syntax error in some user-supplied data"),
    ],
)
def test_malformed_pages(rig: OrthancRig, query: str, code: int, details: str) -> None:
    answer = rig.ask("GET", f"/studies?{query}")
    assert answer.status == 400
    assert answer.value["OrthancStatus"] == code
    assert answer.value["Details"] == details


# One of them.


def test_what_is_told_of_each(rig: OrthancRig) -> None:
    insert(
        rig,
        make_entry(
            1,
            3,
            patient_id="P1",
            patient_name="Test^Patient",
            patient_birth_date="19700101",
            patient_sex="O",
            study_date="20260102",
            study_time="101112",
            study_id="S1",
            study_description="Head",
            accession_number="A1",
            referring_physician_name="Doe^J",
            institution_name="Here",
            modality="CT",
            series_number=4,
            series_description="Thin",
            body_part_examined="HEAD",
            station_name="ONE",
            instance_number=7,
            number_of_frames=2,
        ),
        make_entry(2, 4, patient_id="P1", instance_number=8),
    )
    patient, study = orthanc_id("P1"), orthanc_id("P1", "1.2.1")
    series = orthanc_id("P1", "1.2.1", "1.2.1.1")
    first, second = (orthanc_id("P1", "1.2.1", "1.2.1.1", f"1.2.3.{number}") for number in (1, 2))
    # The rows above an instance show what the newest one says, which has nothing but its Patient ID.
    assert rig.get(f"/patients/{patient}") == {
        "ID": patient,
        "IsStable": True,
        "LastUpdate": "20260102T000004",
        "MainDicomTags": {"PatientID": "P1"},
        "Studies": [study],
        "Type": "Patient",
    }
    assert rig.get(f"/studies/{study}") == {
        "ID": study,
        "IsStable": True,
        "LastUpdate": "20260102T000004",
        "MainDicomTags": {"StudyInstanceUID": "1.2.1"},
        "ParentPatient": patient,
        "PatientMainDicomTags": {"PatientID": "P1"},
        "Series": [series],
        "Type": "Study",
    }
    assert rig.get(f"/series/{series}") == {
        "ExpectedNumberOfInstances": None,
        "ID": series,
        "Instances": [first, second],
        "IsStable": True,
        "LastUpdate": "20260102T000004",
        "MainDicomTags": {"SeriesInstanceUID": "1.2.1.1"},
        "ParentStudy": study,
        "Status": "Unknown",
        "Type": "Series",
    }
    told = rig.get(f"/instances/{first}")
    assert len(told.pop("FileUuid")) == 36
    assert told == {
        "FileSize": 2500 - RECEIPT_BYTES,
        "ID": first,
        "IndexInSeries": 7,
        "MainDicomTags": {"InstanceNumber": "7", "NumberOfFrames": "2", "SOPInstanceUID": "1.2.3.1"},
        "ParentSeries": series,
        "Type": "Instance",
    }


def test_the_tags_of_the_newest_instance(rig: OrthancRig) -> None:
    insert(
        rig,
        make_entry(
            1,
            3,
            patient_id="P1",
            patient_name="Test^Patient",
            study_description="Head",
            institution_name="Here",
            modality="CT",
            series_number=4,
        ),
    )
    study = rig.get("/studies?expand")[0]
    assert study["MainDicomTags"] == {
        "InstitutionName": "Here",
        "StudyDescription": "Head",
        "StudyInstanceUID": "1.2.1",
    }
    assert study["PatientMainDicomTags"] == {"PatientID": "P1", "PatientName": "Test^Patient"}
    assert rig.get("/series?expand")[0]["MainDicomTags"] == {
        "Modality": "CT",
        "SeriesInstanceUID": "1.2.1.1",
        "SeriesNumber": "4",
    }


def test_what_came_just_now_is_not_stable(rig: OrthancRig) -> None:
    rig.keep(1)
    assert [found["IsStable"] for level in LEVELS[:3] for found in rig.get(f"/{level}?expand")] == [False] * 3


def test_patients_with_one_id_and_several_rows_are_one(rig: OrthancRig) -> None:
    insert(
        rig,
        make_entry(1, 1, patient_id="P1", issuer_of_patient_id="A", patient_name="Old"),
        make_entry(
            2,
            2,
            patient_id="P1",
            issuer_of_patient_id="B",
            patient_name="New",
            study="1.2.2",
            series="1.2.2.1",
        ),
        make_entry(3, 3, study="1.2.3", series="1.2.3.1"),
        make_entry(4, 4, study="1.2.4", series="1.2.4.1"),
    )
    assert sorted(rig.get("/patients")) == sorted([orthanc_id("P1"), orthanc_id("")])
    patient = rig.get(f"/patients/{orthanc_id('P1')}")
    assert patient["MainDicomTags"]["PatientName"] == "New"
    assert patient["Studies"] == [orthanc_id("P1", "1.2.1"), orthanc_id("P1", "1.2.2")]
    nameless = rig.get(f"/patients/{orthanc_id('')}")
    assert nameless["Studies"] == [orthanc_id("", "1.2.3"), orthanc_id("", "1.2.4")]


def test_what_belongs_to_no_study_is_not_shown(rig: OrthancRig) -> None:
    insert(rig, make_entry(1, 1, study=None, series=None), make_entry(2, 2, series=None), make_entry(3, 3))
    assert [len(rig.get(f"/{level}")) for level in LEVELS] == [1, 1, 1, 1]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("resource_id", [UNKNOWN, "nope", "%00", "a" * 500])
def test_unknown_ones(rig: OrthancRig, level: str, resource_id: str) -> None:
    rig.keep(1)
    for method in ("GET", "DELETE"):
        answer = rig.ask(method, f"/{level}/{resource_id}")
        assert answer.status == 404
        assert answer.value["OrthancStatus"] == 17
    assert rig.ask("GET", f"/instances/{resource_id}/file").status == 404
    assert rig.ask("GET", f"/{level}/{UNKNOWN}/nope").status == 404


# The file.


@pytest.mark.parametrize("size", [600, 3_000_000])
def test_the_file_of_an_instance(rig: OrthancRig, size: int) -> None:
    instance = make_instance(1, size=size)
    (own_id,) = [rig.upload(instance)]
    answer = rig.ask("GET", f"/instances/{own_id}/file")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.value.endswith(instance.data)
    meta = read_file_meta(memoryview(answer.value), whole=True)
    assert (meta.media_storage_sop_instance_uid, meta.length) == (
        "1.2.3.1",
        len(answer.value) - len(instance.data),
    )
    told = rig.get(f"/instances/{own_id}")
    assert told["FileSize"] == len(answer.value)
    assert b"receipt_id" not in answer.value
    assert answer.headers["content-disposition"] == f'filename="{told["FileUuid"]}.dcm"'
    head = rig.client.head(f"/instances/{own_id}/file")
    assert (head.status_code, int(head.headers["content-length"]), head.content) == (
        200,
        len(answer.value),
        b"",
    )


def test_who_asks_for_the_fields_alone_has_no_file_read(rig: OrthancRig) -> None:
    own_id = rig.upload(make_instance(1, size=3_000_000))
    read = FileSystem.read
    taken: list[int] = []

    def read_noted(files: FileSystem, descriptor: int, size: int, offset: int) -> bytes:
        taken.append(offset + size)
        return read(files, descriptor, size, offset)

    with patch.object(FileSystem, "read", read_noted):
        for path in (f"/instances/{own_id}/file", "/api/instances/1.2.3.1/file"):
            assert int(rig.client.head(path).headers["content-length"]) > 3_000_000
            assert taken
            assert max(taken) <= HEAD_READ_BYTES
            taken.clear()


def test_a_file_that_is_damaged_or_missing(rig: OrthancRig) -> None:
    (own_id,) = rig.keep(1)
    (file,) = Path(rig.archive.root, "objects").rglob("*.dcm")
    file.write_bytes(file.read_bytes()[:-1])
    for _ in ("damaged", "missing"):
        answer = rig.ask("GET", f"/instances/{own_id}/file")
        assert (answer.status, answer.value["OrthancStatus"]) == (500, 20)
        assert "stowkeeper verify" in answer.value["Details"]
        file.unlink(missing_ok=True)


def test_files_that_nobody_reads_to_the_end_are_closed(rig: OrthancRig) -> None:
    own_id = rig.upload(make_instance(1, size=8_000_000))
    opened: list[int] = []
    closed: list[int] = []

    def open_noted(files: FileSystem, path: str) -> int:
        opened.append(open_for_reading(files, path))
        return opened[-1]

    def close_noted(files: FileSystem, descriptor: int) -> None:
        closed.append(descriptor)
        close(files, descriptor)

    open_for_reading, close = FileSystem.open_for_reading, FileSystem.close
    with (
        patch.object(FileSystem, "open_for_reading", open_noted),
        patch.object(FileSystem, "close", close_noted),
    ):
        with rig.client.stream("GET", f"/instances/{own_id}/file") as response:
            next(response.iter_raw())
        rig.wait(lambda: opened and set(opened) <= set(closed), "the file to be closed")


# Removing.


def test_removing_from_the_bottom_to_the_top(rig: OrthancRig) -> None:
    first, second, third = rig.keep(1, 2, 3)
    (other,) = rig.keep(4, study="1.2.20", series="1.2.20.1")
    patient = rig.get("/patients")[0]
    told = rig.ask("DELETE", f"/instances/{first}")
    series = rig.get(f"/instances/{second}")["ParentSeries"]
    assert told.value == {"RemainingAncestor": {"ID": series, "Path": f"/series/{series}", "Type": "Series"}}
    assert states(rig, "1.2.3.1") == ["removed"]
    assert rig.ask("GET", f"/instances/{first}").status == 404
    assert rig.ask("DELETE", f"/instances/{first}").status == 404
    above = {"ID": patient, "Path": f"/patients/{patient}", "Type": "Patient"}
    assert rig.ask("DELETE", f"/series/{series}").value == {"RemainingAncestor": above}
    assert rig.get("/instances") == [other]
    assert rig.ask("DELETE", f"/patients/{patient}").value == {"RemainingAncestor": None}
    assert [rig.get(f"/{level}") for level in LEVELS] == [[], [], [], []]
    assert [*Path(rig.archive.root, "objects").rglob("*.dcm")] == []
    assert states(rig, "1.2.3.3") == ["removed"], third


def test_a_study_of_several_series_goes_whole(rig: OrthancRig) -> None:
    rig.keep(1, series="1.2.10.1")
    rig.keep(2, series="1.2.10.2")
    (kept,) = rig.keep(3, study="1.2.20", series="1.2.20.1")
    assert rig.ask("DELETE", f"/studies/{orthanc_id('P1', '1.2.10')}").status == 200
    assert rig.get("/instances") == [kept]


def test_every_version_of_an_instance_goes(rig: OrthancRig) -> None:
    rig.keep(1)
    (own_id,) = rig.keep(1, content=5)
    assert len(states(rig, "1.2.3.1")) == 2
    assert rig.ask("DELETE", f"/instances/{own_id}").status == 200
    assert states(rig, "1.2.3.1") == ["removed", "removed"]


def test_a_series_is_removed_from_its_own_study_alone(rig: OrthancRig) -> None:
    rig.keep(1, study="1.2.10", series="1.2.77")
    (other,) = rig.keep(2, study="1.2.20", series="1.2.77")
    assert rig.ask("DELETE", f"/series/{orthanc_id('P1', '1.2.10', '1.2.77')}").status == 200
    assert rig.get("/instances") == [other]


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_held_is_refused_and_all_stays(rig: OrthancRig, level: str) -> None:
    rig.keep(1, 2)
    hold(rig, "1.2.3.2")
    wanted = rig.get(f"/{level}")[-1]
    answer = rig.ask("DELETE", f"/{level}/{wanted}")
    assert answer.status == 409
    assert (answer.value["HttpStatus"], answer.value["OrthancStatus"]) == (409, 6)
    assert "1.2.3.2" in answer.value["Details"]
    assert states(rig, "1.2.3.1") == states(rig, "1.2.3.2") == ["kept"]


def test_what_is_held_since_the_look_is_refused(rig: OrthancRig) -> None:
    (own_id,) = rig.keep(1)
    carry_out = orthanc_resources.Removal.carry_out

    def held_first(removal: Any, plan: Any, reason: str) -> Any:
        hold(rig, "1.2.3.1")
        return carry_out(removal, plan, reason)

    with patch.object(orthanc_resources.Removal, "carry_out", held_first):
        assert rig.ask("DELETE", f"/instances/{own_id}").status == 409
    assert states(rig, "1.2.3.1") == ["kept"]


def test_the_change_rows_say_who_removed(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as rig:
        (own_id,) = rig.keep(1)
        assert rig.ask("DELETE", f"/instances/{own_id}").status == 200
        with rig.database.read() as connection:
            details = {change.detail for change in changes_after(connection, 0)}
    assert "removed by without credential, by HTTP" in details


# Who may.


def test_who_reads_may_not_remove(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as rig:
        (own_id,) = rig.keep(1)
        reader, operator = rig.token("reader", Role.READ), rig.token("operator", Role.OPERATE)
        assert rig.ask("GET", "/instances").status == 401
        told = rig.ask("GET", "/instances").value
        assert (told["OrthancStatus"], told["HttpStatus"], told["Method"], told["Uri"]) == (
            29,
            401,
            "GET",
            "/instances",
        )
        assert rig.ask("GET", "/instances", headers=reader).value == [own_id]
        refused = rig.ask("DELETE", f"/instances/{own_id}", headers=reader)
        assert (refused.status, refused.value["HttpError"]) == (403, "Forbidden")
        assert rig.ask("POST", "/instances", part10_of(make_instance(2)), headers=reader).status == 403
        assert rig.ask("DELETE", f"/instances/{own_id}", headers=operator).status == 200


def test_an_archive_that_is_only_read_has_the_same_lists(tmp_path: Path) -> None:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as rig:
        rig.keep(1, 2)
        whole = rig.get("/instances?expand")
        reader = ArchiveReader(str(tmp_path / "archive"))
        try:
            services = replace(rig.services, archive=reader)
            routers = [make(services) for make in (orthanc_resources.router, orthanc_upload.router)]
            with patch.object(application, "ROUTERS", ()):
                built = application.build_application(services, WebOptions(), routers=routers)
            with web_serving(built) as web, httpx.Client(base_url=web.url, verify=PLAIN_HTTP) as client:
                assert client.get("/instances?expand").json() == whole
                assert client.post("/instances", content=part10_of(make_instance(3))).status_code == 503
        finally:
            reader.close()


def test_texts_come_as_they_are(rig: OrthancRig) -> None:
    name = "Müller^Jürgen"
    data = make_instance(1).data
    before = encode_element(0x00100010, b"PN", b"Test^Patient")
    after = encode_element(0x00100010, b"PN", name.encode())
    charset = encode_element(0x00080005, b"CS", b"ISO_IR 192")
    rig.upload(replace(make_instance(1), data=charset + data.replace(before, after)))
    assert rig.get("/patients?expand")[0]["MainDicomTags"]["PatientName"] == name
