"""The jobs that deliver events to a target: `deliver` follows the changes, `replay` tells of former ones once more.

The events of one study are delivered one after the other, in their order; those of different studies beside each other. One that
fails holds up its study alone: what is delivered behind it is remembered, up to BEYOND_MAX, and the cursor stays before it.
Where the process dies an event may come a second time, with the same id, and none is left out.

While many instances arrive a delivery rests between its portions (`services.resting`).
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy import update

from stowkeeper.archive.changes import newest_change
from stowkeeper.database.engine import Database, Transaction, utc_now
from stowkeeper.database.schema import consumers
from stowkeeper.jobs.job import JSON, JobRequest
from stowkeeper.jobs.kind import Ending, Finished, TryAgain
from stowkeeper.jobs.run import JobRun
from stowkeeper.jobs.threads import Threads
from stowkeeper.services.events.feed import Event, events_after
from stowkeeper.services.events.limits import (
    BEYOND_MAX,
    DELIVERY_EVENTS,
    DELIVERY_SECONDS,
    GIVE_UP_TRIES_AN_HOUR,
    RETRY_SECONDS_FIRST,
    RETRY_SECONDS_MAX,
)
from stowkeeper.services.events.targets import DeliveryError, EventTarget, Targets, Way
from stowkeeper.services.resting import Rests

log = structlog.get_logger("stowkeeper.events")

DELIVER: Final = "deliver"
REPLAY: Final = "replay"

_SECONDS_AN_HOUR: Final = 3600.0
_SEQ_MAX: Final = (1 << 63) - 1


_CONSUMER: Final = "target:"


def consumer_of(target_name: str) -> str:
    """Return the name under which the cursor of a target is kept."""
    return f"{_CONSUMER}{target_name}"


def target_of(consumer_name: str) -> str:
    """Return the target that a cursor is of; empty where it is of none."""
    return consumer_name.removeprefix(_CONSUMER) if consumer_name.startswith(_CONSUMER) else ""


def deliver_request(target_name: str, cursor: int) -> JobRequest:
    """Return the job that delivers what follows a change."""
    return _request(DELIVER, target_name, {}, {"seq": cursor}, "events")


def replay_request(
    target_name: str, *, after: int, until: int, study_instance_uid: str = "", created_by: str
) -> JobRequest:
    """Return a job that delivers the events after one change, up to another, once more; or those of one study."""
    arguments = {"until": until, "study_instance_uid": study_instance_uid}
    return _request(REPLAY, target_name, arguments, {"seq": after}, created_by)


def _request(kind: str, target_name: str, arguments: JSON, checkpoint: JSON, created_by: str) -> JobRequest:
    return JobRequest(
        kind=kind,
        arguments={"target": target_name, **{name: value for name, value in arguments.items() if value}},
        subject=target_name,
        lane=f"events:{target_name}",
        created_by=created_by,
        checkpoint=checkpoint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Portion:
    """The next events of a target. `seqs` are the numbers of all that were found, those delivered before, too.

    `reaches_to` is the number that the cursor may go on to when all of them are dealt with. `held` are the numbers of events
    that failed just now, for which their studies were left out.
    """

    events: Sequence[Event]
    seqs: Sequence[int]
    reaches_to: int
    held: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Came:
    """What became of some events of one study: the numbers of those delivered, and the failure of the one behind them.

    `processor_seconds` is the time that a processor took for them here.
    """

    delivered: Sequence[int]
    failed: Event | None = None
    error: DeliveryError | None = None
    processor_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failing:
    """An event that fails: since when, and how often it did."""

    since: str
    times: int


class DeliveryJob:
    """The job kinds `deliver` and `replay`."""

    def __init__(self, kind: str, database: Database, targets: Targets, rests: Rests) -> None:
        self._kind = kind
        self._database = database
        self._targets = targets
        self._rests = rests

    @property
    def name(self) -> str:
        """The kind, as jobs are submitted with it."""
        return self._kind

    @property
    def concludes_cancellation(self) -> bool:
        """A cancelled delivery has nothing to conclude: the cursor says how far it came."""
        return False

    async def run(self, run: JobRun) -> Ending:
        """Deliver until nothing is left, or something fails."""
        name = str(run.job.arguments.get("target", ""))
        target = self._targets().get(name)
        if target is None:
            return Finished(f"the settings name no target {name} any more")
        turn = _Turn(run, self._database, target, self._rests, is_live=self._kind == DELIVER)
        try:
            # In one call: who is told to stop writes down what was delivered before that.
            while True:
                ending = await run.in_thread(turn.deliver_portion, threads=turn.leading)
                if ending is not None:
                    return ending
                await asyncio.sleep(turn.rest_seconds)
        finally:
            turn.close()


class _Turn:
    """One run of a job for a target."""

    def __init__(
        self, run: JobRun, database: Database, target: EventTarget, rests: Rests, *, is_live: bool
    ) -> None:
        self._run = run
        self._database = database
        self._target = target
        self._is_live = is_live
        self._threads = Threads(f"events of {target.name}", target.at_once)
        self.leading = Threads(f"events to {target.name}", 1)
        """The thread that waits for those: endpoints that hang keep no other job from the engine's."""
        self._idle: list[Way] = []
        self._failures_in_a_row = 0
        # What failed: the number of its event, with its subject, and when by the monotonic clock it is tried again.
        self._held: dict[int, tuple[str, float]] = {}
        self._rests = rests
        self.rest_seconds = 0.0
        """How long to wait before the next portion."""

    def close(self) -> None:
        """Let go of the ways that nobody uses any more, and of the threads."""
        self.leading.close()
        self._threads.close()
        while self._idle:
            self._idle.pop().close()

    def deliver_portion(self) -> Ending | None:
        """Deliver the next events, and write down how far it came; return how the run ends, None when it goes on. Blocks."""
        began = time.thread_time()
        portion = self.read()
        came = self.deliver(portion.events)
        ending = self.note(portion, came)
        spent = time.thread_time() - began + sum(one.processor_seconds for one in came)
        self.rest_seconds = self._rests.rest_after(spent)
        return ending

    # What is next.

    def read(self) -> _Portion:
        """Return the next events, but none of what failed just now."""
        arguments, checkpoint = self._run.job.arguments, self._run.job.checkpoint
        cursor = int(checkpoint.get("seq", 0))
        beyond = _numbers(checkpoint.get("beyond"))
        until = int(arguments.get("until", _SEQ_MAX))
        if len(beyond) >= BEYOND_MAX:
            until = max(beyond)  # what was not delivered before that, and nothing new
        now = time.monotonic()
        held = {seq: subject for seq, (subject, again_at) in self._held.items() if again_at > now}
        with self._database.read() as connection:
            newest = newest_change(connection)
            newest = min(newest, until)
            limit = DELIVERY_EVENTS + len(beyond)
            found = events_after(
                connection,
                cursor,
                limit,
                kinds=self._target.kinds,
                study_instance_uid=str(arguments.get("study_instance_uid", "")),
                without=set(held.values()),
            )
        events = [event for event in found if event.seq <= newest]
        is_all = len(events) < limit
        return _Portion(
            events=[event for event in events if event.seq not in beyond],
            seqs=[event.seq for event in events],
            reaches_to=max(newest if is_all else events[-1].seq, cursor),
            held=frozenset(held),
        )

    # Delivering.

    def deliver(self, events: Sequence[Event]) -> list[_Came]:
        """Deliver events, each study's in order and the studies beside each other; return what became of each study's."""
        studies: defaultdict[str, list[Event]] = defaultdict(list)
        for event in events:
            studies[event.subject].append(event)
        self._failures_in_a_row = 0
        end = time.monotonic() + DELIVERY_SECONDS
        works = [self._threads.submit(partial(self._deliver_study, some, end)) for some in studies.values()]
        return [work.result() for work in works]

    def _deliver_study(self, events: Sequence[Event], end: float) -> _Came:
        """Deliver the events of one study until one fails, or it is time to write down how far it came.

        Where one failure follows the other nothing is begun any more: the target is away, and not one study at fault.
        """
        if self._failures_in_a_row > self._target.at_once:
            return _Came(delivered=())
        began = time.thread_time()
        try:
            way = self._idle.pop()
        except IndexError:
            way = self._target.open_way()
        try:
            came = self._deliver_by(way, events, end)
        finally:
            self._idle.append(way)
        return replace(came, processor_seconds=time.thread_time() - began)

    def _deliver_by(self, way: Way, events: Sequence[Event], end: float) -> _Came:
        is_over = self._run.stopping.is_set
        delivered: list[int] = []
        for event in events:
            if is_over() or time.monotonic() > end:
                break
            try:
                way.deliver(event, is_over)
            except DeliveryError as error:
                self._failures_in_a_row += 1
                return _Came(delivered=delivered, failed=event, error=error)
            except Exception as fault:
                # It must not keep the target from all other events for ever.
                log.exception("error", what="an event met a fault", target=self._target.name, seq=event.seq)
                words = DeliveryError(f"a fault: {type(fault).__name__}")
                return _Came(delivered=delivered, failed=event, error=words)
            self._failures_in_a_row = 0
            delivered.append(event.seq)
        return _Came(delivered=delivered)

    # Writing down.

    def note(self, portion: _Portion, came: Sequence[_Came]) -> Ending | None:
        """Write down how far it came, and return how the run ends; None when it goes on."""
        checkpoint = self._run.job.checkpoint
        done = _numbers(checkpoint.get("beyond"))
        failing = _failing(checkpoint.get("failing"))
        delivered = sum(len(one.delivered) for one in came)
        for one in came:
            done.update(one.delivered)
            if one.failed is not None and one.error is not None:
                self._note_failure(one.failed, one.error, failing, done)
        # One that was not found any more is none: the target is told of other kinds now.
        looked_through = range(portion.reaches_to + 1)
        still = {*portion.seqs, *portion.held}
        failing = {
            seq: fails
            for seq, fails in failing.items()
            if seq not in done and (seq in still or seq not in looked_through)
        }
        cursor = portion.reaches_to
        for before, seq in zip((int(checkpoint.get("seq", 0)), *portion.seqs), portion.seqs, strict=False):
            if seq not in done:
                cursor = before
                break
        cursor = min([cursor, *(seq - 1 for seq in failing)])
        after: JSON = {
            "seq": cursor,
            "beyond": sorted(seq for seq in done if seq > cursor),
            "failing": {str(seq): asdict(fails) for seq, fails in failing.items()},
        }
        if after != {"seq": 0, "beyond": [], "failing": {}, **checkpoint}:
            self._write(after, delivered)
        errors = [one.error for one in came if one.error is not None]
        if portion.events and (delivered or not errors):
            return None
        if not failing:
            return Finished()
        words = str(errors[0]) if errors else "something fails, and everything behind it waits"
        asked = [error.again_in_seconds for error in errors if error.again_in_seconds is not None]
        return TryAgain(words, in_seconds=max(asked) if asked else min(map(_pause, failing.values())))

    def _note_failure(
        self, event: Event, error: DeliveryError, failing: dict[int, _Failing], done: set[int]
    ) -> None:
        """Remember that an event failed; one that did so for too long is passed by."""
        before = failing.get(event.seq, _Failing(since=utc_now(), times=0))
        fails = replace(before, times=before.times + 1)
        failing[event.seq] = fails
        self._held[event.seq] = (event.subject, time.monotonic() + _pause(fails))
        age = (datetime.now(UTC) - datetime.fromisoformat(fails.since)).total_seconds()
        hours = self._target.give_up_hours
        if age < hours * _SECONDS_AN_HOUR or fails.times < hours * GIVE_UP_TRIES_AN_HOUR:
            return
        done.add(event.seq)
        del self._held[event.seq]
        log.error(
            "error",
            what="an event was passed by: it could not be delivered",
            target=self._target.name,
            seq=event.seq,
            kind=str(event.kind),
            study_instance_uid=event.study_instance_uid,
            why=str(error),
        )

    def _write(self, checkpoint: JSON, delivered: int) -> None:
        run = self._run
        with run.write() as transaction:
            run.progress(transaction, done=run.job.items_done + delivered, checkpoint=checkpoint)
            if self._is_live:
                move_cursor(transaction, self._target.name, checkpoint["seq"])


def _pause(fails: _Failing) -> float:
    """Return how long to wait with an event: longer with each failure."""
    return min(RETRY_SECONDS_FIRST * 2.0 ** min(fails.times - 1, 16), RETRY_SECONDS_MAX)


def _failing(value: object) -> dict[int, _Failing]:
    return {int(seq): _Failing(**fails) for seq, fails in value.items()} if isinstance(value, dict) else {}


def move_cursor(transaction: Transaction, target_name: str, seq: int) -> None:
    """Write how far a target was told."""
    row = update(consumers).where(consumers.c.name == consumer_of(target_name))
    transaction.execute(row.values(seq=seq))


def _numbers(value: object) -> set[int]:
    return {int(number) for number in value} if isinstance(value, list) else set()
