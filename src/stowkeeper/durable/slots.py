"""A pool of empty files whose names are already on the medium.

An instance goes into a slot, so its answer waits for one sync of one file: creating a file and syncing its folder,
which cost more than writing a small instance, were done before.

Invariants:

- A name is handed out only after the sync of the folder that covers it, and only once; names count up and none is
  ever used again. Names whose sync failed are given up, since a later sync of the folder proves nothing for them.
- What is free is empty. A crash leaves empty files, which mean nothing and go with the folder.
- `take` may be called by any thread. It waits for the disk only when the pool is empty.

What a slot becomes is not known here: whoever took it writes, syncs, closes and names it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from stowkeeper.durable.errors import FolderSyncError, is_out_of_open_files
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.limits import (
    OPEN_SLOTS,
    SLOT_BATCH,
    SLOT_POOL_SIZE,
    SLOT_REFILL_BELOW,
    SLOT_WAIT_SECONDS,
)

SLOT_MODE = 0o644
"""Mode of a kept file: its owner writes it once, others may read it."""

_OWNER_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An empty file with a durable name, open for writing; the taker owns the descriptor and closes it."""

    path: str
    descriptor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPoolStatistics:
    """What a pool holds and did: free slots, how many of them stand open, and counts since it was made."""

    free: int
    open: int
    made: int
    taken: int
    removed: int
    given_up: int
    folder_syncs: int
    waits: int
    last_error: str | None


