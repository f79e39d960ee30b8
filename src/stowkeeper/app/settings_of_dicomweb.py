"""The settings of DICOMweb: storing by HTTP."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import shown
from stowkeeper.services.store_request_limits import PARTS_MAX

_BASE_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+")
_URL = re.compile(r"https?://[!-.0-~]+(/[!-~]*)?")
_OWN_PATHS = (
    "/api",
    "/changes",
    "/instances",
    "/jobs",
    "/livez",
    "/metrics",
    "/modalities",
    "/patients",
    "/readyz",
    "/series",
    "/statistics",
    "/storage-commitment",
    "/studies",
    "/system",
    "/tools",
)
"""Where the native interface, that in the shape of Orthanc's and the probes begin."""


def _check_base_path(value: str) -> str:
    path = value.rstrip("/")
    if not _BASE_PATH.fullmatch(path):
        raise ValueError(f"{shown(value)} is no path such as /dicom-web")
    if any(path == own or path.startswith(f"{own}/") for own in _OWN_PATHS):
        raise ValueError(f"{shown(value)} is a path of another interface: choose one such as /dicom-web")
    return path


def _check_url(value: str) -> str:
    if value and (not _URL.fullmatch(value) or set("?#@") & set(value)):
        raise ValueError(f"{shown(value)} is no URL such as https://pacs.example.org/dicom-web")
    return value.rstrip("/")


class DICOMwebSettings(Table):
    """Storing by HTTP (STOW-RS), and the other DICOMweb services."""

    base_path: Annotated[
        str,
        AfterValidator(_check_base_path),
        About("Path below which DICOMweb is served.", allowed="a path that begins with `/`"),
    ] = "/dicom-web"
    retrieve_url: Annotated[
        str,
        AfterValidator(_check_url),
        About(
            "Base URL of a DICOMweb service that has the archive's instances, named in answers as RetrieveURL"
            " (0008,1190). Empty: none is named.",
            allowed="a URL, or nothing",
        ),
    ] = ""
    requests_max: Annotated[
        int,
        Field(ge=0, le=limits.STORE_REQUESTS_MAX),
        About("Store requests at the same time; one more is answered 503. 0: any number."),
    ] = 0
    parts_max: Annotated[
        int,
        Field(ge=1, le=PARTS_MAX),
        About("Parts that one store request may have. What comes behind them is not read."),
    ] = PARTS_MAX
    part_bytes_max: Annotated[
        int,
        Field(ge=0, le=limits.PART_BYTES_MAX),
        About("Bytes that one part may have; a longer one is refused. 0: what the disk has room for."),
    ] = 0
    warnings_are_successes: Annotated[
        bool,
        About(
            "Answer 200, not 202, where everything is kept and nothing but warnings is to be told. For senders that take"
            " 200 alone for success."
        ),
    ] = False
