"""Whatever happens to a file or to its row, it is never told to be committed: with the server fresh, and after a restart."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import delete

from stowkeeper.archive.verification import Verification
from stowkeeper.database.schema import changes, instances, receipts, versions
from stowkeeper.dicom.commitment_information import decode_event_information
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.services.commitment.options import CommitmentOptions
from stowkeeper.services.peers import Peer
from support.commitment_server import CommitmentServer, commitment_serving
from support.commitment_user import named
from support.instances import make_instance
from support.quiet_log import quiet_log
from support.raw_commitment import action_data, ask, push_model_context
from support.raw_peer import RawPeer
from support.scripted_acceptor import Acceptor, scripted_acceptor

pytestmark = pytest.mark.slow

UID = "1.2.840.1"
WHOLE, BAD = 1, 2
PROCESSING_FAILURE, NO_SUCH_INSTANCE = 0x0110, 0x0112


class ForbiddingFileSystem(FileSystem):
    """Opens all but some files: root may read what nobody may, and tests run as root."""

    __slots__ = ("forbidden",)

    def __init__(self) -> None:
        self.forbidden: set[str] = set()

    def open_for_reading(self, path: str) -> int:
        if path in self.forbidden:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
        return super().open_for_reading(path)


class Bench:
    """A server that can be restarted, and the peer that is told."""

    def __init__(self, stack: ExitStack, root: Path, options: CommitmentOptions) -> None:
        self._stack = stack
        self._root = root
        self._options = options
        self._context: object = None
        self.files = ForbiddingFileSystem()
        self.acceptor: Acceptor = stack.enter_context(scripted_acceptor())
        self.server: CommitmentServer = self._start()

    def _start(self) -> CommitmentServer:
        peer = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=self.acceptor.port)
        self._running = ExitStack()
        self._stack.push(self._running)
        self.server = self._running.enter_context(
            commitment_serving(self._root, peer, options=self._options, archive_options={"files": self.files})
        )
        return self.server

    def restart(self) -> None:
        self._running.close()
        self._start()

    def told(self, *numbers: int, uid: str = UID) -> dict[int, int]:
        """Ask for instances, and return the reason that each failed with, 0 where it is committed."""
        before = len(self.acceptor.received)
        with RawPeer(self.server.port) as peer:
            peer.associate(push_model_context(), calling=b"SCANNER")
            assert ask(peer, action_data(uid, named(*numbers))).status == 0
            peer.release()
        self.server.wait_for_state(uid, CommitmentState.REPORTED)
        received = self.acceptor.received[before]
        report = decode_event_information(received.data_set, received.context.transfer_syntax)
        told = dict.fromkeys((_number(one.sop_instance_uid) for one in report.committed), 0)
        return told | {_number(one.reference.sop_instance_uid): one.reason for one in report.failed}


def _number(uid: str) -> int:
    return int(uid.rpartition(".")[2])


@pytest.fixture
def bench(tmp_path, request):
    options = getattr(request, "param", None) or CommitmentOptions(grace_seconds=0.0)
    with quiet_log(), ExitStack() as stack:
        yield Bench(stack, tmp_path / "archive", options)


# What can happen


def deleted(bench: Bench, path: Path) -> None:
    path.unlink()


def truncated_by_one(bench: Bench, path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def truncated_in_its_head(bench: Bench, path: Path) -> None:
    os.truncate(path, 300)


def emptied(bench: Bench, path: Path) -> None:
    os.truncate(path, 0)


def made_longer(bench: Bench, path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0\0")


def flipped_in_the_preamble(bench: Bench, path: Path) -> None:
    flip(path, 5)


def flipped_in_the_receipt(bench: Bench, path: Path) -> None:
    flip(path, path.read_bytes().index(b"{") + 20)


def flipped_in_the_data_set(bench: Bench, path: Path) -> None:
    flip(path, -2)


def replaced_by_zeros(bench: Bench, path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def replaced_by_another_instance(bench: Bench, path: Path) -> None:
    shutil.copy(bench.server.path_of(f"1.2.3.{WHOLE}"), path)


def replaced_by_a_link(bench: Bench, path: Path) -> None:
    path.unlink()
    path.symlink_to(bench.server.path_of(f"1.2.3.{WHOLE}"))


def replaced_by_a_folder(bench: Bench, path: Path) -> None:
    path.unlink()
    path.mkdir()


def forbidden(bench: Bench, path: Path) -> None:
    bench.files.forbidden.add(str(path))


def folder_gone(bench: Bench, path: Path) -> None:
    shutil.rmtree(path.parent)


def row_gone(bench: Bench, path: Path) -> None:
    version = bench.server.version_of(f"1.2.3.{BAD}")
    key = version.version_key
    with bench.server.database.write() as transaction:
        transaction.execute(delete(changes).where(changes.c.version_key == key))
        transaction.execute(delete(receipts).where(receipts.c.version_key == key))
        transaction.execute(delete(versions).where(versions.c.version_key == key))
        transaction.execute(delete(instances).where(instances.c.instance_key == version.instance_key))


def flip(path: Path, at: int, bit: int = 4) -> None:
    """Flip one bit of a byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


