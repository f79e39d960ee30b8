"""The payloads of the web form of storage commitment: both encodings, both shapes, and everything that is neither."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.services.commitment.commitment_values import CommitmentInstance, InstanceOutcome
from stowkeeper.stow.media_types import DICOM_JSON, DICOM_XML
from stowkeeper.web import commitment_payload
from stowkeeper.web.commitment_payload import (
    CommitmentPayload,
    PayloadError,
    read_payload,
    result_of,
    write_result,
)

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
LIST = (Reference(CT, "1.2.3.1"), Reference(MR, "1.2.3.2"), Reference(CT, "1.2.3.1"))
TREE = {
    "1.2.10": {"1.2.10.1": {CT: ["1.2.3.1", "1.2.3.2"], MR: ["1.2.3.3"]}, "1.2.10.2": {CT: ["1.2.3.4"]}},
    "1.2.20": {"1.2.20.1": {MR: ["1.2.3.5"]}},
}
TREE_REFERENCES = (
    Reference(CT, "1.2.3.1"),
    Reference(CT, "1.2.3.2"),
    Reference(MR, "1.2.3.3"),
    Reference(CT, "1.2.3.4"),
    Reference(MR, "1.2.3.5"),
)
RUNS = (("1.2.10", "1.2.10.1", 3), ("1.2.10", "1.2.10.2", 1), ("1.2.20", "1.2.20.1", 1))


def ui(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]}


def sq(*items: Any) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


def list_json(references: Any = LIST) -> dict[str, Any]:
    return {
        "00081199": sq(
            *({"00081150": ui(one.sop_class_uid), "00081155": ui(one.sop_instance_uid)} for one in references)
        )
    }


def tree_json(tree: Any = TREE) -> dict[str, Any]:
    return {
        "00081110": sq(
            *(
                {
                    "0020000D": ui(study),
                    "00081115": sq(
                        *(
                            {
                                "0020000E": ui(series),
                                "00081112": sq(
                                    *(
                                        {
                                            "00081150": ui(sop_class),
                                            "0008114A": sq(*({"00081155": ui(uid)} for uid in uids)),
                                        }
                                        for sop_class, uids in groups.items()
                                    )
                                ),
                            }
                            for series, groups in all_series.items()
                        )
                    ),
                }
                for study, all_series in tree.items()
            )
        )
    }


def xml_of(data_set: dict[str, Any], *, head: str = '<?xml version="1.0"?>', space: str = "") -> bytes:
    """Return a data set in DICOM JSON as Native DICOM Model."""

    def attributes(items: dict[str, Any]) -> str:
        parts = []
        for tag, attribute in items.items():
            parts.append(f'<DicomAttribute tag="{tag}" vr="{attribute["vr"]}">{space}')
            for number, value in enumerate(attribute["Value"], 1):
                if isinstance(value, dict):
                    parts.append(f'<Item number="{number}">{attributes(value)}</Item>{space}')
                else:
                    parts.append(f'<Value number="{number}">{value}</Value>{space}')
            parts.append(f"</DicomAttribute>{space}")
        return "".join(parts)

    name_space = 'xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"'
    return f"{head}<NativeDicomModel {name_space}>{space}{attributes(data_set)}</NativeDicomModel>".encode()


BOTH = pytest.mark.parametrize("media_type", [DICOM_JSON, DICOM_XML])


def encode(data_set: dict[str, Any], media_type: str) -> bytes:
    return json.dumps(data_set).encode() if media_type == DICOM_JSON else xml_of(data_set)


# Reading.


@BOTH
def test_a_list(media_type: str) -> None:
    assert read_payload(encode(list_json(), media_type), media_type) == CommitmentPayload(references=LIST)


@BOTH
def test_a_tree(media_type: str) -> None:
    found = read_payload(encode(tree_json(), media_type), media_type)
    assert found == CommitmentPayload(references=TREE_REFERENCES, runs=RUNS)


@BOTH
def test_what_else_stands_in_it_is_passed_over(media_type: str) -> None:
    data_set = list_json()
    data_set["00081195"] = ui("1.2.3.4.5")  # the transaction UID belongs into the address
    data_set["00081111"] = sq({"00081155": ui("1.2"), "00081199": sq({"00081150": ui("x")})})
    data_set["00081199"]["Value"][0]["00880130"] = {"vr": "SH", "Value": ["SET"]}
    assert read_payload(encode(data_set, media_type), media_type).references == LIST


@pytest.mark.parametrize("pad", ["", " ", "\0"])
def test_padding_of_uids(pad: str) -> None:
    data_set = {"00081199": sq({"00081150": ui(CT + pad), "00081155": ui("1.2.3" + pad)})}
    assert read_payload(json.dumps(data_set).encode(), DICOM_JSON).references == (Reference(CT, "1.2.3"),)


def test_what_pydicom_writes() -> None:
    data_set = Dataset()
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, "1.2.3.1"
    data_set.ReferencedSOPSequence = [item]
    body = data_set.to_json().encode()
    assert read_payload(body, DICOM_JSON).references == LIST[:1]
    assert read_payload(b"[" + body + b"]", DICOM_JSON).references == LIST[:1]


def test_tags_in_small_letters() -> None:
    body = json.dumps(tree_json()).replace("0020000D", "0020000d").replace("0008114A", "0008114a").encode()
    assert read_payload(body, DICOM_JSON).runs == RUNS


@pytest.mark.parametrize(
    "body",
    [
        xml_of(list_json(), head="\ufeff"),
        xml_of(list_json(), head='<?xml version="1.0" encoding="UTF-8" standalone="yes"?><!-- words -->'),
        xml_of(list_json(), space="\n  "),
        xml_of(list_json())
        .replace(b'<Value number="1">', b'<Value number="1"><![CDATA[')
        .replace(b"</Value>", b"]]></Value>"),
        xml_of(list_json()).replace(b"1.2.3.1", b"1.2&#46;3.1"),
        xml_of(list_json())
        .decode()
        .replace(' xmlns="http', ' xmlns:d="http')
        .replace("<", "<d:")
        .replace("<d:/", "</d:")
        .replace("<d:?", "<?")
        .encode(),
        xml_of(list_json(), head='<?xml version="1.0" encoding="UTF-16"?>').decode().encode("utf-16"),
    ],
    ids=["mark", "declaration", "blanks", "sections", "characters", "prefix", "UTF-16"],
)
def test_xml_as_others_write_it(body: bytes) -> None:
    assert read_payload(body, DICOM_XML).references == LIST


def changed(change: Any, base: Any = list_json) -> dict[str, Any]:
    data_set = base()
    change(data_set)
    return data_set  # type: ignore[no-any-return]  # pydicom is untyped here


def item_of(data_set: dict[str, Any], *tags: str) -> dict[str, Any]:
    for tag in tags:
        data_set = data_set[tag]["Value"][0]
    return data_set


TO_SERIES = ("00081110", "00081115")
TO_GROUP = (*TO_SERIES, "00081112")


@BOTH
@pytest.mark.parametrize(
    ("data_set", "words"),
    [
        ({}, "neither of"),
        ({**list_json(), **tree_json()}, "both of"),
        ({"00081199": sq()}, "ReferencedSOPSequence is missing or has no item"),
        ({"00081110": sq()}, "ReferencedStudySequence is missing"),
        (changed(lambda d: item_of(d, "00081199").pop("00081150")), "ReferencedSOPClassUID is missing"),
        (changed(lambda d: item_of(d, "00081199").pop("00081155")), "ReferencedSOPInstanceUID is missing"),
        (changed(lambda d: item_of(d, "00081199").update({"00081155": ui("")})), "is no UID"),
        (changed(lambda d: item_of(d, "00081199").update({"00081155": ui("abc")})), "is no UID"),
        (changed(lambda d: item_of(d, "00081199").update({"00081155": ui("1" * 65)})), "is no UID"),
        (changed(lambda d: item_of(d, "00081199").update({"00081155": ui("1" * 5000)})), "is no UID"),
        (
            changed(
                lambda d: item_of(d, "00081199").update({"00081155": {"vr": "UI", "Value": ["1.2", "1.3"]}})
            ),
            "is no UID",
        ),
        (changed(lambda d: item_of(d, "00081110").pop("0020000D"), tree_json), "StudyInstanceUID is missing"),
        (
            changed(lambda d: item_of(d, "00081110").pop("00081115"), tree_json),
            "ReferencedSeriesSequence is missing",
        ),
        (
            changed(lambda d: item_of(d, *TO_SERIES).pop("0020000E"), tree_json),
            "SeriesInstanceUID is missing",
        ),
        (
            changed(lambda d: item_of(d, *TO_SERIES).pop("00081112"), tree_json),
            "ReferencedInstancesBySOPClassSequence is missing",
        ),
        (
            changed(lambda d: item_of(d, *TO_GROUP).pop("00081150"), tree_json),
            "ReferencedSOPClassUID is missing",
        ),
        (
            changed(lambda d: item_of(d, *TO_GROUP).pop("0008114A"), tree_json),
            "ReferencedInstanceSequence is missing",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing(media_type: str, data_set: dict[str, Any], words: str) -> None:
    with pytest.raises(PayloadError, match=words):
        read_payload(encode(data_set, media_type), media_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"5",
        b'"x"',
        b"[]",
        b"[{}, {}]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"00081199": 5}',
        b'{"00081199": {"vr": "SQ", "Value": 5}}',
        b'{"00081199": {"vr": "SQ", "Value": ["x"]}}',
        b'{"00081199": {"vr": "SQ", "Value": [{"00081150": {"Value": [5]}}]}}',
        b'{"00081199": {"vr": "SQ"}}',
    ],
)
def test_json_that_is_none(body: bytes) -> None:
    with pytest.raises(PayloadError):
        read_payload(body, DICOM_JSON)


LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<",
        b"words",
        b"<Other/>",
        b"<NativeDicomModel>",
        b"<NativeDicomModel/><NativeDicomModel/>",
        b"<!DOCTYPE x>" + xml_of(list_json(), head=""),
        b'<!DOCTYPE x [<!ENTITY l0 "1.2.3">' + LAUGHS + b"]>" + xml_of(list_json(), head=""),
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
        + xml_of(list_json(), head="").replace(b"1.2.3.1", b"&e;"),
        b'<!DOCTYPE x SYSTEM "http://192.0.2.1/x.dtd">' + xml_of(list_json(), head=""),
        xml_of(list_json()).replace(b"1.2.3.1", b"&unknown;"),
        b"<NativeDicomModel>" + b"<a>" * 100_000,
        xml_of(list_json()).replace(b"</Item>", b"", 1),
        xml_of(list_json())[:-5],
    ],
)
def test_xml_that_is_none(body: bytes) -> None:
    with pytest.raises(PayloadError):
        read_payload(body, DICOM_XML)


def test_depth_is_bounded_in_both() -> None:
    data_set: dict[str, Any] = list_json()
    for _ in range(40):
        data_set = {"00081199": sq(data_set)}
    with pytest.raises(PayloadError, match="too deep"):
        read_payload(json.dumps(data_set).encode(), DICOM_JSON)
    with pytest.raises(PayloadError, match="too deep"):
        read_payload(xml_of(data_set), DICOM_XML)


@BOTH
def test_too_many_references(media_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment_payload, "REFERENCES_MAX", 3)
    assert len(read_payload(encode(list_json(), media_type), media_type).references) == 3
    with pytest.raises(PayloadError, match="ask in parts") as caught:
        read_payload(encode(list_json([*LIST, LIST[0]]), media_type), media_type)
    assert caught.value.is_too_long


def test_too_many_items_and_values_of_xml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three references are three items and six values, and the sequence with an item of junk counts for nothing."""
    data_set = {"00081111": sq({"00081155": ui("1.2")}), **list_json()}
    monkeypatch.setattr(commitment_payload, "COMMITMENT_VALUES_MAX", 9)
    assert len(read_payload(xml_of(data_set), DICOM_XML).references) == 3
    monkeypatch.setattr(commitment_payload, "COMMITMENT_VALUES_MAX", 8)
    with pytest.raises(PayloadError, match="more than 8 items and values: ask in parts") as caught:
        read_payload(xml_of(data_set), DICOM_XML)
    assert caught.value.is_too_long


