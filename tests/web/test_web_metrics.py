"""The metrics: each number follows what happens, whoever does it, and a scrape costs little however much there is."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, insert, update

from stowkeeper.archive import catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord, record_associations, record_requests
from stowkeeper.archive.versions import mark_damaged
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import commitment_reports, commitments
from stowkeeper.database.schema import jobs as jobs_table
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import Job, JobRequest
from stowkeeper.jobs.times import later
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import (
    CommitmentRequest,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.scrubbing import SCRUB, Round
from stowkeeper.web import metric_rows, metrics
from stowkeeper.web.metric_rows import LATENCY_BOUNDS, RowCounters
from stowkeeper.web.metrics import Metrics
from stowkeeper.web.roles import Role
from stowkeeper.web.services import ServerFacts
from support.catalog_rows import make_entry, open_database
from support.instances import make_instance
from support.orthanc_rig import OrthancRig, orthanc_rig, part10_of
from support.quick_web import PLAIN_HTTP
from support.raw_peer import Context, RawPeer

AT = "2026-01-02T03:04:05.678901Z"
FACTS = ServerFacts(version="1.2.3", ae_title="US", dicom_host="", dicom_port=0, started_at=AT)
_numbers = itertools.count(1)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: str) -> Samples:
    """Return every sample by its name and its labels; each may be there once."""
    found: Samples = {}
    names = set()
    for family in text_string_to_metric_families(text):
        assert family.name not in names
        names.add(family.name)
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


class Scraped:
    """Metrics of a database without a server, scraped."""

    def __init__(self, folder: Path, database: Database) -> None:
        reader = ArchiveReader.__new__(ArchiveReader)
        reader.root = str(folder)
        reader.database = database
        reader.files = FileSystem()
        self.metrics = Metrics(reader, FACTS, open_associations=lambda: 3, answered=lambda: {0: 5, 0x0124: 2})

    def __call__(self, name: str, **labels: str) -> float | None:
        """Scrape, and return one sample; None where there is none."""
        found = samples_of(self.metrics.text().decode())
        return found.get((f"stowkeeper_{name}", tuple(sorted(labels.items()))))

    def all(self, name: str) -> dict[tuple[str, ...], float]:
        """Scrape, and return all samples of a name, by the values of their labels."""
        found = samples_of(self.metrics.text().decode())
        return {
            tuple(v for _, v in key[1]): value
            for key, value in found.items()
            if key[0] == f"stowkeeper_{name}"
        }


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return open_database(tmp_path, sync=False)


@pytest.fixture
def scrape(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Scraped:
    """A scrape that is given the time it takes: on a busy machine a look that is cut off goes on with the next."""
    monkeypatch.setattr(metrics, "METRICS_SECONDS_MAX", 60.0)
    return Scraped(tmp_path, database)


def receive(database: Database, *entries: Any) -> None:
    with database.write() as transaction:
        catalog.insert(transaction, entries)


def request(outcome: str, status: int | None, seconds: float = 0.004, **more: Any) -> RequestRecord:
    return RequestRecord(
        association_id="a",
        message_id=1,
        sop_class_uid="1.2",
        sop_instance_uid=f"1.2.{next(_numbers)}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        requested_at=AT,
        status=status,
        error_comment="",
        outcome=outcome,
        seconds_total=seconds,
        seconds_disk=seconds / 2,
        **more,
    )


# Receiving.


def test_counting_begins_with_the_process(tmp_path: Path, database: Database) -> None:
    receive(database, make_entry(1, 1))
    with database.write() as transaction:
        record_requests(transaction, [request("kept", 0), request("refused", 0xA700)])
        jobs.submit(transaction, JobRequest(kind="verify", arguments={}))
    scrape = Scraped(tmp_path, database)
    assert scrape.all("received_objects_total") == {}
    assert scrape("store_seconds_count") == 0
    assert scrape.all("refused_objects_total") == {}
    assert scrape.all("jobs_submitted_total") == {}
    assert scrape.all("jobs") == {("verify", "pending"): 1}


def test_received_objects_and_bytes(tmp_path: Path, database: Database, scrape: Scraped) -> None:
    receive(database, make_entry(1, 1), make_entry(2, 2), make_entry(1, 3, content="b"))
    assert scrape.all("received_objects_total") == {("stored", "C-STORE"): 2, ("conflict", "C-STORE"): 1}
    assert scrape.all("received_bytes_total") == {("stored", "C-STORE"): 2000, ("conflict", "C-STORE"): 1000}
    other = open_database(tmp_path, sync=False)  # of another process
    receive(other, make_entry(3, 4))
    assert scrape("received_objects_total", outcome="stored", way="C-STORE") == 3
    assert scrape("received_objects_total", outcome="stored", way="C-STORE") == 3  # nothing is counted twice


@pytest.mark.slow
def test_latency_refusals_and_losses(database: Database, scrape: Scraped) -> None:
    kept = [0.0005, 0.002, 0.002, 0.2, 99.0]
    with database.write() as transaction:
        record_requests(transaction, [request("kept", 0, seconds) for seconds in kept])
        record_requests(transaction, [request("refused", 0xA700)] * 2 + [request("refused", 0x0122)])
        record_requests(transaction, [request("lost", None)])
    assert scrape("store_seconds_count") == 5
    assert scrape("store_seconds_sum") == pytest.approx(sum(kept))
    assert scrape("store_disk_seconds_total") == pytest.approx(sum(kept) / 2)
    for bound in LATENCY_BOUNDS:
        assert scrape("store_seconds_bucket", le=str(bound)) == sum(value <= bound for value in kept)
    assert scrape("store_seconds_bucket", le="+Inf") == 5
    refused = scrape.all("refused_objects_total")
    assert {status: number for (_, status), number in refused.items()} == {"A700H": 2, "0122H": 1}
    assert scrape("lost_objects_total") == 1


def association(**more: Any) -> AssociationRecord:
    values: dict[str, Any] = {
        "association_id": f"a-{next(_numbers)}",
        "receiver": "r",
        "opened_at": AT,
        "closed_at": None,
        "calling_ae_title": "SCANNER",
        "called_ae_title": "US",
        "peer_address": "192.0.2.1",
    }
    return AssociationRecord(**(values | more))


def test_associations_and_rejections(database: Database, scrape: Scraped) -> None:
    accepted = association()
    with database.write() as transaction:
        record_associations(transaction, [accepted, association()])
        rejected = {"rejection": (2, 3, 2), "closed_at": AT}
        record_associations(transaction, [association(**rejected), association(**rejected)])
    assert scrape("associations_total") == 2
    with database.write() as transaction:  # its end is a change of its row, and counts nothing
        record_associations(
            transaction, [association(association_id=accepted.association_id, closed_at=AT, ended="released")]
        )
    assert scrape("associations_total") == 2
    assert scrape.all("rejected_associations_total") == {("2,3,2",): 2}
    assert scrape("open_associations") == 3


# Storage commitment.


def transaction_of(
    database: Database, *, role: str = "provider", count: int = 2, at: str = AT, **more: Any
) -> int:
    """Write a transaction of storage commitment; return its key."""
    role = CommitmentRole(role)
    is_provider = role is CommitmentRole.PROVIDER
    values: dict[str, Any] = {
        "role": role,
        "way": "DIMSE",
        "transaction_uid": f"2.25.{next(_numbers)}",
        "state": CommitmentState.RECEIVED if is_provider else CommitmentState.REQUESTED,
        "peer": "scanner",
        "requested_at": at,
    }
    references = [Reference("1.2", f"1.2.{number}") for number in range(count)]
    with database.write() as transaction:
        return rows.insert(transaction, CommitmentRequest(**(values | more)), references).commitment_key


def conclude(database: Database, key: int, *reasons: int | None, **columns: Any) -> None:
    """Write the outcomes of a transaction, None for committed ones."""
    outcomes = [
        Outcome(
            position=position,
            outcome=InstanceOutcome.COMMITTED if reason is None else InstanceOutcome.FAILED,
            reason=reason,
        )
        for position, reason in enumerate(reasons)
    ]
    with database.write() as transaction:
        rows.set_outcomes(transaction, key, outcomes)
        rows.change(transaction, key, **columns)


@pytest.mark.slow
def test_transactions_and_the_outcomes_of_their_instances(database: Database, scrape: Scraped) -> None:
    before = transaction_of(database, count=1)
    key = transaction_of(database, count=3)
    transaction_of(database, count=1, duplicate_of=key, transaction_uid="2.25.7")
    ours = transaction_of(database, role="user", count=2)
    assert scrape.all("commitment_requests_total") == {
        ("new", "provider", "DIMSE"): 2,
        ("duplicate", "provider", "DIMSE"): 1,
        ("new", "user", "DIMSE"): 1,
    }
    assert scrape.all("commitment_instances_total") == {}
    conclude(database, key, None, 0x0112, 0x0112, state=CommitmentState.CHECKED, checked_at=AT, failures=2)
    conclude(database, ours, None, 0x0110, state=CommitmentState.PARTIAL, reported_at=AT, failures=1)
    expected = {
        ("committed", "", "provider"): 1,
        ("failed", "0112H", "provider"): 2,
        ("committed", "", "user"): 1,
        ("failed", "0110H", "user"): 1,
    }
    assert scrape.all("commitment_instances_total") == expected
    assert scrape.all("commitment_instances_total") == expected  # once, however often it is looked
    with database.write() as transaction:
        rows.change(transaction, before, state=CommitmentState.CHECKED, checked_at=AT)
    assert scrape("commitment_instances_total", role="provider", outcome="unreported", reason="") == 1


def test_transactions_that_were_open_before_are_counted_when_they_are_certain(
    tmp_path: Path, database: Database
) -> None:
    key = transaction_of(database, count=1)
    done = transaction_of(database, count=1)
    conclude(database, done, None, state=CommitmentState.CHECKED, checked_at=AT)
    scrape = Scraped(tmp_path, database)
    conclude(database, key, 0x0119, state=CommitmentState.CHECKED, checked_at=AT)
    assert scrape.all("commitment_instances_total") == {("failed", "0119H", "provider"): 1}


def test_many_open_transactions_have_their_turn(
    database: Database, scrape: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_rows, "METRICS_PENDING_LOOK", 3)
    keys = [transaction_of(database, count=1) for _ in range(10)]
    scrape("database_up")
    conclude(database, keys[8], None, state=CommitmentState.CHECKED, checked_at=AT)
    found = [
        scrape("commitment_instances_total", role="provider", outcome="committed", reason="")
        for _ in range(5)
    ]
    assert found[-1] == 1


def report(database: Database, key: int, status: int | None, way: str = "new association") -> None:
    with database.write() as transaction:
        rows.note_report(transaction, key, at=AT, way=way, status=status)


def test_report_attempts_by_result_and_peer(database: Database, scrape: Scraped) -> None:
    one, other = transaction_of(database), transaction_of(database, peer="", peer_ae_title="STRANGER")
    for status in (None, None, 0x0110, 0):
        report(database, one, status)
    report(database, other, 0, "same association")
    assert scrape.all("commitment_reports_total") == {
        ("scanner", "no answer", "new association"): 2,
        ("scanner", "0110H", "new association"): 1,
        ("scanner", "delivered", "new association"): 1,
        ("unknown", "delivered", "same association"): 1,
    }


def test_rows_whose_keys_are_given_again_do_not_stop_the_counting(
    database: Database, scrape: Scraped
) -> None:
    key = transaction_of(database)
    for _ in range(3):
        report(database, key, 0)
    assert scrape("commitment_reports_total", peer="scanner", way="new association", result="delivered") == 3
    with database.write() as transaction:
        transaction.execute(delete(commitment_reports))
    scrape("database_up")
    report(database, key, 0)
    assert scrape("commitment_reports_total", peer="scanner", way="new association", result="delivered") == 4


def test_peers_beyond_a_bound_share_a_label(
    database: Database, scrape: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_rows, "METRICS_PEERS_MAX", 2)
    for number in range(5):
        report(database, transaction_of(database, peer=f"peer-{number}"), 0)
    found = scrape.all("commitment_reports_total")
    assert sorted(found.values()) == [1, 1, 3]
    assert found["others", "delivered", "new association"] == 3


def test_codes_of_peers_beyond_a_bound_share_a_label(
    database: Database, scrape: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_rows, "METRICS_CODES_MAX", 2)
    key = transaction_of(database)
    for status in (0xA700, 0xA701, 0xA702, 0xA703, 0xA700):
        report(database, key, status)
    assert scrape.all("commitment_reports_total") == {
        ("scanner", "A700H", "new association"): 2,
        ("scanner", "A701H", "new association"): 1,
        ("scanner", "other", "new association"): 2,
    }


def test_a_name_with_every_sign_of_the_format_is_read_as_it_is(database: Database, scrape: Scraped) -> None:
    name = 'a"b\\c} 1\n# d'
    report(database, transaction_of(database, peer=name), 0)
    assert scrape("commitment_reports_total", peer=name, way="new association", result="delivered") == 1


def test_a_scrape_that_hangs_holds_up_no_other(scrape: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS_WAIT_SECONDS", 0.01)
    with scrape.metrics._lock:
        assert scrape("database_up") == 0
        assert scrape("open_associations") == 3
    assert scrape("database_up") == 1


def test_dead_letters_and_the_oldest_that_waits(database: Database, scrape: Scraped) -> None:
    assert scrape("oldest_unreported_commitment_seconds") == 0
    assert scrape("commitment_dead_letters") == 0
    with database.write() as transaction:
        now = transaction.at
    undelivered = transaction_of(database, at=later(now, -90_000))
    conclude(database, undelivered, None, None, state=CommitmentState.UNDELIVERED, checked_at=AT)
    waiting = transaction_of(database, at=later(now, -500))
    transaction_of(database, at=later(now, -100))
    transaction_of(database, role="user", at=later(now, -9000))
    age = scrape("oldest_unreported_commitment_seconds")
    assert age is not None
    assert 500 <= age < 560
    assert scrape("commitment_dead_letters") == 1
    assert scrape.all("open_commitments") == {
        ("provider", "undelivered"): 1,
        ("provider", "received"): 2,
        ("user", "requested"): 1,
    }
    conclude(database, waiting, None, None, state=CommitmentState.REPORTED, checked_at=AT, reported_at=AT)
    assert 100 <= (scrape("oldest_unreported_commitment_seconds") or 0) < 160


def test_answers_to_requests_by_status(scrape: Scraped) -> None:
    assert scrape.all("commitment_requests_answered_total") == {("0000H",): 5, ("0124H",): 2}


# Jobs.


def submit(database: Database, kind: str = "store") -> Job:
    with database.write() as transaction:
        return jobs.submit(transaction, JobRequest(kind=kind, arguments={}))


def become(database: Database, job: Job, state: str, finished_at: str | None = None) -> None:
    with database.write() as transaction:
        transaction.execute(
            update(jobs_table)
            .where(jobs_table.c.job_key == job.job_key)
            .values(state=state, finished_at=finished_at)
        )


@pytest.mark.slow
def test_jobs_are_counted_as_they_end_whatever_the_clock_says(database: Database, scrape: Scraped) -> None:
    first, second, third, fourth = (submit(database) for _ in range(4))
    verify = submit(database, "verify")
    assert scrape.all("jobs_submitted_total") == {("store",): 4, ("verify",): 1}
    assert scrape.all("jobs") == {("store", "pending"): 4, ("verify", "pending"): 1}
    become(database, first, "success", AT)
    become(database, second, "running")
    become(database, third, "paused")
    become(database, verify, "failure", "2020-01-01T00:00:00.000000Z")  # the clock was set back
    assert scrape.all("jobs_ended_total") == {("store", "success"): 1, ("verify", "failure"): 1}
    assert scrape.all("jobs") == {("store", "pending"): 1, ("store", "running"): 1, ("store", "paused"): 1}
    become(database, verify, "pending")  # submitted again
    assert scrape("jobs", kind="verify", state="pending") == 1
    become(database, verify, "success", AT)
    become(database, third, "cancelled", AT)
    become(database, fourth, "retry")
    assert scrape.all("jobs_ended_total") == {
        ("store", "success"): 1,
        ("store", "cancelled"): 1,
        ("verify", "failure"): 1,
        ("verify", "success"): 1,
    }
    assert scrape.all("jobs_ended_total")["verify", "success"] == 1


def test_the_job_that_waits_for_its_turn_longest(database: Database, scrape: Scraped) -> None:
    assert scrape("oldest_waiting_job_seconds") == 0
    with database.write() as transaction:
        now = transaction.at
    asleep, waiting = submit(database, SCRUB), submit(database)
    for job, seconds in ((asleep, 3600), (waiting, -500)):
        with database.write() as transaction:
            due = update(jobs_table).where(jobs_table.c.job_key == job.job_key)
            transaction.execute(due.values(created_at=later(now, -90_000), due_at=later(now, seconds)))
    assert 500 <= (scrape("oldest_waiting_job_seconds") or 0) < 560
    become(database, waiting, "running")
    assert scrape("oldest_waiting_job_seconds") == 0


def test_jobs_that_come_and_go_between_two_looks(database: Database, scrape: Scraped) -> None:
    become(database, submit(database), "success", AT)
    become(database, submit(database), "paused")
    assert scrape.all("jobs_submitted_total") == {("store",): 2}
    assert scrape.all("jobs_ended_total") == {("store", "success"): 1}
    assert scrape.all("jobs") == {("store", "paused"): 1}


def test_jobs_that_were_paused_before(tmp_path: Path, database: Database) -> None:
    job = submit(database)
    become(database, job, "paused")
    scrape = Scraped(tmp_path, database)
    assert scrape.all("jobs") == {("store", "paused"): 1}
    become(database, job, "failure", AT)
    assert scrape.all("jobs_ended_total") == {("store", "failure"): 1}


def test_jobs_that_are_forgotten_are_counted_no_more(database: Database, scrape: Scraped) -> None:
    job = submit(database)
    assert scrape.all("jobs") == {("store", "pending"): 1}
    with database.write() as transaction:
        transaction.execute(delete(jobs_table).where(jobs_table.c.job_key == job.job_key))
    assert scrape.all("jobs") == {}
    assert scrape.all("jobs_submitted_total") == {("store",): 1}


# Disk, damage, scrub.


def test_the_disk_has_room(tmp_path: Path, scrape: Scraped) -> None:
    free = scrape("disk_free_bytes")
    assert free is not None
    assert free > 0


def test_damaged_versions(database: Database, scrape: Scraped) -> None:
    receive(database, make_entry(1, 1), make_entry(2, 2))
    with database.write() as transaction:
        path = make_entry(1, 1).path
        assert mark_damaged(transaction, path, "test") is not None
    assert scrape("damaged_versions") == 1


@pytest.mark.slow
def test_the_scrub(database: Database, scrape: Scraped) -> None:
    assert scrape.all("scrub_rounds_ended") == {}
    this = Round(
        number=3,
        began_at="2026-01-02T00:00:00.000000Z",
        counted_at=AT,
        total=100,
        left=40,
        files_expected=10,
        files=6,
        found_before={"damaged": 1},
    )
    found = {"damaged": 4, "missing": 2}
    with database.write() as transaction:
        checkpoint = {"round": this.to_json(), "found": found}
        jobs.submit(transaction, JobRequest(kind=SCRUB, arguments={}, checkpoint=checkpoint))
    assert scrape("scrub_rounds_ended") == 2
    assert scrape("scrub_round_files") == 6
    assert scrape("scrub_round_files_expected") == 10
    assert scrape("scrub_round_began_timestamp_seconds") == 1_767_312_000
    assert scrape.all("scrub_errors") == {("damaged",): 4, ("missing",): 2}
    assert scrape.all("scrub_round_errors") == {("damaged",): 3, ("missing",): 2}


# When something is not as it should be.


def test_a_database_that_is_away_is_told_and_the_rest_too(database: Database, scrape: Scraped) -> None:
    path = Path(database.path)
    path.rename(f"{path}.away")
    try:
        assert scrape("database_up") == 0
        assert scrape("open_associations") == 3
        assert scrape("received_objects_total") is None
    finally:
        Path(f"{path}.away").rename(path)
    receive(database, make_entry(1, 1))
    assert scrape("database_up") == 1
    assert scrape("received_objects_total", outcome="stored", way="C-STORE") == 1


def test_rows_beyond_the_time_are_counted_by_the_next_scrape(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_rows, "METRICS_ROWS", 2)
    clock = itertools.count()
    with database.read() as connection:
        counters = RowCounters(connection, clock=lambda: float(next(clock)))
    receive(database, *(make_entry(number, number) for number in range(1, 10)))
    looks = 0
    while counters.is_behind or not looks:
        with database.read() as connection:
            counters.look(connection, 2.5)
        looks += 1
        assert looks < 50
    assert looks > 1
    assert counters.counts.objects == {("C-STORE", "stored"): 9}


# With the server.


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OrthancRig]:
    with orthanc_rig(tmp_path / "archive", runs_jobs=False) as running:
        yield running


@pytest.mark.slow
def test_both_addresses_and_who_may(rig: OrthancRig) -> None:
    for path in ("/tools/metrics-prometheus", "/metrics"):
        answer = rig.ask("GET", path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        samples = samples_of(answer.value.decode())
        assert samples["stowkeeper_info", (("ae_title", "STOWKEEPER"), ("version", "1.2.3"))] == 1
        assert samples["stowkeeper_database_up", ()] == 1
        assert samples["process_open_fds", ()] > 0
    reader = rig.token("reader", Role.READ)
    assert rig.ask("GET", "/metrics").status == 401
    assert rig.ask("GET", "/metrics", headers=reader).status == 200


@pytest.mark.slow
def test_what_a_server_does_is_in_its_metrics(rig: OrthancRig) -> None:
    samples_of(rig.ask("GET", "/metrics").value.decode())
    instance = make_instance(1)
    context = Context(
        context_id=1,
        abstract_syntax=instance.sop_class_uid,
        transfer_syntaxes=(instance.transfer_syntax_uid,),
    )

    def scraped() -> Samples:
        rig.settle()
        return samples_of(rig.ask("GET", "/metrics").value.decode())

    with RawPeer(rig.port) as peer:
        peer.associate(context)
        assert peer.store(instance.sop_instance_uid, instance.data).status == 0
        assert peer.store("1.2.3.99", instance.data).status != 0  # its data set names another instance
        assert scraped()["stowkeeper_open_associations", ()] == 1
        peer.release()
    rig.post("/instances", part10_of(make_instance(2)))
    samples = rig.wait(
        lambda: found if (found := scraped())["stowkeeper_open_associations", ()] == 0 else None, "the end"
    )
    way = "stowkeeper_received_objects_total"
    assert samples[way, (("outcome", "stored"), ("way", "C-STORE"))] == 1
    assert samples[way, (("outcome", "stored"), ("way", "import"))] == 1
    assert samples["stowkeeper_store_seconds_count", ()] == 1
    assert sum(value for key, value in samples.items() if key[0] == "stowkeeper_refused_objects_total") == 1
    assert samples["stowkeeper_associations_total", ()] == 1
    assert samples["stowkeeper_instances_admitted", ()] == 1
    assert samples["stowkeeper_disk_headroom_bytes", ()] > 0


@pytest.mark.slow
def test_that_the_database_is_away_is_told_to_whoever_was_told_before(
    rig: OrthancRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = rig.token("reader", Role.READ)
    assert rig.ask("GET", "/metrics", headers=reader).status == 200
    catalog_path = Path(rig.archive.database.path)
    monkeypatch.setattr("stowkeeper.web.credentials.CREDENTIALS_FRESH_SECONDS", 0.0)
    catalog_path.rename(catalog_path.with_suffix(".away"))
    try:
        answer = rig.ask("GET", "/metrics", headers=reader)
        strangers = rig.ask("GET", "/metrics").status
        others = rig.ask("GET", "/system", headers=reader).status
    finally:
        catalog_path.with_suffix(".away").rename(catalog_path)
    assert (answer.status, strangers, others) == (200, 401, 503)
    assert samples_of(answer.value.decode())["stowkeeper_database_up", ()] == 0


@pytest.mark.slow
def test_scrapes_at_once_count_once(rig: OrthancRig) -> None:
    with ThreadPoolExecutor(4) as pool:
        keeping = [pool.submit(rig.upload, make_instance(number)) for number in range(1, 9)]
        scrapes = [
            pool.submit(httpx.get, rig.client.base_url.join("/metrics"), verify=PLAIN_HTTP) for _ in range(20)
        ]
        assert all(one.result() for one in keeping)
        assert all(one.result().status_code == 200 for one in scrapes)
    samples = samples_of(rig.ask("GET", "/metrics").value.decode())
    assert samples["stowkeeper_received_objects_total", (("outcome", "stored"), ("way", "import"))] == 8


# A million.

MILLION = 1_000_000


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("million")
    database = open_database(folder, sync=False)
    fill(database, MILLION)
    yield database
    database.close()


def fill(database: Database, count: int, first: int = 1) -> None:
    """Write receipts and requests by SQL, with one version that all are about."""
    numbers = (
        f"WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {first + count - 1})"
    )
    with database.write() as transaction:
        if first == 1:
            catalog.insert(transaction, [make_entry("one", 1)])
            numbers = numbers.replace("SELECT 1", "SELECT 2", 1)
        execute = transaction.connection.exec_driver_sql
        execute(
            "INSERT INTO receipts (receipt_key, receipt_id, version_key, outcome, received_at, received_by,"
            " calling_ae_title, called_ae_title, peer_address, association_id, digest, data_set_length, answer)"
            f" {numbers} SELECT n, printf('%032x', n), 1, 'identical', '{AT}', 'C-STORE', 'A', 'B', '', '', '',"
            " 1000, 'known' FROM s"
        )
        execute(
            "INSERT INTO requests (association_id, message_id, sop_class_uid, sop_instance_uid, transfer_syntax_uid,"
            " requested_at, status, error_comment, data_set_length, digest, outcome, receipt_id, seconds_network,"
            f" seconds_disk, seconds_total) {numbers} SELECT '', 1, '', '', '', '{AT}', 0, '', 1000, '', 'kept', '',"
            " 0.001, 0.001, 0.003 FROM s"
        )


@pytest.mark.slow
def test_a_scrape_beside_a_million_receipts(tmp_path: Path, million: Database) -> None:
    began = time.thread_time()
    scrape = Scraped(tmp_path, million)
    assert time.thread_time() - began < 0.5

    def timed() -> float:
        start = time.thread_time()
        scrape.metrics.text()
        return time.thread_time() - start

    timed()
    assert sorted(timed() for _ in range(9))[4] < 0.5
    # As many as come in half a minute of the fastest receiving.
    with_new = []
    for number in range(5):
        fill(million, 20_000, first=MILLION + 20_000 * number + 1)
        with_new.append(timed())
    assert sorted(with_new)[2] < 0.5
    while scrape("metrics_behind"):
        pass
    assert scrape("received_objects_total", outcome="identical", way="C-STORE") == 100_000
    assert scrape("store_seconds_count") == 100_000


@pytest.mark.slow
def test_a_scrape_beside_a_thousand_transactions_for_dead_peers(tmp_path: Path, database: Database) -> None:
    values = [
        {
            "role": "provider",
            "way": "DIMSE",
            "transaction_uid": f"2.25.{number}",
            "state": "checked" if number % 2 else "received",
            "peer": "dead",
            "peer_ae_title": "",
            "own_ae_title": "",
            "peer_address": "",
            "association_id": "",
            "content": "",
            "instances": 1,
            "failures": 0,
            "job_id": "",
            "requested_at": AT,
            "report_attempts": 0,
            "error": "",
        }
        for number in range(2000)
    ]
    with database.write() as transaction:
        transaction.execute(insert(commitments), values)
        for _ in values:
            jobs.submit(transaction, JobRequest(kind="commitment", arguments={}, lane="peer:dead"))
    scrape = Scraped(tmp_path, database)

    def timed() -> float:
        start = time.thread_time()
        scrape.metrics.text()
        return time.thread_time() - start

    assert sorted(timed() for _ in range(5))[2] < 0.5
