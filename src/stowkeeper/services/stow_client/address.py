"""Where instances are posted: the URL of a DICOMweb service, with or without `/studies` (PS3.18 §10.5.1)."""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urljoin, urlsplit

from stowkeeper.dicom.uid import is_acceptable_uid

_STUDIES: Final = re.compile(r"(?P<base>.*)/studies(?:/(?P<study>[^/]*))?")
_PORTS: Final = {"http": 80, "https": 443}
_VISIBLE: Final = re.compile(r"[!-~]*")


class AddressError(ValueError):
    """A URL cannot be posted to; the text says why, and holds no credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """The resource that instances are posted to. `base` is the path of the service, without `/studies`."""

    scheme: str
    host: str
    port: int
    base: str
    study_instance_uid: str = ""
    query: str = ""
    trailing: str = ""
    """A slash that a redirect of the server put behind the path."""

    @property
    def path(self) -> str:
        """The path of the resource, without query parameters."""
        return f"{self.base}/studies" + (f"/{self.study_instance_uid}" if self.study_instance_uid else "")

    @property
    def target(self) -> str:
        """What stands in the request line."""
        path = self.path + self.trailing
        return f"{path}?{self.query}" if self.query else path

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: who gets the credential."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Host and port, the port left out where it is that of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def service(self) -> str:
        """The service as a URL, without what chooses a study and without query parameters."""
        return f"{self.scheme}://{self.authority}{self.base}"

    @property
    def url(self) -> str:
        """The resource as a URL for people: query parameters are left out, since some hold a credential."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def keeps_secrets(self) -> bool:
        """Whether a credential that goes there can be read by nobody on the way: TLS, or this machine."""
        return self.scheme == "https" or _is_loopback(self.host)

    def redirected(self, location: str) -> "StoreAddress | None":
        """Return the address that a redirect leads to, None where it is another origin or no URL at all."""
        try:
            parts = urlsplit(urljoin(f"{self.scheme}://{self.authority}{self.target}", location))
            found = read_address(parts.geturl())
        except (AddressError, ValueError):
            return None
        if found.origin != self.origin or found.study_instance_uid != self.study_instance_uid:
            return None
        return replace(found, trailing="/" if parts.path.endswith("/") else "")


def read_address(url: str, study_instance_uid: str = "") -> StoreAddress:
    """Read the URL of a DICOMweb service, or of its resource `studies`. Raises AddressError.

    A study in the URL counts as `study_instance_uid` does. Credentials in a URL are refused: it is shown, and is listed
    with the processes of the machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressError("the URL cannot be read: its host or port is malformed") from None
    if port == 0:
        raise AddressError("the URL cannot be read: its host or port is malformed")
    if parts.scheme not in _PORTS or not host:
        raise AddressError("the URL begins with http:// or https:// and a host")
    if "@" in parts.netloc:
        raise AddressError("the URL holds a user or a password: use --user, which asks for the password")
    if parts.fragment or not _VISIBLE.fullmatch(f"{parts.path}{parts.query}{host}"):
        raise AddressError("the URL holds a # or letters that have to be written as %XX")
    path = parts.path.rstrip("/")
    found = _STUDIES.fullmatch(path)
    in_url = (found["study"] or "") if found else ""
    if in_url and study_instance_uid and in_url != study_instance_uid:
        raise AddressError(f"the URL names the study {in_url}, and --study another one")
    study = study_instance_uid or in_url
    if study and not is_acceptable_uid(study):
        raise AddressError(f"{study!r} is no Study Instance UID: that is 1 to 64 digits and dots")
    return StoreAddress(
        scheme=parts.scheme,
        host=host,
        port=port or _PORTS[parts.scheme],
        base=found["base"] if found else path,
        study_instance_uid=study,
        query=parts.query,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
