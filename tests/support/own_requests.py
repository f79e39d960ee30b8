"""Reports that a test has the server send on an association that a peer opened, and what becomes of them."""

import threading

from stowkeeper.dimse.message_types import NEventReportRequest, Response
from support.commitment_messages import PUSH_MODEL, PUSH_MODEL_INSTANCE
from support.server_thread import ServerThread
from support.taking_handlers import TakingHandlers

REPORT = NEventReportRequest(
    message_id=0,
    affected_sop_class_uid=PUSH_MODEL,
    affected_sop_instance_uid=PUSH_MODEL_INSTANCE,
    event_type_id=1,
)


class Awaited:
    """What comes of one request: every call of `done` is kept, and there should be one."""

    def __init__(self) -> None:
        self.outcomes: list[Response | None] = []
        self.transfer_syntaxes: list[str] = []
        self._came = threading.Event()

    def done(self, response: Response | None) -> None:
        self.outcomes.append(response)
        self._came.set()

    def wait(self) -> Response | None:
        """Wait for the outcome."""
        assert self._came.wait(30), "nobody said what became of the request"
        (outcome,) = self.outcomes
        return outcome

    @property
    def has_come(self) -> bool:
        """Tell whether anything was said."""
        return self._came.is_set()


def invoke(
    server: ServerThread,
    handlers: TakingHandlers,
    data: bytes = b"a report",
    abstract_syntax: str = PUSH_MODEL,
    association_id: str | None = None,
) -> Awaited:
    """Send a report on the association that was opened last."""
    awaited = Awaited()

    def data_set(transfer_syntax: str) -> bytes:
        awaited.transfer_syntaxes.append(transfer_syntax)
        return data

    chosen = handlers.opened[-1].association_id if association_id is None else association_id
    server.server.invoke(chosen, abstract_syntax, REPORT, data_set, awaited.done)
    return awaited


def status_of(awaited: Awaited) -> int:
    """Wait for the response and return its status."""
    response = awaited.wait()
    assert response is not None
    return response.status


def is_sending(server: ServerThread) -> bool:
    """Tell whether a report is on its way on the only association."""
    (protocol,) = server.protocols_now
    return protocol._own is not None and protocol._own.is_sending
