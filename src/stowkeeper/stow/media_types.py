"""Media types of the Store transaction: what a body is, and in which form its sender wants the response (PS3.18 §10.5, §8.7).

How clients quote, space and spell media types differs more than anything else about them, so every way that can mean one thing
only is taken. What a parameter says twice means nothing, and is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from stowkeeper.stow.limits import (
    ACCEPT_CHOICES_REMEMBERED,
    ACCEPT_ENTRIES_MAX,
    BOUNDARY_BYTES_MAX,
    MEDIA_TYPE_CHARACTERS_MAX,
    MEDIA_TYPE_PARAMETERS_MAX,
)

DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
DICOM_XML: Final = "application/dicom+xml"
OCTET_STREAM: Final = "application/octet-stream"
MULTIPART_RELATED: Final = "multipart/related"

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME: Final = re.compile(rf"[ \t]*({_WORD}/{_WORD})[ \t]*")
# A value without quotes is read up to the next blank or semicolon: `type=application/dicom` is no token, but is what is sent.
_PARAMETER: Final = re.compile(
    rf';[ \t]*(?:(?P<name>{_WORD})[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^ \t;"]+)))?[ \t]*'
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# A quoted string that does not end takes the rest, so that no text is looked at twice.
_ACCEPT_ENTRY: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^,"])+', re.DOTALL)
_LOST_PLUS: Final = re.compile(r"\b(dicom) (json|xml)\b", re.IGNORECASE)
_WEIGHT: Final = re.compile(r"[0-9]*\.?[0-9]*")

_SEND: Final = (
    f'send {DICOM}, or {MULTIPART_RELATED} whose type is "{DICOM}", "{DICOM_JSON}" or "{DICOM_XML}"'
)
_FORM_HINT: Final = (
    "a form is no store request; send one file as it is with the Content-Type application/dicom "
    "(curl: -H 'Content-Type: application/dicom' --data-binary @FILE), or files as parts of multipart/related"
)
_METADATA_HINT: Final = f'metadata comes as the first part of {MULTIPART_RELATED}, whose type is "{{name}}"'
_HINTS: Final = {
    "multipart/form-data": _FORM_HINT,
    "application/x-www-form-urlencoded": _FORM_HINT,
    DICOM_JSON: _METADATA_HINT.format(name=DICOM_JSON),
    DICOM_XML: _METADATA_HINT.format(name=DICOM_XML),
}


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type. Its name and those of its parameters are in lower case; values stand without quotes, as they came."""

    name: str
    parameters: Mapping[str, str]


class StoreForm(Enum):
    """What the body of a store request is made of (PS3.18 Table 10.5.4-1)."""

    INSTANCES = auto()
    """Parts, each of them a DICOM file."""
    JSON = auto()
    """Metadata of instances in a part of DICOM JSON, and parts with their bulk data."""
    XML = auto()
    """Metadata of each instance in a part of Native DICOM XML, and parts with their bulk data."""
    ONE_INSTANCE = auto()
    """One DICOM file without parts. PS3.18 does not name it, but cloud services take it, and curl sends it."""


@dataclass(frozen=True, slots=True)
class StoreBody:
    """How to read the body of a store request.

    `boundary` is '' where it has no parts; `start` is the Content-ID of the root part, '' for the first one (RFC 2387 §3.2).
    """

    form: StoreForm
    boundary: str = ""
    start: str = ""


class UnsupportedBodyError(ValueError):
    """The body is of a kind that is not stored: 415. The text says which kinds are."""


class BoundaryError(ValueError):
    """The body has parts, but its Content-Type does not say where they begin: 400."""


def parse_media_type(text: str) -> MediaType:
    """Read a media type (RFC 9110 §8.3.1). Raises ValueError for one that cannot be read, or has a parameter twice."""
    if len(text) > MEDIA_TYPE_CHARACTERS_MAX:
        raise ValueError(f"it is longer than {MEDIA_TYPE_CHARACTERS_MAX} characters")
    if _CONTROL.search(text):
        raise ValueError("it has control characters in it")
    name = _NAME.match(text)
    if name is None:
        raise ValueError("it does not begin with a type and a subtype")
    parameters: dict[str, str] = {}
    place = name.end()
    while place < len(text):
        found = _PARAMETER.match(text, place)
        if found is None:
            raise ValueError("one of its parameters is malformed")
        place = found.end()
        if found["name"] is None:
            continue
        if found["name"].lower() in parameters:
            raise ValueError("it has a parameter twice")
        if len(parameters) == MEDIA_TYPE_PARAMETERS_MAX:
            raise ValueError(f"it has more than {MEDIA_TYPE_PARAMETERS_MAX} parameters")
        parameters[found["name"].lower()] = found["plain"] or re.sub(r"\\(.)", r"\1", found["quoted"])
    return MediaType(name[1].lower(), parameters)


def encoding_defect(fields: Mapping[str, str]) -> str:
    """Say what is wrong with the Content-Transfer-Encoding of a part (RFC 2045 §6), '' where its bytes come as they are."""
    if fields.get("content-transfer-encoding", "").lower() in {"", "binary", "8bit", "7bit"}:
        return ""
    return "it has to come in binary: its Content-Transfer-Encoding is another"


