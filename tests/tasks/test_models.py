"""Calls of models inside actions, on real workers and over HTTP."""

import importlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from acp_tasks.agents.scripted_model import ScriptedModel
from acp_tasks.stop import stop
from governance.core.switches import Mode, Scope
from governance.errors import ActionCancelled, ModelCallRefused
from governance.operations import audit
from governance.operations.audit import seal
from tests.support.fleet import Shop, eventually, failure
from tests.support.governed import ANN
from tests.support.model_books import account, calls, flags, told


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(seed=1, key="sesame") as served:
        yield served


@pytest.fixture(scope="module")
def shop(
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    broker_address: str,
    model: ScriptedModel,
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "key").write_text("sesame\n")
    settings = {"ACP_MODEL_URL": model.url, "ACP_MODEL_KEY_FILE": str(folder / "key")}
    shop = Shop(folder, module_database_url, broker_address, **settings)
    try:
        worker = shop.worker(concurrency=3)
        worker.ready()
        yield shop
    finally:
        shop.close()


@pytest.fixture(scope="module")
def modelling(shop: Shop) -> Any:
    """The tasks that call models; the shop's app is there once its broker is."""
    return importlib.import_module("tests.support.modelling")


def last_bound(model: ScriptedModel) -> int:
    return int(model.requests[-1]["max_tokens"])


def test_what_calls_and_the_body_used_adds_up_and_is_written_down(
    shop: Shop, modelling: Any, model: ScriptedModel
) -> None:
    held = modelling.holds.apply_async(("!usage 100 10 40",), stream="add", identity={"user": "u1"})
    assert held.get(timeout=20)
    (call,) = calls(shop, held.id)
    # 60 at $1, 40 at $0.50 and 10 at $4 a million; the body's own 100 micro-USD and 20 tokens besides.
    assert call["cost_micros"] == 60 + 20 + 40
    assert (call["tokens_input"], call["tokens_cached"], call["tokens_output"]) == (100, 40, 10)
    assert (call["price_input"], call["price_cached"], call["price_output"]) == (1_000_000, 500_000, 4_000_000)
    assert call["price_table"].startswith("policy ")
    assert (call["tier"], call["flag"]) == ("standard", None)
    assert (account(shop, "add", "cost_micros"), account(shop, "add", "tokens")) == ((220, 0), (130, 0))
    (event,) = told(shop, held.id, "model.called")
    assert (event["model"], event["cost_micros"], event["user"]) == ("small-1", 120, "u1")
    # It held enough beforehand: nothing was topped up.
    assert told(shop, held.id, "action.topped_up") == []

    more = modelling.asks.apply_async(("hello",), {"max_tokens": 50}, stream="add")
    assert more.get(timeout=20)
    (call,) = calls(shop, more.id)
    assert len(told(shop, more.id, "action.topped_up")) == 1
    assert account(shop, "add", "cost_micros") == (220 + call["cost_micros"], 0)
    assert account(shop, "add", "tokens") == (130 + call["tokens_input"] + call["tokens_output"], 0)

    streamed = modelling.talks.apply_async((str(shop.folder), "!words 12"), stream="add")
    assert len(streamed.get(timeout=20).split()) == 12
    (call,) = calls(shop, streamed.id)
    assert (call["tokens_output"], call["flag"]) == (12, None)
    assert last_bound(model) == 1024


def test_a_model_that_is_not_the_callers_is_refused_at_the_call(
    shop: Shop, modelling: Any, model: ScriptedModel
) -> None:
    before = len(model.requests)
    refused = modelling.asks.apply_async(("hello",), {"model": "large-1"}, stream="who", identity={"team": "t2"})
    problem = failure(refused)
    assert isinstance(problem, ModelCallRefused)
    assert (problem.model, problem.rule) == ("large-1", "model:premium")
    assert len(model.requests) == before
    (denied,) = told(shop, refused.id, "model.denied")
    assert (denied["model"], denied["team"]) == ("large-1", "t2")
    row = shop.gov.store.read("SELECT state, error_type, error FROM actions WHERE id = :id", {"id": refused.id})[0]
    assert (row[0], row[1]) == ("failed", "ModelCallRefused")
    assert "model:premium" in row[2]

    assert modelling.copes.apply_async(("hello",), stream="who").get(timeout=20) == ["large-1", "model:premium"]
    assert modelling.asks.apply_async(("hi",), {"model": "large-1"}, stream="who", identity={"team": "t1"}).id
    trial = modelling.asks.apply_async(("hi",), {"model": "secret-1"}, stream="who", identity={"user": "u9"})
    # Nobody knows its price, and the action holds no money: it is not taken for free.
    priceless = failure(trial)
    assert isinstance(priceless, ModelCallRefused)
    assert priceless.rule == "price:unknown"
    trial = modelling.asks.apply_async(
        ("hi",), {"model": "secret-1"}, stream="who", identity={"user": "u9"}, cost_usd="0.01"
    )
    assert trial.get(timeout=20)
    (call,) = calls(shop, trial.id)
    assert (call["override_id"], call["flag"], call["price_table"]) == ("trial", "unpriced", None)
    (event,) = told(shop, trial.id, "model.called")
    assert event["override"]["reason"] == "a trial"
    assert flags(shop, trial.id) == {("cost_micros", "post", "unreported")}

    switched = stop(
        shop.tasks.app, shop.gov, Scope.MODEL, "small-9*", mode=Mode.KILL, reason="it raves", by=ANN, grace_s=5
    )
    assert switched is not None
    stopped = failure(modelling.asks.apply_async(("hello",), {"model": "small-9b"}, stream="who"))
    assert isinstance(stopped, ModelCallRefused)
    assert (stopped.rule, stopped.reason) == ("switch:model:small-9*", "it raves")


