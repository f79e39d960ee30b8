"""The one place that knows OpenTelemetry: spans to a collector by OTLP over HTTP, in protobuf.

It is imported where traces are wanted alone: the packages are an extra (`stowkeeper[otel]`), and they take a third of a second.

What the packages log about a request that failed, once for each of its tries, goes to no log: the reason is returned.

The packages' time limit is one for each read, and they read an answer to its end, however long it is. So a collector that drips
would keep the thread for ever, and one that streams would fill the memory: here both are cut.
"""

import contextlib
import http.client
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace import SpanKind as Kind
from requests.adapters import HTTPAdapter

from stowkeeper.services.tracing.limits import ANSWER_BYTES_MAX, EXPORT_SECONDS, REASON_LETTERS_MAX
from stowkeeper.services.tracing.span import Span, SpanKind, text

_KINDS: Final[Mapping[SpanKind, Kind]] = {
    SpanKind.SERVER: Kind.SERVER,
    SpanKind.CLIENT: Kind.CLIENT,
    SpanKind.INTERNAL: Kind.INTERNAL,
}
_REDIRECTED: Final = range(300, 400)
_IN_TIME: Final = "it did not answer in time"
_TALKATIVE: Final = ("opentelemetry", "urllib3")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class CollectorExporter:
    """Delivers spans to a collector. For one thread at a time; `close` is for any.

    `endpoint` is the whole URL, `headers` go with each request, and `ca_file` holds the authorities by one of which the
    server of an https one has to be known, '' for those that the machine trusts. Raises OSError for a `ca_file` that is not there.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Mapping[str, str],
        ca_file: str = "",
        service_name: str,
        version: str,
        instance: str,
        seconds: float = EXPORT_SECONDS,
    ) -> None:
        self._quiet = _Quiet()
        self._transport = _Transport(ca_file, seconds)
        session = requests.Session()
        session.auth = _as_it_is  # else one of ~/.netrc would replace that of a headers file
        for scheme in ("http://", "https://"):
            session.mount(scheme, self._transport)
        self._resource = Resource(
            {"service.name": service_name, "service.version": version, "service.instance.id": instance}
        )
        self._scope = InstrumentationScope("stowkeeper", version)
        self._exporter = OTLPSpanExporter(
            endpoint=endpoint,
            certificate_file=ca_file or None,
            headers=dict(headers),
            timeout=seconds,
            compression=Compression.Gzip,
            session=session,
        )
        self._is_closed = False

    def export(self, spans: Sequence[Span]) -> str:
        """Deliver some spans; return '' where the collector has them, else why not. Blocks."""
        self._transport.failure = ""
        try:
            result = self._exporter.export([self._readable(span) for span in spans])
        except (TypeError, ValueError):  # as older versions say that something cannot be encoded
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            return ""
        return self._transport.failure[:REASON_LETTERS_MAX] or "they could not be put into a request"

    def close(self) -> None:
        """End what `export` waits for. Twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # it is written without types
            self._transport.end()
            self._quiet.close()

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=_context(span.trace_id, span.span_id),
            parent=_context(span.trace_id, span.parent_id) if span.parent_id else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            links=() if span.link is None else (Link(_context(*span.link)),),
            kind=_KINDS[span.kind],
            status=Status() if span.failure is None else Status(StatusCode.ERROR, text(span.failure)),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=self._scope,
        )


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _Transport(HTTPAdapter):
    """Notes why a request failed, and follows no redirect: it would take the secret of a headers file where nobody meant.

    A request that is not answered in time is cut, whatever still comes.
    """

    def __init__(self, ca_file: str, seconds: float) -> None:
        super().__init__()
        self._ca_file = ca_file
        self._seconds = seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._was_cut = False
        self._is_over = False
        self.failure = ""

    def send(self, *args: Any, **options: Any) -> requests.Response:  # noqa: ANN401 - handed on as they are
        """Send a request. Raises what the adapter raises, and TooManyRedirects for the first one."""
        self.failure = ""
        self._was_cut = False
        if self._is_over:
            raise requests.RequestException("closed")
        if self._ca_file:  # a session takes a bundle that the environment names before its own
            options["verify"] = self._ca_file
        timeout = options.get("timeout")
        deadline = threading.Timer(timeout if isinstance(timeout, float) else self._seconds, self.cut)
        deadline.daemon = True
        deadline.start()
        try:
            response = super().send(*args, **options)
            self._take_answer(response)
        except requests.RequestException as error:
            self.failure = _IN_TIME if self._was_cut else _words_of(error)
            raise
        finally:
            deadline.cancel()
        if response.status_code in _REDIRECTED:
            self.failure = f"it answered {response.status_code}, and redirects are not followed"
            raise requests.TooManyRedirects(self.failure)
        if not response.ok:
            self.failure = f"it answered {response.status_code} {response.reason}"
        return response

    def end(self) -> None:
        """Cut what is there, and begin nothing any more: the packages try again at once. From any thread."""
        self._is_over = True
        self.cut()

    def cut(self) -> None:
        """End the connection that is there, and what waits for it; from any thread."""
        with self._lock:
            self._was_cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                self._socket.close()
                self._socket = None

    def _take_answer(self, response: requests.Response) -> None:
        """Read the body, of which nothing is wanted, so far that the connection can be used again. Raises ReadTimeout."""
        try:
            response.raw.read(ANSWER_BYTES_MAX, decode_content=False)
        except Exception:  # noqa: BLE001 - its head has said what became of the spans
            response.close()
        if self._was_cut:
            response.close()
            raise requests.ReadTimeout(_IN_TIME)
        if response.raw.length_remaining != 0:
            response.close()
        response._content = b""  # noqa: SLF001 - whoever asks for the body reads no further

    def get_connection(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as above; for requests before 2.32
        """Return the connections to a place."""
        return self._noting(super().get_connection(*args, **options))

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        """Return the connections to a place."""
        return self._noting(super().get_connection_with_tls_context(*args, **options))

    def _noting(self, pool: Any) -> Any:  # noqa: ANN401 - one of several kinds of pools
        if not issubclass(pool.ConnectionCls, _Noting):
            kind = type("NotingConnection", (_Noting, pool.ConnectionCls), {"note": staticmethod(self._note)})
            pool.ConnectionCls = kind
        return pool

    def _note(self, made: socket.socket) -> None:
        # Another descriptor of the same connection: TLS takes this one away.
        with self._lock:
            before, self._socket = self._socket, made.dup()
        if before is not None:
            before.close()
        if self._is_over:
            self.cut()


class _Noting:
    """Part of a connection that tells of its socket as soon as there is one, before any greeting of TLS."""

    note: Callable[[socket.socket], None]

    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()  # type: ignore[misc]  # that of the connection's own class
        self.note(made)
        return made


def _words_of(error: BaseException) -> str:
    """Return what the system said, below all that was made of it."""
    if isinstance(error, requests.Timeout):
        return _IN_TIME
    within: BaseException | None = error
    while within is not None:
        if isinstance(within, OSError) and within.strerror:
            return within.strerror
        if isinstance(within, http.client.RemoteDisconnected):
            return "it closed the connection without an answer"
        if isinstance(within, http.client.HTTPException):  # its text quotes what came, whatever that is
            return f"it answered what is no HTTP ({type(within).__name__})"
        within = within.__cause__ or within.__context__
    return text(str(error)) or type(error).__name__


class _Quiet(logging.Handler):
    """Keeps from all logs what the packages say of each try; some of it quotes what came."""

    def __init__(self) -> None:
        super().__init__()
        self._before = [(logger, logger.propagate) for logger in map(logging.getLogger, _TALKATIVE)]
        for logger, _ in self._before:
            logger.propagate = False
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Leave the packages' logs as they were."""
        for logger, propagated in self._before:
            logger.removeHandler(self)
            logger.propagate = propagated
        super().close()