def store_body(content_type: str | None, content_encoding: str | None) -> StoreBody:
    """Tell from the fields of a store request how its body is to be read. Raises UnsupportedBodyError, BoundaryError."""
    if (content_encoding or "").strip().lower() not in {"", "identity"}:
        raise UnsupportedBodyError("the body has a Content-Encoding; send it as it is, without one")
    if content_type is None or not content_type.strip():
        raise UnsupportedBodyError(f"the request has no Content-Type; {_SEND}")
    try:
        media_type = parse_media_type(content_type)
    except ValueError as error:
        words = f"the Content-Type cannot be read: {error}"
        if content_type.partition(";")[0].strip().lower() == MULTIPART_RELATED:
            raise BoundaryError(words) from None
        raise UnsupportedBodyError(f"{words}; {_SEND}") from None
    if media_type.name == DICOM:
        return StoreBody(StoreForm.ONE_INSTANCE)
    if media_type.name != MULTIPART_RELATED:
        raise UnsupportedBodyError(
            _HINTS.get(media_type.name, f"the Content-Type is none that can be stored; {_SEND}")
        )
    return _body_with_parts(media_type.parameters)


def _body_with_parts(parameters: Mapping[str, str]) -> StoreBody:
    root = _root_type(parameters)
    form = {DICOM: StoreForm.INSTANCES, DICOM_JSON: StoreForm.JSON, DICOM_XML: StoreForm.XML}.get(root)
    if form is None:
        raise UnsupportedBodyError(f"the type of {MULTIPART_RELATED} is none that can be stored; {_SEND}")
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise BoundaryError(f"the Content-Type is {MULTIPART_RELATED}, but names no boundary")
    if len(boundary) > BOUNDARY_BYTES_MAX:
        raise BoundaryError(f"the boundary is longer than {BOUNDARY_BYTES_MAX} characters")
    return StoreBody(form, boundary, parameters.get("start", ""))


def _root_type(parameters: Mapping[str, str]) -> str:
    """Return what the root part is; its own parameters, a transfer syntax for one, are better said by the part."""
    return parameters.get("type", DICOM).partition(";")[0].strip().lower()


# What the sender wants back


@dataclass(frozen=True, slots=True)
class _Preference:
    """How much a sender wants one form of the response: the higher the better, after that the one named first."""

    weight: float
    closeness: int
    place: int


_CLOSENESS: Final = {
    DICOM_JSON: {DICOM_JSON: 4, "application/json": 3},
    DICOM_XML: {DICOM_XML: 4, "application/xml": 3, "text/xml": 3, "text/*": 1},
}
"""How exactly an entry of an Accept names each form of the response. It names none where it is not here or in `_EITHER`."""

_EITHER: Final = {DICOM: 2, MULTIPART_RELATED: 2, "multipart/*": 1, "application/*": 1, "*/*": 0}
"""Entries for which either form will do. `application/dicom` is none, but clients mean by it what they send."""


def preferred_response_type(accept: Sequence[str], query_accept: str | None) -> str | None:
    """Return DICOM_JSON or DICOM_XML, whichever the sender wants more; None where it wants neither: 406.

    `accept` is every Accept field of the request, `query_accept` the parameter of its query, which counts alone where it is there
    (PS3.18 §8.3.3.1). Entries that cannot be read are passed over, and where none is left, JSON is the default.
    """
    return _preferred(tuple(accept), query_accept or "")


@lru_cache(ACCEPT_CHOICES_REMEMBERED)
def _preferred(accept: tuple[str, ...], query_accept: str) -> str | None:
    query = _LOST_PLUS.sub(r"\1+\2", query_accept)
    entries = list(_entries([query])) or list(_entries(accept))
    if not entries:
        return DICOM_JSON
    best, chosen = None, None
    for offered in (DICOM_JSON, DICOM_XML):
        preference = _preference(offered, entries)
        if preference is None or preference.weight <= 0:
            continue
        rank = (preference.weight, preference.closeness, -preference.place)
        if best is None or rank > best:
            best, chosen = rank, offered
    return chosen


def _entries(fields: Sequence[str]) -> Iterator[MediaType]:
    """Yield the media types of Accept fields that can be read; a lone asterisk, as Java sends it, is any type."""
    texts = (entry[0].strip() for field in fields for entry in _ACCEPT_ENTRY.finditer(field))
    for _, text in zip(range(ACCEPT_ENTRIES_MAX), texts, strict=False):
        try:
            yield parse_media_type(re.sub(r"^\*(?!/)", "*/*", text))
        except ValueError:
            continue


def _preference(offered: str, entries: Sequence[MediaType]) -> _Preference | None:
    """Return what the entry says that names this form most exactly (RFC 9110 §12.5.1); None where none does."""
    best: _Preference | None = None
    for place, entry in enumerate(entries):
        name = entry.name
        if name == MULTIPART_RELATED:
            name = _root_type(entry.parameters)
        closeness = _CLOSENESS[offered].get(name, _EITHER.get(name))
        if closeness is not None and (best is None or closeness > best.closeness):
            best = _Preference(_weight(entry), closeness, place)
    return best


def _weight(entry: MediaType) -> float:
    """Return the weight of an entry, 0 to 1; one that cannot be read counts as none given."""
    text = entry.parameters.get("q", "1")
    if not _WEIGHT.fullmatch(text) or not text.strip("."):
        return 1.0
    return min(float(text), 1.0)
