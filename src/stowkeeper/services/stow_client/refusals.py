"""Refusals of a request as such, in sentences that say what to do."""

from urllib.parse import urljoin, urlsplit

from stowkeeper.services.stow_client.address import StoreAddress
from stowkeeper.services.stow_client.answers import status_line
from stowkeeper.services.stow_client.connection import Answer
from stowkeeper.services.stow_client.options import Destination


def refusal(answer: Answer, address: StoreAddress, destination: Destination) -> str:
    """Return a sentence on an answer after which no further request makes sense; `address` is what was posted to."""
    credential = destination.credential
    match answer.status:
        case 401:
            hint = (
                f"it asks for a credential, {destination.credential_hint}"
                if credential is None
                else f"it does not take this {credential.kind}"
            )
        case 403:
            hint = "it knows who asks, and does not let them store"
        case 404 | 405:
            hint = "nothing takes instances there, look at the path of the URL"
        case 406:
            hint = "it writes its answer neither as DICOM JSON nor as DICOM XML"
        case 411:
            hint = "something on the way takes the length of the request away"
        case 415:
            hint = "it does not take instances as multipart/related"
        case status if 300 <= status < 400:
            return f"{address.url} leads elsewhere ({answer.status}{_destination(answer, address)}): call that if you trust it."
        case _:
            hint = ""
    said = f"{address.url} answered {status_line(answer)}"
    return f"{said}; {hint}." if hint else f"{said}."


def _destination(answer: Answer, address: StoreAddress) -> str:
    """Say where a redirect leads, without what its query holds."""
    try:
        parts = urlsplit(urljoin(address.url, answer.fields.get("location", "")))
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f", to {parts.scheme}://{host}{port}{parts.path}"
