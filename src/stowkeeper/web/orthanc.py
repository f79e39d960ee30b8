"""The interface in Orthanc's shape, the metrics and the web form of storage commitment: every router that stands at the root."""

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter

from stowkeeper.web import (
    commitment_form,
    metrics,
    orthanc_commitment,
    orthanc_jobs,
    orthanc_modalities,
    orthanc_resources,
    orthanc_store,
    orthanc_system,
    orthanc_upload,
)
from stowkeeper.web.services import WebServices

ROUTERS: Final[tuple[Callable[[WebServices], APIRouter], ...]] = (
    orthanc_system.router,
    orthanc_upload.router,
    orthanc_resources.router,
    orthanc_modalities.router,
    orthanc_store.router,
    orthanc_commitment.router,
    orthanc_jobs.router,
    metrics.router,
    commitment_form.router,
)
