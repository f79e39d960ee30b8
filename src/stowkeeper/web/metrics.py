"""GET /tools/metrics-prometheus: what a monitor has to know, in the text form of Prometheus (version 0.0.4).

A scrape reads no table as a whole: see `metric_rows.py` for counters, everything else is a query by index or a number in memory. So it
takes some milliseconds, however much the archive holds. Where the database cannot be read, what is known without it is told all
the same, and `stowkeeper_database_up` is 0.

Counters are of the archive since this process began, whatever process did the work; `stowkeeper_open_associations` and what begins
with `process_` are of this process. Names of peers are labels; nothing of patients is.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select, text
from starlette.responses import Response

from stowkeeper.archive.archive import Archive, ArchiveReader
from stowkeeper.database.engine import DatabaseError, utc_now
from stowkeeper.database.schema import DAMAGED, commitments, versions
from stowkeeper.jobs.job import JobFilter
from stowkeeper.jobs.rows import list_jobs, oldest_waiting_at
from stowkeeper.services.commitment import rows as commitment_rows
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.services.forwarding.rows import counts as forward_counts
from stowkeeper.services.scrubbing import SCRUB
from stowkeeper.web.metric_rows import LATENCY_BOUNDS, Labels, RowCounters, RowCounts
from stowkeeper.web.orthanc_limits import METRICS_PEERS_MAX, METRICS_SECONDS_MAX, METRICS_WAIT_SECONDS
from stowkeeper.web.orthanc_routes import on, orthanc_router
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow
from stowkeeper.web.services import ServerFacts, WebServices

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = orthanc_router()
    metrics = metrics_of(services)

    @on(routes, "GET", "/tools/metrics-prometheus", "/metrics")
    @allow(Role.READ, consumes=(), produces=())
    def get_metrics() -> Response:
        return Response(metrics.text(), headers={"Content-Type": MEDIA_TYPE})

    return routes


def metrics_of(services: WebServices) -> "Metrics":
    """Return metrics of what the routes work with."""
    commitment = services.commitment
    return Metrics(
        services.archive,
        services.facts,
        open_associations=lambda: len(services.associations()),
        answered=lambda: {} if commitment is None else dict(commitment.answered),
        traced=services.traced,
    )


class Metrics(Collector):
    """The metrics of an archive and its server. Counting begins when this is made; make it before the first instance comes.

    `open_associations` gives their number, `answered` the N-ACTION requests of storage commitment by the status of their
    answer, `traced` the spans of traces by what became of them. Any thread may ask.
    """

    def __init__(
        self,
        archive: ArchiveReader,
        facts: ServerFacts,
        *,
        open_associations: Callable[[], int] = lambda: 0,
        answered: Callable[[], Mapping[int, int]] = dict,
        traced: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._archive = archive
        self._facts = facts
        self._open_associations = open_associations
        self._answered = answered
        self._traced = traced
        self._lock = threading.Lock()
        self._counters: RowCounters | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        with self._lock:
            self._begin()

    def text(self) -> bytes:
        """Return the metrics as text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by the registry."""
        yield from self._without_database()
        families: list[Metric] = []
        is_up = True
        try:
            with self._turn(), self._archive.database.read() as connection:
                families = list(self._with_database(connection))
        except (DatabaseError, TimeoutError):
            is_up = False
        yield _gauge("database_up", "Whether the database can be read.", int(is_up))
        yield from families

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the counters for a block. Raises TimeoutError where an earlier scrape hangs."""
        if not self._lock.acquire(timeout=METRICS_WAIT_SECONDS):
            raise TimeoutError
        try:
            yield
        finally:
            self._lock.release()

    def _begin(self) -> None:
        """Begin to count; where the database cannot be read now, the next scrape begins."""
        try:
            with self._archive.database.read() as connection:
                self._counters = RowCounters(connection)
        except DatabaseError:
            self._counters = None

    # What needs no database.

    def _without_database(self) -> Iterator[Metric]:
        archive = self._archive
        facts = {"version": self._facts.version, "ae_title": self._facts.ae_title}
        yield InfoMetricFamily("stowkeeper", "The server.", value=facts)
        yield _gauge(
            "open_associations",
            "DICOM associations that are open in this process.",
            self._open_associations(),
        )
        yield _counters(
            "commitment_requests_answered",
            "N-ACTION requests of storage commitment that this process answered, by status.",
            ("status",),
            {(f"{status:04X}H",): number for status, number in self._answered().items()},
        )
        yield _counters(
            "trace_spans",
            "Spans of traces that this process sent to the collector, and those that it dropped.",
            ("outcome",),
            {(outcome,): number for outcome, number in self._traced().items()},
        )
        yield from self._disk()
        if isinstance(archive, Archive):
            yield _gauge(
                "instances_admitted",
                "Whether instances are admitted now: there is room, and the disk is trusted.",
                int(not archive.admission.refusal()),
            )
            yield _gauge(
                "uncatalogued_instances",
                "Instances that are kept and not listed yet.",
                archive.finisher.uncatalogued(),
            )

    def _disk(self) -> Iterator[Metric]:
        archive = self._archive
        try:
            space = archive.files.free_space(archive.root)
        except OSError:
            return
        yield _gauge("disk_free_bytes", "Free bytes on the archive's disk.", space.bytes)
        if space.inodes is not None:
            yield _gauge("disk_free_inodes", "Free inodes on the archive's disk.", space.inodes)
        if isinstance(archive, Archive):
            mark = archive.options.marks.instance_bytes
            yield _gauge(
                "disk_headroom_bytes",
                "Bytes that can be written before instances are refused for lack of room; negative below the mark.",
                space.bytes - mark,
            )

    # What is asked of the database.

    def _with_database(self, connection: Connection) -> Iterator[Metric]:
        if self._counters is None:
            self._counters = RowCounters(connection)
        self._counters.look(connection, METRICS_SECONDS_MAX)
        yield _gauge(
            "metrics_behind",
            "Whether rows are left that the counters do not have yet; the next scrapes catch up.",
            int(self._counters.is_behind),
        )
        counts = self._counters.counts
        yield from _received(counts)
        yield from _commitments(counts)
        yield from _jobs(counts)
        yield _oldest_job(connection)
        yield _forwards(connection)
        yield from _open_commitments(connection)
        yield _gauge(
            "damaged_versions",
            "Files of the archive that went bad and are in quarantine, their rows not closed.",
            connection.execute(select(func.count()).select_from(versions).where(text(DAMAGED))).scalar_one(),
        )
        yield from _scrub(connection)


