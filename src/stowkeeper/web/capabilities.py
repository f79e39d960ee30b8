"""The capabilities document of DICOMweb (PS3.18 §8.9): what can be asked for, in WADL, as the answer to OPTIONS."""

from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from stowkeeper.stow.media_types import DICOM, DICOM_JSON, DICOM_XML

WADL: Final = "application/vnd.sun.wadl+xml"
_NAMESPACE: Final = "http://wadl.dev.java.net/2009/02"
_RELATED: Final = "multipart/related"
_STORE_BODIES: Final = (
    f'{_RELATED}; type="{DICOM}"',
    f'{_RELATED}; type="{DICOM_JSON}"',
    f'{_RELATED}; type="{DICOM_XML}"',
    DICOM,
)
# Another method is answered 405 with the field Allow, and is none of these.
_STORE_STATUSES: Final = "200 202 400 401 403 406 408 409 413 415 429 503"
_REQUEST_STATUSES: Final = "200 202 400 401 403 406 408 409 413 415 429 503"
_RESULT_STATUSES: Final = "200 202 400 401 403 404 406 429 503"


def capabilities(base_path: str) -> bytes:
    """Return the document. Addresses in it are relative to `base_path`."""
    application = Element("application", xmlns=_NAMESPACE)
    resources = SubElement(application, "resources", base=f"{base_path}/")
    studies = SubElement(resources, "resource", path="studies")
    _method(studies, "POST", "store-instances", takes=_STORE_BODIES, statuses=_STORE_STATUSES)
    study = _resource(studies, "study")
    _method(study, "POST", "store-instances-of-study", takes=_STORE_BODIES, statuses=_STORE_STATUSES)
    requests = SubElement(resources, "resource", path="commitment-requests")
    transaction = _resource(requests, "transactionUID")
    types = (DICOM_JSON, DICOM_XML)
    _method(transaction, "POST", "request-commitment", takes=types, statuses=_REQUEST_STATUSES)
    _method(transaction, "GET", "commitment-result", takes=(), statuses=_RESULT_STATUSES)
    document: bytes = tostring(application, encoding="utf-8", xml_declaration=True)
    return document


def _resource(parent: Element, name: str) -> Element:
    resource = SubElement(parent, "resource", path=f"{{{name}}}")
    SubElement(resource, "param", name=name, style="template", required="true", type="xs:string")
    return resource


def _method(resource: Element, method: str, name: str, *, takes: tuple[str, ...], statuses: str) -> None:
    element = SubElement(resource, "method", name=method, id=name)
    if takes:
        request = SubElement(element, "request")
        for media_type in takes:
            SubElement(request, "representation", mediaType=media_type)
    response = SubElement(element, "response", status=statuses)
    for media_type in (DICOM_JSON, DICOM_XML):
        SubElement(response, "representation", mediaType=media_type)
