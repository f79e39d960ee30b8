"""Jobs that a command waits for: a server on the archive carries them out, or the command itself where none runs.

The rows are durable before, so whoever stops waiting loses nothing: what is left goes on with the next server.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from stowkeeper.app.commands.waiting_limits import COMMAND_LOOK_SECONDS, COMMAND_STOP_SECONDS
from stowkeeper.app.settings import Settings
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.folder import JOBS
from stowkeeper.jobs.engine import JobEngine, JobOptions
from stowkeeper.jobs.kind import JobKind
from stowkeeper.jobs.owners import is_gone

_OWNER: Final = "command-"
"""How the names of engines of commands begin; those of servers are their process folder's."""

_SUFFIX: Final = ".owner"


class ListensWhileItRuns(Protocol):
    """Something that listens between its start and its end, such as `ReportListener`."""

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen."""
        ...

    async def stop(self) -> None:
        """End."""
        ...


def server_runs(archive_root: str) -> bool:
    """Tell whether a server carries out the jobs of an archive. Engines of other commands do not count."""
    folder = os.path.join(archive_root, JOBS)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    owners = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
    return any(not owner.startswith(_OWNER) and not is_gone(folder, owner) for owner in owners)


@contextlib.asynccontextmanager
async def carrying_out(
    reader: ArchiveReader, settings: Settings, make_kinds: Callable[[], Sequence[JobKind]]
) -> AsyncIterator[None]:
    """Carry out jobs of some kinds for the length of a block. Kinds that have a `close` are closed at the end.

    Raises what ended the engine.
    """
    kinds = make_kinds()
    engine = JobEngine(
        reader.database,
        kinds,
        owner=f"{_OWNER}{os.getpid()}-{secrets.token_hex(4)}",
        lock_folder=os.path.join(reader.root, JOBS),
        options=JobOptions(
            disk_lanes=settings.jobs.disk_max,
            running_max=settings.jobs.running_max,
            retention_days=settings.jobs.retention_days,
            poll_seconds=COMMAND_LOOK_SECONDS,
            ends_unknown_kinds=False,
        ),
    )
    running = asyncio.get_running_loop().create_task(engine.run())
    try:
        yield
    finally:
        if not running.done():
            await engine.stop(COMMAND_STOP_SECONDS)
        for kind in kinds:
            close = getattr(kind, "close", None)
            if close is not None:
                await close()
        await running


@contextlib.asynccontextmanager
async def listening(listener: ListensWhileItRuns, address: tuple[str, int] | None) -> AsyncIterator[None]:
    """Listen for the length of a block, where there is an address to listen at."""
    if address is None:
        yield
        return
    await listener.start(*address)
    try:
        yield
    finally:
        await listener.stop()


async def wait_for_end(look: Callable[[], tuple[bool, object]], patience_seconds: float) -> bool:
    """Wait until `look`, which is called in a thread, says that it is over; False when there was no news for too long.

    It returns whether it is over, and a value that is another one when there is news.
    """
    loop = asyncio.get_running_loop()
    latest: object = None
    news_at = loop.time()
    while True:
        is_over, state = await asyncio.to_thread(look)
        if is_over:
            return True
        if state != latest:
            latest, news_at = state, loop.time()
        if loop.time() - news_at >= patience_seconds:
            return False
        await asyncio.sleep(COMMAND_LOOK_SECONDS)