def _received(counts: RowCounts) -> Iterator[Metric]:
    labels = ("way", "outcome")
    yield _counters("received_objects", "Objects that were received and kept.", labels, counts.objects)
    yield _counters(
        "received_bytes", "Bytes of the data sets of received objects.", labels, counts.object_bytes
    )
    yield _counters(
        "refused_objects",
        "Requests to store that were refused, by the status of the answer.",
        ("status", "reason"),
        counts.refusals,
    )
    yield _counters(
        "lost_objects", "Requests to store whose data set did not come whole.", (), {(): counts.lost}
    )
    buckets = [
        (str(bound), float(number)) for bound, number in zip(LATENCY_BOUNDS, counts.latency, strict=False)
    ]
    yield HistogramMetricFamily(
        "stowkeeper_store_seconds",
        "Time from the command of a request to store that was kept to its answer.",
        buckets=[*buckets, ("+Inf", float(counts.latency[-1]))],
        sum_value=counts.latency_seconds,
    )
    yield _counters(
        "store_disk_seconds",
        "Time that kept requests to store spent in writing and syncing.",
        (),
        {(): counts.disk_seconds},
    )
    yield _counters("associations", "DICOM associations that were accepted.", (), {(): counts.associations})
    yield _counters(
        "rejected_associations",
        "DICOM associations that were rejected, by result, source and reason (PS3.8 §9.3.4).",
        ("reason",),
        counts.rejections,
    )


def _commitments(counts: RowCounts) -> Iterator[Metric]:
    yield _counters(
        "commitment_requests",
        "Storage commitment transactions, asked of us (provider) and by us (user).",
        ("role", "way", "kind"),
        counts.commitment_requests,
    )
    yield _counters(
        "commitment_instances",
        "Instances of transactions whose outcome became certain; the reason is that of a failure.",
        ("role", "outcome", "reason"),
        counts.commitment_instances,
    )
    yield _counters(
        "commitment_reports",
        "Attempts to report a transaction to its peer, and reports that came, by peer and result.",
        ("peer", "way", "result"),
        counts.reports,
    )


