"""Where storage commitment messages wait for the thread that works on them: bounded, and in turn by who sent them."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from stowkeeper.services.commitment.limits import (
    QUEUE_SHARE_OF_ONE,
    REQUEST_BYTES_WAITING_MAX,
    REQUESTS_END_SECONDS,
    REQUESTS_PER_TRANSACTION_MAX,
    REQUESTS_WAITING_MAX,
)

log = structlog.get_logger("stowkeeper.commitment")


class Waiting(Protocol):
    """A whole message that waits. `sender` names who sent it; `data_set` is emptied when it was read."""

    data_set: bytes

    @property
    def sender(self) -> str:
        """Who has a turn of its own."""


Message = TypeVar("Message", bound=Waiting)


class Desk(Generic[Message]):
    """A thread with a bounded queue for each sender in front of it, of which it takes the first ones in turn.

    Who has something waiting gets QUEUE_SHARE_OF_ONE of the places and bytes: the rest is for those who have nothing.
    `work` gets at most `batch_max` messages at a time.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Message]], None],
        *,
        batch_max: int = REQUESTS_PER_TRANSACTION_MAX,
    ) -> None:
        self._work = work
        self._batch_max = batch_max
        self._condition = threading.Condition()
        self._queues: dict[str, deque[Message]] = {}
        """In the order of their turns."""
        self._count = 0
        self._bytes = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Work on what waits, and end; what comes later is not taken. Twice is fine."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(REQUESTS_END_SECONDS)

    def take(self, waiting: Message) -> bool:
        """Put a message into the queue; False when that is full, or closed."""
        size = len(waiting.data_set)
        with self._condition:
            queue = self._queues.get(waiting.sender)
            share = 1.0 if queue is None else QUEUE_SHARE_OF_ONE
            if (
                self._is_closed
                or self._count >= REQUESTS_WAITING_MAX * share
                or self._bytes + size > REQUEST_BYTES_WAITING_MAX * share
            ):
                return False
            self._queues.setdefault(waiting.sender, deque()).append(waiting)
            self._count += 1
            self._bytes += size
            self._condition.notify()
            return True

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._queues or self._is_closed)
                if not self._queues:
                    return
                batch = self._next()
            try:
                self._work(batch)
            except Exception:
                log.exception("error", what="storage commitment messages could not be worked on")

    def _next(self) -> list[Message]:
        """Take messages out of the queues, one of each sender and then from the first one again."""
        batch: list[Message] = []
        while self._queues and len(batch) < self._batch_max:
            sender = next(iter(self._queues))
            queue = self._queues.pop(sender)
            batch.append(queue.popleft())
            if queue:
                self._queues[sender] = queue
        self._count -= len(batch)
        self._bytes -= _size_of(batch)
        return batch


def _size_of(batch: Sequence[Waiting]) -> int:
    return sum(len(waiting.data_set) for waiting in batch)
