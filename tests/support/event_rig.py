"""An archive whose changes make events: instances are kept step by step, clocks are set by hand."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stowkeeper.archive import catalog
from stowkeeper.database.engine import Database
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.events.feed import Event, events_after
from stowkeeper.services.events.study_watch import StudyWatch
from support.archive_rig import ArchiveRig
from support.instances import make_instance
from support.job_rig import Clocks, database_with

QUIET_SECONDS = 60.0
ARCHIVE_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRig:
    """The archive, the watch over its studies, and the clocks of both."""

    archive: ArchiveRig
    watch: StudyWatch
    clocks: Clocks

    @property
    def database(self) -> Database:
        """Return the archive's database."""
        return self.archive.database

    def keep(self, *numbers: int, **more: Any) -> None:
        """Keep instances and list them; `more` is what `make_instance` takes."""
        for number in numbers:
            self.archive.keep(make_instance(number, **more))
        assert self.archive.finish() == []

    def look(self) -> None:
        """Let the watch look until nothing is left to be done at once."""
        while self.watch.look():
            pass

    def events(self, after: int = 0, **more: Any) -> list[Event]:
        """Return the events after a change."""
        with self.database.read() as connection:
            return events_after(connection, after, 10_000, **more)

    def told(self) -> list[str]:
        """Return the kinds of all events, in order."""
        return [str(event.kind) for event in self.events()]


@contextlib.contextmanager
def event_rig(folder: Path, *, begins: bool = True, sets_clocks: bool = True) -> Iterator[EventRig]:
    """Make an empty archive for the length of a block; the watch has a cursor if it `begins`.

    Without `sets_clocks` the database has the time of the machine.
    """
    clocks = Clocks()
    with contextlib.closing(database_with(folder, clocks if sets_clocks else None)) as database:
        with database.write() as transaction:
            catalog.set_archive_id(transaction, ARCHIVE_ID)
        archive = ArchiveRig(FileSystem(), database, root=str(folder), slots=10)
        watch = StudyWatch(database, QUIET_SECONDS, clock=clocks.now)
        if begins:
            watch.begin()
        yield EventRig(archive=archive, watch=watch, clocks=clocks)
