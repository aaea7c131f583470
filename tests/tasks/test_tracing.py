"""One trace from the producer to the end of the action on its worker; and nothing of it where nobody traces."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from governance import tracing
from tests.support.fleet import ROOT, Shop, eventually

WAIT_S = 20


def trace_id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


@pytest.fixture
def shop(tmp_path: Path, sqlite_url: str, broker_url: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, sqlite_url, broker_url)
    try:
        yield shop
    finally:
        shop.close()


def test_the_trace_of_the_producer_is_carried_to_the_worker_also_past_a_decision(
    shop: Shop, exporter: InMemorySpanExporter
) -> None:
    spans = shop.folder / "spans.jsonl"
    shop.worker(environment={"ACP_TRACING": "true", "SHOP_SPANS": str(spans)}).ready()
    ran = shop.tasks.flaky.delay(1)
    asked = shop.tasks.ask.delay("c1")
    assert ran.get(timeout=WAIT_S) == [1, 2]
    shop.until(asked.id, "parked")
    shop.approve(asked.id)
    assert asked.get(timeout=WAIT_S) == 1
    submitted = [span for span in exporter.get_finished_spans() if span.name == "acp.submit"]
    first, second = (f"0x{trace_id_of(span):032x}" for span in submitted)
    assert first != second

    def seen(trace_id: str, at_least: int) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in spans.read_text().splitlines()]
        mine = [span for span in found if span["context"]["trace_id"] == trace_id]
        finished = [span for span in mine if span["name"] == "acp.action"]
        return mine if len(finished) >= at_least else []

    # One attempt that asked for another, and that one.
    of_first = eventually(lambda: seen(first, 2), "the worker's spans of the first trace")
    names = [span["name"] for span in of_first]
    assert [names.count(name) for name in ("acp.admit", "acp.run", "acp.finish")] == [2, 2, 2]
    # Once to be parked, once after the decision, which another process has published.
    of_second = eventually(lambda: seen(second, 2), "the worker's spans of the second trace")
    decisions = [span["attributes"]["acp.decision"] for span in of_second if span["name"] == "acp.admit"]
    assert decisions == ["parked", "admitted"]
    by_id = {span["context"]["span_id"]: span["name"] for span in of_second}
    inside = {span["name"]: by_id.get(span["parent_id"]) for span in of_second if span["name"].startswith("acp.")}
    assert {name: inside[name] for name in ("acp.admit", "acp.run", "acp.finish")} == {
        "acp.admit": "acp.action",
        "acp.run": "acp.action",
        "acp.finish": "acp.action",
    }


def test_a_model_call_has_the_semantic_names(exporter: InMemorySpanExporter) -> None:
    with tracing.span("acp.run"), tracing.model_call("gpt-x", provider="openai", max_tokens=50) as call:
        call.decided("allowed")
        call.used(input_tokens=10, output_tokens=5, cached_tokens=4, cost_micros=120, response_model="gpt-x-1")
    model, run = exporter.get_finished_spans()
    assert (model.name, model.kind.name, run.name) == ("chat gpt-x", "CLIENT", "acp.run")
    assert model.parent is not None
    assert model.parent.trace_id == trace_id_of(run)
    assert dict(model.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.response.model": "gpt-x-1",
        "acp.cost_micros": 120,
        "acp.decision": "allowed",
    }


def test_nothing_is_inside_of_a_model_call_and_its_end_says_why(exporter: InMemorySpanExporter) -> None:
    """A stream goes on while its caller does other things."""

    def broken() -> None:
        with tracing.model_call("gpt-x") as call:
            call.decided("refused", "model:premium")
            with tracing.span("acp.submit"):
                raise ValueError("broke off")

    with pytest.raises(ValueError, match="broke off"):
        broken()
    inner, model = exporter.get_finished_spans()
    assert (inner.name, inner.parent, model.name) == ("acp.submit", None, "chat gpt-x")
    assert (model.status.status_code.name, model.status.description) == ("ERROR", "ValueError: broke off")
    assert (model.attributes or {})["acp.rule"] == "model:premium"


def test_a_parent_that_makes_no_sense_is_none(exporter: InMemorySpanExporter) -> None:
    for parent in (7, "", "00-zz", {"a": 1}, None):
        with tracing.span("acp.action", parent=parent):
            pass
    assert all(span.parent is None for span in exporter.get_finished_spans())


def test_where_nobody_traces_nothing_of_it_is_imported(tmp_path: Path) -> None:
    program = """
import sys
from acp_tasks import bootstrap, governed
from governance import tracing
bootstrap.parts()
with tracing.span("acp.admit"), tracing.model_call("m") as call:
    call.used(input_tokens=1)
assert tracing.traceparent() is None
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    url = f"sqlite:///{tmp_path / 'none.db'}"
    environment = {"PYTHONPATH": str(ROOT), "ACP_STATE_DIR": str(tmp_path), "ACP_DATABASE_URL": url, "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    tracing_on = {**environment, "ACP_TRACING": "true", "OTEL_TRACES_EXPORTER": "absent"}
    done = subprocess.run([sys.executable, "-c", program], env=tracing_on, cwd=tmp_path, capture_output=True, text=True)
    assert "ACP_TRACING is set and there is no exporter 'absent'" in done.stderr
