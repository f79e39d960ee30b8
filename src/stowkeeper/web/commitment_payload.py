"""The payloads of the web form of storage commitment (PS3.18 Annex J): DICOM JSON and Native DICOM Model XML, read and written.

A request names instances in one of two shapes: a list, the Referenced SOP Sequence (0008,1199), or a tree, the Referenced Study
Sequence (0008,1110) down to instances. A result has the shape of its request. What is read is brought into one form first, which
both encodings have: for each tag its values, texts or data sets.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Union

from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.dicom.limits import REFERENCES_MAX
from stowkeeper.dicom.uid import is_acceptable_uid
from stowkeeper.services.commitment.commitment_values import CommitmentInstance, InstanceOutcome
from stowkeeper.stow.media_types import DICOM_JSON
from stowkeeper.stow.native_response import (
    NativeBounds,
    NativeResponseError,
    TooManyValuesError,
    read_native_response,
    write_native_response,
)
from stowkeeper.web.json_bodies import load_json
from stowkeeper.web.orthanc_limits import (
    COMMITMENT_DEPTH_MAX,
    COMMITMENT_VALUE_LETTERS_MAX,
    COMMITMENT_VALUES_MAX,
)

SOP_CLASS: Final = "00081150"
SOP_INSTANCE: Final = "00081155"
FAILURE_REASON: Final = "00081197"
FAILED_SOPS: Final = "00081198"
REFERENCED_SOPS: Final = "00081199"
FAILED_STUDIES: Final = "0008119B"
REFERENCED_STUDIES: Final = "00081110"
REFERENCED_SERIES: Final = "00081115"
INSTANCES_BY_CLASS: Final = "00081112"
REFERENCED_INSTANCES: Final = "0008114A"
STUDY_INSTANCE_UID: Final = "0020000D"
SERIES_INSTANCE_UID: Final = "0020000E"

_KEYWORDS: Final = {
    SOP_CLASS: "ReferencedSOPClassUID",
    SOP_INSTANCE: "ReferencedSOPInstanceUID",
    FAILURE_REASON: "FailureReason",
    FAILED_SOPS: "FailedSOPSequence",
    REFERENCED_SOPS: "ReferencedSOPSequence",
    FAILED_STUDIES: "FailedStudySequence",
    REFERENCED_STUDIES: "ReferencedStudySequence",
    REFERENCED_SERIES: "ReferencedSeriesSequence",
    INSTANCES_BY_CLASS: "ReferencedInstancesBySOPClassSequence",
    REFERENCED_INSTANCES: "ReferencedInstanceSequence",
    STUDY_INSTANCE_UID: "StudyInstanceUID",
    SERIES_INSTANCE_UID: "SeriesInstanceUID",
}
_SEQUENCES: Final = frozenset(
    {
        REFERENCED_SOPS,
        REFERENCED_STUDIES,
        REFERENCED_SERIES,
        INSTANCES_BY_CLASS,
        REFERENCED_INSTANCES,
    }
)
_TEXTS: Final = frozenset({SOP_CLASS, SOP_INSTANCE, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID})

Values = dict[str, list[Union[str, "Values"]]]
"""A data set: the values of the attributes that mean something here, by tag."""

Run = tuple[str, str, int]
"""Study and series of so many instances, one after the other in a request."""


class PayloadError(ValueError):
    """A payload cannot be taken; the text says why, without what stood in it. `is_too_long`: nothing but its size is wrong."""

    def __init__(self, words: str, *, is_too_long: bool = False) -> None:
        super().__init__(words)
        self.is_too_long = is_too_long


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentPayload:
    """What a request asks for, in its order. `runs` has the studies and series of a tree, and is empty for a list."""

    references: tuple[Reference, ...]
    runs: tuple[Run, ...] = ()


def read_payload(body: bytes, media_type: str) -> CommitmentPayload:
    """Read the payload of a request. Raises PayloadError."""
    return _interpret(_read_json(body) if media_type == DICOM_JSON else _read_xml(body))


# DICOM JSON (PS3.18 Annex F).


def _read_json(body: bytes) -> Values:
    try:
        found = load_json(body)
    except (ValueError, RecursionError):
        raise PayloadError("the payload is no JSON") from None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise PayloadError("the payload is not one data set")
    return _values_of(found, 1)


def _values_of(data_set: Mapping[str, Any], depth: int) -> Values:
    if depth > COMMITMENT_DEPTH_MAX:
        raise PayloadError("the payload is nested too deep")
    values: Values = {}
    for key, attribute in data_set.items():
        tag = key.upper()
        if tag not in _SEQUENCES and tag not in _TEXTS:
            continue
        found = attribute.get("Value", []) if isinstance(attribute, dict) else None
        if not isinstance(found, list):
            raise PayloadError(f"{_KEYWORDS[tag]} is no attribute of a data set")
        kind = dict if tag in _SEQUENCES else str
        if not all(isinstance(value, kind) for value in found):
            raise PayloadError(f"{_KEYWORDS[tag]} has values of another kind")
        values[tag] = [_values_of(value, depth + 1) for value in found] if kind is dict else list(found)
    return values


# Native DICOM Model (PS3.19 Annex A).


def _read_xml(body: bytes) -> Values:
    bounds = NativeBounds(
        tags=_SEQUENCES | _TEXTS,
        values_max=COMMITMENT_VALUES_MAX,
        letters_max=COMMITMENT_VALUE_LETTERS_MAX,
    )
    try:
        found = read_native_response(body, bounds)
    except TooManyValuesError as error:
        raise PayloadError(f"the payload is too long: {error}: ask in parts", is_too_long=True) from None
    except NativeResponseError as error:
        raise PayloadError(f"the payload is no Native DICOM Model that is taken: {error}") from None
    return _values_of(found, 1)


# What it means (PS3.18 Table J.1-1).


def _interpret(data_set: Values) -> CommitmentPayload:
    has_list, has_tree = REFERENCED_SOPS in data_set, REFERENCED_STUDIES in data_set
    if has_list == has_tree:
        which = "both" if has_list else "neither"
        raise PayloadError(
            f"the payload has {which} of ReferencedSOPSequence and ReferencedStudySequence: it needs one of them"
        )
    references: list[Reference] = []
    runs: list[Run] = []
    if has_list:
        for item in _items(data_set, REFERENCED_SOPS):
            _add(references, _uid(item, SOP_CLASS), _uid(item, SOP_INSTANCE))
        return CommitmentPayload(references=tuple(references))
    for study in _items(data_set, REFERENCED_STUDIES):
        study_uid = _uid(study, STUDY_INSTANCE_UID)
        for one_series in _items(study, REFERENCED_SERIES):
            series_uid = _uid(one_series, SERIES_INSTANCE_UID)
            before = len(references)
            for group in _items(one_series, INSTANCES_BY_CLASS):
                sop_class = _uid(group, SOP_CLASS)
                for item in _items(group, REFERENCED_INSTANCES):
                    _add(references, sop_class, _uid(item, SOP_INSTANCE))
            runs.append((study_uid, series_uid, len(references) - before))
    return CommitmentPayload(references=tuple(references), runs=tuple(runs))


def _add(references: list[Reference], sop_class_uid: str, sop_instance_uid: str) -> None:
    if len(references) >= REFERENCES_MAX:
        raise PayloadError(
            f"the payload names more than {REFERENCES_MAX} instances: ask in parts", is_too_long=True
        )
    references.append(Reference(sop_class_uid, sop_instance_uid))


def _items(data_set: Values, tag: str) -> list[Values]:
    found = [item for item in data_set.get(tag, ()) if isinstance(item, dict)]
    if not found:
        raise PayloadError(f"{_KEYWORDS[tag]} is missing or has no item")
    return found


def _uid(data_set: Values, tag: str) -> str:
    values = data_set.get(tag) or [""]
    uid = values[0].strip(" \0") if isinstance(values[0], str) else ""
    if len(values) > 1 or not is_acceptable_uid(uid):
        raise PayloadError(f"{_KEYWORDS[tag]} is missing or is no UID")
    return uid


# The result (PS3.18 Table J.2-1), in both encodings.

Element = tuple[str, Union[str, int, "list[list[Element]]"]]
"""An attribute of a result: its tag, and its one value or its items."""


def result_of(instances: Sequence[CommitmentInstance], runs: Sequence[Run] = ()) -> list[Element]:
    """Return a result as attributes, in the shape of the request: a tree where there are `runs`. Empty sequences are absent."""
    if sum(run[2] for run in runs) != len(instances):
        return _as_list(instances)
    return _as_tree(instances, runs)


def _is_committed(instance: CommitmentInstance) -> bool:
    return instance.outcome is InstanceOutcome.COMMITTED


def _as_list(instances: Sequence[CommitmentInstance]) -> list[Element]:
    committed: list[list[Element]] = []
    failed: list[list[Element]] = []
    for instance in instances:
        item: list[Element] = [(SOP_CLASS, instance.sop_class_uid), (SOP_INSTANCE, instance.sop_instance_uid)]
        if _is_committed(instance):
            committed.append(item)
        else:
            failed.append([*item, (FAILURE_REASON, instance.reason or 0)])
    return _present((FAILED_SOPS, failed), (REFERENCED_SOPS, committed))


def _as_tree(instances: Sequence[CommitmentInstance], runs: Sequence[Run]) -> list[Element]:
    committed: list[list[Element]] = []
    failed: list[list[Element]] = []
    start = 0
    for study_uid, series_uid, count in runs:
        of_series = instances[start : start + count]
        start += count
        for studies, wanted in ((committed, True), (failed, False)):
            chosen = [instance for instance in of_series if _is_committed(instance) is wanted]
            if chosen:
                _add_series(studies, study_uid, [*_by_class(chosen), (SERIES_INSTANCE_UID, series_uid)])
    return _present((REFERENCED_STUDIES, committed), (FAILED_STUDIES, failed))


def _add_series(studies: list[list[Element]], study_uid: str, one_series: list[Element]) -> None:
    """Put a series into the study that came last, or into a new one where that is another."""
    if studies and studies[-1][-1] == (STUDY_INSTANCE_UID, study_uid):
        items = studies[-1][0][1]
        if isinstance(items, list):
            items.append(one_series)
            return
    studies.append([(REFERENCED_SERIES, [one_series]), (STUDY_INSTANCE_UID, study_uid)])


def _by_class(instances: Iterable[CommitmentInstance]) -> list[Element]:
    groups: dict[str, list[list[Element]]] = {}
    for instance in instances:
        item: list[Element] = [(SOP_INSTANCE, instance.sop_instance_uid)]
        if not _is_committed(instance):
            item.append((FAILURE_REASON, instance.reason or 0))
        groups.setdefault(instance.sop_class_uid, []).append(item)
    items: list[list[Element]] = [
        [(REFERENCED_INSTANCES, found), (SOP_CLASS, sop_class_uid)] for sop_class_uid, found in groups.items()
    ]
    return [(INSTANCES_BY_CLASS, items)]


def _present(*sequences: tuple[str, list[list[Element]]]) -> list[Element]:
    return [(tag, items) for tag, items in sequences if items]


def write_result(elements: Sequence[Element], media_type: str) -> bytes:
    """Write a result as DICOM JSON or as Native DICOM Model."""
    if media_type == DICOM_JSON:
        return json.dumps(_json_of(elements)).encode()
    return write_native_response(_json_of(elements))


def _vr_of(value: object) -> str:
    if isinstance(value, list):
        return "SQ"
    return "US" if isinstance(value, int) else "UI"


def _json_of(elements: Sequence[Element]) -> dict[str, Any]:
    return {
        tag: {
            "vr": _vr_of(value),
            "Value": [_json_of(item) for item in value] if isinstance(value, list) else [value],
        }
        for tag, value in sorted(elements, key=lambda element: element[0])
    }