@pytest.mark.slow
def test_a_long_value_takes_no_memory_of_its_length() -> None:
    body = xml_of(list_json()).replace(b"1.2.3.1", b"1" * 30_000_000, 1)
    tracemalloc.start()
    with pytest.raises(PayloadError):
        read_payload(body, DICOM_XML)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else_happens(body: bytes) -> None:
    for media_type in (DICOM_JSON, DICOM_XML):
        with pytest.raises(PayloadError):
            read_payload(body, media_type)


# Writing.


def instances_of(references: Any, *reasons: int | None) -> list[CommitmentInstance]:
    return [
        CommitmentInstance(
            position=position,
            sop_class_uid=reference.sop_class_uid,
            sop_instance_uid=reference.sop_instance_uid,
            version_key=None,
            outcome=InstanceOutcome.COMMITTED if reason is None else InstanceOutcome.FAILED,
            reason=reason,
            words="",
            checked_at=None,
        )
        for position, (reference, reason) in enumerate(zip(references, reasons, strict=True))
    ]


def failed(uid: str, reason: int, **more: Any) -> dict[str, Any]:
    return {**more, "00081155": ui(uid), "00081197": {"vr": "US", "Value": [reason]}}


def test_a_result_as_list() -> None:
    result = result_of(instances_of(LIST, None, 274, None))
    assert json.loads(write_result(result, DICOM_JSON)) == {
        "00081198": sq(failed("1.2.3.2", 274, **{"00081150": ui(MR)})),
        "00081199": list_json([LIST[0], LIST[2]])["00081199"],
    }


