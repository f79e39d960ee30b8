"""Events told to whoever watches a folder: a file of JSON for each, which appears whole or not at all."""

import contextlib
import os
from collections.abc import Callable
from typing import Final

from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.events.document import event_json
from stowkeeper.services.events.feed import Event
from stowkeeper.services.events.targets import DeliveryError

EVENT_FILE_MODE: Final = 0o644
"""Mode of the files: who watches the folder is another user, mostly, and may delete what it has read."""


class FolderWay:
    """Writes each event into a file of its own: `<number>_<event>.json`, so that names come in the order of events.

    The folder is not made: one that is gone may be a disk that is away.
    """

    def __init__(self, files: FileSystem, folder: str, *, archive_id: str) -> None:
        self._files = files
        self._folder = folder
        self._archive_id = archive_id

    def deliver(self, event: Event, is_over: Callable[[], bool]) -> None:  # noqa: ARG002 - a file is written soon
        """Write the file of an event; one that is there is replaced by the same. Raises DeliveryError."""
        name = f"{event.seq:016d}_{event.kind}.json"
        hidden = os.path.join(self._folder, f".{name}")
        try:
            self._write(hidden, event_json(self._archive_id, event) + b"\n")
            os.replace(hidden, os.path.join(self._folder, name))
            self._files.synchronize_directory(self._folder)
        except OSError as error:
            raise DeliveryError(f"{self._folder} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Do nothing: nothing is held open."""

    def _write(self, path: str, content: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(path)  # what a crash left
        descriptor = self._files.create(path, EVENT_FILE_MODE)
        try:
            self._files.write(descriptor, [content], 0)
            self._files.synchronize(descriptor)
        finally:
            self._files.close(descriptor)
