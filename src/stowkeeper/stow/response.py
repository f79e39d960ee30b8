"""What a store response says of each instance, its HTTP status, and both of its encodings (PS3.18 §10.5.3, Annex I).

It is built and read in one form, that of DICOM JSON (PS3.18 Annex F); `native_response` turns this into XML and back. What we
write is strict: tags in order, no sequence without an item. What we read is whatever servers send in its place.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from stowkeeper.stow.limits import ERROR_COMMENT_CHARACTERS_MAX, RESPONSE_BYTES_MAX, WORDS_CHARACTERS_MAX
from stowkeeper.stow.media_types import DICOM_JSON, DICOM_XML
from stowkeeper.stow.native_response import NativeResponseError, read_native_response, write_native_response
from stowkeeper.stow.reasons import FailureReason, is_out_of_resources

REFERENCED_SOP_CLASS_UID: Final = "00081150"
REFERENCED_SOP_INSTANCE_UID: Final = "00081155"
RETRIEVE_URL: Final = "00081190"
WARNING_REASON: Final = "00081196"
FAILURE_REASON: Final = "00081197"
FAILED_SOP_SEQUENCE: Final = "00081198"
REFERENCED_SOP_SEQUENCE: Final = "00081199"
OTHER_FAILURES_SEQUENCE: Final = "0008119A"
FAILED_ATTRIBUTES_SEQUENCE: Final = "00741048"
ERROR_COMMENT: Final = "00000902"

_TAG: Final = re.compile(r"[0-9A-F]{8}")
_PRIVATE_VALUE: Final = re.compile(r"[0-9A-F]{3}[13579BDF][1-9A-F][0-9A-F]{3}")


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance that is kept. `warning` is a Warning Reason (0008,1196), None for none; `words` say more of it."""

    sop_class_uid: str
    sop_instance_uid: str
    retrieve_url: str = ""
    warning: int | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class FailedInstance:
    """An instance that is not stored, with its Failure Reason (0008,1197); `words` say more of it."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int
    words: str = ""


@dataclass(frozen=True, slots=True)
class OtherFailure:
    """A part that is no instance, or none that can be named."""

    reason: int
    words: str = ""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What became of each part of a request, in the order of the parts. `retrieve_url` is that of the study."""

    stored: tuple[StoredInstance, ...] = ()
    failed: tuple[FailedInstance, ...] = ()
    others: tuple[OtherFailure, ...] = ()
    retrieve_url: str = ""


class ResponseError(ValueError):
    """A response that says nothing of any instance: what was sent with the request may be stored or not."""


def status_of(result: StoreResult, *, warnings_are_successes: bool = False) -> int:
    """Return the HTTP status of a response (PS3.18 Table 10.5.3-1): by what was stored and what not, and by nothing else.

    `warnings_are_successes` is for senders that take nothing but 200 for success.
    """
    failures: tuple[FailedInstance | OtherFailure, ...] = (*result.failed, *result.others)
    if result.stored:
        warned = any(instance.warning is not None for instance in result.stored)
        return 202 if failures or (warned and not warnings_are_successes) else 200
    if failures and all(is_out_of_resources(failure.reason) for failure in failures):
        return 503
    if not result.failed and all(other.reason == FailureReason.CANNOT_UNDERSTAND for other in result.others):
        return 400
    return 409


# Writing


Element = dict[str, object]
DataSet = dict[str, Element]


def write_response(result: StoreResult, media_type: str) -> bytes:
    """Write a response as DICOM_JSON or DICOM_XML; raise ValueError for another media type.

    A Retrieve URL that is not known is empty (type 2), as is a UID of an instance that has none. Words stand in the Error Comment
    (0000,0902) of Failed Attributes Sequence (0074,1048), as other servers do it.
    """
    # Item by item: of ten thousand instances all of them at once would be 25 MB.
    sequences: list[tuple[str, Iterator[DataSet]]] = []
    if result.failed:
        sequences.append((FAILED_SOP_SEQUENCE, map(_failed_item, result.failed)))
    if result.stored:
        sequences.append((REFERENCED_SOP_SEQUENCE, map(_stored_item, result.stored)))
    if result.others:
        sequences.append((OTHER_FAILURES_SEQUENCE, map(_other_item, result.others)))
    beginning = {RETRIEVE_URL: _element("UR", result.retrieve_url)}
    if media_type == DICOM_JSON:
        return _write_json(beginning, sequences)
    if media_type == DICOM_XML:
        return write_native_response(beginning, sequences)
    raise ValueError(f"a response is {DICOM_JSON} or {DICOM_XML}")


