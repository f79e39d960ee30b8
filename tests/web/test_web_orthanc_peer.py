"""The same requests to Orthanc 1.10.1 and to us: the same codes, fields, types, ids and messages.

What we do otherwise on purpose is written here as `Both.same` allows for it, or is not asked:

- Orthanc answers 404, 405 and a job's action in vain without a body; ours says what is wrong.
- `Details` is free text, and may be there or not; numbers of changes differ.
- Who transcodes, and what can be queried, is not for a modality to say with us.
- Orthanc sends a resource twice that is named twice.
- We refuse a storage commitment request without instances, which Orthanc commits to.
- A resource that Orthanc keeps the first version of, we keep all of; what is shown is of the newest.
- Our job that failed to reach its peer is tried again, Orthanc's is not.
- Of the main DICOM tags we show those that the database holds, with the values that Orthanc shows.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.bundled_files import bundled_files, file_meta
from support.commitment_server import dead_port
from support.instances import CT_IMAGE_STORAGE, Instance, encode_element, make_instance
from support.orthanc_rig import WAIT_SECONDS, Answer, OrthancRig, orthanc_rig, part10_of
from support.peers import Orthanc
from support.quick_web import PLAIN_HTTP

pytestmark = [pytest.mark.slow, pytest.mark.peer("Orthanc")]

CT = CT_IMAGE_STORAGE
LEVELS = ("patients", "studies", "series", "instances")
UNKNOWN = "00000000-00000000-00000000-00000000-00000000"
JOB_OF_NOBODY = "73f10aeb-9e71-4a55-af5e-66bb6ea55e90"
CANCELED = (37, "This job was canceled")
MANUFACTURERS = (
    *("GE", "Generic", "GenericNoUniversalWildcard", "GenericNoWildcardInDates", "Vitrea"),
    *("AgfaImpax", "ClearCanvas", "Dcm4Chee", "EFilm2", "MedInria", "SyngoVia"),  # of older versions
    *("StoreScp", "generic", "Siemens"),  # of none
)
WITHOUT_BODY = (400, 404, 405)
"""What Orthanc may answer without a word."""

PATTERNS = {
    r"\d{8}T\d{6}": "<time>",
    r"\d{8}T\d{6}\.\d{6}": "<time with microseconds>",
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "<UUID>",
    r"/jobs/[0-9a-f-]{36}": "<path of a job>",
    r"2\.25\.\d+": "<UID>",
    r"/storage-commitment/2\.25\.\d+": "<path of a transaction>",
}
TYPES_ONLY = {
    "AllowFind",  # we don't
    "AllowFindWorklist",
    "AllowGet",
    "AllowMove",
    "DicomPort",
    "EffectiveRuntime",
    "FileSize",  # our files hold how they came, too
    "HttpPort",
    "Last",
    "Port",
    "Progress",
    "Seq",
    "TotalDiskSize",
    "TotalUncompressedSize",
}
"""Fields of which the type counts."""


@dataclass(slots=True)
class Both:
    """Orthanc and we, each asked the same; each knows the other as the modality `peer`, and nobody as `dead`."""

    theirs: httpx.Client
    ours: OrthancRig
    differences: list[str] = field(default_factory=list)

    def same(self, method: str, path: str, body: Any = None) -> tuple[Any, Any]:
        """Make a request of both and note every difference; return the values of both."""
        return self.same_of(method, path, path, body, body)

    def same_of(
        self, method: str, their_path: str, our_path: str, their_body: Any = None, our_body: Any = None
    ) -> tuple[Any, Any]:
        """Make the same request where it is spelled differently."""
        theirs, ours = self.ask(method, their_path, their_body), self.ours.ask(method, our_path, our_body)
        asked = f"{method} {their_path} {_shown(their_body)}"
        if theirs.status != ours.status:
            self.differences.append(
                f"{asked}: {theirs.status} {theirs.value!r} | {ours.status} {ours.value!r}"
            )
        elif theirs.status not in WITHOUT_BODY or theirs.value:
            told = _common_tags(plain(theirs.value, "ORTHANC"), plain(ours.value, "STOWKEEPER"))
            if told[0] != told[1]:
                self.differences.append(f"{asked}: {told[0]!r} | {told[1]!r}")
        return theirs.value, ours.value

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Make a request of Orthanc."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        response = self.theirs.request(method, path, content=content)
        value: Any = response.content
        with contextlib.suppress(ValueError):
            value = response.json()  # it does not say of an error that it is JSON
        return Answer(status=response.status_code, value=value, headers=response.headers)

    def wait_for_their_job(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait until a job of Orthanc's is in one of some states; return it."""

        def look() -> Any:
            job = self.ask("GET", f"/jobs/{job_id}").value
            return job if job["State"] in states else None

        found: dict[str, Any] = self.ours.wait(look, f"{states} of Orthanc's {job_id}")
        return found

    def wait_for_reports(self, their_path: str, our_path: str) -> None:
        """Wait until a transaction of each is no longer pending."""
        self.ours.wait(lambda: self.ask("GET", their_path).value["Status"] != "Pending", their_path)
        self.ours.wait_for_report(our_path)

    def upload(self, *instances: Instance) -> list[str]:
        """Put instances into both; return their ids."""
        return [str(self.same("POST", "/instances", part10_of(one))[1]["ID"]) for one in instances]

    def check(self) -> None:
        """Complain of what differed."""
        assert not self.differences, "\n".join(self.differences)


