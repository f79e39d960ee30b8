"""Spans on their way: what a collector gets, and that one that is away, refuses or hangs costs spans and nothing else."""

import itertools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import certifi
import pytest
from structlog.testing import capture_logs
from urllib3.util.connection import create_connection

from stowkeeper.services.tracing.exporting import CollectorExporter
from stowkeeper.services.tracing.limits import BATCH_SPANS_MAX, QUEUE_SPANS_MAX, REASON_LETTERS_MAX
from stowkeeper.services.tracing.sending import SpanSender
from stowkeeper.services.tracing.span import Span, SpanKind
from support.job_engine_thread import wait_until
from support.tls_fixtures import TLSFiles
from support.trace_collector import WAIT_SECONDS, Collector, collecting

_numbers = itertools.count(1)


def make_span(**more: Any) -> Span:
    values: dict[str, Any] = {
        "name": "C-STORE",
        "trace_id": 0x0123456789ABCDEF0123456789ABCDEF,
        "span_id": next(_numbers),
        "parent_id": 0xFEDCBA9876543210,
        "kind": SpanKind.SERVER,
        "start": 1_767_312_000_000_001_000,
        "end": 1_767_312_001_000_000_000,
    }
    return Span(**(values | more))


def exporter_to(url: str, **more: Any) -> CollectorExporter:
    values: dict[str, Any] = {
        "headers": {"Authorization": "Bearer hush"},
        "service_name": "archive 1",
        "version": "1.2.3",
        "instance": "receiver-1",
        "seconds": WAIT_SECONDS,
    }
    return CollectorExporter(url, **(values | more))


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """Give what reaches the handlers of the standard library's root in a block."""
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Handler()
    logging.root.addHandler(handler)
    try:
        yield records
    finally:
        logging.root.removeHandler(handler)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def exporter(collector: Collector) -> Iterator[CollectorExporter]:
    made = exporter_to(collector.url)
    yield made
    made.close()


# The exporter.


def test_a_collector_gets_spans_as_they_are(collector: Collector, exporter: CollectorExporter) -> None:
    attributes = {"dicom.message_id": 7, "stowkeeper.seconds.disk": 0.25, "stowkeeper.peer": "Ä"}
    spans = [
        make_span(attributes=attributes, link=(1 << 127, 2), failure="refused: it differs"),
        make_span(name="association", parent_id=0, kind=SpanKind.INTERNAL),
        make_span(name="forward", kind=SpanKind.CLIENT),
    ]
    assert exporter.export(spans) == ""
    first, second, third = collector.spans
    assert first.trace_id == "0123456789abcdef0123456789abcdef"
    assert first.span_id == f"{spans[0].span_id:016x}"
    assert first.parent_id == "fedcba9876543210"
    assert (first.start, first.end) == (spans[0].start, spans[0].end)
    assert first.attributes == attributes
    assert first.failure == "refused: it differs"
    assert first.links == (("80" + 30 * "0", f"{2:016x}"),)
    assert (second.name, second.parent_id, second.failure, second.links) == ("association", "", None, ())
    assert [span.kind for span in collector.spans] == ["server", "internal", "client"]
    assert third.scope == ("stowkeeper", "1.2.3")
    assert third.resource == {
        "service.name": "archive 1",
        "service.version": "1.2.3",
        "service.instance.id": "receiver-1",
    }
    ((path, fields),) = collector.requests
    assert path == "/v1/traces"
    assert fields["authorization"] == "Bearer hush"


def test_what_a_collector_refuses_has_a_reason(collector: Collector, exporter: CollectorExporter) -> None:
    collector.status = 401
    with logged() as records:
        assert exporter.export([make_span()]) == "it answered 401 Unauthorized"
    # The packages' own words go to no log: they come for each try.
    assert records == []
    collector.status = 200
    assert exporter.export([make_span()]) == ""


def test_a_redirect_is_not_followed(collector: Collector, exporter: CollectorExporter) -> None:
    with collecting() as other:
        collector.status, collector.fields = 307, {"Location": other.url}
        assert exporter.export([make_span()]) == "it answered 307, and redirects are not followed"
        assert other.requests == []


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        exporter = exporter_to(f"http://127.0.0.1:{taken.getsockname()[1]}/v1/traces")
        assert exporter.export([make_span()]) == "Connection refused"
        exporter.close()