def _write_json(beginning: DataSet, sequences: Sequence[tuple[str, Iterator[DataSet]]]) -> bytes:
    written = BytesIO()  # ten thousand instances are three megabytes each time they are copied
    written.write(_encoded(beginning)[:-1])
    for tag, items in sequences:
        written.write(f',"{tag}":{{"vr":"SQ","Value":['.encode())
        for number, item in enumerate(items):
            written.write(b"," if number else b"")
            written.write(_encoded(item))
        written.write(b"]}")
    written.write(b"}")
    return written.getvalue()


def _encoded(data_set: DataSet) -> bytes:
    return json.dumps(data_set, separators=(",", ":")).encode()


def _stored_item(instance: StoredInstance) -> DataSet:
    item = _reference(instance) | {RETRIEVE_URL: _element("UR", instance.retrieve_url)}
    if instance.warning is not None:
        item[WARNING_REASON] = _element("US", instance.warning)
    return item | _comments(instance.words)


def _failed_item(instance: FailedInstance) -> DataSet:
    return _reference(instance) | _other_item(OtherFailure(instance.reason, instance.words))


def _other_item(other: OtherFailure) -> DataSet:
    return {FAILURE_REASON: _element("US", int(other.reason))} | _comments(other.words)


def _reference(instance: StoredInstance | FailedInstance) -> DataSet:
    return {
        REFERENCED_SOP_CLASS_UID: _element("UI", instance.sop_class_uid),
        REFERENCED_SOP_INSTANCE_UID: _element("UI", instance.sop_instance_uid),
    }


def _comments(words: str) -> DataSet:
    """Return the words as Error Comments, as many as they need: a value of VR LO has 64 characters and no backslash."""
    lines = list(_lines(_plain(words.replace("\\", "/"))[:WORDS_CHARACTERS_MAX]))
    items = [{ERROR_COMMENT: _element("LO", line)} for line in lines]
    return {FAILED_ATTRIBUTES_SEQUENCE: _element("SQ", *items)} if items else {}


def _lines(text: str) -> Iterator[str]:
    """Cut a text at blanks, so that joined by blanks it is the same again; a word that is too long is cut too."""
    while len(text) > ERROR_COMMENT_CHARACTERS_MAX:
        end = text.rfind(" ", 1, ERROR_COMMENT_CHARACTERS_MAX + 1)
        end = end if end > 0 else ERROR_COMMENT_CHARACTERS_MAX
        yield text[:end]
        text = text[end:].lstrip(" ")
    if text:
        yield text


def _element(vr: str, *values: object) -> Element:
    present = [value for value in values if value != ""]
    return {"vr": vr, "Value": present} if present else {"vr": vr}


# Reading


def read_response(body: bytes, media_type: str) -> StoreResult:
    """Read the response of any server; raise ResponseError where it is none.

    Which encoding it has its first character tells, since media types are mislabelled. DICOM JSON may be one object, or an array
    of them, one for each study. Sequences may be absent, null or empty. A failure without a reason is a processing failure.
    """
    if len(body) > RESPONSE_BYTES_MAX:
        raise ResponseError(f"the response is longer than {RESPONSE_BYTES_MAX} bytes")
    if media_type.strip().lower().startswith("multipart/"):
        raise ResponseError("the response has parts; a store response is DICOM JSON or XML by itself")
    begin = body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if begin == b"<":
        return _read([_native(body)])
    if begin in {b"{", b"["}:
        found = _json(body)
        return _read(found if isinstance(found, list) else [found])
    raise ResponseError(
        "the response is empty" if not begin else "the response is neither DICOM JSON nor XML"
    )