@pytest.mark.parametrize("reason", [None, 274])
def test_empty_sequences_are_absent(reason: int | None) -> None:
    tag, tree_tag = ("00081199", "00081110") if reason is None else ("00081198", "0008119B")
    as_list = result_of(instances_of(LIST, reason, reason, reason))
    assert list(json.loads(write_result(as_list, DICOM_JSON))) == [tag]
    as_tree = result_of(instances_of(TREE_REFERENCES, *[reason] * 5), RUNS)
    assert list(json.loads(write_result(as_tree, DICOM_JSON))) == [tree_tag]


def test_a_result_as_tree() -> None:
    result = result_of(instances_of(TREE_REFERENCES, None, 274, None, 272, None), RUNS)
    found = json.loads(write_result(result, DICOM_JSON))
    committed = {
        "1.2.10": {"1.2.10.1": {CT: ["1.2.3.1"], MR: ["1.2.3.3"]}},
        "1.2.20": {"1.2.20.1": {MR: ["1.2.3.5"]}},
    }
    assert found["00081110"] == tree_json(committed)["00081110"]

    def failed_series(series: str, uid: str, reason: int) -> dict[str, Any]:
        group = {"00081150": ui(CT), "0008114A": sq(failed(uid, reason))}
        return {"0020000E": ui(series), "00081112": sq(group)}

    both = sq(failed_series("1.2.10.1", "1.2.3.2", 274), failed_series("1.2.10.2", "1.2.3.4", 272))
    assert found["0008119B"] == sq({"0020000D": ui("1.2.10"), "00081115": both})
    assert set(found) == {"00081110", "0008119B"}