def _open_commitments(connection: Connection) -> Iterator[Metric]:
    query = (
        select(commitments.c.role, commitments.c.state, func.count())
        .where(commitments.c.role.in_(list(CommitmentRole)), text("reported_at IS NULL"))
        .group_by(commitments.c.role, commitments.c.state)
    )
    found: dict[Labels, float] = {(role, state): number for role, state, number in connection.execute(query)}
    yield _gauges(
        "open_commitments", "Transactions without a report, by role and state.", ("role", "state"), found
    )
    yield _gauge(
        "commitment_dead_letters",
        "Transactions whose report was given up: `stowkeeper commitments resend` tries again.",
        found.get((CommitmentRole.PROVIDER, CommitmentState.UNDELIVERED), 0),
    )
    oldest = commitment_rows.oldest_unreported_at(connection)
    yield _gauge(
        "oldest_unreported_commitment_seconds",
        "Age of the oldest transaction whose peer was not told the result yet; 0 when all were.",
        0.0 if oldest is None else max(_seconds(utc_now()) - _seconds(oldest), 0.0),
    )


def _jobs(counts: RowCounts) -> Iterator[Metric]:
    yield _counters("jobs_submitted", "Jobs that were put in.", ("kind",), counts.jobs_submitted)
    yield _counters("jobs_ended", "Jobs that came to an end.", ("kind", "state"), counts.jobs_ended)
    yield _gauges("jobs", "Jobs that are not at their end.", ("kind", "state"), counts.jobs_now)


def _oldest_job(connection: Connection) -> Metric:
    now = utc_now()
    oldest = oldest_waiting_at(connection, now)
    return _gauge(
        "oldest_waiting_job_seconds",
        "How long the job has been due that waits for its turn longest; 0 when none does.",
        0.0 if oldest is None else max(_seconds(now) - _seconds(oldest), 0.0),
    )


def _forwards(connection: Connection) -> Metric:
    """Count what is not at its end: by an index that has nothing else in it."""
    counted: Counter[Labels] = Counter()
    names: set[str] = set()
    for (destination, state), number in sorted(forward_counts(connection).items()):
        if destination in names or len(names) < METRICS_PEERS_MAX:
            names.add(destination)
            counted[destination, state] += number
        else:
            counted["others", state] += number
    return _gauges(
        "forwards",
        "Instances that rules chose for a destination and that it did not take yet.",
        ("destination", "state"),
        counted,
    )


def _scrub(connection: Connection) -> Iterator[Metric]:
    """Yield how far the scrub is, and what it found."""
    newest = list_jobs(connection, JobFilter(kind=SCRUB, limit=1))
    checkpoint = newest[0].checkpoint if newest else {}
    this: Mapping[str, Any] = checkpoint.get("round") or {}
    if not this:
        return
    found: Mapping[str, int] = checkpoint.get("found") or {}
    before: Mapping[str, int] = this.get("found_before") or {}
    done = int(this["number"]) - (0 if this.get("is_over") else 1)
    yield _gauge("scrub_rounds_ended", "Rounds of the scrub, each over every file, that are over.", done)
    yield _gauge(
        "scrub_round_began_timestamp_seconds", "When the round began.", _seconds(str(this["began_at"]))
    )
    yield _gauge("scrub_round_files", "Files that the round has read.", this["files"])
    yield _gauge("scrub_round_files_expected", "Files that the round is about.", this["files_expected"])
    yield _gauges(
        "scrub_round_errors",
        "What the round found wrong.",
        ("fault",),
        {(fault,): number - before.get(fault, 0) for fault, number in found.items()},
    )
    yield _gauges(
        "scrub_errors",
        "What the scrub found wrong in all its rounds.",
        ("fault",),
        {(fault,): number for fault, number in found.items()},
    )


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


# Families.


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stowkeeper_{name}", words, value=value)


def _gauges(name: str, words: str, labels: Sequence[str], values: Mapping[Labels, float]) -> Metric:
    return _filled(GaugeMetricFamily(f"stowkeeper_{name}", words, labels=labels), values)


def _counters(name: str, words: str, labels: Sequence[str], values: Mapping[Labels, float]) -> Metric:
    return _filled(CounterMetricFamily(f"stowkeeper_{name}", words, labels=labels), values)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[Labels, float]
) -> CounterMetricFamily | GaugeMetricFamily:
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family
