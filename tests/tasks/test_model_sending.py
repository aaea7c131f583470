"""Calls of models that go wrong, over HTTP: what is sent again, what counts, and what no endpoint can talk away.

The actions are run here and now, and not on a worker: what they are charged is the same.
"""

import importlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from acp_tasks import bootstrap
from acp_tasks.agents.scripted_model import ScriptedModel
from governance.core.switches import Mode, Scope
from governance.errors import InvalidOption, ModelCallFailed, ModelCallRefused
from governance.operations import audit, switches
from governance.operations.audit import seal
from tests.support.fleet import Shop, eventually
from tests.support.governed import ANN, POLICY
from tests.support.model_books import account, calls, flags, told

WRITTEN = 'small-w: {input: "1.00", cached: "0.50", written: "1.25", output: "4.00"}'
WHOLE = {("cost_micros", "post", "unreported"), ("tokens", "post", "unreported")}


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(seed=3, key="sesame") as served:
        yield served


@pytest.fixture(scope="module")
def shop(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory, broker_address: str, model: ScriptedModel
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "key").write_text("sesame\n")
    policy = folder / "priced.yaml"
    policy.write_text(POLICY.replace("prices: {", f"prices: {{{WRITTEN}, "))
    settings = {"ACP_MODEL_URL": model.url, "ACP_MODEL_KEY_FILE": str(folder / "key"), "ACP_POLICY": str(policy)}
    shop = Shop(folder, module_database_url, broker_address, **settings)
    try:
        yield shop
        seal(shop.gov)
        assert audit.verify(shop.gov).problems == ()
    finally:
        shop.close()


@pytest.fixture(scope="module")
def modelling(shop: Shop) -> Any:
    """The tasks that call models; the shop's app is there once its broker is."""
    return importlib.import_module("tests.support.modelling")


def used(shop: Shop, stream: str) -> tuple[int, int]:
    """Money and tokens that a stream's actions were charged, none of which is held any more."""
    (cost_micros, held), (tokens, held_tokens) = account(shop, stream, "cost_micros"), account(shop, stream, "tokens")
    assert (held, held_tokens) == (0, 0)
    return cost_micros, tokens


def assert_whole(shop: Shop, done: Any, stream: str, output: int = 40) -> None:
    """All that was set aside counts, is flagged, and was worth something."""
    (call,) = calls(shop, done.id)
    assert (call["flag"], call["tokens_output"]) == ("unreported", output)
    assert used(shop, stream) == (call["cost_micros"], call["tokens_input"] + output)
    assert call["cost_micros"] >= output * 4
    assert flags(shop, done.id) == WHOLE


def test_what_says_that_it_did_no_work_is_tried_again_and_costs_nothing(
    shop: Shop, modelling: Any, model: ScriptedModel
) -> None:
    for status in (429, 503):
        before, stream = len(model.requests), f"later-{status}"
        # Of its own for each database: how often a conversation has failed is counted.
        asked = f"{shop.folder.name}\n!fail {status} 2 0.1\n!say at last"
        limited = modelling.asks.apply((asked,), stream=stream)
        assert limited.get() == "at last"
        assert len(model.requests) == before + 3
        (call,) = calls(shop, limited.id)
        assert used(shop, stream)[1] == call["tokens_input"] + call["tokens_output"]

        never = modelling.asks.apply((f"!fail {status} 0 0.05",), stream=f"never-{status}")
        assert isinstance(never.result, ModelCallFailed)
        assert f"{status} in 4 tries" in never.result.problem
        patience = modelling.asks.apply((f"!fail {status} 0 90",), stream=f"never-{status}")
        assert isinstance(patience.result, ModelCallFailed)
        assert "asks for 90 s" in patience.result.problem
        assert len(model.requests) == before + 8
        assert (calls(shop, never.id), flags(shop, never.id)) == ([], set())
        assert used(shop, f"never-{status}") == (0, 0)
    assert modelling.talks.apply(
        (str(shop.folder), f"{shop.folder.name}\n!fail 503 1 0.05\n!say in pieces"), stream="later-503"
    ).result == ("in pieces")


@pytest.mark.parametrize("status", [400, 408, 500, 502, 504])
def test_what_may_have_been_worked_on_is_not_repeated_and_counts_as_a_whole(
    shop: Shop, modelling: Any, model: ScriptedModel, status: int
) -> None:
    before = len(model.requests)
    broken = modelling.asks.apply((f"!fail {status} 0 0.05",), {"max_tokens": 40}, stream=f"broken-{status}")
    assert isinstance(broken.result, ModelCallFailed)
    assert f"answered {status}:" in broken.result.problem
    assert len(model.requests) == before + 1
    assert_whole(shop, broken, f"broken-{status}")
    # Whatever was said before it.
    asked = f"{shop.folder.name}\n!fail 503 1 0.05\n!fail {status} 0"
    streamed = modelling.talks.apply((str(shop.folder), asked), {"max_tokens": 40}, stream=f"torn-{status}")
    assert isinstance(streamed.result, ModelCallFailed)
    assert_whole(shop, streamed, f"torn-{status}")


