"""Asking for storage commitment for the length of a command, without a database: what `send --commit` does with files.

The outcome is known only while this runs: a report that comes later finds nobody, and nothing remembers that it was asked
for. So silence is never taken for consent: an instance is committed when a report says so, and in no other case.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from stowkeeper.dicom.commitment_information import EventInformation, Reference
from stowkeeper.dicom.status import Status, StatusCategory, category_of, meaning_of
from stowkeeper.dicom.uid import generate_uid
from stowkeeper.dimse.message_types import NEventReportRequest, Request, Response
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.net.client import ClientAssociation, RequestHandler
from stowkeeper.net.name_lookup import NoLookupError
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services.commitment.asking_limits import END_LOOK_SECONDS, REFERENCES_PER_REQUEST_MAX
from stowkeeper.services.commitment.comparison import EVENT_TYPES, NO_UID, Comparison, Verdict, compare
from stowkeeper.services.commitment.push_model import ClassRefusedError, request_commitment
from stowkeeper.services.commitment.report_listener import ReportListener
from stowkeeper.services.commitment.reports_received import answer_event_report, is_at
from stowkeeper.services.limits import BACK_OFF_SECONDS_MAX
from stowkeeper.services.peer_definition import Peer
from stowkeeper.services.peer_words import quote
from stowkeeper.upperlayer.negotiation import AcceptedContext

log = structlog.get_logger("stowkeeper.commitment")

Opener = Callable[[RequestHandler], Awaitable[ClientAssociation]]
"""Opens an association with the peer that is asked, in which the handler answers the peer's own requests."""

_TAKEN: Final = frozenset({StatusCategory.SUCCESS, StatusCategory.WARNING})


