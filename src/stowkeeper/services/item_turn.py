"""What all jobs do alike that send instances of the archive somewhere: `store` to a peer, `stow` to an origin server.

    open ──taken──► stored         the words name the receipt of the version that was sent
     │ ────refused, unreadable, gone──► failed
     └─────for now: out of resources, no answer, nobody there──► open, and the job tries again

A run that ended at an instance, since there was no room for it or the other side was busy, is followed by one that begins behind
it, and comes to it last: one with which it is always so holds up no other.

What was answered is written down while the rest is on its way, so that a run that dies sends again only what was not
answered, or was so within STORE_WRITE_SECONDS. A run sends the current version of each instance as it finds it; bytes that
are not those that were received are not sent. Receipts stay here: what goes out is the data set.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

import structlog
from sqlalchemy import Connection, select, text

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Transaction, utc_now
from stowkeeper.database.schema import WAITING, jobs
from stowkeeper.jobs.job import JSON, JobItem
from stowkeeper.jobs.kind import Ending, Failed, Finished, NextStep, TryAgain
from stowkeeper.jobs.limits import PAGE_MAX
from stowkeeper.jobs.run import JobRun
from stowkeeper.jobs.times import later
from stowkeeper.services import store_items
from stowkeeper.services.item_outcomes import ItemOutcomes
from stowkeeper.services.limits import (
    STORE_BACK_OFF_SECONDS,
    STORE_GIVE_UP_SECONDS,
    STORE_LOST_RUNS_MAX,
    STORE_PASS_ON_SECONDS,
    STORE_PORTION,
    STORE_SUSPECTS_MAX,
    STORE_TURN_SECONDS,
    STORE_WRITE_SECONDS,
)
from stowkeeper.services.send_source import UNCONVERTIBLE
from stowkeeper.services.store_items import FAILED, OPEN, STORED, PlannedItem, Portion

log = structlog.get_logger("stowkeeper.store")

REASONS_NAMED: Final = 3
"""Reasons that the words of a failed job name: what else there is the items tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """The times of such a job, in seconds, and its bounds; as shipped those of `services/limits.py`.

    `back_off_seconds` is the wait before a lost association is opened anew, within a run. `give_up_seconds` count from the
    submission, or from when a failed job was submitted again.
    """

    back_off_seconds: float = STORE_BACK_OFF_SECONDS
    turn_seconds: float = STORE_TURN_SECONDS
    write_seconds: float = STORE_WRITE_SECONDS
    give_up_seconds: float = STORE_GIVE_UP_SECONDS
    portion: int = STORE_PORTION


