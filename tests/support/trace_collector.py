"""A collector of OpenTelemetry traces on a real socket: it reads OTLP over HTTP in protobuf, and answers as it is told."""

import gzip
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

WAIT_SECONDS = 30.0
_KINDS = {
    SpanMessage.SPAN_KIND_SERVER: "server",
    SpanMessage.SPAN_KIND_CLIENT: "client",
    SpanMessage.SPAN_KIND_INTERNAL: "internal",
}


@dataclass(frozen=True)
class CollectedSpan:
    """A span as it came: ids in hexadecimal, times in nanoseconds, `failure` None where it is not one."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    start: int
    end: int
    attributes: Mapping[str, Any]
    failure: str | None
    links: tuple[tuple[str, str], ...]
    resource: Mapping[str, Any]
    scope: tuple[str, str]


@dataclass
class Collector:
    """What came, and what is answered: `status` with `fields`; `answers` False answers nothing until the end."""

    port: int = 0
    status: int = 200
    answers: bool = True
    fields: dict[str, str] = field(default_factory=dict)
    spans: list[CollectedSpan] = field(default_factory=list)
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def wait(self, is_there: Callable[[], bool], what: str) -> None:
        """Wait for something to be true of what came."""
        deadline = time.monotonic() + WAIT_SECONDS
        with self.changed:
            while not is_there():
                left = deadline - time.monotonic()
                assert left > 0, f"no {what} within {WAIT_SECONDS:g} s: {[span.name for span in self.spans]}"
                self.changed.wait(left)

    def trace(self, trace_id: str) -> list[CollectedSpan]:
        """Return the spans of a trace, by their start."""
        with self.changed:
            return sorted(
                (span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start
            )

    def take(self, path: str, fields: Mapping[str, str], body: bytes) -> None:
        """Read a request."""
        found = []
        if self.status == 200:
            assert fields["content-type"] == "application/x-protobuf"
            content = gzip.decompress(body) if fields.get("content-encoding") == "gzip" else body
            found = list(spans_in(ExportTraceServiceRequest.FromString(content)))
        with self.changed:
            self.requests.append((path, fields))
            self.spans += found
            self.changed.notify_all()


def spans_in(request: ExportTraceServiceRequest) -> Iterator[CollectedSpan]:
    """Yield the spans of a request."""
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope.name, scope_spans.scope.version
            for span in scope_spans.spans:
                assert len(span.trace_id) == 16
                assert len(span.span_id) == 8
                yield CollectedSpan(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=_KINDS[span.kind],
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    failure=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    resource=resource,
                    scope=scope,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


def _fields(message: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in message.items()}


@contextmanager
def collecting(tls: ssl.SSLContext | None = None) -> Iterator[Collector]:
    """Run a collector for the length of a block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not collector.answers:
                collector.take(self.path, _fields(self.headers), body)
                collector.over.wait(WAIT_SECONDS)
                self.close_connection = True
                return
            status, fields = collector.status, dict(collector.fields)
            collector.take(self.path, _fields(self.headers), body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    collector.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
