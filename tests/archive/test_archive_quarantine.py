"""What is in quarantine can be asked for: when and why it was put away, where it stood, and whose it is."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.archive import catalog
from stowkeeper.archive.inquiries import quarantined
from stowkeeper.archive.limits import QUARANTINE_NOTE_BYTES_MAX
from stowkeeper.archive.listing import ListingFilter
from stowkeeper.archive.quarantine import PutAway, Quarantine, files_put_away
from stowkeeper.archive.removal import Removal
from stowkeeper.durable.filesystem import FileSystem
from support.archive_rig import ArchiveRig
from support.catalog_rows import open_database
from support.instances import make_instance

FILES = FileSystem()
AT = "2026-03-02T08:15:04.000001Z"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The quarantine of an archive whose own path holds what separates the parts of a note."""
    made = tmp_path / "an archive: ours" / "quarantine"
    made.mkdir(parents=True)
    return made


def put(folder: Path, name: str, note: str | bytes | None, content: bytes = b"12345") -> None:
    (folder / name).write_bytes(content)
    if note is not None:
        (folder / f"{name}.txt").write_bytes(note if isinstance(note, bytes) else note.encode())


def away(path: str, at: str | None = AT, origin: str | None = None, reason: str | None = None) -> PutAway:
    return PutAway(path=f"quarantine/{path}", size=5, put_away_at=at, origin=origin, reason=reason)


# Files and their notes.


def test_where_nothing_was_put_away_nothing_is_found(tmp_path: Path) -> None:
    assert files_put_away(FILES, str(tmp_path)) == []


def test_files_come_in_the_order_they_were_put_away(folder: Path) -> None:
    put(folder, "b", "2026-03-02T08:15:04.000001Z objects/1/2/b: why: because\n")
    put(folder, "a", "2026-03-02T08:15:04.000002Z objects/1/2/a: a bit\n")
    put(folder, "c", None)
    put(folder, "orphan.txt", "the file of this note was moved away")
    (folder / "a folder").mkdir()
    assert files_put_away(FILES, str(folder.parent)) == [
        away("c", None),
        away("b", AT, "objects/1/2/b", "why: because"),
        away("a", "2026-03-02T08:15:04.000002Z", "objects/1/2/a", "a bit"),
    ]


