"""The step `report`: N-EVENT-REPORT to the peer that asked (PS3.4 §J.3.3), as often as it takes.

On a new association we call the peer by the AE title that it had called, and propose the SCP role for ourselves. What
role item comes back, if any, decides nothing: many peers send none and take the report (decision 11). Before a report
leaves, a row says so, durably: after a crash it is known that the peer may have heard it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from stowkeeper.database.engine import Database
from stowkeeper.dicom.commitment_information import (
    STORAGE_COMMITMENT_FAILURES_EXIST,
    STORAGE_COMMITMENT_SUCCESSFUL,
    EventInformation,
    FailedReference,
    encode_event_information,
)
from stowkeeper.dicom.status import Status, meaning_of
from stowkeeper.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL, STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
from stowkeeper.dimse.message_types import NEventReportRequest, Request, Response
from stowkeeper.jobs.kind import Ending, Failed, Finished, JobRun, NextStep, TryAgain
from stowkeeper.jobs.options import DISK_LANE
from stowkeeper.jobs.states import JobWish
from stowkeeper.net.association_errors import AssociationError, PeerTimeoutError
from stowkeeper.net.client import ClientAssociation
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.arrivals import OpenAssociations
from stowkeeper.services.commitment.checking_step import (
    CHECK,
    REPORTING_SINCE,
)
from stowkeeper.services.commitment.commitment_values import (
    WAY_NEW_ASSOCIATION,
    WAY_SAME_ASSOCIATION,
    Commitment,
    CommitmentState,
    InstanceOutcome,
)
from stowkeeper.services.commitment.giving_up import is_to_be_given_up
from stowkeeper.services.commitment.limits import RECHECK_SECONDS_MIN
from stowkeeper.services.commitment.options import AFTER_REPORT, LOOKS_AGAIN, CommitmentOptions
from stowkeeper.services.commitment.recheck_step import LOOKED_AGAIN_AT, RECHECKED_UP_TO, not_sent_again
from stowkeeper.services.commitment.still_kept import words_of_loss
from stowkeeper.services.commitment.times import age_seconds
from stowkeeper.services.dialing import OwnSide, open_association
from stowkeeper.services.peer_words import quote
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.upperlayer.items import ProposedContext, RoleSelection

log = structlog.get_logger("stowkeeper.commitment")

Invoke = Callable[
    [str, str, Request, Callable[[str], bytes], Callable[[Response | None], None]],
    None,
]
"""`AssociationServer.invoke`: sends a request of ours to the requestor of an association that it opened to us."""

REPORT_CONTEXTS: Final = (
    ProposedContext(
        context_id=1,
        abstract_syntax=STORAGE_COMMITMENT_PUSH_MODEL,
        transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN),
    ),
)
REPORT_ROLES: Final = (
    RoleSelection(sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL, scu_role=False, scp_role=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """How one attempt ended. `status` is None without an answer; `is_unreachable` says that it is all of the peer's."""

    way: str
    began: float
    status: int | None = None
    words: str = ""
    is_unreachable: bool = False
    report_key: int | None = None

    @property
    def is_delivered(self) -> bool:
        return self.status is not None and rows.is_delivered(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Reports to peers. `invoke` and `open_associations` are those of the server in this process, if there is one."""

    database: Database
    peers: PeerBook
    own: OwnSide
    options: CommitmentOptions
    invoke: Invoke | None = None
    open_associations: OpenAssociations | None = None

    async def report(self, run: JobRun, commitment: Commitment) -> Ending:
        """Make one attempt to report, on the same association and then on a new one where the peer is set so."""
        if run.job.wish is JobWish.CANCEL:
            await run.in_thread(self._give_up, run, commitment, "the report was cancelled")
            return Finished(says_nothing_of_lane=True)
        if await run.in_thread(self._is_told, run, commitment):
            return Finished()
        peer = await run.in_thread(self.peers.find, commitment.peer)
        if peer is None:
            words = f"there is no peer {commitment.peer!r} any more: add it again, or cancel the job"
            return await self._failed(run, commitment, _attempt(WAY_NEW_ASSOCIATION, words))
        lost = await run.in_thread(self._words_of_loss, commitment)
        if lost and commitment.reported_at is not None:
            return await run.in_thread(not_sent_again, run, commitment, lost)
        if lost and _looked_again_within(run, RECHECK_SECONDS_MIN):
            return TryAgain(lost)  # the look that is to change this was made just now
        is_stale = bool(lost) or self._is_stale(run, commitment)
        if peer.report_on == "same-first" and self._is_open(commitment.association_id):
            if is_stale:
                return _check_again(run)
            attempt = await self._report_on_same(run, commitment, peer)
            if attempt.is_delivered:
                return await self._delivered(run, commitment, attempt)
            await run.in_thread(self._write_failure, run, commitment, attempt, "")
        return await self._report_on_new(run, commitment, peer, is_stale=is_stale)

    def _is_stale(self, run: JobRun, commitment: Commitment) -> bool:
        """Tell whether everything is to be checked again before it is told."""
        if commitment.duplicate_of is not None:
            return False
        seconds = max(self.options.recheck_after_seconds, RECHECK_SECONDS_MIN)
        if commitment.reported_at is not None or run.job.arguments.get(LOOKS_AGAIN):
            return not _looked_again_within(run, seconds)
        return abs(age_seconds(commitment.checked_at or commitment.requested_at)) > seconds

    def _words_of_loss(self, commitment: Commitment) -> str:
        with self.database.read() as connection:
            return words_of_loss(connection, commitment)

    # On the association that the peer asked in.

    def _is_open(self, association_id: str) -> bool:
        if self.invoke is None or self.open_associations is None or not association_id:
            return False
        return any(
            facts.association_id == association_id and not facts.end for facts in self.open_associations()
        )

    async def _report_on_same(self, run: JobRun, commitment: Commitment, peer: Peer) -> _Attempt:
        attempt = await self._begin(run, commitment, _attempt(WAY_SAME_ASSOCIATION, ""))
        information = await run.in_thread(self._information, commitment)
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Response | None] = loop.create_future()

        def settle(response: Response | None) -> None:
            if not answered.done():
                answered.set_result(response)

        def done(response: Response | None) -> None:
            with suppress(RuntimeError):  # the loop is gone with the jobs: nobody waits any more
                loop.call_soon_threadsafe(settle, response)

        def invoke() -> None:
            if self.invoke is None:
                done(None)
                return
            self.invoke(
                commitment.association_id,
                STORAGE_COMMITMENT_PUSH_MODEL,
                _request(information),
                lambda syntax: encode_event_information(information, syntax),
                done,
            )

        await run.in_thread(invoke)  # a long report takes its time to be encoded
        try:
            response = await asyncio.wait_for(answered, peer.answer_seconds)
        except TimeoutError:
            response = None
        if response is None:
            return replace(attempt, words=rows.SENT_WITHOUT_ANSWER)
        return _answered(attempt, response)

    # On a new one.

    async def _report_on_new(
        self, run: JobRun, commitment: Commitment, peer: Peer, *, is_stale: bool
    ) -> Ending:
        attempt = _attempt(WAY_NEW_ASSOCIATION, "")
        if peer.ae_title is None:
            peer = replace(peer, ae_title=commitment.peer_ae_title)
        try:
            association = await open_association(
                peer,
                REPORT_CONTEXTS,
                self.own,
                own_ae_title=commitment.own_ae_title,
                roles=REPORT_ROLES,
            )
        except AssociationError as error:
            attempt = replace(attempt, words=str(error), is_unreachable=True)
            return await self._failed(run, commitment, attempt)
        try:
            ending = await self._report_in(run, commitment, association, is_stale=is_stale)
            with suppress(AssociationError):  # it matters to nobody any more
                await association.release()
        except BaseException:
            await association.close()
            raise
        return ending

    async def _report_in(
        self, run: JobRun, commitment: Commitment, association: ClientAssociation, *, is_stale: bool
    ) -> Ending:
        attempt = _attempt(WAY_NEW_ASSOCIATION, "")
        context = next(iter(association.contexts.values()), None)
        if context is None:
            words = f"{association.peer}: it does not accept the Storage Commitment Push Model SOP class."
            return await self._failed(run, commitment, replace(attempt, words=words, is_unreachable=True))
        if is_stale:
            return _check_again(run)
        information = await run.in_thread(self._information, commitment)
        data_set = await run.in_thread(encode_event_information, information, context.transfer_syntax)
        attempt = await self._begin(run, commitment, attempt)
        try:
            answer = await association.invoke(context.context_id, _request(information), data_set)
        except AssociationError as error:
            words = f"{rows.SENT_WITHOUT_ANSWER}: {error}"
            is_unreachable = isinstance(error, PeerTimeoutError)
            return await self._failed(
                run, commitment, replace(attempt, words=words, is_unreachable=is_unreachable)
            )
        attempt = _answered(attempt, answer.response)
        if attempt.is_delivered:
            # Before the release, which is the peer's to delay.
            return await self._delivered(run, commitment, attempt)
        return await self._failed(run, commitment, attempt)

    # Rows, in threads.

    def _is_told(self, run: JobRun, commitment: Commitment) -> bool:
        """Tell whether this job has nothing to do any more: the peer answered, a report of its own if it is to hear it again."""
        if commitment.reported_at is None:
            return False
        with self.database.read() as connection:
            last = rows.last_answered(connection, commitment.commitment_key)
        return last > int(run.job.arguments.get(AFTER_REPORT, 0))

    def _information(self, commitment: Commitment) -> EventInformation:
        with self.database.read() as connection:
            instances = rows.instances_of(connection, commitment.commitment_key, limit=commitment.instances)
        return EventInformation(
            transaction_uid=commitment.transaction_uid,
            committed=tuple(one.reference for one in instances if one.outcome is InstanceOutcome.COMMITTED),
            failed=tuple(
                FailedReference(one.reference, one.reason or Status.PROCESSING_FAILURE)
                for one in instances
                if one.outcome is not InstanceOutcome.COMMITTED
            ),
            retrieve_ae_title=self.options.retrieve_ae_title,
        )

    async def _begin(self, run: JobRun, commitment: Commitment, attempt: _Attempt) -> _Attempt:
        """Say durably that a report is about to leave."""
        key = await run.in_thread(self._note, run, commitment, attempt.way)
        return replace(attempt, report_key=key)

    def _note(self, run: JobRun, commitment: Commitment, way: str) -> int:
        with run.write() as transaction:
            return rows.note_report(
                transaction,
                commitment.commitment_key,
                at=transaction.at,
                way=way,
                status=None,
                words=rows.SENT_WITHOUT_ANSWER,
            )

    async def _delivered(self, run: JobRun, commitment: Commitment, attempt: _Attempt) -> Ending:
        await run.in_thread(self._write_delivery, run, commitment, attempt)
        self._log(run, commitment, attempt, "reported")
        return Finished()

    def _write_delivery(self, run: JobRun, commitment: Commitment, attempt: _Attempt) -> None:
        key = commitment.commitment_key
        with run.write() as transaction:
            if attempt.report_key is not None:
                rows.conclude_report(
                    transaction,
                    attempt.report_key,
                    status=attempt.status,
                    words=attempt.words,
                    seconds=_seconds(attempt),
                )
            reported_at = commitment.reported_at or transaction.at
            rows.change(transaction, key, state=CommitmentState.REPORTED, reported_at=reported_at, error="")

    async def _failed(self, run: JobRun, commitment: Commitment, attempt: _Attempt) -> Ending:
        """Write down an attempt that failed, and say when there is another one."""
        since = str(run.job.checkpoint.get(REPORTING_SINCE, run.job.created_at))
        gives_up = await run.in_thread(is_to_be_given_up, run, since, self.options)
        last_words = (
            f"the report was given up after {self.options.report_days:g} days: {attempt.words}"
            if gives_up
            else ""
        )
        await run.in_thread(self._write_failure, run, commitment, attempt, last_words)
        self._log(run, commitment, attempt, "report failed")
        if gives_up:
            words = last_words.rstrip(".")
            return Failed(f"{words}. See to the peer, then run `stowkeeper commitments resend`")
        return TryAgain(attempt.words, lane_is_blocked=attempt.is_unreachable)

    def _write_failure(self, run: JobRun, commitment: Commitment, attempt: _Attempt, last_words: str) -> None:
        key = commitment.commitment_key
        with run.write() as transaction:
            if attempt.report_key is None:
                rows.note_report(
                    transaction,
                    key,
                    at=transaction.at,
                    way=attempt.way,
                    status=None,
                    words=attempt.words,
                    seconds=_seconds(attempt),
                )
            else:
                rows.conclude_report(
                    transaction,
                    attempt.report_key,
                    status=attempt.status,
                    words=attempt.words,
                    seconds=_seconds(attempt),
                )
            if commitment.reported_at is None:
                state = CommitmentState.UNDELIVERED if last_words else CommitmentState.CHECKED
                rows.change(transaction, key, state=state, error=last_words or attempt.words)

    def _give_up(self, run: JobRun, commitment: Commitment, words: str) -> None:
        if commitment.reported_at is None:
            with run.write() as transaction:
                rows.change(
                    transaction,
                    commitment.commitment_key,
                    state=CommitmentState.UNDELIVERED,
                    error=words,
                )

    def _log(self, run: JobRun, commitment: Commitment, attempt: _Attempt, what: str) -> None:
        level = log.info if attempt.is_delivered else log.warning
        level(
            "commitment",
            what=what,
            transaction=commitment.transaction_uid,
            peer=commitment.peer,
            way=attempt.way,
            status="" if attempt.status is None else f"{attempt.status:04X}H",
            instances=commitment.instances,
            failures=commitment.failures,
            attempt=commitment.report_attempts + 1,
            seconds=round(_seconds(attempt), 3),
            **({"why": attempt.words} if attempt.words else {}),
            job=run.job.job_id,
        )


def _request(information: EventInformation) -> NEventReportRequest:
    return NEventReportRequest(
        message_id=1,
        affected_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        affected_sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        event_type_id=STORAGE_COMMITMENT_FAILURES_EXIST
        if information.failed
        else STORAGE_COMMITMENT_SUCCESSFUL,
    )


def _attempt(way: str, words: str) -> _Attempt:
    return _Attempt(way=way, began=time.monotonic(), words=words)


def _answered(attempt: _Attempt, response: Response) -> _Attempt:
    """Take what the peer answered; whatever else the response has or lacks does not matter."""
    words = "" if rows.is_delivered(response.status) else f"the peer answered {meaning_of(response.status)}"
    if words and response.error_comment:
        words += f": {quote(response.error_comment)}"
    return replace(attempt, status=response.status, words=words)


def _seconds(attempt: _Attempt) -> float:
    return time.monotonic() - attempt.began


def _looked_again_within(run: JobRun, seconds: float) -> bool:
    """Tell whether this job has made its second look so recently."""
    at = run.job.checkpoint.get(LOOKED_AGAIN_AT)
    return at is not None and abs(age_seconds(str(at))) <= seconds


def _check_again(run: JobRun) -> Ending:
    """Look at everything again before it is told; the attempt counts from the beginning then."""
    return NextStep(CHECK, DISK_LANE, {**run.job.checkpoint, RECHECKED_UP_TO: -1})