MISSING = (deleted, folder_gone, row_gone, replaced_by_another_instance)
DAMAGES: tuple[Callable[[Bench, Path], None], ...] = (
    *MISSING,
    truncated_by_one,
    truncated_in_its_head,
    emptied,
    made_longer,
    flipped_in_the_preamble,
    flipped_in_the_receipt,
    flipped_in_the_data_set,
    replaced_by_zeros,
    replaced_by_a_link,
    replaced_by_a_folder,
    forbidden,
)


@pytest.mark.parametrize("restarts", [False, True], ids=["fresh", "restarted"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_damaged_missing_or_unreadable_is_never_committed(bench, damage, restarts):
    bench.server.keep(WHOLE)
    bench.server.keep(BAD, series="1.2.10.2")
    damage(bench, bench.server.path_of(f"1.2.3.{BAD}"))
    if restarts:
        bench.restart()
    expected = NO_SUCH_INSTANCE if damage in MISSING else PROCESSING_FAILURE
    told = hurried(bench) if damage in (forbidden, replaced_by_a_folder, replaced_by_a_link) else None
    assert (told or bench.told(WHOLE, BAD)) == {WHOLE: 0, BAD: expected}
    assert not bench.server.version_of(f"1.2.3.{WHOLE}").path.startswith("quarantine")


def hurried(bench: Bench) -> dict[int, int]:
    """Ask where a file cannot be read, which is looked at twice with a pause between."""
    before = len(bench.acceptor.received)
    server = bench.server
    with RawPeer(server.port) as peer:
        peer.associate(push_model_context(), calling=b"SCANNER")
        assert ask(peer, action_data(UID, named(WHOLE, BAD))).status == 0
        peer.release()

    def told() -> bool:
        if any(one.outcome == "committed" for one in server.instances(UID)):
            server.hurry()
        return server.commitment(UID).state is CommitmentState.REPORTED

    server.wait(told, "the report")
    received = bench.acceptor.received[before]
    report = decode_event_information(received.data_set, received.context.transfer_syntax)
    assert len(server.instances(UID)) == 2
    return {_number(one.sop_instance_uid): 0 for one in report.committed} | {
        _number(one.reference.sop_instance_uid): one.reason for one in report.failed
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads what nobody may")
def test_a_file_that_nobody_may_read_is_not_committed(bench):
    bench.server.keep(WHOLE, BAD)
    bench.server.path_of(f"1.2.3.{BAD}").chmod(0)
    assert hurried(bench) == {WHOLE: 0, BAD: PROCESSING_FAILURE}


def test_a_resend_of_the_same_bytes_repairs_what_was_damaged(bench):
    """And what was promised of these bytes holds for the new file."""
    bench.server.keep(WHOLE)
    assert bench.told(WHOLE) == {WHOLE: 0}
    flip(bench.server.path_of(f"1.2.3.{WHOLE}"), -2)
    assert bench.told(WHOLE, uid="1.2.840.2") == {WHOLE: PROCESSING_FAILURE}
    bench.server.keep(WHOLE)
    assert bench.told(WHOLE, uid="1.2.840.3") == {WHOLE: 0}
    assert bench.server.version_of(f"1.2.3.{WHOLE}").is_held


def test_what_the_check_finds_damaged_stands_in_quarantine(bench):
    bench.server.keep(WHOLE)
    flip(bench.server.path_of(f"1.2.3.{WHOLE}"), -2)
    bench.told(WHOLE)
    found = list(Path(bench.server.archive.root, "quarantine").rglob("1.2.3.1*.dcm"))
    assert len(found) == 1
    verification = Verification(bench.server.archive.files, bench.server.archive.root, bench.server.database)
    assert [one.words.partition(" on ")[0] for one in verification.run()] == ["it was found damaged"]


@pytest.mark.parametrize(
    ("bench", "expected"),
    [
        (
            CommitmentOptions(grace_seconds=0.0, policy="exists"),
            {1: NO_SUCH_INSTANCE, 2: PROCESSING_FAILURE, 3: 0},
        ),
        (CommitmentOptions(grace_seconds=0.0, policy="index"), {1: 0, 2: 0, 3: 0}),
    ],
    indirect=["bench"],
)
def test_a_weaker_policy_promises_what_it_looks_at(bench, expected):
    bench.server.keep(1, 2, 3)
    deleted(bench, bench.server.path_of("1.2.3.1"))
    truncated_by_one(bench, bench.server.path_of("1.2.3.2"))
    flipped_in_the_data_set(bench, bench.server.path_of("1.2.3.3"))
    assert bench.told(1, 2, 3) == expected


EACH = 7
"""How far apart the bytes are; the bit that turns is another one each time."""


def test_one_bit_anywhere_in_a_file_is_seen(bench):
    """An instance for each place: preamble, file meta information, receipt and data set.

    `tests/archive/test_archive_checking.py` turns a bit of every byte, with the check alone.
    """
    bench.server.keep(0, size=8)
    length = bench.server.path_of("1.2.3.0").stat().st_size
    places = range(0, length, EACH)
    bench.server.store([make_instance(1 + at, size=8) for at in places])
    assert bench.server.archive.finisher.wait_until_idle(60.0)
    for at in places:
        flip(bench.server.path_of(f"1.2.3.{1 + at}"), at, at % 8)
    told = bench.told(0, *(1 + at for at in places))
    assert told.pop(0) == 0
    assert [at for at in places if not told[1 + at]] == [], "flips at these places passed"
    assert len(told) == len(places)
