"""The desk of tracing: follows what is written of associations and of what became of their instances, and tells it as spans.

Nothing is measured for it, and nothing waits for it: receiving writes its rows as it always does, and spans are made of them
afterwards, at a bounded rate. Of several processes of an archive one traces, whichever holds the lock on a folder for it.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence

import structlog

from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.tracing.commitment_spans import CommitmentSpans, ReportSpans
from stowkeeper.services.tracing.following import Source, Wanted
from stowkeeper.services.tracing.forward_spans import ForwardSpans
from stowkeeper.services.tracing.ledger_spans import AssociationSpans, ListingSpans, RequestSpans
from stowkeeper.services.tracing.limits import (
    END_SECONDS,
    LOOK_RETRY_SECONDS,
    SPANS_PER_LOOK,
    TRACE_SECONDS,
    TURN_RETRY_SECONDS,
)
from stowkeeper.services.tracing.sending import SpanSender

log = structlog.get_logger("stowkeeper.tracing")

_FOLDER_MODE = 0o700


class TracingDesk:
    """Looks at the rows every second, from `begin` to `end`.

    `share` of the traces are told, from 0 to 1; the others never. `settle` waits, for a bounded time, until what came is written; it
    is called before the last look. `lock_folder` is made where it is not there.
    """

    def __init__(
        self,
        database: Database,
        sender: SpanSender,
        *,
        lock_folder: str,
        share: float = 1.0,
        settle: Callable[[], object] = lambda: None,
        files: FileSystem | None = None,
    ) -> None:
        self._database = database
        self._sender = sender
        self._files = files or FileSystem()
        self._settle = settle
        self._lock_folder = lock_folder
        self._lock: int | None = None
        self._share = share
        self._sources: Sequence[Source] = ()
        # A look that was cancelled goes on in its thread.
        self._looking = threading.Lock()

    def counts(self) -> dict[str, int]:
        """Return how many spans were sent and dropped; from any thread."""
        return dict(self._sender.counts())

    def begin(self) -> bool:
        """Begin behind the newest rows, and tell whether it is on us to trace. Blocks. Raises DatabaseUnavailable, OSError."""
        if self._lock is None:
            for folder in (os.path.dirname(self._lock_folder), self._lock_folder):
                os.makedirs(folder, mode=_FOLDER_MODE, exist_ok=True)
            self._lock = self._files.lock_directory(self._lock_folder)
            if self._lock is None:
                return False
        wanted = Wanted(self._share)
        sources: Sequence[Source] = (
            AssociationSpans(wanted),
            RequestSpans(wanted),
            ListingSpans(wanted),
            CommitmentSpans(wanted),
            ReportSpans(wanted),
            ForwardSpans(wanted),
        )
        with self._database.read() as connection:
            for source in sources:
                source.begin(connection)
        self._sources = sources
        return True

    async def run(self) -> None:
        """Look until it is cancelled."""
        self._sender.start()
        is_failing = False
        while True:
            try:
                pause = TRACE_SECONDS if await asyncio.to_thread(self._turn) else TURN_RETRY_SECONDS
                is_failing = False
            except (DatabaseUnavailable, OSError) as error:
                if not is_failing:
                    log.error("error", what="traces cannot be followed for now", reason=str(error))
                is_failing = True
                pause = LOOK_RETRY_SECONDS
            except Exception:
                if not is_failing:
                    log.exception("error", what="traces could not be followed, it is tried again")
                is_failing = True
                pause = LOOK_RETRY_SECONDS
            await asyncio.sleep(pause)

    def _turn(self) -> bool:
        """Look, if it is on us; tell whether it is."""
        if not self._sources and not self.begin():
            return False
        self.look()
        return True

    def look(self) -> None:
        """Look once, and hand over what is to be told. Blocks. Raises DatabaseUnavailable."""
        with self._looking:
            for source in self._sources:
                # One read for each: none is long, and no old state of the database is kept open for it.
                with self._database.read() as connection:
                    told = source.look(connection, SPANS_PER_LOOK)
                if told.passed_by:
                    self._sender.drop(told.passed_by)
                if told.spans:
                    self._sender.put(told.spans)

    def stop(self) -> None:
        """Come to the end, within END_SECONDS whatever hangs. Blocks; `run` was cancelled before."""
        ending = threading.Thread(target=self.end, name="tracing-end", daemon=True)
        ending.start()
        ending.join(END_SECONDS)

    def end(self) -> None:
        """Look a last time, deliver what can be delivered in some seconds, and give the turn to another. Blocks."""
        try:
            self._settle()
            self.look()
        except DatabaseUnavailable as error:
            log.warning("error", what="the last spans of traces were not read", reason=str(error))
        finally:
            self._sender.stop()
            lock, self._lock = self._lock, None
            if lock is not None:
                self._files.unlock_directory(lock)