def _shown(body: Any) -> str:
    return f"<{len(body)} bytes>" if isinstance(body, bytes) and len(body) > 80 else repr(body)


def plain(value: Any, own: str, name: str = "") -> Any:
    """Return an answer without what has to differ: times, random ids, who is who, and free text."""
    if isinstance(value, dict):
        if "OrthancStatus" in value:
            assert isinstance(value.get("Details", ""), str)
        return {key: plain(part, own, key) for key, part in value.items() if key != "Details"}
    if isinstance(value, list):
        return [plain(part, own, name) for part in value]
    if name in TYPES_ONLY or (isinstance(value, float) and value.is_integer()):
        return type(value).__name__.replace("float", "int")
    if isinstance(value, str):
        if value in {"ORTHANC", "STOWKEEPER"}:
            return "<own>" if value == own else "<other>"
        if name == "Uri":
            return re.sub(r"[0-9a-f-]{36}|2\.25\.\d+", "<ID>", value)
        return next((word for pattern, word in PATTERNS.items() if re.fullmatch(pattern, value)), value)
    return value


def _common_tags(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Leave out those main DICOM tags of theirs that ours has not."""
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = [_common_tags(*pair) for pair in zip(theirs, ours, strict=True)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return theirs, ours
    kept = {}
    for name, value in theirs.items():
        if name.endswith("MainDicomTags") and isinstance(ours.get(name), dict):
            kept[name] = {tag: text for tag, text in value.items() if tag in ours[name]}
        else:
            kept[name] = _common_tags(value, ours[name])[0] if name in ours else value
    return kept, ours


@pytest.fixture
def both(tmp_path: Path, orthanc: Orthanc) -> Iterator[Both]:
    url = f"http://{orthanc.host}:{orthanc.http_port}"
    with (
        httpx.Client(base_url=url, timeout=WAIT_SECONDS, verify=PLAIN_HTTP) as theirs,
        orthanc_rig(tmp_path / "archive") as ours,
        dead_port() as dead,
    ):
        orthanc.add_modality("peer", ae_title="STOWKEEPER", host="127.0.0.1", port=ours.port)
        orthanc.add_modality("dead", ae_title="DEAD", host="127.0.0.1", port=dead)
        ours.ask("PUT", "/modalities/peer", ["ORTHANC", orthanc.host, orthanc.port])
        ours.ask("PUT", "/modalities/dead", ["DEAD", "127.0.0.1", dead])
        yield Both(theirs, ours)


def of_patient(number: int, patient_id: bytes | None, character_set: bytes = b"") -> Instance:
    """Return an instance of another patient, each in a study of its own."""
    elements = [(0x00080005, b"CS", character_set)] if character_set else []
    elements += [
        (0x00080016, b"UI", CT.encode()),
        (0x00080018, b"UI", f"1.2.3.{number}".encode()),
        (0x00080060, b"CS", b"CT"),
    ]
    elements += [(0x00100020, b"LO", patient_id)] if patient_id is not None else []
    elements += [
        (0x0020000D, b"UI", f"1.2.{number}".encode()),
        (0x0020000E, b"UI", f"1.2.{number}.1".encode()),
    ]
    data = b"".join(encode_element(*element) for element in elements)
    return Instance(sop_instance_uid=f"1.2.3.{number}", data=data)


# What is kept.


def test_resources(both: Both) -> None:
    both.same("GET", "/changes")
    both.same("GET", "/statistics")
    ids = both.upload(
        make_instance(1),
        make_instance(1),
        make_instance(2),
        make_instance(3, study="1.2.20", series="1.2.20.1"),
    )
    for body in (b"", b"garbage", part10_of(make_instance(9, study=""))):
        both.same("POST", "/instances", body)
    for level in LEVELS:
        listed, _ = both.same("GET", f"/{level}")
        for query in (
            "?expand",
            "?since=0&limit=1",
            "?since=1&limit=1",
            "?limit=1",
            "?since=x&limit=1",
            "?since=0&limit=0",
            "?since=100&limit=2",
        ):
            both.same("GET", f"/{level}{query}")
        for method in ("GET", "DELETE"):
            both.same(method, f"/{level}/{UNKNOWN}")
            both.same(method, f"/{level}/nope")
        for path in (f"/{level}/{listed[0]}", f"/{level}/"):
            both.same("GET", path)
        for method in ("PUT", "POST"):
            both.same(method, f"/{level}/{listed[0]}", b"x")
    for path in ("/nothing", f"/instances/{ids[0]}/nope"):
        both.same("GET", path)
    path = f"/instances/{ids[0]}/file"
    assert both.ask("GET", path).headers["content-type"] == both.ours.ask("GET", path).headers["content-type"]
    data_sets = [file[file_meta(file)[1] :] for file in (both.ask("GET", path).value, both.ours.get(path))]
    assert data_sets == [make_instance(1).data] * 2
    both.same("POST", "/system", b"")
    for path in (f"/instances/{ids[0]}", f"/instances/{ids[0]}", f"/series/{listed[0]}"):
        both.same("DELETE", path)
    studies, _ = both.same("GET", "/studies")
    for study in studies:
        both.same("DELETE", f"/studies/{study}")
    for level in LEVELS:
        both.same("GET", f"/{level}")
    both.check()


def test_ids_of_odd_patients(both: Both) -> None:
    for number, (patient_id, character_set) in enumerate(
        [
            (b"P1", b""),
            (b"P2 ", b""),
            (b"", b""),
            (None, b""),
            (b"J\xfcrgen", b"ISO_IR 100"),
            ("Jürgen".encode(), b"ISO_IR 192"),
            (b"\xcf\xe5\xf2\xf0", b"ISO_IR 144"),
            (b"a\\b", b""),
            (b"x" * 64, b""),
        ],
        start=1,
    ):
        both.upload(of_patient(number, patient_id, character_set))
    for level in LEVELS:
        assert set(both.ask("GET", f"/{level}").value) == set(both.ours.get(f"/{level}"))
    both.check()


def test_ids_of_real_files(both: Both) -> None:
    taken: set[str] = set()
    for file in bundled_files():
        if file.name in {"rtdose_rle.dcm", "rtdose_rle_1frame.dcm"}:
            continue  # all of it is of VR UN, which Orthanc does not read as text
        if file.sop_instance_uid in taken:
            continue  # of what comes again, Orthanc shows the first and we the newest
        theirs = both.ask("POST", "/instances", file.path.read_bytes())
        ours = both.ours.ask("POST", "/instances", file.path.read_bytes())
        if theirs.status == ours.status == 200:
            taken.add(file.sop_instance_uid)
            for name in ("ID", "ParentSeries", "ParentStudy", "ParentPatient"):
                if theirs.value[name] != ours.value[name]:
                    both.differences.append(f"{file.name}: {theirs.value!r} | {ours.value!r}")
                    break
            else:
                both.same("GET", f"/instances/{ours.value['ID']}")
    assert len(taken) > 50
    both.check()


def test_system_and_changes(both: Both) -> None:
    theirs, ours = both.ask("GET", "/system").value, both.ours.get("/system")
    assert {name: type(value) for name, value in theirs.items()} == {
        name: type(value) for name, value in ours.items()
    }
    both.upload(make_instance(1), make_instance(2), make_instance(3, study="1.2.20", series="1.2.20.1"))
    both.same("GET", "/statistics")
    for path in ("/changes", "/changes?last", "/changes?since=x", "/changes?limit=1000", "/changes?limit=2"):
        both.same("GET", path)
    their_seq, our_seq = (
        answer["Changes"][3]["Seq"]
        for answer in (both.ask("GET", "/changes").value, both.ours.get("/changes"))
    )
    for query in ("", "&limit=1", "&limit=0"):
        both.same_of("GET", f"/changes?since={their_seq}{query}", f"/changes?since={our_seq}{query}")
    both.same("GET", "/changes?since=1000000")
    both.check()


# Modalities.


def test_modalities(both: Both) -> None:
    known = {"AET": "X", "Host": "h", "Port": 1}
    for body in (
        ["DDD", "127.0.0.1", 104],
        ["DDD", "127.0.0.1", 104, "Vitrea"],
        ["DDD", "127.0.0.1", 104, "Nonsense"],
        *(["DDD", "127.0.0.1", 104, name] for name in MANUFACTURERS),
        {"AET": "DDD", "Host": "127.0.0.1", "Port": "104"},
        {**known, "AllowStorageCommitment": False, "AllowEcho": False, "Timeout": 5, "LocalAet": "ME"},
        {**known, "AllowNAction": False, "AllowStore": False, "AllowTranscoding": True},
        {**known, "AllowEventReport": False, "Manufacturer": "Generic", "UseDicomTls": False},
        {**known, "Nonsense": 3},
        known,
        *({name: value for name, value in known.items() if name != left} for left in known),
        {**known, "Port": 70000},
        {**known, "Port": 0},
        {**known, "Port": "x"},
        {**known, "AET": 5},
        {**known, "AllowEcho": "yes"},
        {**known, "Timeout": "x"},
        {**known, "Timeout": -1},
        {},
        [],
        ["A"],
        ["A", "h", 1, "Generic", 5],
        [1, 2, 3],
        "text",
        5,
        None,
        b"{",
        b"",
    ):
        both.same("PUT", "/modalities/some", body if body is not None else b"null")
        for path in ("/modalities", "/modalities?expand", "/modalities/some/configuration"):
            both.same("GET", path)
    for name in ("q%20q", "q.q", "q-q", "q_q", "%C3%BC"):
        both.same("PUT", f"/modalities/{name}", known)
    for name in ("some", "some", "nope"):
        both.same("DELETE", f"/modalities/{name}")
    for path in ("/modalities", "/modalities/nope", "/modalities/nope/configuration", "/modalities/"):
        both.same("GET", path)
    parts, ours = both.ask("GET", "/modalities/peer").value, both.ours.get("/modalities/peer")
    assert set(ours) <= set(parts)
    both.check()


def test_echo(both: Both) -> None:
    for body in (
        b"",
        {},
        {"Timeout": 2},
        b"[]",
        b"{bad",
        {"Timeout": "x"},
        {"Timeout": -1},
        {"CheckFind": False},
    ):
        both.same("POST", "/modalities/peer/echo", body)
    for name in ("nope", "dead"):
        both.same("POST", f"/modalities/{name}/echo", {})
    for method in ("GET", "PUT", "DELETE"):
        both.same(method, "/modalities/peer/echo")
    both.check()


def test_store(both: Both) -> None:
    first, second = both.upload(make_instance(1), make_instance(2))
    instance, _ = both.same("GET", f"/instances/{first}")
    study = both.ours.get(f"/series/{instance['ParentSeries']}")["ParentStudy"]
    for body in (
        first.encode(),
        f'"{first}"'.encode(),
        f" {first}\n".encode(),
        [first],
        [],
        {"Resources": [study]},
        {"Resources": [instance["ParentSeries"]]},
        {"Resources": [study], "Synchronous": True, "Permissive": True, "Priority": 3, "LocalAet": "X"},
        {"Resources": [first], "Synchronous": True, "Asynchronous": True, "Timeout": 3},
        {"Resources": [first], "StorageCommitment": False},
        {"Resources": []},
        {"Resources": [first], "StorageCommitment": True},
        {"Resources": [first], "Asynchronous": True},
        {"Resources": [second], "Synchronous": False},
        b"",
        b"nope",
        UNKNOWN.encode(),
        {"Resources": ["nope"]},
        {"Resources": [UNKNOWN]},
        [UNKNOWN],
        {},
        {"Resources": first},
        b"{bad",
        ["nope"],
        5,
        [5],
        {"Resources": [5]},
        {"Resources": [first], "Synchronous": "x"},
        {"Resources": [first], "Timeout": -1},
        {"Resources": [first], "Priority": "x"},
        {"Resources": [first], "Permissive": "x"},
    ):
        both.same("POST", "/modalities/peer/store", body)
    both.same("POST", "/modalities/nope/store", first.encode())
    both.same("POST", "/modalities/dead/store", first.encode())
    both.check()


def test_jobs(both: Both) -> None:
    (instance,) = both.upload(make_instance(1))
    for name, state in (("peer", "Success"), ("dead", "Failure")):
        body = {"Resources": [instance], "Asynchronous": True, "Priority": 7}
        theirs, ours = both.same("POST", f"/modalities/{name}/store", body)
        both.wait_for_their_job(theirs["ID"], state)
        if name == "dead":  # ours is tried again until it is cancelled
            both.ours.wait_for_job(ours["ID"], "Retry")
            both.ours.post(f"/jobs/{ours['ID']}/cancel")
        both.ours.wait_for_job(ours["ID"], state)
        paths = theirs["Path"], ours["Path"]
        their_job, our_job = both.ask("GET", paths[0]).value, both.ours.get(paths[1])
        if name == "dead":
            assert (our_job.pop("ErrorCode"), our_job.pop("ErrorDescription")) == CANCELED
            for job, progress in ((their_job, None), (our_job, None)):
                for other in ("ErrorCode", "ErrorDescription", "ErrorDetails", "Progress"):
                    job.pop(other, progress)
        assert plain(their_job, "ORTHANC") == plain(our_job, "STOWKEEPER")
        for action in ("cancel", "pause", "resume", "resubmit", "nope"):
            both.same_of("POST", *(f"{path}/{action}" for path in paths), b"", b"")
        both.same_of("GET", *(f"{path}/archive" for path in paths))
    for action in ("cancel", "pause", "resume", "resubmit"):
        both.same("POST", f"/jobs/{JOB_OF_NOBODY}/{action}", b"")
        both.same("POST", f"/jobs/nope/{action}", b"")
    both.same("GET", f"/jobs/{JOB_OF_NOBODY}")
    both.same("GET", "/jobs/nope")
    both.check()


# Storage commitment, both ways at once.


def commitment_jobs(both: Both, look: Callable[[], Any]) -> list[dict[str, Any]]:
    """Return the jobs of what was asked of one; a job may end a moment after its report came."""

    def over() -> Any:
        jobs = [job for job in look() if job["Type"] == "StorageCommitmentScp"]
        return jobs if all("CompletionTime" in job for job in jobs) else None

    found: list[dict[str, Any]] = both.ours.wait(over, "the end of every job")
    return found


def test_commitment(both: Both) -> None:
    first, second = both.upload(make_instance(1), make_instance(2))
    (third,) = both.upload(make_instance(3, study="1.2.20", series="1.2.20.1"))
    both.same(
        "POST", "/modalities/peer/store", first.encode()
    )  # now each has what it has, and it is the same
    for body in (
        {"DicomInstances": [{"SOPClassUID": CT, "SOPInstanceUID": "1.2.3.1"}]},
        {"DicomInstances": [[CT, "1.2.3.1"], [CT, "1.2.3.99"]]},
        {"DicomInstances": [["1.2.840.10008.5.1.4.1.1.4", "1.2.3.2"]]},
        {"Resources": [first]},
        {"Resources": [first, second], "DicomInstances": [[CT, "1.2.3.3"]], "Timeout": 10},
    ):
        theirs, ours = both.same("POST", "/modalities/peer/storage-commitment", body)
        both.wait_for_reports(theirs["Path"], ours["Path"])
        both.same_of("GET", theirs["Path"], ours["Path"])
        for method in ("PUT", "DELETE"):
            both.same_of(method, theirs["Path"], ours["Path"])
    jobs = commitment_jobs(both, lambda: both.ask("GET", "/jobs?expand").value)
    our_jobs = commitment_jobs(both, lambda: both.ours.get("/jobs?expand"))
    assert len(jobs) == len(our_jobs) == 5
    for job in our_jobs:
        assert job["Content"].pop("RemoteIp") == "127.0.0.1"
    assert [plain(job, "ORTHANC") for job in jobs] == [plain(job, "STOWKEEPER") for job in our_jobs]
    for body in (
        {},
        b"",
        b"{",
        [],
        5,
        {"DicomInstances": [{"SOPClassUID": "", "SOPInstanceUID": ""}]},
        {"DicomInstances": [[CT]]},
        {"DicomInstances": [["", ""]]},
        {"DicomInstances": 5},
        {"DicomInstances": [[CT, 5]]},
        {"DicomInstances": [{"SOPClassUID": CT}]},
        {"DicomInstances": ["x"]},
        {"Resources": ["nope"]},
        {"Resources": [UNKNOWN]},
        {"Resources": third},
        {"Resources": [5]},
        {"Resources": [third], "Timeout": "x"},
        {"Resources": [third], "Timeout": -1},
    ):
        both.same("POST", "/modalities/peer/storage-commitment", body)
    both.same("POST", "/modalities/nope/storage-commitment", {"Resources": [third]})
    both.same("POST", "/modalities/dead/storage-commitment", {"Resources": [third]})
    for path in ("/storage-commitment", "/storage-commitment/1.2.3", "/storage-commitment/1.2.3/remove"):
        both.same("GET", path)
    both.same("POST", "/storage-commitment/1.2.3/remove", b"")
    both.check()


def test_removal_after_commitment(both: Both) -> None:
    both.upload(make_instance(1), make_instance(2))
    for own in ((1, 2), (9, 9)):  # what each asks for, since neither removes what it holds for the other
        bodies = [{"DicomInstances": [[CT, f"1.2.3.{number}"]]} for number in own]
        theirs, ours = both.same_of("POST", *["/modalities/peer/storage-commitment"] * 2, *bodies)
        paths = theirs["Path"], ours["Path"]
        both.wait_for_reports(*paths)
        both.same_of("POST", *(f"{path}/remove" for path in paths), b"", b"")
        both.same_of("POST", *(f"{path}/remove" for path in paths), {}, {})
        both.same_of("GET", *(f"{path}/remove" for path in paths))
        assert both.ask("GET", paths[0]).value["Status"] == both.ours.get(paths[1])["Status"]
    left = [both.ask("GET", "/instances?expand").value, both.ours.get("/instances?expand")]
    assert [one["MainDicomTags"]["SOPInstanceUID"] for instances in left for one in instances] == [
        "1.2.3.2",
        "1.2.3.1",
    ]
    both.check()
