"""What Schemathesis needs for store requests: bodies of their media types, the boundary, and a list of what was called.

It loads this file by itself; STORE_CALLS in its environment names the file of the list.
"""

import json
import os
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st

from support.instances import make_instance
from support.metadata_requests import description, identifiers
from support.orthanc_rig import part10_of
from support.stow_bodies import BOUNDARY, body_of, closing, part

DICOM = "application/dicom"
JSON = "application/dicom+json"
XML = "application/dicom+xml"
XML_MODEL = (
    '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
    '<DicomAttribute tag="00080016" vr="UI"><Value number="1">1.2.840.10008.5.1.4.1.1.66</Value></DicomAttribute>'
    '<DicomAttribute tag="00080018" vr="UI"><Value number="1">1.2.3.78</Value></DicomAttribute>'
    '<DicomAttribute tag="0020000D" vr="UI"><Value number="1">1.2.10</Value></DicomAttribute>'
    '<DicomAttribute tag="0020000E" vr="UI"><Value number="1">1.2.10.1</Value></DicomAttribute>'
    "</NativeDicomModel>"
)
PIXELS = {"Content-Type": "application/octet-stream", "Content-Location": "here"}

good = st.builds(lambda number: part10_of(make_instance(number)), st.integers(100, 120))
elsewhere = st.builds(lambda number: part10_of(make_instance(number, study="1.2.11")), st.integers(200, 210))
homeless = st.just(part10_of(make_instance(300, study="")))
torn = st.builds(lambda file, end: file[:end], good, st.integers(0, 700))
file = st.one_of(good, good, elsewhere, homeless, torn, st.binary(max_size=300))
files = st.lists(file, max_size=4).map(lambda found: body_of(*found))
no_dicom = st.just(part(b"words", {"Content-Type": "text/plain"}) + closing())


def metadata(media_type: str, text: str, *, has_pixels: bool) -> bytes:
    """Return a body of metadata, and pixel data where there are some."""
    pixels = part(bytes(4), PIXELS) if has_pixels else b""
    return part(text.encode(), {"Content-Type": media_type}) + pixels + closing()


def _json(number: int, has_pixels: bool) -> bytes:
    instance = identifiers(**description(), t7FE00010={"vr": "OW", "BulkDataURI": "here"})
    instance["00080018"]["Value"] = [f"1.2.3.{number}"]
    return metadata(JSON, json.dumps([instance]), has_pixels=has_pixels)


def broken(body: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return bodies that are mostly whole, and else end somewhere, or are no multipart at all."""
    cut = st.builds(lambda whole, end: whole[:end], body, st.integers(0, 400))
    return st.one_of(body, body, body, cut, st.binary(max_size=200))


BODIES = {
    DICOM: file,
    f'multipart/related; type="{DICOM}"': st.one_of(broken(files), no_dicom),
    f'multipart/related; type="{JSON}"': broken(st.builds(_json, st.integers(400, 410), st.booleans())),
    f'multipart/related; type="{XML}"': broken(
        st.builds(lambda has: metadata(XML, XML_MODEL, has_pixels=has), st.booleans())
    ),
}
for name, bodies in BODIES.items():
    schemathesis.openapi.media_type(name, bodies)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Say the boundary, which the document cannot know."""
    if case.media_type in BODIES and case.media_type != DICOM:
        case.headers["Content-Type"] = f'{case.media_type}; boundary="{BOUNDARY}"'


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Write down what was called, and what was answered."""
    sent = response.request.headers.get("Content-Type", "")
    line = [case.operation.method, case.operation.path, response.request.method, sent, response.status_code]
    with Path(os.environ["STORE_CALLS"]).open("a", encoding="utf-8") as calls:
        calls.write(json.dumps([*line, response.headers.get("content-type", [""])[0]]) + "\n")
