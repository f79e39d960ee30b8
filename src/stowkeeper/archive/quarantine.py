"""Quarantine: damaged and suspect files, each with a note beside it. Nothing here is ever deleted by us.

A note is one line: when, where the file stood, and why it was put away.
"""

import errno
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass

from stowkeeper.archive.limits import QUARANTINE_NOTE_BYTES_MAX
from stowkeeper.archive.modes import file_mode_in, folder_mode_in
from stowkeeper.archive.receipt import timestamp
from stowkeeper.durable.filesystem import FileSystem

QUARANTINE = "quarantine"

_NOTE_SUFFIX = ".txt"
_NOTE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (.+?): (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutAway:
    """A file in quarantine and what its note says.

    `path` is relative to the archive, `size` in bytes. `put_away_at` (UTC in ISO 8601) and `origin`, where the file
    stood, are None without a note: a crash can come before it is written. So is `reason`, but for a note that
    somebody else wrote, which is all reason.
    """

    path: str
    size: int
    put_away_at: str | None
    origin: str | None
    reason: str | None


def files_put_away(files: FileSystem, root: str) -> list[PutAway]:
    """Return the files in an archive's quarantine in the order they were put away, those without a time first.

    Raises OSError when the folder cannot be listed.
    """
    folder = os.path.join(root, QUARANTINE)
    try:
        entries = files.list_directory(folder)
    except FileNotFoundError:
        return []
    found = []
    for entry in entries:
        if entry.is_directory or entry.name.endswith(_NOTE_SUFFIX):
            continue
        path = os.path.join(folder, entry.name)
        with suppress(FileNotFoundError):  # moved away by hand just now
            size = files.status(path).size
            at, origin, reason = _read_note(files, path + _NOTE_SUFFIX, root)
            found.append(
                PutAway(
                    path=f"{QUARANTINE}/{entry.name}",
                    size=size,
                    put_away_at=at,
                    origin=origin,
                    reason=reason,
                )
            )
    return sorted(found, key=lambda away: (away.put_away_at or "", away.path))


def _read_note(files: FileSystem, path: str, root: str) -> tuple[str | None, str | None, str | None]:
    """Return when, from where and why a file was put away; its disk may be failing, and the note with it."""
    try:
        descriptor = files.open_for_reading(path)
        try:
            note = files.read(descriptor, QUARANTINE_NOTE_BYTES_MAX, 0).decode("utf-8", "replace").strip()
        finally:
            files.close(descriptor)
    except OSError:
        return None, None, None
    # Suspect depot files are noted by their absolute paths, and the archive's own may hold anything.
    found = _NOTE.fullmatch(note.replace(f" {root}/", " ", 1))
    if found is None:
        return None, None, note or None
    return found[1], found[2], found[3]


class Quarantine:
    """Moves files aside by link and unlink, so that a crash leaves the file under one name at least.

    Whoever calls `keep` or `put_away` holds the shelf's lock (`ShelfLock`), for the syncs of the folders.
    """

    def __init__(self, files: FileSystem, root: str) -> None:
        self._files = files
        self._root = root
        self._folder = os.path.join(root, QUARANTINE)

    def keep(self, path: str, words: str) -> str:
        """Give the file at `path` (relative or absolute) a durable name in quarantine, with a note.

        The old name stays: the caller removes it when its rows say so. Returns the path relative to the
        archive; a file that is in quarantine already keeps its name there. Raises OSError.
        """
        source = os.path.join(self._root, path)
        made = self._files.make_directory(self._folder, folder_mode_in(self._files, self._root))
        try:
            # Whoever made the folder may not have come so far, and a file whose only name is in it must not be lost.
            self._files.synchronize_directory(self._root)
        except OSError:
            if made:
                with suppress(OSError):
                    self._files.remove_directory(self._folder)
            raise
        inode = self._files.status(source).inode
        stem = os.path.basename(path)
        number = 0
        while True:
            name = stem if number == 0 else f"{stem}.{number}"
            target = os.path.join(self._folder, name)
            try:
                self._files.link(source, target)
                break
            except FileExistsError:
                if self._files.status(target).inode == inode:
                    # Left by an earlier try, whose sync may have failed: only a new entry can be proved.
                    self._files.unlink(target)
                else:
                    number += 1
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                raise OSError(error.errno, "the quarantine is on another file system", target) from error
        self._write_note(target + _NOTE_SUFFIX, path, words)
        self._files.synchronize_directory(self._folder)
        return f"{QUARANTINE}/{name}"

    def put_away(self, path: str, words: str) -> str:
        """Move the file at `path` to quarantine. Raises OSError; the file has a name at every moment."""
        kept = self.keep(path, words)
        source = os.path.join(self._root, path)
        self._files.unlink(source)
        self._files.synchronize_directory(os.path.dirname(source))
        return kept

    def _write_note(self, path: str, origin: str, words: str) -> None:
        note = f"{timestamp(time.time_ns())} {origin}: {words}\n".encode()
        try:
            descriptor = self._files.create(path, file_mode_in(self._files, self._root))
        except FileExistsError:
            return
        try:
            self._files.write(descriptor, [note], 0)
            self._files.synchronize(descriptor)
        finally:
            self._files.close(descriptor)
