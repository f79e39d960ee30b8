"""The job that asks a peer for storage commitment: N-ACTION out, and then patience until the report is there.

    ask ──no answer──► ask again later, with the same UID
     │  ──refused────► over; the UID is never used again
     ▼
    accepted: the association stays open for a while, for a report on it; the job gives its lane back
     ▼
    await: the job sleeps. Who takes the report (`reports_received`) wakes it; else it sees that the time is over

A request whose answer was lost is repeated as it was: a provider joins what is the same to the transaction that it works
on (ours does), or works on it twice and reports twice, which changes nothing here. As long as no report was taken, the
peer was never told that one was, so it cannot have done with the UID.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import structlog

from stowkeeper.database.engine import Database, Transaction, utc_now
from stowkeeper.dicom.commitment_information import EventInformation, Reference
from stowkeeper.dicom.status import Status, StatusCategory, category_of, meaning_of
from stowkeeper.dimse.message_types import NEventReportRequest, Request, Response
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.kind import Ending, Failed, Finished, NextStep, TryAgain
from stowkeeper.jobs.run import JobRun
from stowkeeper.jobs.states import JobWish
from stowkeeper.net.association_errors import AssociationError, PeerTimeoutError
from stowkeeper.net.client import ClientAssociation
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking import (
    JOB_KIND,
    OPEN_STATES,
    AskTerms,
    ask_again,
    peer_of,
)
from stowkeeper.services.commitment.asking_limits import (
    ASK_AGAIN_LATER_SECONDS,
    END_LOOK_SECONDS,
    FIRST_LOOK_SECONDS,
    KEPT_OPEN_MAX,
    LATE_SECONDS,
    LOOK_AGAIN_SECONDS,
)
from stowkeeper.services.commitment.commitment_values import (
    Commitment,
    CommitmentRole,
    CommitmentState,
)
from stowkeeper.services.commitment.push_model import (
    PUSH_MODEL_CONTEXTS,
    ClassRefusedError,
    request_commitment,
)
from stowkeeper.services.commitment.reports_received import answer_event_report, take_report_on_request
from stowkeeper.services.dialing import OwnSide, open_association
from stowkeeper.services.peer_words import quote
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.upperlayer.negotiation import AcceptedContext

log = structlog.get_logger("stowkeeper.commitment")

AWAIT_REPORT: Final = "await"
"""The step of a job whose request was accepted."""

RESOURCE_STATUSES: Final = frozenset({Status.PROCESSING_FAILURE, Status.RESOURCE_LIMITATION})
"""Refusals that say nothing against asking again: with another UID, later."""


_TAKEN: Final = frozenset({StatusCategory.SUCCESS, StatusCategory.WARNING})
"""The classes of an answer by which the peer took the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A transaction as it stands, and the peer that it goes to."""

    commitment: Commitment
    peer: Peer


class _Reports:
    """The reports that come in the association of a request. `came` is set when that of its own transaction was taken."""

    def __init__(self, database: Database, peer: Peer, transaction_uid: str) -> None:
        self.came = asyncio.Event()
        self._database = database
        self._peer = peer
        self._transaction_uid = transaction_uid
        self._taking = 0
        self._none_is_taken = asyncio.Event()
        self._none_is_taken.set()

    async def handle(self, context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        """Answer a request of the peer. Its response is handed to the network before who waits here goes on."""
        if not isinstance(request, NEventReportRequest):
            return request.respond(Status.UNRECOGNIZED_OPERATION)
        taken: list[str] = []

        def take(event_type_id: int, information: EventInformation) -> tuple[int, str]:
            status, words = take_report_on_request(self._database, self._peer, event_type_id, information)
            if status == Status.SUCCESS:
                taken.append(information.transaction_uid)
            return status, words

        self._taking += 1
        self._none_is_taken.clear()
        try:
            return await asyncio.to_thread(
                answer_event_report, request, context.transfer_syntax, data_set, take
            )
        finally:
            self._taking -= 1
            if not self._taking:
                self._none_is_taken.set()
            if self._transaction_uid in taken:
                self.came.set()

    async def wait_until_answered(self) -> None:
        """Wait until every report that came is answered."""
        await self._none_is_taken.wait()


class CommitmentRequestJob:
    """The job kind `commitment-request`. `close` ends what it keeps open, when no run is left."""

    def __init__(
        self,
        database: Database,
        peers: PeerBook,
        own: OwnSide,
        *,
        clock: Callable[[], str] = utc_now,
    ) -> None:
        """Take the archive's database, the peers, and what we are to them."""
        self._database = database
        self._peers = peers
        self._own = own
        self._clock = clock
        self._places = asyncio.Semaphore(KEPT_OPEN_MAX)
        self._keeping: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """The kind, as jobs are submitted with it."""
        return JOB_KIND

    @property
    def concludes_cancellation(self) -> bool:
        """A cancelled job writes that its transaction is cancelled."""
        return True

    async def run(self, run: JobRun) -> Ending:
        """Ask, or see whether the report is there."""
        asked = await run.in_thread(self._load, run.job)
        if asked is None:
            return Failed("its transaction is not in the database")
        commitment = asked.commitment
        if run.job.wish is JobWish.CANCEL:
            await run.in_thread(self._cancel, run, commitment)
            return Finished("cancelled", says_nothing_of_lane=True)
        if commitment.reported_at is not None:
            return _ending_of(commitment)
        if commitment.state not in OPEN_STATES:
            return Failed(_over(commitment))
        if commitment.expires_at is not None and self._clock() >= commitment.expires_at:
            return await run.in_thread(self._expire, run, asked)
        if commitment.state is CommitmentState.ACCEPTED:
            return self._wait(commitment, self._next_look(run.job))
        return await self._ask(run, asked)

    async def close(self) -> None:
        """End the associations that are kept open for reports, and wait for that."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    # Asking.

    async def _ask(self, run: JobRun, asked: _Asked) -> Ending:
        commitment, peer = asked.commitment, asked.peer
        if not commitment.own_ae_title:
            commitment = await run.in_thread(
                self._name_ourselves, run, commitment, self._own.ae_title_for(peer)
            )
        references = await run.in_thread(self._references, commitment)
        reports = _Reports(self._database, peer, commitment.transaction_uid)
        try:
            association = await open_association(
                peer,
                PUSH_MODEL_CONTEXTS,
                self._own,
                own_ae_title=commitment.own_ae_title,
                handler=reports.handle,
            )
        except AssociationError as error:
            await run.in_thread(self._note_error, run, commitment, str(error))
            return TryAgain(str(error), lane_is_blocked=True)
        is_kept = False
        try:
            response = await request_commitment(association, commitment.transaction_uid, references)
            if category_of(response.status) not in _TAKEN:
                return await run.in_thread(self._refuse, run, asked, response)
            commitment = await run.in_thread(self._accept, run, commitment, response)
            seconds = AskTerms.of_job(run.job.arguments).keep_open_seconds
            if commitment.reported_at is None and seconds > 0:
                await self._places.acquire()
                self._keep_open(association, reports, seconds)
                is_kept = True
        except ClassRefusedError as error:
            return await run.in_thread(self._refuse_class, run, asked, str(error))
        except AssociationError as error:
            await run.in_thread(self._note_error, run, commitment, str(error))
            return TryAgain(str(error), lane_is_blocked=isinstance(error, PeerTimeoutError))
        except BaseException:
            association.abort()  # who stops us does not wait for the peer's answer
            raise
        finally:
            if not is_kept:
                await _end(association, reports)
        if reports.came.is_set():
            commitment = await run.in_thread(self._look_again, commitment)
        if commitment.reported_at is not None:
            return _ending_of(commitment)
        return self._wait(commitment, FIRST_LOOK_SECONDS)

    def _next_look(self, job: Job) -> float:
        """Return when to look again, in seconds: twice as late as the last time, but soon after the job stood still.

        Who takes a report wakes a job that sleeps, and cannot wake one that just looks: such a report is seen at the next
        look. So the looks begin close together, also when a server starts, for which the peers waited too.
        """
        if job.step != AWAIT_REPORT or seconds_between(job.due_at, self._clock()) > LATE_SECONDS:
            return FIRST_LOOK_SECONDS
        return min(2 * float(job.checkpoint.get("look_seconds", FIRST_LOOK_SECONDS)), LOOK_AGAIN_SECONDS)

    def _wait(self, commitment: Commitment, look_seconds: float) -> Ending:
        """Sleep until somebody has to look again, outside of the peer's lane."""
        seconds = look_seconds
        if commitment.expires_at is not None:
            seconds = max(0.0, min(seconds, seconds_between(self._clock(), commitment.expires_at)))
        return NextStep(AWAIT_REPORT, checkpoint={"look_seconds": look_seconds}, due_in_seconds=seconds)

    # The association of the request, after its answer.

    def _keep_open(self, association: ClientAssociation, reports: _Reports, seconds: float) -> None:
        task = asyncio.get_running_loop().create_task(self._await_report(association, reports, seconds))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _await_report(self, association: ClientAssociation, reports: _Reports, seconds: float) -> None:
        """Keep an association until the report came, the peer ended it, or the time is over; then release it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            while association.error is None and not reports.came.is_set() and loop.time() < end:
                left = min(END_LOOK_SECONDS, end - loop.time())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reports.came.wait(), left)
        except BaseException:
            association.abort()
            raise
        finally:
            self._places.release()
            await _end(association, reports)

    # Rows; called in threads.

    def _load(self, job: Job) -> _Asked | None:
        with self._database.read() as connection:
            commitment = rows.find(connection, CommitmentRole.USER, job.arguments["transaction_uid"])
        if commitment is None:
            return None
        found = self._peers.find(commitment.peer) if commitment.peer else None
        way: Mapping[str, Any] = job.arguments["way_to_peer"]
        return _Asked(commitment=commitment, peer=peer_of(commitment, found, way))

    def _references(self, commitment: Commitment) -> list[Reference]:
        with self._database.read() as connection:
            instances = rows.instances_of(
                connection, commitment.commitment_key, limit=max(1, commitment.instances)
            )
        return [instance.reference for instance in instances if instance.reference.is_of_uids]

    def _look_again(self, commitment: Commitment) -> Commitment:
        with self._database.read() as connection:
            return rows.find_by_key(connection, commitment.commitment_key) or commitment

    def _name_ourselves(self, run: JobRun, commitment: Commitment, own_ae_title: str) -> Commitment:
        """Write down, before the first call, what we call ourselves in this transaction, now and later."""
        with run.write() as transaction:
            rows.change(transaction, commitment.commitment_key, own_ae_title=own_ae_title)
        return replace(commitment, own_ae_title=own_ae_title)

    def _accept(self, run: JobRun, commitment: Commitment, response: Response) -> Commitment:
        """Write that the peer accepted the request; a report that overtook the answer stays."""
        with run.write() as transaction:
            now = _again(transaction, commitment)
            if now.state is CommitmentState.REQUESTED:
                rows.change(transaction, commitment.commitment_key, state=CommitmentState.ACCEPTED, error="")
        log.info(
            "commitment",
            what="requested",
            transaction=commitment.transaction_uid,
            peer=commitment.peer or commitment.peer_ae_title,
            instances=commitment.instances,
            status=f"{response.status:04X}H",
        )
        return replace(now, state=CommitmentState.ACCEPTED) if now.reported_at is None else now

    def _refuse(self, run: JobRun, asked: _Asked, response: Response) -> Ending:
        words = f"{asked.peer.where} refused the request: {meaning_of(response.status)}"
        if response.error_comment:
            words += f" ({quote(response.error_comment)})"
        if response.status in RESOURCE_STATUSES:
            return self._give_up(run, asked, CommitmentState.REFUSED, words, ASK_AGAIN_LATER_SECONDS)
        return self._give_up(run, asked, CommitmentState.REFUSED, words, None)

    def _refuse_class(self, run: JobRun, asked: _Asked, words: str) -> Ending:
        return self._give_up(run, asked, CommitmentState.REFUSED, words, None)

    def _expire(self, run: JobRun, asked: _Asked) -> Ending:
        commitment = asked.commitment
        if commitment.state is CommitmentState.ACCEPTED:
            words = f"no report came until {commitment.expires_at}"
        else:
            words = f"it could not be asked until {commitment.expires_at}: {commitment.error or 'no attempt was made'}"
        return self._give_up(run, asked, CommitmentState.EXPIRED, words, 0.0)

    def _give_up(
        self,
        run: JobRun,
        asked: _Asked,
        state: CommitmentState,
        words: str,
        again_in_seconds: float | None,
    ) -> Ending:
        """Write that a transaction is over without a report, and the one that asks again if that is wanted."""
        terms = AskTerms.of_job(run.job.arguments)
        with run.write() as transaction:
            now = _again(transaction, asked.commitment)
            if now.reported_at is not None:
                return _ending_of(now)
            rows.change(transaction, now.commitment_key, state=state, error=words)
            if again_in_seconds is not None and terms.re_ask_times > 0:
                again = ask_again(
                    transaction,
                    replace(now, state=state),
                    asked.peer,
                    created_by=run.job.created_by,
                    terms=replace(terms, re_ask_times=terms.re_ask_times - 1),
                    due_in_seconds=again_in_seconds,
                )
                words += f"; asked again as {again.transaction_uid}"
        log.warning(
            "commitment",
            what=str(state),
            transaction=now.transaction_uid,
            peer=now.peer or now.peer_ae_title,
            reason=words,
        )
        return Failed(words)

    def _cancel(self, run: JobRun, commitment: Commitment) -> None:
        with run.write() as transaction:
            now = _again(transaction, commitment)
            if now.reported_at is None and now.state in OPEN_STATES:
                rows.change(
                    transaction,
                    now.commitment_key,
                    state=CommitmentState.CANCELLED,
                    error="its job was cancelled",
                )

    def _note_error(self, run: JobRun, commitment: Commitment, words: str) -> None:
        if commitment.error == words:
            return
        with run.write() as transaction:
            if _again(transaction, commitment).reported_at is None:
                rows.change(transaction, commitment.commitment_key, error=words)


async def _end(association: ClientAssociation, reports: _Reports) -> None:
    """Release an association. What was answered is known by now, so nothing is lost where the peer does not agree."""
    try:
        await reports.wait_until_answered()
        with contextlib.suppress(AssociationError):
            await association.release()
    finally:
        await association.close()


def _again(transaction: Transaction, commitment: Commitment) -> Commitment:
    """Return a transaction as it is now; rows are never deleted."""
    found = rows.find_by_key(transaction.connection, commitment.commitment_key)
    return commitment if found is None else found


def _ending_of(commitment: Commitment) -> Ending:
    """Return how the job of a transaction ends whose report was taken."""
    if commitment.state is CommitmentState.COMMITTED:
        return Finished(
            "its instance is committed"
            if commitment.instances == 1
            else f"all {commitment.instances} instances are committed"
        )
    return Failed(
        f"{_not_committed(commitment)}: `stowkeeper commitments show {commitment.transaction_uid}` names them"
    )


def _not_committed(commitment: Commitment) -> str:
    if commitment.instances == 1:
        return "its instance is not committed"
    are = "is" if commitment.failures == 1 else "are"
    return f"{commitment.failures} of {commitment.instances} instances {are} not committed"


def _over(commitment: Commitment) -> str:
    return (
        f"{commitment.error or commitment.state}; a transaction UID is used once:"
        f" `stowkeeper commitments resend {commitment.transaction_uid}` asks again"
    )


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds from one time of the database to another; negative when it is the other way round."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
