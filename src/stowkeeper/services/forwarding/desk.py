"""The desk of forwarding: puts what arrived to the rules, and what they chose into jobs.

    changes ──rules──► forwards, waiting ──► a job for each destination and priority ──outcomes──► sent, failed, dropped

What the rules chose is written in the transaction that moves the cursor over the changes (`following`), so nothing is left
out and nothing chosen twice, wherever the process dies. A job takes rows in the transaction that puts it in (`queueing`). Its
outcomes are written with its items (`outcomes`); what a job leaves behind when it ends, is cancelled or deleted, is read from
its items (`settling`).

While many instances arrive the rules rest (`services.resting`); what they chose before that goes on.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from stowkeeper.database.engine import Database
from stowkeeper.services.forwarding.destinations import Destinations
from stowkeeper.services.forwarding.following import RuleFollower, Rules
from stowkeeper.services.forwarding.limits import GATHER_SECONDS, LOOK_RETRY_SECONDS, LOOK_SECONDS
from stowkeeper.services.forwarding.queueing import JobMaker
from stowkeeper.services.forwarding.settling import settle
from stowkeeper.services.keep_looking import keep_looking
from stowkeeper.services.resting import Rests

log = structlog.get_logger("stowkeeper.forwarding")


class ForwardingDesk:
    """Looks every second, and when `wake` is called. Several processes of an archive may."""

    def __init__(
        self,
        database: Database,
        rules: Rules,
        places: Destinations,
        wake_jobs: Callable[[], None],
        *,
        gather_seconds: float = GATHER_SECONDS,
        rests: Rests,
    ) -> None:
        self._database = database
        self._rests = rests
        self._follower = RuleFollower(database, rules, places)
        self._maker = JobMaker(database, places, gather_seconds)
        self._wake_jobs = wake_jobs
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_news = asyncio.Event()
        self._rests_until = 0.0

    def begin(self) -> None:
        """Make sure that all that is listed from now on is put to the rules. Raises DatabaseUnavailable."""
        self._follower.begin()

    def wake(self) -> None:
        """Look now, not at the next second. Called from any thread; harmless before `run` and after it."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(self._has_news.set)

    async def run(self) -> None:
        """Look until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        await keep_looking(
            self.look,
            log,
            what="nothing can be forwarded",
            seconds=LOOK_SECONDS,
            retry_seconds=LOOK_RETRY_SECONDS,
            rest=self._rest,
        )

    def look(self) -> bool:
        """Look once; return whether more is to be done at once. Blocks. Raises DatabaseUnavailable."""
        goes_on = time.monotonic() >= self._rests_until and self._follow()
        settle(self._database)
        if self._maker.look():
            self._wake_jobs()
        return goes_on

    def _follow(self) -> bool:
        """Put the next changes to the rules; return whether more are to be looked at at once."""
        began = time.thread_time()
        goes_on = self._follower.look()
        rest = self._rests.rest_after(time.thread_time() - began)
        self._rests_until = time.monotonic() + rest
        return goes_on and not rest

    async def _rest(self, seconds: float) -> None:
        # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that comes just when it was woken.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_news.wait()
        self._has_news.clear()  # the next look finds all that came until now