class End(Enum):
    """What became of an instance in a run."""

    STORED = auto()
    FAILED = auto()
    """It was refused for good."""
    UNREADABLE = auto()
    """Its file could not be sent to its end."""
    LATER = auto()
    """It was refused for now, or not tried as often as it may be."""
    LOST = auto()
    """It had no answer however often it was sent: the fault may be its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What happened to an item and is not written down yet. `attempts` counts how often it was sent."""

    planned: PlannedItem
    end: End
    words: str = ""
    code: int | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What ended the sending for everything that is open. `in_seconds` is when to try again, None the usual back-off."""

    words: str
    lane_is_blocked: bool = False
    in_seconds: float | None = None


def reopen(run: JobRun, outcomes: ItemOutcomes | None) -> None:
    """Begin a job that had come to its end, and was submitted again, with what failed."""
    checkpoint = dict(run.job.checkpoint)
    if not checkpoint.pop("is_closed", False):
        return
    with run.write() as transaction:
        if outcomes is not None:
            for some in _pages_of(transaction, run.job.job_key, FAILED):
                opened = [replace(item, outcome=OPEN, code=None, words="", done_at=None) for item in some]
                outcomes.note(transaction, run.job, opened)
        store_items.reopen_failed(transaction, run.job.job_key)
        counted = store_items.count_outcomes(transaction.connection, run.job.job_key)
        done = counted.total() - counted[OPEN]
        run.progress(transaction, done=done, checkpoint={**checkpoint, "since": transaction.at, "lost": {}})
    if outcomes is not None:
        outcomes.noted(run.job)


class ItemTurn:
    """One run: from the first open item until all were tried once, the other side is not to be had, or others are to have it.

    What sends is in the subclasses: `deliver` sends a portion and tells `news` of each instance.
    """

    def __init__(
        self,
        run: JobRun,
        archive: ArchiveReader,
        *,
        to: str,
        options: StoreOptions,
        outcomes: ItemOutcomes | None = None,
        clock: Callable[[], str] = utc_now,
    ) -> None:
        """Take the run, and the name of who is sent `to`."""
        self._run = run
        self._archive = archive
        self._database = archive.database
        self._to = to
        self._options = options
        self._outcomes = outcomes
        self._clock = clock
        self._stop = asyncio.Event()
        self._has_news = asyncio.Event()
        self._news: deque[News] = deque()
        self._failed: list[JobItem] = []
        self._suspects: list[News] = []
        self._answered = 0
        self._held_up_at: int | None = None
        self._gives_way = False
        self._trouble: Trouble | None = None
        self._words = ""

    # For subclasses.

    async def deliver(self, portion: Portion) -> None:
        """Send what is planned of a portion until `_stop` is set; note what keeps the rest from being sent as `_trouble`."""
        raise NotImplementedError

    def ask(self, stored: int) -> str:
        """Ask for what is wanted beyond the sending, when all is decided; return why that cannot be."""
        del stored
        return ""

    # Sending, on the event loop.

    async def send(self) -> None:
        """Send what is open, portion by portion, from behind the instance at which the run before had to end."""
        held_up_at = self._run.job.checkpoint.get("held_up_at", -1)
        await self._send_between(held_up_at, None)
        if held_up_at >= 0:
            await self._send_between(-1, held_up_at)

    async def _send_between(self, after: int, last: int | None) -> None:
        while not self._stop.is_set() and self._trouble is None:
            portion = await self._run.in_thread(self._look_up, after, last)
            if portion.last_position is None:
                return
            after = portion.last_position
            self._failed += portion.failed
            await self._send_portion(portion)

    async def _send_portion(self, portion: Portion) -> None:
        sending = asyncio.ensure_future(self.deliver(portion))
        writing = asyncio.ensure_future(self._write_down_from_time_to_time())
        watching = asyncio.ensure_future(self._watch_lane())
        try:
            await asyncio.wait({sending, writing}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                writing.result()  # it raises: nothing of this can be written down
            sending.result()
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
            await asyncio.sleep(self._options.write_seconds)

    async def _watch_lane(self) -> None:
        """Make way when others wait for the same lane: a report must not wait for an hour of images."""
        while not self._gives_way:
            await asyncio.sleep(self._options.turn_seconds)
            if await self._run.in_thread(self._others_wait):
                self._gives_way = True
                self._stop.set()

    def notice(self, words: str) -> None:
        """Log that a connection was lost, or the like."""
        log.warning("store", what=words, job=self._run.job.job_id, peer=self._to)

    # Rows, in threads.

    def _look_up(self, after: int, last: int | None) -> Portion:
        with self._database.read() as connection:
            return store_items.next_portion(
                connection,
                self._archive.root,
                self._run.job.job_key,
                after,
                last,
                self._options.portion,
                self._wanted if self._outcomes is not None else None,
            )

    def _wanted(self, connection: Connection, positions: Sequence[int]) -> Mapping[int, int | None]:
        return {} if self._outcomes is None else self._outcomes.wanted(connection, self._run.job, positions)

    def _others_wait(self) -> bool:
        job = self._run.job
        if not job.lane:
            return False
        query = select(jobs.c.job_key).where(
            text(WAITING),
            jobs.c.lane == job.lane,
            jobs.c.due_at <= self._clock(),
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
        self._write_items(items, done=done)

    def _write_items(self, items: Sequence[JobItem], *, done: int, checkpoint: JSON | None = None) -> None:
        """Write items with the time at which they were done, and tell who has to know of them."""
        with self._run.write() as transaction:
            dated = [
                item if item.outcome == OPEN else replace(item, done_at=transaction.at) for item in items
            ]
            self._run.progress(transaction, done=done, checkpoint=checkpoint, items=dated)
            if self._outcomes is not None and dated:
                self._outcomes.note(transaction, self._run.job, dated)
        if self._outcomes is not None and dated:
            self._outcomes.noted(self._run.job)

    def _item_of(self, news: News) -> JobItem | None:
        """Return an item as it is to be written; None where nothing is known of it that its row should tell."""
        planned = news.planned
        item = JobItem(position=planned.position, name=planned.file.sop_instance_uid, code=news.code)
        match news.end:
            case End.STORED:
                words = store_items.stored_words(planned.version, news.words)
                return replace(item, outcome=STORED, words=words)
            case End.LATER | End.LOST:
                if news.end is End.LOST:
                    self._suspects.append(news)
                elif news.attempts:
                    self._held_up_at = planned.position
                return replace(item, words=news.words) if news.attempts else None
            case End.UNREADABLE:
                return self._unreadable(item, planned, news.words)
            case _:
                return replace(item, outcome=FAILED, words=news.words)

    def _unreadable(self, item: JobItem, planned: PlannedItem, words: str) -> JobItem:
        """Say what became of an instance whose file could not be sent to its end: it may be another's by now."""
        with self._database.read() as connection:
            current = store_items.current_versions(connection, [item.name]).get(item.name)
            if current is None:
                return replace(
                    item, outcome=FAILED, words=store_items.words_on_missing(connection, item.name)
                )
        if current.version_key != planned.version.version_key:
            return replace(item, words="another version of it became current while it was sent")
        if not words.startswith(UNCONVERTIBLE):
            log.error("error", what="an instance cannot be sent", path=current.path, why=words)
            words += "; `stowkeeper verify` looks after it"
        return replace(item, outcome=FAILED, words=words)

    # The end, in a thread.

    def conclude(self) -> Ending:
        """Say how the run ended, and ask for what is wanted when all is decided."""
        self._settle_suspects()
        self._note_where_it_was_held_up()
        with self._database.read() as connection:
            counted = store_items.count_outcomes(connection, self._run.job.job_key)
        log.info(
            "store",
            what="ended" if not counted[OPEN] else "not at its end",
            job=self._run.job.job_id,
            peer=self._to,
            stored=counted[STORED],
            failed=counted[FAILED],
            left=counted[OPEN],
        )
        if not counted[OPEN]:
            return self._end(counted[STORED], counted[FAILED])
        if self._gives_way and not self._words and self._trouble is None:
            return NextStep(self._run.job.step, self._run.job.lane, due_in_seconds=STORE_PASS_ON_SECONDS)
        trouble = self._trouble or Trouble(words=self._why_not(counted[OPEN]))
        checkpoint = self._run.job.checkpoint
        since = checkpoint.get("since", self._run.job.created_at)
        if self._clock() >= later(since, self._options.give_up_seconds):
            self._give_up(f"given up: {trouble.words}", total=counted.total())
            return self._end(counted[STORED], counted[FAILED] + counted[OPEN])
        return TryAgain(trouble.words, trouble.in_seconds, lane_is_blocked=trouble.lane_is_blocked)

    def _give_up(self, words: str, total: int) -> None:
        """Have everything fail that is open."""
        job = self._run.job
        with self._run.write() as transaction:
            if self._outcomes is not None:
                for some in _pages_of(transaction, job.job_key, OPEN):
                    failed = [
                        replace(item, outcome=FAILED, words=item.words or words, done_at=transaction.at)
                        for item in some
                    ]
                    self._outcomes.note(transaction, job, failed)
            store_items.fail_open(transaction, job.job_key, words)
            self._run.progress(transaction, done=total)
        if self._outcomes is not None:
            self._outcomes.noted(job)

    def _why_not(self, left: int) -> str:
        instances = "1 instance was" if left == 1 else f"{left} instances were"
        why = self._words or "another version became current while it was sent"
        return f"{instances} not stored yet: {why}"

    def _note_where_it_was_held_up(self) -> None:
        if self._held_up_at is not None:
            with self._run.write() as transaction:
                checkpoint = {**self._run.job.checkpoint, "held_up_at": self._held_up_at}
                self._run.progress(transaction, checkpoint=checkpoint)

    def _settle_suspects(self) -> None:
        """Count the runs in which an instance had no answer however often it was sent; after some it has failed.

        A run counts when others were answered in it, or when nothing is open but such instances: then it is not the other
        side that is gone.
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
                words = f"{news.words} It was so however often it was sent."
                name = news.planned.file.sop_instance_uid
                hopeless.append(
                    JobItem(position=news.planned.position, name=name, outcome=FAILED, words=words)
                )
        done = self._run.job.items_done + len(hopeless)
        self._write_items(hopeless, done=done, checkpoint={**checkpoint, "lost": times})

    def _end(self, stored: int, failed: int) -> Ending:
        """End the job, all of whose items are decided."""
        why_not_asked = self.ask(stored)
        if not failed and not why_not_asked:
            return Finished("1 instance stored" if stored == 1 else f"{stored} instances stored")
        with self._database.read() as connection:
            reasons = store_items.words_of_failures(connection, self._run.job.job_key, REASONS_NAMED + 1)
        # With the end and not before it: a run that was stopped in between has not come to it, and the next one sends nothing again.
        closed = {**self._run.job.checkpoint, "is_closed": True}
        if not failed:
            return Failed(f"{stored} stored, and commitment could not be asked for: {why_not_asked}", closed)
        named = "; ".join(f"{words} ({times})" for words, times in reasons[:REASONS_NAMED])
        more = "; and more" if len(reasons) > REASONS_NAMED else ""
        not_asked = f". Commitment could not be asked for: {why_not_asked}" if why_not_asked else ""
        total = stored + failed
        what = "the instance" if total == 1 else f"{failed} of {total} instances"
        was = "was" if failed == 1 else "were"
        return Failed(f"{what} {was} not stored: {named}{more}{not_asked}", closed)


def _pages_of(transaction: Transaction, job_key: int, outcome: str) -> Iterator[list[JobItem]]:
    """Give the items of a job with an outcome, so many at a time as are in memory without harm."""
    after = -1
    while some := store_items.items_with(transaction.connection, job_key, outcome, after, PAGE_MAX):
        yield some
        after = some[-1].position