def test_a_collector_that_does_not_answer(collector: Collector) -> None:
    collector.answers = False
    exporter = exporter_to(collector.url, seconds=0.1)
    assert exporter.export([make_span()]) == "it did not answer in time"
    exporter.close()


@contextmanager
def peculiar(
    *, head: bytes, then: bytes, pace: float, times: int = 1 << 30
) -> Iterator[tuple[str, list[int]]]:
    """Listen like a collector that answers with `head`, and then with `then`, again and again; give its URL, and what it sent."""
    over = threading.Event()
    sent = [0]

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError):  # the other side leaves, and that is what is tested
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(head)
                    while not over.wait(pace) and sent[0] < times:
                        connection.sendall(then)
                        sent[0] += len(then)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces", sent
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n"],
)
def test_a_collector_that_drips_is_cut(head: bytes) -> None:
    with peculiar(head=head, then=b"x", pace=0.01) as (url, _sent):
        exporter = exporter_to(url, seconds=0.15)
        with logged() as records:
            assert exporter.export([make_span()]) == "it did not answer in time"
        assert records == []
        exporter.close()


def test_who_closes_waits_for_no_drip() -> None:
    with peculiar(head=b"HTTP/1.1 200 OK\r\nX-", then=b"x", pace=0.01) as (url, sent):
        exporter = exporter_to(url, seconds=4 * WAIT_SECONDS)
        thread = threading.Thread(target=exporter.export, args=([make_span()],))
        thread.start()
        wait_until(lambda: sent[0] > 1)
        exporter.close()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def test_of_an_answer_without_an_end_little_is_read() -> None:
    with peculiar(head=b"HTTP/1.1 200 OK\r\n\r\n", then=bytes(65536), pace=0, times=1 << 27) as (url, sent):
        exporter = exporter_to(url)
        assert exporter.export([make_span()]) == ""
        exporter.close()
    assert sent[0] < 1 << 27


def test_what_is_no_http_is_not_quoted_and_reasons_are_bounded() -> None:
    with peculiar(head=b"220 mail.example.org PAT^IENT ready\r\n", then=b"", pace=0, times=0) as (url, _sent):
        exporter = exporter_to(url)
        assert exporter.export([make_span()]) == "it answered what is no HTTP (BadStatusLine)"
        exporter.close()
    long = b"HTTP/1.1 500 " + b"x" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n"
    with peculiar(head=long, then=b"", pace=0, times=0) as (url, _sent):
        exporter = exporter_to(url)
        assert len(exporter.export([make_span()])) == REASON_LETTERS_MAX
        exporter.close()


