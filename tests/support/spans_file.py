"""The spans of a process, one JSON object a line, in a file."""

import json


def install(path: str) -> None:
    """Before governance starts: the app's own tracer provider."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    def line(span: ReadableSpan) -> str:
        return json.dumps(json.loads(span.to_json(indent=None))) + "\n"

    provider = TracerProvider()
    file = open(path, "a")  # noqa: SIM115 - as long as the process
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=file, formatter=line)))
    trace.set_tracer_provider(provider)
