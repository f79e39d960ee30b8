"""Spans on their way to the collector: a queue with a bound, and a thread that empties it. Nobody ever waits for either."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from stowkeeper.services.tracing.limits import (
    BACK_OFF_SECONDS_FIRST,
    BACK_OFF_SECONDS_MAX,
    BATCH_SPANS_MAX,
    FLUSH_SECONDS,
    QUEUE_SPANS_MAX,
)
from stowkeeper.services.tracing.span import Span

log = structlog.get_logger("stowkeeper.tracing")


class Exporter(Protocol):
    """Takes spans to a collector. Blocks."""

    def export(self, spans: Sequence[Span]) -> str:
        """Deliver some spans; return '' where the collector has them, else why not."""
        ...

    def close(self) -> None:
        """End what `export` waits for; from any thread."""
        ...


class SpanSender:
    """Delivers spans in batches from `start` to `stop`. What finds no room, or does not arrive, is dropped and counted."""

    def __init__(
        self,
        exporter: Exporter,
        *,
        queue_max: int = QUEUE_SPANS_MAX,
        back_off_seconds: float = BACK_OFF_SECONDS_FIRST,
        flush_seconds: float = FLUSH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exporter = exporter
        self._queue_max = queue_max
        self._back_off_seconds = back_off_seconds
        self._flush_seconds = flush_seconds
        self._clock = clock
        self._waiting: deque[Span] = deque()
        self._changed = threading.Condition()
        self._sent = 0
        self._dropped = 0
        self._dropped_in_row = 0
        self._is_failing = False
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)

    def start(self) -> None:
        """Start to deliver."""
        self._thread.start()

    def counts(self) -> Mapping[str, int]:
        """Return how many spans were sent, and how many dropped, since the start; from any thread."""
        with self._changed:
            return {"sent": self._sent, "dropped": self._dropped}

    def put(self, spans: Sequence[Span]) -> None:
        """Hand over spans; those that find no room are dropped."""
        with self._changed:
            taken = spans[: max(self._queue_max - len(self._waiting), 0)]
            self._waiting.extend(taken)
            self._drop(len(spans) - len(taken))
            self._changed.notify()

    def drop(self, count: int) -> None:
        """Count spans that were not even made."""
        with self._changed:
            self._drop(count)

    def stop(self) -> None:
        """Deliver what waits, as far as that is done in some seconds, and end. Blocks."""
        with self._changed:
            self._stop_at = self._clock() + self._flush_seconds
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(self._flush_seconds)
        self._exporter.close()

    def _drop(self, count: int) -> None:
        self._dropped += count
        if self._is_failing:
            self._dropped_in_row += count

    # On its thread.

    def _run(self) -> None:
        pause = self._back_off_seconds
        while batch := self._next_batch():
            reason = self._export(batch)
            with self._changed:
                was_failing, self._is_failing = self._is_failing, bool(reason)
                if reason:
                    self._drop(len(batch))
                else:
                    self._sent += len(batch)
                lost, self._dropped_in_row = self._dropped_in_row, self._dropped_in_row if reason else 0
                is_ending = self._stop_at is not None
            if reason:
                if not was_failing and not is_ending:
                    log.error(
                        "error", what="spans of traces are dropped: they cannot be delivered", reason=reason
                    )
                self._rest(pause)
                pause = min(pause * 2, BACK_OFF_SECONDS_MAX)
            else:
                if was_failing:
                    log.warning("error", what="spans of traces are delivered again", dropped=lost)
                pause = self._back_off_seconds

    def _export(self, batch: Sequence[Span]) -> str:
        try:
            return self._exporter.export(batch)
        except Exception as error:  # noqa: BLE001 - a thread that is gone would drop all that follows
            return f"{type(error).__name__} in the exporter"

    def _next_batch(self) -> list[Span]:
        """Wait for spans, and return some; none when it is to end."""
        with self._changed:
            while not self._waiting and self._stop_at is None:
                self._changed.wait()
            if self._stop_at is not None and self._clock() >= self._stop_at:
                return []
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_SPANS_MAX))]

    def _rest(self, seconds: float) -> None:
        until = self._clock() + seconds
        with self._changed:
            while self._stop_at is None and (left := until - self._clock()) > 0:
                self._changed.wait(left)
            if self._stop_at is not None:
                # It failed a moment ago: nobody waits for it at the end.
                self._stop_at = self._clock()