class RequestRefusedError(Exception):
    """The peer answered the request with a failure; the text is a sentence that says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnceOptions:
    """How to ask, and how long to wait for each report.

    `listen` is host and port to listen at for a report on a new association, over TLS alone where `listen_tls` is given;
    None where only the association of the request can bring it. A request without answer is repeated `retries` times,
    after `back_off_seconds` and twice as long each time.
    """

    wait_seconds: float
    listen: tuple[str, int] | None = None
    listen_tls: TLSContext | None = None
    retries: int = 3
    back_off_seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnceResult:
    """What a peer said of the instances that it was asked for.

    `verdicts` has what was reported; an instance that is not in it got no report: `words` say why. `transaction_uids` are
    those under which it was asked.
    """

    verdicts: dict[Reference, Verdict]
    words: str
    transaction_uids: tuple[str, ...]


class _Question:
    """One transaction in memory. `comparison` is there once the peer reported."""

    def __init__(self, references: Sequence[Reference]) -> None:
        self.transaction_uid = generate_uid()
        self.references = tuple(references)
        self.comparison: Comparison | None = None
        self.answered = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def take(self, event_type_id: int, information: EventInformation) -> tuple[int, str]:
        """Take a report of the peer, on whatever thread; the first one counts."""
        if event_type_id not in EVENT_TYPES:
            return Status.NO_SUCH_EVENT_TYPE, ""
        if information.transaction_uid != self.transaction_uid:
            return Status.NO_SUCH_SOP_INSTANCE, ""
        if self.comparison is None:
            self.comparison = compare(self.references, event_type_id, information)
        return Status.SUCCESS, ""

    def tell(self) -> None:
        """Let whoever waits look whether the report is there; from any thread."""
        self._loop.call_soon_threadsafe(self.answered.set)

    async def take_on_request(self, context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        """Take a report in the association of the request."""
        if not isinstance(request, NEventReportRequest):
            return request.respond(Status.UNRECOGNIZED_OPERATION)
        response = await asyncio.to_thread(
            answer_event_report, request, context.transfer_syntax, data_set, self.take
        )
        if self.comparison is not None:
            self.answered.set()  # the response is handed to the network before who waits goes on
        return response


class _Desk:
    """Where the listener brings what comes: to the question that is asked now, if its sender is the peer."""

    def __init__(self, peer: Peer) -> None:
        self.question: _Question | None = None
        self._peer = peer

    def take(
        self, calling_ae_title: str, address: str, event_type_id: int, information: EventInformation
    ) -> tuple[int, str]:
        question = self.question
        if question is None or information.transaction_uid != question.transaction_uid:
            return Status.NO_SUCH_SOP_INSTANCE, ""
        try:
            is_peer = calling_ae_title == self._peer.ae_title and is_at(address, self._peer.host or "")
        except NoLookupError as error:
            return (
                Status.PROCESSING_FAILURE,
                f"its host cannot be looked up now, send it again later: {error}",
            )
        if not is_peer:
            return Status.NOT_AUTHORIZED, "another peer was asked in this transaction"
        status, words = question.take(event_type_id, information)
        if status == Status.SUCCESS:
            question.tell()
        return status, words


async def ask_once(
    peer: Peer, references: Sequence[Reference], open_one: Opener, options: OnceOptions
) -> OnceResult:
    """Ask a peer to commit instances and wait for its reports, one transaction after the other.

    `open_one` opens an association with the peer, with PUSH_MODEL_CONTEXTS. The peer alone may report.

    Raises:
        AssociationError: the peer could not be asked, or gave no answer, however often it was tried.
        RequestRefusedError: it refused.
        OSError: the address to listen at is not to be had.

    """
    desk = _Desk(peer)
    verdicts: dict[Reference, Verdict] = {}
    uids: list[str] = []
    words = ""
    async with _listening(desk, options):
        verdicts.update((one, NO_UID) for one in references if not one.is_of_uids)
        wanted = list(dict.fromkeys(one for one in references if one.is_of_uids))
        for first in range(0, len(wanted), REFERENCES_PER_REQUEST_MAX):
            part = wanted[first : first + REFERENCES_PER_REQUEST_MAX]
            desk.question = question = _Question(part)
            uids.append(question.transaction_uid)
            words = await _ask(question, open_one, options)
            if question.comparison is not None:
                verdicts.update(zip(part, question.comparison.verdicts, strict=True))
    return OnceResult(verdicts=verdicts, words=words, transaction_uids=tuple(uids))


@contextlib.asynccontextmanager
async def _listening(desk: _Desk, options: OnceOptions) -> AsyncIterator[None]:
    if options.listen is None:
        yield
        return
    listener = ReportListener(desk.take, options.listen_tls)
    await listener.start(*options.listen)
    try:
        yield
    finally:
        await listener.stop()


async def _ask(question: _Question, open_one: Opener, options: OnceOptions) -> str:
    """Ask, again while nothing is answered, and wait for the report; return why there is none, '' when it is there."""
    for attempt in range(options.retries + 1):
        try:
            return await _ask_now(question, open_one, options)
        except ClassRefusedError:
            raise
        except AssociationError as error:
            if question.answered.is_set():
                return ""  # the answer is lost, and the report is there
            if attempt == options.retries:
                raise
            seconds = min(options.back_off_seconds * 2.0**attempt, BACK_OFF_SECONDS_MAX)
            log.info("commitment", what="asking again", in_seconds=seconds, reason=str(error))
            await asyncio.sleep(seconds)
    return ""


async def _ask_now(question: _Question, open_one: Opener, options: OnceOptions) -> str:
    association = await open_one(question.take_on_request)
    try:
        response = await request_commitment(association, question.transaction_uid, question.references)
        if category_of(response.status) not in _TAKEN:
            comment = f" ({quote(response.error_comment)})" if response.error_comment else ""
            raise RequestRefusedError(
                f"{association.peer}: it refused to commit: {meaning_of(response.status)}{comment}."
            )
        words = await _wait(question, association, options)
        with contextlib.suppress(AssociationError):
            await association.release()
        return words
    finally:
        await association.close()


async def _wait(question: _Question, association: ClientAssociation, options: OnceOptions) -> str:
    loop = asyncio.get_running_loop()
    end = loop.time() + options.wait_seconds
    while not question.answered.is_set():
        left = end - loop.time()
        if left <= 0:
            return f"no report came within {options.wait_seconds:g} seconds"
        if association.error is not None and options.listen is None:
            return "the peer ended the association before it reported, and nothing listens for a new one"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(question.answered.wait(), min(left, END_LOOK_SECONDS))
    return ""