def test_the_hold_bounds_what_is_sent_and_a_budget_without_room_refuses(
    shop: Shop, modelling: Any, model: ScriptedModel
) -> None:
    # The stream `small` has 1000 tokens.
    bounded = modelling.asks.apply_async(("!words 30",), {"max_tokens": 5000}, stream="small")
    assert len(bounded.get(timeout=20).split()) == 30
    assert 800 < last_bound(model) < 1000
    used = account(shop, "small", "tokens")[0]
    assert account(shop, "small", "tokens") == (used, 0)
    filled = modelling.asks.apply_async((f"!usage {1000 - used - 50} 10",), {"max_tokens": 30}, stream="small")
    assert filled.get(timeout=20)
    before = len(model.requests)
    problem = failure(modelling.asks.apply_async(("hello " * 30,), stream="small"))
    assert isinstance(problem, ModelCallRefused)
    assert problem.rule == "budget:tokens"
    assert "tokens left" in problem.reason
    assert len(model.requests) == before
    assert account(shop, "small", "tokens") == (1000 - 40, 0)


def test_each_call_is_a_span_with_what_it_used(shop: Shop, modelling: Any, exporter: InMemorySpanExporter) -> None:
    """Called directly, actions run in this process, under its tracer."""
    assert modelling.asks("!usage 100 10 40", max_tokens=50)
    assert modelling.copes("hello")
    modelling.talks(str(shop.folder), "!words 3\n!usage none", max_tokens=60)
    found = [span for span in exporter.get_finished_spans() if span.kind.name == "CLIENT"]
    assert [span.name for span in found] == ["chat small-1", "chat large-1", "chat small-1", "chat small-1"]
    run_ids = {
        span.context.span_id for span in exporter.get_finished_spans() if span.name == "acp.run" and span.context
    }
    assert {span.parent.span_id for span in found if span.parent} == run_ids
    used, refused, _, silent = (dict(span.attributes or {}) for span in found)
    assert used.pop("gen_ai.response.id")
    assert used == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small-1",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.model": "small-1",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "acp.cost_micros": 120,
        "acp.decision": "allowed",
    }
    assert (refused["acp.decision"], refused["acp.rule"]) == ("refused", "model:premium")
    assert found[1].status.status_code.name == "ERROR"
    assert silent["acp.flag"] == "unreported"
    assert "gen_ai.usage.input_tokens" not in silent


def test_a_call_without_usage_posts_the_whole_hold_and_is_flagged(shop: Shop, modelling: Any) -> None:
    silent = modelling.holds.apply_async(("!usage none",), stream="silent")
    assert silent.get(timeout=20)
    (call,) = calls(shop, silent.id)
    assert call["flag"] == "unreported"
    assert (account(shop, "silent", "cost_micros"), account(shop, "silent", "tokens")) == ((10_000, 0), (500, 0))
    assert flags(shop, silent.id) == {("cost_micros", "post", "unreported"), ("tokens", "post", "unreported")}
    mute = modelling.talks.apply_async((str(shop.folder), "!words 3\n!usage none"), {"max_tokens": 60}, stream="mute")
    assert mute.get(timeout=20)
    (call,) = calls(shop, mute.id)
    assert account(shop, "mute", "tokens") == (call["tokens_input"] + 60, 0)


def test_a_stream_ends_with_a_stop_and_with_its_hold(shop: Shop, modelling: Any) -> None:
    words = "!words 400\n!pause 0.1"
    cut = modelling.talks.apply_async((str(shop.folder), words), {"max_tokens": 500}, stream="stopped")
    eventually(lambda: f"heard {cut.id} 1" in shop.effects(), "the first word")
    stop(shop.tasks.app, shop.gov, Scope.ACTION, cut.id, mode=Mode.KILL, reason="enough", by=ANN, grace_s=10)
    problem = failure(cut)
    assert isinstance(problem, ActionCancelled)
    (call,) = calls(shop, cut.id)
    assert (call["flag"], call["tokens_output"]) == ("unreported", 500)
    assert account(shop, "stopped", "tokens") == (call["tokens_input"] + 500, 0)
    assert flags(shop, cut.id) == {("cost_micros", "post", "unreported"), ("tokens", "post", "unreported")}

    endless = modelling.talks.apply_async((str(shop.folder), "!words 400\n!overrun"), {"max_tokens": 20}, stream="over")
    refused = failure(endless)
    assert isinstance(refused, ModelCallRefused)
    assert refused.rule == "hold:used-up"
    assert calls(shop, endless.id)[0]["flag"] == "unreported"


def test_a_run_that_is_killed_in_a_call_is_charged_its_whole_hold(
    shop: Shop, modelling: Any, model: ScriptedModel
) -> None:
    before = len(model.requests)
    killed = modelling.holds.apply_async(("!slow 2\n!usage 10 5",), stream="killed")
    eventually(lambda: len(model.requests) > before, "the call is under way")
    child = shop.gov.store.read("SELECT lease_child FROM actions WHERE id = :id", {"id": killed.id})[0][0]
    os.kill(int(child), signal.SIGKILL)
    assert killed.get(timeout=30)
    assert flags(shop, killed.id) == {(unit, "expire", "unreported") for unit in ("actions", "cost_micros", "tokens")}
    (call,) = calls(shop, killed.id)
    assert call["attempt"] == 2
    assert account(shop, "killed", "tokens") == (500 + 15 + 20, 0)
    seal(shop.gov)
    assert audit.verify(shop.gov).problems == ()
