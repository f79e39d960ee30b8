"""An arrival as rules look at it, with whatever a test says of it."""

from typing import Any

from stowkeeper.services.conditions import Arrival
from support.instances import CT_IMAGE_STORAGE


def make_arrival(**more: Any) -> Arrival:
    """Return an instance of a CT study that a scanner sent."""
    values: dict[str, Any] = {
        "version_key": 1,
        "receipt_key": 1,
        "sop_instance_uid": "1.2.3.1",
        "series_instance_uid": "1.2.3",
        "study_instance_uid": "1.2",
        "sop_class_uid": CT_IMAGE_STORAGE,
        "transfer_syntax_uid": "1.2.840.10008.1.2",
        "modality": "CT",
        "calling_ae_title": "SCANNER",
        "called_ae_title": "STOWKEEPER",
        "peer_address": "10.1.2.3",
        "received_by": "C-STORE",
        "received_at": "2026-01-02T12:00:00.000000Z",
    }
    return Arrival(**{**values, **more})
