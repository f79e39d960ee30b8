"""The export folder: a copy of each instance for programs that watch a folder, under a name of their liking.

A copy and never a link: who reads it may write into it, and the archive's file stays as it was received. It appears whole or not
at all. An instance that comes once more, or as another version, replaces the former copy, there and only there: also where
that is in another study, whose copies are made beside those of the first.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from stowkeeper.archive import catalog
from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.shelf import escape
from stowkeeper.database.engine import Database, DatabaseUnavailable
from stowkeeper.durable.copying import CopyStoppedError, copy_into
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.events.feed import Event, later_arrivals_elsewhere
from stowkeeper.services.events.targets import DeliveryError

EXPORT_PLACES: Final = (
    "sop_instance_uid",
    "series_instance_uid",
    "study_instance_uid",
    "sop_class_uid",
    "calling_ae_title",
    "called_ae_title",
    "peer_address",
    "received_date",
    "ext",
)
"""The names that a template may use in braces."""

_CREATE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_FOLDER_MODE: Final = 0o777
"""Mode of the folders that a template makes, less the umask: who watches the folder may have to delete in them."""


class ExportWay:
    """Copies the file of each instance into `folder`, which has to be there, under a name by `template`.

    `mode` is that of the copies.
    """

    def __init__(
        self,
        files: FileSystem,
        root: str,
        database: Database,
        *,
        folder: str,
        template: str,
        extension: str,
        mode: int,
    ) -> None:
        self._files = files
        self._root = root
        self._database = database
        self._folder = folder
        self._template = template
        self._extension = extension
        self._mode = mode

    def deliver(self, event: Event, is_over: Callable[[], bool]) -> None:
        """Copy the instance of an event. Raises DeliveryError.

        Passed over is what was removed meanwhile, and what the copy of a later version is to replace.
        """
        if self._is_overtaken(event):
            self._clear(event)
            return
        try:
            source = self._files.open_for_reading(os.path.join(self._root, event.path))
        except FileNotFoundError:
            if self._is_gone(event):
                self._clear(event)
                return
            raise DeliveryError(f"{event.path} is not there: run stowkeeper verify") from None
        except OSError as error:
            raise DeliveryError(f"{event.path} cannot be read: {error.strerror}") from error
        try:
            self._copy(source, event, is_over)
        except CopyStoppedError:
            raise DeliveryError("the copy was given up, since the delivery was stopped") from None
        except OSError as error:
            raise DeliveryError(f"{self._folder} cannot be written: {error.strerror}") from error
        finally:
            self._files.close(source)

    def close(self) -> None:
        """Do nothing: nothing is held open."""

    def name_of(self, event: Event) -> str:
        """Return the path of the copy of an instance, relative to the folder."""
        return filled_path(
            self._template,
            {
                "sop_instance_uid": event.sop_instance_uid,
                "series_instance_uid": event.series_instance_uid,
                "study_instance_uid": event.study_instance_uid,
                "sop_class_uid": event.sop_class_uid,
                "calling_ae_title": event.calling_ae_title,
                "called_ae_title": event.called_ae_title,
                "peer_address": event.peer_address,
                "received_date": event.received_at[:10].replace("-", ""),
            },
            self._extension,
        )

    def _places_of(self, event: Event) -> tuple[list[str], str, str]:
        """Return the folders of a copy, its name, and its name until it is whole: another for each event, the same each time."""
        *parents, last = self.name_of(event).split("/")
        return parents, last, f".{last}.{event.seq}.part"

    def _clear(self, event: Event) -> None:
        """Remove what a crash left of the copy of an event that is not to be copied any more."""
        parents, _, hidden = self._places_of(event)
        with contextlib.suppress(OSError):
            folder = self._open_folder(parents, makes=False)
            try:
                os.unlink(hidden, dir_fd=folder)
            finally:
                os.close(folder)

    def _copy(self, source: int, event: Event, is_over: Callable[[], bool]) -> None:
        parents, last, hidden = self._places_of(event)
        folder = self._open_folder(parents, makes=True)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(hidden, dir_fd=folder)  # what a crash left, or somebody put there
            target = os.open(hidden, _CREATE_FLAGS, self._mode, dir_fd=folder)
            try:
                try:
                    os.fchmod(target, self._mode)  # whatever the umask says
                    copy_into(source, target, is_over)
                    self._files.synchronize(target)
                finally:
                    self._files.close(target)
                os.replace(hidden, last, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(hidden, dir_fd=folder)
                raise
        finally:
            os.close(folder)
        self._files.synchronize_directory(os.path.join(self._folder, *parents))

    def _open_folder(self, parents: Sequence[str], *, makes: bool) -> int:
        """Open a folder below the export folder; with `makes` make it and those above it where they are missing, durably.

        Never the export folder itself, whose disk may be away. Links below it are not followed: others write there, and a
        link of theirs would have us write where they may not.
        """
        path = self._folder
        folder = os.open(path, _FOLDER_FLAGS)
        try:
            for parent in parents:
                if makes:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(parent, _FOLDER_MODE, dir_fd=folder)
                        self._files.synchronize_directory(path)
                path = os.path.join(path, parent)
                try:
                    below = os.open(parent, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
                except NotADirectoryError:
                    raise NotADirectoryError(
                        errno.ENOTDIR, f"{parent} is in the way, which is no folder, or a link", path
                    ) from None
                os.close(folder)
                folder = below
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _is_overtaken(self, event: Event) -> bool:
        """Tell whether a later version has the same name and is in another study, whose events come in no order with this one.

        Those of its own study come in order.
        """
        if "{study_instance_uid}" in self._template:
            return False
        try:
            with self._database.read() as connection:
                later = later_arrivals_elsewhere(connection, event)
        except DatabaseUnavailable as error:
            raise DeliveryError(f"the catalog cannot be read: {error}") from error
        name = self.name_of(event)
        return any(self.name_of(other) == name for other in later)

    def _is_gone(self, event: Event) -> bool:
        """Tell whether the version of an event has left the shelf by what the catalog says."""
        try:
            with self._database.read() as connection:
                version = catalog.find_version_by_receipt(connection, event.receipt_id)
        except DatabaseUnavailable as error:
            raise DeliveryError(f"the catalog cannot be read: {error}") from error
        return version is None or version.state not in (VersionState.KEPT, VersionState.SUPERSEDED)


def filled_path(template: str, values: Mapping[str, str], extension: str) -> str:
    """Return a path by a template: every value is one name in it, whatever letters a peer put into it; `-` where there is none."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", escape(value) if value else "-")
    return template.replace("{ext}", extension)