def test_a_connection_that_breaks_off_counts_as_a_whole(shop: Shop, modelling: Any, model: ScriptedModel) -> None:
    before = len(model.requests)
    cut = modelling.asks.apply(("!cut 0",), {"max_tokens": 40}, stream="cut")
    assert isinstance(cut.result, ModelCallFailed)
    assert_whole(shop, cut, "cut")
    torn = modelling.talks.apply((str(shop.folder), "!words 30\n!cut 5"), {"max_tokens": 40}, stream="torn")
    assert isinstance(torn.result, ModelCallFailed)
    assert "the stream broke off" in torn.result.problem
    assert_whole(shop, torn, "torn")
    late = modelling.asks.apply(("!slow 5",), {"max_tokens": 40, "timeout": 0.2}, stream="late")
    assert isinstance(late.result, ModelCallFailed)
    assert_whole(shop, late, "late")
    assert len(model.requests) == before + 3


@contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Iterator[None]:
    """This process with other settings for a while."""
    with monkeypatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        bootstrap.parts.cache_clear()
        yield
        bootstrap.governance().store.close()
    bootstrap.parts.cache_clear()


def test_what_nobody_has_heard_costs_nothing(
    shop: Shop, modelling: Any, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(model.requests)
    with elsewhere(monkeypatch, ACP_MODEL_KEY_FILE=str(shop.folder / "no-key")):
        assert isinstance(modelling.asks.apply(("hello",), stream="unheard").result, ModelCallFailed)
    with elsewhere(monkeypatch, ACP_MODEL_URL=""):
        assert isinstance(modelling.asks.apply(("hello",), stream="unheard").result, ModelCallFailed)
    assert len(model.requests) == before
    (shop.folder / "guess").write_text("guess")
    with elsewhere(monkeypatch, ACP_MODEL_KEY_FILE=str(shop.folder / "guess")):
        stranger = modelling.asks.apply(("hello",), stream="unheard").result
    assert isinstance(stranger, ModelCallFailed)
    assert "answered 401:" in stranger.problem
    assert isinstance(modelling.asks.apply(("!fail 404",), stream="unheard").result, ModelCallFailed)
    assert used(shop, "unheard") == (0, 0)

    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    answers: list[str] = []
    with elsewhere(monkeypatch, ACP_MODEL_URL=f"http://127.0.0.1:{port}/v1"), capture_logs() as logs:
        calling = threading.Thread(
            target=lambda: answers.append(modelling.asks.apply(("!say here",), stream="heard").get())
        )
        calling.start()
        eventually(lambda: [log for log in logs if log["event"] == "model call is tried again"], "nobody was there")
        with ScriptedModel(port=port, key="sesame"):
            calling.join()
    assert answers == ["here"]


def test_a_switch_that_strikes_between_two_tries_costs_nothing(
    shop: Shop, modelling: Any, model: ScriptedModel
) -> None:
    before = len(model.requests)
    ended: list[Any] = []
    calling = threading.Thread(target=lambda: ended.append(modelling.asks.apply(("!fail 503 0 30",), stream="struck")))
    calling.start()
    eventually(lambda: len(model.requests) > before, "the first try")
    switches.engage(shop.gov, Scope.STREAM, "struck", mode=Mode.KILL, reason="enough", by=ANN)
    calling.join(20)
    assert shop.state(ended[0].id) == "cancelled"
    assert len(model.requests) == before + 1
    assert (used(shop, "struck"), calls(shop, ended[0].id)) == ((0, 0), [])


@pytest.mark.parametrize(
    "said",
    [
        "-5 10",
        "10 -5",
        "10 5 99",
        "0 0",
        "10 0",
        "0 10",
        "100000000000000000000 1",
        "1 1 0 0 9999999999999",
        "10 5 6 6",
    ],
)
def test_usage_that_cannot_be_counts_as_the_whole_hold(shop: Shop, modelling: Any, said: str) -> None:
    stream = f"lies-{said.replace(' ', '-')}"
    liar = modelling.asks.apply((f"!usage {said}",), {"max_tokens": 40}, stream=stream)
    assert liar.get()
    assert_whole(shop, liar, stream)


def test_usage_beyond_the_hold_counts_in_full(shop: Shop, modelling: Any) -> None:
    more = modelling.asks.apply(("!usage 5000 900 0 0 6000",), {"max_tokens": 40}, stream="beyond")
    assert more.get()
    # What is in the sum alone is the model's thoughts.
    assert used(shop, "beyond") == (5000 + 1000 * 4, 6000)
    assert flags(shop, more.id) == {("cost_micros", "post", "over_hold"), ("tokens", "post", "over_hold")}


def test_what_goes_into_the_cache_has_its_own_price_and_is_held_for(shop: Shop, modelling: Any) -> None:
    wrote = modelling.asks.apply(("!usage 1000 10 200 400",), {"model": "small-w"}, stream="wrote")
    assert wrote.get()
    assert used(shop, "wrote") == (400 + 100 + 500 + 40, 1010)
    (event,) = told(shop, wrote.id, "model.called")
    assert event["written"] == {"tokens": 400, "price": 1_250_000}
    unsaid = modelling.asks.apply(("!usage none",), {"model": "small-w", "max_tokens": 40}, stream="may-write")
    (call,) = calls(shop, unsaid.id)
    assert used(shop, "may-write")[0] == -(-call["tokens_input"] * 5 // 4) + 160


def test_a_stream_without_usage_or_with_too_much_said_counts_as_a_whole(
    shop: Shop, modelling: Any, model: ScriptedModel
) -> None:
    silent = modelling.talks.apply(
        (str(shop.folder), "!words 3"), {"max_tokens": 40, "stream_options": {"include_usage": False}}, stream="asked"
    )
    assert silent.get()
    (call,) = calls(shop, silent.id)
    assert (call["flag"], call["tokens_output"]) == (None, 3)

    # A usage that is said early is no leave to go on.
    running = "!words 400\n!overrun\n!running\n!usage 1 1"
    over = modelling.talks.apply((str(shop.folder), running), {"max_tokens": 40}, stream="running")
    assert isinstance(over.result, ModelCallRefused)
    assert over.result.rule == "hold:used-up"
    assert_whole(shop, over, "running")
    # The arguments of a tool are an answer as well.
    tool = {"type": "function", "function": {"name": "note", "parameters": {"type": "object"}}}
    long = "!call note " + json.dumps({"text": "x" * 400})
    asked = {"max_tokens": 40, "tools": [tool]}
    noted = modelling.talks.apply((str(shop.folder), long), asked, stream="noted")
    assert isinstance(noted.result, ModelCallRefused)
    assert_whole(shop, noted, "noted")


def test_a_stream_that_was_dropped_counts_as_a_whole(shop: Shop, modelling: Any) -> None:
    """Also beside a call that was heard to its end: what is under way when the body returns is not free."""
    dropped = modelling.drops.apply(("hello", "!words 30"), stream="dropped")
    assert dropped.get()
    (heard,) = calls(shop, dropped.id)
    cost_micros, tokens = used(shop, "dropped")
    assert tokens > heard["tokens_input"] + heard["tokens_output"] + 60
    assert cost_micros > heard["cost_micros"] + 60 * 4
    assert flags(shop, dropped.id) == WHOLE
    modelling.left_open.pop().close()
    assert used(shop, "dropped") == (cost_micros, tokens)


def test_what_is_sent_besides_messages_is_held_and_what_makes_no_sense_is_not_sent(
    shop: Shop, modelling: Any, model: ScriptedModel
) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"description": "x" * 3000}}}
    plain = modelling.asks.apply(("!usage none",), {"max_tokens": 40}, stream="plain")
    formed = modelling.asks.apply(("!usage none",), {"max_tokens": 40, "response_format": schema}, stream="formed")
    (one,), (other,) = calls(shop, plain.id), calls(shop, formed.id)
    assert other["tokens_input"] > one["tokens_input"] + 1000
    assert used(shop, "formed")[0] > used(shop, "plain")[0] + 1000

    both = modelling.asks.apply(("hello",), {"max_tokens": 300, "max_completion_tokens": 30}, stream="both")
    assert both.get()
    assert model.requests[-1].get("max_tokens", model.requests[-1].get("max_completion_tokens")) == 30
    before = len(model.requests)
    for option, value in {"max_tokens": 0, "n": -1, "extra_body": {"n": 5}, "stream": True}.items():
        refused = modelling.asks.apply(("hello",), {option: value}, stream="senseless").result
        assert isinstance(refused, InvalidOption)
        assert refused.option == option
    many = modelling.asks.apply(("hello",), {"n": 10**6, "max_tokens": 1000}, stream="small").result
    assert isinstance(many, ModelCallRefused)
    assert many.rule == "budget:cost_micros"
    assert len(model.requests) == before
    assert (used(shop, "senseless"), used(shop, "small")) == ((0, 0), (0, 0))