class SlotPool:
    """Free slots in one folder, owned by this process.

    `size` slots are kept, and the filler tops up when fewer than `refill_below` are left. `mode` is the mode of each
    file and has to let its owner read and write. `open_slots` of them stand open. `on_error` is called, on the
    filler's thread, with an error that no taker was there to see.
    """

    def __init__(
        self,
        files: FileSystem,
        folder: str,
        *,
        size: int = SLOT_POOL_SIZE,
        refill_below: int | None = None,
        mode: int = SLOT_MODE,
        open_slots: int = OPEN_SLOTS,
        on_error: Callable[[OSError], None] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"a slot pool needs a size of 1 or more, not {size}")
        if mode & _OWNER_MODE != _OWNER_MODE:
            raise ValueError(f"slot mode {mode:04o} keeps its owner from reading or writing: add 0600")
        self._files = files
        self._folder = folder
        self._size = size
        self._refill_below = (
            min(SLOT_REFILL_BELOW, size // 2) if refill_below is None else min(refill_below, size)
        )
        self._mode = mode
        self._open_slots = min(open_slots, size)
        self._open_below = (self._open_slots + 1) // 2
        self._on_error = on_error
        # Both queues are taken from without a lock: a pop from either end of a deque is one step for any thread.
        self._names: deque[str] = deque()
        self._open: deque[Slot] = deque()
        # Everything that makes, opens or removes slots holds this lock; the counts below change under it alone.
        self._making = threading.Lock()
        # Who finds no slot while others make some waits here and not for that lock, which the filler takes again at once.
        self._are_more = threading.Condition()
        self._next = 0
        self._made = self._removed = self._given_up = self._folder_syncs = self._waits = 0
        self._last_error: str | None = None
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._filler: threading.Thread | None = None

    @property
    def statistics(self) -> SlotPoolStatistics:
        """Return the present counts; beside threads at work they may be one slot apart from each other."""
        opened = len(self._open)
        free = len(self._names) + opened
        return SlotPoolStatistics(
            free=free,
            open=opened,
            made=self._made,
            taken=self._made - self._removed - free,
            removed=self._removed,
            given_up=self._given_up,
            folder_syncs=self._folder_syncs,
            waits=self._waits,
            last_error=self._last_error,
        )

    def take(self) -> Slot:
        """Hand out a free slot, open for writing.

        From an empty pool it makes a batch first, and waits for the disk. Raises OSError when no slot can be made or
        opened (FolderSyncError when the folder's sync failed); the pool stays usable.
        """
        try:
            slot = self._open.popleft()
        except IndexError:
            slot = self._take_closed()
        opened = len(self._open)
        low = opened < self._open_below or opened + len(self._names) < self._refill_below
        if low and not self._wanted.is_set():
            self._wanted.set()
        return slot

    def fill(self, least: int | None = None) -> None:
        """Bring the pool up to its size, or to `least` slots, one folder sync for each batch.

        Raises OSError when it cannot; the slots that could be made and synced are in the pool even so.
        """
        while (least is None or len(self._names) + len(self._open) < least) and self._fill_batch():
            pass

    def open_ahead(self) -> None:
        """Open slots until as many stand open as shall, or as may; raises OSError, and loses none.

        No more than what stands open now may where no more files can be opened: takers have the better use for those.
        """
        while True:
            with self._making:
                if len(self._open) >= self._open_slots:
                    return
                try:
                    path = self._names.popleft()
                except IndexError:
                    return
                try:
                    self._open.append(self._opened(path))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if is_out_of_open_files(error):
                        return
                    raise

    def remove_free(self, count: int) -> int:
        """Remove up to `count` free slots and return how many; each gives back an inode when those run out."""
        removed = 0
        with self._making:
            while removed < count:
                try:
                    path = self._names.popleft() if self._names else self._close_open()
                except IndexError:
                    break
                self._removed += 1
                self._files.unlink(path)
                removed += 1
        return removed

    @contextmanager
    def still(self) -> Iterator[None]:
        """Make no slot during a block: for whoever else syncs the folder, since a sync that fails is told to one alone."""
        with self._making:
            yield

    def start(self) -> None:
        """Start the filler, a daemon thread that keeps the pool full; starting twice is fine."""
        if self._filler is not None:
            return
        self._stopping.clear()
        self._wanted.set()
        self._filler = threading.Thread(target=self._keep_filled, name="slot-filler", daemon=True)
        self._filler.start()

    def stop(self) -> None:
        """End the filler, wait for it, and close what stands open; the free slots stay. Stopping twice is fine."""
        if self._filler is not None:
            self._stopping.set()
            self._wanted.set()
            self._filler.join()
            self._filler = None
        with self._making:
            while True:
                try:
                    self._names.appendleft(self._close_open())
                except IndexError:
                    return

    def _fill_batch(self) -> bool:
        """Make one batch of the slots that are missing; False when none was."""
        with self._making:
            missing = self._size - len(self._names) - len(self._open)
            if missing <= 0:
                return False
            self._make(min(missing, SLOT_BATCH))
            return True

    def _take_closed(self) -> Slot:
        """Take a slot that does not stand open, after making some if there is none."""
        while True:
            try:
                return self._opened(self._names.popleft())
            except FileNotFoundError:
                continue  # whoever removed that one: there are others
            except IndexError:
                pass
            if self._making.acquire(blocking=False):
                try:
                    if not self._names and not self._open:
                        self._waits += 1
                        self._make(min(self._size, SLOT_BATCH))
                finally:
                    self._making.release()
            else:
                with self._are_more:
                    self._are_more.wait_for(lambda: self._names or self._open, SLOT_WAIT_SECONDS)
            with suppress(IndexError):
                return self._open.popleft()

    def _opened(self, path: str) -> Slot:
        """Open a free slot; on an error it stays free, since nothing of it was used.

        FileNotFoundError says that somebody else removed it: it is free no more.
        """
        try:
            return Slot(path=path, descriptor=self._files.open_for_writing(path))
        except FileNotFoundError:
            self._removed += 1
            raise
        except OSError:
            self._names.appendleft(path)
            raise

    def _close_open(self) -> str:
        """Close the slot that stands open last and return its path; IndexError when none does."""
        slot = self._open.pop()
        with suppress(OSError):  # nothing was written, so nothing is lost
            self._files.close(slot.descriptor)
        return slot.path

    def _make(self, count: int) -> None:
        """Create slots, sync the folder once, and only then let them be taken. The lock is held.

        Raises the error when it leaves nothing to take; with fewer than asked for it is content.
        """
        created: list[str] = []
        try:
            while len(created) < count:
                created.append(self._create())
        except OSError as error:
            self._last_error = str(error)
            if not created:
                raise
        try:
            self._files.synchronize_directory(self._folder)
        except OSError as error:
            self._last_error = str(error)
            self._give_up(created)
            raise FolderSyncError(
                error.errno, f"sync of the slot folder failed: {error.strerror}", self._folder
            ) from error
        self._folder_syncs += 1
        self._made += len(created)
        self._names.extend(created)
        with self._are_more:
            self._are_more.notify_all()

    def _create(self) -> str:
        """Create the next slot; a name in use, which a folder of this process should not have, is passed over."""
        while True:
            path = f"{self._folder}/{self._next:x}"
            self._next += 1
            with suppress(FileExistsError):
                self._files.close(self._files.create(path, self._mode))
                return path

    def _give_up(self, paths: list[str]) -> None:
        """Forget slots whose names may not be durable; what of them remains is empty and goes with the folder."""
        self._given_up += len(paths)
        for path in paths:
            with suppress(OSError):
                self._files.unlink(path)

    def _keep_filled(self) -> None:
        """Top up whenever a taker finds the pool low; after an error, when the next taker does."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._stopping.is_set():
                return
            try:
                if len(self._names) + len(self._open) < self._refill_below:
                    while not self._stopping.is_set() and self._fill_batch():
                        pass
                self.open_ahead()
            except OSError as error:
                self._last_error = str(error)
                if self._on_error is not None:
                    self._on_error(error)
