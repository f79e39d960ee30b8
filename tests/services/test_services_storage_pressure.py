"""A disk that fills: the marks one after the other and back, without a restart; and nothing kept is ever deleted for room."""

from pathlib import Path

from sqlalchemy import select
from structlog.testing import capture_logs
from test_services_storage import Conversation, association_request, rejection, results
from test_services_storage_space import MARKS, Filling

from stowkeeper.archive import catalog
from stowkeeper.archive.admission import DiskPressure
from stowkeeper.archive.archive import Archive
from stowkeeper.archive.changes import ChangeKind
from stowkeeper.archive.removal import remove_due
from stowkeeper.database.engine import utc_now
from stowkeeper.database.schema import changes, versions
from stowkeeper.durable.filesystem import FreeSpace
from support.archive_server import open_archive
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.job_engine_thread import wait_until

GRACE_ENDS = "2999-01-01T00:00:00.000000Z"
PLENTY = FreeSpace(bytes=10**12, inodes=10**9)
LOW = FreeSpace(bytes=3 * 10**9, inodes=10**9)
SHORT = FreeSpace(bytes=15 * 10**8, inodes=10**9)
NONE = FreeSpace(bytes=0, inodes=0)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "objects").rglob("*.dcm")}


def state_of(archive: Archive) -> tuple[set[str], set[str]]:
    """The states of all versions, and the kinds of all changes."""
    with archive.database.read() as connection:
        states = set(connection.execute(select(versions.c.state)).scalars())
        return states, set(connection.execute(select(changes.c.kind)).scalars())


def test_a_disk_that_fills_warns_refuses_rejects_and_recovers_and_deletes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    files = Filling()
    archive = open_archive(root, files=files, marks=MARKS)
    told = []
    try:
        for free, status, is_rejected in (
            (PLENTY, 0, False),
            (LOW, 0, False),
            (SHORT, 0xA700, False),
            (NONE, 0xA700, True),
            (SHORT, 0xA700, False),
            (PLENTY, 0, False),
        ):
            if len(told) == 1:
                # One that was replaced and has its grace: not even that is taken for room before its time.
                wait_until(lambda: state_of(archive)[0], "the first to be listed")
                with archive.database.write() as transaction:
                    catalog.mark_superseded(transaction, [1], removal_due_at=GRACE_ENDS, reason="replaced")
            files.free = free
            with capture_logs() as logs:
                archive.admission.check_space()
                # What is there when the marks are met is looked after as ever: nobody makes room by it.
                remove_due(archive.files, archive.root, archive.database, utc_now())
            told.append([line["log_level"] for line in logs if line["event"] == "disk"])
            talk = Conversation(archive)
            decision = talk.service.negotiate(association_request(CT_IMAGE_STORAGE), talk.facts)
            if is_rejected:
                assert rejection(decision) == (2, 3, 2)
            else:
                assert results(decision) == [0]
            before = files_of(root)
            # One with other bytes under the same UID among them: the older version stays as well.
            number = len(told)
            answer = talk.send(make_instance(1 if number == 6 else number, content=number))
            assert answer.status == status, free
            assert before.items() <= files_of(root).items(), "a kept file is gone or was changed"
        assert archive.admission.pressure is DiskPressure.NONE
    finally:
        archive.close()
    assert told == [[], ["warning"], ["error"], ["error"], ["error"], ["info"]]
    archive = open_archive(root, files=files, marks=MARKS)
    try:
        states, kinds = state_of(archive)
        assert states == {"kept", "superseded"}
        gone = {ChangeKind.REMOVING, ChangeKind.REMOVED, ChangeKind.DAMAGED}
        assert kinds.isdisjoint({kind.value for kind in gone})
        assert len(files_of(root)) == 3
    finally:
        archive.close()
