"""The job that sends instances of the archive to a peer, each until the peer answered what becomes of it.

    open ──Success, Warning──► stored         the words name the receipt of the version that was sent
     │ ────refused, unreadable, gone──► failed
     └─────for now: out of resources (A7xx, 0213H), no answer, no association──► open, and the job tries again

What was answered is written down while the rest is on its way, so that a run that dies sends again only what was not
answered, or was so within STORE_WRITE_SECONDS. A run sends the current version of each instance as it finds it; bytes that
are not those that were received are not sent. When nothing is open any more the peer is asked to commit what it stored,
if that is wanted, all failures aside. Receipts stay here: what goes out is the data set.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import select, text

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import utc_now
from stowkeeper.database.schema import WAITING, jobs
from stowkeeper.jobs.job import JSON, Job, JobItem
from stowkeeper.jobs.kind import Ending, Failed, Finished, NextStep, TryAgain
from stowkeeper.jobs.run import JobRun
from stowkeeper.jobs.times import later
from stowkeeper.net.association_errors import AssociationError, PeerTimeoutError, PeerUnreachableError
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services import store_items
from stowkeeper.services.commitment.asking import AskTerms, CannotAskError, ask
from stowkeeper.services.commitment.asking_limits import REFERENCES_PER_REQUEST_MAX
from stowkeeper.services.dialing import OwnSide, timeouts_of
from stowkeeper.services.limits import (
    STORE_BACK_OFF_SECONDS,
    STORE_GIVE_UP_SECONDS,
    STORE_LOST_RUNS_MAX,
    STORE_PASS_ON_SECONDS,
    STORE_PORTION,
    STORE_RETRIES,
    STORE_SUSPECTS_MAX,
    STORE_TURN_SECONDS,
    STORE_WRITE_SECONDS,
)
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.services.send_source import UNCONVERTIBLE
from stowkeeper.services.sending import Destination, Outcome, Result, SendOptions, send_files
from stowkeeper.services.store_items import FAILED, OPEN, STORED, PlannedItem, Portion
from stowkeeper.services.store_submission import JOB_KIND, peer_in

log = structlog.get_logger("stowkeeper.store")

_REASONS_NAMED = 3
"""Reasons that the words of a failed job name: what else there is the items tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """The times of a store job, in seconds, and its bounds; as shipped those of `services/limits.py`.

    `back_off_seconds` is the wait before a lost association is opened anew, within a run. `give_up_seconds` count from the
    submission, or from when a failed job was submitted again.
    """

    back_off_seconds: float = STORE_BACK_OFF_SECONDS
    turn_seconds: float = STORE_TURN_SECONDS
    write_seconds: float = STORE_WRITE_SECONDS
    give_up_seconds: float = STORE_GIVE_UP_SECONDS
    portion: int = STORE_PORTION


class StoreJob:
    """The job kind `store`; `store_submission.submit_store` puts such jobs in."""

    def __init__(
        self,
        archive: ArchiveReader,
        peers: PeerBook,
        own: OwnSide,
        *,
        options: StoreOptions | None = None,
        clock: Callable[[], str] = utc_now,
    ) -> None:
        """Take the archive whose instances are sent, the peers, and what we are to them."""
        self.archive = archive
        self.peers = peers
        self.own = own
        self.options = options or StoreOptions()
        self.clock = clock

    @property
    def name(self) -> str:
        """The kind, as jobs are submitted with it."""
        return JOB_KIND

    @property
    def concludes_cancellation(self) -> bool:
        """A cancelled job has nothing to conclude: what was stored is stored, the rest stays open."""
        return False

    async def run(self, run: JobRun) -> Ending:
        """Send what is open."""
        peer = await run.in_thread(self._peer_of, run.job)
        if peer is None:
            return Failed(
                f"there is no peer {run.job.peer} any more: add it again and submit the job again, or cancel it"
            )
        if not peer.is_reachable:
            return Failed(
                f"nobody said where the peer {peer.name} is called: it needs ae_title, host and port"
            )
        await run.in_thread(_reopen, run)
        try:
            tls = await self.own.tls_for(peer)
        except AssociationError as error:
            return TryAgain(str(error))
        turn = _Turn(self, run, peer, tls)
        await turn.send()
        return await run.in_thread(turn.conclude)

    def _peer_of(self, job: Job) -> Peer | None:
        return peer_in(job.arguments) or self.peers.find(job.peer)


