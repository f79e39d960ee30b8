"""Quarantine: damaged and suspect files, each with a note beside it. Nothing here is ever deleted by us."""

import errno
import os
import time
from contextlib import suppress

from stowkeeper.archive.receipt import timestamp
from stowkeeper.durable.filesystem import FileSystem

QUARANTINE = "quarantine"


class Quarantine:
    """Moves files aside by link and unlink, so that a crash leaves the file under one name at least."""

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
        made = self._files.make_directory(self._folder)
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
        self._write_note(target + ".txt", path, words)
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
            descriptor = self._files.create(path, 0o644)
        except FileExistsError:
            return
        try:
            self._files.write(descriptor, [note], 0)
            self._files.synchronize(descriptor)
        finally:
            self._files.close(descriptor)
