"""The job that stores instances of the archive to an origin server by STOW-RS, each until the server's answer names it.

What it does with its items `item_turn` tells. Stored is what the answer names as stored, and nothing else; it has failed for good
when the answer gives another reason than that there is no room (A7xx), or refuses a request in which it stood alone. A server that
is busy, refuses us, leads elsewhere or is away ends the run, and its lane waits, for as long as it asks by Retry-After.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import utc_now
from stowkeeper.jobs.kind import Ending, Failed, TryAgain
from stowkeeper.jobs.limits import BACK_OFF_SECONDS_FIRST
from stowkeeper.jobs.run import JobRun
from stowkeeper.services.item_outcomes import ItemOutcomes
from stowkeeper.services.item_turn import End, ItemTurn, News, StoreOptions, Trouble, reopen
from stowkeeper.services.limits import (
    STORE_RETRIES,
    STOW_RETRY_SECONDS,
    STOW_STOP_SECONDS,
    STOW_UNKNOWN_MAX,
)
from stowkeeper.services.origin_servers import OriginServer, OriginServerError, open_destination
from stowkeeper.services.store_items import PlannedItem, Portion
from stowkeeper.services.stow_client.answers import Result
from stowkeeper.services.stow_client.options import Cause, Destination, Outcome, StowOptions
from stowkeeper.services.stow_client.sending import StowSending
from stowkeeper.services.stow_submission import JOB_KIND


@dataclass(frozen=True, slots=True, kw_only=True)
class StowJobOptions(StoreOptions):
    """The times of a stow job; as shipped those of `services/limits.py`.

    `retry_seconds` is how long within a run a server is tried again that gave no answer, `back_off_seconds` the first wait before
    that. `stop_seconds` is how long a run that has to end waits for an answer.
    """

    retry_seconds: float = STOW_RETRY_SECONDS
    stop_seconds: float = STOW_STOP_SECONDS


class StowJob:
    """The job kind `stow`; `stow_submission.submit_stow` puts such jobs in."""

    def __init__(
        self,
        archive: ArchiveReader,
        servers: Callable[[], Mapping[str, OriginServer]],
        *,
        options: StowJobOptions | None = None,
        clock: Callable[[], str] = utc_now,
        outcomes: ItemOutcomes | None = None,
    ) -> None:
        """Take the archive whose instances are sent, the origin servers by name, and who is told of the outcomes."""
        self.archive = archive
        self.servers = servers
        self.options = options or StowJobOptions()
        self.clock = clock
        self.outcomes = outcomes

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
        server = self.servers().get(run.job.peer)
        if server is None:
            return Failed(
                f"there is no origin server {run.job.peer} any more: name it in the settings again and submit the job again,"
                " or cancel it"
            )
        await run.in_thread(reopen, run, self.outcomes)
        try:
            destination = await run.in_thread(open_destination, server)
        except OriginServerError as error:
            return TryAgain(str(error), lane_is_blocked=True)
        turn = _Turn(self, run, server, destination)
        await turn.send()
        return await run.in_thread(turn.conclude)


class _Turn(ItemTurn):
    """One run. It is its own observer of the sending, in whose threads it is called."""

    def __init__(self, kind: StowJob, run: JobRun, server: OriginServer, destination: Destination) -> None:
        super().__init__(
            run, kind.archive, to=server.name, options=kind.options, outcomes=kind.outcomes, clock=kind.clock
        )
        self._loop = asyncio.get_running_loop()
        self._destination = destination
        self._stow_options = StowOptions(
            instances=server.instances,
            bytes_max=server.bytes_max,
            parallel=server.parallel,
            seconds=server.seconds,
            retries=STORE_RETRIES,
            retry_seconds=kind.options.retry_seconds,
            back_off_seconds=kind.options.back_off_seconds,
            waits_when_busy=False,
        )
        self._stop_seconds = kind.options.stop_seconds
        self._on_the_way: dict[str, PlannedItem] = {}
        self._unknown_in_a_row = 0
        self._stored = 0

    async def deliver(self, portion: Portion) -> None:
        """Send a portion."""
        self._on_the_way = {planned.file.path: planned for planned in portion.planned}
        files = [planned.file for planned in portion.planned]
        if not files:
            return
        over = asyncio.Event()
        sending = StowSending(
            files, self._destination, self._stow_options, self, lambda: self._on_loop(over.set)
        )
        waits = [asyncio.ensure_future(event.wait()) for event in (over, self._stop)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not over.is_set():
                sending.end("the run gives way")
                await over.wait()
        finally:
            for wait in waits:
                wait.cancel()
            if not over.is_set():
                sending.stop()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), self._stop_seconds)
        ended = sending.finish()
        if ended is None:
            return
        words = self._hide(ended.sentence)
        if ended.is_for_all:
            seconds = self._seconds_to_wait(ended.asked_seconds)
            self._trouble = Trouble(words=words, lane_is_blocked=True, in_seconds=seconds)
        elif not self._stop.is_set():
            self._stop.set()
            self._words = words.removesuffix(".")

    def _seconds_to_wait(self, asked: float | None) -> float | None:
        """Return when to try again, None for the usual back-off; a server that asks for no wait is not called on end.

        One that stored something in this run is there: its waits do not grow.
        """
        least = max(asked or 0.0, BACK_OFF_SECONDS_FIRST)
        return least if self._stored or asked == least else None

    # For the sending, in its threads, one at a time.

    def sent(self, count: int) -> None:
        """Do nothing: instances are counted, not bytes."""

    def notice(self, words: str) -> None:
        """Log that an answer was lost, or the like."""
        super().notice(self._hide(words))

    def settled(self, outcome: Outcome) -> None:
        """Take what became of an instance."""
        end = _end_of(outcome)
        words = self._hide(outcome.words)
        if end is End.LOST:
            words = words if words.endswith(".") else f"{words}."
        self._stored += end is End.STORED
        if end in {End.LATER, End.LOST} and outcome.cause is not Cause.END:
            self._words = words
        if outcome.cause is Cause.ANSWER:
            self._answered += 1
            self._unknown_in_a_row = 0
        elif outcome.cause is Cause.NO_ANSWER:
            self._unknown_in_a_row += 1
            if self._unknown_in_a_row == STOW_UNKNOWN_MAX:
                self._on_loop(self._stop.set)
        self._news.append(
            News(
                planned=self._on_the_way[outcome.file.path],
                end=end,
                words=words,
                code=outcome.reason,
                attempts=outcome.attempts,
            )
        )
        self._on_loop(self._has_news.set)

    def _on_loop(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run was left, and nobody waits
            self._loop.call_soon_threadsafe(function)

    def _hide(self, words: str) -> str:
        credential = self._destination.credential
        return words if credential is None else credential.hidden_in(words)


def _end_of(outcome: Outcome) -> End:
    if outcome.result in {Result.STORED, Result.WARNING}:
        return End.STORED
    if outcome.cause is Cause.FILE:
        return End.UNREADABLE
    if outcome.cause is Cause.NO_ANSWER:
        return End.LOST
    return End.LATER if outcome.may_pass else End.FAILED