def test_what_the_archive_notes_is_read_back(folder: Path) -> None:
    root = folder.parent
    (root / "objects").mkdir()
    (root / "depot").mkdir()
    (root / "depot" / "7f").write_bytes(b"12345")
    (root / "here").write_bytes(b"12345")
    quarantine = Quarantine(FILES, str(root))
    quarantine.put_away(f"{root}/depot/7f", "cut: short")  # as recovery names it
    quarantine.put_away("here", "its data set does not fit")
    assert [(found.path, found.origin, found.reason) for found in files_put_away(FILES, str(root))] == [
        ("quarantine/7f", "depot/7f", "cut: short"),
        ("quarantine/here", "here", "its data set does not fit"),
    ]


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        (b"", None),
        (b"2026-03-02T08:1", "2026-03-02T08:1"),
        (b"I looked at this one, it is of no use\n", "I looked at this one, it is of no use"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_a_note_that_is_none_of_ours_is_all_reason(folder: Path, note: bytes, reason: str | None) -> None:
    put(folder, "a", note)
    assert files_put_away(FILES, str(folder.parent)) == [away("a", None, None, reason)]


def test_of_a_long_note_only_so_much_is_read(folder: Path) -> None:
    begin = f"{AT} objects/1: "
    put(folder, "a", begin + "x" * 2 * QUARANTINE_NOTE_BYTES_MAX)
    (found,) = files_put_away(FILES, str(folder.parent))
    assert found.reason == "x" * (QUARANTINE_NOTE_BYTES_MAX - len(begin))


class FailingReads(FileSystem):
    """A disk that does not give some files' bytes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(self.name):
            raise OSError(errno.EIO, "Input/output error")
        return super().read(descriptor, length, offset)


def test_a_note_that_cannot_be_read_hides_no_file(folder: Path) -> None:
    put(folder, "a", f"{AT} objects/1: why\n")
    assert files_put_away(FailingReads("a.txt"), str(folder.parent)) == [away("a", None)]


# Whose they are.


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ArchiveRig]:
    with open_database(tmp_path, sync=False) as database:
        rig = ArchiveRig(FILES, database, root=str(tmp_path))
        for number in (1, 2):
            rig.keep(make_instance(number, study="1.2.10", series="1.2.10.1"))
        rig.finish()
        yield rig
        rig.folder.release()


def condemn(rig: ArchiveRig, number: int, *, head: bool = False) -> str:
    """Damage the file of an instance, in its head or its data set, and put it away as verification does."""
    (path,) = (row["path"] for row in rig.versions() if row["sop_instance_uid"] == f"1.2.3.{number}")
    place = Path(rig.path(path))
    content = bytearray(place.read_bytes())
    content[200 if head else -1] ^= 1
    place.chmod(0o600)
    place.write_bytes(content)
    with rig.database.write() as transaction:
        catalog.mark_damaged(transaction, path, "a bit")
    Quarantine(FILES, rig.root).put_away(path, "a bit")
    return path


@pytest.mark.parametrize("head", [False, True])
def test_a_damaged_file_is_known_by_its_receipt_or_by_where_it_stood(rig: ArchiveRig, head: bool) -> None:
    path = condemn(rig, 1, head=head)
    (row,) = quarantined(rig.database, FILES, rig.root)
    (receipt,) = (found for found in rig.receipts() if found["sop_instance_uid"] == "1.2.3.1")
    assert {name: row[name] for name in row if name not in ("put_away_at", "size")} == {
        "reason": "a bit",
        "path": f"quarantine/{os.path.basename(path)}",
        "origin": path,
        "sop_instance_uid": "1.2.3.1",
        "study_instance_uid": "1.2.10",
        "series_instance_uid": "1.2.10.1",
        "receipt_id": receipt["receipt_id"],
        "received_at": receipt["received_at"],
        "calling_ae_title": "SCANNER",
        "state": "damaged",
    }


def test_a_row_that_was_closed_says_so(rig: ArchiveRig) -> None:
    condemn(rig, 1)
    removal = Removal(FILES, rig.root, rig.database)
    removal.carry_out(removal.plan("1.2.3.1"), "no use")
    (row,) = quarantined(rig.database, FILES, rig.root)
    assert (row["state"], row["sop_instance_uid"]) == ("removed", "1.2.3.1")


def test_a_file_that_was_never_listed_has_no_state(rig: ArchiveRig) -> None:
    receipt = rig.keep(make_instance(9))
    Quarantine(FILES, rig.root).put_away(rig.depot()[0], "it is longer than its receipt says")
    (row,) = quarantined(rig.database, FILES, rig.root)
    assert (row["receipt_id"], row["sop_instance_uid"], row["calling_ae_title"]) == (
        receipt.receipt_id,
        "1.2.3.9",
        "SCANNER",
    )
    assert (row["state"], row["study_instance_uid"]) == (None, None)


def test_of_a_file_that_tells_nothing_only_its_place_is_known(rig: ArchiveRig) -> None:
    condemn(rig, 1)
    (Path(rig.root) / "quarantine" / "stray").write_bytes(b"?")
    stray, _ = quarantined(rig.database, FailingReads("stray"), rig.root)
    assert {name: value for name, value in stray.items() if value is not None} == {
        "path": "quarantine/stray",
        "size": 1,
    }


def test_a_file_is_chosen_by_what_it_belongs_to(rig: ArchiveRig) -> None:
    condemn(rig, 1)
    condemn(rig, 2, head=True)

    def chosen(**only: str) -> list[str]:
        rows = quarantined(rig.database, FILES, rig.root, ListingFilter(**only))
        return [row["sop_instance_uid"] for row in rows]

    assert chosen() == chosen(uid="1.2.10") == chosen(uid="1.2.10.1") == ["1.2.3.1", "1.2.3.2"]
    assert chosen(uid="1.2.3.2") == ["1.2.3.2"]
    assert chosen(uid="1.2.9") == chosen(calling_ae_title="OTHER") == []
    assert (
        chosen(received_from="2026", received_before="2999") == chosen(calling_ae_title="SCANNER") == chosen()
    )
    assert chosen(received_from="2999") == chosen(received_before="2026") == []
