"""What FastAPI cannot see of storing by HTTP, for the OpenAPI document: streamed bodies, answers in two forms, OPTIONS."""

from typing import Any, Final

from stowkeeper.stow.media_types import DICOM, DICOM_JSON, DICOM_XML
from stowkeeper.web.capabilities import WADL
from stowkeeper.web.problems import PROBLEM_JSON, phrase_of

_RELATED: Final = "multipart/related"
_BINARY: Final[dict[str, Any]] = {"type": "string", "format": "binary"}
_PROBLEM: Final[dict[str, Any]] = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RESPONSE_NAME: Final = "StoreInstancesResponse"

STORE_BODIES: Final = {
    f'{_RELATED}; type="{DICOM}"': "Parts, each a DICOM file.",
    f'{_RELATED}; type="{DICOM_JSON}"': "A part with the metadata of all instances, and parts with their bulk data.",
    f'{_RELATED}; type="{DICOM_XML}"': "A part with metadata for each instance, and parts with their bulk data.",
    DICOM: "One DICOM file.",
}
"""The media types of a store request, and what its body is then; `multipart/related` needs its boundary besides."""

REQUEST_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {name: {"schema": _BINARY | {"description": words}} for name, words in STORE_BODIES.items()},
}

_WHAT_BECAME: Final[dict[str, Any]] = {
    DICOM_JSON: {"schema": {"$ref": f"#/components/schemas/{_RESPONSE_NAME}"}},
    DICOM_XML: {"schema": {"type": "string"}},
}

RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "All is kept.", "content": _WHAT_BECAME},
    202: {"description": "Kept, with warnings or beside failures.", "content": _WHAT_BECAME},
    400: {
        "description": "There is no DICOM in it, or the request is malformed.",
        "content": _WHAT_BECAME | _PROBLEM,
    },
    409: {"description": "Nothing is kept; the answer says why of each.", "content": _WHAT_BECAME},
    413: {"description": "Every part, or the body, is too long.", "content": _WHAT_BECAME | _PROBLEM},
    415: {
        "description": "The body, or every part of it, is of another type.",
        "content": _WHAT_BECAME | _PROBLEM,
    },
    503: {
        "description": "Out of resources, or too many requests; `Retry-After` says when to come again.",
        "content": _WHAT_BECAME | _PROBLEM,
    },
}
"""The answers of a store request that say more than every answer, or have the Store Instances Response."""


def _element(vr: str, value: dict[str, Any] | None = None, *, values_max: int = 1) -> dict[str, Any]:
    """Return the schema of an element in DICOM JSON (PS3.18 Annex F)."""
    properties: dict[str, Any] = {"vr": {"const": vr}}
    if value is not None:
        properties["Value"] = {"type": "array", "items": value, "minItems": 1}
        if values_max:
            properties["Value"]["maxItems"] = values_max
    return {"type": "object", "required": ["vr"], "properties": properties, "additionalProperties": False}


def _sequence(*required: str, **elements: dict[str, Any]) -> dict[str, Any]:
    item = {
        "type": "object",
        "required": list(required),
        "properties": {name.removeprefix("t"): schema for name, schema in elements.items()},
        "additionalProperties": False,
    }
    return _element("SQ", item, values_max=0) | {"required": ["vr", "Value"]}


_TEXT: Final[dict[str, Any]] = {"type": "string"}
_CODE: Final = _element("US", {"type": "integer", "minimum": 0, "maximum": 0xFFFF})
_UID: Final = _element("UI", {"type": "string", "maxLength": 64})
_WORDS: Final = _sequence("00000902", t00000902=_element("LO", {"type": "string", "maxLength": 64}))

STORE_INSTANCES_RESPONSE: Final[dict[str, Any]] = {
    "title": _RESPONSE_NAME,
    "description": "What became of each instance (PS3.18 Annex I), in DICOM JSON.",
    "type": "object",
    "required": ["00081190"],
    "properties": {
        "00081190": _element("UR", _TEXT),
        "00081198": _sequence(
            "00081150",
            "00081155",
            "00081197",
            t00081150=_UID,
            t00081155=_UID,
            t00081197=_CODE,
            t00741048=_WORDS,
        ),
        "00081199": _sequence(
            "00081150",
            "00081155",
            "00081190",
            t00081150=_UID,
            t00081155=_UID,
            t00081190=_element("UR", _TEXT),
            t00081196=_CODE,
            t00741048=_WORDS,
        ),
        "0008119A": _sequence("00081197", t00081197=_CODE, t00741048=_WORDS),
    },
    "additionalProperties": False,
}


def complete(document: dict[str, Any], base_path: str) -> None:
    """Add to an OpenAPI document the shape of the answer, and OPTIONS, which no route answers."""
    document["components"]["schemas"][_RESPONSE_NAME] = STORE_INSTANCES_RESPONSE
    addresses = {
        base_path: ("get_capabilities", "Say what DICOMweb can do here"),
        f"{base_path}/studies": ("get_capabilities_of_studies", "Say what can be done with studies"),
    }
    for path, (name, summary) in addresses.items():
        document["paths"].setdefault(path, {})["options"] = {
            "tags": ["DICOMweb"],
            "operationId": name,
            "summary": summary,
            "description": "The capabilities document (PS3.18 §8.9), and in `Allow` the methods that the address has.\n\n"
            "Needs any role.",
            "security": [{"token": []}, {"password": []}],
            "x-role": "none",
            "responses": {
                "200": {
                    "description": "A document in WADL.",
                    "content": {WADL: {"schema": {"type": "string"}}},
                },
            }
            | {
                status: {"description": phrase_of(int(status)), "content": _PROBLEM}
                for status in ("400", "401", "403", "406", "429", "500", "503")
            },
        }
