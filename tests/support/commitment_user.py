"""pynetdicom as user of storage commitment, scripted: how it asks, where it takes reports, and what it answers to them."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # the module makes its names at run time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from stowkeeper.services.peers import Peer
from support.instances import CT_IMAGE_STORAGE

WAIT_SECONDS = 30.0
SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)

Named = tuple[str, str]
"""SOP class and SOP instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report as it came, and the association that it came in."""

    transaction_uid: str
    event_type: int
    committed: list[Named]
    failed: dict[Named, int]
    elements: set[str]
    """The keywords of the elements at the top, as they stood in the data set."""
    retrieve_ae_title: str
    calling_ae_title: str
    called_ae_title: str
    transfer_syntax: str
    proposed_roles: list[tuple[bool, bool]]
    """SCU and SCP role of each role item that was proposed with the association."""
    is_on_own_association: bool
    association: Any = field(repr=False)


def named(*numbers: int, sop_class_uid: str = CT_IMAGE_STORAGE) -> list[Named]:
    """Return the references of instances as `instances.make_instance` numbers them."""
    return [(sop_class_uid, f"1.2.3.{number}") for number in numbers]


def action_information(uid: str | None, references: Sequence[Named]) -> Dataset:
    """Return the data set of a request, as pynetdicom sends it."""
    information = Dataset()
    if uid is not None:
        information.TransactionUID = uid
    information.ReferencedSOPSequence = [_item(*reference) for reference in references]
    return information


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


class CommitmentUser:
    """A modality. `answer` gives the status for each report by its number, from 0; `roles` are those it accepts.

    None of roles returns no role item, as many do. With `tls` it takes reports over TLS alone, with `calling_tls` it asks so.
    """

    def __init__(
        self,
        *,
        ae_title: str = "SCANNER",
        answer: Callable[[int], int] = lambda _number: 0,
        roles: tuple[bool, bool] | None = (True, True),
        transfer_syntaxes: Sequence[str] = SYNTAXES,
        classes: Sequence[str] = (StorageCommitmentPushModel,),
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        calling_tls: ssl.SSLContext | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.reports: list[Report] = []
        self._answer = answer
        self._calling_tls = calling_tls
        self._changed = threading.Condition()
        self._associations: list[Any] = []
        self._sockets: list[Any] = []
        entity = AE(ae_title=ae_title)
        entity.require_called_aet = False
        for context in (Verification, *classes):
            chosen = {} if roles is None else {"scu_role": roles[0], "scp_role": roles[1]}
            entity.add_supported_context(context, list(transfer_syntaxes), **chosen)
        self._server = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            ssl_context=tls,
            evt_handlers=[
                (evt.EVT_N_EVENT_REPORT, self._take, [False]),
                (evt.EVT_CONN_OPEN, self._remember_socket),
            ],
        )
        self.port: int = self._server.socket.getsockname()[1]  # type: ignore[union-attr]  # it listens

    def peer(self, name: str = "scanner", **changes: Any) -> Peer:
        """Return it as a peer of ours."""
        values: dict[str, Any] = {
            "name": name,
            "ae_title": self.ae_title,
            "host": "127.0.0.1",
            "port": self.port,
            "connect_seconds": 5.0,
            "answer_seconds": 5.0,
        }
        return Peer(**(values | changes))

    # Asking.

    def associate(
        self, port: int, *, called: str = "STOWKEEPER", syntaxes: Sequence[str] = SYNTAXES, calling: str = ""
    ) -> Any:
        """Open an association for requests, and for reports on it."""
        entity = AE(ae_title=calling or self.ae_title)
        entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = WAIT_SECONDS
        entity.add_requested_context(StorageCommitmentPushModel, list(syntaxes))
        association = entity.associate(
            "127.0.0.1",
            port,
            ae_title=called,
            tls_args=None if self._calling_tls is None else (self._calling_tls, "localhost"),
            evt_handlers=[
                (evt.EVT_N_EVENT_REPORT, self._take, [True]),
                (evt.EVT_CONN_OPEN, self._remember_socket),
            ],
        )
        assert association.is_established
        self._associations.append(association)
        return association

    def ask_on(
        self,
        association: Any,
        uid: str | None,
        references: Sequence[Named],
        *,
        action_type: int = 1,
        instance: str = StorageCommitmentPushModelInstance,
    ) -> Dataset:
        """Ask on an association; return the status elements of the response."""
        status, _ = association.send_n_action(
            action_information(uid, references), action_type, StorageCommitmentPushModel, instance
        )
        assert "Status" in status, "there was no response"
        return status

    def ask(self, port: int, uid: str | None, references: Sequence[Named], **more: Any) -> int:
        """Ask on an association of its own, which is released at once; return the status."""
        opening = {name: more.pop(name) for name in ("called", "syntaxes", "calling") if name in more}
        association = self.associate(port, **opening)
        try:
            return int(self.ask_on(association, uid, references, **more).Status)
        finally:
            association.release()

    def _remember_socket(self, event: Any) -> None:
        """Note a socket, to close it: pynetdicom leaves open what its peer closed first."""
        self._sockets.append(event.assoc.dul.socket.socket)

    # Reports.

    def _take(self, event: Any, is_on_own_association: bool) -> tuple[int, None]:
        information = event.event_information
        roles = event.assoc.requestor.role_selection if not is_on_own_association else {}
        report = Report(
            transaction_uid=str(information.TransactionUID),
            event_type=event.event_type,
            committed=[_named(item) for item in information.get("ReferencedSOPSequence", [])],
            failed={
                _named(item): int(item.FailureReason) for item in information.get("FailedSOPSequence", [])
            },
            elements={element.keyword for element in information},
            retrieve_ae_title=str(information.get("RetrieveAETitle", "")),
            calling_ae_title=event.assoc.requestor.ae_title,
            called_ae_title=event.assoc.requestor.primitive.called_ae_title,
            transfer_syntax=str(event.context.transfer_syntax),
            proposed_roles=[(bool(item.scu_role), bool(item.scp_role)) for item in roles.values()],
            is_on_own_association=is_on_own_association,
            association=event.assoc,
        )
        with self._changed:
            status = self._answer(len(self.reports))
            self.reports.append(report)
            self._changed.notify_all()
        return status, None

    def wait_for_reports(self, count: int = 1, seconds: float = WAIT_SECONDS) -> list[Report]:
        """Wait until so many reports came; return all that did."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.reports) >= count, seconds), self.reports
            return list(self.reports)

    def close(self) -> None:
        """End it."""
        for association in self._associations:
            if association.is_established:
                association.release()
            association.join(WAIT_SECONDS)
        self._server.shutdown()
        for each in self._sockets:
            each.close()


def _named(item: Dataset) -> Named:
    return str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)


@contextlib.contextmanager
def using(**options: Any) -> Iterator[CommitmentUser]:
    """Run a user for the length of a block."""
    user = CommitmentUser(**options)
    try:
        yield user
    finally:
        user.close()
