"""OpenTelemetry (the extra `otel`): `ACP_TRACING` has governance's spans, and Celery's own, in one trace.

The trace of whoever submits is kept in the message header `acp`, so that it is the same when the relay, a decision or a
retry publishes the message again, hours later. The process's own tracer provider takes the spans; where an app has set
none, one is made with the exporters that OTEL_TRACES_EXPORTER names.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import entry_points
from typing import Any, Final

from governance import tracing
from governance.errors import SettingsInvalid
from governance.tracing import Attribute, Span

INSTALL: Final = "pip install 'acp-tasks[otel]'"
_SCOPE: Final = "acp_tasks"


def start() -> None:
    """Traces this process, and the pool children that are forked from it. Once; raises SettingsInvalid."""
    if tracing.is_traced():
        return
    try:
        from opentelemetry import trace
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
    except ImportError:
        raise SettingsInvalid([f"ACP_TRACING is set and opentelemetry is not installed: {INSTALL}"]) from None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(_provider())
    instrumentor: Any = CeleryInstrumentor
    instrumentor().instrument()
    tracing.use(OpenTelemetry(trace.get_tracer_provider()))


class OpenTelemetry:
    """Governance's spans as OpenTelemetry takes them."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._tracer = provider.get_tracer(_SCOPE)
        self._carriers = TraceContextTextMapPropagator()

    def span(
        self, name: str, kind: str, parent: str | None, attributes: Mapping[str, Attribute | None], leaf: bool
    ) -> AbstractContextManager[Span]:
        context, links = self._place(parent)
        given = {key: value for key, value in attributes.items() if value is not None}
        kinds = self._api.SpanKind
        opened = self._leaf if leaf else self._opened
        return opened(name, context=context, links=links, kind=kinds[kind.upper()], attributes=given)

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        self._carriers.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def _opened(self, name: str, **options: Any) -> Iterator[Span]:
        with self._tracer.start_as_current_span(name, **options) as opened:
            yield _Span(opened, self._api)

    @contextmanager
    def _leaf(self, name: str, **options: Any) -> Iterator[Span]:
        opened = self._tracer.start_span(name, **options)
        span = _Span(opened, self._api)
        try:
            yield span
        except Exception as problem:
            opened.record_exception(problem)
            span.fail(f"{type(problem).__name__}: {problem}")
            raise
        finally:
            opened.end()

    def _place(self, parent: str | None) -> tuple[Any, list[Any]]:
        """The context to be in, and what to link to: the open span when it is of the same trace, else the parent."""
        if parent is None:
            return None, []
        context = self._carriers.extract({"traceparent": parent})
        wanted = self._api.get_current_span(context).get_span_context()
        current = self._api.get_current_span().get_span_context()
        if not wanted.is_valid or (current.is_valid and current.trace_id == wanted.trace_id):
            return None, []
        return context, [self._api.Link(current)] if current.is_valid else []


class _Span:
    def __init__(self, opened: Any, api: Any) -> None:
        self._opened, self._api = opened, api

    def set(self, attributes: Mapping[str, Attribute | None]) -> None:
        for key, value in attributes.items():
            if value is not None:
                self._opened.set_attribute(key, value)

    def fail(self, why: str) -> None:
        self._opened.set_status(self._api.Status(self._api.StatusCode.ERROR, why))


def _provider() -> Any:
    """One that exports in batches. Raises SettingsInvalid for an exporter that is not installed."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    for name in names:
        if name in ("", "none"):
            continue
        found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
        if found is None:
            advice = "install its exporter (such as opentelemetry-exporter-otlp), or set OTEL_TRACES_EXPORTER"
            raise SettingsInvalid([f"ACP_TRACING is set and there is no exporter {name!r}: {advice}"])
        provider.add_span_processor(BatchSpanProcessor(found.load()()))
    return provider
