"""The jobs on the archive do what the commands do, say it in words, go on where they were, and stop when they are told."""

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update

from stowkeeper.archive import audit, catalog, listing
from stowkeeper.archive.archive import Archive, ArchiveOptions, ArchiveReader
from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.outcome import Outcome
from stowkeeper.archive.verification import Verification
from stowkeeper.database import schema
from stowkeeper.jobs import rows
from stowkeeper.jobs.job import Job, JobItem, JobRequest
from stowkeeper.jobs.states import JobState
from stowkeeper.services.archive_job_limits import FINDINGS_MAX, UIDS_MAX
from stowkeeper.services.archive_jobs import (
    ARCHIVE_LANE,
    archive_job_kinds,
    rebuild_request,
    remove_request,
    verify_request,
)
from support.archive_rig import ArchiveView, check_settled
from support.command_line import keep
from support.instances import Instance, make_instance
from support.job_engine_thread import engine_running, job_of, wait_until
from support.quiet_log import quiet_log
from support.slow_disk import SlowDisk

PLACES = {1: ("1.2.10", "1.2.10.1"), 2: ("1.2.10", "1.2.10.2"), 3: ("1.2.20", "1.2.20.1")}
REASON = "sent to the wrong archive"


def instance(number: int, content: int = 0) -> Instance:
    study, series = PLACES[number]
    return make_instance(number, study=study, series=series, content=content)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_log():
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with three instances of two studies."""
    archive = tmp_path_factory.mktemp("template") / "archive"
    keep(archive, *(instance(number) for number in PLACES))
    return archive


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    """A copy of that archive."""
    return Path(shutil.copytree(template, tmp_path / "archive"))


@contextmanager
def opened(root: Path, files: Any = None) -> Iterator[ArchiveReader]:
    reader = ArchiveReader(str(root), files=files)
    try:
        yield reader
    finally:
        reader.close()


def run(reader: ArchiveReader, request: JobRequest, *states: JobState) -> Job:
    """Submit a job to a real engine, and return it when it is over."""
    with engine_running(
        reader.database, Path(reader.root), lambda: archive_job_kinds(reader, scrub_days=0)
    ) as engine:
        job = submit(reader, request)
        engine.wake()
        return wait_until(lambda: over(reader, job, states), f"{job.kind} to end")


def submit(reader: ArchiveReader, request: JobRequest) -> Job:
    with reader.database.write() as transaction:
        return rows.submit(transaction, request)


def over(reader: ArchiveReader, job: Job, states: Sequence[JobState] = ()) -> Job | None:
    now = job_of(reader.database, job.job_id)
    return now if (now.state in states if states else now.is_finished) else None


def items(reader: ArchiveReader, job: Job) -> list[JobItem]:
    with reader.database.read() as connection:
        return rows.items_of(connection, job.job_key)


def path_of(reader: ArchiveReader, number: int) -> Path:
    with reader.database.read() as connection:
        found = catalog.find_versions(connection, [f"1.2.3.{number}"], tuple(VersionState))
    return Path(reader.path_of(found[f"1.2.3.{number}"][-1].path))


def state_of(reader: ArchiveReader, number: int) -> str:
    with reader.database.read() as connection:
        found = catalog.find_versions(connection, [f"1.2.3.{number}"], tuple(VersionState))
    return str(found[f"1.2.3.{number}"][-1].state)


def flip(path: Path, offset: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def forget(reader: ArchiveReader, number: int) -> None:
    with reader.database.write() as transaction:
        transaction.execute(text("PRAGMA defer_foreign_keys = ON"))
        for table in (schema.changes, schema.receipts, schema.versions):
            transaction.execute(delete(table).where(table.c.version_key == number))
        transaction.execute(delete(schema.instances).where(schema.instances.c.instance_key == number))


# Verify.


@pytest.mark.slow
def test_a_whole_archive_is_verified_and_the_words_say_what_was_read(root: Path) -> None:
    with opened(root) as reader:
        size = sum(path.stat().st_size for path in (root / "objects").rglob("*.dcm"))
        job = run(reader, verify_request(created_by="anna"))
        assert (job.state, job.error) == (JobState.SUCCESS, f"3 files read, {size} bytes: all whole")
        assert (job.items_total, job.items_done, items(reader, job)) == (3, 3, [])


@pytest.mark.slow
def test_what_is_wrong_becomes_items_with_words(root: Path) -> None:
    with opened(root) as reader:
        flip(path_of(reader, 1))
        path_of(reader, 2).unlink()
        forget(reader, 3)
        job = run(reader, verify_request(created_by="anna"))
        assert job.state is JobState.SUCCESS
        assert job.error.endswith("0 whole; 1 damaged, 1 missing, 1 unlisted")
        assert {(item.name, item.outcome) for item in items(reader, job)} == {
            ("1.2.3.1", "damaged"),
            ("1.2.3.2", "missing"),
            ("1.2.3.3", "unlisted"),
        }
        damaged = next(item for item in items(reader, job) if item.outcome == "damaged")
        assert "digest" in damaged.words
        assert "moved to quarantine/" in damaged.words
        assert damaged.done_at
        assert state_of(reader, 1) == "damaged"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_", "read"),
    [
        (verify_request(created_by="anna", study_instance_uid="1.2.10"), 2),
        (verify_request(created_by="anna", series_instance_uid="1.2.10.2"), 1),
        (verify_request(created_by="anna", received_from="2999"), 0),
    ],
)
def test_a_part_of_the_archive_is_verified(root: Path, request_: JobRequest, read: int) -> None:
    with opened(root) as reader:
        job = run(reader, request_)
        assert job.items_done == read
        assert job.error.startswith(f"{read} file" if read else "nothing was to be read")


@pytest.mark.slow
def test_with_report_only_nothing_is_put_away(root: Path) -> None:
    with opened(root) as reader:
        flip(path_of(reader, 1))
        job = run(reader, verify_request(created_by="anna", report_only=True))
        assert job.error.endswith("2 whole; 1 damaged")
        assert state_of(reader, 1) == "kept"


def test_a_rate_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        verify_request(created_by="anna", bytes_per_second=10)


def test_a_verification_goes_on_behind_its_checkpoint(root: Path) -> None:
    """As a process leaves it that was killed: the first row is done, what came after it is not written."""
    with opened(root) as reader:
        for number in (1, 2):
            flip(path_of(reader, number))
        request = verify_request(created_by="anna")
        checkpoint = {
            "after": 1,
            "rows_done": False,
            "counts": {"files": 1, "size": 100, "whole": 0},
            "found": {"damaged": 1},
        }
        job = submit(reader, JobRequest(**{**fields(request), "checkpoint": checkpoint}))
        with reader.database.write() as transaction:
            jobs_row = schema.jobs.c.job_key == job.job_key
            transaction.execute(schema.jobs.update().where(jobs_row).values(attempts=1, items_total=3))
            transaction.execute(
                schema.job_items.insert(),
                [
                    {
                        "job_key": job.job_key,
                        "position": 0,
                        "name": "kept",
                        "outcome": "damaged",
                        "words": "",
                    },
                    {
                        "job_key": job.job_key,
                        "position": 7,
                        "name": "late",
                        "outcome": "missing",
                        "words": "",
                    },
                ],
            )
        with engine_running(reader.database, root, lambda: archive_job_kinds(reader, scrub_days=0)):
            ended = wait_until(lambda: over(reader, job))
        assert ended.items_done == 3
        assert ended.error.endswith("1 whole; 2 damaged"), (
            "one before, one now; the file of row 1 was not read again"
        )
        assert [(item.position, item.name) for item in items(reader, job)] == [(0, "kept"), (1, "1.2.3.2")]
        assert state_of(reader, 1) == "kept"


def fields(request: JobRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def test_of_very_many_findings_the_last_are_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FINDINGS_MAX == 10_000
    monkeypatch.setattr("stowkeeper.services.findings.FINDINGS_MAX", 2)
    with opened(root) as reader:
        for number in PLACES:
            path_of(reader, number).unlink()
        job = run(reader, verify_request(created_by="anna"))
        assert [(item.position, item.name) for item in items(reader, job)] == [(0, "1.2.3.3"), (1, "1.2.3.2")]
        assert job.error.endswith("3 missing")


# Rebuild.


def test_a_rebuild_lists_what_no_row_knows_and_says_so(root: Path) -> None:
    with opened(root) as reader:
        forget(reader, 2)
        path_of(reader, 3).unlink()
        job = run(reader, rebuild_request(created_by="anna"))
        assert (job.state, job.error) == (JobState.SUCCESS, "2 files: 1 listed; 1 missing")
        assert [(item.name, item.outcome) for item in items(reader, job)] == [("1.2.3.3", "missing")]
        assert state_of(reader, 2) == "kept"


def test_a_rebuild_of_what_agrees_says_that(root: Path) -> None:
    with opened(root) as reader:
        assert run(reader, rebuild_request(created_by="anna")).error == "3 files: all listed as they are"


# Remove.


def hold(reader: ArchiveReader, *keys: int) -> None:
    with reader.database.write() as transaction:
        catalog.hold(transaction, keys, "commitment 2.25.1 asked by CT")


@pytest.mark.slow
def test_studies_series_and_instances_are_removed_each_with_its_outcome(root: Path) -> None:
    with opened(root) as reader:
        hold(reader, 3)
        job = run(
            reader,
            remove_request(["1.2.10.1", "9.9", "1.2.3.2", "1.2.20"], reason=REASON, created_by="anna"),
        )
        assert job.state is JobState.FAILURE
        assert job.error == "not all was removed: 2 removed, 1 not found, 1 held"
        found = items(reader, job)
        assert [(item.name, item.outcome) for item in found] == [
            ("1.2.10.1", "removed"),
            ("9.9", "not found"),
            ("1.2.3.2", "removed"),
            ("1.2.20", "held"),
        ]
        assert found[0].words == "1 version removed"
        assert found[3].words == "1 version held, not removed: 1.2.3.3 (commitment 2.25.1 asked by CT)"
        assert (job.items_total, job.items_done) == (4, 4)
        assert [state_of(reader, number) for number in PLACES] == ["removed", "removed", "kept"]
        (line,) = {row["reason"] for row in removals(reader)}
        assert line == REASON


def removals(reader: ArchiveReader) -> list[dict[str, Any]]:
    from stowkeeper.archive import inquiries

    return list(inquiries.removals(reader.database))


@pytest.mark.slow
def test_of_a_study_what_is_not_held_goes(root: Path) -> None:
    with opened(root) as reader:
        hold(reader, 1)
        job = run(reader, remove_request(["1.2.10"], reason=REASON, created_by="anna"))
        (item,) = items(reader, job)
        assert (job.state, item.outcome) == (JobState.FAILURE, "partly")
        assert item.words.startswith("1 version removed; 1 version held, not removed: 1.2.3.1")
        assert job.subject == "1.2.10"


@pytest.mark.slow
def test_an_override_removes_held_versions_by_the_name_of_who_asked(root: Path) -> None:
    with opened(root) as reader:
        hold(reader, 1, 2)
        job = run(reader, remove_request(["1.2.10"], reason=REASON, created_by="anna", override_holds=True))
        assert (job.state, job.error) == (JobState.SUCCESS, "1 removed")
        with reader.database.read() as connection:
            entries = audit.list_audit(connection)
        assert {(entry.who, entry.action) for entry in entries} == {("anna", "hold overridden")}
        assert {entry.subject for entry in entries} == {"1.2.3.1", "1.2.3.2"}


@pytest.mark.slow
@pytest.mark.parametrize("again", [rows.resubmit, rows.resume])
def test_an_override_that_goes_on_has_the_name_of_who_let_it_go_on(root: Path, again: Any) -> None:
    with opened(root) as reader:
        hold(reader, 1, 2)
        request = remove_request(["1.2.10"], reason=REASON, created_by="anna", override_holds=True)
        job = submit(reader, request)
        with reader.database.write() as transaction:
            state = JobState.CANCELLED if again is rows.resubmit else JobState.PAUSED
            transaction.execute(update(schema.jobs).values(state=state))
            again(transaction, job.job_id, "berta")
            audit.note(transaction, "otto", "job paused", job.job_id)
        with engine_running(reader.database, root, lambda: archive_job_kinds(reader, scrub_days=0)):
            ended = wait_until(lambda: over(reader, job))
        assert ended.state is JobState.SUCCESS
        with reader.database.read() as connection:
            entries = audit.list_audit(connection)
        assert {entry.who for entry in entries if entry.action == "hold overridden"} == {"berta"}


@pytest.mark.parametrize(
    ("uids", "more"),
    [
        ([], {}),
        ([""], {}),
        (["1.2"], {"reason": " "}),
        (["1.2"], {"reason": "x" * 501}),
        (["1.2"], {"created_by": "", "override_holds": True}),
        ([f"1.{number}" for number in range(UIDS_MAX + 1)], {}),
    ],
)
def test_a_senseless_removal_is_refused(uids: list[str], more: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        remove_request(uids, **{"reason": REASON, "created_by": "anna", **more})


def test_a_removal_whose_process_died_after_the_files_went_says_that_it_removed_them(root: Path) -> None:
    with opened(root) as reader:
        request = remove_request(["1.2.3.1", "9.9"], reason=REASON, created_by="anna")
        job = submit(reader, JobRequest(**{**fields(request), "checkpoint": {"position": 0}}))
        from stowkeeper.archive.removal import Removal

        removal = Removal(reader.files, reader.root, reader.database)
        removal.carry_out(removal.plan("1.2.3.1"), REASON)
        with engine_running(reader.database, root, lambda: archive_job_kinds(reader, scrub_days=0)):
            ended = wait_until(lambda: over(reader, job))
        assert [item.outcome for item in items(reader, job)] == ["removed", "not found"]
        assert ended.error == "not all was removed: 1 removed, 1 not found"


def test_an_item_that_has_its_outcome_is_not_done_again(root: Path) -> None:
    with opened(root) as reader:
        job = submit(reader, remove_request(["1.2.3.1", "1.2.3.2"], reason=REASON, created_by="anna"))
        with reader.database.write() as transaction:
            first = (schema.job_items.c.job_key == job.job_key) & (schema.job_items.c.position == 0)
            done = {"outcome": "removed", "words": "before"}
            transaction.execute(schema.job_items.update().where(first).values(done))
        with engine_running(reader.database, root, lambda: archive_job_kinds(reader, scrub_days=0)):
            ended = wait_until(lambda: over(reader, job))
        assert (ended.state, ended.error) == (JobState.SUCCESS, "2 removed")
        assert [item.words for item in items(reader, job)] == ["before", "1 version removed"]
        assert state_of(reader, 1) == "kept", "it came again since"


# Giving way.


def many(root: Path, count: int, size: int) -> None:
    shutil.rmtree(root)
    keep(root, *(make_instance(number, size=size) for number in range(count)))


REQUESTS = {
    "verify": (verify_request(created_by="anna"), 6, 8_000_000, 0.05),
    "rebuild": (rebuild_request(created_by="anna"), 300, 600, 0.05),
    # A batch of removals holds the writer lock, and nobody can even ask for a pause meanwhile.
    "remove": (remove_request(["1.2.10"], reason=REASON, created_by="anna"), 300, 600, 0.005),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", REQUESTS)
def test_a_job_gives_way_within_a_second_and_goes_on_to_its_end(root: Path, kind: str) -> None:
    request, count, size, moment = REQUESTS[kind]
    many(root, count, size)
    disk = SlowDisk(moment)
    with opened(root, disk) as reader:
        if kind == "rebuild":
            for number in range(1, count, 3):
                forget(reader, number)
        with engine_running(reader.database, root, lambda: archive_job_kinds(reader, scrub_days=0)) as engine:
            job = submit(reader, request)
            engine.wake()
            wait_until(lambda: disk.moments > 10, "it to be in the middle of its work")
            asked = time.monotonic()
            with reader.database.write() as transaction:
                assert rows.find(transaction.connection, job.job_id).state is JobState.RUNNING, (
                    "it is too short"
                )
                rows.pause(transaction, job.job_id, "anna")
            engine.wake()
            wait_until(lambda: job_of(reader.database, job.job_id).state is JobState.PAUSED)
            assert time.monotonic() - asked < 10, "a second, and some for a busy machine"
    with opened(root) as reader:  # a disk that is not slow, and another process
        with reader.database.write() as transaction:
            rows.resume(transaction, job.job_id, "anna")
        with engine_running(reader.database, root, lambda: archive_job_kinds(reader, scrub_days=0)):
            ended = wait_until(lambda: over(reader, job))
        assert ended.state is JobState.SUCCESS, ended.error
        check_settled(ArchiveView(reader.files, reader.database, reader.root))
        assert list(Verification(reader.files, reader.root, reader.database).run()) == []


# Beside a server.


class Sender(threading.Thread):
    """Sends instances to a running archive, again and again in two versions, until it is told to end.

    Not as fast as it can: whatever looks at all of the archive would have ever more to look at.
    """

    PAUSE_SECONDS = 0.005

    def __init__(self, archive: Archive, seed: int) -> None:
        super().__init__()
        self.archive = archive
        self.seed = seed
        self.ending = threading.Event()
        self.kept: dict[str, Instance] = {}
        self.failures: list[str] = []

    def run(self) -> None:
        number = 0
        while not self.ending.wait(self.PAUSE_SECONDS):
            number += 1
            study = f"1.2.{self.seed}.{number % 7}"
            sent = make_instance(
                self.seed * 100_000 + number, study=study, series=f"{study}.1", content=number % 2
            ).under_policy(DuplicatePolicy.KEEP)
            done: list[Outcome] = []
            over = threading.Event()

            def note(outcome: Outcome, done: list[Outcome] = done, over: threading.Event = over) -> None:
                done.append(outcome)
                over.set()

            incoming = self.archive.intake.begin(sent.arrival(), note)
            incoming.write(memoryview(sent.data))
            incoming.commit()
            if not over.wait(30):
                self.failures.append("no answer")
                return
            if done[0].receipt is not None:
                self.kept[done[0].receipt.receipt_id] = sent
            else:
                self.failures.append(str(done[0].refused))


@pytest.mark.slow
def test_rebuilds_removals_and_verifications_beside_a_receiving_server_lose_nothing(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    archive = Archive(str(root), ArchiveOptions(slot_pool_size=64, reserve_size=0, worker_threads=4))
    archive.look_after_the_dead()
    senders = [Sender(archive, seed) for seed in (1, 2)]
    kinds = lambda: archive_job_kinds(archive, scrub_days=0)  # noqa: E731 - called on the engine's loop
    ended: list[Job] = []
    with engine_running(archive.database, root, kinds) as engine:
        for sender in senders:
            sender.start()
        for round_number in range(3):
            grown = count_of_receipts(archive) + 1
            wait_until(lambda grown=grown: count_of_receipts(archive) >= grown, "something to be listed")
            requests = [
                rebuild_request(created_by="anna"),
                verify_request(created_by="anna"),
                remove_request([f"1.2.1.{round_number}"], reason=REASON, created_by="anna"),
            ]
            jobs = [submit(archive, request) for request in requests]
            engine.wake()
            ended += [wait_until(lambda job=job: over(archive, job), job.kind) for job in jobs]
        for sender in senders:
            sender.ending.set()
        for sender in senders:
            sender.join(30)
    assert archive.finisher.wait_until_idle(30)
    assert [sender.failures for sender in senders] == [[], []]
    wrong = [job.error for job in ended if job.kind == "verify" and "all whole" not in job.error]
    assert wrong == []
    assert {job.error.partition(":")[2].strip() for job in ended if job.kind == "rebuild"} == {
        "all listed as they are"
    }, "it took what the server was about to list"
    assert ArchiveView(archive.files, archive.database, archive.root).depot() == []
    check_settled(ArchiveView(archive.files, archive.database, archive.root))
    receipts = {row["receipt_id"]: row for row in listing.receipts(archive.database)}
    for sender in senders:
        assert set(sender.kept) <= set(receipts)
    archive.close()


def count_of_receipts(archive: ArchiveReader) -> int:
    with archive.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(schema.receipts)).scalar_one())


def test_each_kind_that_reads_much_has_the_lane_of_the_archive() -> None:
    assert {verify_request(created_by="a").lane, rebuild_request(created_by="a").lane} == {ARCHIVE_LANE}
    assert remove_request(["1.2"], reason=REASON, created_by="a").lane == "disk"
