"""A small server that takes reports of storage commitment and nothing else, for the length of a command.

`stowkeeper serve` takes reports beside all it does otherwise; this is for commands that ask while no server runs. It
performs C-ECHO and N-EVENT-REPORT; whatever is stored to it is refused.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from stowkeeper.dicom.commitment_information import COMMITMENT_TRANSFER_SYNTAXES, EventInformation
from stowkeeper.dicom.limits import COMMITMENT_INFORMATION_BYTES_MAX
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL, VERIFICATION
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest, NEventReportRequest, Request, Response
from stowkeeper.dimse.messages import Message
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.net.server import AssociationServer
from stowkeeper.net.server_options import ServerOptions
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services.commitment.asking_limits import (
    LISTENER_ASSOCIATIONS_MAX,
    LISTENER_DRAIN_SECONDS,
    LISTENER_IDLE_SECONDS,
    LISTENER_LOOK_SECONDS,
    LISTENER_PATIENCE_SECONDS,
)
from stowkeeper.services.commitment.reports_received import answer_event_report
from stowkeeper.upperlayer.items import Roles
from stowkeeper.upperlayer.limits import MAX_PDU_LENGTH_LOCAL_DEFAULT
from stowkeeper.upperlayer.negotiation import (
    AcceptancePolicy,
    Accepted,
    AcceptedContext,
    Rejected,
    negotiate,
)
from stowkeeper.upperlayer.pdu import AssociateRQ

log = structlog.get_logger("stowkeeper.commitment")

Take = Callable[[str, str, int, EventInformation], tuple[int, str]]
"""Takes a report, given calling AE title, address, event type and content; returns status and words. It may block."""

_OPTIONS: Final = ServerOptions(
    maximum_length=MAX_PDU_LENGTH_LOCAL_DEFAULT,
    associations_max=LISTENER_ASSOCIATIONS_MAX,
    associations_per_peer_max=LISTENER_ASSOCIATIONS_MAX,
    association_request_seconds=LISTENER_IDLE_SECONDS,
    idle_seconds=LISTENER_IDLE_SECONDS,
    message_seconds=LISTENER_IDLE_SECONDS,
    message_bytes_per_second_min=1024,
    send_seconds=LISTENER_IDLE_SECONDS,
    drain_seconds=LISTENER_DRAIN_SECONDS,
    association_threads=0,
)

_POLICY: Final = AcceptancePolicy(
    accepts_abstract_syntax=lambda uid: uid in (VERIFICATION, STORAGE_COMMITMENT_PUSH_MODEL),
    transfer_syntaxes=COMMITMENT_TRANSFER_SYNTAXES,
    # Who reports is provider, and says so by its role; some propose both (PS3.7 §D.3.3.4).
    roles={STORAGE_COMMITMENT_PUSH_MODEL: Roles(scu=True, scp=True)},
)


class ReportListener:
    """Listens for reports between `start` and `stop`, on the event loop of the caller; over TLS alone, where it is given."""

    def __init__(self, take: Take, tls: TLSContext | None = None) -> None:
        self._thread = ThreadPoolExecutor(1, "reports")
        self._server = AssociationServer(_Handlers(take, self._thread), _OPTIONS, tls)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return the address and the port, a free one where `port` is 0. Raises OSError."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Answer what is in flight, and end. Who reported just now has a moment to release its association itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTENER_PATIENCE_SECONDS):
                while self._server.associations:  # noqa: ASYNC110 - the server tells nobody of it
                    await asyncio.sleep(LISTENER_LOOK_SECONDS)
        await self._server.stop()
        await asyncio.to_thread(self._thread.shutdown)


class _Handlers:
    """What the server is given: two services, and a refusal of everything else."""

    def __init__(self, take: Take, thread: ThreadPoolExecutor) -> None:
        self._take = take
        self._thread = thread

    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:  # noqa: ARG002 - the shape of Handlers
        return negotiate(request, _POLICY)

    def store(
        self,
        facts: AssociationFacts,  # noqa: ARG002 - likewise
        context: AcceptedContext,  # noqa: ARG002 - likewise
        request: CStoreRequest,  # noqa: ARG002 - likewise
        answer: Callable[[StoreAnswer], None],
    ) -> "_Refusal":
        return _Refusal(answer)

    def store_refused(
        self, facts: AssociationFacts, context: AcceptedContext, request: CStoreRequest, answer: StoreAnswer
    ) -> None:
        pass

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:  # noqa: ARG002 - likewise
        return COMMITMENT_INFORMATION_BYTES_MAX if isinstance(message, NEventReportRequest) else 0

    def other_message(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        message: Message,
        data_set: bytes,
        answer: Callable[[Response], None],
    ) -> Response | None:
        if isinstance(message, CEchoRequest):
            return message.respond(Status.SUCCESS)
        if isinstance(message, NEventReportRequest):
            self._thread.submit(self._answer, facts, context, message, data_set, answer)
            return None
        if isinstance(message, Request) and message.expects_response:
            return message.respond(Status.UNRECOGNIZED_OPERATION)
        return None

    def _answer(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        request: NEventReportRequest,
        data_set: bytes,
        answer: Callable[[Response], None],
    ) -> None:
        def take(event_type_id: int, information: EventInformation) -> tuple[int, str]:
            return self._take(facts.calling_ae_title, facts.peer_address, event_type_id, information)

        response = request.respond(Status.PROCESSING_FAILURE)
        try:
            response = answer_event_report(request, context.transfer_syntax, data_set, take)
        except Exception:
            log.exception("error", what="a commitment report could not be taken")
        finally:
            answer(response)

    def association_opened(self, facts: AssociationFacts) -> None:
        pass

    def association_ended(self, facts: AssociationFacts) -> None:
        pass

    def association_closed(self, facts: AssociationFacts) -> None:
        pass


class _Refusal:
    """A C-STORE that is read to its end and refused: nothing is kept here."""

    def __init__(self, answer: Callable[[StoreAnswer], None]) -> None:
        self._answer = answer

    def write(self, piece: memoryview, release: Callable[[], None] | None) -> None:  # noqa: ARG002 - the shape of StoreOperation
        if release is not None:
            release()

    def pdv_ended(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def commit(self) -> None:
        self._answer(StoreAnswer(status=Status.SOP_CLASS_NOT_SUPPORTED))

    def abort(self, words: str) -> None:
        pass

    def answered(self, answer: StoreAnswer) -> None:
        pass