def test_a_connection_is_used_again(
    collector: Collector, exporter: CollectorExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects = []
    connect = create_connection
    monkeypatch.setattr(
        "urllib3.util.connection.create_connection",
        lambda *args, **more: connects.append(1) or connect(*args, **more),
    )
    assert [exporter.export([make_span()]) for _ in range(3)] == [""] * 3
    assert len(connects) == 1


def test_the_secret_of_a_headers_file_is_not_replaced_by_one_of_netrc(
    collector: Collector, exporter: CollectorExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert exporter.export([make_span()]) == ""
    ((_path, fields),) = collector.requests
    assert fields["authorization"] == "Bearer hush"


@pytest.mark.slow
@pytest.mark.peer("openssl")
def test_a_collector_by_https_is_known_by_its_authority(
    tls_files: TLSFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())  # which counts for nothing where we name one
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_files.server.certificate, tls_files.server.key)
    with collecting(context) as collector:
        url = collector.url.replace("http:", "https:")
        knowing = exporter_to(url, ca_file=tls_files.authority.certificate)
        assert knowing.export([make_span()]) == ""
        knowing.close()
        stranger = exporter_to(url)
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.export([make_span()]).upper().replace(" ", "_")
        stranger.close()
        assert len(collector.spans) == 1


def test_what_cannot_be_put_into_a_request(exporter: CollectorExporter) -> None:
    with logged() as records:
        assert exporter.export([make_span(start=-1)]) == "they could not be put into a request"
    assert records == []


def test_the_packages_log_is_left_as_it_was(collector: Collector) -> None:
    logger = logging.getLogger("opentelemetry")
    before = (logger.propagate, list(logger.handlers))
    exporter = exporter_to(collector.url)
    assert not logger.propagate
    exporter.close()
    exporter.close()
    assert (logger.propagate, list(logger.handlers)) == before


# The sender.


class Scripted:
    """An exporter that answers as it is told, and waits where it is told to."""

    def __init__(self) -> None:
        self.reason = ""
        self.batches: list[Sequence[Span]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_closed = threading.Event()
        self.began = threading.Semaphore(0)

    def export(self, spans: Sequence[Span]) -> str:
        self.began.release()
        self.batches.append(spans)
        while not self.goes_on.wait(0.01) and not self.is_closed.is_set():
            pass
        if self.reason == "raise":
            raise RuntimeError(self.reason)
        return self.reason

    def close(self) -> None:
        self.is_closed.set()

    def wait_for_one(self) -> None:
        assert self.began.acquire(timeout=WAIT_SECONDS)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.close()


def wait_for(sender: SpanSender, **counts: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while dict(sender.counts()) != counts:
        assert time.monotonic() < deadline, sender.counts()
        time.sleep(0.005)


def test_spans_go_in_batches_and_are_counted(scripted: Scripted) -> None:
    sender = SpanSender(scripted)
    sender.put([make_span() for _ in range(BATCH_SPANS_MAX + 1)])
    sender.start()
    wait_for(sender, sent=BATCH_SPANS_MAX + 1, dropped=0)
    assert [len(batch) for batch in scripted.batches] == [BATCH_SPANS_MAX, 1]
    sender.put([make_span()])
    wait_for(sender, sent=BATCH_SPANS_MAX + 2, dropped=0)
    sender.stop()


def test_spans_without_room_are_dropped_and_nobody_waits(scripted: Scripted) -> None:
    sender = SpanSender(scripted)
    scripted.goes_on.clear()
    sender.start()
    sender.put([make_span()])
    scripted.wait_for_one()
    for _ in range(3):
        sender.put([make_span() for _ in range(QUEUE_SPANS_MAX // 2)])
    assert sender.counts() == {"sent": 0, "dropped": QUEUE_SPANS_MAX // 2}
    scripted.goes_on.set()
    wait_for(sender, sent=1 + QUEUE_SPANS_MAX, dropped=QUEUE_SPANS_MAX // 2)
    sender.stop()


@pytest.mark.parametrize("reason", ["it is away", "raise"])
def test_a_collector_that_is_away_is_told_once_and_when_it_is_back(scripted: Scripted, reason: str) -> None:
    sender = SpanSender(scripted, back_off_seconds=0.001)
    scripted.reason = reason
    with capture_logs() as lines:
        sender.start()
        for number in range(1, 4):
            sender.put([make_span()])
            wait_for(sender, sent=0, dropped=number)
        scripted.reason = ""
        sender.put([make_span(), make_span()])
        wait_for(sender, sent=2, dropped=3)
        sender.stop()
    words = "RuntimeError in the exporter" if reason == "raise" else reason
    assert [(line["what"], line.get("reason"), line.get("dropped")) for line in lines] == [
        ("spans of traces are dropped: they cannot be delivered", words, None),
        ("spans of traces are delivered again", None, 3),
    ]


def test_the_end_delivers_what_waits(scripted: Scripted) -> None:
    sender = SpanSender(scripted, flush_seconds=WAIT_SECONDS)
    sender.put([make_span() for _ in range(3 * BATCH_SPANS_MAX)])
    sender.start()
    sender.stop()
    assert sender.counts() == {"sent": 3 * BATCH_SPANS_MAX, "dropped": 0}
    assert scripted.is_closed.is_set()


def test_the_end_does_not_wait_for_a_collector_that_is_away(scripted: Scripted) -> None:
    sender = SpanSender(scripted, back_off_seconds=3600.0, flush_seconds=WAIT_SECONDS)
    scripted.reason = "it is away"
    sender.put([make_span() for _ in range(3 * BATCH_SPANS_MAX)])
    sender.start()
    scripted.wait_for_one()
    began = time.monotonic()
    sender.stop()
    assert time.monotonic() - began < WAIT_SECONDS
    assert len(scripted.batches) == 1


def test_the_end_does_not_wait_for_a_collector_that_hangs(collector: Collector) -> None:
    collector.answers = False
    sender = SpanSender(exporter_to(collector.url), flush_seconds=0.05)
    sender.put([make_span()])
    sender.start()
    collector.wait(lambda: bool(collector.requests), "request")
    began = time.monotonic()
    sender.stop()
    assert time.monotonic() - began < WAIT_SECONDS / 2


def test_an_end_before_the_start_is_one(scripted: Scripted) -> None:
    SpanSender(scripted).stop()
    assert scripted.is_closed.is_set()
