"""pynetdicom as provider of storage commitment, scripted: how it answers a request, and where and how it reports."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import N_ACTION_RSP
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # the module makes its names at run time
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from stowkeeper.services.peers import Peer
from support.catalog_rows import CT_IMAGE_STORAGE, HANGING_PROTOCOL_STORAGE

WAIT_SECONDS = 30.0
SYNTAXES = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that came: what it asks for, and the association that it came in."""

    transaction_uid: str
    references: list[Reference]
    association: Any
    proposed_roles: list[SCP_SCU_RoleSelectionNegotiation] = field(default_factory=list)


def event_information(
    uid: str, committed: Sequence[Reference], failed: Sequence[Reference] = (), *, reason: int = 0x0112
) -> Dataset:
    """Return the data set of a report, as pynetdicom sends it."""
    information = Dataset()
    information.TransactionUID = uid
    if committed:
        information.ReferencedSOPSequence = [_item(one) for one in committed]
    if failed:
        information.FailedSOPSequence = [_item(one) for one in failed]
        for item in information.FailedSOPSequence:
            item.FailureReason = reason
    return information


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


class Provider:
    """A provider that is asked. `status` is its answer; `on_request` is called with each request after the answer.

    With `tls` it takes associations over TLS alone.
    """

    def __init__(
        self,
        *,
        ae_title: str = "PACS",
        status: int | Callable[[int], int] = 0x0000,
        on_request: Callable[["Provider", Asked], None] | None = None,
        contexts: Sequence[str] = (StorageCommitmentPushModel,),
        transfer_syntaxes: Sequence[str] = SYNTAXES,
        answers_roles: bool = False,
        store: Callable[[str], int] = lambda _uid: 0x0000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.asked: list[Asked] = []
        self.stored: list[str] = []
        """The SOP Instance UIDs that were sent, those that were refused too; `store` gives the status of each."""
        self.statuses: list[int | None] = []
        """What was answered to the reports, in their order; None where nothing was."""
        self._status = status
        self._on_request = on_request
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._changed = threading.Condition()
        self._entity = AE(ae_title=ae_title)
        self._entity.require_called_aet = False
        for context in (Verification, *contexts):
            roles = {"scu_role": True, "scp_role": True} if answers_roles else {}
            self._entity.add_supported_context(context, list(transfer_syntaxes), **roles)
        for context in (CT_IMAGE_STORAGE, HANGING_PROTOCOL_STORAGE):
            self._entity.add_supported_context(context, list(transfer_syntaxes))
        self._store = store
        self._server = self._entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            ssl_context=tls,
            evt_handlers=[
                (evt.EVT_N_ACTION, self._take),
                (evt.EVT_DIMSE_SENT, self._after_answer),
                (evt.EVT_C_STORE, self._take_instance),
                (evt.EVT_CONN_OPEN, self._note_connection),
            ],
        )
        self.ae_title = ae_title
        self.port: int = self._server.socket.getsockname()[1]  # type: ignore[union-attr]  # it listens

    @property
    def address(self) -> str:
        """Return it as `AET@HOST:PORT`."""
        return f"{self.ae_title}@127.0.0.1:{self.port}"

    def peer(self, name: str = "pacs", **changes: Any) -> Peer:
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

    def _note_connection(self, event: Any) -> None:
        self._sockets.append(event.assoc.dul.socket.socket)
        _send_one_message_at_a_time(event.assoc.dimse)

    def _take(self, event: Any) -> tuple[int, None]:
        information = event.action_information
        asked = Asked(
            transaction_uid=str(information.TransactionUID),
            references=[
                Reference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in information.ReferencedSOPSequence
            ],
            association=event.assoc,
            proposed_roles=list(event.assoc.requestor.role_selection.values()),
        )
        status = self._status(len(self.asked)) if callable(self._status) else self._status
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
        return status, None

    def _take_instance(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.stored.append(uid)
        return self._store(uid)

    def _after_answer(self, event: Any) -> None:
        if self._on_request is not None and isinstance(event.message, N_ACTION_RSP):
            asked = next(one for one in reversed(self.asked) if one.association is event.assoc)
            self.in_background(self._on_request, self, asked)

    def in_background(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do something beside, and wait for it at the end."""
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait_for_requests(self, count: int = 1) -> list[Asked]:
        """Wait until so many requests came; return all that did."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= count, WAIT_SECONDS)
            return list(self.asked)

    def wait_for_statuses(self, count: int = 1) -> list[int | None]:
        """Wait until so many reports were answered; return the statuses of all that were."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.statuses) >= count, WAIT_SECONDS)
            return list(self.statuses)

    # Reporting.

    def report_on(self, association: Any, information: Dataset, event_type: int) -> int | None:
        """Report on an association that is open, whoever opened it; return the status of the answer."""
        status, _ = association.send_n_event_report(
            information, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        answered = int(status.Status) if "Status" in status else None
        with self._changed:
            self.statuses.append(answered)
            self._changed.notify_all()
        return answered

    def report_anew(
        self,
        port: int,
        information: Dataset,
        event_type: int,
        *,
        called: str = "STOWKEEPER",
        calling: str | None = None,
        scu_role: bool = False,
        proposes_role: bool = True,
        transfer_syntaxes: Sequence[str] = SYNTAXES,
        tls: ssl.SSLContext | None = None,
    ) -> int | None:
        """Report on a new association to a port of loopback; None where the association was refused."""
        entity = AE(ae_title=calling or self.ae_title)
        entity.add_requested_context(StorageCommitmentPushModel, list(transfer_syntaxes))
        role = build_role(StorageCommitmentPushModel, scu_role=scu_role, scp_role=True)
        association = entity.associate(
            "127.0.0.1",
            port,
            ae_title=called,
            ext_neg=[role] if proposes_role else [],
            tls_args=None if tls is None else (tls, "localhost"),
        )
        if not association.is_established:
            with self._changed:
                self.statuses.append(None)
                self._changed.notify_all()
            return None
        try:
            return self.report_on(association, information, event_type)
        finally:
            association.release()

    def close(self) -> None:
        """End it."""
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
        self._server.shutdown()
        for connection in self._sockets:
            # pynetdicom forgets the socket of a requestor that was killed without closing it.
            connection.close()


def _send_one_message_at_a_time(dimse: Any) -> None:
    """Let what is sent on several threads of an association not mix.

    pynetdicom tells of a message before it sends it; a report that is sent at once would have the answer in its middle.
    """
    sending, send = threading.Lock(), dimse.send_msg

    def send_whole(*arguments: Any) -> None:
        with sending:
            send(*arguments)

    dimse.send_msg = send_whole


def commits_all_on_same(provider: Provider, asked: Asked) -> None:
    """Report in the association of the request that everything is committed."""
    provider.report_on(asked.association, event_information(asked.transaction_uid, asked.references), 1)


@contextlib.contextmanager
def providing(**options: Any) -> Iterator[Provider]:
    """Run a provider for the length of a block."""
    provider = Provider(**options)
    try:
        yield provider
    finally:
        provider.close()
