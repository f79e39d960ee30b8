"""Signals that a server answers to, held from its first moment to its last, so that none ends it half way.

By themselves SIGTERM and SIGHUP end a process wherever it is, and leave its folder in the depot to the next start;
an exception raised from a handler could come between the making of a thing and whatever takes it away again. So a
signal is noted, and the event loop hears of it: of one that came before there was a loop, as soon as there is one.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_HELD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class HeldSignals:
    """SIGINT, SIGTERM and SIGHUP of this process for the length of a with block, in its main thread."""

    def __init__(self) -> None:
        self._noted: set[int] = set()
        self._hear: Callable[[int], None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _HELD:
            # None stands for a handler that Python did not set.
            self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def say_stop(self) -> bool:
        """Whether SIGINT or SIGTERM came since the beginning of the block."""
        return not self._noted.isdisjoint({signal.SIGINT, signal.SIGTERM})

    @contextmanager
    def heard(self, *, stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
        """Call `stop` and `reload` on the running event loop for the length of a block, and for what came before."""
        loop = asyncio.get_running_loop()

        def hear(number: int) -> None:
            loop.call_soon_threadsafe(stop if number in {signal.SIGINT, signal.SIGTERM} else reload)

        self._hear = hear
        for number in sorted(self._noted):
            hear(number)
        try:
            yield
        finally:
            self._hear = None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.add(number)
        if self._hear is not None:
            self._hear(number)