def _native(body: bytes) -> object:
    try:
        return read_native_response(body)
    except NativeResponseError as error:
        raise ResponseError(f"the response cannot be read: {error}") from None


def _json(body: bytes) -> object:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        raise ResponseError("the response cannot be read: it is no JSON") from None
    return found


def _read(data_sets: Sequence[object]) -> StoreResult:
    found = [_result(_known(data_set)) for data_set in data_sets]
    return StoreResult(
        stored=tuple(instance for each in found for instance in each.stored),
        failed=tuple(instance for each in found for instance in each.failed),
        others=tuple(other for each in found for other in each.others),
        retrieve_url=next((each.retrieve_url for each in found if each.retrieve_url), ""),
    )


@dataclass(frozen=True, slots=True)
class _Received:
    """A data set of a response: the values of each element, whatever they are, by tag in upper case."""

    elements: dict[str, list[object]] = field(default_factory=dict)

    def items(self, tag: str) -> Iterator["_Received"]:
        """Yield the items of a sequence."""
        for value in self.elements.get(tag, []):
            if isinstance(value, dict):
                yield _received(value)

    def text(self, tag: str) -> str:
        """Return the first value without padding and control characters, '' where there is none."""
        return next((_plain(value) for value in self.elements.get(tag, []) if isinstance(value, str)), "")

    def code(self, tag: str) -> int | None:
        """Return the first value as a number of 16 bits; None where it is none."""
        for value in self.elements.get(tag, []):
            try:
                number = int(value) if isinstance(value, int | float | str) else -1
            except (ValueError, OverflowError):
                continue
            if 0 <= number <= 0xFFFF:
                return number
        return None

    def words(self) -> str:
        """Return what is said beside a reason: Error Comments, or else the text of private elements, as Google has it."""
        comments = [item.text(ERROR_COMMENT) for item in self.items(FAILED_ATTRIBUTES_SEQUENCE)]
        comments = comments if any(comments) else [self.text(ERROR_COMMENT)]
        if not any(comments):
            comments = [self.text(tag) for tag in sorted(self.elements) if _PRIVATE_VALUE.fullmatch(tag)]
        return " ".join(comment for comment in comments if comment)[:WORDS_CHARACTERS_MAX]


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _known(data_set: object) -> _Received:
    """Return a data set of the outermost level; raise ResponseError for an object that is anything else."""
    if isinstance(data_set, dict):
        received = _received(data_set)
        if received.elements or not data_set:
            return received
    raise ResponseError("the response names no element of a store response")


def _received(data_set: dict[object, object]) -> _Received:
    elements = {}
    for key, element in data_set.items():
        tag = str(key).upper()
        if _TAG.fullmatch(tag):
            values = element.get("Value") if isinstance(element, dict) else None
            elements[tag] = values if isinstance(values, list) else [values]
    return _Received(elements)


def _result(data_set: _Received) -> StoreResult:
    return StoreResult(
        stored=tuple(
            StoredInstance(
                *_uids(item),
                retrieve_url=item.text(RETRIEVE_URL),
                warning=item.code(WARNING_REASON),
                words=item.words(),
            )
            for item in data_set.items(REFERENCED_SOP_SEQUENCE)
        ),
        failed=tuple(
            FailedInstance(*_uids(item), _reason(item), item.words())
            for item in data_set.items(FAILED_SOP_SEQUENCE)
        ),
        others=tuple(
            OtherFailure(_reason(item), item.words()) for item in data_set.items(OTHER_FAILURES_SEQUENCE)
        ),
        retrieve_url=data_set.text(RETRIEVE_URL),
    )


def _uids(item: _Received) -> tuple[str, str]:
    return item.text(REFERENCED_SOP_CLASS_UID), item.text(REFERENCED_SOP_INSTANCE_UID)


def _reason(item: _Received) -> int:
    reason = item.code(FAILURE_REASON)
    return FailureReason.PROCESSING_FAILURE if reason is None else reason
