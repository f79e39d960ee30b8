"""Whether another instance may come in: space, inodes, the catalog's backlog, and trust in the disk.

The event loop asks `admit()` and `association_refusal()` and never waits for a disk: both read what worker
threads saw last.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from itertools import repeat

from stowkeeper.archive.limits import LOW_TIMES_MARK, SPACE_CHECK_EVERY_BYTES, SPACE_CHECK_SECONDS
from stowkeeper.durable.filesystem import FileSystem, FreeSpace

_BEHIND = "the catalog is behind, try again later"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskMarks:
    """Free bytes and inodes below which instances are answered A700H, and associations refused.

    Below `instance_bytes` or `instance_inodes` each instance is refused; below the association marks
    storage is not negotiated at all.
    """

    instance_bytes: int
    association_bytes: int
    instance_inodes: int
    association_inodes: int


class DiskPressure(IntEnum):
    """How little room there is: what is refused for it. At LOW nothing is, yet."""

    NONE = 0
    LOW = 1
    INSTANCES_REFUSED = 2
    STORAGE_REFUSED = 3


class Admission:
    """Says yes or no to the next instance, and why not, in words for the sender and the ledger.

    An instance that is admitted has a place until it is listed in the catalog, or given up: no more than
    `uncatalogued_max` have one at a time.
    """

    def __init__(
        self,
        files: FileSystem,
        root: str,
        marks: DiskMarks,
        *,
        uncatalogued_max: int,
        clock: Callable[[], float] = time.monotonic,
        on_distrust: Callable[[], None] = lambda: None,
        on_pressure: Callable[[DiskPressure, FreeSpace], None] = lambda _pressure, _space: None,
    ) -> None:
        """Look at the disk. `on_pressure` is told when there is more or less room than before; it must not wait."""
        self._files = files
        self._root = root
        self._marks = marks
        self._uncatalogued_max = uncatalogued_max
        # An item for each place that is taken. Of a deque an append, a pop and the length are one step each for any
        # thread: no instance waits for a lock here, or is counted twice or not at all on its way.
        self._places: deque[None] = deque()
        self._clock = clock
        self._on_distrust = on_distrust
        self._on_pressure = on_pressure
        self._pressure = DiskPressure.NONE
        self._lock = threading.Lock()
        self._written_since_check = 0
        self._next_check = 0.0
        self._instance_words = ""
        self._association_words = ""
        self._distrust = ""
        self._failures = 0
        self._reserve_released = False
        self.check_space()

    def admit(self) -> str:
        """Give a place to one more instance; or say why not, and it has none. An empty string says that it has one."""
        words = self._distrust or self._instance_words
        if words:
            return words
        self._places.append(None)  # first, so that two who come at once do not both get the last one
        if len(self._places) > self._uncatalogued_max:
            self._places.pop()
            return _BEHIND
        return ""

    def leave(self, count: int = 1) -> None:
        """Take places back: those of instances that are listed now, or were given up."""
        # Whoever said so once too often must not be stopped by that: it might be the finisher.
        with suppress(IndexError):
            for _ in repeat(None, count):
                self._places.pop()

    def refusal(self) -> str:
        """Why no instance is admitted now; an empty string when one is."""
        return self._distrust or self._instance_words or (_BEHIND if self.is_behind else "")

    @property
    def is_behind(self) -> bool:
        """Whether all places are taken: the next instance has to wait for the catalog."""
        return len(self._places) >= self._uncatalogued_max

    @property
    def pressure(self) -> DiskPressure:
        """How little room there was at the last look."""
        return self._pressure

    def association_refusal(self) -> str:
        """Why storage is not negotiated now; an empty string when it is."""
        return self._distrust or self._association_words

    def distrust(self, words: str) -> None:
        """Admit nothing more: a sync failed, or the disk is read-only. Only a probe that succeeds calls `trust`."""
        with self._lock:
            self._failures += 1
            self._distrust = words
        self._on_distrust()

    @property
    def failures(self) -> int:
        """How often the disk was distrusted; a probe notes it before it begins."""
        return self._failures

    def trust(self, failures: int) -> bool:
        """Admit again, since the whole path of an instance worked on this disk.

        False, and nothing is admitted, where another failure came after the first `failures`, while the probe ran.
        """
        with self._lock:
            if failures == self._failures:
                self._distrust = ""
            return not self._distrust

    def note_reserve(self, *, released: bool) -> None:
        """Take note that the reserve was released: what room it gave is for what was answered, not for more."""
        self._reserve_released = released
        self.check_space()

    @property
    def distrusted(self) -> bool:
        """Whether a sync failed and no probe has succeeded since."""
        return bool(self._distrust)

    def account(self, count: int) -> str:
        """Count bytes about to be written, by a worker; look at the disk now and then.

        Returns why these bytes should not be written, or an empty string.
        """
        self._written_since_check += count
        if self._written_since_check >= SPACE_CHECK_EVERY_BYTES or self._clock() >= self._next_check:
            self.check_space()
        return self._instance_words

    def check_space(self) -> None:
        """Look at free bytes and inodes. A disk that cannot be asked admits nothing."""
        with self._lock:
            self._written_since_check = 0
            self._next_check = self._clock() + SPACE_CHECK_SECONDS
            try:
                space = self._files.free_space(self._root)
            except OSError as error:
                self._instance_words = self._association_words = (
                    f"the free space cannot be read: {error.strerror}"
                )
                return
            marks = self._marks
            self._instance_words = _below(
                space.bytes, marks.instance_bytes, space.inodes, marks.instance_inodes
            )
            self._association_words = _below(
                space.bytes, marks.association_bytes, space.inodes, marks.association_inodes
            )
            if self._reserve_released:
                self._instance_words = self._instance_words or "the disk is full"
            before, self._pressure = self._pressure, self._pressure_at(space)
        if self._pressure is not before:
            self._on_pressure(self._pressure, space)

    def _pressure_at(self, space: FreeSpace) -> DiskPressure:
        if self._association_words:
            return DiskPressure.STORAGE_REFUSED
        if self._instance_words:
            return DiskPressure.INSTANCES_REFUSED
        marks = self._marks
        low_bytes, low_inodes = LOW_TIMES_MARK * marks.instance_bytes, LOW_TIMES_MARK * marks.instance_inodes
        is_low = _below(space.bytes, low_bytes, space.inodes, low_inodes)
        return DiskPressure.LOW if is_low else DiskPressure.NONE


def _below(free_bytes: int, mark_bytes: int, inodes: int | None, mark_inodes: int) -> str:
    if free_bytes < mark_bytes:
        return "the disk is full"
    if inodes is not None and inodes < mark_inodes:
        return "the disk has no inodes left"
    return ""
