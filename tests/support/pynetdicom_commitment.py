"""Storage commitment with pynetdicom, in a process of its own, since the library leaves threads and sockets behind.

`python pynetdicom_commitment.py ask HOST PORT COUNT SYNTAX [scu|both]` asks for COUNT instances, proposing the roles or none, waits on
the same association for the report, and prints one JSON object: the status, and what the report said.
`python pynetdicom_commitment.py serve PORT` answers requests and reports on the same association that all is kept. It also takes
reports on associations of others. It prints one JSON object for each report that was answered or taken.
"""

import json
import sys
import threading
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.events import Event

PUSH_MODEL = UID("1.2.840.10008.1.20.1")
INSTANCE = UID("1.2.840.10008.1.20.1.1")
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.8.498."
SECONDS_MAX = 40.0
SYNTAXES = {"implicit": ImplicitVRLittleEndian, "explicit": ExplicitVRLittleEndian}


def instance_uid(number: int) -> str:
    """Return the UID of an instance, 64 letters long."""
    return ROOT + str(10**37 + number)


def information(transaction_uid: str, count: int) -> Dataset:
    """Return what is said in a request, and in a report that all is kept."""
    made = Dataset()
    made.TransactionUID = transaction_uid
    items = []
    for number in range(count):
        item = Dataset()
        item.ReferencedSOPClassUID = CT_IMAGE_STORAGE
        item.ReferencedSOPInstanceUID = instance_uid(number)
        items.append(item)
    made.ReferencedSOPSequence = items
    return made


def said(event_type: int, report: Dataset) -> dict[str, Any]:
    """Return what a report says, as JSON has it."""
    committed = report.get("ReferencedSOPSequence") or []
    failed = report.get("FailedSOPSequence") or []
    return {
        "event_type": event_type,
        "transaction_uid": str(report.TransactionUID),
        "committed": len(committed),
        "last": str(committed[-1].ReferencedSOPInstanceUID) if committed else "",
        "failed": [int(item.FailureReason) for item in failed],
    }


def ask(host: str, port: int, count: int, syntax: str, roles: str) -> dict[str, Any]:
    """Ask for storage commitment and wait for the report on the same association."""
    reported = threading.Event()
    outcome: dict[str, Any] = {}

    def take(event: Event) -> tuple[int, None]:
        outcome["report"] = said(event.event_type, event.event_information)
        return 0x0000, None

    def sent(_event: Event) -> None:
        if (
            "report" in outcome
        ):  # only now, since a release in the middle of an answer may hang in the library
            reported.set()

    entity = AE(ae_title="PYNETDICOM")
    entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = SECONDS_MAX
    entity.add_requested_context(PUSH_MODEL, SYNTAXES[syntax])
    negotiated = [build_role(PUSH_MODEL, scu_role=True, scp_role=roles == "both")] if roles else None
    association = entity.associate(
        host,
        port,
        ext_neg=negotiated,  # type: ignore[arg-type]  # a list of these is what it takes
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, take), (evt.EVT_PDU_SENT, sent)],
    )
    if not association.is_established:
        return {"status": None}
    (context,) = association.accepted_contexts
    outcome["roles"] = [bool(context.as_scu), bool(context.as_scp)]
    answer, _ = association.send_n_action(information("2.25.7", count), 1, PUSH_MODEL, INSTANCE)
    outcome["status"] = getattr(answer, "Status", None)
    reported.wait(SECONDS_MAX)
    association.release()
    outcome["released"] = association.is_released
    return outcome


def serve(port: int) -> None:
    """Answer requests and take reports until the process is ended."""

    def report(event: Event, request: Dataset) -> None:
        count = len(request.ReferencedSOPSequence)
        answer, _ = event.assoc.send_n_event_report(
            information(request.TransactionUID, count), 1, PUSH_MODEL, INSTANCE
        )
        print(json.dumps({"reported": count, "status": getattr(answer, "Status", None)}), flush=True)

    def act(event: Event) -> tuple[int, None]:
        threading.Timer(0.1, report, (event, event.action_information)).start()
        return 0x0000, None

    def take(event: Event) -> tuple[int, None]:
        print(json.dumps(said(event.event_type, event.event_information)), flush=True)
        return 0x0000, None

    entity = AE(ae_title="PYNETDICOM")
    entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = SECONDS_MAX
    entity.add_supported_context(PUSH_MODEL, list(SYNTAXES.values()), scu_role=True, scp_role=True)
    entity.start_server(
        ("127.0.0.1", port), evt_handlers=[(evt.EVT_N_ACTION, act), (evt.EVT_N_EVENT_REPORT, take)]
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        print(json.dumps(ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *[*sys.argv[5:], ""][:2])))
