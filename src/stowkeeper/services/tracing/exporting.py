"""The one place that knows OpenTelemetry: spans to a collector by OTLP over HTTP, in protobuf.

It is imported where traces are wanted alone: the packages are an extra (`stowkeeper[otel]`), and they take a third of a second.

What the packages log about a request that failed, once for each of its tries, goes to no log: the reason is returned.
"""

import logging
from collections.abc import Mapping, Sequence
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

from stowkeeper.services.tracing.limits import EXPORT_SECONDS, REASON_LETTERS_MAX
from stowkeeper.services.tracing.span import Span, SpanKind, text

_KINDS: Final[Mapping[SpanKind, Kind]] = {
    SpanKind.SERVER: Kind.SERVER,
    SpanKind.CLIENT: Kind.CLIENT,
    SpanKind.INTERNAL: Kind.INTERNAL,
}
_REDIRECTED: Final = range(300, 400)
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
        self._transport = _Transport(ca_file)
        session = requests.Session()
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
        return self._transport.failure or "they could not be put into a request"

    def close(self) -> None:
        """End what `export` waits for. Twice is fine."""
        if not self._is_closed:
            self._is_closed = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # it is written without types
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


class _Transport(HTTPAdapter):
    """Notes why a request failed, and follows no redirect: it would take the secret of a headers file where nobody meant."""

    def __init__(self, ca_file: str) -> None:
        super().__init__()
        self._ca_file = ca_file
        self.failure = ""

    def send(self, *args: Any, **options: Any) -> requests.Response:  # noqa: ANN401 - handed on as they are
        """Send a request. Raises what the adapter raises, and TooManyRedirects for the first one."""
        self.failure = ""
        if self._ca_file:  # a session takes a bundle that the environment names before its own
            options["verify"] = self._ca_file
        try:
            response = super().send(*args, **options)
        except requests.RequestException as error:
            self.failure = _words_of(error)
            raise
        if response.status_code in _REDIRECTED:
            response.close()
            self.failure = f"it answered {response.status_code}, and redirects are not followed"
            raise requests.TooManyRedirects(self.failure)
        if not response.ok:
            self.failure = f"it answered {response.status_code} {response.reason}"
        return response


def _words_of(error: BaseException) -> str:
    """Return what the system said, below all that was made of it."""
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    within: BaseException | None = error
    while within is not None:
        if isinstance(within, OSError) and within.strerror:
            return within.strerror
        within = within.__cause__ or within.__context__
    return text(str(error))[:REASON_LETTERS_MAX] or type(error).__name__


class _Quiet(logging.Handler):
    """Keeps from all logs what the packages say of each try."""

    def __init__(self) -> None:
        super().__init__()
        self._logger = logging.getLogger("opentelemetry")
        self._propagated = self._logger.propagate
        self._logger.propagate = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Leave the packages' log as it was."""
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
        super().close()