def _reopen(run: JobRun) -> None:
    """Begin a job that had come to its end, and was submitted again, with what failed."""
    checkpoint = dict(run.job.checkpoint)
    if not checkpoint.pop("is_closed", False):
        return
    with run.write() as transaction:
        store_items.reopen_failed(transaction, run.job.job_key)
        done = store_items.count_outcomes(transaction.connection, run.job.job_key)[STORED]
        run.progress(transaction, done=done, checkpoint={**checkpoint, "since": transaction.at, "lost": {}})


@dataclass(slots=True, kw_only=True)
class _News:
    """What happened to an item and is not written down yet."""

    planned: PlannedItem
    outcome: Outcome


class _Turn:
    """One run: from the first open item until all were tried once, the peer is not to be had, or others are to have it.

    It is its own observer of the sending.
    """

    def __init__(self, kind: StoreJob, run: JobRun, peer: Peer, tls: TLSContext | None) -> None:
        self._kind = kind
        self._run = run
        self._peer = peer
        self._database = kind.archive.database
        self._destination = Destination(
            ae_title=peer.ae_title or "", host=peer.host or "", port=peer.port or 0
        )
        self._options = SendOptions(
            calling_ae_title=kind.own.ae_title_for(peer),
            retries=STORE_RETRIES,
            back_off_seconds=kind.options.back_off_seconds,
            timeouts=timeouts_of(peer),
            tls=tls,
            waits_for_resources=False,
        )
        self._stop = asyncio.Event()
        self._has_news = asyncio.Event()
        self._news: deque[_News] = deque()
        self._failed: list[JobItem] = []
        self._on_the_way: dict[str, PlannedItem] = {}
        self._suspects: list[_News] = []
        self._answered = 0
        self._gives_way = False
        self._error: AssociationError | None = None
        self._words = ""

    # Sending, on the event loop.

    async def send(self) -> None:
        """Send what is open, portion by portion."""
        after = -1
        while not self._stop.is_set() and self._error is None:
            portion = await self._run.in_thread(self._look_up, after)
            if portion.last_position is None:
                return
            after = portion.last_position
            self._failed += portion.failed
            self._on_the_way = {planned.file.path: planned for planned in portion.planned}
            await self._send_portion(portion)

    async def _send_portion(self, portion: Portion) -> None:
        files = [planned.file for planned in portion.planned]
        sending = asyncio.ensure_future(send_files(files, self._destination, self._options, self, self._stop))
        writing = asyncio.ensure_future(self._write_down_from_time_to_time())
        watching = asyncio.ensure_future(self._watch_lane())
        try:
            await asyncio.wait({sending, writing}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                writing.result()  # it raises: nothing of this can be written down
            self._error = sending.result()
        finally:
            for task in (sending, writing, watching):
                task.cancel()
            await asyncio.gather(sending, writing, watching, return_exceptions=True)
            # Not by `run.in_thread`, which begins nothing more when the run has to end: what was answered was answered.
            await asyncio.to_thread(self._write_down)

    async def _write_down_from_time_to_time(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            await self._run.in_thread(self._write_down)
            await asyncio.sleep(self._kind.options.write_seconds)

    async def _watch_lane(self) -> None:
        """Make way when others wait for the same peer: a report must not wait for an hour of images."""
        while not self._gives_way:
            await asyncio.sleep(self._kind.options.turn_seconds)
            if await self._run.in_thread(self._others_wait):
                self._gives_way = True
                self._stop.set()

    def sent(self, count: int) -> None:
        """Do nothing: instances are counted, not bytes."""

    def decided(self, outcome: Outcome) -> None:
        """Take what became of an instance."""
        if outcome.status is not None:
            self._answered += 1
        if outcome.may_pass:
            self._words = outcome.words
            if outcome.status is not None or not outcome.attempts:
                self._stop.set()  # it is out of resources, or gone: so it would be for the next one
        self._news.append(_News(planned=self._on_the_way[outcome.file.path], outcome=outcome))
        self._has_news.set()

    def notice(self, words: str) -> None:
        """Log that an association was lost, or the like."""
        log.warning("store", what=words, job=self._run.job.job_id, peer=self._peer.name)

    # Rows, in threads.

    def _look_up(self, after: int) -> Portion:
        with self._database.read() as connection:
            return store_items.next_portion(
                connection, self._kind.archive.root, self._run.job.job_key, after, self._kind.options.portion
            )

    def _others_wait(self) -> bool:
        job = self._run.job
        if not job.lane:
            return False
        query = select(jobs.c.job_key).where(
            text(WAITING),
            jobs.c.lane == job.lane,
            jobs.c.due_at <= self._kind.clock(),
            jobs.c.job_key != job.job_key,
        )
        with self._database.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def _write_down(self) -> None:
        """Write what happened. What cannot be written stays; the run ends by it, and another one sends it again."""
        news = [self._news.popleft() for _ in range(len(self._news))]
        failed, self._failed = self._failed, []
        items = failed + [item for one in news if (item := self._item_of(one)) is not None]
        if not items:
            return
        done = self._run.job.items_done + sum(item.outcome != OPEN for item in items)
        with self._run.write() as transaction:
            for number, item in enumerate(items):
                if item.outcome != OPEN:
                    items[number] = replace(item, done_at=transaction.at)
            self._run.progress(transaction, done=done, items=items)

    def _item_of(self, news: _News) -> JobItem | None:
        """Return an item as it is to be written; None where nothing is known of it that its row should tell."""
        planned, outcome = news.planned, news.outcome
        item = JobItem(position=planned.position, name=outcome.file.sop_instance_uid, code=outcome.status)
        if outcome.result is not Result.FAILED:
            return replace(
                item, outcome=STORED, words=store_items.stored_words(planned.version, outcome.words)
            )
        if outcome.may_pass:
            if outcome.status is None and outcome.attempts > STORE_RETRIES:
                self._suspects.append(news)
            return replace(item, words=outcome.words) if outcome.attempts else None
        if outcome.status is None and outcome.attempts:
            return self._unreadable(item, planned, outcome)
        return replace(item, outcome=FAILED, words=outcome.words)

    def _unreadable(self, item: JobItem, planned: PlannedItem, outcome: Outcome) -> JobItem:
        """Say what became of an instance whose file could not be sent to its end: it may be another's by now."""
        with self._database.read() as connection:
            current = store_items.current_versions(connection, [item.name]).get(item.name)
            if current is None:
                return replace(
                    item, outcome=FAILED, words=store_items.words_on_missing(connection, item.name)
                )
        if current.version_key != planned.version.version_key:
            return replace(item, words="another version of it became current while it was sent")
        words = outcome.words
        if not words.startswith(UNCONVERTIBLE):
            log.error("error", what="an instance cannot be sent", path=current.path, why=words)
            words += "; `stowkeeper verify` looks after it"
        return replace(item, outcome=FAILED, words=words)

    # The end, in a thread.

    def conclude(self) -> Ending:
        """Say how the run ended, and ask for commitment when all is decided."""
        self._settle_suspects()
        with self._database.read() as connection:
            counted = store_items.count_outcomes(connection, self._run.job.job_key)
        log.info(
            "store",
            what="ended" if not counted[OPEN] else "not at its end",
            job=self._run.job.job_id,
            peer=self._peer.name,
            stored=counted[STORED],
            failed=counted[FAILED],
            left=counted[OPEN],
        )
        if not counted[OPEN]:
            return self._end(counted[STORED], counted[FAILED])
        if self._gives_way and not self._words and self._error is None:
            return NextStep(self._run.job.step, self._run.job.lane, due_in_seconds=STORE_PASS_ON_SECONDS)
        words = self._why_not(counted[OPEN])
        checkpoint = self._run.job.checkpoint
        since = checkpoint.get("since", self._run.job.created_at)
        if self._kind.clock() >= later(since, self._kind.options.give_up_seconds):
            with self._run.write() as transaction:
                store_items.fail_open(transaction, self._run.job.job_key, f"given up: {words}")
                total = counted[OPEN] + counted[STORED] + counted[FAILED]
                self._run.progress(transaction, done=total)
            return self._end(counted[STORED], counted[FAILED] + counted[OPEN])
        # A report would not reach such a peer either; one that answers and is out of resources may well take one.
        return TryAgain(
            words, lane_is_blocked=isinstance(self._error, PeerUnreachableError | PeerTimeoutError)
        )

    def _why_not(self, left: int) -> str:
        if self._error is not None:
            return str(self._error)
        instances = "1 instance was" if left == 1 else f"{left} instances were"
        why = self._words or "another version became current while it was sent"
        return f"{instances} not stored yet: {why}"

    def _settle_suspects(self) -> None:
        """Count the runs in which an instance had no answer however often it was sent; after some it has failed.

        A run counts when others were answered in it, or when nothing is open but such instances: then it is not the peer
        that is gone.
        """
        if not self._suspects:
            return
        job_key, checkpoint = self._run.job.job_key, self._run.job.checkpoint
        before: JSON = checkpoint.get("lost", {})
        with self._database.read() as connection:
            still_open = store_items.open_positions(
                connection, job_key, len(before) + len(self._suspects) + 1
            )
        if not self._answered and any(str(position) not in before for position in still_open):
            return
        times = dict(before)
        hopeless: list[JobItem] = []
        for news in self._suspects:
            key = str(news.planned.position)
            if key not in times and len(times) >= STORE_SUSPECTS_MAX:
                continue
            times[key] = times.get(key, 0) + 1
            if times[key] >= STORE_LOST_RUNS_MAX:
                del times[key]
                words = f"{news.outcome.words} It was so however often it was sent."
                name = news.outcome.file.sop_instance_uid
                hopeless.append(
                    JobItem(position=news.planned.position, name=name, outcome=FAILED, words=words)
                )
        done = self._run.job.items_done + len(hopeless)
        with self._run.write() as transaction:
            items = [replace(item, done_at=transaction.at) for item in hopeless]
            self._run.progress(transaction, done=done, checkpoint={**checkpoint, "lost": times}, items=items)

    def _end(self, stored: int, failed: int) -> Ending:
        """End the job, all of whose items are decided."""
        why_not_asked = self._ask(stored) if self._run.job.arguments.get("commit") else ""
        if not failed and not why_not_asked:
            return Finished("1 instance stored" if stored == 1 else f"{stored} instances stored")
        with self._database.read() as connection:
            reasons = store_items.words_of_failures(connection, self._run.job.job_key, _REASONS_NAMED + 1)
        with self._run.write() as transaction:
            self._run.progress(transaction, checkpoint={**self._run.job.checkpoint, "is_closed": True})
        if not failed:
            return Failed(f"{stored} stored, and commitment could not be asked for: {why_not_asked}")
        named = "; ".join(f"{words} ({times})" for words, times in reasons[:_REASONS_NAMED])
        more = "; and more" if len(reasons) > _REASONS_NAMED else ""
        not_asked = f". Commitment could not be asked for: {why_not_asked}" if why_not_asked else ""
        total = stored + failed
        what = "the instance" if total == 1 else f"{failed} of {total} instances"
        was = "was" if failed == 1 else "were"
        return Failed(f"{what} {was} not stored: {named}{more}{not_asked}")

    def _ask(self, stored: int) -> str:
        """Ask the peer to commit what it stored, in as many transactions as that takes; return why it cannot be asked.

        Each is in the checkpoint in the transaction that makes it, so a run that dies in between asks for none twice.
        """
        run = self._run
        if not stored or run.job.checkpoint.get("asked_for") == stored:
            return ""
        while True:
            checkpoint = dict(run.job.checkpoint)
            after = checkpoint.pop("asked_after", None)
            with self._database.read() as connection:
                items = store_items.stored_items(
                    connection, run.job.job_key, -1 if after is None else after, REFERENCES_PER_REQUEST_MAX
                )
                references, version_keys = store_items.references_to(connection, items)
            is_last = len(items) < REFERENCES_PER_REQUEST_MAX
            uids = [] if after is None else checkpoint["transaction_uids"]
            try:
                with run.write() as transaction:
                    if references:
                        commitment = ask(
                            transaction,
                            self._peer,
                            references,
                            own_ae_title=self._kind.own.ae_title,
                            created_by=run.job.created_by,
                            version_keys=version_keys,
                            terms=AskTerms.of_job(run.job.arguments),
                        )
                        uids = [*uids, commitment.transaction_uid]
                        checkpoint |= {"transaction_uid": uids[0], "transaction_uids": uids}
                    if is_last:
                        checkpoint["asked_for"] = stored
                    else:
                        checkpoint["asked_after"] = items[-1].position
                    run.progress(transaction, checkpoint=checkpoint)
            except CannotAskError as error:
                return str(error)
            if is_last:
                return ""
