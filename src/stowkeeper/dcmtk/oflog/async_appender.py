"""An appender that hands messages to another one in a thread, so that nobody waits while they are written."""

import logging
import os
import threading
from queue import Queue

from stowkeeper.dcmtk.oflog.appenders import Appender
from stowkeeper.dcmtk.oflog.complaints import Complaints
from stowkeeper.dcmtk.oflog.patterns import NATIVE_THREAD


class AsyncAppender(Appender):
    """Queues messages for another appender. When so many wait that there is no room, whoever logs waits, too.

    The thread begins with the first message, and in a forked process with the first message there: what waited at the
    fork is written by the parent alone. Closing writes what waits.
    """

    def __init__(self, place: str, complaints: Complaints, inner: Appender, waiting_max: int) -> None:
        super().__init__(place, complaints)
        self._inner = inner
        self._waiting_max = waiting_max
        self._queue: Queue[logging.LogRecord | None] = Queue(waiting_max)
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def append(self, record: logging.LogRecord) -> None:
        """Queue a message."""
        record.__dict__.setdefault(NATIVE_THREAD, threading.get_native_id())
        self._start_thread()
        self._queue.put(record)

    def flush(self) -> None:
        """Wait until everything is written."""
        if self._thread_here() is not None:
            self._queue.join()
        self._inner.flush()

    def let_go(self) -> None:
        """Write what waits, end the thread and close the other appender."""
        if (thread := self._thread_here()) is not None:
            self._queue.put(None)
            thread.join()
        self._inner.close()

    def _thread_here(self) -> threading.Thread | None:
        """Return the thread, None where none has begun in this process: one of the parent does not live here."""
        return self._thread if self._process == os.getpid() else None

    def _start_thread(self) -> None:
        if self._thread_here() is not None:
            return
        if self._process != os.getpid():
            self._process = os.getpid()
            self._queue = Queue(self._waiting_max)
        thread = threading.Thread(target=self._write, args=(self._queue,), name="log", daemon=True)
        thread.start()
        self._thread = thread

    def _write(self, queue: "Queue[logging.LogRecord | None]") -> None:
        while (record := queue.get()) is not None:
            if record.levelno >= self._inner.level:
                self._inner.handle(record)
            queue.task_done()
        queue.task_done()
