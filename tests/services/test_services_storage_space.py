"""The Storage service on a disk that has no room, and on one that has room again."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest
from structlog.testing import capture_logs
from test_services_storage import (
    FIND,
    MR_IMAGE_STORAGE,
    VERIFICATION,
    Conversation,
    association_request,
    check_refused,
    rejection,
    results,
)

from stowkeeper.archive.admission import DiskMarks, DiskPressure
from stowkeeper.archive.archive import Archive
from stowkeeper.durable.filesystem import FileSystem, FreeSpace
from stowkeeper.net.handlers import StoreAnswer
from stowkeeper.upperlayer.items import ProposedContext
from support.archive_server import RULES, open_archive
from support.instances import CT_IMAGE_STORAGE, make_instance


class Filling(FileSystem):
    """A file system whose free space is what the test says."""

    free = FreeSpace(bytes=10**12, inodes=10**9)

    def free_space(self, path: str) -> FreeSpace:
        return self.free


MARKS = DiskMarks(
    instance_bytes=2 * 10**9, association_bytes=10**9, instance_inodes=20_000, association_inodes=10_000
)


@pytest.fixture
def filling(tmp_path: Path) -> Iterator[tuple[Archive, Filling]]:
    files = Filling()
    opened = open_archive(tmp_path / "archive", files=files, marks=MARKS)
    yield opened, files
    opened.close()


@pytest.mark.parametrize(
    "free", [FreeSpace(bytes=1_900_000_000, inodes=10**9), FreeSpace(bytes=10**12, inodes=19_000)]
)
def test_below_the_first_mark_instances_are_refused_one_by_one(
    filling: tuple[Archive, Filling], free: FreeSpace
) -> None:
    archive, files = filling
    talk = Conversation(archive)
    files.free = free
    archive.admission.check_space()
    assert results(talk.service.negotiate(association_request(CT_IMAGE_STORAGE), talk.facts)) == [0]
    with capture_logs() as logs:
        check_refused(talk, talk.send(make_instance(1)), 0xA700)
    assert [line["log_level"] for line in logs if line.get("status") == "A700H"] == ["error"]


@pytest.mark.parametrize(
    "free", [FreeSpace(bytes=900_000_000, inodes=10**9), FreeSpace(bytes=10**12, inodes=9_000)]
)
def test_below_the_second_mark_storage_is_not_negotiated_and_echo_goes_on(
    filling: tuple[Archive, Filling], free: FreeSpace
) -> None:
    archive, files = filling
    talk = Conversation(archive)
    files.free = free
    archive.admission.check_space()
    decide = talk.service.negotiate
    assert rejection(decide(association_request(CT_IMAGE_STORAGE, MR_IMAGE_STORAGE), talk.facts)) == (2, 3, 2)
    assert rejection(decide(association_request(CT_IMAGE_STORAGE, FIND), talk.facts)) == (2, 3, 2)
    assert rejection(decide(association_request("1.2.3.4"), talk.facts)) == (2, 3, 2)
    assert results(decide(association_request(CT_IMAGE_STORAGE, VERIFICATION), talk.facts)) == [1, 0]
    assert results(decide(association_request(VERIFICATION), talk.facts)) == [0]


def test_low_disk_space_hides_no_other_reason(filling: tuple[Archive, Filling]) -> None:
    archive, files = filling
    files.free = FreeSpace(bytes=0, inodes=0)
    archive.admission.check_space()
    policy = replace(RULES.acceptance, called_ae_titles=frozenset({"STOWKEEPER"}))
    talk = Conversation(archive, replace(RULES, acceptance=policy))
    decide = talk.service.negotiate
    for title, reasons in (("OTHER", (1, 1, 7)), ("STOWKEEPER", (2, 3, 2))):
        asked = association_request(CT_IMAGE_STORAGE, called_ae_title=title)
        assert rejection(decide(asked, talk.facts)) == reasons
    assert results(decide(association_request(FIND), talk.facts)) == [3], (
        "there is no room for it at any time"
    )
    unknown_syntax = ProposedContext(
        context_id=1, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=("1.2.3",)
    )
    asked = association_request(presentation_contexts=(unknown_syntax,))
    assert results(decide(asked, talk.facts)) == [4]
    assert rejection(decide(association_request(), talk.facts)) == (1, 1, 1)


def test_what_is_accepted_and_no_storage_goes_on_without_space(filling: tuple[Archive, Filling]) -> None:
    archive, files = filling
    files.free = FreeSpace(bytes=0, inodes=0)
    archive.admission.check_space()
    policy = replace(RULES.acceptance, accepts_abstract_syntax=lambda uid: uid in {FIND, CT_IMAGE_STORAGE})
    talk = Conversation(archive, replace(RULES, acceptance=policy))
    asked = association_request(CT_IMAGE_STORAGE, FIND)
    assert results(talk.service.negotiate(asked, talk.facts)) == [1, 0]


@pytest.mark.slow
def test_a_disk_that_fills_in_mid_instance_refuses_it(filling: tuple[Archive, Filling]) -> None:
    archive, files = filling
    talk = Conversation(archive)
    answers: SimpleQueue[StoreAnswer] = SimpleQueue()
    instance = make_instance(1, size=30_000_000)
    operation = talk.begin(instance, answers)
    operation.write(memoryview(instance.data)[:1_000_000], None)
    operation.flush()
    files.free = FreeSpace(bytes=1_000, inodes=10**9)
    for start in range(1_000_000, len(instance.data), 1_000_000):
        operation.write(memoryview(instance.data)[start : start + 1_000_000], None)
        operation.flush()
    operation.commit()
    answer = answers.get(timeout=30)
    operation.answered(answer)
    check_refused(talk, answer, 0xA700)


@pytest.mark.slow
def test_a_refusal_for_space_ends_when_there_is_room_again(filling: tuple[Archive, Filling]) -> None:
    archive, files = filling
    files.free = FreeSpace(bytes=0, inodes=10**9)
    looked = threading.Semaphore(0)
    check_space = archive.admission.check_space

    def look() -> None:
        check_space()
        looked.release()

    archive.admission.check_space = look  # type: ignore[method-assign]  # to know when the keeper has looked
    archive.look_after_the_dead()
    assert looked.acquire(timeout=30)
    assert archive.admission.refusal() == "the disk is full"
    files.free = FreeSpace(bytes=10**12, inodes=10**9)
    assert looked.acquire(timeout=30)
    assert looked.acquire(timeout=30)  # this look began after the change
    assert archive.admission.refusal() == ""
    assert Conversation(archive).send(make_instance(1)).status == 0


def test_each_change_of_the_room_is_said_once(filling: tuple[Archive, Filling]) -> None:
    archive, files = filling
    said = []
    rooms = [
        FreeSpace(bytes=3_900_000_000, inodes=10**9),
        FreeSpace(bytes=3_900_000_000, inodes=39_000),
        FreeSpace(bytes=10**12, inodes=19_000),
        FreeSpace(bytes=0, inodes=None),
        FreeSpace(bytes=10**12, inodes=None),
    ]
    for free in rooms:
        files.free = free
        with capture_logs() as logs:
            archive.admission.check_space()
            archive.admission.check_space()
        said.append([(line["log_level"], line["what"]) for line in logs if line["event"] == "disk"])
    low = "the room gets short: make some before instances are refused"
    refused = "instances are refused for want of room"
    neither = "instances are refused, and storage is not negotiated, for want of room"
    assert said == [
        [("warning", low)],
        [],
        [("error", refused)],
        [("error", neither)],
        [("info", "there is room again")],
    ]


def test_while_room_gets_short_nothing_is_refused(filling: tuple[Archive, Filling]) -> None:
    archive, files = filling
    files.free = FreeSpace(bytes=2_100_000_000, inodes=10**9)
    archive.admission.check_space()
    assert archive.admission.pressure is DiskPressure.LOW
    talk = Conversation(archive)
    talk.service.negotiate(association_request(CT_IMAGE_STORAGE), talk.facts)
    assert talk.send(make_instance(1)).status == 0
