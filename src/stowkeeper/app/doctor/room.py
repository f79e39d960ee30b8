"""Whether there is room: bytes and inodes against the marks at which instances are refused."""

import os
import shlex
from collections.abc import Iterator

from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.doctor.finding import Finding, failure, ok, warning
from stowkeeper.archive.admission import DiskMarks
from stowkeeper.archive.limits import LOW_TIMES_MARK
from stowkeeper.durable.filesystem import FileSystem

ROOM = "room"


def check_room(files: FileSystem, place: str, marks: DiskMarks) -> Iterator[Finding]:
    """Compare what is free around a folder that is there with the marks."""
    quoted = shlex.quote(place)
    try:
        space = files.free_space(place)
    except OSError as error:
        yield failure(ROOM, f"the free space of {place} cannot be read: {error.strerror}", f"df -h {quoted}")
        return
    yield _bytes(
        place, space.bytes, marks, f"df -h {quoted}; sudo du -xhd1 {shlex.quote(os.path.dirname(place))}"
    )
    if space.inodes is None:
        yield ok(ROOM, f"the file system of {place} does not count inodes")
    else:
        yield _inodes(place, space.inodes, marks, f"df -i {quoted}; sudo du -xd1 --inodes {quoted}")


def _bytes(place: str, free: int, marks: DiskMarks, look: str) -> Finding:
    words = f"{human_size(free)} are free for {place}"
    mark = marks.instance_bytes
    if free < marks.association_bytes:
        limit = f"storage.refuse_association_below is {human_size(marks.association_bytes)}"
        return failure(ROOM, f"{words}, and {limit}: no association for storage is accepted", look)
    if free < mark:
        limit = f"storage.refuse_instance_below is {human_size(mark)}"
        return failure(ROOM, f"{words}, and {limit}: every instance is refused", look)
    if free < LOW_TIMES_MARK * mark:
        return warning(ROOM, f"{words}: below {human_size(mark)} every instance is refused", look)
    return ok(ROOM, f"{words}; instances are refused below {human_size(mark)}")


def _inodes(place: str, free: int, marks: DiskMarks, look: str) -> Finding:
    words = f"{free} inodes are free for {place}"
    mark = marks.instance_inodes
    if free < marks.association_inodes:
        limit = f"storage.refuse_association_below_inodes is {marks.association_inodes}"
        return failure(ROOM, f"{words}, and {limit}: no association for storage is accepted", look)
    if free < mark:
        limit = f"storage.refuse_instance_below_inodes is {mark}"
        return failure(ROOM, f"{words}, and {limit}: every instance is refused", look)
    if free < LOW_TIMES_MARK * mark:
        return warning(ROOM, f"{words}: below {mark} every instance is refused", look)
    return ok(ROOM, f"{words}; instances are refused below {mark}")