def test_a_tree_that_does_not_fit_is_told_as_list() -> None:
    result = result_of(instances_of(LIST, None, None, None), RUNS)
    assert json.loads(write_result(result, DICOM_JSON)) == list_json()


@pytest.mark.parametrize("runs", [(), RUNS])
def test_both_encodings_say_the_same(runs: Any) -> None:
    references = TREE_REFERENCES if runs else LIST
    result = result_of(instances_of(references, *[None] * len(references)), runs)
    from_json = read_payload(write_result(result, DICOM_JSON), DICOM_JSON)
    from_xml = read_payload(write_result(result, DICOM_XML), DICOM_XML)
    assert from_json == from_xml == CommitmentPayload(references=references, runs=runs)


def test_the_xml_of_a_result() -> None:
    body = write_result(result_of(instances_of(LIST[1:2], 274)), DICOM_XML).decode()
    assert body == (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
        '<DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence"><Item number="1">'
        '<DicomAttribute tag="00081150" vr="UI" keyword="ReferencedSOPClassUID">'
        f'<Value number="1">{MR}</Value></DicomAttribute>'
        '<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID">'
        '<Value number="1">1.2.3.2</Value></DicomAttribute>'
        '<DicomAttribute tag="00081197" vr="US" keyword="FailureReason"><Value number="1">274</Value></DicomAttribute>'
        "</Item></DicomAttribute></NativeDicomModel>"
    )
